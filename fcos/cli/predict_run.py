"""What `fcos predict` does once all is settled: images, videos, and any number of images in parts."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
from torch import Tensor

from ..data.ids import images_file
from ..data.open import numbers_of
from ..detections import DRAWN
from ..errors import FcosError, one_line
from ..inference.composite import Composite
from ..inference.detector import Detector
from ..inference.scores import of_classes, reached
from ..inference.stream import run
from ..inference.video import Frame, Reader, called, frame_line, is_video
from ..inference.video_stream import stream
from ..inference.writers import Outcome, Outputs, Writer, unique_names
from ..scale.detector import Work
from ..scale.engine import Engine
from ..scale.job import Order
from ..scale.rows import Form
from ..scale.run import detect_all
from ..show.frames import Painter, VideoFiles, write_frames
from ..system.progress import Bar
from ..system.remote import is_remote, url_of
from ..system.stderr import say
from ..system.terminal import plural
from .common import ended_by_signals


class Listener:
    """Whoever reads standard output. Once nobody does (| head), what is written to files is wanted all the same."""

    def __init__(self) -> None:
        self.gone = False

    def tell(self, line: str, needed: bool) -> None:
        """`needed`: whether the command ends at once where nobody reads, since nothing else comes of it or it has no
        end."""
        try:
            if not self.gone:
                typer.echo(line)
        except BrokenPipeError:
            self.gone = True
        if needed:
            self.check()

    def check(self) -> None:
        """BrokenPipeError where nobody reads any more, which ends the command as it ends others."""
        if self.gone:
            raise BrokenPipeError


@dataclass(frozen=True)
class Detecting:
    """How to detect: the score of each class [C] from which a detection is shown, the least [C] that is looked at,
    images in a pass, whether JSON is printed, and whether some classes only are asked for."""

    detector: Detector | Composite
    scores: Tensor
    least: Tensor
    batch: int
    as_json: bool
    of_some: bool
    listener: Listener


def images(how: Detecting, paths: Sequence[Path], outputs: Outputs, data: Path | None) -> bool:
    """Detect in images, a line for each, and write what `outputs` says, with the ids of `data`. Whether some could not
    be read."""
    writer = Writer(outputs, paths, how.detector.classes, numbers_of(data) if data is not None else None)
    outcome = Outcome()
    wide = min(48, max((len(one_line(url_of(p))) for p in paths), default=0))
    # for COCO results what falls below the limit is counted
    detected = run(how.detector, paths, how.least if outputs.coco is not None else how.scores, how.batch)
    began = time.perf_counter()
    with writer.kept():
        for number, (path, image, seen) in enumerate(detected):
            if isinstance(seen, FcosError):
                outcome.broken.append(str(seen))
                say(str(seen))
                continue
            shown = reached(seen, how.scores)
            writer.add(number, image, shown)
            outcome.images += 1
            outcome.detections += len(shown)
            outcome.dropped += len(seen) - len(shown)
            line = f"{one_line(url_of(path)):<{wide}}  {one_line(shown.summary())}"
            line = json.dumps(shown.to_dict(), ensure_ascii=False) if how.as_json else line
            how.listener.tell(line, needed=outputs.nothing)
            del image, seen, shown  # while the next one is waited for, a large image would be held twice
    if writer.foreign:
        say(f"{outputs.coco} leaves out {plural(writer.foreign, 'detection')} of classes that {data} does not have")
    if line := writer.numbered():
        say(line)
    _tell(outcome, outputs, how.as_json, time.perf_counter() - began, _computed(how.detector))
    limits = how.scores[how.scores <= 1]
    if outcome.images and not outcome.detections and float(limits.max()) > 0.1:
        what = f"{limits.min():.2g} or more" if len(limits.unique()) == 1 else "as much as is asked for"
        of = "of these classes " if how.of_some else ""
        say(f"nothing {of}scores {what}; to see weaker detections: --score 0.1")
    return bool(outcome.broken)


def videos(how: Detecting, sources: Sequence[str], every: int, folder: Path | None, more: bool) -> bool:
    """Detect in each Nth frame of videos, one after the other; the files of each lie in `folder`. Whether one broke
    off. A signal that ends a live source ends the command where something would follow: a source, or `more`."""
    broken: list[bool] = []
    for source, name in zip(sources, unique_names([Path(f"{called(source)}.mp4") for source in sources]), strict=True):
        broke_off, signal = _video(how, source, every, None if folder is None else folder / name)
        broken.append(broke_off)
        if signal and (len(broken) < len(sources) or more):
            sys.exit(128 + signal)
    return any(broken)


def _video(how: Detecting, source: str, every: int, out: Path | None) -> tuple[bool, int]:
    """Detect in each Nth frame of a video: a drawn one and JSON lines, `out` with a suffix each. Whether it broke off,
    and the signal that ended a live source, 0 for none."""
    with Reader(source) as reader, Bar(called(source), reader.info.frames or None, "frames") as bar:
        sound = Path(source) if not reader.info.live and not is_remote(source) else None
        files = VideoFiles() if out is None else VideoFiles(Path(f"{out}.mp4"), Path(f"{out}.jsonl"), None, sound)

        def shown() -> Iterator[Frame]:
            lowest = float(how.scores.min().clamp(max=1))
            seen = stream(how.detector, reader, every=every, batch=how.batch, score=lowest)
            yield from of_classes(seen, how.scores)

        def each(frame: Frame) -> None:
            bar.advance()
            if how.as_json and frame.detections is not None:
                how.listener.tell(frame_line(frame, source), needed=out is None or reader.info.live)

        with ended_by_signals(reader) as signals:
            outcome = write_frames(shown(), reader.info, files, Painter(), each)
    written = [str(file) for file in (None if outcome.undrawn else files.drawn, files.lines) if file is not None]
    where = f"; written: {', '.join(written)}" if written else ""
    boxes, frames = plural(outcome.detections, "detection"), plural(outcome.detected, "frame")
    typer.echo(f"{one_line(source)}: {boxes} in {frames}{where}", err=how.as_json)
    if reader.broken:
        say(reader.broken)
    return bool(reader.broken or outcome.undrawn), signals.number


def in_parts(things: list[str], out: Path | None, parts: str, resume: bool, work: Work, engine: Engine) -> None:
    """Detect in any number of images, on any number of machines, and write rows; ends with 1 where some failed."""
    if out is None:
        raise FcosError("--engine writes rows in parts; name their folder with --out")
    if parts not in ("parquet", "jsonl"):
        raise FcosError(f"--parts {parts!r}: write parquet or jsonl")
    moving = [thing for thing in things if is_video(thing)]
    if moving:
        raise FcosError(f"{moving[0]}: --engine is for images; leave it out for a video")
    form: Form = "jsonl" if parts == "jsonl" else "parquet"
    outcome = detect_all(Order(out, tuple(things), form, resume=resume), work, engine, say)
    total, now = outcome.whole, outcome.now
    rate = now.images / max(outcome.seconds, 1e-9)
    found = f"{plural(total.detections, 'detection')} in {plural(total.images, 'image')}"
    earlier = f", {total.images - now.images:,} of them done before" if total.images > now.images else ""
    say(f"{found}{earlier}: {url_of(out / 'parts')}; {rate:.1f} images a second")
    if total.failed:
        say(f"{plural(total.failed, 'image')} could not be read; their rows have the error")
        sys.exit(1)


def _computed(detector: Detector | Composite) -> str:
    """In what the images were computed, such as "torch fp32, then openvino fp32"."""
    first, last = detector.placement, detector.running
    names = [f"{place.runtime} {place.dtype}" for place in (first, last)]
    return ", then ".join(dict.fromkeys(names))


def _tell(outcome: Outcome, outputs: Outputs, as_json: bool, seconds: float, how: str) -> None:
    if not as_json and (outcome.images or outcome.detections):
        drawn = outputs.file or outputs.folder
        how_so = "drawn in" if outputs.file is None or outputs.file.suffix.lower() in DRAWN else "written to"
        where = f", {how_so} {drawn}" if drawn is not None and outcome.images else ""
        where += f", table: {outputs.csv}" if outputs.csv is not None and outcome.images else ""
        rate = outcome.images / max(seconds, 1e-9)
        found = f"{plural(outcome.detections, 'detection')} in {plural(outcome.images, 'image')}"
        typer.echo(f"{found}{where}; {rate:.1f} images a second, {how}", err=True)
    if outputs.coco is not None:
        say(f"{outputs.coco}: the ids of the images are in {images_file(outputs.coco)}")
        if outcome.dropped:
            say(
                f"{outputs.coco} leaves out {plural(outcome.dropped, 'detection')} below the lowest score shown; "
                "to judge the model by it write all: --score 0"
            )
