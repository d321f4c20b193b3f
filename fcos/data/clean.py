"""A data set without what nobody wants to learn from: copies of an image, images that cannot be read, boxes that are
marked twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DataError, ImageError
from ..overlap import iou
from ..system import tars
from ..system.readers import read_bytes
from . import kinds
from .dataset import Dataset, Note
from .duplicates import fingerprint
from .images.reading import IMAGE_LIMIT
from .kinds import Kind
from .records import Record
from .splits import NESTED, ORDER

SAME_BOX = 0.9  # IoU of two boxes of one image that are one object marked twice
_PAIRS = 1 << 22  # of boxes that are compared at once
_COPIES = Kind("copies of an image")
_OTHERS = Kind("copies of an image whose boxes are others")
_TWICE = Kind("boxes marked twice")


class Copy(NamedTuple):
    """An image that has the same bytes as another that comes before it, in the same split or another: split and number
    of both."""

    split: str
    number: int
    of: tuple[str, int]


def clean(splits: Mapping[str, Dataset]) -> tuple[dict[str, Dataset], list[str]]:
    """(the splits without images that cannot be read, copies of an image and boxes marked twice; a line for each kind
    of these). Every image is read. A split of which nothing is left is left out; DataError where all are."""
    lines = []

    def tell(split: str, kind: Kind, examples: Sequence[str]) -> None:
        if examples:
            lines.append(f"{split}: {Note(kind, len(examples), examples[0], 'skipped')}")

    paths = list(dict.fromkeys(r.path for d in splits.values() for r in d.records if r.path is not None))
    broken = {path: error for path, error in zip(paths, fingerprint(paths, "reading").error, strict=True) if error}
    whole = {
        split: d.subset([i for i, r in enumerate(d.records) if r.path not in broken]) for split, d in splits.items()
    }
    found = copies(whole)
    kept: dict[str, Dataset] = {}
    for split, dataset in whole.items():
        tell(split, kinds.UNREADABLE, [broken[r.path] for r in splits[split].records if r.path in broken])
        mine = [c for c in found if c.split == split]
        for kind, other in ((_COPIES, False), (_OTHERS, True)):
            tell(split, kind, [_named(whole, c) for c in mine if _differ(whole, c) is other])
        left = np.setdiff1d(np.arange(len(dataset)), [c.number for c in mine])
        some = dataset.subset(left)
        second = [(r, row) for r in some.records for row in second_boxes(r, any_class=False)]
        tell(split, _TWICE, [f"{r.file_name}: {some.classes.names[r.labels[row]]}" for r, row in second])
        if len(some):
            kept[split] = marked_once(some, any_class=False)
    if not kept:
        raise DataError(f"{next(iter(splits.values())).root}: no image can be read")
    return kept, lines


def _named(splits: Mapping[str, Dataset], copy: Copy) -> str:
    """A copy and what it is a copy of."""
    split, number = copy.of
    first, second = splits[split].records[number], splits[copy.split].records[copy.number]
    return f"{second.file_name} = {first.file_name}" + (f" ({split})" if split != copy.split else "")


def _differ(splits: Mapping[str, Dataset], copy: Copy) -> bool:
    """Whether the boxes of a copy are others than those of its image."""
    split, number = copy.of
    first, second = splits[split].records[number], splits[copy.split].records[copy.number]
    names, others = splits[split].classes.names, splits[copy.split].classes.names
    mine, theirs = (
        sorted((known[label], *box) for label, box in zip(r.labels.tolist(), r.boxes.tolist(), strict=True))
        for known, r in ((names, first), (others, second))
    )
    return mine != theirs


def copies(splits: Mapping[str, Dataset]) -> list[Copy]:
    """The images to leave out so that each is there once: those of train stay before those of val and test, and in one
    split those with more boxes. Splits of which one is a part of the other, as VOC's train and trainval, share
    theirs."""
    places = [(split, i) for split, d in splits.items() for i, r in enumerate(d.records) if r.path is not None]
    paths = [path for split, i in places if (path := splits[split].records[i].path) is not None]
    found = []
    for members in same_files(paths):
        group = [places[k] for k in members]
        group.sort(key=lambda at: (ORDER.get(at[0], len(ORDER)), -len(splits[at[0]].records[at[1]].boxes)))
        kept: list[tuple[str, int]] = []
        for split, index in group:
            of = next((at for at in kept if {at[0], split} not in NESTED), None)
            if of is None:
                kept.append((split, index))
            else:
                found.append(Copy(split, index, of))
    return sorted(found)


def same_files(paths: Sequence[Path]) -> list[list[int]]:
    """Groups of two or more numbers in `paths` whose files have the same bytes, or are one. Only files of one size are
    read; one that cannot be is in no group."""
    sizes: dict[object, list[int]] = {}
    for number, path in enumerate(paths):
        inside = tars.split(path) is not None or not path.is_file()
        sizes.setdefault(None if inside else path.stat().st_size, []).append(number)
    equal: dict[bytes, list[int]] = {}
    for members in sizes.values():
        for number in members if len(members) > 1 else ():
            try:
                data = read_bytes(paths[number], IMAGE_LIMIT, ImageError)
            except ImageError:
                continue
            equal.setdefault(sha256(data).digest(), []).append(number)
    return [members for members in equal.values() if len(members) > 1]


def same_boxes(record: Record) -> list[tuple[int, int]]:
    """Pairs i < j of an image's boxes with IoU > SAME_BOX, ignored boxes left out."""
    rows = np.flatnonzero(~record.ignore)
    b = record.boxes[rows].astype(np.float64)
    step = max(1, _PAIRS // max(1, len(b)))
    found: list[tuple[int, int]] = []
    for start in range(0, len(b), step):
        i, j = np.nonzero(np.triu(iou(b[start : start + step, None], b[None, start:]) > SAME_BOX, 1))
        found += zip(rows[start + i].tolist(), rows[start + j].tolist(), strict=True)
    return found


def second_boxes(record: Record, *, any_class: bool) -> list[int]:
    """The rows of an image's boxes that mark an object again, as the same class or as any."""
    labels = record.labels
    return sorted({j for i, j in same_boxes(record) if any_class or labels[i] == labels[j]})


def marked_once(dataset: Dataset, *, any_class: bool) -> Dataset:
    """The data set without `second_boxes`."""
    kept = np.ones(len(dataset.packed.table.boxes), bool)
    for start, record in zip(dataset.packed.table.starts.tolist(), dataset.records, strict=False):
        kept[[start + row for row in second_boxes(record, any_class=any_class)]] = False
    return dataset if kept.all() else replace(dataset, records=dataset.packed.keep(kept))
