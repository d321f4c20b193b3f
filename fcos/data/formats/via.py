"""VGG Image Annotator (VIA): JSON or CSV of versions 1 and 2, projects of version 3; boxes in pixels.

Defined at https://www.robots.ox.ac.uk/~vgg/software/via/docs/userguide.html#csv and
https://gitlab.com/vgg/via/-/blob/master/via-3.x.y/CodeDoc.md. The tool has no classes, only attributes that people
name: the class is the attribute that is called so (`CLASS`), or the only one there is. Without any all are "object".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import DataError
from ...system.readers import read_json
from ..dataset import Dataset, Sources
from ..probe import Probe
from ..records import Record
from ..registry import Format, ReadOptions
from ..tree import Tree
from .common.pages import Box, Object, Page, Reading, listed_classes
from .common.values import NAN, around, dicts, mapping, number, word, yes
from .common.writing import Output, count, names_of, short
from .csv import read_rows

CLASS = ("class", "label", "name", "type", "category", "object", "class_name", "classname", "label_name", "object_name")
_ALONE = "object"  # the class where no region has an attribute
_PROJECT = "_via_img_metadata"
_COLUMNS = ("filename", "region_shape_attributes", "region_attributes")
_THIRD = ("", "point", "rect", "circle", "ellipse", "line", "polyline", "polygon", "polygon", "circle of points")
_IGNORE = ("ignore", "difficult", "iscrowd")  # attributes that are no class
_ELLIPSE = ("cx", "cy", "rx", "ry")


class _Region(NamedTuple):
    """A region of an image. shape: as version 2 has it. attributes: name -> text, or option -> whether it is ticked."""

    shape: dict[str, Any]
    attributes: dict[str, Any]
    where: str
    problem: str = ""


_Regions = list[tuple[str, list[_Region]]]  # of each image, after its name


def _sniff(probe: Probe) -> bool:
    if probe.suffix == ".csv":
        return bool(probe.lines) and all(column in probe.lines[0] for column in _COLUMNS)
    value = mapping(probe.json)
    third = "pid" in mapping(value.get("project")) and {"attribute", "file"} <= set(value)
    first = mapping(next(iter(mapping(value.get(_PROJECT, value)).values()), None))
    return third or _PROJECT in value or {"filename", "size", "regions"} <= set(first)


def _sources(tree: Tree, files: list[Path], options: ReadOptions) -> Sources:
    return Reading("via", tree, files, _parse, options.strict, classes=listed_classes).sources()


def _parse(file: Path) -> list[Page]:
    regions = _csv(file) if file.suffix.lower() == ".csv" else _json(file)
    key = _class_attribute(file, regions)
    return [_page(name, each, key) for name, each in regions]


def _json(file: Path) -> _Regions:
    value = mapping(read_json(file, kind=DataError, nan=True))
    if isinstance(value.get("project"), dict):
        return _third(file, value)
    found: _Regions = []
    for entry in mapping(value.get(_PROJECT, value)).values():
        each = mapping(entry)
        name = word(each.get("filename"))
        if not name:
            raise DataError(f"{file}: the entry {str(entry)[:60]} names no image")
        rows = each.get("regions")
        rows = dicts(list(rows.values()) if isinstance(rows, dict) else rows)  # version 1 numbers them
        regions = [
            _Region(mapping(row.get("shape_attributes")), mapping(row.get("region_attributes")), f"region {k}")
            for k, row in enumerate(rows, 1)
        ]
        found.append((name, regions))
    return found


def _csv(file: Path) -> _Regions:
    rows = read_rows(file)
    head = [name.strip().lstrip("#").strip() for name in rows[0]] if rows else []
    if missing := [column for column in _COLUMNS if column not in head]:
        raise DataError(f"{file}: there is no column {missing[0]}, so it is no CSV of VIA")
    name_at, shape_at, about_at = (head.index(column) for column in _COLUMNS)
    found: dict[str, list[_Region]] = {}
    for line, row in enumerate(rows[1:], 2):
        if len(row) != len(head) or not row[name_at].strip():
            raise DataError(f"{file}: row {line} names no image or has {len(row)} columns in place of {len(head)}")
        shape, about = (_cell(row[at]) for at in (shape_at, about_at))
        if shape is None or about is None:
            raise DataError(f"{file}: row {line}: its region is no JSON: {row[shape_at][:40]} {row[about_at][:40]}")
        regions = found.setdefault(row[name_at].strip(), [])
        if shape:  # else an image without a region
            regions.append(_Region(shape, about, f"row {line}"))
    return list(found.items())


def _cell(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _third(file: Path, value: dict[str, Any]) -> _Regions:
    """A project of version 3 in the words of version 2."""
    views, files = mapping(value.get("view")), mapping(value.get("file"))
    attributes = {id: mapping(about) for id, about in mapping(value.get("attribute")).items()}
    images = [mapping(each) for each in files.values() if mapping(each).get("type", 2) == 2]
    found: dict[str, list[_Region]] = {word(each.get("fname")): [] for each in images}
    if "" in found:
        raise DataError(f"{file}: an image of `file` has no `fname`")
    for id, entry in mapping(value.get("metadata")).items():
        each = mapping(entry)
        listed = mapping(views.get(word(each.get("vid")))).get("fid_list")
        name = word(mapping(files.get(word(listed[0])) if isinstance(listed, list) and listed else None).get("fname"))
        if name not in found or not each.get("xy"):
            continue  # a video, or words about a whole image
        known = {
            word(attributes[a].get("aname")): _option(attributes[a], given)
            for a, given in mapping(each.get("av")).items()
            if a in attributes
        }
        problem = "is of a moment in a video" if each.get("z") else ""
        found[name].append(_Region(_shape(each["xy"]), known, f"metadata {id}", problem))
    return list(found.items())


def _option(attribute: dict[str, Any], given: Any) -> Any:
    """What is chosen of an attribute of version 3: its text, or the options that are ticked."""
    options = mapping(attribute.get("options"))
    chosen = word(given).split(",") if options else []
    return {word(options[id]): True for id in chosen if id in options} if options else word(given)


def _shape(xy: Any) -> dict[str, Any]:
    """A shape of version 3, [number of its kind, x, y, ...], as version 2 has it."""
    kind, *values = xy if isinstance(xy, list) else [0]
    name = _THIRD[kind] if isinstance(kind, int) and 0 <= kind < len(_THIRD) else word(kind)
    if name in ("polygon", "polyline"):
        return {"name": name, "all_points_x": values[::2], "all_points_y": values[1::2]}
    keys = {"rect": ("x", "y", "width", "height"), "circle": ("cx", "cy", "r"), "ellipse": _ELLIPSE}
    return {"name": name, **dict(zip(keys.get(name, ()), values, strict=False))}


def _class_attribute(file: Path, regions: _Regions) -> str:
    """The attribute that is the class; '' where regions have none."""
    names = dict.fromkeys(name for _, each in regions for region in each for name in region.attributes)
    usual = [name for wanted in CLASS for name in names if name.strip().lower() == wanted]
    rest = [name for name in names if name.strip().lower() not in _IGNORE]
    if usual or len(rest) < 2:
        return (usual or rest or [""])[0]
    raise DataError(
        f"{file}: which attribute is the class? Regions have {', '.join(rest)[:200]}; call the one that is it 'class'"
    )


def _page(name: str, regions: list[_Region], key: str) -> Page:
    objects, problems = [], []
    for region in regions:
        box = None if region.problem else _box(region.shape)
        if box is None:
            what = region.problem or f"is a {word(region.shape.get('name')) or 'shape without a name'}"
            problems.append(f"{region.where} {what}; rectangles, polygons, circles and ellipses of images are read")
            continue
        label = _chosen(region.attributes.get(key)) if key else _ALONE
        if not label:
            problems.append(f"{region.where} has no {key!r}, or more than one")
            continue
        ignore = any(yes(_chosen(region.attributes[k])) for k in _IGNORE if k in region.attributes)
        objects.append(Object(label, box, ignore, where=region.where))
    return Page(name, None, objects, problems=problems, form="xywh")


def _chosen(value: Any) -> str:
    """The text of an attribute, or the one option that is ticked; '' where there is none or several."""
    if not isinstance(value, dict):
        return word(value)
    ticked = [word(option) for option, on in value.items() if yes(on)]
    return ticked[0] if len(ticked) == 1 else ""


def _box(shape: dict[str, Any]) -> Box | None:
    """The box around a shape, NaN where a number is missing; None where it is no area."""
    kind = word(shape.get("name"))
    if kind == "rect":
        x, y, width, height = (number(shape.get(key)) for key in ("x", "y", "width", "height"))
        return x, y, x + width, y + height
    if kind in ("circle", "ellipse"):
        cx, cy, a, b = (number(shape.get(k)) for k in (("cx", "cy", "r", "r") if kind == "circle" else _ELLIPSE))
        rx, ry = (a, b) if kind == "circle" else _half_sides(a, b, shape)
        return cx - rx, cy - ry, cx + rx, cy + ry
    if kind in ("polygon", "polyline"):
        xs, ys = (shape.get(key) for key in ("all_points_x", "all_points_y"))
        if not isinstance(xs, list) or not isinstance(ys, list) or not xs or len(xs) != len(ys):
            return NAN, NAN, NAN, NAN
        return around([(number(x), number(y)) for x, y in zip(xs, ys, strict=True)])
    return None


def _half_sides(rx: float, ry: float, shape: dict[str, Any]) -> tuple[float, float]:
    """Half of the sides of the box around an ellipse that may be turned (`theta`, in radians)."""
    theta = number(shape.get("theta", 0))
    if not math.isfinite(theta):
        return NAN, NAN
    return (
        math.hypot(rx * math.cos(theta), ry * math.sin(theta)),
        math.hypot(rx * math.sin(theta), ry * math.cos(theta)),
    )


def _write(splits: Mapping[str, Dataset], output: Output) -> list[str]:
    output.labels()
    for split, dataset in splits.items():
        entries: dict[str, Any] = {}
        for record, name in zip(dataset.records, names_of(dataset), strict=True):
            output.image(record, f"{split}/{name}")
            written = output.at(f"{split}/{name}")
            size = written.stat().st_size if written.exists() else -1  # as the tool has it for what it does not know
            entries[f"{name}{size}"] = {
                "filename": name,
                "size": size,
                "regions": list(_regions(output, record)),
                "file_attributes": {},
            }
        output.json(f"{split}/via_region_data.json", entries)
    lines = ["VIA: image ids, class ids, sizes and areas are not kept; labels.txt holds the order of the classes"]
    ignored = count(splits, "ignored")
    note = f"VIA: {ignored:,} crowd or difficult boxes carry the attribute 'ignore'"
    return [*lines, note] if ignored else lines


def _regions(output: Output, record: Record) -> Iterator[dict[str, Any]]:
    for (x1, y1, x2, y2), label, ignore in output.rows(record):
        yield {
            "shape_attributes": {
                "name": "rect",
                "x": short(x1),
                "y": short(y1),
                "width": short(x2 - x1),
                "height": short(y2 - y1),
            },
            "region_attributes": {"class": output.classes.names[label], **({"ignore": "1"} if ignore else {})},
        }


FORMAT = Format("via", "VGG Image Annotator", (".json", ".csv"), _sniff, _sources, _write)
