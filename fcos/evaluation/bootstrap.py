"""How far chance in the choice of pictures moves an AP: bootstrap over pictures (Efron, 1979).

The pictures of a data set are drawn again, with replacement, as many as there are; the spread of AP over
many such draws says how far it would move on other pictures of the same kind. Each picture is matched once
by COCO's rule; a draw only says how often it counts. Two detectors are judged on the same draws (paired), so
that what is hard for both cancels in their difference. Chance in training (seeds) is not in the interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .coco import flatten
from .metrics import CORRECT, IGNORED, Floats, Found, Ints, Truth, match_coco, overlaps

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..types import Detections

IOUS = np.linspace(0.5, 0.95, 10)
LEVELS = np.linspace(0.0, 1.0, 101)  # of recall
NAMES = ("AP", "AP50", "AP75")
LIMIT = 100  # COCO's detections per class and picture
COVERED = 0.95
_CELLS = 4_000_000  # draws x detections worked on together


class Matches(NamedTuple):
    """One class: for each detection, best first, its picture image [D] and status [10,D] at each of `IOUS`
    (1 correct, 0 wrong, -1 ignored); objects [N] of each picture."""

    image: Ints
    status: Ints
    objects: Ints


@dataclass(frozen=True)
class Interval:
    """A number 0..1 and the 95 % interval of its draws; nan where nothing could be counted."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"

    def to_dict(self) -> dict[str, float | None]:
        """JSON-ready."""
        return {k: float(v) if np.isfinite(v) else None for k, v in vars(self).items()}


@dataclass(frozen=True)
class Comparison:
    """AP, AP50 and AP75 of two detectors on the same pictures and of the second less the first, with
    intervals. `p`: twice the share of draws in which the difference is zero or has the other sign, at most
    1; small where the difference is more than the luck of these pictures."""

    first: dict[str, Interval]
    second: dict[str, Interval]
    difference: dict[str, Interval]
    p: dict[str, float]
    images: int
    resamples: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        three = {"first": self.first, "second": self.second, "difference": self.difference}
        return {
            **{side: {k: v.to_dict() for k, v in row.items()} for side, row in three.items()},
            "p": {k: v if np.isfinite(v) else None for k, v in self.p.items()},
            "pictures": self.images,
            "resamples": self.resamples,
            "seed": self.seed,
            "covered": COVERED,
        }

    def text(self) -> str:
        """For a terminal."""
        lines = [f"{'':<5} {'A':<24} {'B':<24} {'B - A':<27} p"]
        for name in NAMES:
            d = self.difference[name]
            gap = f"{d.value:+.4f} [{d.low:+.4f}, {d.high:+.4f}]"
            p = f"<{2 / self.resamples:g}" if self.p[name] == 0 else f"{self.p[name]:.3f}"
            lines.append(f"{name:<5} {self.first[name]!s:<24} {self.second[name]!s:<24} {gap:<27} {p}")
        lines.append(method(self.images, self.resamples, self.seed) + "; the same draws for A and B")
        lines.append("p: twice the share of draws in which the difference is zero or has the other sign")
        return "\n".join(lines)


def method(images: int, resamples: int, seed: int) -> str:
    """One line that says how the intervals were made."""
    return f"95 % intervals: {resamples:,} draws of {images:,} pictures with replacement, percentiles, seed {seed}"


def intervals(
    detections: Sequence[Detections],
    dataset: Dataset,
    *,
    resamples: int = 1000,
    seed: int = 0,
    class_agnostic: bool = False,
) -> dict[str, Interval]:
    """AP, AP50 and AP75 of detections[i] for dataset.records[i], each with its 95 % interval."""
    values, draws = _judged(detections, dataset, draw(len(dataset), resamples, seed), class_agnostic)
    return {name: interval(values[k], draws[:, k]) for k, name in enumerate(NAMES)}


def compare(
    first: Sequence[Detections],
    second: Sequence[Detections],
    dataset: Dataset,
    *,
    resamples: int = 1000,
    seed: int = 0,
    class_agnostic: bool = False,
) -> Comparison:
    """Two detectors on one data set, judged on the same draws."""
    weights = draw(len(dataset), resamples, seed)
    sides = [_judged(found, dataset, weights, class_agnostic) for found in (first, second)]
    (a, draws_a), (b, draws_b) = sides
    gaps = draws_b - draws_a
    rows = [
        {name: interval(values[k], draws[:, k]) for k, name in enumerate(NAMES)}
        for values, draws in (*sides, (b - a, gaps))
    ]
    p = {name: two_sided(gaps[:, k]) for k, name in enumerate(NAMES)}
    return Comparison(rows[0], rows[1], rows[2], p, len(dataset), resamples, seed)


def draw(images: int, resamples: int, seed: int) -> Ints:
    """How often each picture stands in each draw: [B,N], every row adds up to N."""
    if not images:
        return np.zeros((resamples, 0), np.int64)
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)


