"""Classes of a model and of a data set, matched by name; the data as the model sees it, and as it learns from it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError, nearest
from ..system.names import UNKNOWN, fold
from ..system.terminal import some
from ..types import Classes
from . import kinds
from .dataset import Dataset, Note
from .records import Records

if TYPE_CHECKING:
    from ..config import DataConfig


def match_classes(model: Classes, data: Classes, *, allow_missing: bool = False) -> np.ndarray:
    """For each class of the model the label in the data with the same name, -1 without one: int64 [C].

    Names are the same when they differ only in case, spaces, '-' and '_', and no other name comes as near.
    Raises DataError when the data has classes that the model lacks, unless `allow_missing`.
    """
    exact = {name: k for k, name in enumerate(data.names)}
    folded: dict[str, list[int]] = {}
    for k, name in enumerate(data.names):
        folded.setdefault(fold(name), []).append(k)
    mapping = np.full(len(model), UNKNOWN, np.int64)
    for label, name in enumerate(model.names):
        near = folded.get(fold(name), [])
        # "Cell" must not take the place of "cell" where the model has both.
        free = len(near) == 1 and (data.names[near[0]] == name or data.names[near[0]] not in model.names)
        mapping[label] = exact.get(name, near[0] if free else UNKNOWN)
    missing = [name for k, name in enumerate(data.names) if k not in set(mapping.tolist())]
    if missing and not allow_missing:
        near_names = nearest(missing[0], model.names)
        hint = f"; is {missing[0]!r} the model's {near_names[0]!r}?" if near_names else ""
        if all(re.fullmatch(r"class\d+|__background__", name) for name in model.names):
            hint = "; it was converted without names; fcos convert ... --names FILE adds them"
        elif len(missing) < len(data):
            hint += "; --allow-missing judges the others"
        raise DataError(
            f"the model does not know {len(missing)} of the data's {len(data)} classes: {some(missing)} "
            f"(it knows {some(model.names)}){hint}"
        )
    return mapping


def as_seen(dataset: Dataset, data: DataConfig, name: str = "object") -> Dataset:
    """The data set as a model with the settings `data` sees it: under `data.classes` and `data.single_class`, whose
    one class is called `name`. DataError for a class that the data does not have."""
    if data.classes:
        dataset = dataset.with_classes(data.classes)
    return dataset.as_single_class(name) if data.single_class else dataset


def as_learned(dataset: Dataset, data: DataConfig) -> Dataset:
    """What a model with the settings `data` learns from: the boxes as `inclusive` has them where
    `data.inclusive_boxes` says so. It is judged by the file's own, as pycocotools does: its detections are a pixel
    longer than what the network says (`Detector.last_pixel`)."""
    return inclusive(dataset) if data.inclusive_boxes and not dataset.inclusive else dataset


def inclusive(dataset: Dataset) -> Dataset:
    """The data set with x2 and y2 one pixel less, as the original code reads COCO files; boxes of one pixel or less
    are left out, with a note."""
    table = dataset.packed.table
    sides = table.xywh - np.array([0, 0, 1, 1])
    boxes = np.concatenate([sides[:, :2], sides[:, :2] + sides[:, 2:]], axis=1).astype(np.float32)
    solid: np.ndarray = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
    records = Records(replace(table, boxes=boxes, xywh=sides)).keep(solid)
    lost = int((~solid).sum())
    notes = (Note(kinds.ONE_PIXEL, lost, level="skipped"),) if lost else ()
    return replace(dataset, records=records, notes=(*dataset.notes, *notes), inclusive=True)
