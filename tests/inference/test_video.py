"""Videos made for the test: every frame in order, its time, and what breaks."""

import itertools
import json
import os
import subprocess
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from video_clips import Camera, Counter, needs_ffmpeg, number_of, picture

from fcos.errors import ConfigError, ImageError
from fcos.inference import containers, video, video_stream, video_writing
from fcos.inference.containers import is_cut
from fcos.inference.video import Frame, Reader, VideoError, called, frame_line, is_video, videos_apart
from fcos.inference.video_stream import ahead, stream
from fcos.system.machine import Placement


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for i in range(20):
        writer.write(picture(i))
    writer.release()
    return path


def test_what_is_a_video():
    assert all(is_video(s) for s in (0, "a.MP4", "rtsp://camera/1", "https://x/y.m3u8"))
    assert not any(is_video(s) for s in ("a.jpg", "folder", np.zeros(3), "mp4"))


def test_a_camera_has_one_name_unless_a_folder_has_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened = []
    monkeypatch.setattr(video, "_capture", lambda source, live: opened.append(source) or Camera(iter(())))
    (tmp_path / "1").mkdir()
    Image.new("RGB", (8, 9)).save(tmp_path / "1" / "a.png")
    (tmp_path / "20240101").touch()
    for source in ("0", "1", "20240101"):
        with Reader(source):
            pass
    assert opened == [0, "20240101"]
    assert [is_video(s) for s in ("0", "1", "20240101")] == [True, False, False]
    assert [video.called(s) for s in ("0", "1", "20240101")] == ["camera0", "1", "20240101"]


def test_a_gif_of_one_image_is_no_video(tmp_path):
    images = [Image.fromarray(np.full((8, 9, 3), v, np.uint8)) for v in (0, 90, 200)]
    images[0].save(tmp_path / "still.gif", comment="a,;!")
    images[0].save(tmp_path / "moves.GIF", save_all=True, append_images=images[1:])
    (tmp_path / "broken.gif").write_bytes(b"GIF89a")
    (tmp_path / "empty.gif").touch()
    video, image = videos_apart([str(p) for p in sorted(tmp_path.iterdir())])
    assert [Path(p).name for p in video] == ["moves.GIF"]
    assert len(image) == 3
    assert is_video(tmp_path / "to_be_written.gif")


def test_every_frame_of_a_file_in_order_with_its_time(clip):
    with Reader(clip) as reader:
        frames = list(reader)
    assert [number_of(f.image) for f in frames] == [f.index for f in frames] == list(range(20))
    np.testing.assert_allclose([f.time for f in frames], np.arange(20) / 10, atol=0.011)
    assert (reader.info.rate, reader.info.frames, reader.broken) == (10.0, 20, "")


@pytest.mark.parametrize(("every", "batch", "lanes"), [(1, 1, 1), (1, 4, 1), (3, 1, 1), (3, 2, 2), (7, 4, 3)])
def test_detections_belong_to_their_frames_however_they_are_batched(clip, every, batch, lanes):
    detector = Counter()
    detector.placement = Placement(lanes=lanes)
    with Reader(clip) as reader:
        frames = list(stream(detector, reader, every=every, batch=batch))
    assert [f.index for f in frames] == list(range(20))
    for f in frames:
        if f.index % every:
            assert f.detections is None
        else:
            assert f.detections.boxes[0, 0] == f.index
    assert max(detector.calls) <= batch


