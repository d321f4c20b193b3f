"""What trackers share: a track, its life from the first sight to the last, and the interface.

A tracker takes the detections of one frame after the other, with their times, and gives each the id of its object.
All waiting is in seconds, so a video that is read at every third frame, or at 10 frames a second in place of 30, is
tracked by the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..types import Detections
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


class Follower:
    """What the trackers here share: their tracks, how one begins, and numbers from 1."""

    def __init__(self, config: TrackConfig | None = None) -> None:
        self.config = config or TrackConfig()
        self.tracks: list[Track] = []
        self._next = 1

    def _begin(self, rows: Sequence[int], detections: Detections, boxes: Floats, time: float, ids: Ids) -> None:
        """A track for each of the detections `rows` that is sure enough; those of the first frame have their number at
        once, as there is nothing to be confused with."""
        first_frame = not self.tracks and self._next == 1
        for i in rows:
            if float(detections.scores[i]) < self.config.start:
                continue
            motion = Motion(boxes[i], time)
            history = [(time, boxes[i])]
            track = Track(NONE, int(detections.labels[i]), motion, time, history=history, kept=motion.copy())
            if first_frame:
                track.certain, track.number = True, self._number()
                ids[i] = track.number
            self.tracks.append(track)

    def _number(self) -> int:
        self._next += 1
        return self._next - 1


def split_by_score(detections: Detections, config: TrackConfig) -> tuple[list[int], list[int]]:
    """Rows of the first round, and of the second."""
    scores = detections.scores.tolist()
    first = [i for i, s in enumerate(scores) if s >= config.high]
    second = [i for i, s in enumerate(scores) if config.low <= s < config.high]
    return first, second


def boxes_of(detections: Detections) -> Floats:
    """Boxes [D,4] as float64."""
    return detections.boxes.detach().cpu().numpy().astype(np.float64).reshape(-1, 4)


def same_class(tracks: Sequence[Track], labels: Sequence[int], by_class: bool) -> NDArray[np.bool_]:
    """[T,D]: where a track and a detection may be one object."""
    if not by_class:
        return np.ones((len(tracks), len(labels)), bool)
    return np.array([[t.label == label for label in labels] for t in tracks], bool).reshape(len(tracks), len(labels))
