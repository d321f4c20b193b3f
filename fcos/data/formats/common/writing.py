"""What the writers of all formats share: files written whole, images brought along, names that are free."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from ....errors import DataError, one_line
from ....system import tars
from ....system.files import disk_reason, file_name, folded, write_whole
from ....system.machine import cache_folder
from ....system.readers import read_bytes
from ....system.terminal import plural, some
from ....types import Classes
from ...dataset import Dataset
from ...images.reading import IMAGE_LIMIT, SUFFIXES
from ...loading.augment import clip
from ...records import Record
from ...splits import WORDS
from ...tree import UNSEEN
from .assemble import over_the_edge
from .lists import NO_CLASSES, names_in

_NO_PRIVILEGE = 1314  # Windows' ERROR_PRIVILEGE_NOT_HELD
_FOLDERS = frozenset(("images", "JPEGImages", "all", *WORDS))
# In the name of a new file: what XML cannot hold, what ends a line, outer spaces, which many readers cut off, and the
# backslash, which they take for a slash.
_ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\\]|(?:^|(?<=/))\s+|\s+(?=/|$)")
Row = tuple[tuple[float, float, float, float], int, bool]


@dataclass(frozen=True)
class Output:
    """A new data set that is being written: the folder to fill, its classes, whether images are links, the name that
    the folder will have, the model that proposes the boxes (empty: a person annotated them), and the names of classes
    without a box. A proposal stands there with its score and the model, so that nobody takes it for the truth.

    Raises DataError where the disk refuses.
    """

    target: Path
    classes: Classes
    link: bool = False
    name: str = ""
    model: str = ""
    unused: frozenset[str] = frozenset()

    def at(self, name: str) -> Path:
        """A path below the target; DataError for a name that leads elsewhere, as one from a stranger's file may."""
        path = self.target / name
        if not path.is_relative_to(self.target) or os.pardir in path.relative_to(self.target).parts:
            raise DataError(f"{name!r} leads out of the folder that is written; correct the name")
        return path

    def folder(self, name: str) -> Path:
        """A folder below the target, made where it is not there."""
        path = self.at(name)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def text(self, name: str, content: str) -> None:
        """A text file below the target. The target is new, so half a file is nobody's loss: only the whole set is
        kept or swept away."""
        path = self.at(name)
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8", newline="\n")

    def labels(self) -> None:
        """labels.txt: the class names in order, for formats whose own files do not list them."""
        self.text("labels.txt", one_a_line(self.classes.names, self.unused))

    def json(self, name: str, content: Any) -> None:
        """A JSON file below the target."""
        self.text(name, json.dumps(content, ensure_ascii=False))

    def whole(self, name: str, content: bytes) -> None:
        """A binary file below the target."""
        write_whole(self.at(name), content)

    def image(self, record: Record, name: str) -> None:
        """The image of a record, copied or linked; nothing where the record has none."""
        path = self.at(name)
        if record.path is None or path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if tars.split(record.path) is not None:
            write_whole(path, read_bytes(record.path, IMAGE_LIMIT, DataError))
        elif self.link and cache_folder().resolve() not in record.path.resolve().parents:  # which may be emptied
            try:
                path.symlink_to(record.path.resolve())
            except OSError as error:
                if getattr(error, "winerror", None) != _NO_PRIVILEGE:
                    raise
                raise DataError("Windows makes links in its developer mode only; leave out --link to copy") from error
        else:
            shutil.copyfile(record.path, path)

    def rows(self, record: Record, *, cut: bool = False, ignored: bool = True) -> Iterator[Row]:
        """(corners, label, ignore) of each box; cut to the image, and without ignored ones, where asked for."""
        boxes = clip(record.boxes, record.size) if cut else record.boxes
        for box, label, ignore in zip(boxes.tolist(), record.labels.tolist(), record.ignore.tolist(), strict=True):
            if ignored or not ignore:
                yield tuple(box), label, ignore

    def scores(self, record: Record) -> list[float]:
        """The score of each box that a model proposes, to four digits; 0 where there is none."""
        scores = np.zeros(len(record.boxes)) if record.scores is None else record.scores
        return [round(score, 4) for score in scores.tolist()]


def one_a_line(names: Sequence[str], unused: Collection[str]) -> str:
    """A list of class names, one a line; DataError for names that it would not be read with. LabelMe's two for what is
    no object are left out in reading, which loses nothing where they are `unused`."""
    lost = [name for name in names if name in NO_CLASSES and name not in unused]
    if not lost and names_in(names) != tuple(names):  # numbered from 0
        lost = [*names[:1]]
    if lost:
        raise DataError(
            f"the class {some(lost)} would not be read as it is from a list of classes; rename it (fcos data "
            f"convert --rename {shlex.quote(lost[0])}=NAME), or choose another format (coco, yolo)"
        )
    return "".join(f"{name}\n" for name in names)


