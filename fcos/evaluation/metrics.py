"""What is counted when detections meet the truth: overlaps, matching, curves, AP, F1, confusion.

Pure functions on numpy arrays, without files or networks; COCO's own protocol is left to hotcoco or
pycocotools (backends.py). Letters: D detections, G true
boxes, Q pairs, C classes, all over a whole data set. A detection's status is 1 (correct), 0 (wrong) or
-1 (inside an ignored box: neither rewarded nor punished).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CORRECT, WRONG, IGNORED = 1, 0, -1
SAME = 1 - 1e-10  # the IoU of equal boxes, as cocoapi has it, so that IoU 1 counts at threshold 1
IOU = 0.5  # of what is judged at one limit alone: F1, confusion, the score for a precision, mistakes in images


class Detected(NamedTuple):
    """Detections of all images: boxes [D,4] xyxy pixels, scores [D], labels [D], image [D] = number of
    the image. Sorted by image and, within an image, best first. extent [D,2]: width and height as a file has
    them, which x2 - x1 is not to the last bit; None: that difference."""

    boxes: Floats
    scores: Floats
    labels: Ints
    image: Ints
    extent: Floats | None = None

    def pick(self, keep: Ints) -> Detected:
        """The detections at `keep`."""
        return Detected(*(None if column is None else column[keep] for column in self))  # type: ignore[arg-type]


class Truth(NamedTuple):
    """True boxes of all images: boxes [G,4] xyxy pixels, labels [G], image [G] rising, ignore [G]
    (crowd or difficult), areas [G] in square pixels; extent [G,2] as in `Detected`."""

    boxes: Floats
    labels: Ints
    image: Ints
    ignore: Bools
    areas: Floats
    extent: Floats | None = None

    def objects(self, classes: int) -> Ints:
        """Objects of each class [C], ignored ones left out."""
        return np.bincount(self.labels[~self.ignore], minlength=classes).astype(np.int64)


class Pairs(NamedTuple):
    """Overlapping boxes of one image: detections [Q] and truth [Q] are rows, iou [Q] in (0, 1]."""

    detections: Ints
    truth: Ints
    iou: Floats

    def pick(self, keep: Bools) -> Pairs:
        """The pairs at `keep` [Q]."""
        return Pairs(self.detections[keep], self.truth[keep], self.iou[keep])


def overlaps(
    detections: Detected, truth: Truth, *, minimum: float, crowd: bool = True, plus_one: bool = False
) -> Pairs:
    """Every pair of one image, whatever the classes, with IoU >= `minimum` (> 0), by rising `detections`.

    With `crowd` an ignored box is overlapped by the share of the detection that lies inside it (COCO).
    With `plus_one` a box from x1 to x2 is x2 - x1 + 1 wide (VOC).
    """
    extra = 1.0 if plus_one else 0.0
    detected_area = np.prod(extent(detections) + extra, axis=1)
    truth_area = np.prod(extent(truth) + extra, axis=1)
    images = np.intersect1d(detections.image, truth.image)
    starts, stops = np.searchsorted(detections.image, images), np.searchsorted(detections.image, images, side="right")
    firsts, lasts = np.searchsorted(truth.image, images), np.searchsorted(truth.image, images, side="right")
    rows: list[Ints] = []
    columns: list[Ints] = []
    values: list[Floats] = []
    for start, stop, first, last in zip(starts, stops, firsts, lasts, strict=True):
        a, b = detections.boxes[start:stop, None], truth.boxes[None, first:last]
        width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0]) + extra
        height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1]) + extra
        inside = np.maximum(width, 0) * np.maximum(height, 0)
        union = detected_area[start:stop, None] + truth_area[None, first:last] - inside
        if crowd:
            union = np.where(truth.ignore[None, first:last], detected_area[start:stop, None], union)
        iou = inside / np.maximum(union, 1e-300)  # a box without area overlaps nothing
        row, column = np.nonzero(iou >= minimum)
        rows.append(row + start)
        columns.append(column + first)
        values.append(iou[row, column])
    if not rows:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return Pairs(np.concatenate(rows), np.concatenate(columns), np.concatenate(values))


def extent(side: Detected | Truth) -> Floats:
    """Width and height [.,2] of boxes, as a file has them or else by their corners."""
    return side.boxes[:, 2:] - side.boxes[:, :2] if side.extent is None else side.extent


def match_coco(detections: Detected, truth: Truth, pairs: Pairs, iou: float) -> Ints:
    """Whether each detection is right, wrong or ignored (status [D]) by COCO's rule; see `matches_coco`."""
    box = matches_coco(detections, truth, pairs, iou)
    status = np.zeros(len(detections.scores), np.int64)
    status[box >= 0] = np.where(truth.ignore[box[box >= 0]], IGNORED, CORRECT)
    return status


