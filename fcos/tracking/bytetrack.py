"""ByteTrack (Zhang et al., arXiv 2110.06864): a weak detection where an object is expected is that object.

First the sure detections are paired with the tracks by overlap with the boxes that their motion predicts; then the
unsure ones with the tracks in sight that are left. Only sure ones begin tracks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..types import Detections
from .association import Pairs, overlaps, pair
from .motion import Floats
from .tracks import NONE, Follower, Ids, Track, boxes_of, same_class, split_by_score


class ByteTrack(Follower):
    """Ids for the detections of a video, frame by frame."""

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

        certain = [t for t in self.tracks if t.certain]
        known = self._match(certain, boxes, labels, first, config.first_iou)
        left = [t for k, t in enumerate(certain) if k not in {row for row, _ in known}]
        in_sight = [t for t in left if t.seen == latest]  # the lost ones wait for a sure detection
        weak = self._match(in_sight, boxes, labels, second, config.second_iou)
        rest = [i for i in first if i not in {i for _, i in known}]
        new = [t for t in self.tracks if not t.certain]
        again = self._match(new, boxes, labels, rest, config.first_iou)
        for group, pairs in ((certain, known), (in_sight, weak), (new, again)):
            for row, i in pairs:
                track = group[row]
                if not track.certain:
                    track.certain, track.number = True, self._number()
                track.meet(boxes[i], time)
                ids[i] = track.number
        unseen = {id(new[k]) for k in range(len(new))} - {id(new[row]) for row, _ in again}
        self.tracks = [t for t in self.tracks if id(t) not in unseen]  # a new one must be seen again at once
        taken = {i for _, i in (*known, *again)}
        self._begin([i for i in first if i not in taken], detections, boxes, time, ids)
        return ids

    def _match(
        self, tracks: Sequence[Track], boxes: Floats, labels: Sequence[int], rows: Sequence[int], least: float
    ) -> Pairs:
        """Pairs (place in `tracks`, detection) by overlap with the expected boxes."""
        if not tracks or not rows:
            return []
        worth = overlaps(np.stack([t.motion.box for t in tracks]), boxes[list(rows)])
        allowed = (worth >= least) & same_class(tracks, [labels[i] for i in rows], self.config.by_class)
        return [(t, rows[c]) for t, c in pair(worth, allowed)]
