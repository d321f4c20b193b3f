"""Sheets of images for the card of a model: what it does well, and where it fails."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.classes import match_classes
from ..data.dataset import Dataset
from ..data.images.reading import read_image
from ..data.records import Record, evenly
from ..evaluation.metrics import IOU
from ..inference.detector import Detector
from ..inference.load import load
from ..types import Classes
from .draw import draw_cell, sheet
from .judged import save_image, verdict

_ON_A_SHEET = 4
_CELL = 480  # pixels of an image on it
_LOOKED_AT = 200  # images at most


@dataclass(frozen=True)
class Shown:
    """One image drawn: hits, misses (objects not found) and false alarms, for sorting and captions."""

    name: str
    pixels: np.ndarray
    hits: int
    misses: int
    alarms: int

    @property
    def good(self) -> bool:
        return not self.misses and not self.alarms

    def text(self) -> str:
        wrong = [f"{self.misses} missed"] * bool(self.misses) + [f"{self.alarms} false"] * bool(self.alarms)
        return f"{self.name}: {', '.join([f'{self.hits} found', *wrong])}"


def show(detector: Detector, record: Record, classes: Classes, score: float) -> Shown:
    """Detections of one annotated image beside its objects, in the colours of `verdict`."""
    pixels = read_image(str(record.path))
    mapping = match_classes(detector.classes, classes, allow_missing=True)
    judged = verdict(detector(pixels, score=score), record, classes.names, mapping)
    drawn = draw_cell(pixels, judged.marks, _CELL)
    return Shown(Path(record.file_name).stem, drawn, judged.hits, judged.misses, judged.alarms)


def draw_sheets(model: str | Path, dataset: Dataset, out: Path) -> list[tuple[str, str]]:
    """Write OUT-good.jpg and OUT-bad.jpg, up to four images of an annotated data set each; (file name, caption)
    of those there are. Bad images are those with most misses and false alarms among detections that the model shows.
    Of many images some are looked at, spread over the data set."""
    detector = load(model, runtime="own", device="cpu")
    score = detector.shown
    records = [r for r in dataset.records if r.path is not None]
    shown = [show(detector, records[i], dataset.classes, score) for i in evenly(len(records), _LOOKED_AT)]
    good = sorted((s for s in shown if s.good and s.hits), key=lambda s: -s.hits)[:_ON_A_SHEET]
    bad = sorted((s for s in shown if not s.good), key=lambda s: -(s.misses + s.alarms))[:_ON_A_SHEET]
    written = []
    for kind, chosen in (("good", good), ("bad", bad)):
        if not chosen:
            continue
        path = out.with_name(f"{out.stem}-{kind}.jpg")
        texts = [s.text() for s in chosen]
        save_image(path, sheet([s.pixels for s in chosen], columns=min(2, len(chosen)), titles=texts, cell=_CELL))
        told = "Green: right; red: false; orange, dashed: missed"
        marks = told if kind == "bad" else "Everything found, nothing false"
        written.append((path.name, f"{marks} (score >= {score:g}, IoU >= {IOU:g}). {'; '.join(texts)}."))
    return written
