"""YOLO: a data.yaml with class names and splits, and one text file of normalised boxes a picture."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, ImageError
from ...readers import read_lines, read_yaml
from ...types import Classes
from ..assemble import ImageFile, Problems, Rows, assemble, check_classes, list_images
from ..dataset import Dataset, Size, Sources
from ..image import image_size
from ..splits import ALIASES, canonical_split
from .coco import safe_name

_MOST_CLASSES = 100_000
_KEYS = ("train", "val", "test", "minival", *ALIASES)


def sources(path: Path, strict: bool) -> Sources:
    """The splits of a data.yaml, or of a folder that holds one: name -> function that reads it."""
    file = path if path.is_file() else _find(path)
    if file is None:
        return {}
    data = _load(file)
    classes = _classes(data, file)
    found: Sources = {}
    for key in (k for k in _KEYS if data.get(k)):
        entries = data[key] if isinstance(data[key], list) else [data[key]]
        places = [_place(file, data, str(entry)) for entry in entries]
        # Public files name test splits that few people have; training and validation have to be there.
        if all(p is None for p in places) and canonical_split(key) not in ("train", "val"):
            continue
        found[canonical_split(key)] = partial(_read, file, data, classes, canonical_split(key), entries, strict)
    if not found:
        raise DataError(f"{file} names no pictures; it needs train: or val: with a folder or a list of pictures")
    return found


def _find(folder: Path) -> Path | None:
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in (".yaml", ".yml"))
    named = [f for f in files if f.stem.lower() in ("data", "dataset")] or [f for f in files if _is_data(f)]
    if len(named) > 1:
        raise DataError(f"{folder} has several data files: {', '.join(f.name for f in named)}; name one of them")
    return named[0] if named else None


def _is_data(file: Path) -> bool:
    try:
        data = _load(file)
    except DataError:
        return False
    return "names" in data and any(key in data for key in _KEYS)


def _load(file: Path) -> dict[str, Any]:
    data = read_yaml(file, kind=DataError, as_written=("names",))
    if not isinstance(data, dict):
        raise DataError(f"{file} must hold keys such as 'train:' and 'names:'")
    return data


def _classes(data: dict[str, Any], file: Path) -> Classes:
    names = data.get("names")
    if names is None and isinstance(data.get("nc"), int):
        if not 0 <= data["nc"] <= _MOST_CLASSES:
            raise DataError(f"{file}: nc is {data['nc']}; at most {_MOST_CLASSES:,} classes are read")
        names = [f"class{k}" for k in range(data["nc"])]
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(k, int) for k in names):
        raise DataError(f"{file}: names must be a list of class names, or a mapping of numbers to names")
    ids = tuple(sorted(names))
    values = tuple(str(names[k]) for k in ids)
    check_classes(values, file)
    if isinstance(data.get("nc"), int) and data["nc"] != len(ids):
        raise DataError(f"{file}: nc is {data['nc']} but {len(ids)} names are given")
    return Classes(values, ids)


def _root(file: Path, data: dict[str, Any]) -> Path:
    root = file.parent / str(data.get("path") or "")
    return root if root.is_dir() else file.parent


def _place(file: Path, data: dict[str, Any], entry: str) -> Path | None:
    """The folder or list that an entry means. Roboflow writes ../train/images for train/images."""
    entry = entry.replace("\\", "/")
    bare = entry
    while bare.startswith("../"):
        bare = bare[3:]
    for place in (_root(file, data) / entry, file.parent / entry, file.parent / bare):
        if place.exists():
            return place
    return None


def _read(file: Path, data: dict[str, Any], classes: Classes, split: str, entries: list[Any], strict: bool) -> Dataset:
    problems = Problems(file, strict)
    root = _root(file, data)
    paths: list[Path] = []
    for entry in entries:
        place = _place(file, data, str(entry))
        if place is None:
            raise DataError(f"{file}: {split}: {entry} does not exist (looked in {root} and {file.parent})")
        paths += list_images(place) if place.is_dir() else _listed(place, root, problems)
    images = []
    rows: list[tuple[int, int, float, float, float, float]] = []
    names: list[tuple[Path, int]] = []
    bare = 0
    label_of = {id: label for label, id in enumerate(classes.ids)}
    for index, path in enumerate(paths):
        size: Size | None
        try:
            size = image_size(path)
        except ImageError:
            size = None  # `assemble` reports it
        relative = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
        images.append(ImageFile(index + 1, relative.as_posix(), path, size))
        labels = _label_file(path)
        if not labels.exists():
            bare += 1
            continue
        try:
            lines = read_lines(labels, kind=DataError)
        except DataError as error:
            problems.skip("label files that cannot be read", str(error))
            continue
        height, width = size or (1, 1)
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                label, (x1, y1, x2, y2) = _row(line, label_of)
            except ValueError as error:
                problems.skip("label rows that cannot be used", f"{labels}, line {number}: {error}")
                continue
            rows.append((index, label, x1 * width, y1 * height, x2 * width, y2 * height))
            names.append((labels, number))
    if bare:
        kind = "no picture has a label file: is 'labels' beside 'images'?" if bare == len(paths) else ""
        problems.note(kind or "pictures without a label file, used as pictures without objects", count=bare)
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    flat = Rows(
        table[:, 0].astype(np.int64),
        table[:, 2:],
        table[:, 1].astype(np.int64),
        np.zeros(len(table), dtype=bool),
        np.full(len(table), np.nan),
        lambda k: f"line {names[k][1]} of {names[k][0].name}",
    )
    records = assemble(images, flat, problems)
    return Dataset(records, classes, "yolo", split, file, problems.notes())


def _row(line: str, label_of: dict[int, int]) -> tuple[int, tuple[float, float, float, float]]:
    """`class x y w h`, or `class x y x y x y ...` (a polygon), in shares of the picture -> label, corners."""
    fields = line.split()
    try:
        values = [float(v) for v in fields]
    except ValueError:  # the text is not shown: a link may lead anywhere
        raise ValueError("a row is made of numbers: class x y w h") from None
    if not values[0].is_integer() or int(values[0]) not in label_of:
        raise ValueError(f"there is no class {fields[0]}")
    label, numbers = label_of[int(values[0])], values[1:]
    if len(numbers) == 4:
        x, y, w, h = numbers
        box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    elif len(numbers) >= 6 and len(numbers) % 2 == 0:
        xs, ys = numbers[::2], numbers[1::2]
        box = (min(xs), min(ys), max(xs), max(ys))
    else:
        raise ValueError(f"{len(fields)} numbers; a box has 5, a polygon an odd count from 7")
    if max(box) > 2:
        raise ValueError(f"{line.strip()[:60]!r} is not in shares of the picture (0..1)")
    return label, box


def _listed(file: Path, root: Path, problems: Problems) -> list[Path]:
    """The pictures of a .txt list; each must lie under the data set's folder."""
    if file.suffix.lower() != ".txt":
        raise DataError(f"{file} is neither a folder nor a .txt list of pictures")
    paths = []
    for line in filter(None, map(str.strip, read_lines(file, kind=DataError))):
        name = line.replace("\\", "/")
        for top in (root.resolve(), root.absolute()):
            if name.startswith(f"{top.as_posix()}/"):
                name = name[len(top.as_posix()) + 1 :]
        path = root / safe_name(name, file)
        if not path.is_file() and (file.parent / safe_name(name, file)).is_file():
            path = file.parent / safe_name(name, file)
        if path.is_file():
            paths.append(path)
        else:
            problems.skip("pictures that are not there", line)
    return paths


def _label_file(image: Path) -> Path:
    """images/train/a.jpg -> labels/train/a.txt; beside the picture where no folder is called images."""
    parts = list(image.parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == "images":
            parts[at] = "labels"
            return Path(*parts).with_suffix(".txt")
    return image.with_suffix(".txt")
