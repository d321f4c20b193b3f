"""Detections of overlapping windows of one image, put together.

Three rules, each for one class at a time:

1. A box that an inner edge of its window cuts gives way to a whole one that it is a part of: one that looks the same
   through that window, or one that goes on beyond the cut and holds nearly all of the piece. The whole one's score
   rises half way to the piece's; one that scores less than a third takes nothing away. A piece nearly as large as the
   whole one gives way too: its corners end at the cut, and where it scores more NMS would keep them.
2. Two boxes that facing inner edges cut become one, where each is what its window shows of their union. Neighbours
   that merely touch do not: they end before the edge, or their union shows more of them than the window does.
3. NMS, by the detector's own rule, takes what two windows saw whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ..boxes import nms
from ..config import DecodeConfig
from ..data.records import Size, Window
from ..detections import Detections
from ..overlap import area, iou, shared

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_SAME = 0.6  # IoU from which a box is what a window shows of another
_INSIDE = 0.7  # share of a piece that lies in the whole box that it is a part of
_RATIO = 0.3  # of a piece's score that a whole box must reach
_EDGE = 0.04  # share of a window's side within which a box counts as cut by the edge
_ROWS = 256  # pieces that are compared with the boxes around them at once


class Rows(NamedTuple):
    """Detections of all windows: boxes [D,4] xyxy in pixels of the image, scores [D], labels [D], frames [D,4] the
    window of each, xyxy, and cut [D,4]: which of its sides (left, top, right, bottom) an inner edge of it cuts."""

    boxes: Floats
    scores: Floats
    labels: Ints
    frames: Floats
    cut: Bools

    def pick(self, keep: Bools | Ints) -> Rows:
        boxes, scores, labels, frames, cut = self
        return Rows(boxes[keep], scores[keep], labels[keep], frames[keep], cut[keep])


@dataclass(frozen=True)
class Merged:
    """What became of the rows: `boxes` [K,4], `scores` [K] and `labels` [K] before NMS, the `members` of each, rows
    that it is made of, and `owner` [D]: for each row that gave way the number of the box it gave way to, else -1."""

    boxes: Floats
    scores: Floats
    labels: Ints
    members: tuple[tuple[int, ...], ...]
    owner: Ints

    def suppress(self, decode: DecodeConfig, limit: int) -> tuple[Ints, Floats]:
        """(the boxes that NMS keeps, best first; their scores), `limit` at most."""
        many = decode.model_copy(update={"max_detections": max(limit, 1)})
        boxes, scores, labels = (torch.from_numpy(v) for v in (self.boxes, self.scores, self.labels))
        keep, scores = nms(boxes, scores, labels, many)
        return keep.numpy(), scores.numpy()


def rows_of(seen: Sequence[Detections], windows: Sequence[Window], size: Size) -> Rows:
    """The rows of `seen[i]`, in pixels of the image of (height, width), through `windows[i]`."""
    frames = [[w.left, w.top, w.right, w.bottom] for w in windows]
    counts = [len(part) for part in seen]
    spread = np.repeat(np.array(frames, np.float32).reshape(-1, 4), counts, axis=0)
    boxes = torch.cat([part.boxes for part in seen]).float().numpy()
    scores = torch.cat([part.scores for part in seen]).float().numpy()
    labels = torch.cat([part.labels for part in seen]).long().numpy()
    return Rows(boxes, scores, labels, spread, cut_sides(boxes, spread, size))


def cut_sides(boxes: Floats, frames: Floats, size: Size) -> Bools:
    """[D,4] bool: which sides (left, top, right, bottom) of boxes [D,4] an inner edge of their frame [D,4] cuts.
    The edge of the image cuts nothing: there is no more of the object behind it."""
    margin = _EDGE * np.tile(frames[:, 2:] - frames[:, :2], 2)
    inner = np.stack((frames[:, 0] > 0, frames[:, 1] > 0, frames[:, 2] < size[1], frames[:, 3] < size[0]), axis=1)
    result: Bools = inner & (np.abs(boxes - frames) <= margin)
    return result


def merge(rows: Rows) -> Merged:
    """Rules 1 and 2."""
    boxes, scores, labels = [], [], []
    members: list[tuple[int, ...]] = []
    owner = np.full(len(rows.scores), -1, np.int64)
    for label in np.unique(rows.labels).tolist():
        places = np.flatnonzero(rows.labels == label)
        part = _merge_class(rows.pick(places))
        gone = part.owner >= 0
        owner[places[gone]] = part.owner[gone] + len(members)
        boxes.append(part.boxes)
        scores.append(part.scores)
        labels.append(part.labels)
        members += [tuple(places[list(m)].tolist()) for m in part.members]
    if not members:
        return Merged(rows.boxes[:0], rows.scores[:0], rows.labels[:0], (), owner)
    return Merged(np.concatenate(boxes), np.concatenate(scores), np.concatenate(labels), tuple(members), owner)


def _merge_class(rows: Rows) -> Merged:
    """`merge` for one class. `whole`, `pieces`, `left` and `alone` are numbers of rows; a whole box or a union is
    counted in the order of the result: whole rows, then unions of pieces, then pieces that stay alone."""
    is_piece = rows.cut.any(axis=1)
    whole, pieces = np.flatnonzero(~is_piece), np.flatnonzero(is_piece)
    owner = np.full(len(rows.scores), -1, np.int64)  # of each row the box of the result that it gives way to
    owner[pieces] = _part_of(rows.pick(pieces), rows.boxes[whole], rows.scores[whole])
    whole_scores = _raised(rows.scores[whole], rows.scores, owner)

    left = pieces[owner[pieces] < 0]
    unions = [left[list(group)] for group in _groups(rows.pick(left))]
    union_boxes = np.stack([_union(rows.boxes[u]) for u in unions]) if unions else rows.boxes[:0]
    # by area: a sliver at the edge must not pull the score of the rest down
    weights = [np.maximum(area(rows.boxes[u]), 1e-6) for u in unions]
    means = [(rows.scores[u] * w).sum() / w.sum() for u, w in zip(unions, weights, strict=True)]
    union_scores = np.array(means, np.float32)

    # a union is a whole box: what is left of its object in other windows gives way to it
    alone = np.setdiff1d(left, np.concatenate(unions)) if unions else left
    union_of = _part_of(rows.pick(alone), union_boxes, union_scores)
    union_scores = _raised(union_scores, rows.scores[alone], union_of)
    owner[alone] = np.where(union_of >= 0, len(whole) + union_of, -1)
    alone = alone[union_of < 0]
    return Merged(
        np.concatenate((rows.boxes[whole], union_boxes, rows.boxes[alone])),
        np.concatenate((whole_scores, union_scores, rows.scores[alone])),
        np.full(len(whole) + len(unions) + len(alone), rows.labels[0] if len(rows.labels) else 0, np.int64),
        (*((i,) for i in whole.tolist()), *(tuple(u.tolist()) for u in unions), *((i,) for i in alone.tolist())),
        owner,
    )


def _raised(scores: Floats, pieces: Floats, owner: Ints) -> Floats:
    """Scores [W] of whole boxes, each half way up to the best of the pieces [P] that gave way to it, owner [P]."""
    best = scores.copy()
    np.maximum.at(best, owner[owner >= 0], pieces[owner >= 0])
    return ((scores + best) / 2).astype(np.float32)


def _part_of(pieces: Rows, boxes: Floats, scores: Floats) -> Ints:
    """[P] the best of the whole boxes [W,4] that each piece is a part of, -1 for none."""
    result = np.full(len(pieces.scores), -1, np.int64)
    if not len(boxes):
        return result
    for rows in _by_window(pieces.frames):
        part, near = pieces.pick(rows), _meeting(boxes, pieces.boxes[rows])
        if not len(near):
            continue
        box, frame, whole, score = part.boxes[:, None], part.frames[:, None], boxes[None, near], scores[None, near]
        looks = iou(box, _through(whole, frame)) >= _SAME
        beyond = np.concatenate((whole[..., :2] < frame[..., :2], whole[..., 2:] > frame[..., 2:]), axis=-1)
        inside = shared(box, whole) >= _INSIDE * area(box)
        fits = looks | (inside & (beyond & part.cut[:, None]).any(axis=-1))
        fits &= score >= _RATIO * part.scores[:, None]
        best = np.where(fits, score, -1.0).argmax(axis=1)
        result[rows] = np.where(fits.any(axis=1), near[best], -1)
    return result


def _by_window(frames: Floats) -> Iterator[Ints]:
    """The rows of each window, at most `_ROWS` at once: they lie near each other."""
    order = np.lexsort(frames.T)
    new = (frames[order][1:] != frames[order][:-1]).any(axis=1)
    for rows in np.split(order, np.flatnonzero(new) + 1):
        yield from (rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS))


def _meeting(boxes: Floats, others: Floats) -> Ints:
    """The rows of boxes [W,4] that meet the smallest box around `others` [P,4], P > 0, in order."""
    low, high = others[:, :2].min(axis=0), others[:, 2:].max(axis=0)
    return np.flatnonzero((boxes[:, :2] <= high).all(axis=1) & (boxes[:, 2:] >= low).all(axis=1))


def _groups(pieces: Rows) -> list[tuple[int, ...]]:
    """Which pieces become one box; a box may go on through several windows. Pairs that overlap most come first."""
    groups: dict[int, frozenset[int]] = {}
    for a, b in _pairs(pieces):
        first, second = groups.get(a, frozenset((a,))), groups.get(b, frozenset((b,)))
        if first is second:
            continue
        members = first | second
        places = np.array(sorted(members))
        shown = _through(_union(pieces.boxes[places]), pieces.frames[places])
        if (iou(pieces.boxes[places], shown) >= _SAME).all():
            groups |= dict.fromkeys(members, members)
    return [tuple(sorted(group)) for group in dict.fromkeys(groups.values())]


def _pairs(pieces: Rows) -> Iterator[tuple[int, int]]:
    """Pairs of pieces of which one is cut at the side where the other is cut at the opposite one, that meet, and that
    are what their windows show of their union. (What does not fit its union with one fits no larger union.)"""
    found: list[tuple[Ints, Ints, Floats]] = []
    boxes, frames, cut = pieces.boxes, pieces.frames, pieces.cut
    for rows in _by_window(frames):
        near = _meeting(boxes, boxes[rows])
        one, two = boxes[rows, None], boxes[None, near]
        low_high = (cut[rows, None, :2] & cut[None, near, 2:]).any(axis=-1)
        high_low = (cut[rows, None, 2:] & cut[None, near, :2]).any(axis=-1)
        meet = (np.minimum(one[..., 2:], two[..., 2:]) >= np.maximum(one[..., :2], two[..., :2])).all(axis=-1)
        a, b = np.nonzero((low_high | high_low) & meet)
        a, b = rows[a], near[b]
        a, b = a[a < b], b[a < b]
        union = np.concatenate((np.minimum(boxes[a, :2], boxes[b, :2]), np.maximum(boxes[a, 2:], boxes[b, 2:])), axis=1)
        fits = np.ones(len(a), bool)
        for k in (a, b):
            fits &= iou(boxes[k], _through(union, frames[k])) >= _SAME
        found.append((a[fits], b[fits], iou(boxes[a[fits]], boxes[b[fits]])))
    if found:
        a, b, overlap = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.lexsort((b, a, -overlap))
        yield from zip(a[order].tolist(), b[order].tolist(), strict=True)


def _through(boxes: Floats, frames: Floats) -> Floats:
    """Boxes [...,4] cut to frames [...,4]; what lies outside becomes empty at the edge."""
    low = np.clip(boxes[..., :2], frames[..., :2], frames[..., 2:])
    high = np.clip(boxes[..., 2:], frames[..., :2], frames[..., 2:])
    return np.concatenate((low, high), axis=-1)


def _union(boxes: Floats) -> Floats:
    return np.concatenate((boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)))
