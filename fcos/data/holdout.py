"""Hold some of the training images out to judge by, near-duplicates on one side."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..errors import DataError
from ..system.terminal import plural
from .dataset import Dataset
from .splits import name_of


def draw_holdout(dataset: Dataset, share: float, seed: int, together: Sequence[Sequence[int]] = ()) -> list[str]:
    """File names of `share` (0..1) of the images, at least one; the same for the same names, labels and seed.

    Each class has about that share of its images among them, rarest first; the last image of a class stays where it
    is learned. The order of the data does not matter, and an image that is listed twice falls on one side, as do those
    whose numbers are in one group of `together` (near-duplicates). DataError when nothing with boxes would be left on
    one of the sides.
    """
    if not 0 < share < 1:
        raise DataError(f"--holdout {share:g} is not a share of the images; give one between 0 and 1, such as 0.1")

    def lot(unit: set[str]) -> bytes:
        return hashlib.sha256(f"{seed}/{min(unit)}".encode()).digest()

    units = sorted(units_of(dataset, together, 3), key=lot)
    draw = _Draw(_classes_of(dataset), share)
    showing: dict[int, list[set[str]]] = defaultdict(list)
    for unit in units:
        for label in {label for name in unit for label in draw.shown[name]}:
            showing[label].append(unit)
    for label in sorted(draw.wanted, key=lambda k: (draw.learned[k], k)):
        for unit in showing[label]:
            if draw.wanted[label] < 0.5 or not draw.room:
                break
            draw.take(unit)
    for spare in (True, False):  # rather a class that is judged alone than too few images
        for unit in units:
            draw.take(unit, spare=spare)
    for part in hold_out(dataset, draw.held):
        if not any((~r.ignore).any() for r in part.records):
            shown = sum(bool((~r.ignore).any()) for r in dataset.records)
            fix = "give another share or another seed" if shown > 1 else "it takes two images with boxes at least"
            raise DataError(
                f"--holdout {share:g} of the {plural(len(dataset), 'image')} of {dataset.root} leaves one side "
                f"without boxes; {fix}"
            )
    return sorted(draw.held)


class _Draw:
    """The images held out so far, and how many of each class (-1: those without boxes) are still learned and wanted."""

    def __init__(self, shown: Mapping[str, frozenset[int]], share: float) -> None:
        self.shown = shown
        self.learned = Counter(label for labels in shown.values() for label in labels)
        self.wanted = {label: share * count for label, count in self.learned.items()}
        self.room = max(1, round(share * len(shown)))
        self.held: set[str] = set()

    def take(self, unit: set[str], *, spare: bool = True) -> None:
        """Hold the images of `unit` out if there is room for all; with `spare`, never the last image of a class."""
        if len(unit) > self.room or unit <= self.held:
            return
        taken = Counter(label for name in unit for label in self.shown[name])
        if spare and any(label >= 0 and self.learned[label] <= count for label, count in taken.items()):
            return
        self.held |= unit
        self.room -= len(unit)
        self.learned.subtract(taken)
        for label, count in taken.items():
            self.wanted[label] -= count


def units_of(dataset: Dataset, together: Sequence[Sequence[int]], parts: int) -> list[set[str]]:
    """The names of the images, those that belong on one side in one set. A group of `together` larger than
    1 / `parts` of all images (the frames of one film) is ignored: it would fill a whole part."""
    names = [name_of(r) for r in dataset.records]
    unit = {name: {name} for name in names}
    for group in together:
        joined = set().union(*(unit[names[i]] for i in group))
        if parts * len(joined) <= len(unit):
            unit |= dict.fromkeys(joined, joined)
    return list({id(members): members for members in unit.values()}.values())


def parted(
    dataset: Dataset, together: Sequence[Sequence[int]], *parts: Iterable[str], so: str = "AP will be too high"
) -> str:
    """A line, ending in `so`, where images that show the same, a group of `together`, are on several sides: the names
    of each of `parts`, and all other images. Empty where none are."""
    names = [name_of(r) for r in dataset.records]
    side = {name: number for number, part in enumerate(parts) for name in part}
    torn = [group for group in together if len({side.get(names[i], -1) for i in group}) > 1]
    if not torn:
        return ""
    largest = max(torn, key=len)
    return (
        f"{plural(len(largest), 'image')} that show the same, such as {names[largest[0]]}, are too many to stay "
        f"together: some are learned from and some judge, so {so}"
    )


def _classes_of(dataset: Dataset) -> dict[str, frozenset[int]]:
    """The labels on each image by name, -1 for one without boxes."""
    shown: dict[str, frozenset[int]] = {}
    for record in dataset.records:
        labels = frozenset(int(x) for x in np.unique(record.labels[~record.ignore]))
        shown[name_of(record)] = shown.get(name_of(record), frozenset()) | labels
    return {name: labels or frozenset((-1,)) for name, labels in shown.items()}


def called_now(dataset: Dataset, names: Iterable[str]) -> set[str]:
    """What the images that a run called `names` are called in `dataset`. Runs of 1.0.0 called those of shards by their
    place, train/000000.tar/a.jpg."""
    held = set(names)
    missing = {name for name in held if ".tar" in name}.difference(name_of(r) for r in dataset.records)
    found: dict[str, list[str]] = defaultdict(list)
    for record in dataset.records if missing else ():
        parts = record.path.parts if record.path is not None else ()
        for end in missing.intersection("/".join(parts[start:]) for start in range(1, len(parts))):
            found[end].append(name_of(record))
    return {one for name in held for one in (found[name] if len(found.get(name, ())) == 1 else [name])}


def hold_out(dataset: Dataset, names: Iterable[str]) -> tuple[Dataset, Dataset]:
    """(the rest, the images called `names`). DataError when one of them is not there."""
    held = called_now(dataset, names)
    called = [name_of(r) for r in dataset.records]
    missing = held.difference(called)
    if missing:
        raise DataError(
            f"{dataset.root}: {len(missing)} of the images that the run held out are gone, such as {min(missing)}"
        )
    return (
        dataset.subset([k for k, name in enumerate(called) if name not in held]),
        replace(dataset.subset([k for k, name in enumerate(called) if name in held]), split="holdout", notes=()),
    )
