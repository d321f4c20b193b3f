"""From minutes to a run: look at the data, time some steps, plan, and keep the time (`fcos train --minutes`)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...config import Config
from ...data.dataset import Dataset
from ...data.images.reading import read_image
from ...data.loading.cache import kept_bytes, room
from ...errors import ConfigError, ImageError
from ...inference.composite import OWN, Looks, compose
from ...inference.dataset import SILENT, predict_dataset
from ...inference.detector import Detector
from ...inference.tiles import Tiling
from ...system.machine import Placement, pick_device
from ...system.terminal import clock
from ...system.threads import cpu_cores
from ..class_matching import drawn
from ..clock import Budget, Deadline
from ..memory import free_bytes, training_bytes
from ..setup import bundled, known_classes
from ..starting import Start, start_for
from ..validation import eval_batch
from . import rules
from .facts import Facts, facts_of, through_tiles
from .plan import Plan, TooShort, ending, make_plan, sides
from .sample import sample_run

LEAST, MOST = 0.5, 60 * 24 * 14  # minutes
_SIZED = ("data.tile", "data.size", "data.max_size", "data.train_sizes")
_SETTLED = ("train.epochs", "train.iterations")
_PROBED = 2  # minutes from which on there are seconds to ask what to start from
_MARGIN = 1.15  # more minutes than are just enough: the next time the machine may be slower
_JUDGED, _KEPT = 6, 32  # images that are judged for the pace, and that are kept in memory for it

Resolve = Callable[[str, Mapping[str, object]], Config]


class Timed(Protocol):
    """A way to time a config, as `measure` is one."""

    def __call__(
        self, config: Config, data: Mapping[str, Dataset], wish: Wish, *, brief: bool = False
    ) -> rules.Pace: ...


@dataclass(frozen=True)
class Wish:
    """What is asked for beside the data. given: settings of the user by their full name; model: the name, or None;
    device, init: as of `fcos.train`."""

    budget: Budget
    given: Mapping[str, object]
    model: str | None
    device: str
    init: str | None


@dataclass(frozen=True)
class Prepared:
    """What `prepare` came to: the config, the clock, lines to tell, the seconds of one evaluation, and what to start
    from."""

    config: Config
    deadline: Deadline
    plan: Plan
    lines: list[str]
    judging: float
    start: Start


class TooLittleTime(ConfigError):
    """There is no time for a run; `minutes`: how many it would take."""

    def __init__(self, message: str, minutes: float) -> None:
        super().__init__(message)
        self.minutes = minutes


def check(minutes: float, given: Mapping[str, object], processes: int) -> None:
    """ConfigError where the wish makes no sense."""
    if not LEAST <= minutes <= MOST:
        raise ConfigError(f"minutes={minutes:g}: give {LEAST:g} to {MOST:,}")
    both = [key for key in _SETTLED if key in given]
    if both:
        raise ConfigError(f"{both[0]} and minutes both say how long to train; leave one out")
    if processes > 1:
        raise ConfigError(
            f"minutes are planned for one process, and here are {processes}; start one (without --devices, --nodes and "
            "torchrun), or give train.epochs"
        )


def prepare(wish: Wish, resolve: Resolve, data: Mapping[str, Dataset], timed: Timed | None = None) -> Prepared:
    """Time the likely configs and plan the rest of the minutes.

    `resolve(model, settings)` is the config of a preset with those settings below the user's. `timed`: another way to
    time a config than `measure`. Raises ConfigError where there is no time for a run, with what it takes.
    """
    choosing = _Choosing(wish, resolve, data, timed or measure)
    choosing.take_model()
    choosing.take_tile()
    choosing.take_size()
    choosing.take_cache()
    choosing.take_start()
    choosing.take_rate()
    return choosing.planned()


class _Choosing:
    """The choices of a plan. Each `take_` makes one, or a few that hang together, and rests on those before it.

    asked: the settings so far, which stand below the user's. chosen: the same in words. pace: how quick they are.
    facts: of the images, or of their tiles. spent: seconds that the choices take before the first step.
    """

    pace: rules.Pace
    tile: int
    start: Start
    known: int  # classes that the start knows

    def __init__(self, wish: Wish, resolve: Resolve, data: Mapping[str, Dataset], timed: Timed) -> None:
        self.wish, self.data, self.timed, self.resolve = wish, data, timed, resolve
        self.device = pick_device(wish.device)
        self.cuda = self.device.type == "cuda"
        self.free = free_bytes(self.device)
        self.facts = facts_of(dict(data))
        self.asked: rules.Settings = {}
        self.chosen: dict[str, rules.Choice] = {}
        self.sized = any(key in wish.given for key in _SIZED)
        self.spent = 0.0

    def config(self, **more: object) -> Config:
        """Of the choices so far, and of `more` settings of the data. Images are kept nowhere unless `more` says so: to
        time a few steps, all of them would be decoded."""
        own = {f"data.{name}": value for name, value in more.items()}
        config = self.resolve(self.chosen["model"].value, {**self.asked, **own})
        return config.override({"data": {"cache": more.get("cache", "none")}})

    def take_model(self) -> None:
        """The preset and the images of a step, as the memory allows; the larger preset where a few timed steps of the
        smallest say that there is time for it."""
        wish, batch = self.wish, rules.batch_for(self.facts, self.cuda)
        model = rules.model_for(rules.Time(wish.budget.minutes), self.facts, self.cuda, wish.init == "none")
        if wish.model is not None:
            model = rules.Choice("model", wish.model, "asked for")
        own = self.resolve(model.value, {"train.batch": int(batch.value)})
        if "train.batch" in wish.given:
            batch = rules.Choice("batch", str(own.train.batch), "asked for")
        boxes = rules.boxes_for(model.value, wish.init == "none", wish.given)
        if boxes and own.model.regression == "relu" and own.model.normalize:  # as the preset has it
            self.asked |= rules.BINS
            self.chosen["boxes"] = boxes
        if "data.size" in wish.given:  # timed at the sizes that will be learned at
            self.asked |= sides(own.data.size)
        self._fit(model, batch)
        if model.value == rules.SMALLEST and wish.model is None and not self.sized and self.chosen["model"] is model:
            brief = self.timed(self.config(), {"train": self.data["train"]}, wish, brief=True)
            self._fit(rules.model_for(self._time(brief), self.facts, self.cuda, wish.init == "none"), batch)
        self.pace = self.timed(self.config(), self.data, wish)

    def _fit(self, model: rules.Choice, batch: rules.Choice) -> None:
        """Both, or less where the memory asks for it."""
        settled = {"model"} if self.wish.model is not None else set()
        settled |= {"batch"} if "train.batch" in self.wish.given else set()
        model, batch = rules.in_memory(model, batch, self._need, self.free, settled)
        self.chosen |= {"model": model, "batch": batch}
        self.asked["train.batch"] = int(batch.value)

    def _need(self, name: str, images: int, size: int = 0) -> float:
        """Bytes of training a preset with so many images a step, at another size than was asked for if any."""
        sized = sides(size) if size else {}
        config = self.resolve(name, {**self.asked, **sized, "train.batch": images})
        if config.train.batch % config.train.accumulate:
            return math.inf
        return training_bytes(config, self.device, self.facts.classes)

    def _time(self, pace: rules.Pace) -> rules.Time:
        return time_in(self.facts, pace, self.wish.budget.left - self.spent)

    def take_tile(self) -> None:
        """Tiles of the images instead of whole ones, where the objects are too small otherwise."""
        config = self.config()
        self.tile = config.data.tile
        if not self.sized:
            self.tile = rules.tile_for(self.facts, config.data.size)
            if not affordable(self.data.get("val"), self.tile, self.pace, self.wish.budget.left):
                self.tile = 0
            elif self.tile:
                self.asked["data.tile"] = self.tile
                self.pace = self.timed(self.config(), self.data, self.wish)
        self.facts = through_tiles(self.facts, self.data["train"], self.tile)
        if self.tile:
            why = f"the objects are too small for whole images, even at {rules.SIZES[-1]} px"
            told = "asked for" if self.tile == config.data.tile else why
            self.chosen["tile"] = rules.Choice("tile", str(self.tile), told)

    def take_size(self) -> None:
        """The input's size."""
        model, config = self.chosen["model"].value, self.config()
        size = rules.Choice("size", str(config.data.size), "asked for")
        if "data.size" not in self.wish.given:
            if self.tile:
                size = size._replace(reason="of a tile; the preset's, which its detector was trained at")
            else:
                fitting = (s for s in rules.SIZES if self._need(model, self.pace.batch, s) <= self.free)
                size = rules.size_for(self.facts, config.data.size, self._time(self.pace), max(fitting, default=0))
        self.chosen["size"] = size
        if int(size.value) != self.pace.size:
            self.pace = self.pace.at(int(size.value))
            if self.pace.size > config.data.size:  # not only the number of pixels counts then, memory does too
                self.asked |= sides(self.pace.size)
                self.pace = self.timed(self.config(), self.data, self.wish)
        self.asked |= sides(self.pace.size)

    def take_cache(self) -> None:
        """Keep decoded images in memory if the timed steps are so much quicker that it pays. If the user chose a cache,
        only measure how quick the steps are with it."""
        train, pace, model = self.data["train"], self.pace, self.chosen["model"].value
        if "data.cache" in self.wish.given:
            asked = self.resolve(model, self.asked).data.cache
            if asked != "none":
                self.pace = pace._replace(step=min(pace.step, self._cached(asked).step))
                self.spent += seconds_to_decode(train) * len(train)
            return
        if self.tile:
            return
        uncached, decoding = self._time(pace), seconds_to_decode(train)
        whole = self.config(crop=0.3)  # which takes the most
        left_over = max(0, int(room() - min(self._need(model, pace.batch), self.free)))
        cache = rules.cache_for(decoding, pace, uncached, kept_bytes(train, whole.data), left_over)
        if cache:
            quicker = self._cached(cache.value)
            filling = decoding * self.facts.images
            if uncached.steps * (pace.step - quicker.step) > filling:
                self.pace, self.asked["data.cache"] = pace._replace(step=quicker.step), cache.value
                self.chosen["cache"] = cache
                self.spent += filling
                return
        if uncached.epochs > rules.OFTEN and "data.mosaic" not in self.wish.given:
            self.pace = pace._replace(step=pace.step + rules.MORE_READ * decoding * pace.batch)

    def _cached(self, cache: str) -> rules.Pace:
        """The pace with some images kept there; not timed briefly, as a few steps would be read ahead."""
        return self.timed(self.config(cache=cache), {"train": drawn(self.data["train"], _KEPT)}, self.wish)

    def take_start(self) -> None:
        """What to begin from, and the fit of the layer of classes to a detector that does not know them all."""
        wish, config = self.wish, self.config()
        self.start = Start(wish.init, "")
        if wish.budget.minutes >= _PROBED:
            self.start = start_for(config, self.data["train"], wish.init, wish.device)
        if self.start.reason:
            name = "backbone" if self.start.init else "detector"
            self.chosen["start"] = rules.Choice("start", name, self.start.reason)
        named = len(known_classes(config, self.data["train"].classes, self.start.init))
        self.known = named + len(self.start.seen)
        if self.known:  # what it begins from is judged
            self.spent += self.facts.judged * self.pace.image
        if config.train.linear_probe and named < self.facts.classes:
            left = wish.budget.left - self.spent
            self.chosen["probe"], fitting = rules.probe_for(config.train.linear_probe, self.facts, self.pace, left)
            self.spent += fitting

    def take_rate(self) -> None:
        """The learning rate, by what the start knows."""
        config = self.config()
        fitted = "probe" in self.chosen and self.start.init is None and bundled(config) is not None
        steps = self._time(self.pace).steps if fitted else math.inf
        rate = rules.rate_for(config.train.lr, self.known, self.facts.classes, steps)
        if rate and "train.lr" not in self.wish.given:
            self.chosen["rate"] = rate

    def planned(self) -> Prepared:
        """The plan of all choices, or ConfigError with what it would take."""
        budget, pace, given = self.wish.budget, self.pace, dict(self.wish.given)
        if "train.eval_every" in given:  # as a number
            given["train.eval_every"] = self.config().train.eval_every
        made = make_plan(self.facts, pace, budget.left - self.spent, self.chosen, given)
        if isinstance(made, TooShort):
            more = math.ceil(2 * _MARGIN * (budget.minutes + made.missing / 60)) / 2
            reason = f"minutes={budget.minutes:g} is too short: {made.reason}; give {more:g} minutes"
            raise TooLittleTime(reason, more)
        deadline = Deadline(budget.minutes * 60, made.tail, start=budget.start)
        gone = clock(budget.minutes * 60 - budget.left)
        head = f"the plan for {clock(budget.minutes * 60)} (minutes:seconds), {gone} of which are gone:"
        final = self.resolve(self.chosen["model"].value, made.settings)
        lines = [head, *made.text().splitlines()]
        planned = final.train.iterations
        if planned < rules.FEW and 2 * self.known < self.facts.classes:
            lines.append(f"{planned} steps are few to learn new classes from: more minutes would pay")
        lines += [*self.start.sights(), "the run:"]
        return Prepared(final, deadline, made, lines, self.facts.judged * pace.image, self.start)


