"""Open Images CSV: ImageID, LabelName and corners in shares of the image; IsGroupOf marks regions to ignore.

Defined at https://storage.googleapis.com/openimages/web/download_v7.html; names of the classes stand in
class-descriptions-boxable.csv (LabelName,DisplayName).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ...errors import DataError
from ...system.files import csv_text
from ...system.terminal import plural
from ...types import Classes
from ..dataset import Dataset, Sources
from ..probe import Probe
from ..registry import Format, ReadOptions
from ..tree import Tree
from .common.pages import Object, Page, Reading
from .common.values import number, yes
from .common.writing import Output, need_images, shares, stems_of
from .csv import read_rows

_NEEDED = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")
_HEAD = (
    *("ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax"),
    *("IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside"),
)


def _sniff(probe: Probe) -> bool:
    head = probe.lines[0].split(",") if probe.lines else []
    return all(name in head for name in _NEEDED)


def _sources(tree: Tree, files: list[Path], options: ReadOptions) -> Sources:
    described = _descriptions(tree)

    def classes(reading: Reading) -> Classes:
        seen = map(str, reading.seen)
        names = tuple(dict.fromkeys([*described.values(), *sorted(seen)]))
        return Classes(names, tuple(range(1, len(names) + 1)))

    return Reading("openimages", tree, files, partial(_parse, described), options.strict, classes=classes).sources()


def _descriptions(tree: Tree) -> dict[str, str]:
    named: dict[str, str] = {}
    for file in tree.annotations:
        if file.suffix.lower() == ".csv" and "class-descriptions" in file.name.lower():
            for row in read_rows(file):
                if len(row) == 2 and row[0] != "LabelName":
                    named.setdefault(row[0].strip(), row[1].strip())
    return named


def _parse(described: dict[str, str], file: Path) -> list[Page]:
    rows = read_rows(file)
    if not rows or not all(name in rows[0] for name in _NEEDED):
        raise DataError(f"{file} has no columns {', '.join(_NEEDED)}")
    at = {name: rows[0].index(name) for name in (*_NEEDED, "IsGroupOf") if name in rows[0]}
    objects: dict[str, list[Object]] = {}
    for line, row in enumerate(rows[1:], 2):
        cell = {name: row[place] if place < len(row) else "" for name, place in at.items()}
        if not cell["ImageID"].strip():
            raise DataError(f"{file}: row {line} names no image")
        label = cell["LabelName"].strip()
        x1, y1, x2, y2 = (number(cell[key]) for key in ("XMin", "YMin", "XMax", "YMax"))
        group = yes(cell.get("IsGroupOf"))
        item = Object(described.get(label, label), (x1, y1, x2, y2), group, where=f"row {line}")
        objects.setdefault(cell["ImageID"].strip(), []).append(item)
    return [Page(f"{name}.jpg", None, boxes, shares=True) for name, boxes in objects.items()]


def _write(splits: Mapping[str, Dataset], output: Output) -> list[str]:
    need_images(splits, "Open Images")
    names = output.classes.names
    codes = [f"/c/{k:04d}" for k in range(len(names))]
    empty = 0
    stems, renamed = stems_of(splits)
    for split, dataset in splits.items():
        rows: list[list[object]] = [[*_HEAD]]
        for index, record in enumerate(dataset.records):
            stem, suffix = stems[split, index]
            empty += not len(record.boxes)
            for box, label, ignore in output.rows(record, cut=True):
                x1, y1, x2, y2 = (f"{v:.8f}" for v in shares(box, record))
                rows.append([stem, "fcos", codes[label], 1, x1, x2, y1, y2, 0, 0, int(ignore), 0, 0])
            output.image(record, f"{split}/{stem}{suffix}")
        if len(rows) > 1:  # a table without a row is of no split
            output.text(f"{split}-annotations-bbox.csv", csv_text(rows))
    described = [("LabelName", "DisplayName"), *zip(codes, names, strict=True)]
    output.text("class-descriptions-boxable.csv", csv_text(described))
    lost = ["Open Images: image ids, class ids and areas are not kept; boxes are cut at the edge of their image"]
    if empty:
        told = "copied, and in no table, as the format has no row for them"
        lost.append(f"Open Images: {plural(empty, 'image')} without objects {told}")
    if renamed:
        lost.append(f"Open Images: {plural(renamed, 'image')} with a new name, as an ImageID has no folder")
    ignored = sum(int(r.ignore.sum()) for d in splits.values() for r in d.records)
    return lost + ([f"Open Images: {ignored:,} crowd or difficult boxes carry IsGroupOf"] if ignored else [])


FORMAT = Format("openimages", "Open Images CSV", (".csv",), _sniff, _sources, _write)
