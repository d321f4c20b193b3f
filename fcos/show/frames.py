"""Frames of a video drawn: boxes with names and numbers, the ways of tracked objects, lines and zones with counts; and
what is written of a video while it goes by."""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
from numpy.typing import NDArray

from ..detections import Detections
from ..evaluation.mot import mot_lines
from ..inference.video import Frame, VideoInfo, frame_line
from ..inference.video_writing import WritingError, write_video
from ..system.files import whole, whole_set, write_whole
from ..system.stderr import say
from ..tracking.counting import Line, Zone, foot, keep
from .draw import PALETTE, Marks, draw_boxes

Pixels = NDArray[np.uint8]
_TRAIL = 1.5  # seconds of an object's way that are drawn
_INK = (255, 255, 255)


@dataclass
class Painter:
    """Draws frames in order. Between two frames that were detected in, the boxes of the first stay."""

    lines: Sequence[Line] = ()
    zones: Sequence[Zone] = ()
    _last: Detections | None = None
    _ways: dict[int, deque[tuple[float, tuple[int, int]]]] = field(default_factory=dict)

    def paint(self, frame: Frame) -> Pixels:
        """A copy of the frame with what was found on it."""
        seen = frame.detections
        if seen is not None:
            self._last = seen
            self._go_on(seen, frame.time)
        drawn = np.ascontiguousarray(frame.image).copy()
        width = max(1, round(max(drawn.shape[:2]) / 400))
        for line in self.lines:
            cv2.line(drawn, _whole(line.start), _whole(line.end), _INK, 2 * width, cv2.LINE_AA)
        for zone in self.zones:
            cv2.polylines(
                drawn, [np.array([_whole(c) for c in zone.corners], np.int32)], True, _INK, width, cv2.LINE_AA
            )
        for number, way in self._ways.items():
            points = np.array([p for at, p in way if frame.time - at <= _TRAIL], np.int32)
            if len(points) > 1:
                cv2.polylines(drawn, [points], False, _color(number), 2 * width, cv2.LINE_AA)
        if self._last is not None and len(self._last):
            drawn = self._boxes(drawn, self._last)
        for line in self.lines:  # over the names of objects
            _say(drawn, f"in {line.entered.total()}  out {line.left.total()}", _whole(line.start), width)
        for zone in self.zones:
            _say(drawn, f"{zone.inside} inside", _whole(zone.corners[0]), width)
        return drawn

    def _boxes(self, drawn: Pixels, seen: Detections) -> Pixels:
        here = seen.to("cpu")
        if here.track_ids is None:
            return draw_boxes(drawn, Marks(here.boxes, here.labels, here.names, here.scores))
        known = here[here.track_ids >= 0]
        assert known.track_ids is not None
        numbers = known.track_ids.tolist()
        names = [f"{known.name(i)} {number}" for i, number in enumerate(numbers)]
        return draw_boxes(drawn, Marks(known.boxes, range(len(names)), names, colors=[_color(n) for n in numbers]))

    def _go_on(self, seen: Detections, time: float) -> None:
        if seen.track_ids is None:
            return
        for number, box in zip(seen.track_ids.tolist(), seen.boxes.tolist(), strict=True):
            if number >= 0:
                x, y = foot(np.array(box))
                self._ways.setdefault(number, deque(maxlen=200)).append((time, (round(x), round(y))))
        for number in [n for n, way in self._ways.items() if time - way[-1][0] > _TRAIL]:
            del self._ways[number]


def _color(number: int) -> tuple[int, int, int]:
    return PALETTE[number % len(PALETTE)]


def _whole(point: tuple[float, float]) -> tuple[int, int]:
    return round(point[0]), round(point[1])


def _say(image: Pixels, text: str, at: tuple[int, int], width: int) -> None:
    size = 0.45 * max(1, width)
    (wide, high), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, max(1, width))
    x = min(max(at[0], 2), max(2, image.shape[1] - wide - 4))
    y = min(max(at[1] + high + 6, high + 4), image.shape[0] - 4)
    cv2.rectangle(image, (x - 3, y - high - 4), (x + wide + 3, y + 5), (0, 0, 0), -1)
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, _INK, max(1, width), cv2.LINE_AA)


