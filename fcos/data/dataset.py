"""What a data set is, however its files look: images with boxes, and the names of the classes.

`open_dataset` recognises the format (registry.py). Each format has one file with one reader; every check of boxes and
images is done in `assemble.py`, once for all formats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Literal, cast, overload

import numpy as np

from ..errors import DataError, did_you_mean, one_line
from ..system.terminal import plural, some
from ..types import Classes, class_names
from . import kinds
from .ids import Id
from .kinds import Kind
from .records import Record, Records

EXAMPLES = 20  # places of one kind of thing that are kept


@dataclass(frozen=True)
class Note:
    """One kind of thing worth knowing about a data set: what it is, how often it was met, and where first.

    level: 'skipped' is left out of the data set, 'warning' is kept and may hurt, 'note' is no fault. `example`
    is empty where the kind says all; `more` are further ones, `EXAMPLES` in all. `str(note)` is a line for a person.
    """

    kind: Kind
    count: int = 1
    example: str = ""
    level: Literal["skipped", "warning", "note"] = "note"
    more: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def __str__(self) -> str:
        line = f"skipped: {self.kind.many}" if self.level == "skipped" else self.kind.many
        if self.example:
            return f"{line} ({self.count:,}; first: {one_line(self.example)})"
        return f"{line} ({self.count:,})" if self.count > 1 else line


@dataclass(frozen=True, repr=False)
class Dataset:
    """Records, classes and where they came from. `notes`: one for each kind of thing worth knowing. `aliases`: other
    ids of the annotation file for a record's `id`: texts, and images listed twice. `inclusive`: boxes end one pixel
    earlier than in the file (`data.inclusive_boxes`), to learn from, not to judge by. `absent`: ids of the annotation
    file whose images are missing or cannot be read; detections of them are passed over.

    >>> data = fcos.open_dataset("my_data")
    >>> data
    Dataset(my_data/instances.json, all: 4 images, 3 classes, coco)
    >>> data.with_classes(["cat"])
    Dataset(my_data/instances.json, all: 4 images, 1 class, coco)
    >>> data[0].file_name, len(data[:2])
    ('astronaut.jpg', 2)
    """

    records: Sequence[Record]
    classes: Classes
    format: str
    split: str
    root: Path
    notes: tuple[Note, ...] = ()
    aliases: Mapping[Id, int] = field(default_factory=dict, repr=False)
    inclusive: bool = False
    absent: frozenset[Id] = field(default=frozenset(), repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "records", Records.of(self.records))

    def __len__(self) -> int:
        return len(self.records)

    @property
    def packed(self) -> Records:
        """The records, with what they offer beside a sequence: their columns, and whole selections of them."""
        return cast(Records, self.records)

    @property
    def text_ids(self) -> dict[int, str]:
        """The annotation file's own id of a record by its `id`, where the file has a text."""
        return {id: alias for alias, id in self.aliases.items() if isinstance(alias, str)}

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    @overload
    def __getitem__(self, which: int) -> Record: ...
    @overload
    def __getitem__(self, which: slice | Sequence[int] | np.ndarray) -> Dataset: ...
    def __getitem__(self, which: int | slice | Sequence[int] | np.ndarray) -> Record | Dataset:
        """One record by its number; by a slice, numbers or a mask the data set of those."""
        if isinstance(which, int | np.integer):
            return self.records[which]
        return self.subset(range(len(self))[which] if isinstance(which, slice) else which)

    def __repr__(self) -> str:
        """One line; `summary` says more."""
        images, classes = plural(len(self), "image"), plural(len(self.classes), "class")
        return f"Dataset({self.root}, {self.split}: {images}, {classes}, {self.format})"

    def subset(self, indices: Sequence[int] | np.ndarray) -> Dataset:
        """The records at `indices`, in that order, -1 being the last; or those that a bool mask [N] selects. DataError
        for anything else."""
        return replace(self, records=self.packed.take(indices))

    def with_classes(self, names: Sequence[str]) -> Dataset:
        """Only the boxes of the named classes, which become labels 0.. in the given order.

        Images left without boxes stay: they teach what is none of these classes. Raises DataError for
        an unknown name.
        """
        names, known = class_names(names, DataError), self.classes.names
        for name in names:
            if name not in known:
                hint = did_you_mean(name, known, f"there are: {some(known, 20)}")
                raise DataError(f"{self.root}: there is no class {name!r}; {hint}")
        if len(set(names)) != len(names) or not names:
            raise DataError(f"name each class once, not {', '.join(names) or 'none'}")
        old = [self.classes.names.index(name) for name in names]
        new = np.full(len(self.classes), -1)
        new[old] = np.arange(len(old))
        labels = new[self.packed.table.labels]
        records = self.packed.labelled(labels).keep(labels >= 0)
        return replace(self, records=records, classes=Classes(tuple(names), tuple(self.classes.ids[k] for k in old)))

    def as_single_class(self, name: str = "object") -> Dataset:
        """All boxes as one class (proposals)."""
        records = self.packed.labelled(np.zeros_like(self.packed.table.labels))
        return replace(self, records=records, classes=Classes((name,), (1,)))

    def counts(self) -> np.ndarray:
        """Boxes of each class [C] int64, without ignored ones."""
        table = self.packed.table
        return np.bincount(table.labels[~table.ignore], minlength=len(self.classes)).astype(np.int64)

    def summary(self) -> str:
        """Images, boxes, classes and notes as lines for a person."""
        table = self.packed.table
        boxes, ignored = len(table.boxes), int(table.ignore.sum())
        bare = int((np.diff(table.starts) == 0).sum())
        lines = [
            f"{self.root} ({self.format}, {self.split}): {plural(len(self), 'image')}, {plural(boxes, 'box')}"
            + (f" ({ignored:,} of them ignored: crowd or difficult)" if ignored else "")
            + f", {plural(len(self.classes), 'class')}"
            + (f"; {plural(bare, 'image')} without boxes" if bare else "")
        ]
        rows = zip(self.classes.names, self.classes.ids, self.counts(), strict=True)
        lines += [f"  {name} (id {id}): {count:,}" for name, id, count in rows]
        return "\n".join(one_line(line, 2000) for line in lines + [f"  note: {note}" for note in self.notes])


