"""Write a data set as COCO, YOLO or VOC files, and say in plain lines what the format cannot hold."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np
import yaml

from ..errors import DataError
from .augment import clip
from .dataset import Dataset, Record
from .splits import ALIASES

Format = Literal["coco", "yolo", "voc"]
_FOLDERS = frozenset(("images", "JPEGImages", "train", "val", "test", "trainval", "all", *ALIASES))


def convert(splits: Mapping[str, Dataset], destination: str | Path, to: str, *, link: bool = False) -> list[str]:
    """Write all splits to a new folder in format `to`; pictures are copied, or linked with `link`.

    Returns the lines that say what was lost. Raises DataError when the folder is not empty, the format is
    unknown, or the splits do not have the same classes.
    """
    target = Path(destination)
    if to not in WRITERS:
        raise DataError(f"there is no format {to!r}; formats: {', '.join(WRITERS)}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target} is there already; name a new or empty folder")
    names = {dataset.classes.names for dataset in splits.values()}
    if len(names) > 1:
        listed = "; ".join(f"{split}: {', '.join(d.classes.names)}" for split, d in splits.items())
        raise DataError(f"the splits do not have the same classes: {listed}")
    return WRITERS[to](splits, target, link)


def _coco(splits: Mapping[str, Dataset], target: Path, link: bool) -> list[str]:
    target.mkdir(parents=True, exist_ok=True)
    for split, dataset in splits.items():
        names = _names(dataset)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for record, name in zip(dataset.records, names, strict=True):
            height, width = record.size
            images.append({"id": record.id, "file_name": name, "width": width, "height": height})
            for box, label, ignore, area in zip(record.boxes, record.labels, record.ignore, record.areas, strict=True):
                x1, y1, x2, y2 = (float(v) for v in box)
                row = {
                    "id": len(annotations) + 1,
                    "image_id": record.id,
                    "category_id": dataset.classes.ids[label],
                    "bbox": [_short(v) for v in (x1, y1, x2 - x1, y2 - y1)],
                    "area": _short(area),
                    "iscrowd": int(ignore),  # the only mark that pycocotools honours
                }
                annotations.append(row | {"ignore": 1} if ignore else row)
            _bring(record, target / "images" / split / name, link)
        classes = zip(dataset.classes.names, dataset.classes.ids, strict=True)
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": id, "name": name} for name, id in classes],
        }
        (target / f"instances_{split}.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    ignored = _count(splits, lambda r: int(r.ignore.sum()))
    return [f"COCO: {ignored:,} crowd or difficult boxes carry iscrowd 1, which means ignored"] if ignored else []


def _yolo(splits: Mapping[str, Dataset], target: Path, link: bool) -> list[str]:
    _need_images(splits, "YOLO")
    classes = next(iter(splits.values())).classes
    keys: dict[str, str] = {}
    lines = ["YOLO: image ids and areas are not kept"]
    for split in splits:
        free = "train" not in splits and "train" not in keys.values()
        keys[split] = "train" if split in ("all", "trainval") and free else split
        if keys[split] != split:
            lines.append(f"YOLO: the split {split} is called {keys[split]}")
        elif split not in ("train", "val", "test"):
            lines.append(f"YOLO: tools know only train, val and test, not {split}")
    if classes.ids != tuple(range(len(classes))):
        lines.append("YOLO: class ids are replaced by 0, 1, ... in the same order")
    trimmed = 0
    for split, dataset in splits.items():
        for record, name in zip(dataset.records, _names(dataset), strict=True):
            height, width = record.size
            boxes = clip(record.boxes, record.size)[~record.ignore].astype(np.float64)
            trimmed += int((boxes != record.boxes[~record.ignore]).any(axis=1).sum())
            boxes /= (width, height, width, height)
            rows = [
                f"{label} {(x1 + x2) / 2:.8f} {(y1 + y2) / 2:.8f} {x2 - x1:.8f} {y2 - y1:.8f}\n"
                for label, (x1, y1, x2, y2) in zip(record.labels[~record.ignore], boxes, strict=True)
            ]
            file = target / "labels" / keys[split] / Path(name).with_suffix(".txt")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(rows))
            _bring(record, target / "images" / keys[split] / name, link)
    ignored = _count(splits, lambda r: int(r.ignore.sum()))
    if ignored:
        lines.append(f"YOLO: {ignored:,} crowd or difficult boxes are left out: the format has no mark for them")
    if trimmed:
        lines.append(f"YOLO: {trimmed:,} boxes are cut at the edge of their picture")
    content = {key: f"images/{key}" for key in keys.values()} | {"names": dict(enumerate(classes.names))}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (target / "data.yaml").write_text(text, encoding="utf-8")
    return lines


def _voc(splits: Mapping[str, Dataset], target: Path, link: bool) -> list[str]:
    pages, images, lists = target / "Annotations", target / "JPEGImages", target / "ImageSets" / "Main"
    for folder in (pages, images, lists):
        folder.mkdir(parents=True, exist_ok=True)
    classes = next(iter(splits.values())).classes
    (target / "labels.txt").write_text("".join(f"{name}\n" for name in classes.names), encoding="utf-8")
    lines = ["VOC: image ids, class ids and areas are not kept; labels.txt holds the order of the classes"]
    taken: dict[str, object] = {}
    renamed = fractions = 0
    for split, dataset in splits.items():
        stems = []
        for number, (record, name) in enumerate(zip(dataset.records, _names(dataset), strict=True)):
            plain = name.replace("/", "_").replace(" ", "_")  # a split list ends a name at a space
            stem, suffix = os.path.splitext(plain)
            who = record.path or (split, number)
            while taken.setdefault(stem, who) != who:  # one folder for all splits
                stem = f"{stem}_{split}"
            renamed += stem + suffix != name
            fractions += int((record.boxes != np.round(record.boxes)).any(axis=1).sum())
            stems.append(stem)
            (pages / f"{stem}.xml").write_bytes(_xml(record, f"{stem}{suffix}", classes.names))
            _bring(record, images / f"{stem}{suffix}", link)
        (lists / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
    if renamed:
        lines.append(f"VOC: {renamed:,} pictures have a new name, as all lie in one folder")
    if fractions:
        lines.append(f"VOC: {fractions:,} boxes have fractions of pixels, which some tools round")
    return lines


WRITERS: dict[str, Callable[[Mapping[str, Dataset], Path, bool], list[str]]] = {
    "coco": _coco,
    "yolo": _yolo,
    "voc": _voc,
}


def _xml(record: Record, name: str, names: tuple[str, ...]) -> bytes:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "folder").text = "JPEGImages"
    ElementTree.SubElement(root, "filename").text = name
    size = ElementTree.SubElement(root, "size")
    for key, value in (("width", record.size[1]), ("height", record.size[0]), ("depth", 3)):
        ElementTree.SubElement(size, key).text = str(value)
    for box, label, ignore in zip(record.boxes.tolist(), record.labels, record.ignore, strict=True):
        item = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(item, "name").text = names[label]
        ElementTree.SubElement(item, "difficult").text = str(int(ignore))
        corners = ElementTree.SubElement(item, "bndbox")
        x1, y1, x2, y2 = box
        for key, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
            ElementTree.SubElement(corners, key).text = str(_short(value))
    ElementTree.indent(root)
    result: bytes = ElementTree.tostring(root, encoding="utf-8")
    return result


def _names(dataset: Dataset) -> list[str]:
    """File names inside the new picture folder: without folders that only repeat the layout."""
    taken: dict[str, int] = {}
    names = []
    for index, record in enumerate(dataset.records):
        parts = record.file_name.split("/")
        while len(parts) > 1 and (parts[0] in _FOLDERS or re.fullmatch(r"(train|val|test)(19|20)\d\d", parts[0])):
            parts = parts[1:]
        name = "/".join(parts)
        # Names that differ only in their suffix would share a label file.
        if taken.setdefault(os.path.splitext(name)[0], index) != index:
            stem, suffix = os.path.splitext(name)
            while taken.setdefault(stem, index) != index:
                stem += f"_{record.id}"
            name = stem + suffix
        names.append(name)
    return names


def _bring(record: Record, target: Path, link: bool) -> None:
    if record.path is None or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        target.symlink_to(record.path.resolve())
    else:
        shutil.copyfile(record.path, target)


def _need_images(splits: Mapping[str, Dataset], form: str) -> None:
    for split, dataset in splits.items():
        if any(record.path is None for record in dataset.records):
            raise DataError(f"{dataset.root}: the split {split} has no pictures, and {form} lists its pictures by file")


def _count(splits: Mapping[str, Dataset], of: Callable[[Record], int]) -> int:
    return sum(of(record) for dataset in splits.values() for record in dataset.records)


def _short(value: float) -> float | int:
    """Thousandths of a pixel, as an int where it is one: float32 holds no more for ordinary pictures."""
    rounded = round(float(value), 3)
    return int(rounded) if rounded == int(rounded) else rounded
