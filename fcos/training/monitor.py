"""What a training step tells beyond its losses: numbers that can be read without knowing the code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..assign import candidate_pairs
from ..boxes import distance_overlap
from ..config import AssignConfig, LossConfig
from ..losses import Normalizers, centerness_target, entropy_floor
from ..types import Losses, Points, Target
from .step import Part

NOTHING = 0.01  # pixels; a box whose four distances are below is no box
_SUMS = 9  # numbers in front of the levels and the classes in what `measure` returns


@dataclass
class StepReport:
    """Plain numbers of one optimiser step, over its parts and all processes; see `measure`."""

    loss: float = 0.0
    classification: float = 0.0
    box: float = 0.0
    centerness: float = 0.0
    centerness_excess: float = 0.0  # BCE above the entropy of its soft targets: 0 is perfect
    mean_iou: float = 0.0  # of positives with their boxes
    positives: int = 0
    dead: float = 0.0  # share of positives whose four distances are all about zero
    ambiguous: float | None = None  # share of positives that lie in several boxes; None: not counted in this step
    by_level: list[int] = field(default_factory=list)  # positives, finest level first
    seen: frozenset[int] = frozenset()  # labels among the positives
    lr: float = 0.0
    grad_norm: float = 0.0  # before clipping
    seconds: float = 0.0
    data_wait: float = 0.0  # seconds spent waiting for the loader

    @staticmethod
    def of(numbers: Sequence[float], levels: int, world: int = 1) -> StepReport:
        """From what `measure` returned, added up over `world` processes, as plain numbers."""
        classification, box, centerness, floor, positives, overlap, dead, crowded, counted = numbers[:_SUMS]
        classification, box, centerness = classification / world, box / world, centerness / world
        some = max(1.0, positives)
        return StepReport(
            loss=classification + box + centerness,
            classification=classification,
            box=box,
            centerness=centerness,
            centerness_excess=max(0.0, centerness - floor / world),
            mean_iou=overlap / some,
            positives=int(positives),
            dead=dead / some,
            ambiguous=crowded / max(1.0, positives) if counted else None,
            by_level=[int(n) for n in numbers[_SUMS : _SUMS + levels]],
            seen=frozenset(label for label, n in enumerate(numbers[_SUMS + levels :]) if n),
        )

    def row(self, step: int, epoch: float) -> dict[str, Any]:
        """This step as columns of metrics.csv."""
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
            "positives_by_level": " ".join(str(n) for n in self.by_level),
            "ambiguous": self.ambiguous,
            "grad_norm": self.grad_norm,
        }


@torch.no_grad()
def measure(parts: Sequence[Part], points: Points, norm: Normalizers, cfg: LossConfig, classes: int) -> Tensor:
    """Sums over the parts of a step on this process, to be added up over processes: [9 + levels + classes].

    The losses, the centerness loss that is left at best, positives, their IoU, how many of them predict no box, two
    zeros for `add_crowded`; then positives per level and per class.
    """
    levels, device = len(points.grids), points.xy.device
    dtype = torch.float32 if device.type == "mps" else torch.float64
    sums = torch.zeros(_SUMS, dtype=dtype, device=device)
    by_level, by_class = sums.new_zeros(levels), sums.new_zeros(classes)
    for losses, predicted, pos in parts:
        intersection, union, _ = distance_overlap(predicted, pos.distances)
        overlap = intersection / (union + 1e-7)
        learned = centerness_target(pos.distances) if cfg.quality == "centerness" else overlap
        floor = entropy_floor(learned) * len(learned) / norm.centerness * cfg.centerness_weight
        dead = (predicted.amax(dim=1) < NOTHING).sum()
        ones = sums.new_ones(len(pos.point))
        sums[:3] += torch.stack(list(losses)).to(dtype)
        sums[3:7] += torch.stack([x.to(dtype) for x in (floor, ones.sum(), overlap.sum(), dead)])
        by_level.scatter_add_(0, points.level[pos.point], ones)
        by_class.scatter_add_(0, pos.label, ones)
    return torch.cat((sums, by_level, by_class))


@torch.no_grad()
def sums_of(losses: Sequence[Losses], labels: Tensor, levels: int, classes: int) -> Tensor:
    """Sums of `measure` for a method without locations: its losses, and objects [G] by their labels for positives."""
    dtype = torch.float32 if labels.device.type == "mps" else torch.float64
    sums = torch.zeros(_SUMS + levels + classes, dtype=dtype, device=labels.device)
    sums[:3] = sum(torch.stack(list(part)).to(sums) for part in losses)
    sums[4] = len(labels)
    sums[_SUMS + levels :] = torch.bincount(labels, minlength=classes)
    return sums


def add_crowded(sums: Tensor, crowded: Tensor) -> None:
    """Note in what `measure` gave how many locations are crowded (see `count_crowded`), and that they were counted."""
    sums[7] += crowded
    sums[8] += 1


def count_crowded(points: Points, targets: Sequence[Target], cfg: AssignConfig) -> Tensor:
    """How many locations of a batch are candidates of more than one box (1904.01355, section 4.1.2), a scalar."""
    number = len(points.xy)
    boxes = torch.cat([t.boxes[~t.ignore] for t in targets])
    image = torch.cat([torch.full_like(t.labels[~t.ignore], i) for i, t in enumerate(targets)])
    point, box = candidate_pairs(points, boxes, cfg)
    _, times = torch.unique(image[box] * number + point, return_counts=True)
    result: Tensor = (times > 1).sum()
    return result
