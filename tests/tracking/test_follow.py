"""Trackers of others beside ours."""

import numpy as np
import pytest
import torch

from fcos.detections import Detections
from fcos.inference.video import Frame
from fcos.tracking.follow import follow


def frames(counts=(2, 0, 3)):
    """A frame each 0.2 s with so many objects side by side, which stay in place, and one that is not looked at."""
    for index, count in enumerate(counts):
        left = torch.arange(count) * 100.0
        boxes = torch.stack((left, torch.zeros(count), left + 50, torch.full((count,), 60.0)), dim=1)
        seen = Detections(
            boxes, torch.full((count,), 0.9), torch.zeros(count).long(), torch.full((count,), -1), names=("disc",)
        )
        yield Frame(index, index / 5, np.full((80, 400, 3), (9, 0, 200), np.uint8), seen)
    yield Frame(len(counts), 1.0, np.zeros((8, 8, 3), np.uint8))


class Sv:
    """What a tracker sees of supervision's detections."""

    def __init__(self, count):
        self.data, self.tracker_id, self._count = {}, None, count

    def __len__(self):
        return self._count


class Theirs:
    """It turns the order around, counts the rows of the answer as objects, and gives nothing back of nothing."""

    __module__ = "trackers.core"
    enable_cmc = True

    def __init__(self):
        self.told = []

    def update(self, detections, frame=None, timestamp=None):
        self.told.append((len(detections), frame[0, 0].tolist(), timestamp))
        if not len(detections):
            return Sv(0)
        detections.data["row"] = detections.data["row"][::-1]
        detections.tracker_id = np.arange(len(detections))
        return detections


def test_ids_of_the_trackers_package_come_back_to_their_boxes(monkeypatch):
    monkeypatch.setattr(Detections, "to_supervision", lambda self: Sv(len(self)))
    tracker = Theirs()
    found = list(follow(frames(), tracker))
    assert [f.detections.track_ids.tolist() for f in found[:-1]] == [[1, 0], [], [2, 1, 0]]
    assert found[-1].detections is None
    assert tracker.told == [(2, [200, 0, 9], 0.0), (0, [200, 0, 9], 0.2), (3, [200, 0, 9], 0.4)]


@pytest.mark.parametrize("name", ["ByteTrackTracker", "OCSORTTracker", "SORTTracker", "BoTSORTTracker"])
def test_a_tracker_of_the_trackers_package_follows(name):
    trackers = pytest.importorskip("trackers", reason="pip install trackers")
    if not hasattr(trackers, name):
        pytest.skip(f"this version has no {name}")
    found = [
        f.detections.track_ids.tolist() for f in follow(frames((3,) * 12), getattr(trackers, name)()) if f.detections
    ]
    assert len(set(found[-1]) - {-1}) == 3
    assert found[-1] == found[-2]
