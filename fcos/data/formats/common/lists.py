"""Lists in text files: of class names, and of the images of a split (train.txt, ImageSets/Main/val.txt)."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Generic, TypeVar

from ....errors import DataError
from ....system.files import folded
from ....system.readers import read_lines
from ... import kinds
from ...dataset import EXAMPLES, Dataset, Note, Sources
from ...images.reading import SUFFIXES
from ...splits import ORDER, TAUGHT
from .pairing import clean_name, folder_key

T = TypeVar("T", bound=Hashable)
NO_CLASSES = ("__ignore__", "_background_")  # LabelMe's, in lists of classes
_NUMBERED = re.compile(r"(\d+)(?:\s*[:,;=]\s*|\s+)(\S.*)")  # 0 person, 0: person


def read_names(file: Path) -> tuple[str, ...]:
    """Class names, one a line. If every line begins with its number, counted from 0 (0 cat, 1 dog), the numbers are
    dropped."""
    return names_in(read_lines(file, kind=DataError))


def names_in(lines: Iterable[str]) -> tuple[str, ...]:
    """The same of the lines of a file."""
    names = [name for line in lines if (name := line.strip())]
    numbered = [_NUMBERED.fullmatch(name) for name in names]
    if len(names) > 1 and all(found and int(found[1]) == k for k, found in enumerate(numbered)):
        names = [found[2] for found in numbered if found]
    return tuple(names)


def named_in(lists: Mapping[str, Sequence[str]], names: Sequence[str], source: Path) -> dict[str, list[int]]:
    """The numbers of those of `names`, images with their folders, that the lines of each list mean, in order.

    A line may know fewer folders than the name, or more; of images of one name it means those that share most of them
    (`folder_key`), and none that lies in others. A line that so means none is that of the only image of its name which
    no other line has: lists are written on other machines.
    """
    known = Named(names)
    found: dict[str, set[int]] = {split: set() for split in lists}
    left: dict[int, set[tuple[str, str]]] = defaultdict(set)
    for split, lines in lists.items():
        for line in dict.fromkeys(lines):
            asked = clean_name(line, source)
            mine = known.nearest(asked)
            found[split].update(mine)
            if not mine and len(same := known.called(asked)) == 1:
                left[same[0]].add((split, asked))
    taken = set().union(*found.values())
    for k, lines_of in left.items():
        if k not in taken and len({asked for _, asked in lines_of}) == 1:
            for split, _ in lines_of:
                found[split].add(k)
    return {split: sorted(numbers) for split, numbers in found.items()}


class Named:
    """Images by their names with folders, found by what others call them."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._near: dict[str, Namesakes[int]] = {}
        self._places: dict[str, tuple[str, ...]] = {}

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        return _grouped(map(_last, self.names))

    @cached_property
    def _by_stem(self) -> dict[str, list[int]]:
        return _grouped(_stem(_last(name)) for name in self.names)

    def called(self, asked: str) -> list[int]:
        """The numbers of the images of that name, wherever they lie; where there is none, of that name but for the
        suffix."""
        return self._by_name.get(_last(asked)) or self._by_stem.get(_stem(_last(asked)), [])

    def nearest(self, asked: str) -> list[int]:
        """Those of them that share most folders with `asked`, and lie in none that is another."""
        last = _last(asked)
        if last not in self._near:
            self._near[last] = Namesakes({k: self._place(self.names[k]) for k in self.called(asked)})
        return self._near[last].nearest(self._place(asked))

    def _place(self, name: str) -> tuple[str, ...]:
        folder = name.rpartition("/")[0]
        if folder not in self._places:
            self._places[folder] = folder_key(folder.split("/") if folder else ())
        return self._places[folder]


def _last(name: str) -> str:
    return folded(name.rpartition("/")[2])


def _grouped(keys: Iterable[str]) -> dict[str, list[int]]:
    """The numbers of equal keys."""
    table: dict[str, list[int]] = defaultdict(list)
    for k, key in enumerate(keys):
        table[key].append(k)
    return table


class Namesakes(Generic[T]):
    """Things of one name, by the folders (`folder_key`) that they lie in."""

    def __init__(self, places: Mapping[T, tuple[str, ...]]) -> None:
        self._whole: dict[tuple[str, ...], list[T]] = defaultdict(list)
        self._ends: dict[tuple[str, ...], list[T]] = defaultdict(list)
        for thing, folders in places.items():
            self._whole[folders].append(thing)
            for start in range(len(folders)):
                self._ends[folders[start:]].append(thing)
            self._ends[()].append(thing)

    def nearest(self, asked: tuple[str, ...]) -> list[T]:
        """Those that share most folders with `asked`, from the last on, and have none that is another."""
        if found := self._whole.get(asked) or self._ends.get(asked):
            return found
        return next((same for k in range(1, len(asked) + 1) if (same := self._whole.get(asked[k:]))), [])


def _stem(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix in SUFFIXES else name


def share_out(
    named: Mapping[str, list[T]],
    whole: Sequence[T],
    lines: Mapping[str, Sequence[str]],
    split_of: Callable[[T], str | None],
    called: Callable[[T], str],
) -> tuple[dict[str, list[T]], tuple[Note, ...]]:
    """(parts, what to tell): `named` are those of `whole` that each list names, `lines` the lists, `split_of` the split
    that a folder says, `called` a name for messages.

    What no list names goes to the split of its folder, else to train, unless a list has parted that already (trainval
    is train too): then it is left out with a note. No parts where no list fits.
    """
    parts = {split: part for split, part in named.items() if part}
    empty = [f"{split}: {', '.join(lines[split][:1])}" for split in lines if split in ORDER and split not in parts]
    notes = [Note(kinds.EMPTY_LISTS, len(empty), empty[0], "warning", tuple(empty[1:]))] if empty else []
    if not parts:
        return {}, tuple(notes)
    listed = {*parts, *(TAUGHT if any(split in parts for split in TAUGHT) else ())}
    known = {thing for part in parts.values() for thing in part}
    left = []
    for thing in whole:
        if thing in known:
            continue
        split = split_of(thing) or TAUGHT[0]
        if split in listed:
            left.append(thing)
        else:
            parts.setdefault(split, []).append(thing)
    if left:
        first, *more = map(called, left[:EXAMPLES])
        notes.append(Note(kinds.IN_NO_LIST, len(left), first, "note", tuple(more)))
    return parts, tuple(notes)


def told(sources: Sources, notes: Sequence[Note]) -> Sources:
    """The same splits with `notes` behind their own: each with the warnings, the first with all."""
    warnings = tuple(note for note in notes if note.level == "warning")
    return {
        name: partial(_told, load, warnings if number else tuple(notes))
        for number, (name, load) in enumerate(sources.items())
    }


def _told(load: Callable[[], Dataset], notes: tuple[Note, ...]) -> Dataset:
    dataset = load()
    own = (n for n in dataset.notes if n.kind not in (kinds.EMPTY_LISTS, kinds.IN_NO_LIST))  # a closer look was taken
    return replace(dataset, notes=(*own, *notes))
