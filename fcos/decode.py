"""From predictions to detections: threshold, top-k per level, score, NMS (1904.01355, section 3.1)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .boxes import clip, nms, to_corners
from .config import DecodeConfig
from .types import Detections, Points, Predictions


def decode(pred: Predictions, points: Points, sizes: list[tuple[int, int]], cfg: DecodeConfig) -> list[Detections]:
    """Detections of each image, best first, in pixels of the network input; sizes: (height, width) unpadded."""
    return [decode_image(Predictions(*(value[i] for value in pred)), points, size, cfg) for i, size in enumerate(sizes)]


def decode_image(pred: Predictions, points: Points, size: tuple[int, int], cfg: DecodeConfig) -> Detections:
    """One image: logits [P,C], distances [P,4], centerness [P]."""
    boxes, scores, labels, spot = select(pred, points, cfg)
    if cfg.clip == "before":
        boxes = clip(boxes, size, cfg.clip_margin)
    keep, scores = nms(boxes, scores, labels, cfg)
    boxes = boxes[keep]
    if cfg.clip == "after":  # detectron2 and AdelaiDet then drop what lies wholly in the padding
        boxes = clip(boxes, size, cfg.clip_margin)
        left = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        boxes, keep, scores = boxes[left], keep[left], scores[left]
    return Detections(boxes, scores, labels[keep], spot[keep], size=size)


def select(pred: Predictions, points: Points, cfg: DecodeConfig) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Candidates of one image before NMS: boxes [K,4] unclipped, scores [K], labels [K], points [K].

    The threshold is first applied to the logits, so that sigmoids and boxes are computed for few of them.
    """
    classes = pred.logits.shape[1]
    # a touch below the limit: the exact comparison follows on the few that are left
    found = _above(pred.logits, _logit(_least_class_probability(cfg)) - 1e-3)
    spot = found // classes
    probability = torch.sigmoid(torch.take(pred.logits, found).float())
    scores = score(probability, torch.sigmoid(pred.centerness[spot].float()), cfg)
    passed = _above(probability if cfg.threshold_on == "class" else scores, cfg.threshold)
    rank = scores if cfg.topk_by == "score" else probability

    kept: list[Tensor] = []
    # candidates stand in order of their points, hence level by level
    ends = torch.tensor([grid.start + grid.cells for grid in points.grids], device=spot.device)
    first = 0
    for last in torch.searchsorted(spot[passed], ends).tolist():
        chosen = passed[first:last]
        if len(chosen) > cfg.topk:
            chosen = chosen[rank[chosen].topk(cfg.topk).indices]
        kept.append(chosen)
        first = last
    keep = torch.cat(kept)
    spot, labels, scores = spot[keep], found[keep] % classes, scores[keep]
    boxes = to_corners(points.xy[spot], pred.distances[spot].float())
    return boxes, scores, labels, spot


def score(probability: Tensor, centerness: Tensor, cfg: DecodeConfig) -> Tensor:
    """Final score in 0..1 of class probability and centerness, both in 0..1."""
    if cfg.score == "class":
        return probability
    if cfg.score == "product":
        return probability * centerness
    if cfg.score == "sqrt":
        return (probability * centerness).sqrt()
    return probability**cfg.power * centerness ** (1 - cfg.power)


def _above(values: Tensor, limit: float) -> Tensor:
    """Flat positions [K] of what lies above; NumPy finds few among many several times faster than torch on a CPU."""
    if values.device.type == "cpu":
        values = values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
        return torch.from_numpy(np.flatnonzero(values.numpy() > values.numpy().dtype.type(limit)))
    return (values.reshape(-1) > limit).nonzero()[:, 0]


def _least_class_probability(cfg: DecodeConfig) -> float:
    """Class probability below which no centerness can lift a candidate over the threshold."""
    if cfg.threshold_on == "class" or cfg.score in ("class", "product"):
        return cfg.threshold
    if cfg.score == "sqrt":
        return cfg.threshold**2
    return cfg.threshold ** (1 / cfg.power) if cfg.power > 0 else 0.0


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability)) if probability > 0 else -math.inf
