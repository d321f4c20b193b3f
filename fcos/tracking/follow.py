"""Frames with detections become frames with tracks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Protocol, cast

import numpy as np
import torch

from ..detections import Detections
from ..errors import ConfigError, did_you_mean, require
from ..inference.video import Frame
from .bytetrack import ByteTrack
from .ocsort import OcSort
from .tracks import NONE, Ids, TrackConfig, Tracker

TRACKERS: dict[str, Callable[[TrackConfig | None], Tracker]] = {"bytetrack": ByteTrack, "ocsort": OcSort}


class OfTrackers(Protocol):
    """A tracker of the `trackers` package."""

    def update(self, detections: Any) -> Any:
        """The supervision.Detections given, in any order, with `tracker_id`."""


def make_tracker(name: str, config: TrackConfig | None = None) -> Tracker:
    """A new tracker by name; ConfigError for a name that is none, MissingExtra without SciPy."""
    if name not in TRACKERS:
        raise ConfigError(f"there is no tracker {name!r}; {did_you_mean(name, list(TRACKERS), ', '.join(TRACKERS))}")
    require("scipy.optimize", "track")  # now, and not at the first frame
    return TRACKERS[name](config)


def follow(frames: Iterable[Frame], tracker: Tracker | OfTrackers) -> Iterator[Frame]:
    """`frames` whose detections have `track_ids` [D], -1 for what belongs to no object. Frames that were not detected
    in come through as they are; the trackers here go by time, so leaving frames out changes no rule. A tracker of the
    `trackers` package is taken too (extra: supervision)."""
    give = _by_theirs(tracker) if _is_theirs(tracker) else _by_ours(cast(Tracker, tracker))
    for frame in frames:
        if frame.detections is None:
            yield frame
            continue
        ids = torch.from_numpy(give(frame, frame.detections))
        yield replace(frame, detections=replace(frame.detections, track_ids=ids))


def _is_theirs(tracker: object) -> bool:
    return any(kind.__module__.partition(".")[0] == "trackers" for kind in type(tracker).__mro__)


def _by_ours(tracker: Tracker) -> Callable[[Frame, Detections], Ids]:
    return lambda frame, detections: tracker.update(detections, frame.time)


def _by_theirs(tracker: Any) -> Callable[[Frame, Detections], Ids]:
    """Newer versions also take the time, and some of the trackers the image, for the camera's motion; the others warn
    of it."""
    taken = inspect.signature(tracker.update).parameters
    moving = "frame" in taken and getattr(tracker, "enable_cmc", False)

    def give(frame: Frame, detections: Detections) -> Ids:
        seen = detections.to_supervision()
        seen.data["row"] = np.arange(len(seen))
        more: dict[str, Any] = {"timestamp": frame.time} if "timestamp" in taken else {}
        if moving:
            more["frame"] = np.ascontiguousarray(frame.image[..., ::-1])  # BGR, as OpenCV has it
        told = tracker.update(seen, **more)
        ids = np.full(len(detections), NONE, np.int64)
        if len(told):  # of none it may forget the rows
            ids[told.data["row"]] = told.tracker_id
        return ids

    return give
