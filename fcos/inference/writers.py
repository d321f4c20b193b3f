"""What the detections of a run become: annotated images, YOLO txt, COCO results; every file of its own name."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.classes import match_classes
from ..data.ids import Id, images_file
from ..data.open import Numbers
from ..detections import DRAWN, WRITTEN, Detections, table
from ..errors import FcosError, without_password
from ..system.files import check_kept, file_name, folded, own, real, whole_set, write_whole
from ..system.names import UNKNOWN
from ..system.readers import read_json
from ..system.remote import url_of
from ..system.stderr import say
from ..system.terminal import plural
from ..types import Classes
from .sources import PIXELS_AHEAD
from .stream import _AHEAD

SUFFIXES = (*DRAWN, *WRITTEN)  # of the one file that one image may become
_LONGEST = 200  # bytes of a name: file systems take 255, and there is more to it than the stem
_JPEG_SIDE = 65500  # pixels that a JPEG can be wide or high


@dataclass
class Outcome:
    """What a prediction run did. `dropped`: detections under the score limit."""

    images: int = 0
    detections: int = 0
    dropped: int = 0
    broken: list[str] = field(default_factory=list)  # one line each


@dataclass(frozen=True)
class Outputs:
    """Where to write: a folder of annotated images, or the one file for one image, whose suffix says what (see
    `Detections.save`); a folder of YOLO txt; a file of COCO results; a CSV file with a row for each detection. `below`:
    the folders that were searched for images, whose sub-folders the folders to write to have as well."""

    folder: Path | None = None
    file: Path | None = None
    yolo: Path | None = None
    coco: Path | None = None
    csv: Path | None = None
    below: tuple[Path, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether no file is written."""
        return all(place is None for place in (self.folder, self.file, self.yolo, self.coco, self.csv))


def unique_names(paths: Sequence[Path], below: Sequence[Path] = ()) -> list[str]:
    """A file name without folder and suffix for each image, none twice, whatever the case of its letters and the
    suffix of the image. Of an image below one of the folders `below`, its sub-folders stand in front.

    >>> unique_names([Path("a.jpg"), Path("b/a.png"), Path("a-2.jpg"), Path("c.jpg")])
    ['a', 'a-3', 'a-2', 'c']
    >>> unique_names([Path("x/a.jpg"), Path("x/b/a.png"), Path("x/b/a.jpg")], [Path("x")])
    ['a', 'b/a', 'b/a-2']
    >>> unique_names([Path("x/a.png"), Path("x/a.jpg/b.png")], [Path("x")])
    ['a-2', 'a.jpg/b']
    >>> unique_names([Path("x/v1.png"), Path("x/v1.2/b.png")], [Path("x")])
    ['v1', 'v1.2/b']
    """
    stems = ["/".join([*_folders(path, below), file_name(_short(path.stem))]) for path in paths]
    taken = {folded(stem) for stem in stems}  # what is some image's own name stays its own
    folders = {stem[:at] for stem in taken for at in range(len(stem)) if stem[at] == "/"}
    used: set[str] = set()
    next_number: dict[str, int] = {}  # of a stem that several images have: those below are taken
    names = []
    for stem in stems:
        name, number = stem, next_number.get(stem, 2)
        while (
            folded(name) in used
            or (name != stem and folded(name) in taken)
            or not folders.isdisjoint(folded(name + suffix) for suffix in (".jpg", ".png", ".txt"))  # which is written
        ):
            name, number = f"{stem}-{number}", number + 1
        used.add(folded(name))
        next_number[stem] = number
        names.append(name)
    return names


def _folders(path: Path, below: Sequence[Path]) -> list[str]:
    """The folders between an image and the first of the folders `below` that it lies in; none that leads out."""
    root = next((folder for folder in below if path.is_relative_to(folder)), None)
    folders = () if root is None else path.relative_to(root).parts[:-1]
    return [] if os.pardir in folders else [file_name(folder) for folder in folders]


def image_ids(paths: Sequence[Path], known: Mapping[Path, Id] | None = None) -> list[Id]:
    """A COCO image id for each image, none twice: that of `known` (by resolved path), else the number that its name
    is, as in COCO's own files, else the lowest that is free. If some ids are `known`, the
    others are numbered after the largest of them.

    >>> image_ids([Path("cat.jpg"), Path("2.jpg"), Path("dog.jpg"), Path("a/7.jpg"), Path("b/7.jpg")])
    [1, 2, 3, 7, 4]
    """
    known = known or {}
    wanted = [known.get(real(path)) for path in paths] if known else [_number(path.stem) for path in paths]
    ids: list[Id | None] = []
    used: set[Id] = set()
    for want in wanted:
        ids.append(None if want is None or want in used else want)
        used |= {want} if want is not None else set()
    # a number of the data set is never another image's
    least = max([0, *(id for id in known.values() if isinstance(id, int))]) + 1
    free = (n for n in range(least, least + len(paths) + len(used) + 1) if n not in used)
    return [next(free) if id is None else id for id in ids]


