"""The way from annotation files to a data set that most formats share.

A format says how one of its files is read: `parse(file)` gives pages, each with the name of an image and its objects.
Everything else is done here, once: which image a page belongs to, which split it is in, what the classes are, and
what cannot be used. The checks of boxes and images are those of `assemble.py`.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ....errors import DataError, ImageError
from ....types import Classes
from ... import kinds
from ...dataset import Dataset, Note, Sources
from ...images.reading import SUFFIXES, image_header
from ...kinds import Kind
from ...probe import stem_of
from ...records import Size
from ...splits import ORDER, split_of_file
from ...tree import Tree
from .assemble import ImageFile, Problems, Rows, assemble, check_classes
from .lists import read_names, share_out, told
from .pairing import clean_name, count_uploads, folder_key, uploaded

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
    left_out: why the image is not used, where nobody knows what it shows.
    """

    name: str
    size: Size | None
    objects: Sequence[Object]
    shares: bool = False
    split: str = ""
    problems: Sequence[str] = ()
    path: Path | None = None
    left_out: Kind | None = None


class _Entry(NamedTuple):
    """An annotation file (None: no file says anything) and the image that it belongs to (None: not there)."""

    file: Path | None
    image: Path | None
    name: str


@dataclass
class Reading:
    """How the files of one format are read.

    one_each: each file belongs to one image and is called as it is; else a file names many images. classes: the
    classes and their labels by name or number, where the set says them; left out, all names that occur, by alphabet.
    splits_inside: the pages say their split. noun: what a file is called in messages. source: what the set is called;
    the tree's root where left out.
    """

    format: str
    tree: Tree
    files: Sequence[Path]
    parse: Callable[[Path], Iterable[Page]]
    strict: bool = False
    one_each: bool = False
    classes: Callable[[Reading], Classes | None] | None = None
    splits_inside: bool = False
    noun: str = "annotation file"
    source: Path | None = None
    _pages: dict[Path, list[Page]] = field(default_factory=dict)
    _one_split: bool = False

    @property
    def root(self) -> Path:
        return self.source or (self.files[0] if len(self.files) == 1 and not self.one_each else self.tree.root)

    def pages(self, file: Path) -> list[Page]:
        """The pages of a file, read once. A file of one image that cannot be read is a page that is left out."""
        if file not in self._pages:
            try:
                self._pages[file] = list(self.parse(file))
            except DataError as error:
                if not self.one_each:
                    raise
                self._pages[file] = [Page("", None, (), problems=(str(error),), left_out=kinds.LABEL_FILES)]
        return self._pages[file]

    @cached_property
    def known(self) -> Classes:
        """The classes of all splits together."""
        chosen = self.classes(self) if self.classes is not None else None
        if chosen is None:
            names = sorted(
                {str(o.name) for file in self.files for page in self.pages(file) for o in page.objects} - {ANY}
            )
            if not names:
                raise DataError(f"{self.root}: no {self.noun} holds an object, so there are no classes")
            chosen = Classes(tuple(names), tuple(range(1, len(names) + 1)))
        check_classes(chosen.names, self.root)
        return chosen

    def sources(self) -> Sources:
        """The splits: name -> function that reads it."""
        if not self.files:
            return {}
        if self.one_each:
            parts, notes = self._parts_of_images()
            return told({s: partial(self._read_each, s, parts[s]) for s in in_order(parts)}, notes)
        return self._parts_of_files()

    # ----------------------------------------------------------------------- a file for each image

    def _parts_of_images(self) -> tuple[dict[str, list[_Entry]], tuple[Note, ...]]:
        tree = self.tree
        paired = [_Entry(f, tree.pair(f), "") for f in self.files]
        entries = _one_each(paired)
        if not any(e.image for e in paired):  # the files name their images, perhaps otherwise than themselves
            entries = _one_each([self._by_stated_name(e) for e in entries]) if len(tree.images) else entries
        named = self._listed(entries)
        listed, notes = share_out(named, entries, tree.lists, self._split_of, lambda e: str(e.file))
        if listed:
            return listed, notes
        parts: dict[str, list[_Entry]] = defaultdict(list)
        for entry in entries:
            parts[self._split_of(entry) or "all"].append(entry)
        _several_sets(tree, {s: [e.file for e in part if e.file] for s, part in parts.items()})
        return dict(parts), notes

    def _split_of(self, entry: _Entry) -> str | None:
        """What the file says, or its folders, or those of its image."""
        assert entry.file is not None
        inside = self.pages(entry.file)[0].split if self.splits_inside else ""
        split = inside or self.tree.split_of(entry.file)
        return split or (self.tree.images.splits.get(entry.image) if entry.image else None)

    def _by_stated_name(self, entry: _Entry) -> _Entry:
        assert entry.file is not None
        page = (self.pages(entry.file) or [Page("", None, ())])[0]
        if not page.name:
            return entry
        image = self.tree.images.locate([clean_name(page.name, entry.file)], entry.file, None)[0]
        return _Entry(entry.file, image, page.name)

    def _listed(self, entries: list[_Entry]) -> dict[str, list[_Entry]]:
        """The entries by split lists (train.txt, ImageSets/Main/val.txt); none of a list that fits nothing, and none at
        all where no list names a file."""
        by_stem: dict[str, list[_Entry]] = defaultdict(list)
        for entry in entries:
            assert entry.file is not None
            for stem in {stem_of(entry.file).casefold(), *([entry.image.stem.casefold()] if entry.image else [])}:
                by_stem[stem].append(entry)
        parts: dict[str, list[_Entry]] = {}
        hits = 0
        for split, lines in self.tree.lists.items():
            part = []
            for line in lines:
                name = clean_name(line, self.tree.root)
                folders, stem = name.split("/")[:-1], name.rpartition("/")[2]
                stem = os.path.splitext(stem)[0] if os.path.splitext(stem)[1].lower() in SUFFIXES else stem
                same = by_stem.get(stem.casefold(), [])
                if len(same) > 1:
                    key = folder_key(folders)
                    same = [e for e in same if e.file and folder_key(self.tree.folders(e.file))[-len(key) :] == key]
                hits += len(same) == 1
                part.append(same[0] if len(same) == 1 else _Entry(None, self.tree.images.pair(folders, stem), name))
            parts[split] = part if any(e.file or e.image for e in part) else []
        return parts if hits else {}

    def _read_each(self, split: str, entries: list[_Entry]) -> Dataset:
        problems = Problems(self.root, self.strict)
        alone = not any(e.image for e in entries)
        if entries and alone:
            first = entries[0].file or entries[0].name
            problems.note(kinds.ONLY_ANNOTATIONS, f"{first}", len(entries))
        draft = _Draft(self, problems)
        for entry in entries:
            pages = self.pages(entry.file) if entry.file else [Page(entry.name, None, ())]
            where = entry.file.name if entry.file else entry.name
            if entry.image is None and not alone:
                problems.skip(kinds.MISSING, str(entry.file or entry.name))
                continue
            if entry.file is None:
                problems.note(kinds.without(f"an {self.noun}", kinds.UNLABELLED), entry.name)
            for page in pages:
                if page.left_out is not None:
                    problems.skip(page.left_out, f"{where}: {page.problems[0]}" if page.problems else where)
                    continue
                draft.add(page, entry.image, where, self._name(entry, page))
        unused = self._unlabelled(split, entries)
        if unused:
            problems.note(kinds.without(f"an {self.noun}", kinds.LEFT_OUT), unused[0].name, len(unused))
        return draft.dataset(split)

    def _name(self, entry: _Entry, page: Page) -> str:
        if entry.image is not None:
            return entry.image.relative_to(self.tree.images.root).as_posix()
        if page.name:
            return clean_name(page.name, entry.file or self.tree.root)
        name = entry.name or (stem_of(entry.file) if entry.file else "")
        return name if os.path.splitext(name)[1].lower() in SUFFIXES else f"{name}.jpg"

    def _unlabelled(self, split: str, entries: list[_Entry]) -> list[Path]:
        """Images beside those of this split that no file speaks of."""
        if self.tree.lists:
            return []
        taken = {e.image for e in entries}
        folders = {i.parent for i in taken if i}
        splits, paths = self.tree.images.splits, self.tree.images.paths
        return [p for p in paths if p not in taken and p.parent in folders and (splits[p] or "all") == split]

    # ----------------------------------------------------------------------- a file for many images

    def _parts_of_files(self) -> Sources:
        parts: dict[str, list[Path]] = defaultdict(list)
        for file in self.files:
            if self.splits_inside and any(page.split for page in self.pages(file)):
                for name in {page.split or "all" for page in self.pages(file)}:
                    parts[name].append(file)
            else:
                parts[split_of_file(stem_of(file)) or self.tree.split_of(file) or "all"].append(file)
        self._one_split = len(parts) == 1
        return {s: partial(self._read_files, s, parts[s]) for s in in_order(parts)}

    @cached_property
    def _uploads(self) -> Mapping[str, int]:
        """`count_uploads` of all names of the set."""
        pages = ((file, page) for file in self.files for page in self.pages(file))
        return count_uploads({clean_name(page.name, file) for file, page in pages if page.path is None})

    def _path_name(self, path: Path) -> str:
        root = self.tree.images.root
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name

    def _read_files(self, split: str, files: list[Path]) -> Dataset:
        problems = Problems(files[0] if len(files) == 1 else self.root, self.strict)
        draft = _Draft(self, problems)
        owner: dict[str, Path] = {}
        used: set[Path] = set()
        for file in files:
            pages = [p for p in self.pages(file) if not p.split or p.split == split]
            names = [self._path_name(p.path) if p.path else clean_name(p.name, file) for p in pages]
            for name in set(names):
                if owner.setdefault(name, file) != file:
                    raise DataError(
                        f"{owner[name]} and {file} both describe {name}: name one of the files, or remove the other"
                    )
            wanted = split if split != "all" else None
            paths = [p.path for p in pages]
            if None in paths:  # the format has unpacked the others
                found = self.tree.images.locate(names, file, wanted, lambda: self._uploads)
                paths = [known or there for known, there in zip(paths, found, strict=True)]
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


