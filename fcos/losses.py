"""The loss: focal on classes, IoU-style on boxes, BCE on centerness (1904.01355 sections 3.1-3.2).

What divides the sums is passed in as `Normalizers`. They follow from the assignment alone, so a training
step knows them before its first forward pass, and summing them over processes and over accumulation steps
makes 1 process x 8 images the same as 2 x 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .boxes import distance_overlap, to_distances
from .config import LossConfig, ModelConfig
from .types import IGNORED, Losses, Points, Predictions, Target


class Positives(NamedTuple):
    """The M positive points of a batch: image [M], point [M] and its stride [M], label [M], box [M,4] and, from the
    point, the distances [M,4] to its sides in pixels."""

    image: Tensor
    point: Tensor
    stride: Tensor
    label: Tensor
    box: Tensor
    distances: Tensor


@dataclass(frozen=True)
class Assignment:
    """What the points of a batch learn: the index [N,P] of `assign_batch`, and its positives."""

    index: Tensor
    positives: Positives

    @classmethod
    def of(cls, points: Points, targets: Sequence[Target], index: Tensor) -> Assignment:
        return cls(index, gather_positives(points, targets, index))


class Normalizers(NamedTuple):
    """Divisors of the three terms, scalars > 0: of the classes, the boxes and the centerness."""

    classification: Tensor
    box: Tensor
    centerness: Tensor


def gather_positives(points: Points, targets: Sequence[Target], index: Tensor) -> Positives:
    """The positives of an assignment index [N,P]; see `assign_batch`."""
    image, point = (index >= 0).nonzero(as_tuple=True)
    first = torch.tensor([0, *(len(t.boxes) for t in targets)], device=index.device).cumsum(0)
    which = index[image, point] + first[image]
    box = torch.cat([t.boxes for t in targets])[which]
    label = torch.cat([t.labels for t in targets])[which]
    return Positives(image, point, points.stride[point], label, box, to_distances(points.xy[point], box))


def centerness_target(distances: Tensor) -> Tensor:
    """sqrt(min(l,r) / max(l,r) * min(t,b) / max(t,b)), [...] in 0..1, of distances [...,4] > 0."""
    sides = torch.stack((distances[..., 0::2], distances[..., 1::2]), dim=-2)
    ratio = sides.amin(dim=-1) / sides.amax(dim=-1)
    return (ratio[..., 0] * ratio[..., 1]).clamp(min=0).sqrt()


def count(positives: Positives, cfg: LossConfig) -> Tensor:
    """[2]: number of positives and sum of box-loss weights; add these up over processes and parts of a step."""
    weights = _box_weights(positives.distances, cfg)
    return torch.stack((weights.new_tensor(float(len(weights))), weights.sum()))


def normalizers(total: Tensor, cfg: LossConfig, world: int = 1, average: float | None = None) -> Normalizers:
    """Divisors from `total` [2], the counts of the whole step over `world` processes.

    Gradients are averaged over processes, so the divisors are means per process; the least divisor is one for the whole
    step, so that a step without positives too has the gradient that one process would have. `average` is the moving
    average of the step's positives, for the dialect that has one (see `moving_average`).
    """
    if cfg.normalizer == "moving-average":
        if average is None:
            raise ValueError("the moving-average normalizer needs `average`")
        shared = total.new_tensor(average / world)
        return Normalizers(shared, shared, shared)
    positives = total[0].clamp(min=1.0) / world
    weights = total[1].clamp(min=1e-6) / world if cfg.box_weights == "centerness" else positives
    return Normalizers(positives, weights, positives)


def moving_average(previous: float | None, positives: float, cfg: LossConfig) -> float:
    """detectron2's normaliser after one more step with this many positives."""
    start = cfg.normalizer_start if previous is None else previous
    return start * cfg.normalizer_momentum + max(positives, 1.0) * (1 - cfg.normalizer_momentum)


def fcos_loss(
    pred: Predictions, assigned: Assignment, cfg: LossConfig, model: ModelConfig, norm: Normalizers | None = None
) -> Losses:
    """Losses of a batch, whose points learn what is assigned. Without `norm` the batch divides by its own counts."""
    pos = assigned.positives
    if norm is None:
        total = count(pos, cfg)
        average = moving_average(None, float(total[0]), cfg) if cfg.normalizer == "moving-average" else None
        norm = normalizers(total, cfg, average=average)

    classes = focal_sum(pred.logits, assigned.index, pos, cfg.focal_alpha, cfg.focal_gamma)
    predicted = pred.distances[pos.image, pos.point]
    logit = pred.centerness[pos.image, pos.point].to(predicted.dtype)
    unit = pos.stride[:, None].to(predicted.dtype) if model.normalize else 1.0
    truth = pos.distances.to(predicted.dtype)
    loss, quality = box_loss(predicted / unit, truth / unit, cfg)
    weights = _box_weights(truth, cfg)
    learned = centerness_target(truth) if cfg.quality == "centerness" else quality.detach()
    branch = F.binary_cross_entropy_with_logits(logit, learned, reduction="sum")
    return Losses(
        classes / norm.classification * cfg.class_weight,
        (loss * weights).sum() / norm.box * cfg.box_weight,
        branch / norm.centerness * cfg.centerness_weight,
    )


