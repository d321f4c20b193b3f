"""What a detector finds, misses and gets wrong where it is used: from one score on, at one IoU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from ..errors import ConfigError
from ..system.terminal import decimal, json_ready, plural, table
from .metrics import (
    CORRECT,
    IOU,
    SAME,
    WRONG,
    Detected,
    Ints,
    Pairs,
    Truth,
    coco_ap,
    confusion,
    curves_by_class,
    match_coco,
    precision_recall,
)

_ANY = 0.5  # the score where nothing is right: any shows that


class Cut(NamedTuple):
    """Where to count: detections from this score on (0..1; None: that of the best F1 of all classes together), right
    from this IoU on (above 0, up to 1)."""

    score: float | None = None
    iou: float = IOU

    def check(self) -> Cut:
        """Itself; ConfigError for a value out of range."""
        if self.score is not None and not (_is_number(self.score) and 0 <= self.score <= 1):
            raise ConfigError(f"score={self.score!r}: give a number from 0 to 1")
        if not (_is_number(self.iou) and 0 < self.iou <= 1):
            raise ConfigError(f"iou={self.iou!r}: give a number above 0, at most 1")
        return self


@dataclass(frozen=True)
class ClassCount:
    """One class, or all of them: its objects, and how many of them are found (true positives); `wrong` detections find
    none (false positives). `ap` is the AP at this one IoU, over all scores, 0..1, nan without objects."""

    name: str
    objects: int
    found: int
    wrong: int
    ap: float

    @property
    def missed(self) -> int:
        """Objects that are not found (false negatives)."""
        return self.objects - self.found

    @property
    def precision(self) -> float:
        """The share of the detections that are right, 0..1; nan without any."""
        return _share(self.found, self.found + self.wrong)

    @property
    def recall(self) -> float:
        """The share of the objects that are found, 0..1; nan without any."""
        return _share(self.found, self.objects)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; None stands where nothing could be counted."""
        counts = {"name": self.name, "objects": self.objects, "found": self.found, "missed": self.missed}
        shares = {"precision": self.precision, "recall": self.recall, "AP": self.ap}
        return counts | {"wrong": self.wrong} | {name: json_ready(value) for name, value in shares.items()}


@dataclass(frozen=True, repr=False)
class OperatingPoint:
    """The counts at one score and one IoU: of each class, and the `total` (its `ap` is the mean over the
    classes).

    `confusion` [C+1, C+1] counts what was taken for what: rows truth, columns detections, the last of both is
    background. Printed, it is a table.
    """

    score: float
    iou: float
    classes: tuple[ClassCount, ...]
    total: ClassCount
    confusion: Ints = field(compare=False)

    def cells(self) -> list[tuple[str | None, str | None, int]]:
        """What was taken for what, without zeros: (true class, detected class, count). None is the true class of a
        detection of nothing, and the detected class of an object that was missed."""
        names = (*(row.name for row in self.classes), None)
        rows, columns = self.confusion.nonzero()
        return [(names[i], names[j], int(self.confusion[i, j])) for i, j in zip(rows, columns, strict=True)]

    def line(self) -> str:
        """What all classes together have, in a line."""
        one = self.total
        right = f"{one.found:,} of {plural(one.objects, 'object')} found, recall {decimal(one.recall)}"
        return (
            f"at score {decimal(self.score)}: {right}; {plural(one.wrong, 'wrong detection')}, "
            f"precision {decimal(one.precision)} (IoU {self.iou:g})"
        )

    def __repr__(self) -> str:
        """A table of the classes that have objects or detections."""
        head = ("class", "found", "missed", "wrong", "precision", "recall", f"AP{100 * self.iou:g}")
        rows = [row for row in self.classes if row.objects or row.wrong]
        cells = [
            (
                *(row.name, f"{row.found:,}", f"{row.missed:,}", f"{row.wrong:,}"),
                *(decimal(value) for value in (row.precision, row.recall, row.ap)),
            )
            for row in [*rows, *([self.total] if len(self.classes) > 1 else [])]
        ]
        return f"from score {decimal(self.score, 4)} on, at IoU {self.iou:g}:\n{table(head, cells)}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; None stands where nothing could be counted."""
        return {
            "score": json_ready(self.score),
            "iou": self.iou,
            **{name: value for name, value in self.total.to_dict().items() if name != "name"},
            "per_class": [row.to_dict() for row in self.classes],
            "confusion": [dict(zip(("truth", "found", "count"), cell, strict=True)) for cell in self.cells()],
        }


def count(flat: Detected, truth: Truth, pairs: Pairs, names: Sequence[str], cut: Cut) -> OperatingPoint:
    """Count what is found at `cut` by COCO's matching, without a limit of detections in an image. Crowd and difficult
    boxes count nowhere. The confusion matrix pairs other classes too; see `metrics.confusion`. `pairs` are those of
    IoU >= cut.iou, or more."""
    pairs = pairs.pick(pairs.iou >= min(cut.iou, SAME))
    status = match_coco(flat, truth, pairs, cut.iou)
    score = cut.score
    if score is None:
        score = precision_recall(flat.scores, status, int((~truth.ignore).sum())).best()[0]
        score = _ANY if np.isnan(score) else score
    lowest = min(float(score), float(np.float32(score)))  # 0.7 is shown from 0.7 on, whatever the last bit of either
    shown = flat.scores >= lowest
    objects = truth.objects(len(names))
    found, wrong = (
        np.bincount(flat.labels[shown & (status == what)], minlength=len(names)) for what in (CORRECT, WRONG)
    )
    aps = [coco_ap(curve) for curve in curves_by_class(flat, truth, status, len(names))]
    counted = [ap for ap in aps if not np.isnan(ap)]
    mean = float(np.mean(counted)) if counted else float("nan")
    columns = zip(names, objects.tolist(), found.tolist(), wrong.tolist(), aps, strict=True)
    return OperatingPoint(
        float(score),
        float(cut.iou),
        tuple(ClassCount(*column) for column in columns),
        ClassCount("all", int(objects.sum()), int(found.sum()), int(wrong.sum()), mean),
        confusion(flat, truth, pairs, len(names), score=lowest),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
