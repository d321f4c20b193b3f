"""`fcos forecast`: short runs on parts of the images and of the time, and what more of either would bring."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..changes import load_yaml
from ..config import Config, from_dict
from ..data.dataset import Dataset
from ..errors import ConfigError, DataError
from ..evaluation.forecast import Between, Curve, fit, scatter
from ..evaluation.uncertainty import Interval
from ..show.curves import Learned, learning_curves
from ..system.environment import CONFIG_FILE, HASHES, METRICS_FILE, RESULT, check_same, data_hashes
from ..system.files import check_folder, own, sweep, whole_set, write_whole
from ..system.readers import TEXT_LIMIT, read_json
from ..system.stop import Stopped
from ..system.terminal import plural
from .extrapolate import gained
from .given_settings import given_settings
from .output.checkpoint import checkpoints
from .output.folder import RunFolder, alone
from .planning.minutes import LEAST, TooLittleTime, check
from .program import train

SHARES = (0.3, 0.55, 1.0)  # of the images, and of the time of a run
RUNS = sum(SHARES) + len(SHARES) - 1  # times of a whole run that all of them take: the last of both is the same run
LEAST_MINUTES = math.ceil(2 * LEAST * RUNS / SHARES[0]) / 2
_FEWEST = 10  # images of the smallest part
_ASKED = "asked.json"


class Scored(NamedTuple):
    """AP of a run, and its standard error by the choice of the images it was judged by; nan: not known."""

    ap: float
    error: float


Learn = Callable[[str, Dataset, float], Scored]
"""(name of the run, images to learn from, minutes) -> how it is judged."""


@dataclass(frozen=True)
class Forecast:
    """`by_time` and `by_images`: (minutes of a run, AP) and (images, AP) as measured, with the curves through them;
    `noise`: the scatter of the whole run's AP; `minutes` and `images` more are what is asked about; `model`: the preset
    that all runs took."""

    by_time: tuple[tuple[float, float], ...]
    by_images: tuple[tuple[float, float], ...]
    time: Curve
    number: Curve
    noise: float
    minutes: float
    images: int
    model: str = ""

    @property
    def more_time(self) -> Between:
        """What `minutes` more add to AP."""
        return self.time.gain(self.by_time[-1][0], self.minutes, self.noise)

    @property
    def more_images(self) -> Between:
        """What `images` more add to AP."""
        return self.number.gain(self.by_images[-1][0], self.images, self.noise)

    def text(self) -> str:
        """Two lines, in AP 0..1 as everywhere."""
        time, number = self.by_time[-1][0], int(self.by_images[-1][0])
        taught = f"{time:.3g} minutes{self.model and f' of {self.model}'}"
        return (
            f"after {taught} on {plural(number, 'image')}: AP {self.by_time[-1][1]:.3f}\n"
            f"{self.minutes:g} more minutes: {gained(self.more_time)}; "
            f"{plural(self.images, 'more image')}: {gained(self.more_images)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "by_time": [list(point) for point in self.by_time],
            "by_images": [list(point) for point in self.by_images],
            "more_minutes": {"minutes": self.minutes, **self.more_time._asdict()},
            "more_images": {"images": self.images, **self.more_images._asdict()},
            "scatter": self.noise,
            "model": self.model,
        }

    def write(self, folder: Path) -> Path:
        """forecast.json and forecast.png, both curves; the path of the plot."""
        sides = (
            Learned("minutes of a run", self.by_time, self.time, self.by_time[-1][0] + self.minutes),
            Learned("images to learn from", self.by_images, self.number, self.by_images[-1][0] + self.images),
        )
        with whole_set():
            write_whole(folder / "forecast.json", json.dumps(self.to_dict(), indent=1))
            return write_whole(folder / "forecast.png", lambda path: learning_curves(sides, path))


def check_enough(data: Mapping[str, Dataset]) -> None:
    """DataError where there is nothing to judge by or too little to take a part of."""
    train = data["train"]
    if "val" not in data:
        raise DataError(f"{train.root}: a forecast needs images to judge by; give --holdout 0.1")
    if len(train) * SHARES[0] < _FEWEST:
        raise DataError(f"{train.root}: {plural(len(train), 'image')} are too few to learn from a part of them")


def measured(data: Mapping[str, Dataset], learn: Learn, minutes: float, more: tuple[float, int]) -> Forecast:
    """The forecast from runs that `learn` does, `minutes` all together; `more` minutes and images are asked about.

    The whole run comes first. Parts of the images are drawn with one order, so that a larger one holds the smaller.
    DataError where there is nothing to judge by or too little to take a part of.
    """
    check_enough(data)
    train, whole = data["train"], minutes / RUNS
    order = np.random.default_rng(0).permutation(len(train))
    parts = [train.subset(sorted(order[: round(share * len(train))].tolist())) for share in SHARES]
    last = learn(_whole(train), parts[-1], whole)
    by_time = [(share * whole, learn(f"time-{share:g}", train, share * whole)) for share in SHARES[:-1]]
    by_images = [(float(len(part)), learn(f"images-{len(part)}", part, whole)) for part in parts[:-1]]
    by_time.append((whole, last))
    by_images.append((float(len(train)), last))

    def curve(measured: Sequence[tuple[float, Scored]]) -> Curve:
        return fit([x for x, _ in measured], [s.ap for _, s in measured], [scatter(s.error) for _, s in measured])

    time, number = (tuple((x, s.ap) for x, s in measured) for measured in (by_time, by_images))
    return Forecast(time, number, curve(by_time), curve(by_images), scatter(last.error), *more)


def forecast(
    data: Mapping[str, Dataset], out: Path, minutes: float, more: tuple[float, int], **options: Any
) -> Forecast:
    """Train on parts of `data` ("train" and "val") in the folder `out`, `minutes` in all, and say what `more` minutes
    and images would bring. `options` are those of `fcos.train`.

    Called again with the same data, minutes and options it goes on where it stopped: a run that has ended is read, one
    that was stopped or killed resumes. FcosError where `out` holds something else, or another process is at it.
    """
    check_enough(data)
    if minutes < LEAST_MINUTES:
        shares = f"its runs share them, and the shortest, {SHARES[0] / RUNS:.0%}, needs {LEAST:g} minutes"
        raise ConfigError(f"minutes={minutes:g}: {shares}; give {LEAST_MINUTES:g} or more")
    for share in SHARES:
        check(minutes * share / RUNS, given_settings(options.get("settings") or (), options.get("config")), 1)
    check_folder(out)
    asked = _asked(data, minutes, options)
    with alone(out, "forecast"):
        _check_same(out, asked)
        result = measured(data, _learn(data, out, minutes, options), minutes, more)
        result = replace(result, model=model_of(out / _whole(data["train"])))
        result.write(out)
    return result


def unfinished(data: Mapping[str, Dataset], out: Path, minutes: float, options: Mapping[str, Any]) -> bool:
    """Whether `out` holds the beginning of the forecast that would be asked for."""
    return _stored(out) == _asked(data, minutes, options) and not (out / "forecast.json").is_file()


def _asked(data: Mapping[str, Dataset], minutes: float, options: Mapping[str, Any]) -> dict[str, Any]:
    """What two calls for one folder must agree in."""
    model, config, settings = (options.get(key) for key in ("model", "config", "settings"))
    told = {
        "model": model.model_dump(mode="json") if isinstance(model, Config) else model,
        "settings": dict(settings) if isinstance(settings, Mapping) else list(settings or ()),
        "config": None if config is None else load_yaml(Path(config)),
        **{key: None if options.get(key) is None else str(options[key]) for key in ("init", "dialect")},
    }
    as_read: dict[str, Any] = json.loads(json.dumps({"minutes": minutes, **told}, default=str))
    return {**as_read, HASHES: data_hashes(data)}


def _stored(out: Path) -> object:
    file = out / _ASKED
    stored = read_json(file, TEXT_LIMIT) if file.is_file() else None
    if isinstance(stored, dict) and HASHES not in stored and isinstance(stored.get("data"), dict):
        stored = {"config": None, "init": None, "dialect": None, **stored}  # as version 1.0.0 has it
        stored[HASHES] = stored.pop("data")
    return stored


def _check_same(out: Path, asked: dict[str, Any]) -> None:
    """Keep what is asked for in a new folder; FcosError where another holds something else."""
    stored = _stored(out)
    own(out / _ASKED)
    if stored == asked:
        return
    if stored is None:
        sweep(out)
        if [p.name for p in out.iterdir() if p.name != "forecast.lock"]:
            raise DataError(f"{out} is not empty; give another --out")
    elif any(_begun(folder) for folder in out.iterdir()):
        check_same(out, "a forecast", stored, asked)
    write_whole(out / _ASKED, json.dumps(asked, indent=1) + "\n")


def _begun(folder: Path) -> bool:
    return bool(checkpoints(folder)) or RunFolder(folder, write=False).finished()


def _learn(data: Mapping[str, Dataset], out: Path, minutes: float, options: Mapping[str, Any]) -> Learn:
    """Run, resume or read a run in a folder of its own. All take the detector that the whole run took, which comes
    first: with less time `--minutes` may take another, and a curve through two says nothing."""
    whole = out / _whole(data["train"])

    def learn(name: str, part: Dataset, time: float) -> Scored:
        folder, seen = out / name, {"train": part, "val": data["val"]}
        told = {**options, "model": options.get("model") or (model_of(whole) if folder != whole else None)}
        try:
            if RunFolder(folder, write=False).finished():
                pass
            elif checkpoints(folder):
                train(seen, out=folder, resume=True, quiet=True, device=options.get("device", "auto"))
            else:
                train(seen, minutes=time, out=folder, quiet=True, **told)
        except TooLittleTime as error:
            enough = math.ceil(minutes * error.minutes / time)
            raise ConfigError(
                f"of {minutes:g} minutes the run {name} of the forecast has {time:.2g}, and needs {error.minutes:g}; "
                f"give the forecast {enough} minutes"
            ) from error
        except Stopped as stop:
            raise Stopped(f"stopped in {folder}; the same command goes on", stop.code - 128) from None
        return scored(folder)

    return learn


def _whole(train: Dataset) -> str:
    """The name of the run on all images for all of a run's time."""
    return f"images-{len(train)}"


def model_of(folder: Path) -> str:
    """The name of the preset of a run."""
    file = folder / CONFIG_FILE
    return from_dict(load_yaml(file), str(file)).name


def scored(folder: Path) -> Scored:
    """How a run that has ended was judged, by its files."""
    ap: object = None
    interval: object = None
    if (folder / METRICS_FILE).is_file():
        ap = _value(read_json(folder / METRICS_FILE, TEXT_LIMIT), "AP")
        interval = _value(read_json(folder / RESULT, TEXT_LIMIT), "AP")
    if not isinstance(ap, int | float) or not math.isfinite(ap):
        return Scored(0.0, math.nan)
    ends = [_value(interval, key) for key in ("value", "low", "high")]
    if not all(isinstance(end, int | float) for end in ends):
        return Scored(float(ap), math.nan)
    return Scored(float(ap), Interval(*ends).error)


def _value(stored: object, key: str) -> Any:
    return stored.get(key) if isinstance(stored, dict) else None