def matches_coco(detections: Detected, truth: Truth, pairs: Pairs, iou: float) -> Ints:
    """[D] the true box that each detection takes, -1 for none. Best detection first, each takes the free box
    of its class with the highest IoU >= `iou`; an ignored box only where no other is free, any number of times."""
    limit = min(iou, SAME)
    row, column, value = _same_class(detections, truth, pairs, pairs.iou >= limit)
    # Equal IoU: the later box wins, as in cocoapi.
    order = np.lexsort((-column, -value, truth.ignore[column], row))
    result = np.full(len(detections.scores), -1, np.int64)
    ignore = truth.ignore.tolist()
    taken = [False] * len(ignore)
    done = -1
    for detection, box in zip(row[order].tolist(), column[order].tolist(), strict=True):
        if detection == done or (taken[box] and not ignore[box]):
            continue
        done = detection
        taken[box] = True
        result[detection] = box
    return result


def match_image(
    detections: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    truth: tuple[NDArray[Any], NDArray[Any], Bools],
    iou: float,
) -> Ints:
    """[D] the true box that each detection of one image takes by COCO's rule, -1 for none; in any order.

    detections: boxes [D,4] xyxy, scores [D], labels [D]; truth: boxes [G,4], labels [G], ignore [G].
    """
    boxes, scores, labels = detections
    order = np.argsort(-scores, kind="stable")
    d = Detected(
        boxes[order].astype(np.float64), scores[order].astype(np.float64), labels[order], np.zeros(len(order), np.int64)
    )
    none = np.zeros(len(truth[1]), np.int64)
    t = Truth(truth[0].astype(np.float64), truth[1], none, truth[2], none.astype(np.float64))
    result = np.full(len(order), -1, np.int64)
    result[order] = matches_coco(d, t, overlaps(d, t, minimum=iou), iou)
    return result


def match_voc(detections: Detected, truth: Truth, pairs: Pairs) -> Ints:
    """Status [D] by VOC's rule: each detection belongs to the box of its class with the highest IoU, if
    that is above 0.5; the best detection of a box is correct, the others are wrong."""
    row, column, value = _same_class(detections, truth, pairs, pairs.iou > 0.5)
    order = np.lexsort((column, -value, row))
    detection, position = np.unique(row[order], return_index=True)
    box = column[order][position]
    status = np.zeros(len(detections.scores), np.int64)
    _, first = np.unique(box, return_index=True)  # rows of one image are best first
    status[detection[first]] = CORRECT
    status[detection[truth.ignore[box]]] = IGNORED
    return status


def _same_class(detections: Detected, truth: Truth, pairs: Pairs, keep: Bools) -> Pairs:
    return pairs.pick(keep & (detections.labels[pairs.detections] == truth.labels[pairs.truth]))


@dataclass(frozen=True)
class Curve:
    """Precision and recall after each detection, best first: scores, precision, recall [D']; ignored
    detections are left out. `objects` is what can be found; recall is 0 where that is 0."""

    scores: Floats
    precision: Floats
    recall: Floats
    objects: int

    @property
    def cuts(self) -> Bools:
        """[D'] after which detections a threshold can cut: it cannot part equal scores, only end a run of them."""
        return np.append(self.scores[1:] != self.scores[:-1], True)[: len(self.scores)]

    @property
    def highest(self) -> Floats:
        """[D'] the highest precision at this recall or above."""
        return np.maximum.accumulate(self.precision[::-1])[::-1]

    def f1(self, confidence: Floats) -> Floats:
        """F1 of the detections with a score >= each `confidence`; 0 where none is left."""
        kept = np.searchsorted(-self.scores, -np.asarray(confidence, np.float64), side="right")
        harmonic = _harmonic(self.precision, self.recall)
        return np.concatenate([[0.0], harmonic])[kept]

    def best(self) -> tuple[float, float]:
        """(score, F1) of the threshold with the best F1, the highest of several; (nan, nan) without
        objects and (nan, 0) without a correct detection.

        All thresholds between the last score kept and the next below do alike: the score is their middle, which
        the images of tomorrow miss least, or the last score of all where nothing lies below."""
        if self.objects == 0:
            return float("nan"), float("nan")
        harmonic = np.where(self.cuts, _harmonic(self.precision, self.recall), 0.0)
        if not harmonic.any():
            return float("nan"), 0.0
        row = int(harmonic.argmax())
        return float(self.scores[row : row + 2].mean()), float(harmonic[row])


