"""ByteTrack (Zhang et al., arXiv 2110.06864): a weak detection where an object is expected is that object.

First the sure detections are paired with the tracks by overlap with the boxes that their motion predicts; then the
unsure ones with the tracks in sight that are left. Only sure ones begin tracks.
"""

from __future__ import annotations

import numpy as np

from ..detections import Detections
from .tracks import NONE, Follower, Ids, Seen, expected


class ByteTrack(Follower):
    """Ids for the detections of a video, frame by frame."""

    def update(self, detections: Detections, time: float) -> Ids:
        """The id of each detection [D], -1 for none: too weak, or not yet seen twice. See `Tracker`."""
        config = self.config
        now = Seen.of(detections, time)
        ids = np.full(len(now.rows), NONE, np.int64)
        self._expect(time)
        first = now.between(config.high)

        certain = [t for t in self.tracks if t.certain]
        known = self._pairs(certain, expected(certain), first, config.first_iou)
        left = [t for k, t in enumerate(certain) if k not in {row for row, _ in known}]
        in_sight = [t for t in left if self._in_sight(t)]  # the lost ones wait for a sure detection
        weak = self._pairs(in_sight, expected(in_sight), now.between(config.low, config.high), config.second_iou)
        rest = first.without(i for _, i in known)
        new = [t for t in self.tracks if not t.certain]
        again = self._pairs(new, expected(new), rest, config.first_iou)
        for group, pairs in ((certain, known), (in_sight, weak), (new, again)):
            for row, i in pairs:
                track = group[row]
                self._confirm(track)
                track.meet(now.boxes[i], time)
                ids[i] = track.number
        unseen = {id(new[k]) for k in range(len(new))} - {id(new[row]) for row, _ in again}
        self.tracks = [t for t in self.tracks if id(t) not in unseen]  # a new one must be seen again at once
        self._begin(rest.without(i for _, i in again), ids)
        return ids
