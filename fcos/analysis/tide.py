"""TIDE's six kinds of error and what each costs (Bolya et al., arXiv 2008.08115), at IoU 0.5 and 0.1.

A wrong detection is, in this order: badly placed (`box`: the right class, IoU 0.1 to 0.5), misnamed
(`class`: another class, IoU >= 0.5), a `duplicate` of an object that is found, `background` (IoU <= 0.1 with
everything), or `both` misnamed and badly placed. An object that no detection claims, and no misnamed or badly
placed one either, is `missed`. The cost of a kind is the rise of AP50 when an oracle mends it: misnamed and
badly placed detections become right where their object is still free and they are its best claim, all other
wrong detections go, missed objects are not asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation.coco import flatten
from ..evaluation.metrics import CORRECT, Detected, Ints, Truth, curves_by_class, matches_coco, overlaps, voc_ap
from ..system.terminal import json_ready, percent, table

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..detections import Detections

KINDS = ("class", "box", "both", "duplicate", "background", "missed")
NEAR, FAR = 0.5, 0.1
_RIGHT = -1  # kind of a detection that is right or in an ignored box


@dataclass(frozen=True)
class Tide:
    """`count` and `cost` (AP50 gained when mended, 0..1) of each kind in `KINDS`; `ap50` as things are."""

    ap50: float
    count: dict[str, int]
    cost: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        result: dict[str, Any] = json_ready(vars(self))
        return result

    def text(self) -> str:
        """For a terminal."""
        rows = [(k, f"{self.count[k]:,}", percent(self.cost[k])) for k in KINDS]
        return f"AP50 {percent(self.ap50)} %\n" + table(("error", "count", "AP50 lost, %"), rows)


def tide(detections: Sequence[Detections], dataset: Dataset) -> Tide:
    """Judge detections[i] against dataset.records[i]."""
    flat, truth = flatten(detections, dataset)
    kind, claim, match = classify(flat, truth)
    classes = len(dataset.classes)
    free = np.ones(len(truth.labels), bool)
    free[match[match >= 0]] = False
    claimed = np.isin(kind, (KINDS.index("class"), KINDS.index("box")))
    missed = free & ~truth.ignore
    missed[claim[claimed]] = False

    status = np.zeros(len(kind), np.int64)
    status[match >= 0] = np.where(truth.ignore[match[match >= 0]], -1, CORRECT)
    base = _ap(flat, truth, status, classes)
    count, cost = {}, {}
    for number, name in enumerate(KINDS):
        mine = kind == number
        count[name] = int(mine.sum()) if name != "missed" else int(missed.sum())
        labels, mended, asked = flat.labels.copy(), status.copy(), truth
        if name in ("class", "box"):
            mended[mine] = -1
            rows = np.flatnonzero(mine & (claim >= 0))
            rows = rows[free[claim[rows]]]
            rows = rows[np.argsort(-flat.scores[rows], kind="stable")]
            _, first = np.unique(claim[rows], return_index=True)
            mended[rows[first]] = CORRECT
            labels[rows[first]] = truth.labels[claim[rows[first]]]
        elif name == "missed":
            asked = truth._replace(ignore=truth.ignore | missed)
        else:
            mended[mine] = -1
        cost[name] = _ap(flat._replace(labels=labels), asked, mended, classes) - base
    return Tide(base, count, cost)


def classify(flat: Detected, truth: Truth) -> tuple[Ints, Ints, Ints]:
    """(kind [D], the object a wrong detection is about [D], the object a right one takes [D]); -1: none."""
    pairs = overlaps(flat, truth, minimum=1e-6)
    match = matches_coco(flat, truth, pairs, NEAR)
    solid = ~truth.ignore[pairs.truth]
    row, column, value = pairs.detections[solid], pairs.truth[solid], pairs.iou[solid]
    same = flat.labels[row] == truth.labels[column]
    used = np.zeros(len(truth.labels), bool)
    used[match[match >= 0]] = True

    def best(keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(highest IoU [D], its object [D]) over the pairs of `keep`."""
        top, which = np.zeros(len(flat.scores)), np.full(len(flat.scores), -1, np.int64)
        order = np.flatnonzero(keep)[np.argsort(value[keep], kind="stable")]
        top[row[order]], which[row[order]] = value[order], column[order]  # the last, the highest, stays
        return top, which

    right, right_box = best(same)
    other, other_box = best(~same)
    again, again_box = best(same & used[column])
    kind = np.full(len(flat.scores), KINDS.index("both"), np.int64)
    claim = np.where(other >= right, other_box, right_box)
    steps = (
        ("background", np.maximum(right, other) <= FAR, np.full(len(kind), -1)),
        ("duplicate", again >= NEAR, again_box),
        ("class", other >= NEAR, other_box),
        ("box", (right >= FAR) & (right <= NEAR), right_box),
    )  # the last word is TIDE's first question
    for name, holds, box in steps:
        kind[holds], claim[holds] = KINDS.index(name), box[holds]
    kind[match >= 0], claim[match >= 0] = _RIGHT, -1
    return kind, claim, match


def _ap(flat: Detected, truth: Truth, status: Ints, classes: int) -> float:
    values = [voc_ap(c, points=101) for c in curves_by_class(flat, truth, status, classes)]
    known = [v for v in values if v == v]
    return float(np.mean(known)) if known else float("nan")
