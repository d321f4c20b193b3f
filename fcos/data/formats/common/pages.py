"""The way from annotation files to a data set that most formats share.

A format says how one of its files is read: `parse(file)` gives pages, each with the name of an image and its objects.
Everything else is done here, once: which image a page belongs to, which split it is in, what the classes are, and
what cannot be used. The checks of boxes and images are those of `assemble.py`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ....errors import DataError, ImageError
from ....types import Classes
from ... import kinds
from ...dataset import EXAMPLES, Dataset, Note, Sources
from ...images.reading import image_header
from ...kinds import Form, Kind
from ...probe import stem_of
from ...records import Size
from ...splits import ORDER, split_of_file
from ...tree import Tree
from .assemble import ImageFile, Problems, Rows, assemble, check_classes
from .lists import NO_CLASSES, read_names, told
from .pairing import clean_name, count_uploads

Box = tuple[float, float, float, float]
ANY = "*any class*"  # the class of a region that is to be ignored whatever the class is


class Object(NamedTuple):
    """One box of a page. name: its class, or the class's number where the format has numbers. box: corners xyxy, in
    pixels, or in shares of the image where the page says so. where: for messages, else 'object 3'."""

    name: str | int
    box: Box
    ignore: bool = False
    area: float = float("nan")
    where: str = ""


class Page(NamedTuple):
    """What a file says about one image.

    name: the image's file name as the file has it; '' where the annotation file is called as the image.
    size: (height, width) that the boxes were made for, None where the file does not say. shares: the boxes are in
    shares of the image (0..1). split: where the file itself says it. path: the image, where the format knows it.
    left_out: why the image is not used, where nobody knows what it shows. form: the numbers of a box in the file.
    """

    name: str
    size: Size | None
    objects: Sequence[Object]
    shares: bool = False
    split: str = ""
    problems: Sequence[str] = ()
    path: Path | None = None
    left_out: Kind | None = None
    form: Form = "xyxy"


@dataclass
class Reading:
    """How the files of one format are read, each of which names many images (see `per_image.py` for the others).

    classes: the classes and their labels by name or number, where the set says them; left out, all names that occur,
    by alphabet. splits_inside: the pages say their split. names_inside: pages with a `path` are called by their `name`,
    unless two of a split have it. noun: what a file is called in messages. source: what the set is called; the tree's
    root where left out.
    """

    format: str
    tree: Tree
    files: Sequence[Path]
    parse: Callable[[Path], Iterable[Page]]
    strict: bool = False
    classes: Callable[[Reading], Classes | None] | None = None
    splits_inside: bool = False
    names_inside: bool = False
    noun: str = "annotation file"
    source: Path | None = None
    _pages: dict[Path, list[Page]] = field(default_factory=dict)
    _one_split: bool = False

    @property
    def root(self) -> Path:
        return self.source or (self.files[0] if len(self.files) == 1 else self.tree.root)

    def pages(self, file: Path) -> list[Page]:
        """The pages of a file, read once."""
        if file not in self._pages:
            self._pages[file] = self._parsed(file)
        return self._pages[file]

    def _parsed(self, file: Path) -> list[Page]:
        return list(self.parse(file))

    @property
    def seen(self) -> set[str | int]:
        """The classes of all objects that have one."""
        return {o.name for file in self.files for page in self.pages(file) for o in page.objects} - {""}

    @cached_property
    def known(self) -> Classes:
        """The classes of all splits together."""
        chosen = self.classes(self) if self.classes is not None else None
        if chosen is None:
            names = sorted({str(name) for name in self.seen} - {ANY})
            if not names:
                raise DataError(f"{self.root}: no {self.noun} holds an object, so there are no classes")
            chosen = Classes(tuple(names), tuple(range(1, len(names) + 1)))
        check_classes(chosen.names, self.root)
        return chosen

    def sources(self) -> Sources:
        """The splits: name -> function that reads it."""
        parts: dict[str, list[Path]] = defaultdict(list)
        bare: list[str] = []
        for file in self.files:
            if not self._tells(file):
                parts[self._own(file)].append(file)
                continue
            bare += [page.name for page in self.pages(file) if not page.split]
            for name in {page.split or "all" for page in self.pages(file)}:
                parts[name].append(file)
        self._one_split = len(parts) == 1
        notes = [Note(kinds.NO_SPLIT, len(bare), bare[0], "note", tuple(bare[1:EXAMPLES]))] if bare else []
        return told({s: partial(self._read, s, parts[s]) for s in in_order(parts)}, notes)

    def _tells(self, file: Path) -> bool:
        """Whether a file says a split of its images; those of which it says none are then in "all"."""
        return self.splits_inside and any(page.split for page in self.pages(file))

    def _own(self, file: Path) -> str:
        """The split that a file is by its name or folders."""
        return split_of_file(stem_of(file)) or self.tree.split_of(file) or "all"

    @cached_property
    def _uploads(self) -> Mapping[str, int]:
        """`count_uploads` of all names of the set."""
        pages = ((file, page) for file in self.files for page in self.pages(file))
        return count_uploads({clean_name(page.name, file) for file, page in pages if page.path is None})

    def _names(self, pages: Sequence[Page], file: Path, told: Mapping[str, int]) -> list[str]:
        """What the images of a file are called. told: how often each name is that of an image with a `path`."""
        names = []
        root = self.tree.images.root
        for page in pages:
            name = clean_name(page.name, file) if page.path is None or self.names_inside else ""
            if page.path is None or told.get(name) == 1:
                names.append(name)
            else:
                below = page.path.is_relative_to(root)
                names.append(page.path.relative_to(root).as_posix() if below else page.path.name)
        return names

    def _paths(self, pages: Sequence[Page], names: Sequence[str], file: Path, split: str) -> Sequence[Path | None]:
        """Where the images of a file are, None where they are not."""
        paths = [page.path for page in pages]
        if None not in paths:  # the format has unpacked them
            return paths
        found = self.tree.images.locate(names, file, split if split != "all" else None, lambda: self._uploads)
        return [known or there for known, there in zip(paths, found, strict=True)]

    def _read(self, split: str, files: list[Path]) -> Dataset:
        problems = Problems(files[0] if len(files) == 1 else self.root, self.strict)
        draft = Draft(self, problems)
        owner: dict[str, Path] = {}
        used: set[Path] = set()
        inside = ((p.name, file) for file in files for p in self.pages(file) if self.names_inside and p.path)
        told = Counter(clean_name(name, file) for name, file in inside)
        for file in files:
            pages = self.pages(file)
            pages = [p for p in pages if (p.split or "all") == split] if self._tells(file) else pages
            names = self._names(pages, file, told)
            for name in set(names):
                if owner.setdefault(name, file) != file:
                    raise DataError(
                        f"{owner[name]} and {file} both describe {name}: name one of the files, or remove the other"
                    )
            paths = self._paths(pages, names, file, split)
            alone = not any(paths)
            if pages and alone:
                problems.note(kinds.ONLY_ANNOTATIONS, names[0], len(names))
            for page, name, image in zip(pages, names, paths, strict=True):
                if image is None and not alone:
                    problems.skip(kinds.MISSING, name)
                elif page.left_out is not None:
                    problems.note(page.left_out, name)
                else:
                    draft.add(page, image, file.name, name)
            used.update(filter(None, paths))
        unused = self.tree.images.beside(used, split, self._one_split)
        if unused:
            problems.note(kinds.without(f"a row in an {self.noun}", kinds.LEFT_OUT), unused[0].name, len(unused))
        return draft.dataset(split)


class Draft:
    """Images and rows as they come in."""

    def __init__(self, reading: Reading, problems: Problems) -> None:
        self.reading, self.problems = reading, problems
        self.classes = reading.known
        self.labels_of: dict[str | int, Sequence[int]] = {name: (k,) for k, name in enumerate(self.classes.names)}
        self.labels_of |= {id: (k,) for k, id in enumerate(self.classes.ids)}
        self.labels_of[ANY] = range(len(self.classes))
        self.images: list[ImageFile] = []
        self.rows: list[tuple[float, ...]] = []
        self.where: list[tuple[str, str, str | int]] = []
        self.forms: set[Form] = set()

    def add(self, page: Page, image: Path | None, where: str, name: str) -> None:
        for problem in page.problems:
            self.problems.skip(kinds.OBJECTS, f"{where}: {problem}")
        size, (width, height) = _scale(page.size, image) if page.shares else (page.size, (1.0, 1.0))
        index = len(self.images)
        self.forms |= {page.form} if page.objects else set()
        for number, (label, box, ignore, area, place) in enumerate(page.objects, 1):
            place = place or f"object {number}"
            labels = self.labels_of.get(label)
            if label == "":
                self.problems.skip(kinds.OBJECTS, f"{where}, {place} has no class")
                continue
            if labels is None:
                self.problems.skip(kinds.UNLISTED, f"{where}, {place}: {label!r}")
                continue
            x1, y1, x2, y2 = box
            for k in labels:
                row = (index, k, ignore or label == ANY, area, x1 * width, y1 * height, x2 * width, y2 * height)
                self.rows.append(row)
                self.where.append((place, where, "ignore" if label == ANY else label))
        self.images.append(ImageFile(index + 1, name, image, size))

    def dataset(self, split: str) -> Dataset:
        table = np.array(self.rows, dtype=np.float64).reshape(-1, 8)
        where = self.where

        def name(row: int) -> str:
            place, file, label = where[row]
            return f"{place} ({label}) of {file}"

        flat = Rows(
            table[:, 0].astype(np.int64),
            table[:, 4:],
            table[:, 1].astype(np.int64),
            table[:, 2].astype(bool),
            table[:, 3],
            name,
            form=next(iter(self.forms)) if len(self.forms) == 1 else None,
        )
        records = assemble(self.images, flat, self.problems)
        return Dataset(records, self.classes, self.reading.format, split, self.problems.source, self.problems.notes())


def _scale(given: Size | None, image: Path | None) -> tuple[Size | None, tuple[float, float]]:
    """(the size to check against, (width, height) of a share of 1).

    Shares of the displayed image need no size. Where the file gives a size that is that of the stored pixels, sides
    exchanged, the tool did not know EXIF, and the boxes will be turned with the image.
    """
    if image is not None:
        try:
            header = image_header(image)
        except ImageError:  # `assemble` reports it
            return given, (1.0, 1.0)
        height, width = header.displayed
        if given == (header.height, header.width) and given != header.displayed:
            return given, (float(given[1]), float(given[0]))
        return None, (float(width), float(height))
    return given, (float(given[1]), float(given[0])) if given else (1.0, 1.0)


def listed_classes(reading: Reading) -> Classes | None:
    """Class names from labels.txt or classes.txt, one a line, with ids from 1; None where there is no such file."""
    files = [f for f in reading.tree.annotations if f.name.lower() in ("labels.txt", "classes.txt")]
    for file in sorted(files, key=lambda f: len(f.parts))[:1]:
        names = tuple(name for name in read_names(file) if name not in NO_CLASSES)
        return Classes(names, tuple(range(1, len(names) + 1)))
    return None


def in_order(names: Iterable[str]) -> list[str]:
    """Splits as people list them: train, trainval, val, test, then by alphabet."""
    return sorted(names, key=lambda n: (ORDER.get(n, 9), n))
