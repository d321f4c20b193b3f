"""Forward, loss and backward of one step: what training does, and what a replay does again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..config import Config
from ..errors import ConfigError
from ..losses import Assignment, Normalizers, Positives, fcos_loss
from ..points import check_points
from ..system.terminal import plural
from ..types import Batch, Losses, Predictions


class Part(NamedTuple):
    """What stays of a part of a step when its gradient is there: the losses, the distances [M,4] float32 that its M
    positives predicted, and those positives. The predictions of all locations, which take far more memory, are gone."""

    losses: Losses
    distances: Tensor
    positives: Positives


class Learned(NamedTuple):
    """What a step came to: sums as `fcos.training.monitor.measure` gives them, the losses of each part, and what they
    were divided by (None where a method has divisors of its own)."""

    sums: Tensor
    losses: Sequence[Losses]
    norm: Normalizers | None


def backward_parts(
    fabric: Any,
    model: Any,
    batches: Sequence[tuple[Batch, Assignment]],
    norm: Normalizers,
    cfg: Config,
) -> list[Part]:
    """Forward, loss and backward of every part of a step, a batch with what its locations learn; gradients are averaged
    over processes in the last."""
    parts = []
    for i, (batch, learns) in enumerate(batches):
        with fabric.no_backward_sync(model, enabled=i + 1 < len(batches)):
            loss, part = part_of(lambda images: model(in_layout_of(model, images)), batch, learns, norm, cfg)
            fabric.backward(loss)
        parts.append(part)
        del loss  # or its graph would live on beside the next part's
    return parts


def part_of(
    predict: Callable[[Tensor], Predictions], batch: Batch, learns: Assignment, norm: Normalizers, cfg: Config
) -> tuple[Tensor, Part]:
    """Forward and loss of one part: the loss to go backward from, and what stays."""
    exact = cfg.data.padding == "exact"  # as the published implementations, see DataConfig
    images = batch.padded_with(cfg.model.mean) if exact else batch.images
    pred = predictions(predict, images)
    check_points(pred, learns.index.shape[1], cfg)
    losses = fcos_loss(pred, learns, cfg.loss, cfg.model, norm)
    learned = pred.distances.detach()[learns.positives.image, learns.positives.point].float()
    return losses.total(), Part(Losses(*(x.detach() for x in losses)), learned, learns.positives)


def predictions(predict: Callable[[Tensor], Predictions], images: Tensor) -> Predictions:
    """Those of images [B,3,H,W] in training; ConfigError where a BatchNorm has one location to learn from."""
    try:
        return predict(images)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        size = f"{images.shape[2]}x{images.shape[3]}"
        raise ConfigError(
            f"BatchNorm cannot learn from one location, and {plural(len(images), 'image')} of {size} pixels leave no "
            "more on the coarsest level; give train.batch=2, a larger data.size, or another norm than batch"
        ) from error


def in_layout_of(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Images [B,3,H,W] in the memory layout of the network's weights; another one would be converted at every
    convolution."""
    last = any(
        p.dim() == 4 and not p.is_contiguous() and p.is_contiguous(memory_format=torch.channels_last)
        for p in network.parameters()
    )
    return images.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