@dataclass(frozen=True)
class VideoFiles:
    """What is written of a video; None is left out. drawn: .mp4. lines: JSON lines, one a frame. mot: MOTChallenge txt
    of tracks. sound: the video whose sound goes into `drawn`. counts: JSON of what crossed lines and entered zones."""

    drawn: Path | None = None
    lines: Path | None = None
    mot: Path | None = None
    sound: Path | None = None
    counts: Path | None = None


@dataclass
class VideoOutcome:
    """Frames that were read and detected in, detections, and the objects that were followed: those seen last, class by
    number, and how many `earlier` of each class. undrawn: why there is no drawn video, where there should be one."""

    frames: int = 0
    detected: int = 0
    detections: int = 0
    objects: dict[int, str] = field(default_factory=dict)
    earlier: Counter[str] = field(default_factory=Counter)
    undrawn: str = ""

    @property
    def followed(self) -> int:
        """How many objects were followed."""
        return self.earlier.total() + len(self.objects)

    def classes(self) -> str:
        """How many objects of each class were followed: "2 dog, 1 sheep"."""
        return ", ".join(
            f"{count} {name}" for name, count in (self.earlier + Counter(self.objects.values())).most_common()
        )


def write_frames(
    frames: Iterable[Frame],
    info: VideoInfo,
    files: VideoFiles,
    painter: Painter,
    each: Callable[[Frame], None] = lambda frame: None,
) -> VideoOutcome:
    """Write what `files` asks for while the frames go by, and count; `each` is called with every frame. All files are
    there at the end, and none where an error ended it; but where only the drawn video cannot be written, the others
    are. Memory does not grow with the length."""
    outcome = VideoOutcome()
    with whole_set(), _text(files.lines) as lines, _text(files.mot) as mot:

        def pass_by() -> Iterator[Frame]:
            for frame in frames:
                _count(frame, painter, outcome)
                if frame.detections is not None:
                    lines.write(frame_line(frame) + "\n")
                    mot.write(_mot_rows(frame))
                each(frame)
                yield frame

        passing = pass_by()
        if files.drawn is not None:
            drawn = (replace(frame, image=painter.paint(frame)) for frame in passing)
            try:
                write_video(files.drawn, drawn, info.rate, sound=files.sound, say=say)
            except WritingError as error:
                outcome.undrawn = str(error)
                say(f"{error}; going on without a drawn video")
        for _ in passing:
            pass
        if files.counts is not None:
            write_whole(files.counts, json.dumps(_counts(painter), ensure_ascii=False, indent=1) + "\n")
    return outcome


def _counts(painter: Painter) -> dict[str, list[dict[str, Any]]]:
    """What a painter's lines and zones have counted, by class."""

    def told(counter: Line | Zone) -> dict[str, Any]:
        return {"in": dict(counter.entered), "out": dict(counter.left)}

    lines = [{"line": [*line.start, *line.end], **told(line)} for line in painter.lines]
    zones = [{"zone": [v for c in z.corners for v in c], **told(z), "inside": z.inside} for z in painter.zones]
    return {"lines": lines, "zones": zones}


def _count(frame: Frame, painter: Painter, outcome: VideoOutcome) -> None:
    outcome.frames += 1
    seen = frame.detections
    if seen is None:
        return
    outcome.detected += 1
    outcome.detections += len(seen)
    if seen.track_ids is not None:
        known = seen[seen.track_ids >= 0]
        numbers = known.track_ids.tolist() if known.track_ids is not None else []
        names = [known.name(i) for i in range(len(known))]
        for number, name in zip(numbers, names, strict=True):
            gone = keep(outcome.objects, number, name)
            if gone is not None:
                outcome.earlier[gone[1]] += 1
        counters: list[Line | Zone] = [*painter.lines, *painter.zones]
        for counter in counters:
            counter.update(numbers, names, known.boxes.double().numpy())


def _mot_rows(frame: Frame) -> str:
    seen = frame.detections
    if seen is None or seen.track_ids is None:
        return ""
    known = seen[seen.track_ids >= 0]
    assert known.track_ids is not None
    rows = (known.track_ids.numpy(), known.boxes.double().numpy(), known.scores.double().numpy())
    return mot_lines([rows], first=frame.index + 1)


@contextmanager
def _text(path: Path | None) -> Iterator[TextIO]:
    """A text file that is written whole or not at all; without a path what is written goes nowhere."""
    if path is None:
        with open(os.devnull, "w", encoding="utf-8") as nothing:
            yield nothing
        return
    with whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield file
