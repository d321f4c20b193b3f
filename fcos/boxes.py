"""Boxes: distances to sides <-> corners, the IoU family, NMS. All xyxy, absolute pixels, width = x2 - x1."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .config import DataConfig, DecodeConfig


def to_corners(xy: Tensor, distances: Tensor) -> Tensor:
    """Boxes [...,4] xyxy of points xy [...,2] with distances l, t, r, b [...,4]."""
    return torch.cat((xy - distances[..., :2], xy + distances[..., 2:]), dim=-1)


def to_distances(xy: Tensor, boxes: Tensor) -> Tensor:
    """Distances l, t, r, b [...,4] from points xy [...,2] to the sides of boxes [...,4]; negative outside."""
    return torch.cat((xy - boxes[..., :2], boxes[..., 2:] - xy), dim=-1)


def area(boxes: Tensor, plus_one: bool = False) -> Tensor:
    """Areas [...] of boxes [...,4]; `plus_one` counts pixels of inclusive corners."""
    extent = boxes[..., 2:] - boxes[..., :2] + float(plus_one)
    return extent[..., 0] * extent[..., 1]


def clip(boxes: Tensor, size: tuple[int, int], margin: int = 0) -> Tensor:
    """Boxes [...,4] cut to an image of (height, width); corners end at width - margin, height - margin."""
    height, width = size
    x = boxes[..., 0::2].clamp(0, width - margin)
    y = boxes[..., 1::2].clamp(0, height - margin)
    return torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), dim=-1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU [A,B] of every pair of a [A,4] and b [B,4], in 0..1."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = (high - low).clamp(min=0)
    both = sides[..., 0] * sides[..., 1]
    union = area(a)[:, None] + area(b)[None, :] - both
    return both / union.clamp(min=torch.finfo(union.dtype).tiny)  # two empty boxes share nothing


def distance_overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(intersection, union, enclosing area), each [...], of two boxes given as distances [...,4] >= 0
    from the same point. Both hold the point, so they always meet."""
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    intersection = (low[..., 0] + low[..., 2]) * (low[..., 1] + low[..., 3])
    enclosing = (high[..., 0] + high[..., 2]) * (high[..., 1] + high[..., 3])
    area_a = (a[..., 0] + a[..., 2]) * (a[..., 1] + a[..., 3])
    area_b = (b[..., 0] + b[..., 2]) * (b[..., 1] + b[..., 3])
    return intersection, area_a + area_b - intersection, enclosing


def last_pixel(data: DataConfig) -> Tensor:
    """[4] what to add to boxes xyxy of a network with the settings `data`, see `Detector.last_pixel`."""
    further = 1.0 if data.inclusive_boxes else 0.0
    return torch.tensor([0.0, 0.0, further, further], dtype=torch.float32, device="cpu")


def as_compared(boxes: Tensor, cfg: DecodeConfig) -> Tensor:
    """Boxes [D,4] as NMS measures them under the rule of `cfg`."""
    if not cfg.nms_plus_one:
        return boxes
    # (x2 + 1) - x1 is the inclusive width, so shifting one corner states the +1 rule
    return boxes + boxes.new_tensor((0.0, 0.0, 1.0, 1.0))


def nms(boxes: Tensor, scores: Tensor, labels: Tensor, cfg: DecodeConfig) -> tuple[Tensor, Tensor]:
    """Non-maximum suppression under the rule of `cfg`.

    Returns (keep, scores): indices into boxes [D,4], best first, at most `cfg.max_detections`, and their
    scores, which soft-NMS lowers.
    """
    boxes = as_compared(boxes, cfg)
    if cfg.nms.startswith("soft"):
        return _soft_nms(boxes, scores, labels, cfg)
    boxes, limit = boxes.detach(), cfg.nms_iou
    apart = cfg.nms == "class" and cfg.nms_rule == "mmcv"
    if cfg.nms_rule == "mmcv":
        limit = float(np.float32(limit))
    if apart:
        boxes, labels = _moved_apart(boxes, labels)
    if cfg.nms == "none":
        keep = scores.argsort(descending=True, stable=True)
    elif boxes.device.type == "cpu" and (
        len(boxes) > _FEW or (cfg.nms == "class" and not apart and _far(boxes, labels))
    ):
        labels = torch.zeros_like(labels) if cfg.nms == "agnostic" else labels
        keep = _first_of_nms(boxes, scores, labels, limit, cfg.max_detections)
    elif cfg.nms == "agnostic" or apart:
        keep = load_operators().nms(boxes, scores, limit)
    elif boxes.device.type == "cpu":
        keep = load_operators().nms(_moved_apart(boxes, labels)[0], scores, limit)
    else:
        from torchvision.ops import batched_nms

        keep = batched_nms(boxes, scores, labels, limit)
    keep = keep[: cfg.max_detections]
    return keep, scores[keep]


