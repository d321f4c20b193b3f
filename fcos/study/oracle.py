"""Where AP is lost: one output at a time replaced by the truth (1904.01355 has true centerness alone)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..boxes import iou
from ..config import Config
from ..losses import centerness_target
from .asked import Asked, Judged
from .cached import Cached, own_iou, redecode
from .compared import PaperStudy, Row, judged_ap

if TYPE_CHECKING:
    from ..data.dataset import Dataset


def run(asked: Asked) -> Judged:
    """The study as it is asked for."""
    return asked.on_cached(oracle_study)


def oracle_study(cached: Sequence[Cached], dataset: Dataset, config: Config) -> PaperStudy:
    """Where AP is lost: one output at a time replaced by the truth.

    centerness: locations inside a true box (whole box, level's range, smallest wins) get their training
    target, the others keep the predicted value. IoU: every candidate's centerness becomes its IoU with the
    nearest true box of its class. class: locations inside get probability 1 for their class, 0 for others.
    box: locations inside give exactly the true box. NMS: of the candidates that overlap a true box of their
    class by IoU >= 0.5 the best one stays and no other; the rest go through NMS.
    """
    cfg = config.decode
    rows = [Row("as predicted", judged_ap([redecode(c, cfg) for c in cached], dataset), {"AP": 0.371})]
    mends: tuple[tuple[str, Callable[[Cached], Cached], dict[str, float]], ...] = (
        ("true centerness", true_centerness, {"AP": 0.421}),
        ("IoU as centerness", lambda c: replace(c, centerness=own_iou(c)), {}),
        ("true class", true_class, {}),
        ("true box", true_box, {}),
    )
    for name, mend, paper in mends:
        detections = [redecode(mend(c), cfg) for c in cached]
        rows.append(Row(name, judged_ap(detections, dataset), paper))
    detections = [redecode(*perfect_nms(c, config)) for c in cached]
    rows.append(Row("true NMS", judged_ap(detections, dataset)))
    return PaperStudy.of(
        "oracle", dataset, rows, note="the paper's 42.1 is quoted from memory; the code behind it was never published"
    )


def true_centerness(c: Cached) -> Cached:
    """Candidates whose location learns a box get that box's centerness target."""
    inside = c.owner >= 0
    if not inside.any():
        return c
    box = c.truth[c.owner[inside]]
    target = centerness_target(torch.cat((c.xy[inside] - box[:, :2], box[:, 2:] - c.xy[inside]), dim=1))
    centerness = c.centerness.clone()
    centerness[inside] = target
    return replace(c, centerness=centerness)


def true_class(c: Cached) -> Cached:
    """Candidates whose location learns a box are certain of its class."""
    inside = c.owner >= 0
    probability = c.probability.clone()
    if inside.any():
        probability[inside] = (c.labels[inside] == c.truth_labels[c.owner[inside]]).float()
    return replace(c, probability=probability)


def true_box(c: Cached) -> Cached:
    """Candidates whose location learns a box give exactly that box."""
    inside = c.owner >= 0
    boxes = c.boxes.clone()
    if inside.any():
        boxes[inside] = c.truth[c.owner[inside]]
    return replace(c, boxes=boxes)


def perfect_nms(c: Cached, config: Config) -> tuple[Cached, Any, Tensor]:
    """(candidates, decode settings, kept [K]) for `redecode`: one candidate for each true box that has any."""
    from ..decode import score

    cfg = config.decode
    final = score(c.probability, c.centerness, cfg)
    kept = torch.zeros(len(c.boxes), dtype=torch.bool)
    away = torch.zeros(len(c.boxes), dtype=torch.bool)
    if len(c.truth) and len(c.boxes):
        overlap = iou(c.boxes, c.truth) * (c.labels[:, None] == c.truth_labels[None])
        value, which = overlap.max(dim=1)
        alive = (value >= 0.5) & ((c.probability if cfg.threshold_on == "class" else final) > cfg.threshold)
        for g in which[alive].unique().tolist():
            mine = (alive & (which == g)).nonzero()[:, 0]
            kept[mine[final[mine].argmax()]] = True
            away[mine] = True
    away &= ~kept
    return replace(c, probability=torch.where(away, 0.0, c.probability)), cfg, kept
