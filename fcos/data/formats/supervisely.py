"""Supervisely: ann/NAME.jpg.json for img/NAME.jpg, in a folder for each data set of a project with meta.json.

Defined at https://developer.supervisely.com/getting-started/supervisely-annotation-format.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...system.readers import read_json
from ...system.terminal import plural
from ...types import Classes
from ..dataset import Dataset, Sources
from ..probe import Probe, stem_of
from ..registry import Format, ReadOptions
from ..tree import Tree
from .common.pages import Object, Page, Reading
from .common.per_image import FilePerImage
from .common.values import bounds, dicts, mapping, size, word
from .common.writing import Output, short, stems_of


def _sniff(probe: Probe) -> bool:
    value = probe.json
    if not isinstance(value, dict) or not isinstance(value.get("objects"), list):
        return False
    return isinstance(value.get("size"), dict) and "height" in value["size"]


def _sources(tree: Tree, files: list[Path], options: ReadOptions) -> Sources:
    return FilePerImage("supervisely", tree, files, _parse, options.strict, classes=partial(_classes, tree)).sources()


def _classes(tree: Tree, reading: Reading) -> Classes | None:
    for file in (f for f in tree.annotations if f.name.lower() == "meta.json"):
        rows = dicts(mapping(read_json(file, kind=DataError)).get("classes"))
        names = tuple(word(row.get("title")) for row in rows)
        if names and all(names):
            return Classes(names, tuple(range(1, len(names) + 1)))
    return None


def _parse(file: Path) -> list[Page]:
    data = mapping(read_json(file, kind=DataError, nan=True))
    objects, problems = [], []
    for index, item in enumerate(dicts(data.get("objects")), 1):
        kind = word(item.get("geometryType"))
        box = bounds(mapping(item.get("points")).get("exterior"))
        if box is None or kind not in ("rectangle", "polygon", ""):
            problems.append(f"object {index} is a {kind[:40] or 'thing'} without corners")
            continue
        ignore = any(_tag(t) in ("ignore", "crowd", "iscrowd", "difficult") for t in dicts(item.get("tags")))
        objects.append(Object(word(item.get("classTitle")), box, ignore))
    given = mapping(data.get("size"))
    frame = size(given.get("height"), given.get("width"))
    return [Page(stem_of(file), frame, objects, problems=problems)]


def _tag(tag: dict[str, Any]) -> str:
    return word(tag.get("name")).lower()


def _write(splits: Mapping[str, Dataset], output: Output) -> list[str]:
    names = output.classes.names
    renamed = 0
    for split, dataset in splits.items():
        stems, new = stems_of({split: dataset}, spaces=True)
        renamed += new
        for index, record in enumerate(dataset.records):
            name = "".join(stems[split, index])
            objects = [
                {
                    "classTitle": names[label],
                    "description": "",
                    "geometryType": "rectangle",
                    "tags": [{"name": "ignore", "value": None}] if ignore else [],
                    "points": {"exterior": [[short(x1), short(y1)], [short(x2), short(y2)]], "interior": []},
                }
                for (x1, y1, x2, y2), label, ignore in output.rows(record)
            ]
            height, width = record.size
            content = {"description": "", "tags": [], "size": {"height": height, "width": width}, "objects": objects}
            output.json(f"{split}/ann/{name}.json", content)
            output.image(record, f"{split}/img/{name}")
    classes = [{"title": name, "shape": "rectangle", "color": f"#{(k * 2654435761) % (1 << 24):06X}"}
               for k, name in enumerate(names)]  # fmt: skip
    tags = [{"name": "ignore", "value_type": "none", "color": "#888888"}]
    output.json("meta.json", {"classes": classes, "tags": tags, "projectType": "images"})
    lines = ["Supervisely: image ids, class ids and areas are not kept"]
    if renamed:
        lines.append(f"Supervisely: {plural(renamed, 'image')} with a new name, as all of a split lie in one folder")
    ignored = sum(int(r.ignore.sum()) for d in splits.values() for r in d.records)
    return lines + ([f"Supervisely: {ignored:,} crowd or difficult boxes carry the tag 'ignore'"] if ignored else [])


FORMAT = Format("supervisely", "Supervisely JSON", (".json",), _sniff, _sources, _write)
