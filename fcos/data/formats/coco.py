"""COCO JSON: one file a split, with images, annotations and categories."""

from __future__ import annotations

import os
import re
from functools import partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...errors import DataError
from ...readers import read_json
from ...types import Classes
from ..assemble import ImageFile, Problems, Rows, assemble, check_classes
from ..dataset import Dataset, Sources
from ..splits import ALIASES, canonical_split

_PREFIX = re.compile(r"^_?(instances|annotations?|labels)[._-]*", re.IGNORECASE)
_WHOLE = ("_annotations.coco", "annotations", "instances", "labels", "coco", "result", "dataset")


def sources(path: Path, strict: bool, inclusive: bool) -> Sources:
    """The splits of a COCO file or folder: name -> function that reads it. Empty when there is none."""
    files = [path] if path.is_file() else _find(path)
    named: dict[str, Path] = {}
    for file in files:
        full = _split_of(file)
        short = canonical_split(re.sub(r"[_-]?(19|20)\d\d$", "", full)) or full
        others = [_split_of(f) for f in files if f != file]
        # instances_val2017 is 'val', unless instances_val2014 lies beside it.
        clash = any(re.sub(r"[_-]?(19|20)\d\d$", "", o) == re.sub(r"[_-]?(19|20)\d\d$", "", full) for o in others)
        named[full if clash else short] = file
    order = {"train": 0, "trainval": 1, "val": 2, "test": 3}
    names = sorted(named, key=lambda n: (order.get(n, 4), n))
    return {n: partial(read, named[n], n, strict=strict, inclusive=inclusive) for n in names}


def read(path: Path, split: str, *, strict: bool = False, inclusive: bool = False) -> Dataset:
    """One COCO file as a Dataset. Raises DataError for anything that is not the format."""
    data = _load(path)
    problems = Problems(path, strict)
    listed, annotations = _list(data, "images", path), _list(data, "annotations", path)
    if "annotations" not in data:
        problems.note("the file has no annotations")
    classes, label_of = _classes(_list(data, "categories", path), annotations, path, problems)
    images, index_of = _images(listed, path, split, problems)
    rows = _rows(annotations, index_of, label_of, inclusive, problems)
    records = assemble(images, rows, problems)
    return Dataset(records, classes, "coco", split, path, problems.notes())


# --------------------------------------------------------------------------- finding files


def _find(folder: Path) -> list[Path]:
    """The annotation files of a folder: those called instances_* if there are any, else by split names."""
    for place in (folder, folder / "annotations", folder / "Annotations"):
        files = (
            sorted(f for f in place.glob("*") if f.name.lower().endswith((".json", ".json.gz")))
            if place.is_dir()
            else []
        )
        plain = {_stem(f) for f in files if f.suffix.lower() == ".json"}
        files = [f for f in files if f.suffix.lower() == ".json" or _stem(f) not in plain]
        chosen = [f for f in files if _stem(f).startswith("instances_")]
        chosen = chosen or [f for f in files if _is_split(_stem(f))]
        chosen = chosen or [f for f in files if _stem(f).lower() in _WHOLE]
        if chosen:
            return chosen
    # Roboflow: train/_annotations.coco.json and so on.
    nested = [f for f in folder.glob("*/*.json") if _stem(f).lower() in _WHOLE and _is_split(f.parent.name)]
    return sorted(nested)


def _stem(file: Path) -> str:
    return re.sub(r"\.json(\.gz)?$", "", file.name, flags=re.IGNORECASE)


def _is_split(name: str) -> bool:
    known = ("train", "val", "test", "trainval", *ALIASES)
    return re.sub(r"[_-]?(19|20)\d\d$", "", _PREFIX.sub("", name).lower()) in known


def _split_of(file: Path) -> str:
    stem = _stem(file)
    name = _PREFIX.sub("", stem)
    if name and stem.lower() not in _WHOLE:
        return canonical_split(name)
    return canonical_split(file.parent.name) if _is_split(file.parent.name) else "all"


