"""What a training step tells beyond its losses: numbers that can be read, and alarms with advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .boxes import distance_overlap
from .losses import Positives, centerness_target, entropy_floor
from .types import Losses, Points, Predictions


@dataclass
class StepReport:
    """Plain numbers of one optimiser step, summed over its parts; see `measure`."""

    loss: float = 0.0
    classification: float = 0.0
    box: float = 0.0
    centerness: float = 0.0
    centerness_excess: float = 0.0  # BCE above the entropy of its soft targets: 0 is perfect
    mean_iou: float = 0.0  # of positives with their boxes
    positives: int = 0
    dead: float = 0.0  # share of positives whose four distances are all zero
    by_level: list[int] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)  # labels among the positives
    lr: float = 0.0
    grad_norm: float = 0.0  # before clipping
    seconds: float = 0.0
    data_wait: float = 0.0  # seconds spent waiting for the loader

    def row(self, step: int, epoch: float, batch: int) -> dict[str, Any]:
        """This step as a row of metrics.csv; `batch` pictures went into it."""
        return {
            "step": step,
            "epoch": epoch,
            "lr": self.lr,
            "loss": self.loss,
            "classification": self.classification,
            "box": self.box,
            "centerness": self.centerness,
            "centerness_excess": self.centerness_excess,
            "mean_iou": self.mean_iou,
            "positives": self.positives,
            "grad_norm": self.grad_norm,
            "images_per_second": batch / max(self.seconds, 1e-9),
            "data_wait": self.data_wait,
        }


@torch.no_grad()
def measure(
    parts: Sequence[tuple[Losses, Predictions, Positives]], points: Points, quality: str = "centerness"
) -> StepReport:
    """Numbers of a step from its (losses, predictions, positives); one transfer from the device."""
    report = StepReport(by_level=[0] * len(points.grids))
    overlaps: list[Tensor] = []
    floors: list[Tensor] = []
    dead: list[Tensor] = []
    for losses, pred, pos in parts:
        for name, value in zip(("classification", "box", "centerness"), losses, strict=True):
            setattr(report, name, getattr(report, name) + float(value))
        report.positives += len(pos.point)
        predicted = pred.distances[pos.image, pos.point].float()
        intersection, union, _ = distance_overlap(predicted, pos.distances)
        overlap = intersection / (union + 1e-7)
        overlaps.append(overlap)
        learned = centerness_target(pos.distances) if quality == "centerness" else overlap
        floors.append(entropy_floor(learned) * len(learned))
        dead.append((predicted.amax(dim=1) <= 0).float())
        report.seen.update(pos.label.unique().tolist())
        levels = torch.bincount(points.level[pos.point], minlength=len(points.grids)).tolist()
        report.by_level = [a + b for a, b in zip(report.by_level, levels, strict=True)]
    report.loss = report.classification + report.box + report.centerness
    if report.positives:
        report.mean_iou = float(torch.cat(overlaps).mean())
        report.dead = float(torch.cat(dead).mean())
        report.centerness_excess = max(0.0, report.centerness - float(sum(floors)) / report.positives)
    return report
