"""CSV with a row for each box: filename, width, height, class, xmin, ymin, xmax, ymax, as tutorials of TensorFlow have
it, under the usual other names of columns too, or without names as keras-retinanet has it (path,x1,y1,x2,y2,class). A
box may also be a corner, width and height, or a column `bbox` with [x, y, width, height]. Without a column of classes
all are "object".

Defined by nobody; see https://github.com/datitran/raccoon_dataset and https://github.com/fizyr/keras-retinanet. Corners
are taken as they are; where all of a file lie in 0..1 they are shares of the image. A row with empty fields is an image
without objects.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...system.files import csv_text
from ...system.readers import read_text
from ...system.terminal import plural
from ...types import Classes
from ..dataset import Dataset, Sources
from ..probe import Probe
from ..registry import Format, ReadOptions
from ..tree import Tree
from .common.pages import Box, Object, Page, Reading, listed_classes
from .common.values import number, size, yes
from .common.writing import Output, names_of, short

_LIMIT = 4096 << 20
COLUMNS = {
    "name": ("filename", "file_name", "image", "image_path", "path", "file", "image_name", "img", "image_id"),
    "label": ("class", "label", "class_name", "name", "category", "classname", "label_name", "category_name"),
    "x1": ("xmin", "x1", "x_min", "left", "xtl", "bbox_x1", "bbox_xmin", "bbox_x", "x"),
    "y1": ("ymin", "y1", "y_min", "top", "ytl", "bbox_y1", "bbox_ymin", "bbox_y", "y"),
    "x2": ("xmax", "x2", "x_max", "right", "xbr", "bbox_x2", "bbox_xmax"),
    "y2": ("ymax", "y2", "y_max", "bottom", "ybr", "bbox_y2", "bbox_ymax"),
    "width": ("width", "image_width", "img_width"),
    "height": ("height", "image_height", "img_height"),
    "ignore": ("ignore", "difficult", "iscrowd"),
    "w": ("bbox_width", "bbox_w", "box_width", "w"),
    "h": ("bbox_height", "bbox_h", "box_height", "h"),
    "box": ("bbox",),
}  # fmt: skip
_COMMA = re.compile(r"\d+,(\d{1,2}|\d{4,})")  # with a comma for decimals; 1,024 may be a thousand
_ALONE = "object"  # the class where no column names one
_CORNERS = ("x1", "y1", "x2", "y2")
_SIDES = ("x1", "y1", "w", "h")


def _columns(head: Sequence[str]) -> dict[str, int]:
    lower = [name.strip().lower() for name in head]
    columns = {}
    for key, names in COLUMNS.items():
        at = next((lower.index(name) for name in names if name in lower), None)
        if at is not None:
            columns[key] = at
    if {"x1", "y1", "width", "height"} <= set(columns) and not {"x2", "w"} & set(columns):
        columns["w"], columns["h"] = columns.pop("width"), columns.pop("height")  # of the box, then
    return columns


def _missing(columns: Mapping[str, int]) -> list[str]:
    """The columns that a file of boxes needs besides, by the way of giving a box that is nearest."""
    ways = [[key for key in ("name", *way) if key not in columns] for way in (_CORNERS, _SIDES, ("box",))]
    return min(ways, key=len)


def _bare(row: Sequence[str]) -> bool:
    """path,x1,y1,x2,y2,class without names of columns."""
    numbers = [number(v) for v in row[1:5]]
    return len(row) == 6 and "." in row[0] and (all(v == v for v in numbers) or not any(row[1:]))


def _sniff(probe: Probe) -> bool:
    rows = list(_rows("\n".join(probe.lines[:3])))
    return bool(rows) and (not _missing(_columns(rows[0])) or all(_bare(row) for row in rows))


def _rows(text: str) -> Any:
    lines = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=lines.count)
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)


def _sources(tree: Tree, files: list[Path], options: ReadOptions) -> Sources:
    reading = Reading("csv", tree, files, _parse, options.strict, classes=_classes)
    listed = listed_classes(reading)
    reading.parse = partial(_numbered, set(listed.names)) if listed is not None else _parse
    return reading.sources()


def _classes(reading: Reading) -> Classes | None:
    """Those of a list beside the file. Where that has numbers, they count its lines: from 0, or from 1 if there is no 0
    and the last line is meant."""
    listed = listed_classes(reading)
    numbers = [name for name in reading.seen if isinstance(name, int)]
    if listed is None or not numbers:
        return listed
    first = int(min(numbers) > 0 and max(numbers) == len(listed))
    return Classes(listed.names, tuple(range(first, first + len(listed))))


def _numbered(names: Set[str], file: Path) -> list[Page]:
    """The pages of a file beside a list of `names`; its classes as numbers where all are, and none is a name."""
    pages = _parse(file)
    seen = {str(o.name) for page in pages for o in page.objects} - {""}
    if not seen or seen & names or not all(name.isdecimal() and len(name) < 7 for name in seen):
        return pages
    return [
        page._replace(objects=[o._replace(name=int(o.name) if o.name != "" else "") for o in page.objects])
        for page in pages
    ]


def read_rows(file: Path) -> list[list[str]]:
    """The rows of a CSV file, without empty ones."""
    try:
        return [row for row in _rows(read_text(file, _LIMIT, DataError)) if any(row)]
    except csv.Error as error:
        raise DataError(f"{file} is not CSV: {error}") from None


def _parse(file: Path) -> list[Page]:
    rows = read_rows(file)
    if not rows:
        raise DataError(f"{file} is empty")
    at = _columns(rows[0])
    start = 1
    if missing := _missing(at):
        if not _bare(rows[0]):
            wanted = "; ".join(f"none for {key} ({', '.join(COLUMNS[key][:4])} ...)" for key in missing)
            raise DataError(f"{file}: of the columns {', '.join(rows[0])[:200]} there is {wanted}; rename them")
        at, start = dict(zip(("name", "x1", "y1", "x2", "y2", "label"), range(6), strict=True)), 0
    pages: dict[str, Page] = {}
    objects: dict[str, list[Object]] = {}
    for line, row in enumerate(rows[start:], start + 1):
        cell = {key: row[place].strip() if place < len(row) else "" for key, place in at.items()}
        name = cell["name"]
        if not name:
            raise DataError(f"{file}: row {line} names no image")
        if name not in pages:
            objects[name] = []
            pages[name] = Page(name, size(cell.get("height"), cell.get("width")), objects[name])
        given = _given(cell)
        label = cell.get("label", _ALONE)
        if any(given) or cell.get("label"):
            objects[name].append(Object(label, _box(cell, given), yes(cell.get("ignore")), where=f"row {line}"))
    corners = [v for rows in objects.values() for o in rows for v in o.box]
    shares = any(0 < v < 1 for v in corners) and all(0 <= v <= 1 for v in corners)
    return [page._replace(shares=shares, form="xyxy" if "x2" in at else "xywh") for page in pages.values()]


def _given(cell: Mapping[str, str]) -> list[str]:
    """The four fields of a box, as texts."""
    if "x2" not in cell and "w" not in cell and "box" in cell:
        fields = cell["box"].strip("[]()").split(",")
        return fields if len(fields) == 4 else [cell["box"]] * 4
    return [cell[key] for key in (_CORNERS if "x2" in cell else _SIDES)]


def _box(cell: Mapping[str, str], given: Sequence[str]) -> Box:
    x1, y1, x2, y2 = (number(v.replace(",", ".") if _COMMA.fullmatch(v) else v) for v in given)
    return (x1, y1, x2, y2) if "x2" in cell else (x1, y1, x1 + x2, y1 + y2)


def _write(splits: Mapping[str, Dataset], output: Output) -> list[str]:
    output.labels()
    empty = 0
    ignored = sum(int(r.ignore.sum()) for d in splits.values() for r in d.records)
    head = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax", *(["ignore"] if ignored else [])]
    for split, dataset in splits.items():
        rows: list[list[object]] = [[*head]]
        for record, name in zip(dataset.records, names_of(dataset), strict=True):
            height, width = record.size
            for (x1, y1, x2, y2), label, ignore in output.rows(record):
                row = [name, width, height, output.classes.names[label], short(x1), short(y1), short(x2), short(y2)]
                rows.append([*row, int(ignore)] if ignored else row)
            if not len(record.boxes):
                empty += 1
                rows.append([name, width, height, *[""] * (len(head) - 3)])
            output.image(record, f"images/{split}/{name}")
        output.text(f"{split}_labels.csv", csv_text(rows))
    lines = ["CSV: image ids, class ids and areas are not kept; labels.txt holds the order of the classes"]
    if empty:
        lines.append(f"CSV: {plural(empty, 'image')} without objects: rows with empty fields, which some refuse")
    if ignored:
        lines.append(f"CSV: {ignored:,} crowd or difficult boxes have 1 in the column ignore, which tools do not know")
    return lines


FORMAT = Format("csv", "CSV", (".csv",), _sniff, _sources, _write)