class ResultIds:
    """The numbers of COCO results: an id of each of `paths` (`image_ids`), a category of each of the model's classes.
    Both are those of a data set, where its `numbers` are given: a class that it lacks has none. The categories stay the
    model's where it knows none of the classes, as of proposals. `report` gets a line where an image cannot have its
    own id, since two splits use it, and where it has none."""

    def __init__(
        self,
        paths: Sequence[Path],
        classes: Classes,
        numbers: Numbers | None = None,
        report: Callable[[str], object] = say,
    ) -> None:
        known = {} if numbers is None else numbers.ids
        self.images = image_ids(paths, known)
        self.classes, self.categories = classes, list[int | None](classes.ids)
        if numbers is None:
            return
        labels = match_classes(classes, numbers.classes, allow_missing=True)
        if (labels != UNKNOWN).any():
            self.classes = numbers.classes
            self.categories = [None if label == UNKNOWN else self.classes.ids[label] for label in labels]
        elif len(classes) > 1:
            report("the data set has none of the model's classes; the categories are the model's")
        places = [real(path) for path in paths]
        strange = [path for path, place in zip(paths, places, strict=True) if place not in known]
        if strange:
            count = f"{plural(len(strange), 'image')}, such as {strange[0].name},"
            report(f"{count} {'is' if len(strange) == 1 else 'are'} not in the data set, and numbered behind its own")
        owners = dict(zip(self.images, places, strict=True))
        other = [
            path
            for path, place, id in zip(paths, places, self.images, strict=True)
            if known.get(place, id) != id and owners[known[place]] != place
        ]
        if other:
            report(
                f"{plural(len(other), 'image')}, such as {other[0].name}, cannot have the data set's own id: another "
                "split has it too; detect in the images of one split at a time"
            )

    def beside(self, images: Sequence[Mapping[str, Any]]) -> str:
        """The JSON of the list that stands beside the results: images and categories, with their ids."""
        rows = zip(self.classes.names, self.classes.ids, strict=True)
        return json.dumps({"images": list(images), "categories": [{"id": id, "name": name} for name, id in rows]})