def test_arrays_are_a_source_too():
    with Reader(picture(i) for i in range(5)) as reader:
        frames = list(stream(Counter(), reader))
    assert [int(f.detections.boxes[0, 0]) for f in frames] == list(range(5))
    pixels = picture(3)
    given = [pixels, Image.fromarray(pixels), torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(pixels)]
    assert all(np.array_equal(frame.image, pixels) for frame in Reader(given))
    others = [np.float32(pixels) / 255, np.dstack((pixels, np.full(pixels.shape[:2], 255, np.uint8)))]
    assert all(np.array_equal(frame.image, pixels) for frame in Reader(others))
    (grey,) = Reader([pixels[..., 0]])
    assert np.array_equal(grey.image, np.repeat(pixels[..., :1], 3, axis=2))
    for other in (np.zeros((4, 4), np.int64), "photo.jpg", 3):
        with pytest.raises(ImageError):
            list(Reader([other]))
    for other in (Image.fromarray(pixels), b"bytes", 3.5):
        with pytest.raises(VideoError, match="for a video; give"):
            Reader(other)


@pytest.fixture
def sequence(tmp_path):
    """A folder whose images are numbered without zeros in front, with a text and another image beside it."""
    folder = tmp_path / "img1"
    folder.mkdir()
    for number in range(12):
        Image.fromarray(picture(number)).save(folder / f"f{number + 1}.png")
    (folder / "f13.txt").write_text("no image")
    (tmp_path / "fx.png").write_bytes((folder / "f1.png").read_bytes())
    return folder


@pytest.mark.parametrize("how", ["img1", "img1/*.png", "img1/f%d.png", "img1/f%06d.png", "list"])
def test_a_sequence_of_images_is_a_source(sequence, how, monkeypatch):
    monkeypatch.chdir(sequence.parent)
    source = [f"img1/f{k}.png" for k in range(1, 13)] if how == "list" else how
    with Reader(source, rate=10) as reader:
        assert (reader.info.frames, reader.info.rate, reader.info.live) == (12, 10, False)
        frames = list(reader)
    assert [number_of(f.image) for f in frames] == [f.index for f in frames] == list(range(12))  # 2 before 10
    assert [f.time for f in frames] == pytest.approx([k / 10 for k in range(12)])
    assert reader.broken == ""
    assert how == "list" or called(how) == "img1"


def test_an_image_of_a_sequence_that_is_broken_is_left_out_and_told(sequence):
    (sequence / "f3.png").write_bytes(b"no image")
    with Reader(sequence) as reader:
        frames = list(reader)
    assert [f.index for f in frames] == [0, 1, *range(3, 12)]
    assert frames[2].time == pytest.approx(3 / 25)
    assert "f3.png" in reader.broken
    for path in sequence.glob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"f12\.png"):
        list(Reader(sequence))


@pytest.mark.parametrize(
    ("names", "frames", "at"),
    [
        (("000010", "000020", "000040", "000050"), [9, 19, 39, 49], [0, 1, 3, 4]),  # every tenth, and one is missing
        (("0", "1", "3"), [0, 1, 3], [0, 1, 3]),
        (("1", "2", "6"), [0, 1, 5], [0, 1, 5]),
        (("5",), [4], [0]),
        (("1", "2", "10"), [0, 1, 2], [0, 1, 2]),  # most of them are missing
        (("000000139", "000000285", "000000632"), [0, 1, 2], [0, 1, 2]),  # of a catalogue
        (("000000", "235958", "235959"), [0, 1, 2], [0, 1, 2]),  # times of the day
        (("1", "01", "2"), [0, 1, 2], [0, 1, 2]),  # two are the first
        (("1", "2", "last"), [0, 1, 2], [0, 1, 2]),
        (("2/1", "1/1"), [0, 1], [0, 1]),
    ],
)
def test_images_called_by_numbers_are_the_frames_of_those_numbers(tmp_path, names, frames, at):
    """As the reader of MOTChallenge's data counts them, so that tracks of a part meet the truth of the whole."""
    for name in names:
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture(len(name))).save(path)
    with Reader(tmp_path, rate=10) as reader:
        seen = list(stream(Counter(), reader, every=2))
    assert [f.index for f in seen] == frames
    assert [f.time for f in seen] == pytest.approx([k / 10 for k in at])
    assert [f.detections is not None for f in seen] == [
        k % 2 == 0 for k in range(len(frames))
    ]  # of those that are there