def _harmonic(precision: Floats, recall: Floats) -> Floats:
    return 2 * precision * recall / np.maximum(precision + recall, 1e-300)


def precision_recall(scores: Floats, status: Ints, objects: int) -> Curve:
    """The curve of detections (scores [D], status [D]; equal scores keep their order) over `objects`."""
    order = np.argsort(-scores, kind="stable")
    order = order[status[order] != IGNORED]
    correct = np.cumsum(status[order] == CORRECT).astype(np.float64)
    precision = correct / np.arange(1, len(order) + 1)
    return Curve(scores[order], precision, correct / max(objects, 1), int(objects))


def voc_ap(curve: Curve, *, points: int | None = None) -> float:
    """VOC's average precision: the area under the curve with falling precision (VOC 2010), or with
    `points=11` the mean at recall 0, 0.1, ..., 1 (VOC 2007). nan without objects."""
    if curve.objects == 0:
        return float("nan")
    if points is None:
        return float((curve.highest * np.diff(curve.recall, prepend=0.0)).sum())
    # 3 of 10 objects reach recall 0.3, whatever the last bit of either number.
    return _mean_at(curve, np.linspace(0, 1, points) - 1e-12)


def coco_ap(curve: Curve) -> float:
    """COCO's average precision at the IoU of the curve: the mean over 101 recalls, compared to the last bit as
    cocoapi does. nan without objects."""
    return _mean_at(curve, np.linspace(0, 1, 101)) if curve.objects else float("nan")


def _mean_at(curve: Curve, recalls: Floats) -> float:
    """The mean of the highest precision at these recalls or above."""
    return float(np.append(curve.highest, 0.0)[np.searchsorted(curve.recall, recalls)].mean())


def confusion(detections: Detected, truth: Truth, pairs: Pairs, classes: int, *, score: float) -> Ints:
    """Which class was taken for which: [C+1, C+1], rows truth, columns prediction, the last is background.

    Detections with a score >= `score` and true boxes are matched one to one out of `pairs`: those of one
    class first, then, among what is left, objects found under another name; each time by falling IoU.
    What stays alone is counted against background. Ignored boxes count nowhere, and neither does a
    detection left over inside one.
    """
    keep = detections.scores[pairs.detections] >= score
    row, column, value = pairs.detections[keep], pairs.truth[keep], pairs.iou[keep]
    ignored = truth.ignore[column]
    other = detections.labels[row] != truth.labels[column]
    order = np.lexsort((column, row, -value, other))
    free = detections.scores >= score
    missed = ~truth.ignore
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    for pair in order[~ignored[order]]:
        if free[row[pair]] and missed[column[pair]]:
            free[row[pair]] = missed[column[pair]] = False
            matrix[truth.labels[column[pair]], detections.labels[row[pair]]] += 1
    free[row[ignored]] = False
    matrix[classes, :classes] = np.bincount(detections.labels[free], minlength=classes)
    matrix[:classes, classes] = np.bincount(truth.labels[missed], minlength=classes)
    return matrix


@dataclass(frozen=True)
class Curves:
    """Curves of every class (a tuple of C) and of all detections pooled, by IoU threshold."""

    names: tuple[str, ...]
    classes: dict[float, tuple[Curve, ...]]
    pooled: dict[float, Curve]


def all_curves(
    detections: Detected, truth: Truth, pairs: Pairs, names: tuple[str, ...], ious: tuple[float, ...]
) -> Curves:
    """COCO-matched curves at each IoU of `ious`; every detection counts, without a limit per image."""
    per_class, pooled = {}, {}
    for iou in ious:
        status = match_coco(detections, truth, pairs, iou)
        per_class[iou] = curves_by_class(detections, truth, status, len(names))
        pooled[iou] = precision_recall(detections.scores, status, int((~truth.ignore).sum()))
    return Curves(names, per_class, pooled)


def curves_by_class(detections: Detected, truth: Truth, status: Ints, classes: int) -> tuple[Curve, ...]:
    """One curve for each of C classes."""
    order = np.argsort(detections.labels, kind="stable")
    edges = np.searchsorted(detections.labels[order], np.arange(classes + 1))
    parts = [order[a:b] for a, b in pairwise(edges)]
    return tuple(
        precision_recall(detections.scores[part], status[part], objects)
        for part, objects in zip(parts, truth.objects(classes).tolist(), strict=True)
    )
