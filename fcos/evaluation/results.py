"""Detections of a whole data set: read from a results file of anyone, or made with a detector."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.ids import id_of
from ..detections import Detections, Mask
from ..errors import DataError
from ..system.files import write_whole
from ..system.readers import read_json
from ..system.terminal import plural
from .row_ids import (
    LEFT_OUT,
    has_ids,
    labels_by_id,
    labels_by_name,
    names_beside,
    odd_boxes,
    odd_classes,
    records_by_id,
    records_by_name,
    warn,
)

if TYPE_CHECKING:
    from ..data.dataset import Dataset


@dataclass(frozen=True, eq=False, repr=False)
class Listed(Detections):
    """Detections as a results file has them. extent [D,2] float64: width and height, which x2 - x1 is not to the last
    bit: an IoU on a threshold would fall on the other side of it."""

    extent: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)), repr=False)
    _real: ClassVar[torch.dtype] = torch.float64  # as the file has them, to the last bit

    def _rows(self, keep: Mask) -> Detections:
        rows = np.arange(len(self))[keep.cpu().numpy() if isinstance(keep, torch.Tensor) else keep].reshape(-1)
        kept = super()._rows(keep)
        return replace(kept, extent=self.extent[rows]) if isinstance(kept, Listed) else kept


def read_results(path: str | Path, dataset: Dataset) -> list[Detections]:
    """A COCO results file (.json or .json.gz) as one `Detections` per record of `dataset`, best first.

    The file is a list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}. Images go by `file_name`
    where all rows have it, or by the list of images that `fcos predict --coco` writes beside its results, which names
    the classes too. Else ids are those of the data set, or of its annotation file where they are texts or an image is
    listed twice. Data without ids counts its images from 1 in the order of their names, and its classes from 0, or from
    1 where the file does.
    Rows are left out whose image is listed but is missing or cannot be read, or whose image or class, by its name, is
    not of the data. A UserWarning says so, and what else looks wrong: boxes that look like corners or shares of the
    image, and classes that look off by one.
    Boxes and scores stay float64, so that the file is judged as written; equal scores keep the file's order. Raises
    DataError: unreadable, no list, a row without a key, an id that the data set
    does not have, a number that is not finite, a negative width or height.
    """
    rows = _read_rows(path)
    image, category, boxes, scores = _columns(path, rows)
    _check_numbers(path, boxes, scores)

    files, names = names_beside(path)
    told = [row.get("file_name") for row in rows]
    told = told if all(isinstance(name, str) for name in told) else [files.get(id_of(i)) for i in image]
    position = records_by_name(path, told, dataset)
    if position is None:
        position = records_by_id(path, image, dataset)
    keep = position != LEFT_OUT
    if not keep.all():
        position, category, boxes, scores = position[keep], tuple(compress(category, keep)), boxes[keep], scores[keep]
    named = labels_by_name(path, category, names, dataset)
    labels = labels_by_id(path, category, dataset) if named is None else named
    keep = labels != LEFT_OUT
    position, labels, boxes, scores = position[keep], labels[keep], boxes[keep], scores[keep]

    records = dataset.records
    extent = boxes[:, 2:].copy()
    sizes = np.array([record.size for record in records], np.float64).reshape(-1, 2)[position]
    odd = odd_boxes(boxes, sizes, position)
    boxes[:, 2:] += boxes[:, :2]
    order = np.lexsort((-scores, position))  # stable
    if not odd and named is None:
        odd = odd_classes(position[order], labels[order], boxes[order], dataset)
    if odd:
        warn(f"{path}: {odd}")
    edges = np.searchsorted(position[order], np.arange(len(records) + 1)).tolist()
    all_boxes, all_scores = torch.from_numpy(boxes[order]), torch.from_numpy(scores[order])
    extent = extent[order]
    all_labels, points = torch.from_numpy(labels[order]), torch.full((len(order),), -1)
    return [
        Listed(
            all_boxes[a:b],
            all_scores[a:b],
            all_labels[a:b],
            points[a:b],
            names=dataset.classes.names,
            size=record.size,
            source=str(record.path or record.file_name),
            extent=extent[a:b],
        )
        for record, a, b in zip(records, edges[:-1], edges[1:], strict=True)
    ]


def write_results(path: str | Path, detections: Sequence[Detections], dataset: Dataset) -> None:
    """Write detections[i] of dataset.records[i] as a COCO results file with the data set's ids. Where these are only
    counted, each row names its file too."""
    parts: list[str] = []  # of each image with detections: a million rows are far smaller as text
    texts = dataset.text_ids
    for one, record in zip(detections, dataset.records, strict=True):
        name = {} if has_ids(dataset) else {"file_name": record.file_name}
        rows = [row | name for row in one.to_coco(texts.get(record.id, record.id), dataset.classes.ids)]
        parts += [json.dumps(rows)[1:-1]] if rows else []
    write_whole(path, f"[{', '.join(parts)}]")


def _read_rows(path: str | Path) -> list[dict[str, Any]]:
    rows = read_json(path, kind=DataError, nan=True)  # what is not finite is named by its row
    if not isinstance(rows, list):
        hint = ""
        if isinstance(rows, dict) and "annotations" in rows:
            hint = "; this looks like a ground-truth file, which belongs to --data"
        raise DataError(f"{path} must hold a list of detections (COCO results), not a {type(rows).__name__}{hint}")
    return rows


def _columns(
    path: str | Path, rows: list[dict[str, Any]]
) -> tuple[tuple[Any, ...], tuple[Any, ...], np.ndarray, np.ndarray]:
    if not rows:
        return (), (), np.zeros((0, 4)), np.zeros(0)
    keys = ("image_id", "category_id", "bbox", "score")
    try:
        image, category, boxes, scores = zip(*map(itemgetter(*keys), rows), strict=True)
        box_array, score_array = np.array(boxes, np.float64), np.array(scores, np.float64)
        if box_array.shape == (len(rows), 4) and score_array.shape == (len(rows),):
            hash(image), hash(category)  # an id that is a list or dict cannot be looked up
            return image, category, box_array, score_array
    except (KeyError, TypeError, ValueError):
        pass
    number, reason = next(((n, r) for n, row in enumerate(rows) if (r := _wrong(row))), (0, "cannot be read"))
    raise DataError(f"{path}: row {number} {reason}; a row is {{image_id, category_id, bbox: [x, y, w, h], score}}")


def _wrong(row: Any) -> str:
    """What is wrong with one row, or ''."""
    if not isinstance(row, dict):
        return f"is a {type(row).__name__}"
    for key in ("image_id", "category_id", "bbox", "score"):
        if key not in row:
            return f"has no {key!r}"
    box = row["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, int | float) for v in box):
        return f"has the bbox {box!r}, not four numbers"
    if not isinstance(row["score"], int | float):
        return f"has the score {row['score']!r}, not a number"
    for key in ("image_id", "category_id"):
        if isinstance(row[key], list | dict):
            return f"has the {key} {row[key]!r}"
    return ""


def _check_numbers(path: str | Path, boxes: np.ndarray, scores: np.ndarray) -> None:
    bad = ~(np.isfinite(boxes).all(axis=1) & np.isfinite(scores))
    if bad.any():
        first = int(bad.argmax())
        values = f"bbox {boxes[first].tolist()}, score {scores[first]}"
        raise DataError(
            f"{path}: {plural(int(bad.sum()), 'row')} not in finite numbers, the first is row {first}: {values}"
        )
    bad = (boxes[:, 2:] < 0).any(axis=1)
    if bad.any():
        first = int(bad.argmax())
        raise DataError(
            f"{path}: {plural(int(bad.sum()), 'row')} with a negative width or height, the first is row {first}: "
            f"{boxes[first].tolist()}; bbox is [x, y, width, height]"
        )
