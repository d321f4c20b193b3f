"""Sheets of images for the card of a model: what it does well, and where it fails."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.classes import match_classes
from ..data.dataset import Dataset
from ..data.images.reading import read_image
from ..data.records import Record, evenly
from ..evaluation.metrics import match_image
from ..inference.detector import Detector
from ..inference.load import load
from ..types import Classes, Detections
from .draw import Marks, draw_cell, sheet
from .judged import save_image

_ON_A_SHEET = 4
_CELL = 480  # pixels of an image on it
_LOOKED_AT = 200  # images at most
IOU = 0.5
GREEN, RED, ORANGE = (60, 170, 75), (225, 50, 50), (245, 150, 30)


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
    """Detections of one annotated image: green where they meet an object (IoU >= 0.5, same class), red where not;
    missed objects orange. Boxes to ignore excuse what lies on them."""
    pixels = read_image(str(record.path))
    detections = detector(pixels, score=score)
    mapping = match_classes(detector.classes, classes, allow_missing=True)
    hit, used = match(detections, record, mapping)
    excused = hit < 0
    kept = detections[~excused]
    texts = [f"{kept.name(i)} {kept.scores[i]:.2f}" for i in range(len(kept))]
    colors = [GREEN if h > 0 else RED for h in hit[~excused]]
    missed = ~used & ~record.ignore
    missed &= np.isin(record.labels, mapping)  # what the model does not know it cannot miss
    texts += [classes.names[label] for label in record.labels[missed]]
    boxes = np.concatenate([kept.boxes.numpy(), record.boxes[missed]])
    colors += [ORANGE] * int(missed.sum())
    drawn = draw_cell(pixels, Marks(boxes, range(len(texts)), texts, colors=colors), _CELL)
    alarms = int((hit == 0).sum())
    return Shown(Path(record.file_name).stem, drawn, int((hit > 0).sum()), int(missed.sum()), alarms)


def match(detections: Detections, record: Record, mapping: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(for each detection: 1 hit, 0 false, -1 on a box to ignore; for each object: found or not), by COCO's rule."""
    boxes, scores, labels = (value.cpu().numpy() for value in (detections.boxes, detections.scores, detections.labels))
    taken = match_image((boxes, scores, mapping[labels]), (record.boxes, record.labels, record.ignore), IOU)
    used = np.isin(np.arange(len(record.boxes)), taken) & ~record.ignore
    hit = np.where(taken < 0, 0, np.where(record.ignore[taken], -1, 1)) if len(record.boxes) else 0 * taken
    return hit, used


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
        marks = "Green: right; red: false; orange: missed" if kind == "bad" else "Everything found, nothing false"
        written.append((path.name, f"{marks} (score >= {score:g}, IoU >= {IOU:g}). {'; '.join(texts)}."))
    return written
