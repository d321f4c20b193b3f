"""Frames to a video that browsers play: through this machine's ffmpeg, or through OpenCV where there is none."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ..system.files import write_whole
from . import matroska
from .video import Frame, VideoError, check_name

_HEARD = 0.02  # seconds that sound may be off
_H264 = (  # an ffmpeg built without GPL, such as Fedora's, has the second alone
    ["-c:v", "libx264", "-preset", "veryfast"],
    ["-c:v", "libopenh264"],
)


class WritingError(VideoError):
    """A video that cannot be written, though there are frames."""


def find_ffmpeg() -> str | None:
    """The ffmpeg program of this machine, where there is one."""
    return shutil.which("ffmpeg")


def write_video(
    path: Path, frames: Iterable[Frame], rate: float, *, sound: Path | None = None, say: Callable[[str], None] = print
) -> int:
    """Write the images of frames to a video that browsers play (H.264 in .mp4), whole or not at all; how many.

    ffmpeg of this machine does it, keeps the time of each frame, and takes over the sound of the video `sound`, as AAC,
    which every MP4 can hold, and as long as the frames last. Without ffmpeg, or where it cannot write H.264, OpenCV
    writes MPEG-4 at `rate` frames a second, which browsers do not play and which has no sound; `say` gets a line about
    it. WritingError where neither can.
    """
    count = 0

    def encode(target: Path) -> None:
        nonlocal count
        rest = iter(frames)
        first = next(rest, None)
        if first is None:
            raise VideoError(f"there are no frames to write to {path}")
        program = find_ffmpeg()
        encoder = _encoder(program) if program else []
        if program and encoder:
            put, close = _by_ffmpeg([program, *encoder], (path, target), first, rate, sound)
        else:
            put, close = _by_opencv(target, first, rate)
            why = "the ffmpeg of this machine writes no H.264" if program else "ffmpeg is not on this machine"
            say(f"{why}: the video is MPEG-4 without sound, and browsers do not play it")
        try:
            put(first)
            count = 1
            for frame in rest:
                put(frame)
                count += 1
        finally:
            close()

    write_whole(path, encode)
    return count


_Writer = tuple[Callable[[Frame], None], Callable[[], None]]


def _encoder(program: str) -> list[str]:
    """The options for the best encoder of H.264 that an ffmpeg lists; none where it lists others alone."""
    told = _told(program, "-encoders")
    known = [options for options in _H264 if f" {options[1]} " in told]
    return known[0] if known else [] if told else _H264[0]


def _told(program: str, *asked: str) -> str:
    told = subprocess.run([program, "-hide_banner", *asked], stdin=subprocess.DEVNULL, capture_output=True)
    return told.stdout.decode(errors="replace")


def _from_first_frame(program: str, video: Path) -> list[str]:
    """The option that leaves out of a video's sound what is heard before its first frame, which is at 0 here."""
    one = ["-map", "0:v:0", "-c", "copy", "-frames:v", "1", "-f", "framecrc", "-"]
    told = _told(program, "-loglevel", "error", "-i", f"file:{video}", *one)
    found = re.search(r"^#tb 0: (\d+)/(\d+)$.*^0, *-?\d+, *(\d+),", told, re.M | re.S)
    late = int(found[3]) * int(found[1]) / int(found[2]) if found else 0.0
    return ["-ss", f"{late:.6f}"] if late >= _HEARD else []


def _uneven(program: str) -> str:
    """The option that lets frames keep their times, which ffmpeg 5.1 renamed."""
    told = _told(program, "-version")
    version = re.match(r"ffmpeg version n?(\d+)\.(\d+)", told)
    return "-vsync" if version and (int(version[1]), int(version[2])) < (5, 1) else "-fps_mode"


def _by_ffmpeg(tool: list[str], place: tuple[Path, Path], first: Frame, rate: float, sound: Path | None) -> _Writer:
    """tool: the program and the options for its encoder. place: the name that a person gave, and that to write to."""
    program, *encoder = tool
    name, target = place
    height, width = first.image.shape[:2]
    given = ["-f", "matroska", "-i", "-"]
    more = [*_from_first_frame(program, sound), "-i", f"file:{sound}"] if sound is not None else []
    kept = ["-map", "0:v", "-map", "1:a?", "-c:a", "aac", "-af", "apad", "-shortest"] if sound is not None else []
    even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", *encoder, "-pix_fmt", "yuv420p"]
    ticks = ["-enc_time_base", "1:90000", "-video_track_timescale", "90000"]  # every usual rate is whole in them
    ticks += [_uneven(program), "vfr"]
    command = [program, "-y", "-loglevel", "error", *given, *more, *kept, *even, *ticks, "-movflags", "+faststart"]
    told = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads meanwhile would fill up
    process = subprocess.Popen(
        [*command, "-f", "mp4", str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=told,
        start_new_session=True,  # Ctrl-C is for us alone: what came before it is to be written
    )
    assert process.stdin is not None
    pipe = process.stdin

    count, last = 0, -1.0

    def put(frame: Frame) -> None:
        nonlocal count, last
        image = frame.image
        if image.shape[:2] != (height, width):
            raise _other_size(image, width, height)
        even = count / rate  # times are told in milliseconds, which no steady rate is
        last = max(even if abs(frame.time - even) < 1.5e-3 else frame.time, last + 1e-4)
        try:
            for part in (*(() if count else (matroska.header(width, height, rate),)), *matroska.frame(image, last)):
                pipe.write(part)
        except BrokenPipeError:
            raise WritingError(f"ffmpeg stopped before the end of {name}") from None  # close() tells why
        count += 1

    def close() -> None:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
        code = process.wait()
        with told:
            told.seek(max(0, told.seek(0, os.SEEK_END) - 4096))
            said = told.read().decode(errors="replace").strip()
        if code != 0:
            ended = f"it was ended by signal {-code}" if code < 0 else f"it ended with code {code}"
            raise WritingError(f"ffmpeg could not write {name}: {said.splitlines()[-1] if said else ended}")

    return put, close


def _by_opencv(target: Path, first: Frame, rate: float) -> _Writer:
    import cv2

    check_name(str(target))
    height, width = first.image.shape[:2]
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"mp4v"), rate, (width, height))
    if not writer.isOpened():
        raise WritingError("OpenCV cannot write a video here; install ffmpeg")

    def put(frame: Frame) -> None:
        if frame.image.shape[:2] != (height, width):  # OpenCV would leave it out without a word
            raise _other_size(frame.image, width, height)
        writer.write(np.ascontiguousarray(frame.image[..., ::-1]))

    return put, writer.release


def _other_size(image: np.ndarray, width: int, height: int) -> WritingError:
    return WritingError(f"a frame has {image.shape[1]}x{image.shape[0]} pixels, the first {width}x{height}")
