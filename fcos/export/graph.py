"""The module that is exported: pixels in, Predictions or fixed-size detections out, every shape traceable."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..boxes import as_compared, to_corners
from ..config import Config
from ..decode import score, solid
from ..errors import ModelError
from ..network.folding import fuse
from ..network.model import FCOS
from .about import About

_MOST = 1 << 14  # an axis of a dynamic graph never exceeds this


class Raw(nn.Module):
    """images [N,3,H,W] -> logits [N,P,C], distances [N,P,4] in pixels, centerness [N,P], all float32."""

    def __init__(self, network: FCOS) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(value.float() for value in self.network(images))


class EndToEnd(nn.Module):
    """images [N,3,H,W] and sizes [N,2] (height, width in front of the padding) -> detections.

    boxes [N,D,4] in pixels of the input, scores [N,D], labels [N,D], points [N,D], count [N]; D is
    `decode.max_detections`, best first, and rows from `count` on hold zeros and -1. The rules are those of
    `fcos.decode`; candidates of a level are always `decode.topk`, some of them empty.
    """

    def __init__(self, network: FCOS, config: Config) -> None:
        super().__init__()
        if config.decode.nms.startswith("soft"):
            raise ModelError(f"decode.nms={config.decode.nms} cannot be part of a graph; leave --nms out")
        self.network, self.config = network, config

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        cfg, limit = self.config.decode, sizes.float().flip(1)[:, None] - self.config.decode.clip_margin
        boxes, scores, labels, points = self.candidates(images)
        if cfg.clip == "before":
            boxes = _clip(boxes, limit)
        if cfg.drop_empty:
            scores = torch.where(solid(boxes), scores, -1.0)
        valid = scores >= 0
        if cfg.nms != "none":
            kinds = torch.zeros_like(labels) if cfg.nms == "agnostic" else labels
            sides = as_compared(boxes, cfg)
            limit_iou = cfg.nms_iou
            if cfg.nms_rule == "mmcv":  # see `fcos.boxes.nms`
                limit_iou = float(np.float32(limit_iou))
                if cfg.nms == "class":
                    end = torch.where(valid[..., None], sides, 0.0).amax(dim=(1, 2)) + 1
                    sides = sides + labels[..., None].float() * end[:, None, None]
            keep = torch.ops.fcos.nms(sides, scores, kinds, limit_iou, self.network.num_classes, cfg.max_detections)
            valid = valid & keep
        rows: tuple[Tensor, ...] = (boxes, labels, points)
        scores, rows = _first(scores, rows, valid, cfg.max_detections)
        if cfg.clip == "after":
            boxes = _clip(rows[0], limit)
            scores, rows = _first(scores, (boxes, *rows[1:]), solid(boxes) & (scores >= 0), cfg.max_detections)
        valid = scores >= 0
        boxes, labels, points = rows
        return (
            torch.where(valid[..., None], boxes, torch.zeros_like(boxes)),
            torch.where(valid, scores, torch.zeros_like(scores)),
            torch.where(valid, labels, torch.full_like(labels, -1)),
            torch.where(valid, points, torch.full_like(points, -1)),
            valid.sum(dim=1),
        )

    def candidates(self, images: Tensor) -> tuple[Tensor, ...]:
        """boxes [N,K,4], scores [N,K] (-1: no candidate), labels [N,K], points [N,K]; K = levels * topk."""
        cfg, model = self.config.decode, self.config.model
        first, levels = 0, []
        for level, features in enumerate(self.network.features(images)):
            rows, columns = features.shape[-2:]
            logits, distances, centerness = (v.float() for v in self.network.head.level(features, level))
            probability = torch.sigmoid(logits)
            scores = score(probability, torch.sigmoid(centerness)[..., None], cfg)
            passed = (probability if cfg.threshold_on == "class" else scores) > cfg.threshold
            rank = torch.where(passed, scores if cfg.topk_by == "score" else probability, -1.0).flatten(1)
            # a small level has fewer entries than topk: empty ones make up for them
            best, spot = F.pad(rank, (0, cfg.topk), value=-1.0).topk(cfg.topk)
            spot = spot.clamp(max=rank.shape[1] - 1)
            chosen = torch.where(best >= 0, scores.flatten(1).gather(1, spot), -1.0)
            labels = spot % self.network.num_classes
            cell = spot // self.network.num_classes
            if model.point_spacing == "stride":
                step_x = step_y = model.strides[level]
            else:
                step_x, step_y = images.shape[-1] // columns, images.shape[-2] // rows
            row = cell // columns
            x = _places(cell - row * columns, step_x, model.point_offset)
            y = _places(row, step_y, model.point_offset)
            sides = distances.gather(1, cell[..., None].expand(-1, -1, 4))
            levels.append((to_corners(torch.stack((x, y), dim=-1), sides), chosen, labels, cell + first))
            first = first + rows * columns
        return tuple(torch.cat(parts, dim=1) for parts in zip(*levels, strict=True))


def _places(index: Tensor, step: int, offset: float) -> Tensor:
    """(index + offset) * step, float32; a product with a free axis has to be one of integers."""
    return (index * step).float() + (torch.ones_like(index) * step).float() * offset


def _first(scores: Tensor, rows: tuple[Tensor, ...], valid: Tensor, count: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The `count` best of what is valid, best first; -1 is the score of the rest."""
    best, spot = torch.where(valid, scores, -1.0).topk(min(count, scores.shape[1]))
    boxes = rows[0].gather(1, spot[..., None].expand(-1, -1, 4))
    return best, (boxes, *(row.gather(1, spot) for row in rows[1:]))