def box_loss(predicted: Tensor, truth: Tensor, cfg: LossConfig) -> tuple[Tensor, Tensor]:
    """(loss [M], IoU [M]) of distances [M,4] >= 0 from the same points, in the unit that `iou_plus_one` counts."""
    loss, overlap = _overlap_loss(predicted, truth, cfg)
    if cfg.log_weight:
        ratio = predicted.clamp(min=1e-3).log() - truth.clamp(min=1e-3).log()
        loss = loss + cfg.log_weight * ratio.abs().mean(dim=1)
    return loss, overlap


def _overlap_loss(predicted: Tensor, truth: Tensor, cfg: LossConfig) -> tuple[Tensor, Tensor]:
    """(loss [M], IoU [M]) by the overlap alone."""
    intersection, union, enclosing = distance_overlap(predicted, truth)
    if cfg.iou_plus_one:
        overlap = (intersection + 1.0) / (union + 1.0)
    else:
        overlap = intersection / (union + 1e-7)
    if cfg.box == "iou":
        return -(overlap.clamp(min=1e-6).log()), overlap
    if cfg.box == "linear_iou":
        return 1 - overlap, overlap
    if cfg.box == "giou":
        return 1 - overlap + (enclosing - union) / (enclosing + 1e-7), overlap
    shift = (predicted[:, 2:] - predicted[:, :2] - truth[:, 2:] + truth[:, :2]) / 2
    high = torch.maximum(predicted, truth)
    diagonal = (high[:, :2] + high[:, 2:]).square().sum(dim=1)
    return 1 - overlap + shift.square().sum(dim=1) / (diagonal + 1e-7), overlap


def _box_weights(distances: Tensor, cfg: LossConfig) -> Tensor:
    if cfg.box_weights == "none":
        return torch.ones_like(distances[:, 0])
    return centerness_target(distances)


def focal_sum(logits: Tensor, index: Tensor, pos: Positives, alpha: float, gamma: float) -> Tensor:
    """Focal loss (Lin et al., arXiv 1708.02002) of logits [N,P,C], summed over all points that are not ignored."""
    keep = None
    if bool((index == IGNORED).any()):
        keep = (index != IGNORED).to(torch.float32)[..., None]
    where = (pos.image * logits.shape[1] + pos.point) * logits.shape[2] + pos.label
    result: Tensor = _FocalSum.apply(logits, where, keep, alpha, gamma)
    return result


class _FocalSum(torch.autograd.Function):
    """With s = sigmoid(z) and z the logit that should be low, one term is s^gamma * softplus(z). The gradient
    has a closed form, so one tensor is kept for the backward pass in place of autograd's six."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, where: Tensor, keep: Tensor | None, alpha: float, gamma: float) -> Tensor:
        accurate = (logits if logits.dtype == torch.float64 else logits.float()).contiguous()
        value, slope = _focal_term(accurate, gamma)
        value, slope = value.mul_(1 - alpha), slope.mul_(1 - alpha)
        if keep is not None:
            value, slope = value.mul_(keep), slope.mul_(keep)
        positive_value, positive_slope = _focal_term(-accurate.reshape(-1)[where], gamma)
        value.view(-1)[where] = positive_value * alpha
        slope.view(-1)[where] = positive_slope * -alpha
        ctx.save_for_backward(slope.to(logits.dtype))
        return value.sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * grad.to(slope.dtype), None, None, None, None


def _focal_term(z: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """s^gamma * softplus(z) and its derivative s^gamma * (gamma * (1 - s) * softplus(z) + s), s = sigmoid(z)."""
    s = torch.sigmoid(z)
    softplus = F.softplus(z)
    power = s * s if gamma == 2 else s.pow(gamma)
    slope = ((1 - s) * softplus * gamma + s) * power
    return softplus * power, slope


def entropy_floor(target: Tensor) -> Tensor:
    """Mean BCE that a perfect centerness branch would still have, because its targets [M] are soft."""
    if len(target) == 0:
        return target.new_zeros(())
    t = target.clamp(1e-12, 1 - 1e-7)
    return -(t * t.log() + (1 - t) * (1 - t).log()).mean()
