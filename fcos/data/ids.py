"""Ids of annotation and results files: which of them mean the same, and the number that each image has here.

JSON knows 3, 3.0, "3" and "03". The first two are one number. A text is read as the number that it spells where nothing
else in the file has that number; otherwise it stays apart, under a number of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Id = int | str
_DIGITS = re.compile(r"-?[0-9]{1,18}")  # of ASCII only


def id_of(value: Any) -> Id | None:
    """A JSON value as an id: whole numbers as int, text as it is; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value


def spelled(key: Id) -> int | None:
    """The number that an id is or spells."""
    if isinstance(key, int):
        return key
    return int(key) if _DIGITS.fullmatch(key) else None


def settle(ids: Iterable[Id]) -> dict[Id, int]:
    """A number for each different id, all different: numbers keep theirs, texts get the one that they spell where it
    is free, the shortest spelling first, and all others the lowest that is free from 1 on."""
    every = list(dict.fromkeys(ids))
    numbers: dict[Id, int] = {i: i for i in every if isinstance(i, int)}
    taken = set(numbers.values())
    texts = [i for i in every if isinstance(i, str)]
    for text in sorted(texts, key=len):
        number = spelled(text)
        if number is not None and number not in taken:
            numbers[text] = number
            taken.add(number)
    free = 1
    for text in texts:
        if text not in numbers:
            while free in taken:
                free += 1
            numbers[text] = free
            taken.add(free)
    return numbers


def look_up(value: Any, table: Mapping[Id, int], missing: int) -> int:
    """What `table` has for an id of a file: under its own spelling, else, for a text, under the number it spells."""
    key = id_of(value)
    if key is None:
        return missing
    entry = table.get(key)
    if entry is None and isinstance(key, str) and str(number := spelled(key)) == key:
        entry = table.get(number)  # type: ignore[arg-type]
    return missing if entry is None else entry


def images_file(coco: Path) -> Path:
    """The list of images, with their ids and the classes, beside a file of COCO results: found.images.json."""
    return coco.with_name(f"{coco.stem}.images.json")
