"""Does a score of 0.8 mean right in 8 of 10 cases? Reliability of the scores, and score thresholds by class
for a wanted precision. Matching is COCO's at one IoU; ignored detections are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.classes import match_classes
from ..errors import DataError, one_line
from ..system.terminal import decimal, json_ready, table
from ..types import Classes
from .coco import flatten
from .metrics import IGNORED, IOU, Curves, Floats, Ints, match_coco, overlaps

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..detections import Detections


@dataclass(frozen=True)
class Calibration:
    """Detections in bins of equal width of their score 0..1: mean score [K], share that is right [K] (nan in
    an empty bin) and count [K]. `ece`: expected calibration error (Guo et al., arXiv 1706.04599), the mean
    over detections of the gap between the two; nan without detections."""

    score: Floats
    precision: Floats
    count: Ints
    ece: float
    iou: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; None for an empty bin."""
        return {
            "iou": self.iou,
            "ece": json_ready(self.ece),
            "score": json_ready(self.score),
            "precision": json_ready(self.precision),
            "count": json_ready(self.count),
        }


def calibration(detections: Sequence[Detections], dataset: Dataset, *, iou: float = 0.5, bins: int = 10) -> Calibration:
    """Reliability of all detections with a score in 0..1, detections[i] being those of dataset.records[i]. Another
    score, which the results of somebody else may have, is no probability."""
    flat, truth = flatten(detections, dataset)
    status = match_coco(flat, truth, overlaps(flat, truth, minimum=iou), iou)
    judged = (status != IGNORED) & (flat.scores >= 0) & (flat.scores <= 1)
    scores, right = flat.scores[judged], status[judged] == 1
    place = np.minimum((scores * bins).astype(np.int64), bins - 1)
    count = np.bincount(place, minlength=bins).astype(np.int64)
    sums = (np.bincount(place, weights=v, minlength=bins) for v in (scores, right))
    score, precision = (np.divide(s, count, out=np.full(bins, np.nan), where=count > 0) for s in sums)
    gap = np.nansum(np.abs(score - precision) * count)
    return Calibration(score, precision, count, float(gap / count.sum()) if count.sum() else float("nan"), iou)


Line = tuple[float, float]
_FLATTEST = 0.01  # slope: the order within a class stays
_PRIOR = 10.0  # weight of the line of all classes in that of one: about ten detections that are hard to call


def fit(
    detections: Sequence[Detections], dataset: Dataset, names: Sequence[str], *, iou: float = 0.5
) -> tuple[Line, ...]:
    """Slope and offset of each class of a model with `names`, for `decode.calibration`.

    sigmoid(slope * logit(score) + offset) is the probability that a detection is right at `iou` (Platt, 1999). A class
    of few detections is drawn to the line of all, and one that the data lacks has it.

    `detections[i]` are those of `dataset.records[i]`, with the scores as the network gives them, and best of images
    that were not learned. DataError where nothing is right or nothing wrong: no line goes through that.
    """
    flat, truth = flatten(detections, dataset)
    status = match_coco(flat, truth, overlaps(flat, truth, minimum=iou), iou)
    judged = status != IGNORED
    right, labels = status[judged] == 1, flat.labels[judged]
    if not right.any() or right.all():
        share = "all are" if right.any() else "none is"
        raise DataError(f"scores cannot be calibrated: of {len(right)} detections {share} right")
    scores = np.clip(flat.scores[judged], 1e-6, 1 - 1e-6)
    logits = np.log(scores) - np.log1p(-scores)
    everyone = _line(logits, right, (1.0, 0.0), 1e-3)
    asked = Classes(tuple(names), tuple(range(len(names))))
    mine = [labels == label for label in match_classes(asked, dataset.classes, allow_missing=True)]
    return tuple(_line(logits[m], right[m], everyone, _PRIOR) for m in mine)


def _line(logits: Floats, right: np.ndarray, towards: Line, weight: float) -> Line:
    """The most likely slope and offset, a slope of at least `_FLATTEST`; a Gaussian of `weight` draws them `towards`
    others."""
    slope, offset = _fit(np.stack((logits, np.ones_like(logits)), axis=1), 0 * logits, right, towards, weight)
    if slope < _FLATTEST:  # the offset is the best for this slope, and not for a line that falls
        slope = _FLATTEST
        (offset,) = _fit(np.ones((len(logits), 1)), slope * logits, right, towards[1:], weight)
    return slope, offset


