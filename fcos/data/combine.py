"""Data sets parted and put together: a share held out, two sets as one, classes renamed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..errors import DataError, did_you_mean
from ..system.terminal import some
from ..types import Classes
from .dataset import Dataset, Note, merge
from .duplicates import alike
from .formats.common.pages import in_order
from .holdout import draw_holdout, hold_out, parted
from .kinds import Kind
from .splits import TAUGHT, name_of


def part_dataset(dataset: Dataset, shares: Mapping[str, float], seed: int) -> dict[str, Dataset]:
    """train, and a split of each of `shares` (0..1) of the images by its name, held out one after the other.

    By image, the same for the same names and seed; each class in proportion, by the images that show it; images that
    show the same fall on one side, and a UserWarning tells of a group that is too large for one. Every image is read
    once for that. Raises DataError as `draw_holdout`.
    """
    twins = alike([record.path for record in dataset.records])
    names = [name_of(record) for record in dataset.records]
    rest, numbers, left = dataset, list(range(len(dataset))), 1.0
    parts: dict[str, Dataset] = {}
    held: list[list[str]] = []
    for name, share in shares.items():
        place = {number: k for k, number in enumerate(numbers)}
        drawn = draw_holdout(rest, share / left, seed, [[place[i] for i in group if i in place] for group in twins])
        rest, part = hold_out(rest, drawn)
        parts[name] = replace(part, split=name)
        held.append(drawn)
        out = set(drawn)
        numbers = [number for number in numbers if names[number] not in out]
        left -= share
    if line := parted(dataset, twins, *held):
        warnings.warn(line, UserWarning, stacklevel=1)
    return {"train": replace(rest, split="train"), **parts}


def rename_classes(dataset: Dataset, names: Mapping[str, str]) -> Dataset:
    """The data set with new class names; a class that gets the name of another joins it. DataError for a name that
    is not there."""
    for old in names:
        if old not in dataset.classes.names:
            hint = did_you_mean(old, dataset.classes.names, f"there are: {some(dataset.classes.names, 20)}")
            raise DataError(f"{dataset.root}: there is no class {old!r} to rename; {hint}")
    new = [names.get(name, name) for name in dataset.classes.names]
    kept = list(dict.fromkeys(new))
    # A joined class keeps the id of the one whose name it takes.
    first = {name: k for k, name in reversed(list(enumerate(new)))}
    first |= {name: k for k, name in enumerate(dataset.classes.names) if names.get(name, name) == name}
    classes = Classes(tuple(kept), tuple(dataset.classes.ids[first[name]] for name in kept))
    return _relabelled(dataset, classes, np.array([kept.index(name) for name in new], dtype=np.int64))


def merge_sets(parts: Sequence[Mapping[str, Dataset]]) -> dict[str, Dataset]:
    """The splits of several data sets as one set: classes joined by name, splits by theirs.

    Class ids are those of the first set that has the class, or the next free one. Image ids that meet are numbered
    anew, with a note. A set without splits beside one that is split goes to what is learned from, with a note.
    """
    parts = _with_places(parts)
    names: dict[str, int] = {}
    for part in parts:
        for dataset in part.values():
            for name, id in zip(dataset.classes.names, dataset.classes.ids, strict=True):
                if name not in names:
                    names[name] = id if id not in names.values() else max(names.values()) + 1
    classes = Classes(tuple(names), tuple(names.values()))
    table = {name: k for k, name in enumerate(classes.names)}
    joined: dict[str, Dataset] = {}
    for split in in_order({name for part in parts for name in part}):
        same = [
            _relabelled(d, classes, np.array([table[n] for n in d.classes.names], dtype=np.int64))
            for part in parts
            for name, d in part.items()
            if name == split
        ]
        joined[split] = replace(merge(same), split=split)
    return joined


def _with_places(parts: Sequence[Mapping[str, Dataset]]) -> list[Mapping[str, Dataset]]:
    """The sets, each one without splits ("all") under the name of the split that it joins."""
    split = {name for part in parts if list(part) != ["all"] for name in part}
    if not split:
        return list(parts)
    place = next((name for name in TAUGHT if name in split), "all")
    placed: list[Mapping[str, Dataset]] = []
    for part in parts:
        if list(part) == ["all"]:
            whole = part["all"]
            told = f"{whole.root} has no splits: its images are in {place}; use fcos data split first"
            part = {place: replace(whole, split=place, notes=(*whole.notes, Note(Kind(told), len(whole))))}
        placed.append(part)
    return placed


def _relabelled(dataset: Dataset, classes: Classes, labels: np.ndarray) -> Dataset:
    """`labels` [C] int64: the new label of each old one."""
    records = dataset.packed.labelled(labels[dataset.packed.table.labels])
    return replace(dataset, records=records, classes=classes)