def seconds_to_decode(dataset: Dataset) -> float:
    """Of an image, where all cores decode: by a few of them, one after another. What cannot be read is left to
    training."""
    times = []
    for record in drawn(dataset, _JUDGED).records:
        began = time.perf_counter()
        try:
            read_image(str(record.path))
        except ImageError:
            continue
        times.append(time.perf_counter() - began)
    return float(np.median(times)) / cpu_cores() if times else 0.0


def time_in(facts: Facts, pace: rules.Pace, seconds: float) -> rules.Time:
    """What there is in the seconds, the end of the run taken off."""
    steps = max((seconds - ending(facts, pace)) / pace.step, 0.0)
    return rules.Time(seconds / 60, steps, steps * pace.batch / max(facts.images, 1))


def affordable(val: Dataset | None, tile: int, pace: rules.Pace, seconds: float) -> bool:
    """Whether judging through tiles takes no more than a quarter of the seconds, by the pace of whole images."""
    if not tile or val is None:
        return True
    windows = sum(len(Tiling(tile).windows(r.size)) for r in val.records)
    return windows * pace.image <= seconds / 4


def more_steps(done: int, now: float, end: float, latest: float) -> bool:
    """Whether to time another step: six at least and up to 40 until `end`, but none past `latest`; a machine that is
    busy with other work must not spend the minutes on looking at itself."""
    return now < latest and (done < 6 or (now < end and done < 40))


