"""The records of a data set as a few arrays: small, quick to make, and shared by the processes of a loader.

A `Record` is made when it is asked for. 118,000 records with 860,000 boxes are 14 arrays of 70 MB together, where as
many Python objects took 400 MB, of which a forked process soon had a copy of its own: counting references writes to
them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from multiprocessing.context import get_spawning_popen
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch

from ..errors import DataError
from ..system.terminal import plural
from ..types import Target

_NONE = -1  # no window, no whole, no path


Size = tuple[int, int]


class Window(NamedTuple):
    """A part of an image in its pixels; bottom and right are outside."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class Record:
    """One image and what is on it.

    id: the file's image id, or 1..N where the format has none. path: None where the pack holds no images.
    size: (height, width) in pixels as displayed, after EXIF rotation. boxes [G,4] float32 xyxy in pixels of
    the displayed image, labels [G] int64 in 0..C-1, ignore [G] bool (crowd or difficult), areas [G]
    float64: the annotation file's area, else the box's. file_name: as in the annotation file. xywh [G,4] float64:
    the boxes as x, y, width, height to the last bit of the file, for judging; None: those of `boxes`. window: the part
    of the image that this is, of which all of the above speaks, the image being `whole` (height, width); None: all.
    scores [G] in 0..1: of boxes that a model proposes; None: a person annotated them.
    """

    id: int
    path: Path | None
    size: Size
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    areas: np.ndarray
    file_name: str = ""
    xywh: np.ndarray | None = None
    window: Window | None = None
    whole: Size | None = None
    scores: np.ndarray | None = None

    def target(self) -> Target:
        """The boxes as tensors, in pixels of the displayed image."""
        return Target(torch.tensor(self.boxes), torch.tensor(self.labels), torch.tensor(self.ignore))

    def pick(self, keep: np.ndarray, labels: np.ndarray | None = None) -> Record:
        """This record with only the boxes that `keep` selects, under new labels where given."""
        labels = self.labels[keep] if labels is None else labels
        xywh = None if self.xywh is None else self.xywh[keep]
        scores = None if self.scores is None else self.scores[keep]
        boxes, ignore, areas = self.boxes[keep], self.ignore[keep], self.areas[keep]
        return replace(self, boxes=boxes, labels=labels, ignore=ignore, areas=areas, xywh=xywh, scores=scores)

    def exact(self) -> np.ndarray:
        """x, y, width, height [G,4] float64 of the boxes."""
        if self.xywh is not None:
            return self.xywh
        boxes = self.boxes.astype(np.float64)
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