def test_a_rate_is_for_images(clip, sequence):
    with pytest.raises(ConfigError, match="tells its times itself"):
        Reader(clip, rate=30)
    with pytest.raises(ConfigError, match="rate=0"):
        Reader(sequence, rate=0)
    with pytest.raises(VideoError, match="no such file"):
        Reader(sequence / "g%d.png")
    with pytest.raises(VideoError, match="no such file"):
        Reader(clip.with_name("missing"), rate=30)


@pytest.mark.parametrize("batch", [1, 3])
def test_of_a_long_gap_between_two_detections_few_frames_are_held(batch, monkeypatch):
    """Not all that lie between, which may be minutes."""
    given = 0
    monkeypatch.setattr(video_stream, "PIXELS_AHEAD", 20 * 48 * 64)

    def frames():
        nonlocal given
        for given in range(400):
            yield Frame(given, given / 10, picture(given % 20))

    for frame in stream(Counter(seconds=0.05), frames(), every=100, batch=batch):
        assert given - frame.index <= 40
    assert frame.index == given == 399


@pytest.mark.parametrize(("every", "batch"), [(1, 8), (10, 1), (30, 1), (5, 4)])
def test_as_many_passes_run_at_once_as_there_are_lanes(every, batch):
    class Slow(Counter):
        now = most = 0

        def detect(self, images, names, score=0.0, batch=1):
            with lock:
                self.now += 1
                self.most = max(self.most, self.now)
            time.sleep(0.05)
            with lock:
                self.now -= 1
            return super().detect(images, names, score, batch)

    lock, detector = threading.Lock(), Slow()
    detector.placement = Placement(lanes=3)
    frames = (Frame(k, k / 10, picture(k % 20)) for k in range(20 * every * batch))
    assert [f.index for f in stream(detector, frames, every=every, batch=batch)] == list(range(20 * every * batch))
    assert detector.most == 3


def test_a_caller_may_stop_early(clip):
    with Reader(clip) as reader:
        assert [f.index for f in itertools.islice(stream(Counter(), reader), 3)] == [0, 1, 2]


def test_a_file_that_is_cut_gives_what_it_has_and_says_so(clip):
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) // 2])
    with Reader(clip) as reader:
        reader.info = video.VideoInfo(10.0, 20, False)  # as a container with its index in front says
        frames = list(reader)
    assert 0 < len(frames) < 20
    assert "clip.avi ends after" in reader.broken


class Uneven:
    """A capture of 8 frames, the last 3 of which stay for half a second each; its container knows its length alone,
    which OpenCV takes for 19 frames."""

    def __init__(self, there=8):
        self.times = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 1.5][:there]
        self.at = -1

    def read(self):
        self.at += 1
        return self.at < len(self.times), picture(self.at)

    def get(self, what):
        return {video._TIME: self.times[min(self.at, len(self.times) - 1)] * 1000, video._RATE: 10.0}.get(what, 19)

    def release(self):
        pass


@pytest.mark.parametrize(("there", "broken"), [(8, False), (6, True)])
def test_an_uneven_rate_is_no_cut(there, broken, monkeypatch):
    monkeypatch.setattr(video, "_capture", lambda *_: Uneven(there))
    with Reader("screen.mkv") as reader:
        assert len(list(reader)) == there
    assert bool(reader.broken) is broken


def matroska_of(content, size=None):
    """A file of one segment; its size as it is written, if not its own."""
    head = b"\x1a\x45\xdf\xa3\x84DocT\x18\x53\x80\x67"
    return head + (b"\x01" + len(content).to_bytes(7, "big") if size is None else size) + content


def flash_of(content):
    tag = b"\x09" + len(content).to_bytes(3, "big") + bytes(7) + content
    return b"FLV\x01\x05\0\0\0\x09\0\0\0\0" + tag + len(tag).to_bytes(4, "big")


