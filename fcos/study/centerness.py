"""What centerness is worth (1904.01355, table 4): AP without it, computed from the box, and predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..config import Config
from ..detections import Detections
from ..evaluation.coco import flatten
from ..evaluation.metrics import Curve, match_coco, overlaps, precision_recall, voc_ap
from ..losses import centerness_target
from ..show.axes import COLORS, INK, MUTED, OURS, new_figure, style
from .asked import Asked, Judged
from .cached import Cached, limit_by_class, own_iou, redecode_all
from .compared import PaperStudy, Row, judged_ap

if TYPE_CHECKING:
    from ..data.dataset import Dataset

_DRAWN = 6000  # points of the scatter plot


def run(asked: Asked) -> Judged:
    """The study as it is asked for."""
    return asked.on_cached(centerness_study)


def centerness_study(cached: Sequence[Cached], dataset: Dataset, config: Config) -> PaperStudy:
    """AP without centerness, with the one of the predicted box, with the branch (table 4), and the appendix's
    class-agnostic precision and recall at IoU 0.5, 0.75, 0.9.

    All three decode one trained network, so "none" differs from the paper's, where it was never trained.
    """
    config = limit_by_class(config)
    computed = [replace(c, centerness=centerness_of_box(c)) for c in cached]
    rule = "sqrt" if config.decode.score == "class" else config.decode.score
    variants = (
        ("none", redecode_all(cached, config, score="class"), 0.335),
        ("computed from the box", redecode_all(computed, config, score=rule), 0.335),
        ("branch", redecode_all(cached, config, score=rule), 0.371),
    )
    rows, curves = [], {}
    for name, detections, paper in variants:
        curves[name] = agnostic_curves(detections, dataset)
        numbers = judged_ap(detections, dataset)
        numbers |= {f"agnostic AP{round(100 * k)}": voc_ap(v, points=101) for k, v in curves[name].items()}
        rows.append(Row(name, numbers, {"AP": paper}))
    extra = {"curves": curves, "scatter": score_against_iou(cached, config)}
    return PaperStudy.of("centerness", dataset, rows, extra=extra, drawing=draw_centerness)


def centerness_of_box(c: Cached) -> Tensor:
    """[K] the centerness that the predicted box would have; 0 for boxes without an area."""
    return torch.nan_to_num(centerness_target(c.distances.clamp(min=0)), nan=0.0)


def agnostic_curves(detections: Sequence[Detections], dataset: Dataset) -> dict[float, Curve]:
    """Precision and recall with all classes as one, at each IoU."""
    flat, truth = flatten(detections, dataset, class_agnostic=True)
    pairs = overlaps(flat, truth, minimum=0.5)
    objects = int((~truth.ignore).sum())
    return {k: precision_recall(flat.scores, match_coco(flat, truth, pairs, k), objects) for k in (0.5, 0.75, 0.9)}


def score_against_iou(cached: Sequence[Cached], config: Config) -> np.ndarray:
    """[K,3]: class probability, class probability times centerness, and IoU with the nearest true box of the
    class, of candidates before NMS that pass the threshold (the paper's figure on centerness)."""
    parts = []
    for c in cached:
        rows = (c.probability > config.decode.threshold).nonzero()[:, 0]
        if not len(rows):
            continue
        overlap = own_iou(c)[rows]
        parts.append(torch.stack((c.probability[rows], c.probability[rows] * c.centerness[rows], overlap), dim=1))
    values = torch.cat(parts).numpy() if parts else np.zeros((0, 3), np.float32)
    if len(values) > _DRAWN:
        values = values[np.random.default_rng(0).choice(len(values), _DRAWN, replace=False)]
    return values


def draw_centerness(study: PaperStudy, path: Path) -> None:
    """Score against IoU, without centerness and with it; precision and recall."""
    figure = new_figure(13.6, 4.2)
    left, middle, right = figure.subplots(1, 3)
    points = study.extra["scatter"]
    for axes, column, title in ((left, 0, "class probability"), (middle, 1, "class probability x centerness")):
        style(axes, title, "score", "IoU with its object")
        axes.scatter(points[:, column], points[:, 2], s=4, alpha=0.25, color=OURS, linewidths=0)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
        axes.set(xlim=(0, 1), ylim=(0, 1))
    style(right, "all classes as one", "recall", "precision")
    styles = {0.5: "-", 0.75: (0, (5, 2)), 0.9: (0, (1, 1.5))}
    for (name, curves), color in zip(study.extra["curves"].items(), COLORS, strict=False):
        for least, curve in curves.items():
            label = name if least == 0.5 else None
            right.plot(curve.recall, curve.precision, color=color, linestyle=styles[least], linewidth=1.4, label=label)
    for least, line in styles.items():
        right.plot([], [], color=MUTED, linestyle=line, label=f"IoU {least:g}")
    right.set(xlim=(0, 1), ylim=(0, 1.02))
    figure.legend(frameon=False, labelcolor=INK, fontsize=9, loc="outside right upper")
    figure.savefig(path, format="png")
