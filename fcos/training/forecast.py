"""`fcos forecast`: short runs on parts of the images and of the time, and what more of either would bring."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..errors import ConfigError, DataError
from ..evaluation.forecast import Between, Curve, fit
from ..files import check_folder, write_whole
from ..show.curves import Learned, learning_curves
from ..terminal import plural

SHARES = (0.3, 0.55, 1.0)  # of the images, and of the time of a run
RUNS = sum(SHARES) + len(SHARES) - 1  # times of a whole run that all of them take: the last of both is the same run
_FEWEST = 10  # images of the smallest part

Learn = Callable[[str, Dataset, float], float]
"""(name of the run, images to learn from, minutes) -> AP on the images to judge by."""


@dataclass(frozen=True)
class Forecast:
    """`by_time` and `by_images`: (minutes of a run, AP) and (images, AP) as measured, with the curves through them;
    `minutes` and `images` more are what is asked about."""

    by_time: tuple[tuple[float, float], ...]
    by_images: tuple[tuple[float, float], ...]
    time: Curve
    number: Curve
    minutes: float
    images: int

    @property
    def more_time(self) -> Between:
        """What `minutes` more add to AP."""
        return self.time.gain(self.by_time[-1][0], self.minutes)

    @property
    def more_images(self) -> Between:
        """What `images` more add to AP."""
        return self.number.gain(self.by_images[-1][0], self.images)

    def text(self) -> str:
        """Two lines, in points of AP."""
        time, number = self.by_time[-1][0], int(self.by_images[-1][0])
        return (
            f"after {time:.3g} minutes on {plural(number, 'image')}: AP {100 * self.by_time[-1][1]:.1f}\n"
            f"{self.minutes:g} more minutes: {_points(self.more_time)}; "
            f"{plural(self.images, 'more image')}: {_points(self.more_images)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "by_time": [list(point) for point in self.by_time],
            "by_images": [list(point) for point in self.by_images],
            "more_minutes": {"minutes": self.minutes, **self.more_time._asdict()},
            "more_images": {"images": self.images, **self.more_images._asdict()},
        }

    def write(self, folder: Path) -> Path:
        """forecast.json and forecast.png, both curves; the path of the picture."""
        write_whole(folder / "forecast.json", json.dumps(self.to_dict(), indent=1))
        sides = (
            Learned("minutes of a run", self.by_time, self.time, self.by_time[-1][0] + self.minutes),
            Learned("images to learn from", self.by_images, self.number, self.by_images[-1][0] + self.images),
        )
        return write_whole(folder / "forecast.png", lambda path: learning_curves(sides, path))


def _points(gain: Between) -> str:
    return f"+{100 * gain.value:.1f} AP ({100 * gain.low:.1f} to {100 * gain.high:.1f})"


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
    by_time.append((whole, by_images[-1][1]))
    time, number = (fit([x for x, _ in points], [ap for _, ap in points]) for points in (by_time, by_images))
    return Forecast(tuple(by_time), tuple(by_images), time, number, *more)


def forecast(
    data: Mapping[str, Dataset], out: Path, minutes: float, more: tuple[float, int], **options: Any
) -> Forecast:
    """Train on parts of `data` ("train" and "val") in the folder `out`, `minutes` in all, and say what `more` minutes
    and images would bring. `options` are those of `fcos.train`."""
    from .program import train

    check_folder(out)
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} holds something already; give another --out")

    def learn(name: str, part: Dataset, time: float) -> float:
        try:
            result = train({"train": part, "val": data["val"]}, minutes=time, out=out / name, quiet=True, **options)
        except ConfigError as error:
            raise ConfigError(f"the run {name} of the forecast: {error}; give the forecast more --minutes") from error
        return 0.0 if result.metrics is None or np.isnan(result.metrics.ap) else result.metrics.ap

    result = measured(data, learn, minutes, more)
    result.write(out)
    return result
