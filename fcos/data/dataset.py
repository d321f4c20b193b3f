"""What a data set is, however its files look: pictures with boxes, and the names of the classes.

`open_dataset` recognises the format (registry.py). Each format has one file with one reader; every check of boxes and
pictures is done in `assemble.py`, once for all formats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from ..errors import DataError, did_you_mean, one_line
from ..terminal import plural, some
from ..types import Classes, Target
from .ids import Id

Size = tuple[int, int]


class Window(NamedTuple):
    """A part of an image in its pixels; bottom and right are outside."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class Record:
    """One picture and what is on it.

    id: the file's image id, or 1..N where the format has none. path: None where the pack holds no pictures.
    size: (height, width) in pixels as displayed, after EXIF rotation. boxes [G,4] float32 xyxy in pixels of
    the displayed picture, labels [G] int64 in 0..C-1, ignore [G] bool (crowd or difficult), areas [G]
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
        """The boxes as tensors, in pixels of the displayed picture."""
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
class Note:
    """One kind of thing worth knowing about a data set: what it is, how often it was met, and where first.

    level: 'skipped' is left out of the data set, 'warning' is kept and may hurt, 'note' is no fault. `example`
    is empty where the kind says all. `str(note)` is a line for a person.
    """

    kind: str
    count: int = 1
    example: str = ""
    level: Literal["skipped", "warning", "note"] = "note"

    def __str__(self) -> str:
        line = f"skipped: {self.kind}" if self.level == "skipped" else self.kind
        if self.example:
            return f"{line} ({self.count:,}; first: {self.example})"
        return f"{line} ({self.count:,})" if self.count > 1 else line


@dataclass(frozen=True, repr=False)
class Dataset:
    """Records, classes and where they came from. `notes`: one for each kind of thing worth knowing. `aliases`: other
    ids of the annotation file for a record's `id`: texts, and images listed twice.

    >>> data = fcos.open_dataset("my_data")
    >>> data
    Dataset(my_data/instances.json, all: 4 pictures, 3 classes, coco)
    >>> data.with_classes(["cat"])
    Dataset(my_data/instances.json, all: 4 pictures, 1 class, coco)
    """

    records: tuple[Record, ...]
    classes: Classes
    format: str
    split: str
    root: Path
    notes: tuple[Note, ...] = ()
    aliases: Mapping[Id, int] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        """One line; `summary` says more."""
        images, classes = plural(len(self), "picture"), plural(len(self.classes), "class")
        return f"Dataset({self.root}, {self.split}: {images}, {classes}, {self.format})"

    def subset(self, indices: Sequence[int]) -> Dataset:
        """The records at `indices`, in that order."""
        return replace(self, records=tuple(self.records[i] for i in indices))

    def with_classes(self, names: Sequence[str]) -> Dataset:
        """Only the boxes of the named classes, which become labels 0.. in the given order.

        Pictures left without boxes stay: they teach what is none of these classes. Raises DataError for
        an unknown name.
        """
        known = self.classes.names
        for name in names:
            if name not in known:
                hint = did_you_mean(name, known, f"there are: {some(known, 20)}")
                raise DataError(f"{self.root}: there is no class {name!r}; {hint}")
        if len(set(names)) != len(names) or not names:
            raise DataError(f"name each class once, not {', '.join(names) or 'none'}")
        old = [self.classes.names.index(name) for name in names]
        new = np.full(len(self.classes), -1)
        new[old] = np.arange(len(old))
        records = tuple(r.pick(new[r.labels] >= 0, new[r.labels][new[r.labels] >= 0]) for r in self.records)
        return replace(self, records=records, classes=Classes(tuple(names), tuple(self.classes.ids[k] for k in old)))

    def as_single_class(self, name: str = "object") -> Dataset:
        """All boxes as one class (proposals)."""
        records = tuple(replace(r, labels=np.zeros_like(r.labels)) for r in self.records)
        return replace(self, records=records, classes=Classes((name,), (1,)))

    def counts(self) -> np.ndarray:
        """Boxes of each class [C] int64, without ignored ones."""
        labels = [r.labels[~r.ignore] for r in self.records]
        return np.bincount(np.concatenate(labels) if labels else [], minlength=len(self.classes)).astype(np.int64)

    def summary(self) -> str:
        """Pictures, boxes, classes and notes as lines for a person."""
        boxes = sum(len(r.boxes) for r in self.records)
        ignored = sum(int(r.ignore.sum()) for r in self.records)
        bare = sum(len(r.boxes) == 0 for r in self.records)
        lines = [
            f"{self.root} ({self.format}, {self.split}): {plural(len(self), 'picture')}, {plural(boxes, 'box')}"
            + (f" ({ignored:,} of them ignored: crowd or difficult)" if ignored else "")
            + f", {plural(len(self.classes), 'class')}"
            + (f"; {plural(bare, 'picture')} without boxes" if bare else "")
        ]
        rows = zip(self.classes.names, self.classes.ids, self.counts(), strict=True)
        lines += [f"  {name} (id {id}): {count:,}" for name, id, count in rows]
        return "\n".join(one_line(line, 2000) for line in lines + [f"  note: {note}" for note in self.notes])


def merge(parts: Sequence[Dataset]) -> Dataset:
    """Several splits as one; DataError when their classes differ."""
    first = parts[0]
    for part in parts[1:]:
        if part.classes.names != first.classes.names:
            raise DataError(f"{part.root}: the splits {first.split} and {part.split} have different classes")
    if len(parts) == 1:
        return first
    return replace(
        first,
        records=tuple(r for p in parts for r in p.records),
        split="+".join(p.split for p in parts),
        notes=tuple(n for p in parts for n in p.notes),
        aliases={alias: id for p in parts for alias, id in p.aliases.items()},
    )


Sources = dict[str, Callable[[], Dataset]]
