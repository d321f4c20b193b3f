"""Cameras and streams: the newest frame, even distances, connections that break, and the end."""

import itertools
import json
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny import fcos, tiny_config
from video_clips import Camera, Counter, number_of, picture

from fcos.errors import FcosError
from fcos.inference import video
from fcos.inference.sources import name_of
from fcos.inference.video import Frame, Reader, called, frame_line
from fcos.inference.video_stream import stream
from fcos.network import weights
from fcos.system.machine import Placement
from fcos.types import Classes


def test_a_slow_network_on_a_live_source_takes_the_newest_frame(monkeypatch):
    plan = iter(range(200))
    monkeypatch.setattr(video, "_capture", lambda source, live: Camera(plan))
    monkeypatch.setattr(video, "_PAUSES", (0.01,))
    with Reader("rtsp://camera") as reader:
        taken = []
        for frame in reader:
            taken.append(frame.index)
            time.sleep(0.03)
    assert taken == sorted(taken)
    assert 5 < len(taken) < 100  # most were skipped
    assert taken[-1] == 199  # and the last is the newest
    assert "is gone" in reader.broken


class Live(Reader):
    """A live source that tells how many frames were taken from it."""

    def __init__(self, count):
        self.info, self.taken, self._count = video.VideoInfo(30.0, 0, True), 0, count

    def __iter__(self):
        for index in range(self._count):
            self.taken += 1
            yield Frame(index, index / 30, picture(index))


@pytest.mark.parametrize("batch", [1, 2])
def test_no_frame_of_a_live_source_waits_for_the_network(batch):
    """A frame is taken when the network is free, not before: what a thread takes ahead has grown old."""
    source, detector = Live(8), Counter()
    for frame in stream(detector, source, batch=batch):
        assert source.taken - frame.index <= batch
        assert frame.detections.boxes[0, 0] == frame.index
    assert sum(detector.calls) == 8


class Clock(Live):
    """A live source whose frames are numbered by the milliseconds since the first."""

    def __iter__(self):
        began = time.monotonic()
        for _ in range(self._count):
            yield Frame(round((time.monotonic() - began) * 1000), 0.0, picture(0))


def test_lanes_take_frames_of_a_live_source_at_even_distances():
    """Not as many at once as there are lanes, and then none for the time of a pass."""
    detector = Counter(seconds=0.2)
    detector.placement = Placement(lanes=4)
    taken = [f.index for f in stream(detector, Clock(12))]
    assert min(np.diff(taken[4:])) >= 49  # of the first ones it is not known yet how long they take


def test_a_connection_that_breaks_is_opened_again(monkeypatch):
    plans = [iter(range(3)), iter(range(3)), iter(())]
    opened = []

    def capture(source, live):
        opened.append(source)
        return Camera(plans[min(len(opened), len(plans)) - 1])

    monkeypatch.setattr(video, "_capture", capture)
    monkeypatch.setattr(video, "_PAUSES", (0.01, 0.02))
    with Reader("rtsp://camera") as reader:
        last = [f.index for f in reader][-1]
    assert last == 5  # three of each connection
    assert len(opened) >= 3


class Network:
    """A camera on a network, which sends JPEGs one after the other (multipart/x-mixed-replace): `each` frames on each
    of two connections, then none. `sent`: how many in all."""

    def __init__(self, each):
        self.sent, self.connections = 0, 0
        camera = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):  # the name that http.server calls
                camera.connections += 1
                if camera.connections > 2:
                    self.send_error(503)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                for _ in range(each):
                    data = cv2.imencode(".jpg", picture(camera.sent))[1].tobytes()
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                    self.wfile.write(head.encode() + data + b"\r\n")
                    camera.sent += 1
                    time.sleep(0.01)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}/video"


def test_a_camera_that_sends_jpegs_over_http_gives_its_newest_frame_and_is_opened_again(monkeypatch):
    camera = Network(each=12)
    monkeypatch.setattr(video, "_PAUSES", (0.05, 0.05))
    numbers = []
    try:
        with Reader(camera.address) as reader:
            assert reader.info.live
            for frame in reader:
                numbers.append(number_of(frame.image))
                deadline = time.monotonic() + 60  # a slow pass: until both connections have ended
                while camera.connections < 3 and time.monotonic() < deadline:
                    time.sleep(0.01)
    finally:
        camera.server.shutdown()
        camera.server.server_close()
    assert camera.sent == 24
    assert numbers[-1] == 23  # the newest of the second connection
    assert len(numbers) <= 2  # what came during the pass was skipped
    assert "is gone" in reader.broken


def test_the_end_of_a_live_source_keeps_what_came_before(monkeypatch):
    """As Ctrl-C has it, which is its only end."""
    monkeypatch.setattr(video, "_capture", lambda source, stream: Camera(itertools.count()))
    with Reader(0) as reader:
        frames = iter(reader)
        first = next(frames)
        reader.end()
        rest = [frame.index for frame in frames]
    assert rest == sorted(rest)
    assert min(rest, default=first.index + 1) > first.index
    assert len(rest) <= 2  # what was read already
    assert not reader.broken


def test_ctrl_c_on_a_camera_writes_what_came_before(tmp_path, capsys):
    """And is the end of the command: of other sources that were named nothing is begun."""
    camera = Network(each=100_000)
    weights.save(
        tmp_path / "m.safetensors", weights.build(tiny_config(), 1).state_dict(), tiny_config(), Classes(("square",))
    )
    lines = tmp_path / "out" / "video.jsonl"

    def stop():
        end = time.monotonic() + 60
        while camera.sent < 40 and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.5)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=stop, daemon=True).start()
    try:
        words = ("--model", tmp_path / "m.safetensors", "--out", tmp_path / "out", "--score", "0", "--device", "cpu")
        code, out, err = fcos(capsys, "predict", camera.address, "rtsp://127.0.0.1:9/never", *words)
    finally:
        camera.server.shutdown()
        camera.server.server_close()
    assert code == 130, (out, err)
    assert lines.read_text().count("\n") >= 1
    assert (tmp_path / "out" / "video.mp4").is_file()
    assert "never" not in out + err


def test_what_goes_wrong_in_the_thread_that_reads_comes_out(monkeypatch):
    class Bad(Camera):
        def read(self):
            raise MemoryError("no room")

    monkeypatch.setattr(video, "_capture", lambda source, stream: Bad(itertools.count()))
    with Reader(0) as reader, pytest.raises(MemoryError, match="no room"):
        list(reader)


def test_the_password_of_a_camera_is_not_told():
    address = "rtsp://admin:p@ss@127.0.0.1:9/live"
    with pytest.raises(FcosError) as caught:
        Reader(address)
    assert "rtsp://admin:***@127.0.0.1:9/live" in str(caught.value)
    assert "p@ss" not in str(caught.value)
    frame = Frame(0, 0.0, np.zeros((2, 2, 3), np.uint8), None)
    assert json.loads(frame_line(frame, address))["file"] == "rtsp://admin:***@127.0.0.1:9/live"
    assert name_of(Path("https://admin:p@ss@127.0.0.1:9/a.jpg")) == "https://admin:***@127.0.0.1:9/a.jpg"
    assert name_of("http://10.0.0.1:80/a@b.jpg") == "http://10.0.0.1:80/a@b.jpg"
    assert "secret" not in called("rtsp://admin:secret@10.0.0.7")
