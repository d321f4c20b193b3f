"""OC-SORT (Cao et al., arXiv 2203.14360): trust what was seen more than what was predicted.

Three things are added to pairing by motion. Direction: a detection in the direction that the object has moved in is
worth more. Recovery: who is still unpaired is compared with where it was last seen. Re-update: an object that comes
back has its motion computed again as if it had been seen on the straight line between, so that the error of the blind
time does not stay.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..detections import Detections
from .association import Pairs
from .motion import Floats
from .tracks import NONE, Follower, Ids, Seen, Track, expected

_DIRECTION = 0.2  # weight of the direction beside the overlap, as in the paper
_BACK = 0.1  # seconds over which a direction is measured; the paper has 3 frames of 30 a second
_STEP = 1 / 30  # seconds between the points of the line that stands for the blind time


class OcSort(Follower):
    """Ids for the detections of a video, frame by frame."""

    def update(self, detections: Detections, time: float) -> Ids:
        """The id of each detection [D], -1 for none: too weak, or not yet seen twice. See `Tracker`."""
        config = self.config
        now = Seen.of(detections, time)
        ids = np.full(len(now.rows), NONE, np.int64)
        self._expect(time)
        first = now.between(config.high)

        ways = np.array([_agreement(t, first.boxes) for t in self.tracks]).reshape(len(self.tracks), len(first.rows))
        pairs = self._pairs(self.tracks, expected(self.tracks), first, config.first_iou, _DIRECTION * ways)
        done = self._apply(self.tracks, pairs, now, ids)
        left = [t for t in self.tracks if id(t) not in done]
        in_sight = [t for t in left if t.certain and self._in_sight(t)]
        weak = self._pairs(in_sight, expected(in_sight), now.between(config.low, config.high), config.second_iou)
        done |= self._apply(in_sight, weak, now, ids)
        left = [t for t in left if id(t) not in done]
        rest = first.without(i for _, i in pairs)
        last_seen = np.array([t.history[-1][1] for t in left]).reshape(-1, 4)
        recovered = self._pairs(left, last_seen, rest, config.first_iou)
        self._apply(left, recovered, now, ids)
        self.tracks = [t for t in self.tracks if t.certain or t.seen == time]
        self._begin(rest.without(i for _, i in recovered), ids)
        return ids

    def _apply(self, tracks: Sequence[Track], pairs: Pairs, now: Seen, ids: Ids) -> set[int]:
        """The ids of the objects (of Python) that were met."""
        for row, i in pairs:
            track, box = tracks[row], now.boxes[i]
            self._confirm(track)
            if not self._in_sight(track):
                _update_again(track, box, now.time)
            track.meet(box, now.time)
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