WHOLE = {
    "matroska": matroska_of(b"\0picture and sound"),
    "a size in one byte": matroska_of(b"picture", b"\x87"),
    "flash": flash_of(b"picture and sound"),
    "mpeg-ts": 3 * (b"G" + bytes(186) + b"s"),
    "mpeg-ts of a camera": 3 * (b"timeG" + bytes(186) + b"s"),
    "mpeg": b"\0\0\1\xba picture",
}


CUT = {
    "matroska": WHOLE["matroska"][:-1],
    "filled up": matroska_of(b"pict" + bytes(400)),
    "never finished": matroska_of(b"picture", b"\x01" + 7 * b"\xff"),
    "flash": WHOLE["flash"][:-5],
    "others": b"RIFF....AVI ",
    "empty": b"",
    **{f"the first {n}": WHOLE["matroska"][:n] for n in (4, 5, 9, 13, 14, 20)},
}


@pytest.mark.parametrize(
    ("content", "whole"),
    [*((c, True) for c in WHOLE.values()), *((c, False) for c in CUT.values())],
    ids=[*WHOLE, *CUT],
)
def test_a_video_whose_sound_goes_on_is_no_cut(content, whole, tmp_path, monkeypatch):
    """Of some containers OpenCV tells the length of the longest track in frames: 19, where the picture has 6."""
    (tmp_path / "a.mkv").write_bytes(content)
    monkeypatch.setattr(video, "_capture", lambda *_: Uneven(6))
    with Reader(tmp_path / "a.mkv") as reader:
        assert len(list(reader)) == 6
    assert (reader.broken == "") is whole


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["gif", "ts", "m2ts", "mpg", "wmv"])
def test_a_file_that_ends_within_its_data_is_told_where_opencv_takes_what_is_there(suffix, tmp_path):
    whole, cut, gone = (tmp_path / f"{name}.{suffix}" for name in ("whole", "cut", "gone"))
    subprocess.run(
        [video_writing.find_ffmpeg(), "-loglevel", "error",
         "-f", "lavfi", "-i", "testsrc=size=64x48:rate=25:duration=1", str(whole)], check=True,
    )  # fmt: skip
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) * 2 // 3 + 50])
    assert (is_cut(whole), is_cut(cut), is_cut(gone)) == (False, True, None)
    for path in (whole, cut):
        with Reader(path) as reader:
            assert 0 < len(list(reader)) <= 25
        assert ("cut" in reader.broken or "ends after" in reader.broken) is (path == cut)


def asf_of(flags, data):
    """A header with properties and nothing else, and the size that the data object names."""
    header = containers._ASF + (30 + 92).to_bytes(8, "little") + bytes(6) + containers._ASF_FILE + bytes(72)
    return header + flags.to_bytes(4, "little") + containers._ASF_DATA + data.to_bytes(8, "little") + b"data"


@pytest.mark.parametrize(
    ("content", "cut"),
    [
        (asf_of(2, 28), False),
        (asf_of(0, 29), True),
        (asf_of(1, 29), None),  # broadcast: nobody knew the size
        (asf_of(2, 0), None),
        (WHOLE["mpeg-ts"] + b"Gp", True),
        (WHOLE["mpeg-ts"] + b"something else", None),
        (b"GIF89a" + bytes(7) + b";", False),
        (b"GIF89a" + bytes(7) + b"!\xf9\4abcd\0", False),  # without an end mark
        (b"GIF89a" + bytes(7) + b"!\xf9\4abcd", True),
        (b"\0\0\1\xba\x44" + bytes(9) + b"\0\0\1\xe0\0\4data", False),
        (b"\0\0\1\xba\x44" + bytes(9) + b"\0\0\1\xe0\0\4data\0\0\1\xb9", False),
        (b"\0\0\1\xba\x44" + bytes(9) + b"\0\0\1\xe0\0\5data", True),
        (b"\0\0\1\xba\x21" + bytes(7) + b"\0\0\1\xe0\0\4data", False),  # MPEG-1
        (b"\0\0\1\xba\x21" + bytes(7) + b"\0\0\1\xe0\0\4dat", True),
    ],
)
def test_what_ends_within_its_data(content, cut, tmp_path):
    (tmp_path / "a").write_bytes(content)
    assert is_cut(tmp_path / "a") is cut


