"""What a model says about an image before NMS, in pixels of the image: the witness in every case of `suspicion`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..analysis.raw import Raw, own_tiling, raw_parts
from ..boxes import clip, nms, to_corners
from ..config import DecodeConfig
from ..data.records import Size, Window
from ..decode import Candidates, finish, score, trim
from ..inference.detector import Detector
from ..inference.merge import cut_sides
from ..inference.tiles import Held
from ..overlap import area, pairwise_iou, shared

LEAST = 0.02  # class probability below which a location says nothing
_MOST = 3000  # locations of one image or tile
_PEAKS = 300  # and peaks
_MORE, _TILES = 4, 10  # times as many locations and peaks of an image in tiles, at most


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
    """The evidence of one image [H,W,3] uint8, through the tiles that the model learned from, if any. mapping [M]: the
    data's label of each class of the model, -1 for none; `classes`: C of the data."""
    held = Held(image)
    raws = raw_parts(detector, held, own_tiling(detector))
    parts = [(raw.window, weigh(raw, detector, mapping, classes)) for raw in raws]
    if len(parts) == 1:
        return parts[0][1]
    return _together([_whole(evidence, window, held.size) for window, evidence in parts], detector)


def _whole(evidence: Evidence, window: Window, size: Size) -> Evidence:
    """The evidence of a tile, without boxes cut off at an inner edge: another tile mostly shows their objects whole."""
    frame = np.array([[window.left, window.top, window.right, window.bottom]], np.float32)

    def uncut(boxes: np.ndarray) -> np.ndarray:
        cut: np.ndarray = np.logical_or.reduce(cut_sides(boxes, np.repeat(frame, len(boxes), axis=0), size), axis=1)
        return ~cut

    places, peaks = uncut(evidence.boxes), uncut(evidence.peaks)
    kept = (evidence.peaks[peaks], evidence.peak_labels[peaks], evidence.peak_scores[peaks], evidence.votes[peaks])
    return Evidence(evidence.boxes[places], evidence.scores[places], *kept, evidence.known)


def _together(parts: Sequence[Evidence], detector: Detector) -> Evidence:
    """The evidence of all tiles of an image; a peak that several saw has the votes of the one where it has most."""
    peaks = np.concatenate([p.peaks for p in parts])
    labels = np.concatenate([p.peak_labels for p in parts])
    scores = np.concatenate([p.peak_scores for p in parts])
    loose = _loose(detector.config.decode, _PEAKS * min(len(parts), _TILES))
    kept, kept_scores = nms(torch.from_numpy(peaks), torch.from_numpy(scores), torch.from_numpy(labels), loose)
    chosen = kept.numpy()
    peaks, labels = peaks[chosen], labels[chosen]
    votes = np.zeros(len(peaks))
    for part in parts:
        if len(part.boxes):
            low, high = part.boxes[:, :2].min(axis=0), part.boxes[:, 2:].max(axis=0)
            near = np.flatnonzero(((peaks[:, :2] < high) & (peaks[:, 2:] > low)).all(axis=1))
            votes[near] = np.maximum(votes[near], _votes(part.boxes, part.scores, peaks[near], labels[near]))
    boxes, each = np.concatenate([p.boxes for p in parts]), np.concatenate([p.scores for p in parts])
    if len(boxes) > _MOST * _MORE and each.shape[1]:
        surest = np.sort(np.argsort(-each.max(axis=1), kind="stable")[: _MOST * _MORE])
        boxes, each = boxes[surest], each[surest]
    return Evidence(boxes, each, peaks, labels, kept_scores.numpy(), votes, parts[0].known)


def _loose(cfg: DecodeConfig, most: int) -> DecodeConfig:
    return cfg.model_copy(update={"nms": "class", "nms_iou": 0.6, "max_detections": most})


def _votes(boxes: np.ndarray, scores: np.ndarray, peaks: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Votes [D] for peaks [D,4] of labels [D]: the summed scores [K,C] of locations whose box [K,4] has an IoU of 0.5
    with the peak and whose class is its."""
    same = pairwise_iou(boxes, peaks) >= 0.5
    votes: np.ndarray = (same * np.where(scores > LEAST, scores, 0.0)[:, labels]).sum(axis=0)
    return votes


def weigh(raw: Raw, detector: Detector, mapping: Tensor, classes: int) -> Evidence:
    """The evidence of one image or tile, from what the network said of it; arguments as of `gather`."""
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
    kept, kept_scores = nms(pairs.boxes, pairs.scores, pairs.labels, _loose(cfg, _PEAKS))
    detections, _ = finish(pairs, kept, kept_scores, raw.size, cfg)
    known = torch.zeros(classes, dtype=torch.bool)
    known[mapping[known_labels]] = True
    boxes, peaks = raw.placed(corners).numpy(), raw.placed(detections.boxes).numpy()
    scores, peak_labels = joined.numpy(), detections.labels.numpy()
    votes = _votes(boxes, scores, peaks, peak_labels)
    return Evidence(boxes, scores, peaks, peak_labels, detections.scores.numpy(), votes, known.numpy())


def inside(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[A,B]: the share of each box of a that lies in each of b."""
    both: np.ndarray = shared(a[:, None], b[None]) / np.maximum(area(a)[:, None], 1e-9)
    return both
