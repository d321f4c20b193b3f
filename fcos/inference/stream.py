"""Detect in many pictures: find the sources, run the detector, write what was asked for."""

from __future__ import annotations

import difflib
import glob
import json
import os
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.image import SUFFIXES, read_image
from ..errors import DataError, FcosError, ImageError
from ..files import cpu_cores, write_whole
from ..types import Classes, Detections, Predictions
from .detector import Detector

_Reading = tuple[Path, Future[np.ndarray]]
_Found = tuple[Path, np.ndarray, Detections | ImageError]  # pixels, and what is in them
_AHEAD = 4  # pictures decoded while the network works
_LANES = 4  # more take memory for little


@dataclass
class Outcome:
    """What a prediction run did."""

    pictures: int = 0
    detections: int = 0
    broken: list[str] = field(default_factory=list)  # one line each


def find_pictures(sources: Sequence[str], stdin: Iterable[str] | None = None, out: Path | None = None) -> list[Path]:
    """Pictures behind paths, folders (searched deeply), globs, and "-" (paths on standard input).

    Order is kept and doubles are dropped. What lies in `out`, a folder inside the one that is searched, was
    written by an earlier run and is left out. Raises DataError for a source that leads nowhere.
    """
    found: dict[Path, None] = {}
    for source in sources:
        if source == "-":
            lines = (line.rstrip("\n") for line in (stdin if stdin is not None else sys.stdin))
            found.update((Path(line), None) for line in lines if line.strip())
            continue
        if not source.strip():
            raise DataError("an empty name was given for a picture or folder; for this folder write .")
        path = Path(source).expanduser()
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if out is not None and path.resolve() in out.resolve().parents:
                inside = [p for p in inside if out.resolve() not in p.resolve().parents]
            if not inside:
                raise DataError(f"{source} holds no pictures ({', '.join(sorted(SUFFIXES)[:4])} ...)")
            found.update((p, None) for p in inside)
        elif path.exists():
            found[path] = None
        elif glob.has_magic(source):
            matches = sorted(glob.glob(os.path.expanduser(source), recursive=True))
            if not matches:
                raise DataError(f"no file matches {source}")
            found.update((Path(m), None) for m in matches if not Path(m).is_dir())
        else:
            raise DataError(f"there is no picture or folder {source}")
    return list(found)