def measure(config: Config, data: Mapping[str, Dataset], wish: Wish, *, brief: bool = False) -> rules.Pace:
    """Seconds of a step and of judging an image, by doing some in a run that is thrown away: `more_steps`, two at
    least; `brief`: six at most."""
    val = data.get("val")
    judged = 2 if config.data.tile else _JUDGED
    few = {"train": data["train"], **({} if val is None else {"val": val.subset(range(min(judged, len(val))))})}
    times: list[float] = []
    with sample_run(config, few, wish.init, wish.device) as (trainer, step):
        whole = wish.budget.minutes * 60
        end, latest = (
            time.monotonic() + seconds for seconds in (0.0 if brief else min(20.0, 0.05 * whole), 0.15 * whole)
        )
        while len(times) < 2 or more_steps(len(times), time.monotonic(), end, latest):
            began = time.perf_counter()
            step()
            times.append(time.perf_counter() - began)
        image = 0.0
        if val is not None:
            trainer.network.eval()
            placement = Placement(trainer.fabric.device)
            detector = compose([Detector(trainer.shipped, config, trainer.classes, placement)], Looks(OWN))
            for _ in range(2):  # the first time warms up
                began = time.perf_counter()
                predict_dataset(detector, few["val"], eval_batch(config, 1), allow_missing=True, progress=SILENT)
                image = (time.perf_counter() - began) / len(few["val"])
    # the first step warms up; a quarter of the others are quicker than this: the number of steps can only be lowered
    quick = float(np.quantile(times[1:], 0.25))
    return rules.Pace(quick, image or quick / trainer.config.train.batch, trainer.config.train.batch, config.data.size)
