"""How far chance in the choice of images moves an AP, as intervals that hold the AP they are about.

A bootstrap shows an image several times, which lifts the AP of few objects and narrows its spread. So the images are
drawn without repeats: AP on a random half of them varies as AP on all of them does from data set to data set
(subsampling: Politis, Romano and Wolf, 1999). The jackknife's pseudo-values (one image left out) say how many degrees
of freedom that spread has (Satterthwaite, 1946): few, where a few images decide. The interval is Student's, for an AP
on the scale of log(AP / (1 - AP)), so that it stays within 0..1. benchmarks/intervals.py measures how often it holds
the truth; docs/measurements/evaluation.md has the table.

Each image is matched once by COCO's rule; a draw only says which count. Two detectors are judged on the same draws
(paired), so that what is hard for both cancels in their difference. Chance in training (seeds) is not in the interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..system.terminal import decimal, plural
from .coco import flatten
from .metrics import CORRECT, IGNORED, Detected, Floats, Ints, Truth, match_coco, overlaps

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..detections import Detections

IOUS = np.linspace(0.5, 0.95, 10)
LEVELS = np.linspace(0.0, 1.0, 101)  # of recall
NAMES = ("AP", "AP50", "AP75")
LIMIT = 100  # COCO's detections per class and image
COVERED = 0.95
GROUPS = 200  # that the jackknife leaves out, one at a time: single images where there are fewer
_CELLS = 4_000_000  # draws x detections worked on together


class Matches(NamedTuple):
    """One class: for each detection, best first, its image [D] and status [10,D] at each of `IOUS`
    (1 correct, 0 wrong, -1 ignored); objects [N] of each image."""

    image: Ints
    status: Ints
    objects: Ints


@dataclass(frozen=True, repr=False)
class Interval:
    """A number 0..1 and its 95 % interval, which holds it; nan where nothing could be counted, and where the images do
    not tell how far it strays: fewer than two hold objects, or every draw of them gives the same number."""

    value: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """The standard error that an interval of this width has where it is normal; nan where nothing was counted."""
        return (self.high - self.low) / (2 * NormalDist().inv_cdf((1 + COVERED) / 2))

    def __repr__(self) -> str:
        numbers = ", ".join(f"{key}={v}" if np.isfinite(v) else f"{key}=-" for key, v in vars(self).items())
        return f"Interval({numbers})"

    def __str__(self) -> str:
        return self.text()

    def text(self, sign: str = "") -> str:
        """For a terminal; "-" for a value that is not known, `sign` "+" for a difference."""
        if not np.isfinite(self.value):
            return "-"
        ends = f" [{self.low:{sign}.4f}, {self.high:{sign}.4f}]" if np.isfinite(self.low) else ""
        return f"{self.value:{sign}.4f}{ends}"

    def to_dict(self) -> dict[str, float | None]:
        """JSON-ready."""
        return {k: float(v) if np.isfinite(v) else None for k, v in vars(self).items()}


@dataclass(frozen=True, repr=False)
class Comparison:
    """AP, AP50 and AP75 of two detectors on the same images and of the second less the first, with
    intervals. `p`: chance of a difference this large, either way, were the two equally good (Student's test)."""

    first: dict[str, Interval]
    second: dict[str, Interval]
    difference: dict[str, Interval]
    p: dict[str, float]
    images: int
    resamples: int
    seed: int

    def __repr__(self) -> str:
        gap, p = self.difference["AP"], self.p["AP"]
        return f"Comparison(AP {gap.text('+')}, p {decimal(p)}; {plural(self.images, 'image')})"

    def __str__(self) -> str:
        """What `print` shows."""
        return self.text()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        three = {"first": self.first, "second": self.second, "difference": self.difference}
        return {
            **{side: {k: v.to_dict() for k, v in row.items()} for side, row in three.items()},
            "p": {k: v if np.isfinite(v) else None for k, v in self.p.items()},
            "images": self.images,
            "resamples": self.resamples,
            "seed": self.seed,
            "covered": COVERED,
        }

    def text(self) -> str:
        """For a terminal."""
        lines = [f"{'':<5} {'A':<24} {'B':<24} {'B - A':<27} p"]
        for name in NAMES:
            gap = self.difference[name].text("+")
            p = "<0.001" if self.p[name] < 0.001 else decimal(self.p[name])
            lines.append(f"{name:<5} {self.first[name]!s:<24} {self.second[name]!s:<24} {gap:<27} {p}")
        lines.append(method(self.images, self.resamples, self.seed) + "; the same for A and B")
        lines.append("p: chance of a difference this large, either way, were the two equally good")
        return "\n".join(lines)


def method(images: int, resamples: int, seed: int) -> str:
    """One line that says how the intervals were made."""
    return f"95 % intervals: {resamples:,} random halves of {plural(images, 'image')}, seed {seed}"


class Draws(NamedTuple):
    """How many random halves of the images are judged, and the seed that they come from. A standard error from n of
    them is off by one part in the square root of 2n: 2.2 % with 1,000."""

    resamples: int = 1000
    seed: int = 0


QUICK = Draws(200)
"""Where an interval comes along with other work: at the end of a run, and of each run of `fcos study versus`. Its width
is off by 5 %, and it takes a fifth of the time."""


def intervals(
    detections: Sequence[Detections], dataset: Dataset, draws: Draws = Draws(), *, class_agnostic: bool = False
) -> dict[str, Interval]:
    """AP, AP50 and AP75 of detections[i] for dataset.records[i], each with its 95 % interval."""
    plan = draw(len(dataset), *draws)
    return share_intervals(judge(_matches(detections, dataset, class_agnostic), plan), plan)


def compare_detections(
    first: Sequence[Detections],
    second: Sequence[Detections],
    dataset: Dataset,
    draws: Draws = Draws(),
    *,
    class_agnostic: bool = False,
) -> Comparison:
    """Two detectors on one data set, judged on the same draws. p is not below 2 ** (1 - n) where they differ in n
    images: by chance alone all n would favour one of the two that often."""
    plan = draw(len(dataset), *draws)
    a, b = (judge(_matches(detections, dataset, class_agnostic), plan) for detections in (first, second))
    difference, p = differences(a, b, plan)
    apart = sum(not _alike(one, other) for one, other in zip(first, second, strict=True))
    p = {name: float(np.maximum(value, min(1.0, 2.0 ** (1 - apart)))) for name, value in p.items()}
    return Comparison(share_intervals(a, plan), share_intervals(b, plan), difference, p, len(dataset), *draws)


def _alike(a: Detections, b: Detections) -> bool:
    """Whether both found the same in an image."""
    if len(a) != len(b):
        return False
    pairs = ((a.boxes, b.boxes), (a.scores, b.scores), (a.labels, b.labels))
    return all(bool((x.cpu() == y.cpu()).all()) for x, y in pairs)


class Plan(NamedTuple):
    """Which images count in each draw, as 0 and 1: halves [B,N], one half and its rest in turns, with the factor [B] by
    which a draw of that size strays as much as the whole set does; left_out [G,N]: all but one group of images."""

    halves: Ints
    factor: Floats
    left_out: Ints


class Judged(NamedTuple):
    """AP, AP50, AP75 of the data as they are [3], of each half [B,3] and with each group left out [G,3]; nan but for
    the first where fewer than two images hold objects."""

    value: Floats
    halves: Floats
    left_out: Floats


def draw(images: int, resamples: int, seed: int) -> Plan:
    """Draw `resamples` halves of N images (an odd one falls to one side), and at most `GROUPS` groups to leave out."""
    rng = np.random.default_rng(seed)
    half = images // 2
    halves = np.zeros((resamples if half else 0, images), np.int64)
    for row in range(0, len(halves), 2):
        order = rng.permutation(images)
        halves[row, order[:half]] = 1
        halves[row + 1 : row + 2, order[half:]] = 1
    sizes = halves.sum(axis=1)
    groups = min(images, GROUPS)
    group = rng.permutation(images) % max(groups, 1)
    left_out = (np.arange(groups)[:, None] != group[None]).astype(np.int64)
    return Plan(halves, np.sqrt(sizes / (images - sizes)), left_out)


def judge(matches: Sequence[Matches], plan: Plan) -> Judged:
    """Compute AP, AP50 and AP75 under every draw of the plan."""
    images = plan.left_out.shape[1]
    rows = (np.ones((1, images), np.int64), plan.halves, plan.left_out)
    by_iou = (average_precision(matches, weights) for weights in rows)
    value, halves, left_out = (np.stack([v.mean(axis=1), v[:, 0], v[:, 5]], axis=1) for v in by_iou)
    holding = np.count_nonzero(sum((one.objects for one in matches), np.zeros(images, np.int64)))
    if holding < 2:
        halves, left_out = np.full_like(halves, np.nan), np.full_like(left_out, np.nan)
    return Judged(value[0], halves, left_out)


def share_intervals(judged: Judged, plan: Plan) -> dict[str, Interval]:
    """The intervals of AP, AP50 and AP75, within 0..1."""
    rows = {}
    for k, name in enumerate(NAMES):
        value = float(judged.value[k])
        error, freedom = spread(judged.halves[:, k], judged.left_out[:, k], plan)
        reach = student(freedom) * error
        if not error > 0:
            rows[name] = Interval(value, float("nan"), float("nan"))
        elif 0 < value < 1:
            with np.errstate(over="ignore"):
                odds, reach = value / (1 - value), np.exp(reach / (value * (1 - value)))
            low, high = float(odds / (odds + reach)), float(1 / (1 + 1 / (odds * reach)))
            rows[name] = Interval(value, min(low, value), max(high, value))
        else:
            rows[name] = Interval(value, min(max(value - reach, 0.0), value), max(min(value + reach, 1.0), value))
    return rows


def differences(a: Judged, b: Judged, plan: Plan) -> tuple[dict[str, Interval], dict[str, float]]:
    """Intervals and p of b less a, on the same draws."""
    rows, p = {}, {}
    for k, name in enumerate(NAMES):
        gap = float(b.value[k] - a.value[k])
        error, freedom = spread((b.halves - a.halves)[:, k], (b.left_out - a.left_out)[:, k], plan)
        reach = student(freedom) * error if error > 0 else float("nan")
        rows[name] = Interval(gap, gap - reach, gap + reach)
        p[name] = two_sided(gap, error, freedom)
    return rows, p


def spread(halves: Floats, left_out: Floats, plan: Plan) -> tuple[float, float]:
    """(standard error, degrees of freedom) of a number that is halves [B] and left_out [G] under the draws. Draws that
    give nan are left out; both are nan if fewer than two remain."""
    known = np.isfinite(halves)
    pseudo = left_out[np.isfinite(left_out)]
    if known.sum() < 2 or len(pseudo) < 2:
        return float("nan"), float("nan")
    by_half = float(((halves - halves[known].mean()) * plan.factor)[known].std(ddof=1))
    groups = len(pseudo)
    away = (pseudo - pseudo.mean()) * (groups - 1)
    variance = float((away**2).mean())
    freedom = groups - 1.0
    if variance > 0:
        heavy = float((away**4).mean()) / variance**2  # the kurtosis, 3 of a normal distribution
        freedom = min(freedom, 2 * groups / max(heavy - 1, 1e-9))
    return by_half, max(freedom, 1.0)


# Student's t from the normal distribution and back (Wallace, 1959): within 1 % from three degrees of freedom on.


def student(freedom: float) -> float:
    """How many standard errors the interval reaches to each side."""
    z = NormalDist().inv_cdf((1 + COVERED) / 2) * (8 * freedom + 3) / (8 * freedom + 1)
    return float(np.sqrt(freedom * np.expm1(z**2 / freedom)))


def two_sided(gap: float, error: float, freedom: float) -> float:
    """Chance of a difference of at least `gap`, either way, where the truth is zero."""
    if not np.isfinite(gap) or not np.isfinite(error):
        return float("nan")
    if error == 0:
        return float(gap == 0)
    t = gap / error
    z = (8 * freedom + 1) / (8 * freedom + 3) * np.sqrt(freedom * np.log1p(t**2 / freedom))
    return float(2 * NormalDist().cdf(-float(z)))


def _matches(detections: Sequence[Detections], dataset: Dataset, class_agnostic: bool) -> tuple[Matches, ...]:
    flat, truth = flatten(detections, dataset, class_agnostic=class_agnostic)
    return match_images(flat, truth, len(dataset), 1 if class_agnostic else len(dataset.classes))


def match_images(detections: Detected, truth: Truth, images: int, classes: int) -> tuple[Matches, ...]:
    """COCO's matching at every IoU, once for all draws; at most `LIMIT` detections per class and image."""
    order = np.lexsort((detections.labels, detections.image))  # stable: best first within image and class
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(detections.image[order]) != 0) | (np.diff(detections.labels[order]) != 0)
    first = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    keep = np.sort(order[np.arange(len(order)) - first < LIMIT])
    detections = detections.pick(keep)
    pairs = overlaps(detections, truth, minimum=0.5)
    status = np.stack([match_coco(detections, truth, pairs, iou) for iou in IOUS.tolist()])
    result = []
    for k in range(classes):
        rows = np.flatnonzero(detections.labels == k)
        rows = rows[np.argsort(-detections.scores[rows], kind="stable")]
        solid = (truth.labels == k) & ~truth.ignore
        objects = np.bincount(truth.image[solid], minlength=images).astype(np.int64)
        result.append(Matches(detections.image[rows], status[:, rows], objects))
    return tuple(result)


def average_precision(matches: Sequence[Matches], weights: Ints) -> Floats:
    """COCO's AP [B,10] at each of `IOUS`, mean over the classes that have objects, of data sets in which
    image i stands weights[b, i] times; nan where no class has an object."""
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
    return np.where(near / count >= LEVELS, near, near + 1)
