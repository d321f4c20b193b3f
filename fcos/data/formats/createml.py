"""Create ML: a JSON list of images with boxes by their centre, in pixels.

Defined at https://developer.apple.com/documentation/createml/building-an-object-detector-data-source.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...system.readers import read_json
from ..dataset import Dataset, Sources
from ..probe import Probe
from ..registry import Format, ReadOptions
from ..tree import Tree
from .common.pages import Object, Page, Reading, listed_classes
from .common.values import dicts, mapping, number, word
from .common.writing import Output, left_out, names_of, short

_NAMES = ("image", "imagefilename", "imageFilename")


def _sniff(probe: Probe) -> bool:
    first = probe.first()
    rows = first.get("annotations", first.get("annotation"))
    if not any(isinstance(first.get(key), str) for key in _NAMES) or not isinstance(rows, list):
        return False
    return not rows or (isinstance(rows[0], dict) and "coordinates" in rows[0])


def _sources(tree: Tree, files: list[Path], options: ReadOptions) -> Sources:
    return Reading("createml", tree, files, _parse, options.strict, classes=listed_classes).sources()


def _parse(file: Path) -> list[Page]:
    pages = []
    for entry in dicts(read_json(file, kind=DataError, nan=True)):
        name = next((word(entry[key]) for key in _NAMES if word(entry.get(key))), "")
        if not name:
            raise DataError(f"{file}: the entry {str(entry)[:60]} names no image")
        objects = []
        for row in dicts(entry.get("annotations", entry.get("annotation"))):
            place = mapping(row.get("coordinates"))
            x, y, w, h = (number(place.get(key)) for key in ("x", "y", "width", "height"))
            objects.append(Object(word(row.get("label")), (x - w / 2, y - h / 2, x + w / 2, y + h / 2)))
        pages.append(Page(name, None, objects, form="cxcywh"))
    return pages


def _write(splits: Mapping[str, Dataset], output: Output) -> list[str]:
    output.labels()
    for split, dataset in splits.items():
        entries: list[dict[str, Any]] = []
        for record, name in zip(dataset.records, names_of(dataset), strict=True):
            rows = [
                {
                    "label": output.classes.names[label],
                    "coordinates": {
                        "x": short((x1 + x2) / 2),
                        "y": short((y1 + y2) / 2),
                        "width": short(x2 - x1),
                        "height": short(y2 - y1),
                    },
                }
                for (x1, y1, x2, y2), label, _ in output.rows(record, ignored=False)
            ]
            entries.append({"image": name, "annotations": rows})
            output.image(record, f"{split}/{name}")
        output.json(f"{split}/_annotations.createml.json", entries)
    lines = ["Create ML: image ids, class ids, sizes and areas are not kept; labels.txt holds the order of the classes"]
    return lines + left_out(splits, "Create ML")


FORMAT = Format("createml", "Create ML JSON", (".json",), _sniff, _sources, _write)