def _load(path: Path) -> dict[str, Any]:
    data = read_json(path, kind=DataError, nan=True)  # boxes that are not finite are reported one by one
    if isinstance(data, list):
        raise DataError(f"{path} is a list, such as a results file; a data set has images, annotations, categories")
    if not isinstance(data, dict) or "images" not in data:
        raise DataError(f"{path} is no COCO file: it has no 'images'")
    return data


def _list(data: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    value = data.get(key, [])
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise DataError(f"{path}: {key!r} must be a list of objects")
    return value


# --------------------------------------------------------------------------- reading


def _classes(
    categories: list[dict[str, Any]], annotations: list[dict[str, Any]], path: Path, problems: Problems
) -> tuple[Classes, dict[Any, int]]:
    rows = []
    for category in categories:
        if "id" not in category or "name" not in category:
            raise DataError(f"{path}: the category {category} needs an 'id' and a 'name'")
        rows.append((_integer(category["id"], f"{path}: category id"), str(category["name"]), category))
    rows.sort(key=lambda row: row[0])
    twice = [a for a, b in pairwise(rows) if a[0] == b[0]]
    if twice:
        raise DataError(f"{path}: the category id {twice[0][0]} stands twice; give one of them another id")
    # Roboflow puts the group of all classes in front as a class of its own, with no boxes.
    if len(rows) > 1 and all(row[2].get("supercategory") == rows[0][1] for row in rows[1:]):
        head = rows[0]
        if head[2].get("supercategory") in ("none", None) and all(a.get("category_id") != head[0] for a in annotations):
            problems.note(f"the class {head[1]!r} (id {head[0]}) only groups the others and has no boxes: left out")
            rows = rows[1:]
    names = tuple(row[1] for row in rows)
    check_classes(names, path)
    ids = tuple(row[0] for row in rows)
    return Classes(names, ids), {id: label for label, id in enumerate(ids)}


def _integer(value: Any, what: str) -> int:
    try:
        if isinstance(value, bool) or int(value) != float(value):
            raise ValueError
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{what} must be a whole number, not {value!r}") from None


def _images(
    listed: list[dict[str, Any]], path: Path, split: str, problems: Problems
) -> tuple[list[ImageFile], dict[Any, int]]:
    names = []
    for image in listed:
        named = isinstance(image.get("file_name"), str) and image["file_name"]
        if not named or not isinstance(image.get("id"), int | float | str):
            raise DataError(f"{path}: the image {str(image)[:80]} needs an 'id' and a 'file_name'")
        names.append(safe_name(image["file_name"], path))
    paths = _locate(names, path, split)
    missing = [name for name, found in zip(names, paths, strict=True) if found is None]
    alone = len(missing) == len(names)
    if names and alone:
        problems.note("no picture files found, only annotations", names[0], len(names))
    elif missing:
        problems.skip("pictures that are not there", missing[0], len(missing))
    whole = all(isinstance(i["id"], int) or str(i["id"]).isdigit() for i in listed)
    if listed and not whole:
        problems.note("image ids are not numbers; numbered 1, 2, ...", str(listed[0]["id"]))
    images: list[ImageFile] = []
    index_of: dict[Any, int] = {}
    for image, name, found in zip(listed, names, paths, strict=True):
        if found is None and not alone:
            index_of[image["id"]] = -1  # its annotations go silently with the picture
            continue
        if index_of.get(image["id"], -1) >= 0:
            if images[index_of[image["id"]]].file_name != name:
                raise DataError(f"{path}: the image id {image['id']!r} belongs to two pictures, {name} is one of them")
            problems.note("pictures listed twice, boxes put together", name)
            continue
        index_of[image["id"]] = len(images)
        height, width = image.get("height"), image.get("width")
        known = all(isinstance(v, int | float) and 1 <= v < 1e6 for v in (height, width))
        size = (int(height), int(width)) if known else None  # type: ignore[arg-type]
        images.append(ImageFile(int(image["id"]) if whole else len(images) + 1, name, found, size))
    return images, index_of


def safe_name(name: str, source: Path) -> str:
    """A relative path with forward slashes; DataError when it would leave the image folder."""
    clean = name.replace("\\", "/")
    parts = PurePosixPath(clean).parts
    if clean.startswith("/") or re.match(r"^[A-Za-z]:", clean) or ".." in parts or "\0" in clean:
        raise DataError(f"{source}: the file name {name!r} leaves the image folder; use a path inside it")
    return str(PurePosixPath(clean))


def _locate(names: list[str], path: Path, split: str) -> list[Path | None]:
    """Where the pictures are: the one candidate folder that holds most of them. Folders are listed once."""
    here = path.resolve().parent
    raw = _split_of(path)
    labels = dict.fromkeys((raw, split, *(alias for alias, name in ALIASES.items() if name == split)))
    folders = [place / s for place in (here / "images", here, here.parent / "images", here.parent) for s in labels]
    folders += [here / "images", here / "JPEGImages", here, here.parent / "images", here.parent]
    parents = {name: name.rpartition("/")[0] for name in names}
    best: list[Path | None] = [None] * len(names)
    most = 0
    for folder in dict.fromkeys(folders):
        if not folder.is_dir():
            continue
        listed = {p: _listing(folder / p) for p in set(parents.values())}
        found = [folder / name if name.rpartition("/")[2] in listed[parents[name]] else None for name in names]
        count = len(names) - found.count(None)
        if count > most:
            best, most = found, count
        if most == len(names):
            break
    return best


def _listing(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def _rows(
    annotations: list[dict[str, Any]],
    index_of: dict[Any, int],
    label_of: dict[Any, int],
    inclusive: bool,
    problems: Problems,
) -> Rows:
    owner = np.array([_look_up(a.get("image_id"), index_of, -2) for a in annotations], dtype=np.int64)
    labels = np.array([_look_up(a.get("category_id"), label_of, -1) for a in annotations], dtype=np.int64)
    xywh = _boxes(annotations)

    def name(row: int) -> str:
        return f"annotation {annotations[row].get('id', row)}"

    for bad, what, key in (
        (owner == -2, "annotations of an image id that is not in the file", "image_id"),
        ((owner >= 0) & (labels < 0), "annotations of a category id that is not in the file", "category_id"),
    ):
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            problems.skip(what, f"{name(first)}, {key} {annotations[first].get(key)!r}", int(bad.sum()))
    ignore = np.array(
        [bool(a.get("iscrowd") or a.get("ignore") or a.get("difficult")) for a in annotations], dtype=bool
    )
    boxes = xywh.copy()
    with np.errstate(invalid="ignore", over="ignore"):
        boxes[:, 2:] += xywh[:, :2]
        if inclusive:
            boxes[:, 2:] = np.maximum(boxes[:, 2:] - 1, np.minimum(xywh[:, :2], boxes[:, 2:]))
    areas = np.array([_number(a.get("area")) for a in annotations], dtype=np.float64)
    rows = Rows(owner, boxes, labels, ignore, areas, name)
    return rows.select((owner >= 0) & (labels >= 0))


def _look_up(key: Any, table: dict[Any, int], missing: int) -> int:
    return table.get(key, missing) if isinstance(key, int | float | str) else missing


def _boxes(annotations: list[dict[str, Any]]) -> np.ndarray:
    """xywh [G,4]; a row that is no box of four numbers becomes NaN and is reported with the others."""
    try:
        boxes = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
        if len(boxes) == len(annotations):
            return boxes
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    boxes = np.full((len(annotations), 4), np.nan)
    for row, annotation in enumerate(annotations):
        box = annotation.get("bbox")
        if isinstance(box, list) and len(box) == 4:
            boxes[row] = [_number(v) for v in box]
    return boxes


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")
