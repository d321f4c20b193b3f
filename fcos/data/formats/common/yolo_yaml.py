"""data.yaml and darknet's .data: which classes a YOLO set has, and where its images lie."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ....errors import DataError
from ....system.core_yaml import read_yaml
from ....system.files import folded, is_there
from ....system.readers import read_lines
from ....system.terminal import plural
from ....types import Classes
from ... import kinds
from ...images.reading import SUFFIXES
from ...splits import is_generic, split_of_folder
from ...tree import Tree, set_images_below
from .assemble import Problems, check_classes
from .lists import read_names
from .pairing import clean_name

_MOST_CLASSES = 100_000


@dataclass(frozen=True)
class DataFile:
    """A file that describes a set, and its keys: train, val and so on, a folder or list of images or several; names;
    path, from where they count; kpt_shape, of labels with keypoints."""

    tree: Tree
    file: Path
    keys: dict[str, Any]

    @classmethod
    def read(cls, tree: Tree, file: Path) -> DataFile:
        """DataError where it is neither."""
        return cls(tree, file, _darknet(tree, file) if file.suffix.lower() == ".data" else _yaml(file))

    def entries(self, key: str) -> list[Any]:
        """The folders or lists of a key; none where it has none."""
        value = self.keys.get(key)
        return value if isinstance(value, list) else [value] if value else []

    def own_splits(self, usual: Collection[str]) -> list[str]:
        """The keys beside `usual` whose folder of images is called as they are: night: images/night."""
        folders = {k: str(v).rpartition("/") for k, v in self.keys.items() if k not in (*usual, "path", "names")}
        own = [key for key, (above, _, folder) in folders.items() if above and folder == key and not is_generic(key)]
        return [key for key in own if (place := self.place(str(self.keys[key]))) is not None and place.is_dir()]

    def classes(self) -> Classes:
        """By `names`, or numbers by `nc` alone; DataError where they cannot be."""
        names, count = self.keys.get("names"), self.keys.get("nc")
        if names is None and type(count) is int:
            if not 0 <= count <= _MOST_CLASSES:
                raise DataError(f"{self.file}: nc is {count}; at most {_MOST_CLASSES:,} classes are read")
            names = [f"class{k}" for k in range(count)]
        if isinstance(names, list):
            names = dict(enumerate(names))
        if not isinstance(names, dict) or not all(isinstance(k, int) for k in names):
            raise DataError(f"{self.file}: names must be a list of class names, or a mapping of numbers to names")
        ids = tuple(sorted(names))
        values = tuple(str(names[k]) for k in ids)
        check_classes(values, self.file)
        if type(count) is int and count != len(ids):
            raise DataError(f"{self.file}: nc is {count}, but it lists {plural(len(ids), 'name')}")
        return Classes(values, ids)

    def keypoints(self) -> int:
        """How many numbers of keypoints stand behind each box: K * D of kpt_shape, 0 without it; DataError where that
        is no such shape."""
        shape = self.keys.get("kpt_shape")
        if shape is None:
            return 0
        if not (isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and 0 < n < 10_000 for n in shape)):
            raise DataError(f"{self.file}: kpt_shape must be [number of keypoints, 2 or 3], not {str(shape)[:40]}")
        return int(shape[0] * shape[1])

    @property
    def root(self) -> Path:
        """The folder from which entries count."""
        beside = self.file.parent
        root = beside / str(self.keys.get("path") or "")
        return root if _inside(root, beside) and is_there(root) and root.is_dir() else beside

    def place(self, entry: str) -> Path | None:
        """The folder or list that an entry means, below the folder of the file or that of --images.

        Files are written on other machines: Roboflow has ../train/images for train/images, others /content/set/train.
        So leading folders are dropped until the rest is there, but not the one that names the split.
        """
        if "\0" in entry or not entry.strip():
            return None
        entry = entry.replace("\\", "/")
        images = self.tree.source.images
        roots = [self.root, self.file.parent, *([images] if images else [])]
        for root in roots:
            if is_there(root / entry) and any(_inside(root / entry, r) for r in roots):
                return root / entry
        parts = clean_name(entry, self.file).split("/") if entry.strip("/. ") else []
        naming = (k for k, part in enumerate(parts) if split_of_folder(part) and all(map(is_generic, parts[k + 1 :])))
        split = min(naming, default=len(parts) - 1)
        for start in range(split + 1):
            for root in roots:
                if is_there(root / Path(*parts[start:])):
                    return root / Path(*parts[start:])
        return None

    def images(self, split: str, entry: str, problems: Problems) -> list[Path]:
        """The images of an entry, a folder or a list; DataError where it is not there."""
        place = self.place(entry)
        if place is None:
            beside = self.file.parent
            outside = is_there(Path(entry)) or is_there(self.root / entry)
            hint = f"is outside {beside}: --images {entry}" if outside else "does not exist"
            places = f"{self.root}" if self.root == beside else f"{self.root} and {beside}"
            fix = "" if outside or split != "val" else f"; delete the line {split}: if there is none"
            raise DataError(f"{self.file}: {split}: {entry} {hint} (looked in {places}){fix}")
        if not place.is_dir():
            return self._listed(place, problems)
        return set_images_below(place)

    def _listed(self, file: Path, problems: Problems) -> list[Path]:
        """The images of a .txt list, each below the data set's folder; folders of other machines are dropped."""
        if file.suffix.lower() != ".txt":
            raise DataError(f"{file} is neither a folder nor a .txt list of images")
        paths = []
        for line in filter(None, map(str.strip, read_lines(file, kind=DataError))):
            parts = clean_name(line, file).split("/")
            tops = (self.root, file.parent)
            options = (top / Path(*parts[start:]) for start in range(len(parts)) for top in tops)
            path = next((p for p in options if p.suffix.lower() in SUFFIXES and is_there(p) and p.is_file()), None)
            if path is None:  # perhaps in other letters
                names = (top / Path(*parts[start:]) for start in range(len(parts)) for top in tops)
                path = next((p for o in names if (p := self._by_name.get(folded(o.as_posix())))), None)
            if path is None:
                problems.skip(kinds.MISSING, line)
            else:
                paths.append(path)
        return paths

    @cached_property
    def _by_name(self) -> dict[str, Path]:
        """All images, by their folded paths."""
        return {folded(path.as_posix()): path for path in self.tree.images.paths}


def _yaml(file: Path) -> dict[str, Any]:
    keys = read_yaml(file, kind=DataError, as_written=("names",))
    if not isinstance(keys, dict):
        raise DataError(f"{file} must hold keys such as 'train:' and 'names:'")
    return keys


def _darknet(tree: Tree, file: Path) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for line in read_lines(file, kind=DataError):
        key, equals, value = line.partition("=")
        if equals and not key.lstrip().startswith("#"):
            keys[key.strip().lower()] = value.strip()
    names = DataFile(tree, file, {}).place(str(keys.get("names", "")))
    if names is None or not is_there(names) or not names.is_file():
        raise DataError(f"{file}: names: {keys.get('names')} does not exist")
    keys["names"] = list(read_names(names))
    return keys


def _inside(path: Path, folder: Path) -> bool:
    try:
        return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
    except ValueError:
        return False