@pytest.mark.parametrize("content", [b"", b"no video", None])
def test_what_is_no_video_is_one_line(tmp_path, content):
    path = tmp_path / "a.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError, match=r"a\.mp4") as error:
        Reader(path)
    assert "\n" not in str(error.value)


def test_a_file_behind_http_has_an_end(clip):
    class Files(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(clip.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with Reader(f"http://127.0.0.1:{server.server_address[1]}/clip.avi") as reader:
            assert not reader.info.live
            assert [number_of(f.image) for f in reader] == list(range(20))
        assert reader.broken == ""
    finally:
        server.shutdown()
        server.server_close()


def test_reading_ahead_is_bounded_and_passes_errors_on():
    made = []

    def numbers():
        for i in range(100):
            made.append(i)
            yield i
        raise ValueError("the end is bad")

    items = ahead(numbers(), 3)
    assert next(items) == 0
    time.sleep(0.05)
    assert len(made) <= 6
    with pytest.raises(ValueError, match="the end is bad"):
        list(items)


def test_a_line_for_each_frame():
    (seen,) = Counter().detect([picture(3)], [None])
    assert json.loads(frame_line(Frame(7, 0.7, picture(3), seen))) == {
        "frame": 7, "time": 0.7,
        "detections": [{"name": "square", "label": "square", "class": 0, "score": 1.0, "box": [3.0, 0, 1, 1]}],
    }  # fmt: skip
    assert json.loads(frame_line(Frame(8, 0.8, picture(3))))["detections"] == []


def test_a_frame_is_printed_in_one_line_without_its_pixels():
    assert repr(Frame(7, 0.7, picture(3))) == "Frame(index=7, time=0.7, detections=None)"


@pytest.mark.parametrize("name", ["\udcff.avi", "\udcff/v.gif"])
def test_a_name_that_is_no_text_ends_in_a_line(tmp_path, name):
    """OpenCV ends the process on it."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"RIFF")
    with pytest.raises(VideoError, match="rename it"):
        Reader(path)


def test_a_video_of_an_object_store_is_read_from_its_copy(clip, monkeypatch):
    """OpenCV knows web servers, and no stores."""
    asked = []
    monkeypatch.setattr(video, "local", lambda path, kind: asked.append(path) or clip)
    assert is_video("s3://bucket/clip.avi")
    with Reader("s3://bucket/clip.avi") as reader:
        assert [number_of(f.image) for f in reader] == list(range(20))
    assert asked == ["s3://bucket/clip.avi"]
    assert called("s3://bucket/clip.avi") == "clip"


@pytest.mark.parametrize("text", ["#EXTM3U\nfile:///home/me/own.mp4\n", "\n ffconcat version 1.0\nfile own.mp4\n"])
def test_a_playlist_opens_no_other_file(tmp_path, text):
    (tmp_path / "a.avi").write_text(text)
    with pytest.raises(VideoError, match="playlist"):
        Reader(tmp_path / "a.avi")


def test_a_pipe_is_no_video(tmp_path):
    os.mkfifo(tmp_path / "a.avi")
    with pytest.raises(VideoError, match="it is a pipe"):
        Reader(tmp_path / "a.avi")


def test_one_image_is_no_video():
    for image in (np.zeros((24, 40, 3), np.uint8), torch.zeros(3, 24, 40), np.zeros((24, 40), np.uint8)):
        with pytest.raises(VideoError, match="is one image and no video; give a list of them, or call the model"):
            Reader(image)
    with Reader(np.zeros((2, 24, 40, 3), np.uint8)) as reader:
        assert len(list(reader)) == 2