def _clip(boxes: Tensor, limit: Tensor) -> Tensor:
    """Boxes [N,K,4] cut to limit [N,1,2], the (width, height) of each image."""
    return torch.minimum(boxes.clamp(min=0), torch.cat((limit, limit), dim=-1))


@torch.library.custom_op("fcos::nms", mutates_args=())
def nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float, classes: int, limit: int) -> Tensor:
    """What NMS per class keeps of boxes [N,K,4], scores [N,K] (negative: no candidate) and labels [N,K], as a
    mask [N,K]; of each class the first `limit` only, where a graph counts."""
    from torchvision.ops import nms as plain  # slow to import, and whoever opens a graph imports this module

    keep = torch.zeros_like(scores, dtype=torch.bool)
    for image in range(len(boxes)):
        for label in labels[image][scores[image] >= 0].unique():
            members = ((labels[image] == label) & (scores[image] >= 0)).nonzero()[:, 0]
            kept = plain(boxes[image, members], scores[image, members], iou)
            keep[image, members[kept]] = True
    return keep


@nms.register_fake
def _(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float, classes: int, limit: int) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


def build(network: FCOS, about: About) -> nn.Module:
    """A copy of the network, ready to be traced: fused, on the CPU, paddings as constants."""
    network = fuse(network, torch.float16 if about.dtype == "fp16" else torch.float32)
    network = network.cpu().to(memory_format=torch.contiguous_format)
    if about.config.data.divisor % 32 == 0:
        _constant_padding(network)
    return EndToEnd(network, about.config) if about.nms else Raw(network)


def _constant_padding(network: nn.Module) -> None:
    """TensorFlow's 'same' padding depends on the size only through its remainder by the stride, here zero."""
    for parent in list(network.modules()):
        for name, conv in list(parent.named_children()):
            if not isinstance(conv, nn.Conv2d) or type(conv).__name__ != "Conv2dSame":
                continue
            sides = zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)
            high, wide = (max((kernel - 1) * dilation + 1 - stride, 0) for kernel, stride, dilation in sides)
            plain = copy.copy(conv)
            plain.__class__ = nn.Conv2d
            setattr(
                parent,
                name,
                nn.Sequential(nn.ZeroPad2d((wide // 2, wide - wide // 2, high // 2, high - high // 2)), plain),
            )


def split_norms(network: nn.Module) -> None:
    """Let every GroupNorm be means and products over the channels as they lie. OpenVINO has the norm itself for the
    channels of a group side by side only, and copies each map there and back: 5 to 7 % of a network."""
    for parent in list(network.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, nn.GroupNorm):
                setattr(parent, name, _SplitNorm(norm))


class _SplitNorm(nn.Module):
    """GroupNorm of [N,C,H,W]."""

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        centered = x - self._of_groups(x)
        scale = torch.rsqrt(self._of_groups(centered * centered) + self.norm.eps)
        return centered * (scale * self.norm.weight.view(1, -1, 1, 1)) + self.norm.bias.view(1, -1, 1, 1)

    def _of_groups(self, x: Tensor) -> Tensor:
        """The mean over a channel's group and all its locations, [N,C,1,1]."""
        groups, channels = self.norm.num_groups, self.norm.num_channels
        means = x.mean(dim=(2, 3)).reshape(-1, groups, channels // groups).mean(dim=2, keepdim=True)
        return means.expand(-1, -1, channels // groups).reshape(-1, channels, 1, 1)


def example(about: About) -> tuple[Tensor, ...]:
    """Inputs to trace with. Where the size is free every level, and the size in steps, has two rows and three columns
    or more: the tracer takes an axis of length 1, or two of equal length, for always so."""
    step, top = about.config.data.divisor, about.config.model.strides[-1]
    height, width = about.size or (max(2, -(-2 * top // step)) * step, max(3, -(-3 * top // step)) * step)
    batch = about.batch or 2
    images = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8)
    inputs: tuple[Tensor, ...] = (images if about.pixels == "uint8" else images.float(),)
    if about.nms:
        inputs += (torch.tensor([[height - 3, width - 5]] * batch),)
    return inputs


def dynamic_shapes(about: About) -> tuple[dict[int, Any], ...] | None:
    """For torch.export: which axes are free, H and W in steps of the divisor; None when all are fixed."""
    axes: dict[int, Any] = {}
    if about.batch is None:
        axes[0] = torch.export.Dim("batch", min=1, max=_MOST)
    rows = dict(axes)
    if about.size is None:
        step = about.config.data.divisor
        for axis, name in ((2, "height"), (3, "width")):
            free = torch.export.Dim(f"{name}_steps", min=1, max=max(_MOST // step, 2))
            axes[axis] = step * free if step > 1 else free
    if not axes:
        return None
    return (axes, rows) if about.nms else (axes,)