def _one_each(entries: list[_Entry]) -> list[_Entry]:
    """Take the image from a file that found it by its Label Studio upload name only, if another file claims the same
    image: several uploads had one name, and nobody knows which is meant."""
    claims: dict[Path, list[int]] = defaultdict(list)
    for k, entry in enumerate(entries):
        if entry.image is not None:
            claims[entry.image].append(k)
    result = list(entries)
    for image, ks in claims.items():
        foreign = [k for k in ks if _named(entries[k]).casefold() != image.stem.casefold()]
        uploads = [k for k in foreign if uploaded(_named(entries[k]))]
        if len(ks) > 1:
            for k in uploads:
                result[k] = entries[k]._replace(image=None)
    return result


def _named(entry: _Entry) -> str:
    """The stem by which an entry has its image: of the name that its file states, or of the file."""
    name = entry.name or (entry.file.name if entry.file else "")
    return stem_of(Path(name.rpartition("/")[2]))


class _Draft:
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

    def add(self, page: Page, image: Path | None, where: str, name: str) -> None:
        for problem in page.problems:
            self.problems.skip(kinds.OBJECTS, f"{where}: {problem}")
        size, (width, height) = _scale(page.size, image) if page.shares else (page.size, (1.0, 1.0))
        index = len(self.images)
        for number, (label, box, ignore, area, place) in enumerate(page.objects, 1):
            place = place or f"object {number}"
            labels = self.labels_of.get(label)
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
        names = tuple(name for name in read_names(file) if name not in ("__ignore__", "_background_"))
        return Classes(names, tuple(range(1, len(names) + 1)))
    return None


def in_order(names: Iterable[str]) -> list[str]:
    """Splits as people list them: train, trainval, val, test, then by alphabet."""
    return sorted(names, key=lambda n: (ORDER.get(n, 9), n))


def _several_sets(tree: Tree, parts: dict[str, list[Path]]) -> None:
    """DataError where two folders of the root each hold a whole set: the same splits, or lists of their own."""
    places: dict[str, set[str]] = defaultdict(set)
    for split, files in parts.items():
        for file in files:
            key = [k for k in folder_key(tree.folders(file)) if not k.startswith("<")]
            if key:
                places[key[-1] if len(key) == 1 else "/".join(key)].add(split)
    whole = sorted(name for name, splits in places.items() if len(splits - {"all"}) > 1)
    if len(whole) > 1:
        raise DataError(f"{tree.root} holds several data sets: {', '.join(whole[:8])}; name one")
