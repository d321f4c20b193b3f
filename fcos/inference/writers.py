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
            drawn = found.draw(image)
            target = self.out / Path(name).with_suffix(".jpg" if path.suffix.lower() != ".png" else ".png")
            write_whole(target, lambda p: drawn.save(p, quality=92))
        if self.yolo is not None:
            write_whole(self.yolo / Path(name).with_suffix(".txt"), found.to_yolo())

    def close(self) -> None:
        """Wait for what is still being written; FcosError when that fails."""
        with self._pool:
            while self._pending:
                self._pending.popleft().result()
        if self.coco is not None:
            write_whole(self.coco, json.dumps(self._rows))
