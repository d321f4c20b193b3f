"""What trackers share: a track, its life from the first sight to the last, and the interface.

A tracker takes the detections of one frame after the other, with their times, and gives each the id of its object.
All waiting is in seconds, so a video that is read at every third frame, or at 10 frames a second in place of 30, is
tracked by the same rules.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..detections import Detections
from ..errors import ConfigError
from .association import Pairs, enlarged_iou, pair
from .motion import Floats, Motion

Ids = NDArray[np.int64]
_SIGHTS, _SPAN = 8, 0.2  # sights of an object that are kept at least, and seconds
NONE = -1  # the id of a detection that belongs to no track


@dataclass(frozen=True)
class TrackConfig:
    """When a detection begins a track, keeps it, and when a track is given up.

    high: score from which a detection counts in the first round. low: from which it may still keep a known object in
    the second. start: from which it begins a track. patience: seconds that an object may be out of sight and keep its
    id. first_iou, second_iou: least overlap with the expected box in each round. by_class: objects of different classes
    never take each other's id. ConfigError for a value outside its range.
    """

    high: float = 0.5
    low: float = 0.1
    start: float = 0.55
    patience: float = 1.0
    first_iou: float = 0.1
    second_iou: float = 0.4
    by_class: bool = True

    def __post_init__(self) -> None:
        for name in ("high", "low", "start", "first_iou", "second_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} of a tracker lies in 0..1, not {getattr(self, name):g}")
        if not 0 <= self.patience <= 3600:
            raise ConfigError(f"patience of a tracker is seconds, 0 to 3600, not {self.patience:g}")

    @classmethod
    def from_score(cls, score: float, patience: float = 1.0) -> TrackConfig:
        """What `fcos track` uses: a track begins at `score`, such as the lowest that the model shows
        (`Detector.shown`), and the other two limits are no higher."""
        usual = cls()
        return cls(min(score, usual.high), min(score, usual.low), score, patience)


class Tracker(Protocol):
    """Any tracker: ours, or one of another library in a wrapper."""

    def update(self, detections: Detections, time: float) -> Ids:
        """The id of each detection [D], -1 where it belongs to no track. Times rise from call to call, in seconds."""


@dataclass
class Track:
    """One object: its motion, class, when it was last seen and where. `certain` once it was seen twice."""

    number: int
    label: int
    motion: Motion
    seen: float
    certain: bool = False
    history: list[tuple[float, Floats]] = field(default_factory=list)  # (time, box) of the newest sights
    kept: Motion | None = None  # the motion at the last sight, for a tracker that goes on from there

    def meet(self, box: Floats, time: float) -> None:
        """The object was seen at `box`."""
        self.motion.update(box)
        self.seen = time
        first = max(0, len(self.history) - _SIGHTS)
        while first > 0 and time - self.history[first][0] < _SPAN:  # at many frames a second eight are a moment
            first -= 1
        self.history = [*self.history[first:], (time, box)]


class Seen(NamedTuple):
    """Detections of a frame at a time, all or some: their rows in it [D], boxes [D,4], labels [D] and scores [D]."""

    time: float
    rows: Sequence[int]
    boxes: Floats
    labels: Sequence[int]
    scores: Sequence[float]

    @classmethod
    def of(cls, detections: Detections, time: float) -> Seen:
        """All detections of a frame, the boxes as float64."""
        boxes = detections.boxes.detach().cpu().numpy().astype(np.float64).reshape(-1, 4)
        return cls(time, range(len(boxes)), boxes, detections.labels.tolist(), detections.scores.tolist())

    def between(self, least: float, below: float = math.inf) -> Seen:
        """Those with a score in such limits."""
        return self._pick([k for k, score in enumerate(self.scores) if least <= score < below])

    def without(self, rows: Iterable[int]) -> Seen:
        """Those that are not `rows` of the frame."""
        gone = set(rows)
        return self._pick([k for k, row in enumerate(self.rows) if row not in gone])

    def _pick(self, keep: list[int]) -> Seen:
        rows, labels = [self.rows[k] for k in keep], [self.labels[k] for k in keep]
        return Seen(self.time, rows, self.boxes[keep], labels, [self.scores[k] for k in keep])


class Follower:
    """What the trackers here share: their tracks, how one begins and is confirmed, pairing by overlap."""

    _before = _now = -math.inf  # the times of the frame before and of this one

    def __init__(self, config: TrackConfig | None = None) -> None:
        self.config = config or TrackConfig()
        self.tracks: list[Track] = []
        self._next = 1

    def _expect(self, time: float) -> None:
        """Go on to a frame: give up the objects that are out of sight for too long, and predict the others."""
        self._before, self._now = self._now, time
        self.tracks = [t for t in self.tracks if time - t.seen <= self.config.patience]
        for track in self.tracks:
            track.motion.predict(time)

    def _in_sight(self, track: Track) -> bool:
        """Whether the object was seen in the frame before, whatever became of the others."""
        return track.seen >= self._before

    def _pairs(
        self, tracks: Sequence[Track], boxes: Floats, seen: Seen, least: float, more: Floats | float = 0.0
    ) -> Pairs:
        """Pairs (place in `tracks`, row of the frame) by overlap of what was seen with `boxes` [T,4], one of each
        track. more [T,D]: what a pair is worth beside its overlap."""
        if not len(tracks) or not len(seen.rows):
            return []
        worth = enlarged_iou(boxes, seen.boxes)
        allowed = (worth >= least) & _same_class(tracks, seen.labels, self.config.by_class)
        return [(t, seen.rows[c]) for t, c in pair(worth + more, allowed)]

    def _confirm(self, track: Track) -> None:
        """A track that was seen twice has its number from then on."""
        if not track.certain:
            track.certain, track.number = True, self._next
            self._next += 1

    def _begin(self, seen: Seen, ids: Ids) -> None:
        """A track for each detection that is sure enough; those of the first frame have their number at once, as there
        is nothing to be confused with."""
        first_frame = not self.tracks and self._next == 1
        sure = seen.between(self.config.start)
        for row, box, label in zip(sure.rows, sure.boxes, sure.labels, strict=True):
            motion = Motion(box, seen.time)
            track = Track(NONE, label, motion, seen.time, history=[(seen.time, box)], kept=motion.copy())
            if first_frame:
                self._confirm(track)
                ids[row] = track.number
            self.tracks.append(track)


def expected(tracks: Sequence[Track]) -> Floats:
    """The boxes [T,4] where motion expects the objects."""
    return np.array([t.motion.box for t in tracks]).reshape(-1, 4)


def _same_class(tracks: Sequence[Track], labels: Sequence[int], by_class: bool) -> NDArray[np.bool_]:
    """[T,D]: where a track and a detection may be one object."""
    if not by_class:
        return np.ones((len(tracks), len(labels)), bool)
    return np.array([[t.label == label for label in labels] for t in tracks], bool).reshape(len(tracks), len(labels))
