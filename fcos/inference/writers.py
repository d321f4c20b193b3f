"""What detections become: lines, YOLO txt, COCO results, annotated pictures."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_whole
from ..types import Detections
from .stream import _AHEAD


@dataclass
class Outcome:
    """What a prediction run did."""

    images: int = 0
    detections: int = 0
    broken: list[str] = field(default_factory=list)  # one line each


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


def unique_names(images: Sequence[Path]) -> list[str]:
    """A file name for each picture, without folders, none twice."""
    taken: Counter[str] = Counter()
    names = []
    for path in images:
        taken[path.name.lower()] += 1
        number = taken[path.name.lower()]
        names.append(path.name if number == 1 else f"{path.stem}-{number}{path.suffix}")
    return names


class Writer:
    """Writes annotated pictures, YOLO txt and COCO results as the detections come in, while the network goes on."""

    def __init__(self, out: Path | None, yolo: Path | None, coco: Path | None, ids: Sequence[int]) -> None:
        self.out, self.yolo, self.coco, self.ids = out, yolo, coco, ids
        self._rows: list[dict[str, Any]] = []
        self._images: list[dict[str, Any]] = []
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._pending: deque[Future[None]] = deque()

    def add(self, name: str, path: Path, image: np.ndarray, found: Detections) -> None:
        """Take one picture's detections; FcosError when an earlier one could not be written."""
        if self.coco is not None:
            number = int(path.stem) if path.stem.isdigit() else len(self._images) + 1
            self._images.append({"id": number, "file_name": str(path)})
            self._rows += found.to_coco(number, self.ids)
        self._pending.append(self._pool.submit(self._write, name, path, image, found))
        if len(self._pending) > _AHEAD:
            self._pending.popleft().result()

    def _write(self, name: str, path: Path, image: np.ndarray, found: Detections) -> None:
        if self.out is not None:
            drawn = found.draw(image, score=0.0)
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