def merge(parts: Sequence[Dataset]) -> Dataset:
    """Several splits as one; DataError when their classes differ. Image ids that meet are numbered anew, with a note
    where they stand in a file: formats without ids number each split from 1."""
    first = parts[0]
    for part in parts[1:]:
        if part.classes.names != first.classes.names:
            raise DataError(f"{part.root}: the splits {first.split} and {part.split} have different classes")
    if len(parts) == 1:
        return first
    records = [r for p in parts for r in p.records]
    notes = [n for p in parts for n in p.notes]
    numbers = [p.packed.table.ids.tolist() for p in parts]
    if meet := len(records) - len(set().union(*numbers)):
        records = [replace(r, id=k) for k, r in enumerate(records, 1)]
        places = count(1)
        numbers = [[next(places) for _ in p.records] for p in parts]
        if any(p.format == "coco" for p in parts):  # the ids of others stand in no file
            notes.append(Note(kinds.NEW_NUMBERS, meet))
    return replace(
        first,
        records=records,
        split="+".join(p.split for p in parts),
        notes=tuple(notes),
        aliases=_aliases(parts, numbers, anew=meet > 0),
        absent=frozenset() if meet else frozenset(id for p in parts for id in p.absent),
    )


def _aliases(parts: Sequence[Dataset], numbers: Sequence[Sequence[int]], anew: bool) -> dict[Id, int]:
    """The aliases of several parts, whose records are now called `numbers`, given `anew` or those of the file. Of
    numbers given anew those of the file say nothing, but texts do, unless two parts have the same."""
    told = []
    for part, now in zip(parts, numbers, strict=True):
        of = dict(zip(part.packed.table.ids.tolist(), now, strict=True)) if part.aliases else {}
        told += [(alias, of[id]) for alias, id in part.aliases.items() if id in of]
    often = Counter(alias for alias, _ in told)
    return {alias: id for alias, id in told if often[alias] == 1 and not (anew and isinstance(alias, int))}


Sources = dict[str, Callable[[], Dataset]]
