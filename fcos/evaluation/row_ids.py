"""Which image and which class of a data set a row of a results file means, and what looks wrong with its numbers."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data.classes import match_classes
from ..data.formats.common.lists import Named
from ..data.formats.common.misread import misread
from ..data.ids import Id, id_of, images_file, look_up
from ..data.records import evenly
from ..errors import DataError
from ..overlap import iou
from ..system.names import UNKNOWN
from ..system.readers import read_json
from ..system.terminal import plural, some
from ..types import Classes

if TYPE_CHECKING:
    from ..data.dataset import Dataset

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
LEFT_OUT = -2  # of a row: its image or class is known, but is not judged
_LOOKED_AT = 500  # images in which classes that are off by one are looked for
_TOGETHER = 60.0  # seconds within which results and the list beside them are written, or copied
_LEAST = 10  # boxes on objects below which they tell nothing


def warn(text: str) -> None:
    """A UserWarning, which the command line shows as a line."""
    warnings.warn(text, UserWarning, stacklevel=3)


def has_ids(dataset: Dataset) -> bool:
    """Whether the ids of images and classes are those of a file; else they are counted here."""
    return dataset.format == "coco"


def names_beside(path: str | Path) -> tuple[dict[Id | None, str], dict[Id | None, str]]:
    """Names of files and of classes by their ids, of the list that `fcos predict --coco` writes beside its results;
    empty where there is none. A UserWarning tells of one that is older than the results."""
    file = images_file(Path(path))
    told = read_json(file, kind=DataError) if file.is_file() else None
    if told is not None and file.stat().st_mtime < Path(path).stat().st_mtime - _TOGETHER:
        warn(f"{path}: its images and classes go by {file}, which is older; remove that if it is of other results")

    def texts(key: str, name: str) -> dict[Id | None, str]:
        listed = told.get(key) if isinstance(told, dict) else None
        rows = [row for row in listed if isinstance(row, dict)] if isinstance(listed, list) else []
        return {id_of(row.get("id")): row[name] for row in rows if isinstance(row.get(name), str)}

    return texts("images", "file_name"), texts("categories", "name")


def records_by_name(path: str | Path, names: Sequence[str | None], dataset: Dataset) -> Ints | None:
    """The number of the record that each name of a file means, LEFT_OUT for one that the data does not have; None where
    a name is missing, one fits several records, or none fits any. Folders and suffixes may differ as in lists of images
    (`Named`), a suffix only where no other name means the record."""
    if None in names:
        return None
    called = [record.file_name for record in dataset.records]
    known = Named(called)
    found: dict[str | None, int] = {}
    exact: dict[str | None, bool] = {}  # whether the record is called so to the letter
    for name in dict.fromkeys(names):
        asked = (name or "").replace("\\", "/")
        fit = known.nearest(asked)
        same = [k for k in fit if called[k].rpartition("/")[2] == asked.rpartition("/")[2]]
        if len(same or fit) > 1:
            return None
        found[name] = (same or fit)[0] if fit else LEFT_OUT
        exact[name] = bool(same)
    meant = Counter(found.values())
    found |= {name: LEFT_OUT for name, record in found.items() if meant[record] > 1 and not exact[name]}
    other = [str(name) for name, record in found.items() if record == LEFT_OUT]
    if len(other) == len(found):
        return None
    numbers = np.array([found[name] for name in names], np.int64)
    if other:
        count = plural(int((numbers == LEFT_OUT).sum()), "row")
        warn(f"{path}: {count} left out, of images that {dataset.root} does not have: {some(other)}")
    return numbers


def records_by_id(path: str | Path, image: Sequence[Any], dataset: Dataset) -> Ints:
    """The number of the record that each id of an image means; LEFT_OUT for one that is listed but not there."""
    records = dataset.records
    place: dict[Id, int] = {record.id: i for i, record in enumerate(records)}
    place |= {alias: place[id] for alias, id in dataset.aliases.items() if id in place}
    position = _places(image, dict.fromkeys(dataset.absent.difference(place), LEFT_OUT) | place)
    if gone := int((position == LEFT_OUT).sum()):
        warn(
            f"{path}: {plural(gone, 'row')} left out, of images that {dataset.root} lists, but that are missing or "
            "cannot be read"
        )
    first = "" if has_ids(dataset) else f", counted by their names: {records[0].id} is {records[0].file_name}"
    _check_known(path, "image_id", image, position, f"{plural(len(records), 'image')} of the data set{first}")
    if not has_ids(dataset):
        numbered = {int(stem): r for r in records if (stem := Path(r.file_name).stem).isdecimal()}
        used = [id_of(i) for i in dict.fromkeys(image)]
        other = next((numbered[i] for i in used if i in numbered and numbered[i].id != i), None)
        if other is not None and all(i in numbered for i in used):
            warn(
                f"{path}: the images may be confused: {dataset.root} counts its images by their names, so "
                f"{other.file_name} is {other.id} here; give each row a file_name"
            )
    return position


def labels_by_name(
    path: str | Path, category: Sequence[Any], names: dict[Id | None, str], data: Dataset
) -> Ints | None:
    """The label of each id of a class by its name, LEFT_OUT for one that the data does not have; None where one has no
    name, or the data has none of them."""
    used = dict.fromkeys(map(id_of, category))
    if not used or not all(i in names for i in used):
        return None
    called = tuple(dict.fromkeys(names[i] for i in used))
    known = dict(zip(called, match_classes(Classes(called), data.classes, allow_missing=True).tolist(), strict=True))
    other = [name for name, label in known.items() if label == UNKNOWN]
    if len(other) == len(known):
        return None
    labels = np.array([known[names[id_of(i)]] for i in category], np.int64)
    if other:
        count = plural(int((labels == UNKNOWN).sum()), "row")
        warn(f"{path}: {count} left out, of classes that {data.root} does not have: {some(other)}")
    return np.where(labels == UNKNOWN, LEFT_OUT, labels)


def labels_by_id(path: str | Path, category: Sequence[Any], dataset: Dataset) -> Ints:
    """The label of each id of a class. Where the data has no ids they count from 0, or from 1 if the file does so."""
    classes = dataset.classes
    used = dict.fromkeys(map(id_of, category))
    zero = not has_ids(dataset) and classes.ids[0] == 0
    first = 1 if zero and len(classes) in used and 0 not in used else 0
    if first:
        warn(f"{path}: its classes are counted from 1: {first} is {classes.names[0]}")
    labels = _places(category, {number + first: k for k, number in enumerate(classes.ids)})
    among = f"classes of the data set (ids {some(classes.ids)}: {some(classes.names)})"
    _check_known(path, "category_id", category, labels, among)
    return labels


def odd_boxes(boxes: Floats, sizes: Floats, position: Ints) -> str:
    """What boxes [D,4] (x, y, width, height) look like that are something else, in images `position` [D] of `sizes`
    [D,2] (height, width); "" where they look well."""
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    found = misread(corners, sizes, position, "xywh")
    return "" if found is None else f"{found[0].many}; a bbox is [x, y, width, height] in pixels"


def odd_classes(position: Ints, labels: Ints, boxes: Floats, dataset: Dataset) -> str:
    """That classes look off by one: most objects have the class before or behind that of the first box [D,4] (xyxy) on
    them, best boxes first, and hardly any the same; "" where they do not."""
    order = np.argsort(position, kind="stable")
    edges = np.searchsorted(position[order], np.arange(len(dataset) + 1))
    offs: Counter[int] = Counter()
    for i in evenly(len(dataset), _LOOKED_AT).tolist():
        record, rows = dataset.records[i], order[edges[i] : edges[i + 1]]
        if not len(rows):
            continue
        on = iou(record.boxes[:, None].astype(np.float64), boxes[rows][None]) >= 0.5
        found = on.any(axis=1)
        offs.update((labels[rows[on[found].argmax(axis=1)]] - record.labels[found]).tolist())
    off, count = max(((k, offs[k]) for k in (1, -1)), key=lambda pair: pair[1])
    if count < _LEAST or count <= max(3 * offs[0], offs.total() / 2):
        return ""
    change = "one less" if off > 0 else "one more"
    told = f"{count:,} of {offs.total():,} objects that were found would have their class if category_id were {change}"
    return f"{told}; here classes are counted from {dataset.classes.ids[0]}"


def _places(ids: Sequence[Any], table: dict[Id, int]) -> Ints:
    """Look up each id of the file in `table`; -1 for an id that it does not have."""
    return np.array([table.get(i, -1) if type(i) is int else look_up(i, table, -1) for i in ids], np.int64)


def _check_known(path: str | Path, key: str, values: Sequence[Any], indices: Ints, among: str) -> None:
    bad = np.flatnonzero(indices == -1)
    if len(bad):
        unknown = list(dict.fromkeys(values[i] for i in bad.tolist()))
        raise DataError(
            f"{path}: {plural(len(bad), 'row')} with {plural(len(unknown), f'unknown {key}')} ({some(unknown)}), "
            f"not among the {among}"
        )
