"""From minutes to a run: look at the data, time some steps, plan, and keep the time (`fcos train --minutes`)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..config import Config
from ..data.cache import kept_bytes, room
from ..data.dataset import Dataset
from ..data.image import read_image
from ..errors import ConfigError, ImageError
from ..inference.composite import OWN, Looks, compose
from ..inference.dataset import Progress, predict_dataset
from ..inference.detector import Detector
from ..inference.tiles import Tiling
from ..machine import Placement, cpu_cores, pick_device
from ..terminal import clock
from . import plan as rules
from .clock import Budget, Deadline
from .facts import Facts, gather, through_tiles
from .memory import free_bytes, training_bytes
from .sample import sample_run
from .setup import bundled, known_classes
from .starting import Start, start_for
from .validation import eval_batch

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
    plan: rules.Plan
    lines: list[str]
    judging: float
    start: Start


def check(minutes: float, given: Mapping[str, object], processes: int) -> None:
    """ConfigError where the wish makes no sense."""
    if not LEAST <= minutes <= MOST:
        raise ConfigError(f"minutes={minutes:g}: give {LEAST:g} to {MOST:,}")
    both = [key for key in _SETTLED if key in given]
    if both:
        raise ConfigError(f"{both[0]} and minutes both say how long to train; leave one out")
    if processes > 1:
        raise ConfigError("minutes are planned for one process; leave out --devices and --nodes, or give train.epochs")


def prepare(wish: Wish, resolve: Resolve, data: Mapping[str, Dataset], timed: Timed | None = None) -> Prepared:
    """Time the likely configs and plan the rest of the minutes.

    `resolve(model, settings)` is the config of a preset with those settings below the user's. `timed`: another way to
    time a config than `measure`. Raises ConfigError where there is no time for a run, with what it takes.
    """
    timed = timed or measure
    device = pick_device(wish.device)
    cuda = device.type == "cuda"
    facts = gather(dict(data))
    batch = rules.batch_for(facts, cuda)
    model = rules.model_for(rules.Time(wish.budget.minutes), facts, cuda)
    if wish.model is not None:
        model = rules.Choice("model", wish.model, "asked for")
    own = resolve(model.value, {"train.batch": int(batch.value)})
    if "train.batch" in wish.given:
        batch = rules.Choice("batch", str(own.train.batch), "asked for")
    side = own.data.size if "data.size" in wish.given else 0
    settled = {"model"} if wish.model is not None else set()
    settled |= {"batch"} if "train.batch" in wish.given else set()
    free = free_bytes(device)

    def need(name: str, images: int, size: int = side) -> float:
        config = resolve(name, {"train.batch": images, **(rules.sides(size) if size else {})})
        return math.inf if config.train.batch % config.train.accumulate else training_bytes(config, device)

    def fit(model: rules.Choice) -> tuple[rules.Choice, rules.Choice]:
        return rules.in_memory(model, batch, need, free, settled)

    largest = model
    model, fewer = fit(model)
    asked: rules.Settings = {"train.batch": int(fewer.value)}
    # where the size is the user's, timed at the sizes that will be learned at
    config = resolve(model.value, {**asked, **rules.sides(side)} if side else asked)
    sized = any(key in wish.given for key in _SIZED)
    if model.value == rules.SMALLEST and model is largest and wish.model is None and not sized:
        brief = timed(config, {"train": data["train"]}, wish, brief=True)
        model, fewer = fit(rules.model_for(time_in(facts, brief, wish.budget.left), facts, cuda))
        asked["train.batch"] = int(fewer.value)
        config = resolve(model.value, asked)
    batch = fewer
    pace = timed(config, data, wish)
    tile = config.data.tile
    if not sized:
        tile = rules.tile_for(facts, config.data.size)
        if not affordable(data.get("val"), tile, pace, wish.budget.left):
            tile = 0
        elif tile:
            asked["data.tile"] = tile
            pace = timed(resolve(model.value, asked), data, wish)
    facts = through_tiles(facts, data["train"], tile)
    size = rules.Choice("size", str(config.data.size), "asked for")
    if "data.size" not in wish.given and not tile:
        most = max((s for s in rules.SIZES if need(model.value, pace.batch, s) <= free), default=0)
        size = rules.size_for(facts, config.data.size, time_in(facts, pace, wish.budget.left), most)
    if int(size.value) != pace.size:
        pace = pace.at(int(size.value))
        if pace.size > config.data.size:  # not only the number of pixels counts then, memory does too
            larger = {"train.batch": pace.batch, **rules.sides(pace.size)}
            pace = timed(resolve(model.value, larger), data, wish)
    cache, filling = None, 0.0
    if "data.cache" not in wish.given and not tile:
        uncached, decoding = time_in(facts, pace, wish.budget.left), seconds_to_decode(data["train"])
        whole = resolve(model.value, {**asked, **rules.sides(pace.size), "data.crop": 0.3})  # which takes the most
        left_over = max(0, int(room() - min(need(model.value, pace.batch, pace.size), free)))
        cache = rules.cache_for(decoding, pace, uncached, kept_bytes(data["train"], whole.data), left_over)
        if cache:
            kept = resolve(model.value, {**asked, **rules.sides(pace.size), "data.cache": cache.value})
            quicker = timed(kept, {"train": drawn(data["train"], _KEPT)}, wish)  # a few would be read ahead: not brief
            filling = decoding * facts.images
            if uncached.steps * (pace.step - quicker.step) > filling:
                pace, asked["data.cache"] = pace._replace(step=quicker.step), cache.value
            else:
                cache, filling = None, 0.0
        if not cache and uncached.epochs > rules.OFTEN and "data.mosaic" not in wish.given:
            pace = pace._replace(step=pace.step + rules.MORE_READ * decoding * pace.batch)
    given = dict(wish.given)
    given |= {"train.eval_every": config.train.eval_every} if "train.eval_every" in given else {}
    config = resolve(model.value, {**asked, **rules.sides(pace.size)})
    start = Start(wish.init, "")
    if wish.budget.minutes >= _PROBED:
        start = start_for(config, data["train"], wish.init, wish.device)
    known = known_classes(config, data["train"].classes, start.init)
    left = wish.budget.left - (facts.judged * pace.image if known else 0.0)  # what it begins from is judged
    left -= filling
    chosen = {"model": model, "batch": batch, "size": size, **({"cache": cache} if cache else {})}
    if config.train.linear_probe and len(known) < facts.classes:
        chosen["probe"], fitting = rules.probe_for(config.train.linear_probe, facts, pace, left)
        left -= fitting
    fitted = "probe" in chosen and start.init is None and bundled(config) is not None
    steps = time_in(facts, pace, left).steps if fitted else math.inf
    if (rate := rules.rate_for(config.train.lr, len(known), facts.classes, steps)) and "train.lr" not in wish.given:
        chosen["rate"] = rate
    if start.reason:
        chosen["start"] = rules.Choice("start", "backbone" if start.init else "detector", start.reason)
    if tile:
        if "data.size" not in wish.given:
            chosen["size"] = size._replace(reason="of a tile; the preset's, which its detector was trained at")
        why = f"the objects are too small for whole images, even at {rules.SIZES[-1]} px"
        chosen["tile"] = rules.Choice("tile", str(tile), "asked for" if tile == config.data.tile else why)
    made = rules.make_plan(facts, pace, left, chosen, given)
    if isinstance(made, rules.TooShort):
        more = math.ceil(2 * _MARGIN * (wish.budget.minutes + made.missing / 60)) / 2
        raise ConfigError(f"minutes={wish.budget.minutes:g} is too short: {made.reason}; give {more:g} minutes")
    deadline = Deadline(wish.budget.minutes * 60, made.tail, start=wish.budget.start)
    spent = clock(wish.budget.minutes * 60 - wish.budget.left)
    head = f"the plan for {clock(wish.budget.minutes * 60)} (minutes:seconds), {spent} of which are gone:"
    final = resolve(model.value, made.settings)
    lines = [head, *made.text().splitlines()]
    planned = final.train.iterations
    if planned < rules.FEW and 2 * len(known) < facts.classes:
        lines.append(f"{planned} steps are few to learn new classes from: more minutes would pay")
    lines.append("the run:")
    return Prepared(final, deadline, made, lines, facts.judged * pace.image, start)


def drawn(dataset: Dataset, most: int) -> Dataset:
    """At most so many images, evenly, of those with objects where there are any."""
    shown = np.unique(dataset.packed.owner[~dataset.packed.table.ignore])
    shown = shown if len(shown) else np.arange(len(dataset))
    return dataset.subset(shown[np.linspace(0, len(shown) - 1, min(most, len(shown))).round().astype(int)])


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
    steps = max((seconds - rules.ending(facts, pace)) / pace.step, 0.0)
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
            detector = compose([Detector(trainer.judged, config, trainer.classes, placement)], Looks(OWN))
            for _ in range(2):  # the first time warms up
                began = time.perf_counter()
                quiet = Progress(lambda _: None, True)
                predict_dataset(detector, few["val"], eval_batch(config, 1), allow_missing=True, progress=quiet)
                image = (time.perf_counter() - began) / len(few["val"])
    # the first step warms up; a quarter of the others are quicker than this: the number of steps can only be lowered
    quick = float(np.quantile(times[1:], 0.25))
    return rules.Pace(quick, image or quick / config.train.batch, trainer.config.train.batch, config.data.size)
