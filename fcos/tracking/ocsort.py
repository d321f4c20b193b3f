"""OC-SORT (Cao et al., arXiv 2203.14360): trust what was seen more than what was predicted.

Three things are added to pairing by motion. Direction: a detection in the direction that the object has moved in is
worth more. Recovery: who is still unpaired is compared with where it was last seen. Re-update: an object that comes
back has its motion computed again as if it had been seen on the straight line between, so that the error of the blind
time does not stay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..types import Detections
from .association import Pairs, overlaps, pair
from .motion import Floats
from .tracks import NONE, Follower, Ids, Track, boxes_of, same_class, split_by_score

_DIRECTION = 0.2  # weight of the direction beside the overlap, as in the paper
_BACK = 0.1  # seconds over which a direction is measured; the paper has 3 frames of 30 a second
_STEP = 1 / 30  # seconds between the points of the line that stands for the blind time


class _Frame(NamedTuple):
    """The detections of a frame: boxes [D,4], labels [D]."""

    boxes: Floats
    labels: Sequence[int]


class OcSort(Follower):
    """Ids for the detections of a video, frame by frame."""

    _before = -math.inf  # when the last frame was

    def update(self, detections: Detections, time: float) -> Ids:
        """The id of each detection [D], -1 for none: too weak, or not yet seen twice. See `Tracker`."""
        config = self.config
        boxes, labels = boxes_of(detections), detections.labels.tolist()
        ids = np.full(len(boxes), NONE, np.int64)
        self.tracks = [t for t in self.tracks if time - t.seen <= config.patience]
        latest = max((t.seen for t in self.tracks), default=time)
        for track in self.tracks:
            track.motion.predict(time)
        first, second = split_by_score(detections, config)

        now = _Frame(boxes, labels)
        pairs = self._match(self.tracks, now, first, config.first_iou, directed=True)
        done = self._apply(self.tracks, pairs, boxes, time, ids)
        left = [t for t in self.tracks if id(t) not in done]
        in_sight = [t for t in left if t.certain and t.seen == latest]
        done |= self._apply(in_sight, self._match(in_sight, now, second, config.second_iou), boxes, time, ids)
        left = [t for t in left if id(t) not in done]
        rest = [i for i in first if i not in {i for _, i in pairs}]
        recovered = self._recover(left, boxes, labels, rest)
        self._apply(left, recovered, boxes, time, ids)
        taken = {i for _, i in (*pairs, *recovered)}
        self.tracks = [t for t in self.tracks if t.certain or t.seen == time]
        self._begin([i for i in first if i not in taken], detections, boxes, time, ids)
        self._before = time
        return ids

    def _match(
        self, tracks: Sequence[Track], now: _Frame, rows: Sequence[int], least: float, directed: bool = False
    ) -> Pairs:
        if not tracks or not rows:
            return []
        chosen = now.boxes[list(rows)]
        worth = overlaps(np.stack([t.motion.box for t in tracks]), chosen)
        allowed = (worth >= least) & same_class(tracks, [now.labels[i] for i in rows], self.config.by_class)
        if directed:
            worth = worth + _DIRECTION * np.stack([_agreement(t, chosen) for t in tracks])
        return [(t, rows[c]) for t, c in pair(worth, allowed)]

    def _recover(self, tracks: Sequence[Track], boxes: Floats, labels: Sequence[int], rows: Sequence[int]) -> Pairs:
        """Pairs by overlap with the last box that was seen."""
        if not tracks or not rows:
            return []
        worth = overlaps(np.stack([t.history[-1][1] for t in tracks]), boxes[list(rows)])
        allowed = (worth >= self.config.first_iou) & same_class(tracks, [labels[i] for i in rows], self.config.by_class)
        return [(t, rows[c]) for t, c in pair(worth, allowed)]

    def _apply(self, tracks: Sequence[Track], pairs: Pairs, boxes: Floats, time: float, ids: Ids) -> set[int]:
        for row, i in pairs:
            track = tracks[row]
            if not track.certain:
                track.certain, track.number = True, self._number()
            if track.seen < self._before:
                _update_again(track, boxes[i], time)
            track.meet(boxes[i], time)
            track.kept = track.motion.copy()
            ids[i] = track.number
        return {id(tracks[row]) for row, _ in pairs}


def _agreement(track: Track, boxes: Floats) -> Floats:
    """For each box, how well the way to it agrees with the way so far: 1 the same direction, 0 the opposite; 0.5 where
    the track has no way yet."""
    now, last = track.history[-1]
    before = next((box for at, box in reversed(track.history[:-1]) if now - at >= _BACK), None)
    if before is None:
        return np.full(len(boxes), 0.5)
    way = _center(last) - _center(before)
    ways = (boxes[:, :2] + boxes[:, 2:]) / 2 - _center(last)
    lengths = np.linalg.norm(way) * np.linalg.norm(ways, axis=1)
    cosine = np.where(lengths > 1e-9, ways @ way / np.maximum(lengths, 1e-9), 0.0)
    shares: Floats = 1 - np.arccos(cosine.clip(-1, 1)) / np.pi
    return shares


def _center(box: Floats) -> Floats:
    center: Floats = (box[:2] + box[2:]) / 2
    return center


def _update_again(track: Track, box: Floats, time: float) -> None:
    """Of an object that was out of sight: its motion from the last sight on, over a straight line to `box`."""
    gap = time - track.seen
    steps = round(gap / _STEP)
    if track.kept is None or steps < 2:
        return
    motion, last = track.kept.copy(), track.history[-1][1]
    for k in range(1, steps):
        motion.predict(track.seen + gap * k / steps)
        motion.update(last + (box - last) * (k / steps))
    motion.predict(time)
    track.motion = motion