def interval(value: float, draws: Floats) -> Interval:
    """The value with the middle 95 % of its draws; draws without a number are left out."""
    known = draws[np.isfinite(draws)]
    if not len(known):
        return Interval(float(value), float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - COVERED) / 2, (1 + COVERED) / 2])
    return Interval(float(value), float(low), float(high))


def two_sided(gaps: Floats) -> float:
    """Twice the share of draws on the rarer side of zero, zero counted on both, at most 1."""
    known = gaps[np.isfinite(gaps)]
    if not len(known):
        return float("nan")
    return float(min(1.0, 2 * min((known <= 0).mean(), (known >= 0).mean())))


def _judged(
    detections: Sequence[Detections], dataset: Dataset, weights: Ints, class_agnostic: bool
) -> tuple[Floats, Floats]:
    """(AP, AP50, AP75 [3] of the data as it is, the same [B,3] of each draw)."""
    found, truth = flatten(detections, dataset, class_agnostic=class_agnostic)
    classes = 1 if class_agnostic else len(dataset.classes)
    matches = match_images(found, truth, len(dataset), classes)
    once = np.ones((1, len(dataset)), np.int64)
    by_iou = np.concatenate([average_precision(matches, once), average_precision(matches, weights)])
    three = np.stack([by_iou.mean(axis=1), by_iou[:, 0], by_iou[:, 5]], axis=1)
    return three[0], three[1:]


def match_images(found: Found, truth: Truth, images: int, classes: int) -> tuple[Matches, ...]:
    """COCO's matching at every IoU, once for all draws; at most `LIMIT` detections per class and picture."""
    order = np.lexsort((found.labels, found.image))  # stable: best first within picture and class
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(found.image[order]) != 0) | (np.diff(found.labels[order]) != 0)
    first = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    keep = np.sort(order[np.arange(len(order)) - first < LIMIT])
    found = found.pick(keep)
    pairs = overlaps(found, truth, minimum=0.5)
    status = np.stack([match_coco(found, truth, pairs, iou) for iou in IOUS.tolist()])
    result = []
    for k in range(classes):
        rows = np.flatnonzero(found.labels == k)
        rows = rows[np.argsort(-found.scores[rows], kind="stable")]
        solid = (truth.labels == k) & ~truth.ignore
        objects = np.bincount(truth.image[solid], minlength=images).astype(np.int64)
        result.append(Matches(found.image[rows], status[:, rows], objects))
    return tuple(result)


def average_precision(matches: Sequence[Matches], weights: Ints) -> Floats:
    """COCO's AP [B,10] at each of `IOUS`, mean over the classes that have objects, of data sets in which
    picture i stands weights[b, i] times; nan where no class has an object."""
    draws = len(weights)
    total, known = np.zeros((draws, len(IOUS))), np.zeros(draws)
    for one in matches:
        step = max(1, _CELLS // max(len(one.image), 1))
        for start in range(0, draws, step):
            part = slice(start, start + step)
            objects = weights[part] @ one.objects
            counted = weights[part][:, one.image]
            known[part] += objects > 0
            for i, status in enumerate(one.status):
                total[part, i] += _class_ap(counted, status, objects)
    return np.divide(total, known[:, None], out=np.full_like(total, np.nan), where=known[:, None] > 0)


def _class_ap(counted: Ints, status: Ints, objects: Ints) -> Floats:
    """101-point AP [B] of one class at one IoU: counted [B,D], status [D], objects [B]; 0 without objects.

    Precision is highest just after a correct detection, so only those are looked at.
    """
    right = np.flatnonzero(status == CORRECT)
    draws, hits_of = len(counted), len(right)
    if not hits_of:
        return np.zeros(draws)
    seen = (counted * (status != IGNORED)).cumsum(axis=1)[:, right]
    hits = counted[:, right].cumsum(axis=1)
    precision = hits / np.maximum(seen, 1)
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # one search for all rows: row b lives between b * span and (b + 1) * span
    span = int(objects.max()) + 2
    row = np.arange(draws)[:, None]
    place = np.searchsorted((hits + row * span).ravel(), (hits_needed(objects) + row * span).ravel())
    place = place.reshape(draws, -1) - row * hits_of
    reached = np.take_along_axis(np.pad(highest, ((0, 0), (0, 1))), place, axis=1)
    return np.where(objects > 0, reached.mean(axis=1), 0.0)


def hits_needed(objects: Ints) -> Ints:
    """[B,101] the fewest correct detections whose share of objects [B] is at least each recall level, as
    cocoapi's comparison of floating numbers has it."""
    count = np.maximum(objects, 1)[:, None]
    near = np.floor(LEVELS * count).astype(np.int64)
    return np.where((near - 1) / count >= LEVELS, near - 1, np.where(near / count >= LEVELS, near, near + 1))
