"""What a detector sees of the objects of one image, whole or in tiles, from the grid to the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..assign import assign, candidates
from ..boxes import clip
from ..config import AssignConfig, DecodeConfig
from ..data.loading.augment import cut_boxes
from ..data.records import Record
from ..decode import decode_image, select
from ..detections import Detections
from ..inference.detector import Detector
from ..inference.merge import cut_sides
from ..inference.tiles import Looked, kept
from ..types import Points, Predictions, Target
from .common import on_cpu
from .raw import Raw


class Seen(NamedTuple):
    """One image as a detector sees it. target: its objects; detections: the answer, with labels of the data; strong:
    (boxes [K,4], scores [K], labels [K]) of everything above a thousandth, before top-k and NMS; before: {row of each
    object to judge: the stage before the network that lost it, "" where none did}. In pixels of the input where the
    image is looked at whole, else of the image; `final`: the detections in pixels of the image."""

    target: Target
    detections: Detections
    strong: tuple[Tensor, Tensor, Tensor]
    before: dict[int, str]
    final: Detections


def see(detector: Detector, parts: Sequence[Raw], record: Record, mapping: Tensor) -> Seen:
    """`parts`: what the network says of the image, or of each of its tiles (`raw_parts`); mapping [M]: the data's label
    of each class of the model, -1 for none."""
    labels, ignore = torch.from_numpy(record.labels), torch.from_numpy(record.ignore)
    cfg = detector.config
    if len(parts) == 1:
        (raw,) = parts
        target = Target(raw.seen(torch.from_numpy(record.boxes)), labels, ignore)
        detections = decode_image(raw.predictions, raw.points, raw.size, cfg.decode).to("cpu")
        strong = candidates_of(raw.predictions, raw.points, raw.size, cfg.decode, mapping)
        before = lost_by_grid(raw.points, replace(target, boxes=clip(target.boxes, raw.size)), cfg.assign)
        answer = _of_data(detections, mapping)
        return Seen(target, answer, strong, before, replace(answer, boxes=raw.placed(answer.boxes)))
    target = Target(torch.from_numpy(record.boxes), labels, ignore)
    looked = Looked.of([raw.window for raw in parts], [_answer(raw, cfg.decode) for raw in parts], record.size)
    merged = kept(looked, detector)[0]
    columns = [_whole_candidates(raw, cfg.decode, mapping, record.size) for raw in parts]
    boxes, scores, classes = (torch.cat(column) for column in zip(*columns, strict=True))
    before = _lost_by_grids(parts, record, cfg.assign)
    answer = _of_data(merged, mapping)
    return Seen(target, answer, (boxes, scores, classes), before, answer)


def _of_data(detections: Detections, mapping: Tensor) -> Detections:
    to_data = mapping[detections.labels]
    return replace(detections, labels=to_data)[to_data >= 0]


def _answer(raw: Raw, cfg: DecodeConfig) -> Detections:
    """The detections of one tile, in pixels of the image."""
    detections = decode_image(raw.predictions, raw.points, raw.size, cfg).to("cpu")
    return replace(detections, boxes=raw.placed(detections.boxes))


def _whole_candidates(
    raw: Raw, cfg: DecodeConfig, mapping: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """The candidates of one tile in pixels of the image, without pieces that an inner edge of the tile cuts."""
    boxes, scores, labels = candidates_of(raw.predictions, raw.points, raw.size, cfg, mapping)
    boxes = raw.placed(boxes)
    top, left, bottom, right = raw.window
    frames = np.tile(np.array([left, top, right, bottom], np.float32), (len(boxes), 1))
    whole = torch.from_numpy(~cut_sides(boxes.numpy(), frames, size).any(axis=1))
    return boxes[whole], scores[whole], labels[whole]


def _lost_by_grids(parts: Sequence[Raw], record: Record, cfg: AssignConfig) -> dict[int, str]:
    """As `lost_by_grid`, of the tiles that show most of an object; of them the one that serves it best counts."""
    shown, stages = [], []
    for raw in parts:
        boxes, keep, ignore = cut_boxes(record.boxes, record.ignore, raw.window)
        sides = boxes[:, 2:] - boxes[:, :2]
        shown.append(np.where(keep, sides.clip(0).prod(axis=1), 0.0))
        visible = raw.seen(torch.from_numpy(boxes[keep]))  # cut_boxes has moved them into the window
        target = Target(visible, torch.from_numpy(record.labels[keep]), torch.from_numpy(ignore[keep]))
        rows = np.flatnonzero(keep).tolist()
        stages.append({rows[k]: stage for k, stage in lost_by_grid(raw.points, target, cfg).items()})
    most = np.max(shown, axis=0)
    order = ("", "outranked", "no location")
    result = {}
    for row in np.flatnonzero(~record.ignore).tolist():
        said = [s[row] for area, s in zip(shown, stages, strict=True) if row in s and area[row] >= 0.999 * most[row]]
        result[row] = min(said, key=order.index, default="no location")
    return result


def candidates_of(
    pred: Predictions, points: Points, size: tuple[int, int], cfg: DecodeConfig, mapping: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(boxes [K,4], scores [K], labels [K] of the data) of everything above a thousandth, before top-k and NMS."""
    loose = cfg.model_copy(
        update={"threshold": min(cfg.threshold, 1e-3), "topk": len(points.xy) * pred.logits.shape[1]}
    )
    boxes, scores, labels, _ = (v.cpu() for v in select(pred, points, loose))
    labels = mapping[labels]
    keep = labels >= 0
    return clip(boxes, size)[keep], scores[keep], labels[keep]


def lost_by_grid(points: Points, target: Target, cfg: AssignConfig) -> dict[int, str]:
    """{row of each object to judge: the stage before the network that lost it, "" where none did}."""
    rows = (~target.ignore).nonzero()[:, 0]
    points = on_cpu(points)
    may = candidates(points, target.boxes[rows], cfg).any(dim=0).tolist()
    learns = set(assign(points, target.boxes[rows], cfg).unique().tolist())
    return {
        row: "no location" if not may[k] else "outranked" if k not in learns else ""
        for k, row in enumerate(rows.tolist())
    }
