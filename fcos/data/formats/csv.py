"""CSV with a row for each box: filename, width, height, class, xmin, ymin, xmax, ymax, as tutorials of TensorFlow have
it, under the usual other names of columns too, or without names as keras-retinanet has it (path,x1,y1,x2,y2,class).

Defined by nobody; see https://github.com/datitran/raccoon_dataset and https://github.com/fizyr/keras-retinanet. Corners
are taken as they are. A row with empty fields is an image without objects.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...system.readers import read_text
from ...system.terminal import plural
from ..dataset import Dataset, Sources
from ..probe import Probe
from ..registry import Format, ReadOptions
from ..tree import Tree
from .common.pages import Object, Page, Reading, listed_classes
from .common.values import number, size, yes
from .common.writing import Output, names_of, short

_LIMIT = 4096 << 20
COLUMNS = {
    "name": ("filename", "file_name", "image", "image_path", "path", "file", "image_name", "img", "image_id"),
    "label": ("class", "label", "class_name", "name", "category", "classname", "label_name", "category_name"),
    "x1": ("xmin", "x1", "x_min", "left", "xtl", "bbox_x1", "bbox_xmin"),
    "y1": ("ymin", "y1", "y_min", "top", "ytl", "bbox_y1", "bbox_ymin"),
    "x2": ("xmax", "x2", "x_max", "right", "xbr", "bbox_x2", "bbox_xmax"),
    "y2": ("ymax", "y2", "y_max", "bottom", "ybr", "bbox_y2", "bbox_ymax"),
    "width": ("width", "image_width", "img_width"),
    "height": ("height", "image_height", "img_height"),
    "ignore": ("ignore", "difficult", "iscrowd"),
}  # fmt: skip
_NEEDED = ("name", "label", "x1", "y1", "x2", "y2")


def _columns(head: Sequence[str]) -> dict[str, int]:
    lower = [name.strip().lower() for name in head]
    columns = {}
    for key, names in COLUMNS.items():
        at = next((lower.index(name) for name in names if name in lower), None)
        if at is not None:
            columns[key] = at
    return columns


def _bare(row: Sequence[str]) -> bool:
    """path,x1,y1,x2,y2,class without names of columns."""
    numbers = [number(v) for v in row[1:5]]
    return len(row) == 6 and "." in row[0] and (all(v == v for v in numbers) or not any(row[1:]))


def _sniff(probe: Probe) -> bool:
    rows = list(_rows("\n".join(probe.lines[:3])))
    return bool(rows) and (all(key in _columns(rows[0]) for key in _NEEDED) or all(_bare(row) for row in rows))


def _rows(text: str) -> Any:
    lines = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=lines.count)
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)


def _sources(tree: Tree, files: list[Path], options: ReadOptions) -> Sources:
    return Reading("csv", tree, files, _parse, options.strict, classes=listed_classes).sources()


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
    if not all(key in at for key in _NEEDED):
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
        corners = [cell[key] for key in ("x1", "y1", "x2", "y2")]
        if any(corners) or cell["label"]:
            x1, y1, x2, y2 = (number(v) for v in corners)
            objects[name].append(Object(cell["label"], (x1, y1, x2, y2), yes(cell.get("ignore")), where=f"row {line}"))
    return list(pages.values())


def _write(splits: Mapping[str, Dataset], output: Output) -> list[str]:
    output.labels()
    empty = 0
    ignored = sum(int(r.ignore.sum()) for d in splits.values() for r in d.records)
    head = ["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax", *(["ignore"] if ignored else [])]
    for split, dataset in splits.items():
        buffer = io.StringIO(newline="")
        table = csv.writer(buffer, lineterminator="\n")
        table.writerow(head)
        for record, name in zip(dataset.records, names_of(dataset), strict=True):
            height, width = record.size
            for (x1, y1, x2, y2), label, ignore in output.rows(record):
                row = [name, width, height, output.classes.names[label], short(x1), short(y1), short(x2), short(y2)]
                table.writerow([*row, int(ignore)] if ignored else row)
            if not len(record.boxes):
                empty += 1
                table.writerow([name, width, height, *[""] * (len(head) - 3)])
            output.image(record, f"images/{split}/{name}")
        output.text(f"{split}_labels.csv", buffer.getvalue())
    lines = ["CSV: image ids, class ids and areas are not kept; labels.txt holds the order of the classes"]
    if empty:
        lines.append(f"CSV: {plural(empty, 'image')} without objects: rows with empty fields, which some refuse")
    if ignored:
        lines.append(f"CSV: {ignored:,} crowd or difficult boxes have 1 in the column ignore, which tools do not know")
    return lines


FORMAT = Format("csv", "CSV", (".csv",), _sniff, _sources, _write)
