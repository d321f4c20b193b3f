"""From predictions to detections: threshold, top-k per level, score, NMS (1904.01355, section 3.1)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .boxes import clip, nms, to_corners
from .config import DecodeConfig
from .detections import Detections
from .types import Points, Predictions


class Candidates(NamedTuple):
    """What may become a detection of one image, level by level: boxes [K,4] xyxy, scores [K], labels [K] and the
    number [K] of the point that each comes from."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    points: Tensor


def decode(pred: Predictions, points: Points, sizes: list[tuple[int, int]], cfg: DecodeConfig) -> list[Detections]:
    """Detections of each image, best first, in pixels of the network input; sizes: (height, width) unpadded."""
    return [decode_image(Predictions(*(value[i] for value in pred)), points, size, cfg) for i, size in enumerate(sizes)]


def decode_image(pred: Predictions, points: Points, size: tuple[int, int], cfg: DecodeConfig) -> Detections:
    """One image: logits [P,C], distances [P,4], centerness [P].

    Four steps, which whoever looks inside takes one by one: `select`, `trim`, `fcos.boxes.nms`, `finish`.
    """
    candidates = trim(select(pred, points, cfg), size, cfg)
    keep, scores = nms(candidates.boxes, candidates.scores, candidates.labels, cfg)
    return finish(candidates, keep, scores, size, cfg)[0]


def select(pred: Predictions, points: Points, cfg: DecodeConfig) -> Candidates:
    """Candidates of one image by threshold and top-k per level, boxes as predicted.

    The threshold is first applied to the logits, so that sigmoids and boxes are computed for few of them.
    """
    classes = pred.logits.shape[1]
    # a touch below the limit: the exact comparison follows on the few that are left
    likely = _above(pred.logits, _logit(least_class_probability(cfg)) - 1e-3)
    spot = likely // classes
    probability = torch.sigmoid(torch.take(pred.logits, likely).float())
    centerness = torch.sigmoid(pred.centerness[spot].float())
    # pairs stand in order of their points, hence level by level
    ends = torch.tensor([grid.start + grid.cells for grid in points.grids], device=spot.device)
    keep, scores = admit(probability, centerness, spot, ends, cfg)
    spot, labels = spot[keep], likely[keep] % classes
    return Candidates(to_corners(points.xy[spot], pred.distances[spot].float()), scores, labels, spot)


def admit(
    probability: Tensor, centerness: Tensor, place: Tensor, ends: Tensor, cfg: DecodeConfig
) -> tuple[Tensor, Tensor]:
    """(rows [K], scores [K]) of the pairs of point and class that pass the threshold and the top-k of their level.

    probability and centerness [M] in 0..1; place [M] rises, and the pairs of level l are those below ends[l] [L].
    """
    scores = score(probability, centerness, cfg)
    passed = _above(probability if cfg.threshold_on == "class" else scores, cfg.threshold)
    rank = scores if cfg.topk_by == "score" else probability
    kept: list[Tensor] = []
    first = 0
    for last in torch.searchsorted(place[passed], ends).tolist():
        chosen = passed[first:last]
        if len(chosen) > cfg.topk:
            chosen = chosen[rank[chosen].topk(cfg.topk).indices]
        kept.append(chosen)
        first = last
    keep = torch.cat(kept)
    return keep, scores[keep]


def trim(candidates: Candidates, size: tuple[int, int], cfg: DecodeConfig) -> Candidates:
    """What NMS is given: boxes cut to the image of (height, width), and empty ones dropped, where `cfg` says so."""
    if cfg.clip == "before":
        candidates = candidates._replace(boxes=clip(candidates.boxes, size, cfg.clip_margin))
    if cfg.drop_empty:
        left = solid(candidates.boxes)
        if not left.all():
            candidates = Candidates(*(value[left] for value in candidates))
    return candidates


def finish(
    candidates: Candidates, keep: Tensor, scores: Tensor, size: tuple[int, int], cfg: DecodeConfig
) -> tuple[Detections, Tensor]:
    """(detections, their rows [D] among the candidates) of what NMS keeps: rows [K'] best first, scores [K']."""
    boxes = candidates.boxes[keep]
    if cfg.clip == "after":  # detectron2 and AdelaiDet then drop what lies wholly in the padding
        boxes = clip(boxes, size, cfg.clip_margin)
        left = solid(boxes)
        boxes, keep, scores = boxes[left], keep[left], scores[left]
    return Detections(boxes, scores, candidates.labels[keep], candidates.points[keep], size=size), keep


def score(probability: Tensor, centerness: Tensor, cfg: DecodeConfig) -> Tensor:
    """Final score [...] in 0..1 of class probability and centerness, both 0..1 and of one shape."""
    if cfg.score == "class":
        return probability
    if cfg.score == "product":
        return probability * centerness
    if cfg.score == "sqrt":
        return (probability * centerness).sqrt()
    return probability**cfg.power * centerness ** (1 - cfg.power)


def calibrated(scores: Tensor, labels: Tensor, cfg: DecodeConfig) -> Tensor:
    """Scores [D] of final detections with labels [D] as probabilities of being right, by the line of their class
    in `cfg.calibration` (fitted by `fcos.evaluation.calibration.fit`; Platt, 1999). Within a class the order stays."""
    line = torch.tensor(cfg.calibration, device=scores.device)
    slope, offset = (line if len(line) == 1 else line[labels]).unbind(1)
    return torch.sigmoid(slope * torch.logit(scores.float(), 1e-6) + offset)


def solid(boxes: Tensor) -> Tensor:
    """[...] bool: boxes [...,4] with a width and a height."""
    return (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)


def _above(values: Tensor, limit: float) -> Tensor:
    """Flat positions [K] of what lies above; NumPy finds few among many several times faster than torch on a CPU."""
    if values.dtype in (torch.bfloat16, torch.float16):
        values = values.float()  # else torch rounds the limit to their type
    if values.device.type == "cpu":
        numbers = values.detach().numpy()
        return torch.from_numpy(np.flatnonzero(numbers > numbers.dtype.type(limit)))
    return (values.reshape(-1) > limit).nonzero()[:, 0]


def least_class_probability(cfg: DecodeConfig) -> float:
    """Class probability below which no centerness can lift a candidate over the threshold."""
    if cfg.threshold_on == "class" or cfg.score in ("class", "product"):
        return cfg.threshold
    if cfg.score == "sqrt":
        return cfg.threshold**2
    return cfg.threshold ** (1 / cfg.power) if cfg.power > 0 else 0.0


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability)) if probability > 0 else -math.inf