class Writer:
    """Writes as the detections come in, while the network goes on: what `outputs` asks for, of `paths`. `numbers`:
    those of a data set, for COCO results."""

    def __init__(
        self, outputs: Outputs, paths: Sequence[Path], classes: Classes, numbers: Numbers | None = None
    ) -> None:
        self.outputs, self.paths, self.classes = outputs, paths, classes
        self.names = unique_names(paths, outputs.below)
        self.ids = ResultIds(paths if outputs.coco is not None else (), classes, numbers)
        self.foreign = 0  # detections of classes that the data set lacks, which its results cannot have
        self._keep_sources()
        self._rows: list[str] = []  # of each image with detections, as they stand in the file, without the brackets
        self._images: list[dict[str, Any]] = []
        self._table = [table(())]  # its head, and the rows of each image
        self._done = False  # the COCO results are written
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._pending: deque[tuple[int, Future[None]]] = deque()  # pixels, and their writing

    def add(self, number: int, image: np.ndarray, detections: Detections) -> None:
        """Take the detections of `paths[number]`, whose pixels are `image`; FcosError when those of an earlier one
        could not be written."""
        if self.outputs.coco is not None:
            height, width = detections.size or image.shape[:2]  # of a very large image `image` is a small copy
            id, name = self.ids.images[number], without_password(url_of(self.paths[number]))
            self._images.append({"id": id, "file_name": name, "width": width, "height": height})
            known = [self.ids.categories[k] is not None for k in detections.labels.tolist()]
            kept = detections[torch.tensor(known, dtype=torch.bool)]
            self.foreign += len(detections) - len(kept)
            rows = kept.to_coco(id, [-1 if k is None else k for k in self.ids.categories])
            self._rows += [json.dumps(rows)[1:-1]] if rows else []
        if self.outputs.csv is not None:
            self._table.append(table([detections], head=False))
        self._pending.append(
            (image.shape[0] * image.shape[1], self._pool.submit(self._write, number, image, detections))
        )
        # what waits to be written is held besides what is detected in, so it gets half as much
        while len(self._pending) > _AHEAD or sum(pixels for pixels, _ in self._pending) > PIXELS_AHEAD // 2:
            self._pending.popleft()[1].result()

    def close(self) -> None:
        """Wait for what is still being written; FcosError when that fails."""
        with self._pool:
            while self._pending:
                self._pending.popleft()[1].result()
        if self.outputs.coco is not None:
            self._results(self.outputs.coco)
            self._done = True
        if self.outputs.csv is not None:
            write_whole(self.outputs.csv, "".join(self._table))

    def numbered(self) -> str:
        """A line where files got a number, since another image has their name; empty where none did, or none is
        written."""
        if self.outputs.folder is None and self.outputs.yolo is None:
            return ""
        pairs = zip(self.paths, self.names, strict=True)
        new = [(path, name) for path, name in pairs if name.rpartition("/")[2] != file_name(_short(path.stem))]
        if not new:
            return ""
        count, (path, name) = plural(len(new), "image"), new[0]
        return f"{count} got a number, since another has the name: what was found in {path} is called {name}"

    def _results(self, file: Path) -> None:
        with whole_set():
            write_whole(file, f"[{', '.join(self._rows)}]")
            write_whole(images_file(file), self.ids.beside(self._images))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within it Ctrl-C, or a file that cannot be written, leaves the COCO results and the table so far beside their
        places, as NAME.partial.json and .csv. At its end all is written."""
        try:
            yield
            self.close()
        except (KeyboardInterrupt, FcosError):
            if self.outputs.coco is not None and self._images and not self._done:
                place = self.outputs.coco.with_suffix(".partial.json")
                self._results(place)
                say(f"{place} has the results so far, of {plural(len(self._images), 'image')}")
            if self.outputs.csv is not None and len(self._table) > 1:
                place = write_whole(self.outputs.csv.with_suffix(".partial.csv"), "".join(self._table))
                say(f"{place} has the rows so far, of {plural(len(self._table) - 1, 'image')}")
            raise

    def _write(self, number: int, image: np.ndarray, detections: Detections) -> None:
        target = self.outputs.file
        if self.outputs.folder is not None:
            suffix = self._suffix(number) if max(image.shape[:2]) <= _JPEG_SIDE else ".png"
            target = self.outputs.folder / f"{self.names[number]}{suffix}"
        if target is not None and target.suffix.lower() in DRAWN:
            drawn = detections.draw(image)
            write_whole(target, lambda p: drawn.save(p, quality=92))
        elif target is not None:
            detections.save(target)
        if self.outputs.yolo is not None:
            write_whole(self.outputs.yolo / f"{self.names[number]}.txt", detections.to_yolo())

    def _suffix(self, number: int) -> str:
        return ".png" if self.paths[number].suffix.lower() == ".png" else ".jpg"

    def _keep_sources(self) -> None:
        """FcosError where one of the images would be written over, or one result by another."""
        named = [place for place in (self.outputs.file, self.outputs.coco, self.outputs.csv) if place is not None]
        if len({real(place) for place in named}) < len(named):
            raise FcosError(f"{named[-1]} is named for two results; give each a file of its own")
        folder, file = self.outputs.folder, self.outputs.file
        targets = [place for place in (file, self.outputs.csv) if place is not None]
        if folder is not None:
            targets += [folder / f"{name}{self._suffix(k)}" for k, name in enumerate(self.names)]
        lost = _first_of(targets, self.paths)
        if lost is not None:
            raise FcosError(f"{lost} is an image to detect in and would be overwritten; give another --out")
        if self.outputs.yolo is not None:
            self._keep_labels(self.outputs.yolo)
        if self.outputs.coco is not None:
            _keep_annotations(self.outputs.coco)

    def _keep_labels(self, folder: Path) -> None:
        """FcosError where what stands at a target is the label file of one of the images, by YOLO's rule."""
        targets = [folder / f"{name}.txt" for name in self.names]
        lost = _first_of(targets, (label for path in self.paths for label in _label_files(path)))
        if lost is not None:
            raise FcosError(f"{lost} holds the labels of an image to detect in; give --yolo another folder")


def _first_of(targets: Sequence[Path], files: Iterable[Path]) -> Path | None:
    """The first of `targets` that is one of `files`, by whatever path. Mostly there is nothing yet at any of them, and
    then no file is asked for: there may be a million."""
    folders = {folder: real(folder) for folder in {target.parent for target in targets}}
    there = [target for target in targets if os.path.lexists(folders[target.parent] / target.name)]
    places = {real(file) for file in files} if there else set()
    return next((target for target in there if real(target) in places), None)


def _label_files(image: Path) -> list[Path]:
    """Where YOLO looks for the labels of an image: beside it, and in labels/ for an image in images/."""
    parts = image.absolute().with_suffix(".txt").parts
    at = max((i for i, part in enumerate(parts[:-1]) if part == "images"), default=None)
    beside = Path(*parts)
    return [beside] if at is None else [beside, Path(*parts[:at], "labels", *parts[at + 1 :])]


def _keep_annotations(coco: Path) -> None:
    """FcosError where results would be written over a file of annotations."""
    for target in (coco, images_file(coco)):
        if not target.is_file():
            continue
        check_kept(target)
        try:
            kept = read_json(target)
            own(target)  # read to look at it only
        except FcosError:
            continue
        if isinstance(kept, dict) and "annotations" in kept:
            raise FcosError(f"{target} holds annotations and would be overwritten; give --coco another file")


def _number(stem: str) -> int | None:
    """The number that a file name is; None where it is more, or too large for an id."""
    return int(stem) if stem.isascii() and stem.isdecimal() and len(stem) <= 18 else None


def _short(stem: str) -> str:
    """At most so many bytes of `stem`, in whole letters, as this system writes them in file names."""
    letters = stem.encode("utf-8", "surrogateescape")[:_LONGEST].decode("utf-8", "ignore")
    return os.fsdecode(letters.encode()) or "image"
