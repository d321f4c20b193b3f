"""What `fcos track` does once all is settled: what is counted, the files of the video, what is told at its end."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import typer
from torch import Tensor

from ..inference.composite import Composite
from ..inference.detector import Detector
from ..inference.scores import only
from ..inference.video import Frame, Reader, called, frame_line
from ..show.frames import Painter, VideoFiles, VideoOutcome, write_frames
from ..system.progress import Bar
from ..system.terminal import plural, table
from ..tracking.counting import Line, Zone, parse_line, parse_zone
from .common import ended_by_signals


@dataclass(frozen=True)
class Counters:
    """The lines and zones that objects are counted at, each with the words that it was given in."""

    lines: list[tuple[str, Line]]
    zones: list[tuple[str, Zone]]

    @property
    def any(self) -> bool:
        """Whether anything is counted."""
        return bool(self.lines or self.zones)

    def text(self) -> list[str]:
        """A table for each: how many of which class went in and out."""
        lines = [_counted(f"line {text}", line) for text, line in self.lines]
        return lines + [_counted(f"zone {text}", zone) for text, zone in self.zones]


def parse_counters(lines: Sequence[str], zones: Sequence[str], margin: float) -> Counters:
    """The lines and zones of --count-line and --zone; FcosError for other words."""
    return Counters(
        [(text, parse_line(text, margin)) for text in lines], [(text, parse_zone(text, margin)) for text in zones]
    )


def looked_at(detector: Detector | Composite, low: float, classes: str | None) -> Tensor:
    """The least score [C] of each class that is followed: `low`, and none of the classes that --classes leaves out."""
    least = torch.full((len(detector.classes),), low)
    return least if classes is None else only(least, classes, detector.classes)


def files_in(out: Path, source: str, *, draw: bool, counts: bool) -> VideoFiles:
    """The files that a video gets in `out`, with its sound where it is drawn."""
    name = called(source)
    return VideoFiles(
        out / f"{name}.mp4" if draw else None,
        out / f"{name}.jsonl",
        out / f"{name}.txt",
        Path(source) if draw and os.path.isfile(source) else None,
        out / f"{name}.counts.json" if counts else None,
    )


def write(
    frames: Iterable[Frame], reader: Reader, files: VideoFiles, counters: Counters, as_json: bool
) -> VideoOutcome:
    """Let the frames go by, count and write; with a JSON line for each if `as_json`."""
    painter = Painter([line for _, line in counters.lines], [zone for _, zone in counters.zones])
    with Bar("tracking", reader.info.frames or None, "frames") as bar:

        def each(frame: Frame) -> None:
            bar.advance()
            if as_json and frame.detections is not None:
                typer.echo(frame_line(frame))

        with ended_by_signals(reader):
            return write_frames(frames, reader.info, files, painter, each)


def tell(outcome: VideoOutcome, files: VideoFiles, counters: Counters, as_json: bool) -> None:
    """Print how many objects were seen and counted, and what was written."""
    objects, frames_read = plural(outcome.followed, "object"), plural(outcome.frames, "frame")
    classes_seen = f" ({outcome.classes()})" if outcome.objects else ""
    drawn = None if outcome.undrawn else files.drawn
    written = [p for p in (drawn, files.lines, files.mot, files.counts) if p is not None]
    lines = [
        f"{objects}{classes_seen} in {frames_read}, detected in {outcome.detected}",
        *counters.text(),
        f"written: {', '.join(str(p) for p in written)}",
    ]
    for line in lines:
        typer.echo(line, err=as_json)


def _counted(title: str, counter: Line | Zone) -> str:
    entered, left = counter.entered, counter.left
    names = sorted({*entered, *left})
    rows = [(name, entered.get(name, 0), left.get(name, 0)) for name in names]
    total = ("all", sum(entered.values()), sum(left.values()))
    return f"\n{title}\n" + table(("class", "in", "out"), [*rows, total])
