"""Frames with detections become frames with tracks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch

from ..errors import ConfigError, did_you_mean, require
from ..inference.video import Frame
from .bytetrack import ByteTrack
from .ocsort import OcSort
from .tracks import TrackConfig, Tracker

TRACKERS: dict[str, Callable[[TrackConfig | None], Tracker]] = {"bytetrack": ByteTrack, "ocsort": OcSort}


def make_tracker(name: str, config: TrackConfig | None = None) -> Tracker:
    """A new tracker by name; ConfigError for a name that is none, MissingExtra without SciPy."""
    if name not in TRACKERS:
        raise ConfigError(f"there is no tracker {name!r}; {did_you_mean(name, list(TRACKERS), ', '.join(TRACKERS))}")
    require("scipy.optimize", "track")  # now, and not at the first frame
    return TRACKERS[name](config)


def follow(frames: Iterable[Frame], tracker: Tracker) -> Iterator[Frame]:
    """`frames` whose detections have `track_ids` [D], -1 for what belongs to no object. Frames that were not detected
    in come through as they are; the tracker goes by time, so leaving frames out changes no rule."""
    for frame in frames:
        if frame.detections is None:
            yield frame
            continue
        ids = torch.from_numpy(tracker.update(frame.detections, frame.time))
        yield replace(frame, detections=replace(frame.detections, track_ids=ids))
