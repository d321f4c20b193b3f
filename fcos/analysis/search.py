"""Which input size, strides and ranges lose least of a data set's boxes under a compute budget.

What a setting loses is the mean over boxes of the share of a box's locations that learn another box; a box
without any location counts 1. The cost of an image is FLOPs: the backbone's grow with the pixels of the padded
input, the FPN's and the head's with the number of locations. Both rates are measured once on the network.
What a smaller input blurs is not counted, so inputs smaller than today's are tried only where the budget
asks for less than today's cost.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..config import Config
from ..errors import ConfigError
from ..points import level_shapes
from ..system.progress import track
from .common import scenes_by_size
from .scan import Scan, scan

if TYPE_CHECKING:
    from ..data.dataset import Dataset

SMALLER, LARGER = (0.5, 0.625, 0.75, 0.875), (1.0, 1.25, 1.5, 2.0)
STRIDES = ((8, 16, 32, 64, 128), (8, 16, 32, 64), (8, 16, 32), (4, 8, 16, 32, 64), (4, 8, 16, 32, 64, 128))
RANGES = (4.0, 8.0, 16.0)  # upper limit of a level, in strides; 8 is the paper's
PRICE = 0.01  # share of the boxes' locations that twice the FLOPs have to save
_SAME = 1.02  # of the FLOPs of the cheapest: so much may it cost to keep the levels as they are
SEARCHED = 500  # images at most
NEAR = 0.001  # a cheaper setting that loses at most this much more is preferred


@dataclass(frozen=True)
class Option:
    """One setting: shorter and longer side, strides, ranges; what it loses 0..1, best possible recall 0..1,
    locations and GFLOP an image."""

    size: int
    max_size: int
    strides: tuple[int, ...]
    ranges: tuple[float, ...]
    lost: float
    recall: float
    points: float
    gflop: float

    def config_lines(self) -> str:
        """As settings for the command line."""
        strides = ",".join(map(str, self.strides))
        ranges = ",".join(f"{r:g}" for r in self.ranges)
        return f"data.size={self.size} data.max_size={self.max_size} model.strides=[{strides}] assign.ranges=[{ranges}]"

    def command(self, data: str, told: Sequence[str] = ()) -> str:
        """The command that trains with them, quoted for the shell; `told`: the other words of the command line."""
        return shlex.join(["fcos", "train", data, *told, *self.config_lines().split()])


@dataclass(frozen=True)
class Rates:
    """FLOPs of the backbone a pixel of the input, and of the FPN and the head a location."""

    pixel: float
    point: float


def measure_rates(config: Config, classes: int) -> Rates:
    """Count the FLOPs of the network that `config` describes."""
    from ..network import weights
    from ..network.info import describe_network

    info = describe_network(weights.build(config, max(classes, 1)).eval(), config, (256, 256))
    flops = {p.name: p.flops for p in info.parts}
    return Rates(flops["backbone"] / 256**2, (flops["fpn"] + flops["head"]) / info.points)


def cost(dataset: Dataset, config: Config, rates: Rates) -> tuple[float, float]:
    """(locations, FLOPs) of the average image."""
    points = flops = 0.0
    for size, scenes in scenes_by_size(dataset, config.data).items():
        count = sum(h * w for h, w in level_shapes(size, config.model.strides))
        points += len(scenes) * count
        flops += len(scenes) * (size[0] * size[1] * rates.pixel + count * rates.point)
    return points / max(len(dataset), 1), flops / max(len(dataset), 1)


def lost_share(scanned: Scan) -> float:
    """Mean over boxes of the share of a box's locations that learn another box, 1 where it has none."""
    if not scanned.boxes:
        return float("nan")
    own = scanned.candidates.sum(axis=1)
    kept = np.divide(scanned.learned.sum(axis=1), own, out=np.zeros(len(own)), where=own > 0)
    return float((1 - kept).mean())


def option(dataset: Dataset, config: Config, rates: Rates) -> Option:
    """One setting judged on a data set."""
    scanned = scan(dataset, config)
    points, flops = cost(dataset, config, rates)
    return Option(
        config.data.size,
        config.data.max_size,
        config.model.strides,
        config.assign.ranges,
        lost_share(scanned),
        scanned.recall,
        points,
        flops / 1e9,
    )


def variants(config: Config, factors: Sequence[float]) -> list[Config]:
    """All settings that the search tries: input sizes that are multiples `factors` of that of `config`. What this model
    cannot have is left out."""
    result = []
    for factor in factors:
        size = max(64, round(config.data.size * factor / 32) * 32) if factor != 1 else config.data.size
        for levels in STRIDES:
            for limit in RANGES:
                change = {
                    "data": {"size": size},
                    "model": {"strides": levels},
                    "assign": {"ranges": tuple(limit * s for s in levels[:-1])},
                }
                with suppress(ConfigError):
                    result.append(config.override(change))
    return result


def search(
    dataset: Dataset, config: Config, rates: Rates, budget: float = 1.0, images: int = SEARCHED
) -> tuple[Option, Option, tuple[Option, ...]]:
    """(the setting of `config`, the best one, all that were tried) on at most `images` images.

    `budget`: FLOPs allowed, as a multiple of what `config` costs. Of settings that lose nearly the same
    (`NEAR`) the cheapest is taken.
    """
    if len(dataset) > images:
        chosen = np.random.default_rng(0).choice(len(dataset), images, replace=False)
        dataset = dataset.subset(sorted(chosen.tolist()))
    today = option(dataset, config, rates)
    limit = budget * today.gflop * 1e9 * (1 + 1e-9)
    factors = LARGER if budget >= 1 else SMALLER + LARGER[:1]
    affordable = [v for v in variants(config, factors) if cost(dataset, v, rates)[1] <= limit]
    tried = [option(dataset, v, rates) for v in track(affordable, len(affordable), "search")]
    everything = [o for o in [today, *tried] if o.gflop * 1e9 <= limit] or [today]
    least = min(o.lost for o in everything)
    near = [o for o in everything if o.lost <= least + NEAR] or [today]
    best = min(near, key=lambda o: (o.gflop, o.lost))
    levels = config.model.strides, config.assign.ranges
    kept = [o for o in near if (o.strides, o.ranges) == levels and o.gflop <= _SAME * best.gflop]
    best = min(kept, key=lambda o: (o.gflop, o.lost), default=best)  # other levels for nothing are no advice
    if today in near and best.gflop > 0.95 * today.gflop:
        best = today  # no advice without a gain
    if today.lost - best.lost < PRICE * (best.gflop / today.gflop - 1):
        best = today  # nor for one that costs more than it gains
    return today, best, tuple(tried)