def disk_error(error: OSError, target: Path) -> DataError:
    """What the system said about a failed write, as one line."""
    return DataError(f"cannot write {target}: {disk_reason(error) or error}; no part of it was kept")


# --------------------------------------------------------------------------- what a format cannot hold


def count(splits: Mapping[str, Dataset], what: str) -> int:
    """Boxes of all splits that are 'ignored', or others that are 'over' the edge of their image."""
    total = 0
    for dataset in splits.values():
        table = dataset.packed.table
        over = over_the_edge(table.boxes, table.sizes[dataset.packed.owner]) & ~table.ignore
        total += int((table.ignore if what == "ignored" else over).sum())
    return total


def left_out(splits: Mapping[str, Dataset], title: str) -> list[str]:
    """The line for a format that has no mark for ignored boxes."""
    ignored = count(splits, "ignored")
    if not ignored:
        return []
    return [f"{title}: {ignored:,} crowd or difficult boxes are left out: the format has no mark for them"]


def need_images(splits: Mapping[str, Dataset], title: str) -> None:
    """DataError where an image is not there and the format finds its images by file."""
    for split, dataset in splits.items():
        if any(record.path is None for record in dataset.records):
            raise DataError(f"{dataset.root}: the split {split} has no images, and {title} lists its images by file")


# --------------------------------------------------------------------------- names


def renamed(splits: Mapping[str, Dataset]) -> list[str]:
    """The line for images whose names no file holds safely; `names_of` gives them others."""
    odd = [r.file_name for d in splits.values() for r in d.records if "/".join(_parts(r.file_name)) != r.file_name]
    if not odd:
        return []
    why = "a control character, a backslash, outer spaces, a dot in front, or what is no UTF-8"
    return [f"another name for {plural(len(odd), 'image')} whose own has {why} (first: {one_line(odd[0])})"]


def _parts(name: str) -> list[str]:
    """The folders and the file of an image's name as a new file can have them: none leads out of its folder, and none
    is passed over when the set is read."""
    parts = [part for part in _ODD.sub("_", name).split("/") if part not in ("", os.curdir, os.pardir)]
    return [f"_{part}" if part.startswith(UNSEEN) else part for part in parts] or ["_"]


def names_of(dataset: Dataset) -> list[str]:
    """File names inside the new image folder: without folders that only repeat the layout, no stem twice."""
    taken: dict[str, int] = {}
    names = []
    for index, record in enumerate(dataset.records):
        parts = _parts(record.file_name)
        while len(parts) > 1 and (parts[0] in _FOLDERS or re.fullmatch(r"(train|val|test)(19|20)\d\d", parts[0])):
            parts = parts[1:]
        name = "/".join(map(file_name, parts))
        if record.path is not None and os.path.splitext(name)[1].lower() not in SUFFIXES:  # as data sets may name them
            name += record.path.suffix
        # Names that differ only in their suffix, or in case, would share a label file.
        if taken.setdefault(folded(os.path.splitext(name)[0]), index) != index:
            stem, suffix = os.path.splitext(name)
            while taken.setdefault(folded(stem), index) != index:
                stem += f"_{record.id}"
            name = stem + suffix
        names.append(name)
    return names


def stems_of(
    splits: Mapping[str, Dataset], *, spaces: bool = False
) -> tuple[dict[tuple[str, int], tuple[str, str]], int]:
    """((split, index) -> (stem, suffix), how many are new) for formats that keep all images in one folder.

    A stem has no folders, and without `spaces` none of these: a split list ends a name at a space. One image in two
    splits keeps one name.
    """
    taken: dict[str, object] = {}
    stems: dict[tuple[str, int], tuple[str, str]] = {}
    renamed = 0
    for split, dataset in splits.items():
        for index, (record, name) in enumerate(zip(dataset.records, names_of(dataset), strict=True)):
            stem, suffix = os.path.splitext(re.sub("/" if spaces else r"[/\s]", "_", name))
            who: object = record.path or (split, index)
            while taken.setdefault(folded(stem), who) != who:
                stem = f"{stem}_{split}"
            renamed += stem + suffix != name
            stems[split, index] = (stem, suffix)
    return stems, renamed


def short(value: float) -> float | int:
    """Thousandths of a pixel, as an int where it is one."""
    rounded = round(value, 3)
    whole = int(rounded)
    return whole if rounded == whole else rounded


def text(value: str) -> str:
    """Text between XML tags."""
    return escape(value)


def attribute(value: object) -> str:
    """The value of an XML attribute, in quotes."""
    return quoteattr(str(value))


def shares(box: tuple[float, float, float, float], record: Record) -> tuple[float, float, float, float]:
    """Corners in pixels -> in shares of the image."""
    height, width = record.size
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height
