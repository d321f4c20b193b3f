"""Hugging Face: an image folder with metadata.jsonl; boxes [x, y, w, h].

Defined at https://huggingface.co/docs/datasets/image_dataset#object-detection. Names of numbered classes: the features
in README.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...system.core_yaml import dump_yaml, parse_yaml
from ...system.readers import parse_json, read_lines, read_text
from ...system.terminal import plural
from ...types import Classes
from ..dataset import Dataset, Sources
from ..probe import Probe
from ..registry import Format, ReadOptions
from ..tree import Tree
from .common.pages import Object, Page, Reading
from .common.values import NAN, dicts, mapping, number, word, yes
from .common.writing import Output, names_of, need_images, short

_LIMIT = 4096 << 20
_BOXES = ("bbox", "bboxes", "boxes", "box")
_LABELS = ("category", "categories", "label", "labels", "class", "classes", "category_id", "class_label")
_IGNORE = ("iscrowd", "is_crowd", "ignore", "difficult")


def _sniff(probe: Probe) -> bool:
    first = probe.records[0] if probe.records else {}
    return isinstance(first.get("objects"), dict | list) and any(str(key).endswith("file_name") for key in first)


def _sources(tree: Tree, files: list[Path], options: ReadOptions) -> Sources:
    named: list[str] = []
    for file in files:
        named = named or readme_names(file, tree)
    return Reading("huggingface", tree, files, _parse, options.strict, classes=numbered(named)).sources()


def numbered(named: list[str]) -> Callable[[Reading], Classes | None]:
    """The classes of files that number them, from the names that are known; `named` may fill while they are read."""

    def classes(reading: Reading) -> Classes | None:
        seen = reading.seen
        numbers = [k for k in seen if isinstance(k, int)]
        if not numbers and not named:
            return None
        count = max([len(named), *(k + 1 for k in numbers)])
        if count > 100_000:
            raise DataError(f"{reading.files[0]}: the class {count - 1} is beyond 100,000 classes")
        names = [*named, *(f"class{k}" for k in range(len(named), count))]
        names += sorted(str(k) for k in seen if isinstance(k, str) and k not in names)
        return Classes(tuple(names), tuple(range(len(names))))

    return classes


def _parse(file: Path) -> list[Page]:
    pages = []
    for line_number, line in enumerate(read_lines(file, _LIMIT, DataError), 1):
        if line.strip():
            row = mapping(parse_json(line, f"{file}, line {line_number},", DataError, nan=True))
            name = next((word(v) for k, v in row.items() if k.endswith("file_name") and word(v)), "")
            if not name:
                raise DataError(f"{file}: line {line_number} has no file_name")
            pages.append(Page(name, None, *objects_of(row.get("objects")), form="xywh"))
    return pages


def objects_of(value: Any) -> tuple[list[Object], bool, str, list[str]]:
    """(objects, in shares, split, problems) of `objects`: lists side by side, or a list of objects."""
    if isinstance(value, list):
        rows = dicts(value)
        value = {key: [row.get(key) for row in rows] for key in {k for row in rows for k in row}}
    columns = mapping(value)

    def column(*names: str) -> list[Any]:
        return next((columns[name] for name in names if isinstance(columns.get(name), list)), [])

    boxes, labels, ignore, areas = column(*_BOXES), column(*_LABELS), column(*_IGNORE), column("area")
    objects = []
    problems = [] if len(labels) == len(boxes) else [f"{plural(len(boxes), 'box')} but {len(labels)} categories"]
    for index, (box, label) in enumerate(zip(boxes, labels, strict=False)):
        x, y, w, h = (number(v) for v in box) if isinstance(box, list) and len(box) == 4 else (NAN,) * 4
        name = label if type(label) is int else word(label)
        skip = index < len(ignore) and yes(ignore[index])
        area = number(areas[index]) if index < len(areas) else NAN
        objects.append(Object(name, (x, y, x + w, y + h), skip, area))
    return objects, False, "", problems


def readme_names(file: Path, tree: Tree) -> list[str]:
    """The class names in the front of README.md, in the folder of a file or above, up to the data set's."""
    folder = file.parent
    while True:
        readme = folder / "README.md"
        if readme.is_file():
            text = read_text(readme, kind=DataError)
            front = text[3:].partition("\n---")[0] if text.startswith("---") else ""
            try:
                return names_in(parse_yaml(front, str(readme), DataError)) if front.strip() else []
            except DataError:  # a README is prose; a fault in it spoils nothing
                return []
        if folder == tree.root or folder.parent == folder:
            return []
        folder = folder.parent


def names_in(value: Any) -> list[str]:
    """The first list of class names in a description of features: `names` of a ClassLabel."""
    rest = [value]
    while rest:
        item = rest.pop(0)
        if isinstance(item, dict):
            names = item.get("names")
            if isinstance(names, dict) and names and all(str(k).isdecimal() for k in names):
                return [word(names[k]) for k in sorted(names, key=lambda k: int(k))]
            if isinstance(names, list) and names and all(isinstance(n, str) for n in names):
                return [word(n) for n in names]
            rest += list(item.values())
        elif isinstance(item, list):
            rest += item
    return []


def _write(splits: Mapping[str, Dataset], output: Output) -> list[str]:
    need_images(splits, "Hugging Face")
    for split, dataset in splits.items():
        lines = []
        for record, name in zip(dataset.records, names_of(dataset), strict=True):
            objects: dict[str, list[Any]] = {"bbox": [], "categories": [], "area": [], "iscrowd": []}
            for ((x1, y1, x2, y2), label, ignore), area in zip(output.rows(record), record.areas.tolist(), strict=True):
                objects["bbox"].append([short(x1), short(y1), short(x2 - x1), short(y2 - y1)])
                objects["categories"].append(label)
                objects["area"].append(short(area))
                objects["iscrowd"].append(int(ignore))
            lines.append(json.dumps({"file_name": name, "objects": objects}) + "\n")
            output.image(record, f"{split}/{name}")
        output.text(f"{split}/metadata.jsonl", "".join(lines))
    names = {str(k): name for k, name in enumerate(output.classes.names)}
    boxes = {"name": "bbox", "sequence": {"sequence": "float32", "length": 4}}
    labels = {"name": "categories", "sequence": {"class_label": {"names": names}}}
    features = [{"name": "image", "dtype": "image"}, {"name": "objects", "struct": [boxes, labels]}]
    front = dump_yaml({"dataset_info": {"features": features}})
    output.text("README.md", f"---\n{front}---\n")
    return ["Hugging Face: image ids are not kept; class ids are replaced by 0, 1, ... in the same order"]


FORMAT = Format("huggingface", "Hugging Face image folder", (".jsonl",), _sniff, _sources, _write)