@dataclass(frozen=True)
class Texts(Sequence[str]):
    """Texts as one block of bytes: text i is `letters[starts[i] : starts[i + 1]]`."""

    letters: np.ndarray  # uint8
    starts: np.ndarray  # [N+1] int64

    @staticmethod
    def of(texts: Sequence[str]) -> Texts:
        """The texts, in order; names of files that are no UTF-8 are kept as they are."""
        packed = [text.encode("utf-8", "surrogatepass") for text in texts]
        starts = np.zeros(len(packed) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, packed), np.int64, len(packed)), out=starts[1:])
        return Texts(np.frombuffer(b"".join(packed), np.uint8), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        part = self.letters[self.starts[index] : self.starts[index + 1]]
        return part.tobytes().decode("utf-8", "surrogatepass")

    def take(self, indices: np.ndarray) -> Texts:
        """The texts at `indices`, in that order."""
        starts, rows = _rows(self.starts, indices)
        return Texts(self.letters[rows], starts)


@dataclass(frozen=True)
class Boxes:
    """G boxes of N records, in the order of the records. Meanings and units are those of `Record`.

    Record i has the boxes `starts[i] : starts[i + 1]` [N+1] int64 of boxes [G,4] float32, labels [G] int64, ignore [G]
    bool, areas [G] float64, xywh [G,4] float64, scores [G] float64 (NaN where there is none).
    """

    starts: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    areas: np.ndarray
    xywh: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Table(Boxes):
    """The columns of N records, those of their boxes first.

    ids [N] int64; sizes [N,2] int64 (height, width); windows [N,4] and wholes [N,2] int64, -1 where there are none;
    has_path [N] bool; names and paths: texts.
    """

    ids: np.ndarray
    sizes: np.ndarray
    windows: np.ndarray
    wholes: np.ndarray
    has_path: np.ndarray
    names: Texts
    paths: Texts

    @staticmethod
    def whole(
        ids: Sequence[int], sizes: np.ndarray, names: Sequence[str], paths: Sequence[Path | None], boxes: Boxes
    ) -> Table:
        """The columns of whole images, no windows."""
        count = len(ids)
        return Table(
            **vars(boxes),
            ids=_numbers(ids),
            sizes=np.asarray(sizes, np.int64).reshape(-1, 2),
            windows=np.full((count, 4), _NONE, np.int64),
            wholes=np.full((count, 2), _NONE, np.int64),
            has_path=np.array([path is not None for path in paths], bool),
            names=Texts.of(names),
            paths=Texts.of(["" if path is None else os.fspath(path) for path in paths]),
        )

    def rows(self, which: np.ndarray) -> dict[str, Any]:
        """The columns of the boxes that `which` selects, but for `starts`."""
        return {field.name: getattr(self, field.name)[which] for field in fields(Boxes) if field.name != "starts"}


class Records(Sequence[Record]):
    """Records in arrays; index and slice as a tuple of them. `table` has the columns, which nobody may write to."""

    def __init__(self, table: Table) -> None:
        self.table = table

    @staticmethod
    def of(records: Iterable[Record]) -> Records:
        """Any records, packed. Those that are packed stay as they are."""
        if isinstance(records, Records):
            return records
        rows = list(records)
        starts = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(r.boxes) for r in rows], out=starts[1:])

        def flat(parts: list[np.ndarray], kind: type, width: int = 0) -> np.ndarray:
            empty: np.ndarray = np.zeros((0, width) if width else 0, kind)
            return np.concatenate([empty, *(np.asarray(p, kind).reshape(-1, *empty.shape[1:]) for p in parts)])

        boxes = Boxes(
            starts,
            flat([r.boxes for r in rows], np.float32, 4),
            flat([r.labels for r in rows], np.int64),
            flat([r.ignore for r in rows], bool),
            flat([r.areas for r in rows], np.float64),
            flat([r.exact() for r in rows], np.float64, 4),
            flat([np.full(len(r.boxes), np.nan) if r.scores is None else r.scores for r in rows], np.float64),
        )
        sizes = np.array([r.size for r in rows], np.int64).reshape(-1, 2)
        table = Table.whole([r.id for r in rows], sizes, [r.file_name for r in rows], [r.path for r in rows], boxes)
        for index, record in enumerate(rows):
            if record.window is not None:
                table.windows[index] = record.window
            if record.whole is not None:
                table.wholes[index] = record.whole
        return Records(table)

    def __len__(self) -> int:
        return len(self.table.ids)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Records: ...
    def __getitem__(self, index: int | slice) -> Record | Records:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return self._record(range(len(self))[index])

    def __iter__(self) -> Iterator[Record]:
        return map(self._record, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Records):
            return NotImplemented
        mine, theirs = _arrays(self.table), _arrays(other.table)
        return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(mine, theirs, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def take(self, indices: Sequence[int] | np.ndarray) -> Records:
        """The records at `indices`, in that order, -1 being the last; or those that a bool mask [N] selects. DataError
        for anything else."""
        at = _places(indices, len(self))
        t = self.table
        starts, rows = _rows(t.starts, at)
        own = {name: getattr(t, name)[at] for name in ("ids", "sizes", "windows", "wholes", "has_path")}
        names, paths = t.names.take(at), t.paths.take(at)
        return Records(Table(starts=starts, **t.rows(rows), **own, names=names, paths=paths))

    def keep(self, rows: np.ndarray) -> Records:
        """The same records with only the boxes that `rows` [G] bool selects."""
        t = self.table
        starts = np.concatenate(([0], np.cumsum(rows)))[t.starts]
        return Records(replace(t, starts=starts, **t.rows(rows)))

    def labelled(self, labels: np.ndarray, ignore: np.ndarray | None = None) -> Records:
        """The same boxes under new `labels` [G], and with new ignore flags where given."""
        table = replace(self.table, labels=labels.astype(np.int64))
        return Records(table if ignore is None else replace(table, ignore=ignore))

    @property
    def owner(self) -> np.ndarray:
        """The record that each box belongs to [G] int64."""
        return np.repeat(np.arange(len(self)), np.diff(self.table.starts))

    def size(self) -> int:
        """Bytes of all columns."""
        return sum(array.nbytes for array in _arrays(self.table))

    def _record(self, index: int) -> Record:
        t = self.table
        part = slice(t.starts[index], t.starts[index + 1])
        height, width = t.sizes[index].tolist()
        window, whole = t.windows[index].tolist(), t.wholes[index].tolist()
        return Record(
            int(t.ids[index]),
            Path(t.paths[index]) if t.has_path[index] else None,
            (height, width),
            t.boxes[part],
            t.labels[part],
            t.ignore[part],
            t.areas[part],
            t.names[index],
            t.xywh[part],
            None if window[2] == _NONE else Window(*window),
            None if whole[0] == _NONE else (whole[0], whole[1]),
            None if np.isnan(t.scores[part]).any() or not len(t.scores[part]) else t.scores[part],
        )

    def __getstate__(self) -> list[Any]:
        """The arrays; on the way to a process that is being started as memory that all such processes share."""
        if get_spawning_popen() is None:
            return _arrays(self.table)
        if not self._is_shared():
            self._shared = [_shared(array) for array in _arrays(self.table)]
            self.table = _table([_array(x) for x in self._shared])
        return self._shared

    def _is_shared(self) -> bool:
        return hasattr(self, "_shared")

    def __setstate__(self, state: list[Any]) -> None:
        self.table = _table([_array(x) for x in state])


def evenly(count: int, most: int) -> np.ndarray:
    """Numbers of at most `most` of `count` things [M] int64, rising, spread from the first to the last."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(np.int64)


def _shared(array: np.ndarray) -> torch.Tensor | np.ndarray:
    if array.dtype == object:
        return array
    # A copy: sharing a tensor frees the memory that it had, and that may be somebody's array.
    tensor = torch.from_numpy(np.array(array, order="C"))
    tensor.share_memory_()
    return tensor


def _array(value: torch.Tensor | np.ndarray) -> np.ndarray:
    return value.numpy() if isinstance(value, torch.Tensor) else value


def _numbers(ids: Sequence[int]) -> np.ndarray:
    """int64, or objects where one is beyond it: an id may be any whole number."""
    try:
        return np.array(ids, np.int64)
    except OverflowError:
        return np.array(ids, object)


def _places(indices: Sequence[int] | np.ndarray, count: int) -> np.ndarray:
    """Indices or a bool mask of `count` records as indices [M] int64 in 0..count-1."""
    given = np.asarray(indices)
    if given.dtype == bool:
        if given.shape != (count,):
            raise DataError(f"a mask of shape {given.shape} for {plural(count, 'record')}; give one bool for each")
        return np.flatnonzero(given)
    if given.size and given.dtype.kind not in "iu":
        raise DataError(f"records are chosen by whole numbers or a bool mask, not by {given.dtype}")
    at = given.astype(np.int64).reshape(-1)
    wrong = at[(at < -count) | (at >= count)]
    if len(wrong):
        raise DataError(f"there is no record {wrong[0]}: there are {count:,}, from 0 on")
    return np.where(at < 0, at + count, at)


def _rows(starts: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(starts [M+1], rows) of the parts `at` [M] of something that lies in parts, put one behind another."""
    lengths = starts[at + 1] - starts[at]
    ends = np.cumsum(lengths)
    rows = np.arange(lengths.sum()) + np.repeat(starts[at] - (ends - lengths), lengths)
    return np.concatenate((np.zeros(1, np.int64), ends)), rows


def _arrays(table: Table) -> list[np.ndarray]:
    values = [getattr(table, field.name) for field in fields(table)]
    return [a for v in values for a in ((v.letters, v.starts) if isinstance(v, Texts) else (v,))]


def _table(arrays: Sequence[np.ndarray]) -> Table:
    *columns, letters, starts, others, ends = arrays
    named = dict(zip((field.name for field in fields(Table)), columns, strict=False))
    return Table(**named, names=Texts(letters, starts), paths=Texts(others, ends))
