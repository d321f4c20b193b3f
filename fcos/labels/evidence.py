"""What a model says about an image before NMS, in pixels of the image: the witness in every case of `suspicion`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..analysis.explain import Raw
from ..boxes import clip, nms, to_corners
from ..decode import Candidates, finish, score, trim
from ..inference.detector import Detector
from ..overlap import area, iou, shared

LEAST = 0.02  # class probability below which a location says nothing
_MOST = 3000  # locations of one image


@dataclass(frozen=True)
class Evidence:
    """K locations that see some class, and the D peaks that NMS leaves of them.

    boxes [K,4] float32 xyxy cut to the image; scores [K,C] of each class of the data, class probability and centerness
    together as the detector joins them, 0..1; 0 for classes that the model lacks. peaks [D,4], peak_labels [D],
    peak_scores [D], best first; votes [D]: locations whose box of that class is the peak's, within an IoU of 0.5.
    known [C] bool: classes that the model knows.
    """

    boxes: np.ndarray
    scores: np.ndarray
    peaks: np.ndarray
    peak_labels: np.ndarray
    peak_scores: np.ndarray
    votes: np.ndarray
    known: np.ndarray


def gather(detector: Detector, image: np.ndarray, mapping: Tensor, classes: int) -> Evidence:
    """The evidence of one image [H,W,3] uint8. mapping [M]: the data's label of each class of the model, -1 for none;
    `classes`: C of the data."""
    return weigh(Raw(detector, image), detector, mapping, classes)


def weigh(raw: Raw, detector: Detector, mapping: Tensor, classes: int) -> Evidence:
    """As `gather`, of what the network said already."""
    cfg = detector.config.decode
    known_labels = (mapping >= 0).nonzero()[:, 0]
    probability = raw.predictions.logits.sigmoid().cpu()[:, known_labels]
    best = probability.amax(dim=1) if len(known_labels) else probability.new_zeros(len(probability))
    spot = (best > LEAST).nonzero()[:, 0]
    if len(spot) > _MOST:
        spot = best.topk(_MOST).indices.sort().values
    centerness = raw.predictions.centerness.cpu()[spot].sigmoid()
    corners = to_corners(raw.points.xy.cpu()[spot], raw.predictions.distances.cpu()[spot])
    corners = clip(corners, raw.size)
    joined = torch.zeros(len(spot), classes)
    joined[:, mapping[known_labels]] = score(probability[spot], centerness[:, None].expand(-1, len(known_labels)), cfg)
    rows, labels = (joined > LEAST).nonzero(as_tuple=True)
    pairs = trim(Candidates(corners[rows], joined[rows, labels], labels, spot[rows]), raw.size, cfg)
    loose = cfg.model_copy(update={"nms": "class", "nms_iou": 0.6, "max_detections": 300})
    kept, kept_scores = nms(pairs.boxes, pairs.scores, pairs.labels, loose)
    detections, _ = finish(pairs, kept, kept_scores, raw.size, cfg)
    known = torch.zeros(classes, dtype=torch.bool)
    known[mapping[known_labels]] = True
    boxes = (corners * raw.ratio).numpy()
    scores = joined.numpy()
    peaks, peak_labels = (detections.boxes * raw.ratio).numpy(), detections.labels.numpy()
    overlap = overlaps(boxes, peaks) >= 0.5
    votes = (overlap * np.where(scores > LEAST, scores, 0.0)[:, peak_labels]).sum(axis=0)
    return Evidence(boxes, scores, peaks, peak_labels, detections.scores.numpy(), votes, known.numpy())


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU [A,B] of boxes a [A,4] and b [B,4]; 0 where both are empty."""
    return iou(a[:, None], b[None])


def inside(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[A,B]: the share of each box of a that lies in each of b."""
    both: np.ndarray = shared(a[:, None], b[None]) / np.maximum(area(a)[:, None], 1e-9)
    return both