def _fit(x: Floats, known: Floats, right: np.ndarray, towards: tuple[float, ...], weight: float) -> list[float]:
    """The factors of the columns of x [D,K] with which sigmoid(known + x @ factors) is the most likely chance to be
    `right` [D], by Newton's method; a Gaussian of `weight` draws them `towards` others."""
    start = np.array(towards)
    line = start.copy()

    def cost(at: Floats) -> float:
        z = known + x @ at
        return float(np.logaddexp(0, z).sum() - z[right].sum() + weight / 2 * ((at - start) ** 2).sum())

    for _ in range(50):
        p = 1 / (1 + np.exp(-(known + x @ line)))
        gradient = x.T @ (p - right) + weight * (line - start)
        curvature = (x * (p * (1 - p))[:, None]).T @ x + weight * np.eye(len(start))
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-6 and cost(line - size * step) > cost(line):
            size /= 2
        line = line - size * step
        if np.abs(size * step).max() < 1e-8:
            break
    return [float(v) for v in line]


@dataclass(frozen=True)
class Threshold:
    """The lowest score of one class whose detections reach a wanted precision, with the precision and recall
    there, 0..1; score nan where no score reaches it, all nan without objects."""

    name: str
    score: float
    precision: float
    recall: float
    objects: int


def thresholds(curves: Curves, precision: float) -> tuple[Threshold, ...]:
    """For each class the threshold that finds most while at least `precision` of what it keeps is right."""
    rows = []
    for name, curve in zip(curves.names, curves.classes[IOU], strict=True):
        good = np.flatnonzero(curve.cuts & (curve.precision >= precision - 1e-12))
        if curve.objects == 0 or not len(good):
            none = float("nan")
            rows.append(Threshold(name, none, none, none if curve.objects == 0 else 0.0, curve.objects))
            continue
        at = good[-1]
        rows.append(
            Threshold(name, float(curve.scores[at]), float(curve.precision[at]), float(curve.recall[at]), curve.objects)
        )
    return tuple(rows)


def score_option(rows: Sequence[Threshold]) -> dict[str, float]:
    """What `fcos predict --score` takes: class -> score; 1 for a class that never reaches the precision, so
    that it is not shown; classes without objects are left out, and those whose score is above 1, which the results of
    somebody else may have. A score is a float32, as those of detections are, and not above the threshold."""
    return {r.name: 1.0 if np.isnan(r.score) else float(_below(r.score)) for r in rows if r.objects and not r.score > 1}


def _below(score: float) -> np.float32:
    """The nearest float32 that is not above `score`."""
    near = np.float32(score)
    return near if float(near) <= score else np.nextafter(near, np.float32(-np.inf))


_UNWRITABLE = ',="\\$`!'  # signs that the option, or the shell around it, reads as something else


def threshold_table(rows: Sequence[Threshold], precision: float) -> str:
    """For a terminal: a table, and the option of `fcos predict` that uses it."""
    shown = [
        (one_line(r.name, 60), *(decimal(v, 4) for v in (r.score, r.precision, r.recall)), str(r.objects)) for r in rows
    ]
    lines = [
        f"lowest score of each class with precision {precision:g} or more at IoU {IOU:g}",
        table(("class", "score", "precision", "recall", "objects"), shown),
    ]
    if any(np.isnan(r.score) for r in rows):
        lines.append("-: no score of this class reaches that precision here")
    if any(r.score > 1 for r in rows):
        lines.append("a score above 1 is no score of fcos predict, and is left out of what follows")
    scores = score_option(rows)
    if any(set(name) & set(_UNWRITABLE) or not name.isprintable() for name in scores):
        lines.append("fcos predict ... --score FILE.json, the scores.json of --out: not all names can be written here")
    elif scores:
        option = ",".join(f"{name}={np.float32(score)!s}" for name, score in scores.items())
        lines.append(f'fcos predict ... --score "{option}"')
    return "\n".join(lines)