def parse_scores(text: str, classes: Classes, default: float = 0.5) -> Tensor:
    """The lowest score shown of each class [C], from "0.4", "person=0.5,dog=0.2", "0.4,person=0.5" or the
    path of a JSON file {"person": 0.5}; classes that are not named have the bare number, else `default`.

    Raises FcosError for an unknown class, a score outside 0..1 and a file that cannot be read.
    """
    if text.lower().endswith(".json"):
        try:
            named = json.loads(Path(text).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise FcosError(f"--score: cannot read {text}: {reason}") from error
        if not isinstance(named, dict):
            raise FcosError(f'--score: {text} must hold {{"class": score}}, not a {type(named).__name__}')
    else:
        named = {}
        for part in text.split(","):
            name, equals, value = part.rpartition("=")
            named[name.strip() if equals else ""] = value
    scores = {}
    for name, value in named.items():
        if name and name not in classes.names:
            near = difflib.get_close_matches(name, classes.names, 1)
            known = f"did you mean {near[0]}?" if near else f"there are {', '.join(classes.names[:10])}"
            raise FcosError(f"--score: the model has no class {name!r}; {known}")
        try:
            scores[name] = float(value)
        except (TypeError, ValueError):
            scores[name] = -1.0
        if not 0 <= scores[name] <= 1:
            of = f" of {name}" if name else ""
            raise FcosError(f"--score: {value!r}{of} is no score in 0..1; write 0.4, person=0.5,dog=0.2 or FILE.json")
    other = scores.get("", default)
    return torch.tensor([scores.get(name, other) for name in classes.names], dtype=torch.float32)


def proposer(detector: Detector, most: int = 1000) -> Detector:
    """The same network as a source of proposals (1904.01355, section 5: in place of an RPN): each location
    gives one box with the score of its most probable class and its centerness, NMS takes all boxes for one
    class, and the `most` best stay, whatever their score. Its one class, "object", has the id of the
    detector's first, so that results fit data with those ids."""
    network = detector.network

    def highest(images: Tensor) -> Predictions:
        found = network(images)
        return found._replace(logits=found.logits.amax(dim=-1, keepdim=True))

    cfg = detector.config.decode
    changes = {"threshold": 0.0, "nms": "agnostic", "max_detections": most, "topk": max(most, cfg.topk)}
    config = detector.config.override({"decode": changes})
    classes = Classes(("object",), detector.classes.ids[:1])
    return Detector(
        highest, config, classes, detector.device,
        runtime=detector.runtime, precision=detector.precision, lanes=detector.lanes, threads=detector.threads,
    )  # fmt: skip


def pick_lanes(pictures: int, batch: int, threads: int) -> int:
    """How many of so many pictures to detect at once on a CPU with `threads` threads (0: all cores)."""
    return max(1, min(_LANES, threads or cpu_cores(), pictures // 4)) if batch == 1 else 1


def run(detector: Detector, pictures: Sequence[Path], scores: Tensor, batch: int = 1) -> Iterator[_Found]:
    """(path, pixels, detections or the error) of each picture, in order. Decoding runs ahead of the network, the
    network ahead of the caller, `detector.lanes` pictures at once.

    scores [C]: the lowest score of each class. `batch` pictures go to the network together.
    """

    def prepare() -> None:
        if detector.threads:  # torch counts them for each thread
            torch.set_num_threads(detector.threads)

    lanes = detector.lanes
    with ThreadPoolExecutor(max_workers=2) as readers, ThreadPoolExecutor(lanes, initializer=prepare) as workers:
        reading: deque[_Reading] = deque()
        detecting: deque[Future[list[_Found]]] = deque()
        rest = iter(pictures)
        try:
            while True:
                ahead = batch + _AHEAD - len(reading)
                reading.extend((path, readers.submit(read_image, path)) for path in islice(rest, ahead))
                if reading:
                    part = [reading.popleft() for _ in range(min(batch, len(reading)))]
                    detecting.append(workers.submit(_detect, detector, part, scores))
                if not detecting:
                    return
                if len(detecting) > lanes or not reading:
                    yield from detecting.popleft().result()
        finally:  # the caller may stop early
            for group in detecting:
                group.cancel()
            for _, picture in reading:
                picture.cancel()


def _detect(detector: Detector, part: Sequence[_Reading], scores: Tensor) -> list[_Found]:
    images: list[np.ndarray] = []
    errors: dict[int, ImageError] = {}
    for place, (_, future) in enumerate(part):
        try:
            images.append(future.result())
        except ImageError as error:
            errors[place] = error
    names = [str(path) for place, (path, _) in enumerate(part) if place not in errors]
    found = iter(zip(images, detector.detect(images, names, float(scores.min()), len(part)), strict=True))
    results: list[_Found] = []
    for place, (path, _) in enumerate(part):
        if place in errors:
            results.append((path, np.zeros((0, 0, 3), np.uint8), errors[place]))
        else:
            image, one = next(found)
            results.append((path, image, one[one.scores >= scores[one.labels]]))
    return results


def json_line(path: Path, found: Detections) -> str:
    """One JSON object: file, size and detections with boxes xyxy in pixels."""
    height, width = found.size or (0, 0)
    rows = [
        {
            "label": found.name(i),
            "class": int(found.labels[i]),
            "score": round(float(found.scores[i]), 4),
            "box": [round(v, 2) for v in found.boxes[i].tolist()],
        }
        for i in range(len(found))
    ]
    return json.dumps({"file": str(path), "width": width, "height": height, "detections": rows}, ensure_ascii=False)


def yolo_lines(found: Detections) -> str:
    """YOLO txt with scores: class, centre x, centre y, width, height in 0..1, score."""
    height, width = found.size or (1, 1)
    lines = []
    for (x1, y1, x2, y2), label, score in zip(
        found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
    ):
        values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height, score)
        lines.append(f"{label} " + " ".join(f"{v:.6f}" for v in values))
    return "\n".join(lines) + ("\n" if lines else "")


def headline(found: Detections) -> str:
    """Such as `2 person, 1 dog`."""
    counts = Counter(found.name(i) for i in range(len(found)))
    return ", ".join(f"{n} {name}" for name, n in counts.most_common()) or "nothing"


def unique_names(pictures: Sequence[Path]) -> list[str]:
    """A file name for each picture, without folders, none twice."""
    taken: Counter[str] = Counter()
    names = []
    for path in pictures:
        taken[path.name.lower()] += 1
        number = taken[path.name.lower()]
        names.append(path.name if number == 1 else f"{path.stem}-{number}{path.suffix}")
    return names


class Writer:
    """Writes annotated pictures, YOLO txt and COCO results as the detections come in, while the network goes on."""

    def __init__(self, out: Path | None, yolo: Path | None, coco: Path | None, ids: Sequence[int]) -> None:
        self.out, self.yolo, self.coco, self.ids = out, yolo, coco, ids
        self._rows: list[dict[str, Any]] = []
        self._pictures: list[dict[str, Any]] = []
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._pending: deque[Future[None]] = deque()

    def add(self, name: str, path: Path, image: np.ndarray, found: Detections) -> None:
        """Take one picture's detections; FcosError when an earlier one could not be written."""
        if self.coco is not None:
            number = int(path.stem) if path.stem.isdigit() else len(self._pictures) + 1
            self._pictures.append({"id": number, "file_name": str(path)})
            self._rows += found.to_coco(number, self.ids)
        self._pending.append(self._pool.submit(self._write, name, path, image, found))
        if len(self._pending) > _AHEAD:
            self._pending.popleft().result()

    def _write(self, name: str, path: Path, image: np.ndarray, found: Detections) -> None:
        if self.out is not None:
            from ..show.draw import draw_detections

            drawn = draw_detections(image, found, score=0.0)
            target = self.out / Path(name).with_suffix(".jpg" if path.suffix.lower() != ".png" else ".png")
            write_whole(target, lambda p: drawn.save(p, quality=92))
        if self.yolo is not None:
            write_whole(self.yolo / Path(name).with_suffix(".txt"), yolo_lines(found))

    def close(self) -> None:
        """Wait for what is still being written; FcosError when that fails."""
        with self._pool:
            while self._pending:
                self._pending.popleft().result()
        if self.coco is not None:
            write_whole(self.coco, json.dumps(self._rows))
