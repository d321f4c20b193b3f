"""Frames drawn and written: counts, numbers, files that are whole or not there."""

import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from fcos.detections import Detections
from fcos.errors import FcosError
from fcos.evaluation.mot import read_mot
from fcos.inference.video import Frame, Reader, VideoInfo
from fcos.show.frames import Painter, VideoFiles, write_frames
from fcos.tracking import counting
from fcos.tracking.counting import parse_line, parse_zone
from fcos.tracking.follow import follow, make_tracker

pytest.importorskip("scipy", reason="tracking needs scipy: pip install 'fcos-detector[track]'")
INFO = VideoInfo(10.0, 20, False)


def frames(count=20, every=1):
    """A cat that walks to the right, 8 pixels a frame, and a weak dog that stands."""
    for k in range(count):
        image = np.full((96, 224, 3), 90, np.uint8)
        image[40:70, 8 * k : 8 * k + 30] = 200
        seen = Detections(
            torch.tensor([[8.0 * k, 40, 8 * k + 30, 70], [180, 5, 200, 20]]), torch.tensor([0.9, 0.2]),
            torch.tensor([0, 1]), torch.tensor([0, 0]), names=("cat", "dog"), size=(96, 224),
        )  # fmt: skip
        yield Frame(k, k / 10, image, seen if k % every == 0 else None)


def test_objects_are_counted_however_many_there_are(monkeypatch):
    monkeypatch.setattr(counting, "KEPT", 5)

    def crowd():
        for k in range(40):
            ids, box = torch.tensor([k // 2]), torch.tensor([[1.0, 1, 9, 9]])
            seen = Detections(box, torch.ones(1), torch.tensor([k // 2 % 2]), names=("cat", "dog"), track_ids=ids)
            yield Frame(k, k / 10, np.zeros((96, 224, 3), np.uint8), seen)

    outcome = write_frames(crowd(), INFO, VideoFiles(), Painter())
    assert (outcome.followed, outcome.classes(), len(outcome.objects)) == (20, "10 cat, 10 dog", 5)


@pytest.mark.parametrize("every", [1, 3])
def test_a_walk_is_followed_counted_drawn_and_written(tmp_path, every):
    painter = Painter([parse_line("100,0,100,96")], [parse_zone("60,0,224,0,224,96,60,96")])
    names = ("a.mp4", "a.jsonl", "a.txt")
    files = VideoFiles(*(tmp_path / name for name in names), counts=tmp_path / "a.counts.json")
    taken = []
    outcome = write_frames(
        follow(frames(every=every), make_tracker("bytetrack")), INFO, files, painter, lambda f: taken.append(f.index)
    )
    assert (outcome.frames, outcome.detected, outcome.objects) == (20, -(-20 // every), {1: "cat"})
    assert taken == list(range(20))
    assert painter.lines[0].entered.total() + painter.lines[0].left.total() == 1
    assert dict(painter.zones[0].entered) == {"cat": 1}
    counts = json.loads(files.counts.read_text())
    (line,), (zone,) = counts["lines"], counts["zones"]
    assert line["line"] == [100, 0, 100, 96]
    assert {**line["in"], **line["out"]} == {"cat": 1}
    assert zone == {"zone": [60, 0, 224, 0, 224, 96, 60, 96], "in": {"cat": 1}, "out": {}, "inside": 1}
    rows = [json.loads(line) for line in files.lines.read_text().splitlines()]
    assert [row["frame"] for row in rows] == list(range(0, 20, every))
    assert all([d["track"] for d in row["detections"]] == [1] for row in rows)
    tracks = read_mot(files.mot)
    assert tracks[0][0].tolist() == [1]
    assert tracks[every][1][0].tolist() == [8.0 * every + 1, 41, 8 * every + 31, 71]  # MOT counts pixels from 1
    with Reader(files.drawn) as reader:
        assert sum(1 for _ in reader) == 20


def test_what_is_drawn_stays_between_frames_that_were_detected_in():
    painter = Painter()
    followed = list(follow(frames(4, every=2), make_tracker("ocsort")))
    drawn = [painter.paint(f) for f in followed]
    for frame, image in zip(followed, drawn, strict=True):
        assert (image != frame.image).any()
        assert image.shape == frame.image.shape


def test_counts_lie_over_names(tmp_path):
    """A cat, then two, stand where the counts of a zone and of a line are written."""
    lines, zones = [parse_line("60,30,60,96")], [parse_zone("4,4,220,4,220,90,4,90")]
    image = np.full((96, 224, 3), 90, np.uint8)
    bare = Painter(lines, zones).paint(Frame(0, 0.0, image, None))
    written = (bare == 0).all(axis=2)
    assert written[:24].any()
    assert written[30:60].any()
    cats = Detections(
        torch.tensor([[2.0, 20, 90, 80], [50, 48, 120, 90]]), torch.tensor([0.9, 0.8]), torch.tensor([0, 0]),
        torch.tensor([0, 0]), track_ids=torch.tensor([1, 2]), names=("cat",), size=(96, 224),
    )  # fmt: skip
    drawn = Painter(lines, zones).paint(Frame(0, 0.0, image, cats))
    assert (drawn != bare).any()
    np.testing.assert_array_equal(drawn[written], bare[written])


def test_an_error_leaves_no_files(tmp_path):
    def broken():
        yield from frames(5)
        raise FcosError("the network is gone")

    files = VideoFiles(tmp_path / "a.mp4", tmp_path / "a.jsonl", tmp_path / "a.txt")
    with pytest.raises(FcosError, match="the network is gone"):
        write_frames(broken(), INFO, files, Painter())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_disk_that_is_full_at_the_last_line_leaves_the_old_video(tmp_path, monkeypatch):
    """The lines are small: they wait in memory until all frames are by, and only then does the disk refuse them."""

    @contextmanager
    def full(path):
        yield Path("/dev/full")

    monkeypatch.setattr("fcos.show.frames.whole", full)
    files = VideoFiles(tmp_path / "a.mp4", tmp_path / "a.jsonl")
    files.drawn.write_bytes(b"of before")
    with pytest.raises((FcosError, OSError), match="No space left"):
        write_frames(frames(5), INFO, files, Painter())
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.mp4": b"of before"}


def test_a_tracker_that_is_none():
    with pytest.raises(FcosError, match="did you mean bytetrack"):
        make_tracker("bytetrak")
