"""The annotations of COCO JSON in arrays, with boxes computed from polygons or run lengths where there is no bbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import DataError

ABSENT = "no value"  # a text of our own, known by identity: None may stand in a file


@dataclass(frozen=True)
class Columns:
    """What is wanted of some annotations, in arrays: of millions of them the objects would take gigabytes.

    images, categories, ids: as the file has them, int64 or objects. boxes [G,4] float64 xywh; ignore [G] bool;
    areas [G] float64.
    """

    images: np.ndarray
    categories: np.ndarray
    ids: np.ndarray
    boxes: np.ndarray
    ignore: np.ndarray
    areas: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    @staticmethod
    def of(path: Path, annotations: list[dict[str, Any]]) -> Columns:
        """Those of some annotations; DataError, which names `path`, for a mark that is neither 0 nor 1."""
        return Columns(
            _column(annotations, "image_id"),
            _column(annotations, "category_id"),
            _column(annotations, "id"),
            _boxes(annotations),
            _marks(annotations, path),
            _numbers(annotations, "area"),
        )

    @staticmethod
    def together(parts: Sequence[Columns]) -> Columns:
        """One behind another."""

        def one(name: str) -> np.ndarray:
            return np.concatenate([getattr(part, name) for part in parts])

        return Columns(*(one(field.name) for field in fields(Columns))) if parts else Columns.of(Path(), [])


def _column(annotations: list[dict[str, Any]], key: str) -> np.ndarray:
    """The values under `key` [G], int64 where all are whole numbers, else objects; ABSENT where there is none."""
    values = [a.get(key, ABSENT) for a in annotations]
    if set(map(type, values)) <= {int}:
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:
            pass
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _marks(annotations: list[dict[str, Any]], path: Path) -> np.ndarray:
    """[G] bool: crowd, difficult, or to be ignored for another reason."""
    keys = ("iscrowd", "ignore", "difficult")
    columns = [[a.get(key) for a in annotations] for key in keys]
    if all(set(map(type, column)) <= {int, bool, type(None)} for column in columns):
        marked: np.ndarray = np.array([[bool(v) for v in column] for column in columns], dtype=bool)
        either: np.ndarray = np.logical_or.reduce(marked)
        return either
    return np.array([any(_mark(a, k, path) for k in keys if k in a) for a in annotations], dtype=bool)


def _numbers(annotations: list[dict[str, Any]], key: str) -> np.ndarray:
    """The numbers under `key` [G] float64, NaN where there are none."""
    values = [a.get(key) for a in annotations]
    if set(map(type, values)) <= {int, float}:
        try:
            return np.array(values, dtype=np.float64)
        except OverflowError:
            pass
    return np.array([float_of(v) for v in values], dtype=np.float64)


def _mark(annotation: dict[str, Any], key: str, path: Path) -> bool:
    """0 or 1, false or true, also as text; DataError for anything that is no number."""
    value = annotation[key]
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str):
        value = {"false": 0, "true": 1}.get(value.strip().lower(), value)
    number = float_of(value)
    if number != number:
        which = f"annotation {annotation.get('id', '')}".strip()
        raise DataError(f"{path}: {key} of {which} is {str(value)[:40]!r}; write 0 or 1")
    return number != 0


def _boxes(annotations: list[dict[str, Any]]) -> np.ndarray:
    """xywh [G,4]; a row that is no box of four numbers becomes NaN and is reported with the others. A row without a
    bbox has that of its segmentation."""
    given: list[Any] = [a.get("bbox") for a in annotations]
    if set(map(type, given)) <= {list} and set(map(len, given)) <= {4}:
        try:
            return np.fromiter(chain.from_iterable(given), np.float64, 4 * len(given)).reshape(-1, 4)
        except (TypeError, ValueError, OverflowError):
            pass
    boxes = np.full((len(annotations), 4), np.nan)
    for row, annotation in enumerate(annotations):
        box = annotation.get("bbox")
        if isinstance(box, list) and len(box) == 4:
            boxes[row] = [float_of(v) for v in box]
        elif not box and annotation.get("segmentation"):
            boxes[row] = _box_of(annotation["segmentation"])
    return boxes


def _box_of(segmentation: Any) -> tuple[float, float, float, float]:
    """xywh of polygons [[x, y, x, y, ...], ...] or of run lengths; NaN where it is neither."""
    nothing = (float("nan"),) * 4
    if isinstance(segmentation, dict):
        return box_of_runs(segmentation) or nothing
    if not isinstance(segmentation, list):
        return nothing
    rings = segmentation if all(isinstance(ring, list) for ring in segmentation) else [segmentation]
    values = [[float_of(v) for v in ring] for ring in rings]
    xs = [v for ring in values for v in ring[::2]]
    ys = [v for ring in values for v in ring[1::2]]
    if not xs or not ys:
        return nothing
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def box_of_runs(mask: dict[str, Any]) -> tuple[float, float, float, float] | None:
    """The box of a mask {"size": [height, width], "counts": [...]}: lengths of runs of 0 and 1 in turn, down the
    columns; counts as a text are the same lengths in six bits a character, from the third on as differences."""
    size, counts = mask.get("size"), mask.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(v, int) and 0 < v < 10**6 for v in size)):
        return None
    if isinstance(counts, str):
        counts = _unpack(counts)
    if not isinstance(counts, list) or not all(isinstance(c, int) and 0 <= c < 10**12 for c in counts):
        return None
    height = size[0]
    ends = np.cumsum(np.array(counts, dtype=np.int64))
    starts, ends = ends[:-1:2], ends[1::2]
    starts = starts[: len(ends)]
    filled = ends > starts
    starts, ends = starts[filled], ends[filled]
    if not len(starts) or ends[-1] > height * size[1]:
        return None
    left, right = starts // height, (ends - 1) // height
    tall = (right > left).any()  # a run that passes the foot of a column fills that column down to it
    top = 0 if tall else int((starts % height).min())
    foot = height if tall else int(((ends - 1) % height).max()) + 1
    return float(left.min()), float(top), float(right.max() + 1 - left.min()), float(foot - top)


def _unpack(packed: str) -> list[int] | None:
    counts: list[int] = []
    value = shift = 0
    for character in packed:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:  # the last of this number; its fifth bit is the sign
            if bits & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    return counts


def float_of(value: Any) -> float:
    """NaN for what is no number."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")
