"""Known errors put into a copy of a record's annotations: what the ranking is measured by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..data.dataset import Dataset
from ..data.records import Record
from ..overlap import pairwise_iou

MISSING, CLASS, SHIFTED, SPURIOUS, DUPLICATE = "missing", "class", "shifted", "spurious", "duplicate"
SHARE = 0.05  # of the boxes that are spoiled in each of the kinds
ROUNDS = 12  # spoiled copies: the more, the better is the order learned
KINDS = (MISSING, CLASS, SHIFTED, SPURIOUS, DUPLICATE)


@dataclass(frozen=True)
class Spoiled:
    """A record with known errors: `kinds` [G'] the error of each box of `record`, '' for none; `lost` [L,4] and
    `lost_labels` [L] the boxes that were taken out."""

    record: Record
    kinds: tuple[str, ...]
    lost: np.ndarray
    lost_labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Copy:
    """A data set into which errors were put, record by record as it is asked for: errors [G] int8 the number of the
    kind of each of its boxes, 0 for none; shapes [S,2] (width, height) of boxes that may be put in; known [K]: labels
    that may be changed and given, rising."""

    dataset: Dataset
    errors: np.ndarray
    shapes: np.ndarray
    known: np.ndarray
    seed: int

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Spoiled:
        starts = self.dataset.packed.table.starts
        kinds = self.errors[starts[index] : starts[index + 1]].tolist()
        errors = [(row, KINDS[kind - 1]) for row, kind in enumerate(kinds) if kind]
        rng = np.random.default_rng([self.seed, index])
        return _spoil(self.dataset.records[index], errors, self.shapes, self.known, rng)

    def __iter__(self) -> Iterator[Spoiled]:
        return map(self.__getitem__, range(len(self)))


def spoil(dataset: Dataset, share: float = SHARE, seed: int = 0, known: np.ndarray | None = None) -> Copy:
    """`dataset` with `share` (0..1) of its boxes spoiled in each of the kinds, no box twice.

    Ignored boxes are left as they are, and those of classes that are not `known` [C] bool (None: all are): nobody could
    see what is wrong with them. A class is changed into any other known one with equal chance. A shifted box
    has an IoU of 0.4 to 0.7 with what it was, by moving, growing or shrinking. A box too many has the shape of
    another box of the set at a place where it meets no box by more than 0.2. A duplicate has an IoU of 0.6 to 0.9.
    """
    table = dataset.packed.table
    labels = np.arange(len(dataset.classes)) if known is None else np.flatnonzero(known)
    solid = np.flatnonzero(~table.ignore & np.isin(table.labels, labels))
    # of a small set a few more, or there is nothing to learn from
    number = max(round(share * len(solid)), min(4, len(solid) // 10), 1) if len(solid) else 0
    order = np.random.default_rng(seed).permutation(solid)
    errors = np.zeros(len(table.labels), np.int8)
    at = 0
    for kind, name in enumerate(KINDS, 1):
        if name == CLASS and len(labels) < 2:
            continue
        errors[order[at : at + number]] = kind
        at += number
    return Copy(dataset, errors, table.boxes[solid, 2:] - table.boxes[solid, :2], labels, seed)


def _spoil(
    record: Record, errors: list[tuple[int, str]], shapes: np.ndarray, known: np.ndarray, rng: np.random.Generator
) -> Spoiled:
    """Put errors, each (row, kind), into a copy of a record. `known`: labels that may be changed and given, rising."""
    boxes, labels, ignore = record.boxes.copy(), record.labels.copy(), record.ignore.copy()
    told = [""] * len(boxes)
    gone: list[int] = []
    more: list[tuple[np.ndarray, int, str]] = []
    for j, kind in errors:
        if kind == MISSING:
            gone.append(j)
        elif kind == CLASS:
            place = int(np.searchsorted(known, labels[j]))
            labels[j] = known[(place + 1 + rng.integers(len(known) - 1)) % len(known)]
            told[j] = kind
        elif kind == SHIFTED:
            other = _near(boxes[j], record.size, (0.4, 0.7), rng)
            if other is not None:
                boxes[j], told[j] = other, kind
        elif kind == DUPLICATE:
            other = _near(boxes[j], record.size, (0.6, 0.9), rng)
            if other is not None:
                more.append((other, int(labels[j]), kind))
        else:
            other = _elsewhere(record, shapes, rng)
            if other is not None:
                more.append((other, int(rng.choice(labels[np.isin(labels, known)])), kind))
    stay = np.setdiff1d(np.arange(len(boxes)), gone)
    new = np.array([m[0] for m in more], np.float32).reshape(-1, 4)
    boxes = np.concatenate([boxes[stay], new]).astype(np.float32)
    spoiled = replace(
        record,
        boxes=boxes,
        labels=np.concatenate([labels[stay], np.array([m[1] for m in more], np.int64)]),
        ignore=np.concatenate([ignore[stay], np.zeros(len(more), bool)]),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).astype(np.float64),
        xywh=None,
    )
    kinds = (*(told[j] for j in stay), *(m[2] for m in more))
    return Spoiled(spoiled, kinds, record.boxes[gone], record.labels[gone])


def _near(
    box: np.ndarray, size: tuple[int, int], between: tuple[float, float], rng: np.random.Generator
) -> np.ndarray | None:
    """A box whose IoU with `box` lies in `between`: moved, grown, or one to four sides elsewhere."""
    height, width = size
    extent = np.tile(box[2:] - box[:2], 2)
    for _ in range(200):
        kind = rng.integers(3)
        if kind == 0:  # moved
            change = np.tile(rng.uniform(-0.5, 0.5, 2), 2)
        elif kind == 1:  # loose or tight all around
            change = rng.uniform(-0.35, 0.6) * np.array([-1, -1, 1, 1]) / 2
        else:
            change = rng.uniform(-0.5, 0.5, 4) * (rng.random(4) < 0.6)
        other: np.ndarray = np.clip(box + change * extent, 0, [width, height, width, height]).astype(np.float32)
        if (other[2:] - other[:2] < 1).any():
            continue
        if between[0] <= float(pairwise_iou(box[None], other[None])[0, 0]) <= between[1]:
            return other
    return None


def _elsewhere(record: Record, shapes: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """A box where there is none, in a shape of the data set."""
    height, width = record.size
    for _ in range(200):
        w, h = shapes[rng.integers(len(shapes))]
        if w > width or h > height or w < 1 or h < 1:
            continue
        x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
        box = np.array([x, y, x + w, y + h], np.float32)
        if not len(record.boxes) or pairwise_iou(box[None], record.boxes).max() <= 0.2:
            return box
    return None
