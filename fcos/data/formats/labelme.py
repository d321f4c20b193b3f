"""LabelMe: one JSON file an image, with shapes.

Defined by the tool, https://github.com/wkentaro/labelme (labelme/label_file.py and examples/bbox_detection).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...system.readers import read_json
from ..dataset import Dataset, Sources
from ..probe import Probe
from ..registry import Format, ReadOptions
from ..tree import Tree
from .common.pages import ANY, Box, Object, Page, listed_classes
from .common.per_image import FilePerImage
from .common.values import around, bounds, dicts, mapping, number, size, word, yes
from .common.writing import Output, names_of, short

_IGNORE = "__ignore__"  # the tool's own name for a region where nothing is learned


def _sniff(probe: Probe) -> bool:
    value = probe.json
    return isinstance(value, dict) and isinstance(value.get("shapes"), list) and "images" not in value


def _sources(tree: Tree, files: list[Path], options: ReadOptions) -> Sources:
    return FilePerImage("labelme", tree, files, _parse, options.strict, classes=listed_classes).sources()


def _parse(file: Path) -> list[Page]:
    data = mapping(read_json(file, kind=DataError, nan=True))
    objects, problems = [], []
    for index, shape in enumerate(dicts(data.get("shapes")), 1):
        kind = word(shape.get("shape_type")) or "polygon"
        box = _circle(shape.get("points")) if kind == "circle" else bounds(shape.get("points"))
        if box is None or kind in ("point", "points", "line", "linestrip"):
            problems.append(f"shape {index} is a {kind[:40]} and has no area")
            continue
        flags = mapping(shape.get("flags"))
        marks = ("ignore", "difficult", "iscrowd", "crowd")
        ignore = any(yes(flags.get(key)) for key in marks) or yes(shape.get("difficult"))  # X-AnyLabeling's
        label = word(shape.get("label"))
        objects.append(Object(ANY if label == _IGNORE else label, box, ignore, where=f"shape {index}"))
    name = word(data.get("imagePath")).replace("\\", "/").rpartition("/")[2]
    return [Page(name, size(data.get("imageHeight"), data.get("imageWidth")), objects, problems=problems)]


def _circle(points: Any) -> Box | None:
    """Centre and a point of the edge."""
    if bounds(points) is None or len(points) != 2:
        return None
    (x, y), edge = (number(v) for v in points[0][:2]), points[1]
    radius = math.dist((x, y), (number(edge[0]), number(edge[1])))
    return around([(x - radius, y - radius), (x + radius, y + radius)])


def _write(splits: Mapping[str, Dataset], output: Output) -> list[str]:
    output.labels()
    for split, dataset in splits.items():
        for record, name in zip(dataset.records, names_of(dataset), strict=True):
            proposed = {"proposed": True} if output.model else {}
            shapes = [
                {
                    "label": output.classes.names[label],
                    "points": [[short(x1), short(y1)], [short(x2), short(y2)]],
                    "group_id": None,
                    # the tool shows it beside the shape
                    "description": f"proposed by {output.model}, score {score}" if output.model else "",
                    "shape_type": "rectangle",
                    "flags": proposed | ({"ignore": True} if ignore else {}),
                }
                for ((x1, y1, x2, y2), label, ignore), score in zip(
                    output.rows(record), output.scores(record), strict=True
                )
            ]
            content: dict[str, Any] = {
                "version": "5.5.0",
                "flags": proposed,
                "shapes": shapes,
                "imagePath": name.rpartition("/")[2],
                "imageData": None,
                "imageHeight": record.size[0],
                "imageWidth": record.size[1],
            }
            output.json(f"{split}/{os.path.splitext(name)[0]}.json", content)
            output.image(record, f"{split}/{name}")
    lines = ["LabelMe: image ids, class ids and areas are not kept; labels.txt holds the order of the classes"]
    ignored = sum(int(r.ignore.sum()) for d in splits.values() for r in d.records)
    return lines + ([f"LabelMe: {ignored:,} crowd or difficult boxes carry the flag 'ignore'"] if ignored else [])


FORMAT = Format("labelme", "LabelMe JSON", (".json",), _sniff, _sources, _write)
