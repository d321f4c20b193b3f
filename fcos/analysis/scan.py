"""Every location and every box of a data set at one input size: who may learn what, and who does.

Only boxes and image sizes are needed, so the whole of COCO val2017 takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..assign import candidate_pairs, smallest_first
from ..config import Config
from ..points import make_points
from ..system.progress import track
from ..types import Points
from .common import scenes_by_size, stack

if TYPE_CHECKING:
    from ..data.dataset import Dataset

_IMAGES = 64  # scanned together


@dataclass(frozen=True)
class Scan:
    """Counts over G boxes (crowd and difficult left out), N images, L levels, C classes.

    image [G]: index of the record. row [G]: place of the box in the record. label [G]. size [G,2]: width and
    height in pixels of the network input. candidates [G,L]: locations that may learn the box. learned [G,L]:
    locations that do, after the smallest-box rule. positives [N]: of each image. ambiguous [N]: positives
    that are a candidate for several boxes. different [N]: those whose boxes are of several classes.
    lost [C,C]: at ambiguous locations, how often a box of the column's class gave way to one of the row's.
    points [N]: all locations of an image.
    """

    image: np.ndarray
    row: np.ndarray
    label: np.ndarray
    size: np.ndarray
    candidates: np.ndarray
    learned: np.ndarray
    positives: np.ndarray
    ambiguous: np.ndarray
    different: np.ndarray
    lost: np.ndarray
    points: np.ndarray

    @property
    def boxes(self) -> int:
        return len(self.label)

    @property
    def recalled(self) -> np.ndarray:
        """[G] bool: at least one location learns the box."""
        result: np.ndarray = self.learned.sum(axis=1) > 0
        return result

    @property
    def recall(self) -> float:
        """Best possible recall (1904.01355, section 4.1.1), 0..1; nan without boxes."""
        return float(self.recalled.mean()) if self.boxes else float("nan")

    @property
    def no_location(self) -> np.ndarray:
        """[G] bool: no location may learn the box."""
        result: np.ndarray = self.candidates.sum(axis=1) == 0
        return result

    @property
    def outranked(self) -> np.ndarray:
        """[G] bool: locations may learn the box, but every one learns a smaller one."""
        result: np.ndarray = ~self.recalled & ~self.no_location
        return result

    @property
    def ambiguity(self) -> tuple[float, float]:
        """Share of the positives that are ambiguous: all, and with boxes of several classes (table 2)."""
        positives = int(self.positives.sum())
        if positives == 0:
            return float("nan"), float("nan")
        return self.ambiguous.sum() / positives, self.different.sum() / positives


def scan(dataset: Dataset, config: Config, label: str = "boxes") -> Scan:
    """Scan a data set under config.model.strides, config.assign and the input size of config.data."""
    classes, levels, images = len(dataset.classes), len(config.model.strides), len(dataset.records)
    per_image = {k: np.zeros(images, np.int64) for k in ("positives", "ambiguous", "different", "points")}
    lost = np.zeros((classes, classes), np.int64)
    columns: list[tuple[np.ndarray, ...]] = []
    groups = scenes_by_size(dataset, config.data)
    parts = [(size, scenes[i : i + _IMAGES]) for size, scenes in groups.items() for i in range(0, len(scenes), _IMAGES)]
    made: dict[tuple[int, int], Points] = {}
    for size, scenes in track(parts, images, label, lambda part: len(part[1])):
        if size not in made:
            made = {size: make_points(size, config.model, config.assign)}
        points = made[size]
        boxes, labels, image = stacked = stack(scenes)
        which = np.array([s.record for s in scenes])
        per_image["points"][which] = len(points.xy)
        may, does, counts, gave_way = scan_images(points, stacked, len(scenes), classes, config)
        for key, value in zip(("positives", "ambiguous", "different"), counts, strict=True):
            per_image[key][which] = value.numpy()
        lost += gave_way.numpy()
        rows = np.concatenate([np.flatnonzero(~s.ignore) for s in scenes])
        extent = (boxes[:, 2:] - boxes[:, :2]).numpy()
        columns.append((which[image.numpy()], rows, labels.numpy(), extent, may.numpy(), does.numpy()))
    tails: tuple[tuple[int, ...], ...] = ((), (), (), (2,), (levels,), (levels,))
    empty = tuple(np.zeros((0, *tail), np.int64) for tail in tails)
    joined = [np.concatenate(c) for c in zip(empty, *columns, strict=True)]
    order = np.lexsort((joined[1], joined[0]))
    owner, row, label_of, size_of, may_all, does_all = (c[order] for c in joined)
    return Scan(owner, row, label_of, size_of, may_all, does_all, lost=lost, **per_image)


def scan_images(
    points: Points, stacked: tuple[Tensor, Tensor, Tensor], images: int, classes: int, config: Config
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor], Tensor]:
    """Images that share their points: boxes [G,4], labels [G] and image [G] in 0..images-1, as `stack` gives them.

    Returns candidates [G,L], learned [G,L], (positives, ambiguous, different) [images] and the classes
    [C,C] that won and lost at ambiguous locations.
    """
    boxes, labels, image = stacked
    spot, box = candidate_pairs(points, boxes, config.assign)
    count, levels = len(points.xy), len(points.grids)
    place = image[box] * count + spot
    rank = smallest_first(boxes, config.assign)
    best = torch.full((images * count,), len(boxes), dtype=torch.int64)
    best.scatter_reduce_(0, place, rank[box], "amin")
    wins = rank[box] == best[place]
    cell = box * levels + points.level[spot]
    may = torch.bincount(cell, minlength=len(boxes) * levels).view(-1, levels)
    does = torch.bincount(cell[wins], minlength=len(boxes) * levels).view(-1, levels)

    several = torch.bincount(place, minlength=images * count) > 1
    winner = torch.full((images * count,), -1, dtype=torch.int64)
    winner[place[wins]] = labels[box[wins]]
    loses = ~wins
    mixed = torch.zeros(images * count, dtype=torch.bool)
    mixed[place[loses & (labels[box] != winner[place])]] = True
    pair = winner[place[loses]] * classes + labels[box[loses]]
    gave_way = torch.bincount(pair, minlength=classes * classes).view(classes, classes)
    per_image = tuple(m.view(images, count).sum(dim=1) for m in (winner >= 0, several, mixed))
    return may, does, per_image, gave_way  # type: ignore[return-value]


def class_pairs(scanned: Scan, names: Sequence[str]) -> tuple[tuple[str, str, int], ...]:
    """(class that kept the location, class that gave way, locations), the ten most frequent, in that order."""
    order = np.argsort(-scanned.lost, axis=None, kind="stable")[:10]
    rows = [(names[i // len(names)], names[i % len(names)], int(scanned.lost.flat[i])) for i in order]
    return tuple(row for row in rows if row[2])
