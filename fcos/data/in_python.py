"""A data set whose annotations a Python program holds: a row for each image."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import numpy as np

from ..errors import DataError, did_you_mean
from ..foreign import as_corners
from ..system.names import UNKNOWN, find_class
from ..system.terminal import plural
from ..types import Classes, class_names
from . import kinds
from .dataset import Dataset
from .formats.common.assemble import ImageFile, Problems, Rows, assemble, check_classes


class Row(TypedDict):
    """One image: its file; the corners x1, y1, x2, y2 of its objects [G,4] in pixels of the image as displayed; the
    class of each [G], a name, or a number where the classes are named apart; whether it is to be ignored [G], as
    crowds and difficult objects are. Lists, arrays or tensors."""

    image: str | os.PathLike[str]
    boxes: Any
    labels: Any
    ignore: NotRequired[Any]


def dataset_of(
    rows: Iterable[Mapping[str, Any]], split: str = "all", *, classes: Sequence[str] = (), strict: bool = False
) -> Dataset:
    """The rows as a data set; see `Row`. `classes`: names in the order of the labels; left out, all names that occur,
    by alphabet. Objects of other names are left out, with a note; with `strict`, DataError for one that only differs in
    upper case, spaces and the like. Boxes and images are checked as those of a file."""
    if not isinstance(rows, Iterable):
        raise DataError(f"a data set is a path or rows with image, boxes and labels, not {type(rows).__name__}")
    given = [_checked(k, row) for k, row in enumerate(rows)]
    classes = class_names(classes, DataError)
    names = classes or _names(given)
    root = _root([Path(row["image"]) for row in given])
    number: dict[str | int, int] = {name: k for k, name in enumerate(names)}
    number |= {k: k for k in range(len(names))} if classes else {}
    for k, row in enumerate(given):
        unknown = next((x for x in row["labels"] if isinstance(x, int) and x not in number), None)
        if unknown is not None:
            fix = f"there are {plural(len(names), 'class')}" if classes else "name them: classes=[...]"
            raise DataError(f"row {k} ({row['image']}): the label {unknown} is no class; {fix}")
    if not given:
        raise DataError("there is no row, so there is no image")
    check_classes(names, root)
    problems = Problems(root, strict)
    flat = _flat(given, number)
    _tell_unlisted(given, names, problems)
    files = [Path(row["image"]) for row in given]
    images = [ImageFile(k, _name(file, root), file, None) for k, file in enumerate(files, 1)]
    records = assemble(images, flat.select(flat.labels >= 0), problems)
    ids = tuple(range(1, len(names) + 1))
    return Dataset(records, Classes(names, ids), "python", split, root, problems.notes())


def _flat(given: Sequence[Row], number: Mapping[str | int, int]) -> Rows:
    """The objects of all rows, with the `number` of their class, -1 where it has none."""
    labels = [x for row in given for x in row["labels"]]
    place = [k for row in given for k in range(len(row["labels"]))]
    return Rows(
        np.repeat(np.arange(len(given)), [len(row["labels"]) for row in given]),
        np.concatenate([np.zeros((0, 4)), *(row["boxes"] for row in given)]),
        np.array([number.get(x, -1) for x in labels], dtype=np.int64),
        np.concatenate([np.zeros(0, bool), *(row.get("ignore", ()) for row in given)]),
        np.full(len(labels), np.nan),
        lambda k: f"object {place[k] + 1} ({labels[k]})",
    )


def _tell_unlisted(given: Sequence[Row], names: Sequence[str], problems: Problems) -> None:
    """Note the names of objects that are left out: those that nobody chose, and those that may be a slip."""
    counts = Counter(x for row in given for x in row["labels"] if isinstance(x, str))
    for name in [name for name in counts if name not in names]:
        near = find_class(name, names)
        if near == UNKNOWN:
            problems.note(kinds.NOT_CHOSEN, repr(name), counts[name])
        else:
            problems.skip(kinds.UNLISTED, f"{name!r}; did you mean {names[near]!r}?", counts[name])


def _checked(k: int, row: Mapping[str, Any]) -> Row:
    """A row with boxes [G,4] float64, labels as a list and ignore [G] bool; DataError for anything else."""
    if not isinstance(row, Mapping):
        raise DataError(f"row {k} is a {type(row).__name__}; give a mapping with image, boxes and labels")
    keys = [*Row.__annotations__]
    hint = f"there are: {', '.join(keys)}"
    for key in row:
        if key not in keys:
            raise DataError(f"row {k} has a key {key!r}; {did_you_mean(str(key), keys, hint)}")
    missing = [key for key in keys[:3] if key not in row]
    if missing:
        raise DataError(f"row {k} has no {missing[0]}; it needs {', '.join(keys[:3])}")
    image = row["image"]
    if not isinstance(image, str | os.PathLike):
        raise DataError(f"row {k}: image is a {type(image).__name__}; give the path of a file")
    where = f"row {k} ({os.fspath(image)})"
    labels = [_label(where, x) for x in _listed(where, "labels", row["labels"])]
    boxes = _boxes(where, row["boxes"])
    marks = _listed(where, "ignore", row.get("ignore", [False] * len(labels)))
    if not all(isinstance(mark, bool | int | np.bool_ | np.integer) and int(mark) in (0, 1) for mark in marks):
        raise DataError(f"{where}: ignore is not a list of True and False, one for each box")
    ignore = np.array(marks, dtype=bool)
    if not len(boxes) == len(labels) == len(ignore):
        counts = f"{len(boxes)} boxes, {len(labels)} labels and {len(ignore)} ignore"
        raise DataError(f"{where}: {counts}; give as many of each")
    return cast(Row, {"image": image, "boxes": boxes, "labels": labels, "ignore": ignore})


def _listed(where: str, key: str, given: Any) -> list[Any]:
    """The values of a list, array or tensor."""
    values = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise DataError(f"{where}: {key} is a {type(given).__name__}; give a list, one for each box")
    return list(values)


def _label(where: str, label: Any) -> str | int:
    if isinstance(label, bool | np.bool_) or not isinstance(label, str | int | np.integer):
        raise DataError(f"{where}: a label is {label!r}; give the name of a class, or its number")
    return label if isinstance(label, str) else int(label)


def _boxes(where: str, given: Any) -> np.ndarray:
    """[G,4] float64."""
    try:
        values = _listed(where, "boxes", as_corners(given))
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None
    try:
        boxes = np.array([[float(v) for v in box] for box in values], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        boxes = np.zeros(1)
    if not values:
        return np.zeros((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(f"{where}: boxes are not rows of four numbers; give x1, y1, x2, y2 of each, in pixels")
    return boxes


def _names(rows: Sequence[Row]) -> tuple[str, ...]:
    """All names that occur."""
    return tuple(sorted({x for row in rows for x in row["labels"] if isinstance(x, str)}))


def _root(images: Sequence[Path]) -> Path:
    """The folder that holds all images."""
    try:
        return Path(os.path.commonpath([os.path.abspath(path.parent) for path in images]))
    except ValueError:  # none at all, or on two drives
        return Path(".")


def _name(image: Path, root: Path) -> str:
    path = Path(os.path.abspath(image))
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
