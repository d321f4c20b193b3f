"""`fcos forecast`: short runs on parts of the images and of the time, and what more of either would bring."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.dataset import Dataset
from ..errors import ConfigError, DataError
from ..evaluation.forecast import Between, Curve, fit, scatter
from ..files import check_folder, write_whole
from ..show.curves import Learned, learning_curves
from ..terminal import plural
from .outlook import points

SHARES = (0.3, 0.55, 1.0)  # of the images, and of the time of a run
RUNS = sum(SHARES) + len(SHARES) - 1  # times of a whole run that all of them take: the last of both is the same run
_FEWEST = 10  # images of the smallest part


class Scored(NamedTuple):
    """AP of a run, and its standard error by the choice of the images it was judged by; nan: not known."""

    ap: float
    error: float


Learn = Callable[[str, Dataset, float], Scored]
"""(name of the run, images to learn from, minutes) -> how it is judged."""


@dataclass(frozen=True)
class Forecast:
    """`by_time` and `by_images`: (minutes of a run, AP) and (images, AP) as measured, with the curves through them;
    `noise`: the scatter of the whole run's AP; `minutes` and `images` more are what is asked about."""

    by_time: tuple[tuple[float, float], ...]
    by_images: tuple[tuple[float, float], ...]
    time: Curve
    number: Curve
    noise: float
    minutes: float
    images: int

    @property
    def more_time(self) -> Between:
        """What `minutes` more add to AP."""
        return self.time.gain(self.by_time[-1][0], self.minutes, self.noise)

    @property
    def more_images(self) -> Between:
        """What `images` more add to AP."""
        return self.number.gain(self.by_images[-1][0], self.images, self.noise)

    def text(self) -> str:
        """Two lines, in points of AP."""
        time, number = self.by_time[-1][0], int(self.by_images[-1][0])
        return (
            f"after {time:.3g} minutes on {plural(number, 'image')}: AP {100 * self.by_time[-1][1]:.1f}\n"
            f"{self.minutes:g} more minutes: {points(self.more_time)}; "
            f"{plural(self.images, 'more image')}: {points(self.more_images)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "by_time": [list(point) for point in self.by_time],
            "by_images": [list(point) for point in self.by_images],
            "more_minutes": {"minutes": self.minutes, **self.more_time._asdict()},
            "more_images": {"images": self.images, **self.more_images._asdict()},
            "scatter": self.noise,
        }

    def write(self, folder: Path) -> Path:
        """forecast.json and forecast.png, both curves; the path of the plot."""
        write_whole(folder / "forecast.json", json.dumps(self.to_dict(), indent=1))
        sides = (
            Learned("minutes of a run", self.by_time, self.time, self.by_time[-1][0] + self.minutes),
            Learned("images to learn from", self.by_images, self.number, self.by_images[-1][0] + self.images),
        )
        return write_whole(folder / "forecast.png", lambda path: learning_curves(sides, path))


def measured(data: Mapping[str, Dataset], learn: Learn, minutes: float, more: tuple[float, int]) -> Forecast:
    """The forecast from runs that `learn` does, `minutes` all together; `more` minutes and images are asked about.

    Parts of the images are drawn with one order, so that a larger one holds the smaller. DataError where there is
    nothing to judge by or too little to take a part of.
    """
    train, whole = data["train"], minutes / RUNS
    if "val" not in data:
        raise DataError(f"{train.root}: a forecast needs images to judge by; give --holdout 0.1 or --val")
    if len(train) * SHARES[0] < _FEWEST:
        raise DataError(f"{train.root}: {plural(len(train), 'image')} are too few to learn from a part of them")
    order = np.random.default_rng(0).permutation(len(train))
    parts = [train.subset(sorted(order[: round(share * len(train))].tolist())) for share in SHARES]
    by_time = [(share * whole, learn(f"time-{share:g}", train, share * whole)) for share in SHARES[:-1]]
    by_images = [(float(len(part)), learn(f"images-{len(part)}", part, whole)) for part in parts]
    last = by_images[-1][1]
    by_time.append((whole, last))

    def curve(measured: Sequence[tuple[float, Scored]]) -> Curve:
        return fit([x for x, _ in measured], [s.ap for _, s in measured], [scatter(s.error) for _, s in measured])

    time, number = (tuple((x, s.ap) for x, s in measured) for measured in (by_time, by_images))
    return Forecast(time, number, curve(by_time), curve(by_images), scatter(last.error), *more)


def forecast(
    data: Mapping[str, Dataset], out: Path, minutes: float, more: tuple[float, int], **options: Any
) -> Forecast:
    """Train on parts of `data` ("train" and "val") in the folder `out`, `minutes` in all, and say what `more` minutes
    and images would bring. `options` are those of `fcos.train`."""
    from .program import train

    check_folder(out)
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty; give another --out")

    def learn(name: str, part: Dataset, time: float) -> Scored:
        try:
            result = train({"train": part, "val": data["val"]}, minutes=time, out=out / name, quiet=True, **options)
        except ConfigError as error:
            raise ConfigError(f"the run {name} of the forecast: {error}; give the forecast more --minutes") from error
        if result.metrics is None or np.isnan(result.metrics.ap):
            return Scored(0.0, np.nan)
        return Scored(result.metrics.ap, np.nan if result.interval is None else result.interval.error)

    result = measured(data, learn, minutes, more)
    result.write(out)
    return result
