"""Moving images: frames from a file, a sequence of images, a camera or a network stream.

A file and a sequence give every frame in order. A live source gives the newest frame: what came while the network was
busy is skipped, and a connection that breaks is opened again after growing pauses. Memory does not grow with length.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..data.images import gif
from ..data.images.reading import SUFFIXES as PICTURES
from ..detections import Detections
from ..errors import ConfigError, FcosError, ImageError, without_password
from ..system.files import file_name, plain_number
from ..system.readers import open_file
from ..system.remote import is_remote, local
from ..system.terminal import plural
from .containers import is_cut
from .sources import Source, expanded, find_sequence, load_source

Pixels = NDArray[np.uint8]
SUFFIXES = frozenset((".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts", ".gif"))
_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "tcp://")
_ANY = 1 << 50  # bytes: videos are long
_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds before a live source is opened again
_TIME, _RATE, _COUNT = 0, 5, 7  # cv2.CAP_PROP_POS_MSEC, _FPS, _FRAME_COUNT, without waiting for the import
_USUAL_RATE = 25.0  # frames a second where a source does not say
_MOST_RATE = 1000.0
_NOTHING = np.zeros((0, 0, 3), np.uint8)

VideoSource = str | os.PathLike[str] | int | Iterable[Source]


class VideoError(FcosError):
    """A video that cannot be opened or written."""


@dataclass(frozen=True)
class Frame:
    """One frame: its number in the source (0 the first), its time in seconds from the start, its pixels uint8 [H,W,3]
    RGB as displayed, and what was detected on it; None where it was left out by `every`. Of images that are called by
    plain numbers it is what their names say, counted from 0: 9 of 000010.jpg."""

    index: int
    time: float
    image: Pixels = field(repr=False)
    detections: Detections | None = None


@dataclass(frozen=True)
class VideoInfo:
    """What a source says of itself: frames a second, number of frames (0: unknown), whether it is live."""

    rate: float
    frames: int
    live: bool


def frames_of(images: Sequence[Path]) -> tuple[list[int], int]:
    """(frames, from 0 on, that the images of one folder are by their names; the even step between them).

    No frames where not all are called by plain numbers, two by the same, or where more than half are missing at any
    even step: times of the day, or numbers of a catalogue. Numbers begin with 1, as in MOTChallenge, unless one is 0.
    """
    numbers = [n for path in images if (n := plain_number(path)) is not None]
    called_apart = len(set(numbers)) == len(images) > 0
    if not called_apart or len({path.parent for path in images}) > 1:
        return [], 1
    first, last = min(numbers), max(numbers)
    step = gcd(*(n - first for n in numbers)) or 1
    if (last - first) // step >= 2 * len(numbers):
        return [], 1
    return [n - (first > 0) for n in numbers], step


def camera(source: str) -> int | None:
    """The number of the camera that a text names; None where it is none, or a file or folder has that name."""
    if source.isascii() and source.isdigit() and len(source) < 4 and not Path(source).exists():
        return int(source)
    return None


def is_video(source: object) -> bool:
    """Whether a source is a moving image: a camera number, the address of a stream, or a file's suffix; a GIF that is
    there if it has a second image."""
    text = os.fspath(source) if isinstance(source, str | os.PathLike) else ""
    if isinstance(source, int) or camera(text) is not None:
        return True
    if is_remote(text) and Path(text.partition("?")[0]).suffix.lower() in PICTURES:
        return False
    if text.lower().endswith(".gif") and os.path.isfile(text):
        try:
            with open_file(text, _ANY, ImageError) as file:
                return gif.moves(file)
        except (ImageError, OSError):
            return False  # as an image it is told what is wrong with it
    return text.lower().startswith(_SCHEMES) or Path(text).suffix.lower() in SUFFIXES


def videos_apart(sources: Sequence[str]) -> tuple[list[str], list[str]]:
    """(videos, the others) of what a command line names; a pattern stands for the files that it means."""
    named = [(source, is_video(source)) for source in expanded(sources)]
    return [s for s, moving in named if moving], [s for s, moving in named if not moving]


def videos_in(folder: str) -> int:
    """How many videos stand in a folder, not deeper; images that move count as images there."""
    try:
        with os.scandir(folder) as entries:
            return sum(Path(e.name).suffix.lower() not in PICTURES and is_video(e.path) for e in entries)
    except OSError:  # no folder, or none that can be read
        return 0


def called(source: str) -> str:
    """What the files are called that are made of a source: the name of its file, stream or folder, or its camera."""
    if camera(source) is not None:
        return f"camera{source}"
    if os.path.isdir(source):
        return file_name(Path(source).resolve().name or "frames")
    if "://" not in source and (glob.has_magic(source) or "%" in source) and not os.path.lexists(source):
        return called(os.fspath(Path(source).parent))
    return file_name(Path(without_password(source).split("?")[0]).stem or "stream")


class Reader:
    """Frames of a source, in order; of images there are `rate` a second, 25. Close it, or use it in a `with`.

    After the last frame `broken` says why there are no more, where that was not the end of the file, or which image of
    a folder or pattern could not be read. ConfigError for a `rate` that makes no sense.
    """

    def __init__(self, source: VideoSource, rate: float | None = None) -> None:
        self.broken = ""
        if rate is not None and not 0 < rate <= _MOST_RATE:
            raise ConfigError(f"rate={rate:g}: give frames a second, up to {_MOST_RATE:g}")
        self._stop, self._ended = threading.Event(), threading.Event()
        self._using = threading.Lock()  # OpenCV hangs where one thread releases what another reads
        self._found = find_sequence(source) if isinstance(source, str | os.PathLike) else []
        if isinstance(source, str | os.PathLike | int) and not self._found:
            self._name = str(source)
            number = source if isinstance(source, int) else camera(os.fspath(source))
            place = source if number is None else number
            stream = number is not None or self._name.lower().startswith(_SCHEMES)
            if rate is not None and (stream or os.path.exists(source)):  # what is not there is told of below
                raise ConfigError(f"a rate is for images, not for {self._name}, which tells its times itself")
            self._open: Callable[[], Any] | None = lambda: _capture(place, stream)
            self._capture = self._open()
            own, count = self._capture.get(_RATE), self._capture.get(_COUNT)
            live = stream and not (self._name.lower().startswith("http") and count > 0)  # a server may have files
            self.info = VideoInfo(
                own if 0 < own < _MOST_RATE else _USUAL_RATE, 0 if live else max(0, int(min(count, 1e9))), live
            )
            self._images: Iterator[Source] | None = None
        else:
            self._name, self._open, self._capture = "frames", None, None
            images = self._found or source
            if not isinstance(images, Iterable) or isinstance(images, bytes):
                kind = type(source).__name__
                raise VideoError(
                    f"cannot take a {kind} for a video; give a path, a number, an address or a list of images"
                )
            if isinstance(images, np.ndarray | Tensor) and images.ndim < 4:  # whose rows would be frames
                shape = "x".join(map(str, images.shape))
                raise VideoError(f"an array {shape} is one image and no video; give a list of them, or call the model")
            self._images = iter(images)
            self.info = VideoInfo(rate or _USUAL_RATE, len(images) if isinstance(images, Sequence) else 0, False)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def end(self) -> None:
        """What has been read of a live source is all there is; from any thread."""
        self._ended.set()

    def close(self) -> None:
        """Stop reading; the source is given back."""
        self._stop.set()
        self._ended.set()
        if self._capture is not None and self._using.acquire(timeout=2.0):  # else a source that is silent is read from
            self._capture.release()
            self._using.release()

    def __iter__(self) -> Iterator[Frame]:
        if self._images is not None:
            yield from self._sequence(self._images)
        elif self.info.live:
            yield from self._newest()
        else:
            yield from self._all()

    def _sequence(self, images: Iterator[Source]) -> Iterator[Frame]:
        broken: list[str] = []
        numbered, step = frames_of(self._found)
        numbers: Iterable[int] = numbered or count()
        first = None
        for index, image in zip(numbers, images, strict=False):
            first = index if first is None else first
            try:
                pixels = load_source(image)
            except ImageError as error:
                if len(broken) + 1 >= len(self._found):  # none can be read; of an iterable the first is not passed over
                    raise
                broken.append(str(error))
                continue
            yield Frame(index, (index - first) // step / self.info.rate, pixels)
        if broken:
            more = f", and {plural(len(broken) - 1, 'image')} more" if len(broken) > 1 else ""
            self.broken = f"{broken[0]}{more}; left out of the sequence"

    def _all(self) -> Iterator[Frame]:
        index, stamp, longest = 0, 0.0, 0.0
        while not self._stop.is_set():
            with self._using:
                if self._stop.is_set():
                    break
                there, image = self._capture.read()
                at = self._capture.get(_TIME) / 1000  # of the frame that was just read
            if not there:
                break
            before, stamp = stamp, at if at > 0 or index == 0 else index / self.info.rate
            longest = max(longest, stamp - before)
            yield Frame(index, stamp, np.ascontiguousarray(image[..., ::-1]))
            index += 1
        if self._stop.is_set():
            return
        if index == 0:
            raise VideoError(f"{self._name} has no frame that can be read; is it a video?")
        # containers count a frame too many, and some know their length alone: at an uneven rate frames are longer
        short = max(index, (stamp + longest) * self.info.rate) < self.info.frames * 0.99 - 1
        cut = is_cut(self._name)
        if self.info.frames and short and cut is not False:
            self.broken = f"{self._name} ends after {index} of {self.info.frames} frames; the rest cannot be decoded"
        elif cut:
            self.broken = f"{self._name} is cut short: it ends within a block of data, after {plural(index, 'frame')}"

    def _newest(self) -> Iterator[Frame]:
        """The newest frame of a live source each time; a thread takes what comes, so that nothing piles up."""
        box: queue.Queue[tuple[int, float, Pixels] | BaseException | None] = queue.Queue(maxsize=1)
        began = time.monotonic()

        def grab() -> None:
            end: BaseException | None = None
            try:
                take()
            except BaseException as error:  # the caller's thread raises it
                end = error
            while not self._stop.is_set():  # behind the last frame, which is still to be taken
                with contextlib.suppress(queue.Full):
                    box.put(end, timeout=0.1)
                    break

        def take() -> None:
            index, failures = 0, 0
            while not self._stop.is_set() and not self._ended.is_set():
                with self._using:
                    there, image = self._capture.read() if not self._stop.is_set() else (False, _NOTHING)
                if there:
                    failures = 0
                    with contextlib.suppress(queue.Empty):
                        box.get_nowait()  # an older one that nobody took
                    box.put((index, time.monotonic() - began, np.ascontiguousarray(image[..., ::-1])))
                    index += 1
                    continue
                if failures >= len(_PAUSES):
                    self.broken = f"{self._name} is gone: no frame after {failures} new connections"
                    break
                with self._using:
                    self._capture.release()
                if self._ended.wait(_PAUSES[failures]) or self._stop.is_set():
                    break
                failures += 1
                with contextlib.suppress(VideoError):
                    assert self._open is not None
                    capture = self._open()
                    with self._using:
                        self._capture = capture

        threading.Thread(target=grab, daemon=True).start()
        while True:
            try:
                taken = box.get(timeout=0.5)
            except queue.Empty:  # a source that is silent is not waited for at the end
                if self._ended.is_set():
                    return
                continue
            if taken is None:
                return
            if isinstance(taken, BaseException):
                raise taken
            yield Frame(*taken)


def _capture(source: str | os.PathLike[str] | int, stream: bool) -> Any:
    """`stream`: a camera, or an address."""
    import cv2

    name = source if isinstance(source, int) else os.fspath(source)
    if not stream and not isinstance(name, int):
        name = os.fspath(local(name, VideoError))
        check_file(name)
    capture = cv2.VideoCapture(name)
    if not capture.isOpened():
        what = "camera" if isinstance(source, int) else "stream" if stream else "video"
        hint = "is it connected and free?" if what == "camera" else "is it a video, in a format that OpenCV reads?"
        raise VideoError(f"cannot open the {what} {name}; {hint}")
    return capture


_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"[playlist]", b"<?xml", b"<MPD", b"v=0")  # name other files and addresses


def check_file(path: str) -> None:
    """VideoError for what OpenCV must not be given: no regular file; a name that is no text, which ends the process;
    a playlist, which would have it open other files."""
    with open_file(path, _ANY, VideoError) as file:
        start = file.read(64)
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_PLAYLISTS):
        raise VideoError(f"{path} is a playlist, not a video; name the video itself")
    check_name(path)


def check_name(path: str) -> None:
    """VideoError for a name that OpenCV cannot open."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise VideoError(f"{path!a} is not UTF-8, and OpenCV cannot open such a name; rename it") from None


def frame_line(frame: Frame, source: str = "") -> str:
    """One JSON object: file (the `source`, where it is given), frame, time in seconds, and detections with boxes xyxy
    in pixels; of a video that was tracked only those of its objects, with their numbers."""
    seen = frame.detections if frame.detections is not None else Detections.empty()
    rows: list[dict[str, Any]] = seen.to_dict()["detections"]
    if seen.track_ids is not None:
        numbers = seen.track_ids.tolist()
        rows = [{"track": number, **row} for number, row in zip(numbers, rows, strict=True) if number >= 0]
    source = without_password(source)
    told = {"frame": frame.index, "time": round(frame.time, 4), "detections": rows}
    return json.dumps({"file": source, **told} if source else told, ensure_ascii=False)
