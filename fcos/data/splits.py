"""A validation part for data that has none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..errors import DataError
from .dataset import Dataset, Record


def draw_holdout(dataset: Dataset, share: float, seed: int) -> list[str]:
    """File names of `share` (0..1) of the pictures, at least one; the same for the same names and seed.

    The order of the data does not matter, and a picture that is listed twice falls on one side. DataError when
    nothing with boxes would be left on one of the sides.
    """
    if not 0 < share < 1:
        raise DataError(f"--holdout {share:g} is not a share of the pictures; give one between 0 and 1, such as 0.1")
    names = sorted({name_of(r) for r in dataset.records}, key=lambda n: hashlib.sha256(f"{seed}/{n}".encode()).digest())
    held = names[: max(1, round(share * len(names)))]
    for part in hold_out(dataset, held):
        if not any((~r.ignore).any() for r in part.records):
            raise DataError(
                f"--holdout {share:g} of the {len(dataset)} pictures of {dataset.root} leaves one side without boxes; "
                "give another share or another train.seed"
            )
    return sorted(held)


def hold_out(dataset: Dataset, names: Iterable[str]) -> tuple[Dataset, Dataset]:
    """(the rest, the pictures called `names`). DataError when one of them is not there."""
    held = set(names)
    missing = held - {name_of(r) for r in dataset.records}
    if missing:
        raise DataError(
            f"{dataset.root}: {len(missing)} of the pictures that the run held out are gone, such as {min(missing)}"
        )
    return (
        replace(dataset, records=_records(dataset.records, held, False)),
        replace(dataset, records=_records(dataset.records, held, True), split="holdout", notes=()),
    )


def name_of(record: Record) -> str:
    """What a picture is called in its data set."""
    return record.file_name or (str(record.path) if record.path is not None else str(record.id))


def _records(records: Sequence[Record], held: set[str], inside: bool) -> tuple[Record, ...]:
    return tuple(r for r in records if (name_of(r) in held) is inside)


TAUGHT = ("train", "trainval")  # from which splits to learn, and in which to judge, unless one is named
JUDGED = ("test", "val")


def default_split(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first of `wanted` among `names`, else the only one; None where one has to be chosen."""
    only = names[0] if len(names) == 1 else None
    return next((name for name in wanted if name in names), only)


ALIASES = {"valid": "val", "validation": "val", "training": "train", "testing": "test"}


def canonical_split(name: str) -> str:
    """'valid' -> 'val' and the like; other names as they are, in lower case."""
    return ALIASES.get(name.lower(), name.lower())