_FEW = 1000  # above, the moved corners lose precision and torchvision calls NMS for each class
_FAR = 2.0**17  # pixels: float32 has steps of 1/64 there
_MANY = 10_000  # from here on mmcv calls NMS for each class, on the moved corners still


def _far(boxes: Tensor, labels: Tensor) -> bool:
    """Whether corners moved apart by class would lose precision that boxes need: many classes, or a large image."""
    return len(boxes) > 0 and (float(labels.max()) + 1) * (float(boxes.max()) + 1) > _FAR


def _moved_apart(boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(boxes with each class at a place of its own, the labels that may be compared).

    The boxes of a class stay among themselves where no corner is negative; else those of the class before may reach
    into their place, and fewer than 10,000 boxes are compared without their labels, as one NMS would.
    """
    if not len(boxes):
        return boxes, labels
    moved = boxes + labels.to(boxes)[:, None] * (boxes.max() + 1)
    if len(boxes) < _MANY and bool(boxes.min() < 0):
        labels = torch.zeros_like(labels)
    return moved, labels


@cache
def load_operators() -> Any:
    """torchvision's compiled operators, without its Python where that is not loaded yet: it imports torch.compile's
    machinery, two seconds that the first image would wait for."""
    spec = importlib.util.find_spec("torchvision")
    for folder in spec.submodule_search_locations or () if spec else ():
        for file in sorted(Path(folder).glob("_C*")):
            try:
                torch.ops.load_library(str(file))
            except (OSError, ImportError):
                continue
            if hasattr(torch.ops.torchvision, "nms"):
                return torch.ops.torchvision
    import torchvision  # noqa: F401

    return torch.ops.torchvision


def _first_of_nms(boxes: Tensor, scores: Tensor, labels: Tensor, limit_iou: float, count: int) -> Tensor:
    """The first `count` that NMS per class keeps, best first: boxes behind the last of them are never looked at.

    The arithmetic is that of `torchvision.ops.nms`: IoU in the boxes' own precision, the limit in float64.
    """
    best_first = scores.argsort(descending=True, stable=True)
    kinds = labels[best_first].numpy()
    by_kind = kinds.argsort(kind="stable")  # a class is one slice, its best box first
    corners = np.ascontiguousarray(boxes[best_first].numpy()[by_kind].T)
    low, high = corners[:2], corners[2:]
    areas = (high[0] - low[0]) * (high[1] - low[1])
    ends = np.searchsorted(kinds[by_kind], kinds, side="right").tolist()
    places = np.empty_like(by_kind)
    places[by_kind] = np.arange(len(by_kind))
    alive = np.ones(len(kinds), bool)
    kept: list[int] = []
    threshold = np.float64(limit_iou)
    with np.errstate(divide="ignore", invalid="ignore"):  # empty boxes
        for rank, (i, end) in enumerate(zip(places.tolist(), ends, strict=True)):
            if not alive[i]:
                continue
            kept.append(rank)
            if len(kept) == count:
                break
            me, rest = slice(i, i + 1), slice(i + 1, end)
            sides = np.minimum(high[:, me], high[:, rest]) - np.maximum(low[:, me], low[:, rest])
            np.maximum(sides, 0, out=sides)
            overlap = sides[0] * sides[1]
            alive[rest][overlap / (areas[i] + areas[rest] - overlap) > threshold] = False
    return best_first[torch.tensor(kept, dtype=torch.int64, device="cpu")]


def _soft_nms(boxes: Tensor, scores: Tensor, labels: Tensor, cfg: DecodeConfig) -> tuple[Tensor, Tensor]:
    """Soft-NMS (Bodla et al., arXiv 1704.04503), per class; boxes that fall below a tenth of `cfg.threshold` end it."""
    left = scores.clone()
    keep: list[Tensor] = []
    kept: list[Tensor] = []
    for _ in range(min(len(boxes), cfg.max_detections)):
        best = left.argmax()
        if left[best] <= cfg.threshold * 0.1:
            break
        keep.append(best)
        kept.append(left[best].clone())
        overlap = iou(boxes[best][None], boxes)[0] * (labels == labels[best])
        if cfg.nms == "soft-linear":
            decay = torch.where(overlap > cfg.nms_iou, 1 - overlap, torch.ones_like(overlap))
        else:
            decay = torch.exp(-(overlap**2) / cfg.soft_sigma)
        left = left * decay
        left[best] = -1.0
    if not keep:
        return scores.new_zeros(0, dtype=torch.int64), scores.new_zeros(0)
    return torch.stack(keep), torch.stack(kept)
