"""From the flat rows of an annotation file to records, with every check of images and boxes.

What cannot be used is named, counted and left out, or refused in strict mode.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from ....errors import DataError, ImageError
from ....system.files import text_name
from ... import kinds
from ...dataset import EXAMPLES, Note
from ...ids import Id
from ...images.reading import image_header, turn_boxes
from ...kinds import Form, Kind
from ...records import Boxes, Records, Size, Table
from .misread import misread
from .pairing import one_name


@dataclass
class Problems:
    """Counts what is wrong with a data set, one note for each kind; in strict mode the first is an error. pixels:
    whether an image has to be there that has a size."""

    source: Path
    strict: bool
    pixels: bool = True
    _kinds: dict[Kind, Note] = field(default_factory=dict)

    def skip(self, what: Kind, where: str, count: int = 1, more: Iterable[str] = ()) -> None:
        """Something is left out: `where` is the first of the kind, `more` are
        others, of which the first few are kept."""
        if self.strict:
            raise DataError(f"{self.source}: {what.many}: {where}")
        self._count(what, where, count, "skipped", more)

    def warn(self, what: Kind, where: str, count: int = 1, more: Iterable[str] = ()) -> None:
        """Something that is kept, strict or not, and may hurt all the same."""
        self._count(what, where, count, "warning", more)

    def note(self, what: Kind, where: str = "", count: int = 1) -> None:
        """Something worth knowing that is no fault, strict or not."""
        self._count(what, where, count, "note")

    def _count(
        self, kind: Kind, where: str, count: int, level: Literal["skipped", "warning", "note"], more: Iterable[str] = ()
    ) -> None:
        before = self._kinds.get(kind)
        if before is None:
            self._kinds[kind] = Note(kind, count, where, level, tuple(islice(more, EXAMPLES - 1)))
            return
        told = before.more
        if len(told) < EXAMPLES - 1:
            told = (*told, *islice((where, *more), EXAMPLES - 1 - len(told)))
        self._kinds[kind] = replace(before, count=before.count + count, more=told)

    def notes(self) -> tuple[Note, ...]:
        """In the order in which the kinds were first met."""
        return tuple(self._kinds.values())


@dataclass
class Rows:
    """All annotations of a data set, flat, in the order of the file. `owner` [G] is the image's index."""

    owner: np.ndarray
    boxes: np.ndarray  # [G,4] float64 xyxy
    labels: np.ndarray
    ignore: np.ndarray
    areas: np.ndarray  # NaN where the file says nothing
    name: Callable[[int], str]  # of a row, for messages
    # [G,2] width and height where the file has them; x + width - x is not the width to the last bit
    extent: np.ndarray | None = None
    form: Form | None = "xyxy"  # the numbers of a box as the file has them, None where it has several forms

    def select(self, keep: np.ndarray) -> Rows:
        if keep.dtype == bool and keep.all():  # the usual case, and of millions of rows a copy is a hundred megabytes
            return self
        places = np.flatnonzero(keep) if keep.dtype == bool else keep
        name = self.name
        return Rows(
            self.owner[keep],
            self.boxes[keep],
            self.labels[keep],
            self.ignore[keep],
            self.areas[keep],
            lambda k: name(int(places[k])),
            None if self.extent is None else self.extent[keep],
            self.form,
        )


@dataclass(slots=True)
class ImageFile:
    """An image entry of an annotation file; size None where the file does not say. ids: the file's own."""

    id: int
    file_name: str
    path: Path | None
    size: Size | None
    ids: tuple[Id, ...] = ()


def assemble(images: list[ImageFile], rows: Rows, problems: Problems) -> Records:
    """Check images and boxes, merge images listed twice, and group the boxes by image."""
    if not images:
        if any(note.kind in (kinds.LABEL_FILES, kinds.UNFINISHED) for note in problems.notes()):
            raise DataError(f"{problems.source}: no image can be used; {'; '.join(map(str, problems.notes()))}")
        raise DataError(f"{problems.source} lists no images, or the folders it names hold none")
    rows = _merge_twins(images, rows, problems)
    sizes, usable = _measure(images, rows, problems)
    if not usable.any():
        raise DataError(f"{problems.source}: no image can be used; {'; '.join(map(str, problems.notes()))}")
    rows = _check_boxes(images, sizes, rows.select(usable[rows.owner]), problems)
    order = np.argsort(rows.owner, kind="stable")
    used = np.flatnonzero(usable)
    starts = np.searchsorted(rows.owner[order], [*used.tolist(), len(images)])  # no row belongs to an unused image
    given = rows.areas[order]
    extent = rows.boxes[order, 2:] - rows.boxes[order, :2] if rows.extent is None else rows.extent[order]
    boxes = Boxes(
        starts.astype(np.int64),
        rows.boxes[order].astype(np.float32),
        rows.labels[order].astype(np.int64),
        rows.ignore[order].astype(bool),
        np.where(np.isfinite(given) & (given >= 0), given, extent[:, 0] * extent[:, 1]),
        np.concatenate([rows.boxes[order, :2], extent], axis=1),
        np.full(len(order), np.nan),
    )
    kept = [images[index] for index in used]
    names = [text_name(image.file_name) for image in kept]
    return Records(Table.whole([i.id for i in kept], sizes[used], names, [i.path for i in kept], boxes))


def over_the_edge(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Which boxes [G] xyxy go beyond their image, whose sizes [G,2] are (height, width). Half a pixel is rounding."""
    height, width = sizes.T.astype(np.float32)
    over: np.ndarray = (boxes[:, :2] < -0.5).any(axis=1) | (boxes[:, 2] > width + 0.5) | (boxes[:, 3] > height + 0.5)
    return over


def check_classes(names: Sequence[str], source: Path) -> None:
    """DataError when a class name appears twice or there is none."""
    if not names:
        raise DataError(f"{source} names no classes")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{source} names the class {twice[0]!r} twice; rename one of them")


def _merge_twins(images: list[ImageFile], rows: Rows, problems: Problems) -> Rows:
    """Give the boxes of every image that is listed twice to its first entry, without exact repeats."""
    first: dict[str, int] = {}  # by file, however its name is written; by name where there is none
    target = np.arange(len(images))
    for index, image in enumerate(images):
        file = image.file_name if image.path is None else os.path.normpath(image.path)
        before = first.setdefault(file, index)
        target[index] = before if one_name(images[before].file_name, image.file_name) else index
        if target[index] != index:
            problems.note(kinds.LISTED_TWICE, image.file_name)
    if (target == np.arange(len(images))).all():
        return rows
    keep_images = np.flatnonzero(target == np.arange(len(images)))
    merged = np.zeros(len(images), dtype=bool)
    merged[target[target != np.arange(len(images))]] = True
    owner = target[rows.owner]
    keep = np.ones(len(owner), dtype=bool)
    seen = set()
    for row in np.flatnonzero(merged[owner]):
        key = (owner[row], rows.labels[row], *rows.boxes[row])
        keep[row] = key not in seen
        seen.add(key)
    place = np.full(len(images), -1)
    place[keep_images] = np.arange(len(keep_images))
    for index, image in enumerate(images):
        if target[index] != index:
            images[target[index]].ids += (image.id, *image.ids)
    images[:] = [images[i] for i in keep_images]
    rows = rows.select(keep)
    rows.owner = place[owner[keep]]
    return rows


def _measure(images: list[ImageFile], rows: Rows, problems: Problems) -> tuple[np.ndarray, np.ndarray]:
    """Sizes [N,2] as displayed and which images can be used [N]; boxes of rotated files are turned.

    A file may be stored lying on its side with an EXIF mark. Annotations made on the stored pixels show
    in the size that the annotation file gives: it is the stored one, sides exchanged. Then the boxes are
    turned together with the image, unless one of them only fits the displayed frame.
    """
    sizes = np.zeros((len(images), 2), dtype=np.int64)
    usable = np.ones(len(images), dtype=bool)
    order = np.argsort(rows.owner, kind="stable")
    starts = np.searchsorted(rows.owner, np.arange(len(images) + 1), sorter=order)
    for index, image in enumerate(images):
        if image.path is None:
            if image.size is None:
                problems.skip(kinds.MISSING_SIZE, image.file_name)
                usable[index] = False
            sizes[index] = image.size or (0, 0)
            continue
        try:
            header = image_header(image.path)
        except ImageError as error:
            if image.size is not None and not problems.pixels:
                problems.note(kinds.UNREADABLE, str(error))
                sizes[index] = image.size
                continue
            problems.skip(kinds.UNREADABLE, str(error))
            usable[index] = False
            continue
        shown = header.displayed
        sizes[index] = shown
        if image.size is None or image.size == shown:
            continue
        if image.size != (header.height, header.width):
            given = f"{image.size[1]}x{image.size[0]}"
            problems.skip(
                kinds.OTHER_SIZE,
                f"{image.file_name} is {shown[1]}x{shown[0]}, the annotation file says {given}",
            )
            usable[index] = False
            continue
        mine = order[starts[index] : starts[index + 1]]
        far = rows.boxes[mine][:, 2:].max(axis=0, initial=-np.inf)
        if (far > np.array([header.width, header.height]) + 1).any() and (far <= np.array(shown[::-1]) + 1).all():
            problems.note(kinds.TURNED_ALONE, image.file_name)
        else:
            rows.boxes[mine] = turn_boxes(rows.boxes[mine], header.orientation, shown)
            if rows.extent is not None and header.orientation >= 5:
                rows.extent[mine] = rows.extent[mine][:, ::-1]
            problems.note(kinds.TURNED, image.file_name)
    return sizes, usable


def _check_boxes(images: list[ImageFile], sizes: np.ndarray, rows: Rows, problems: Problems) -> Rows:
    def name(row: int) -> str:
        box = ", ".join(f"{v:g}" for v in rows.boxes[row])
        return f"{rows.name(row)} of {images[rows.owner[row]].file_name}, corners ({box})"

    # float32, as training will see them: a width below the resolution of the coordinate is no width.
    with np.errstate(over="ignore"):
        boxes = rows.boxes.astype(np.float32)
    height, width = sizes[rows.owner].T.astype(np.float32)
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(boxes).all(axis=1)
        solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        inside = (boxes[:, 2] > 0) & (boxes[:, 3] > 0) & (boxes[:, 0] < width) & (boxes[:, 1] < height)
        over = over_the_edge(boxes, sizes[rows.owner])
    faults = (
        (~finite, kinds.NOT_FINITE),
        (finite & ~solid, kinds.NO_AREA),
        (finite & solid & ~inside, kinds.OUTSIDE),
    )
    for bad, what in faults:
        if bad.any():
            first, *others = map(int, np.flatnonzero(bad)[:EXAMPLES])
            problems.skip(what, name(first), int(bad.sum()), map(name, others))
    keep = finite & solid & inside
    if (keep & over).any():
        first, *others = map(int, np.flatnonzero(keep & over)[:EXAMPLES])
        problems.warn(kinds.PARTLY_OUTSIDE, name(first), int((keep & over).sum()), map(name, others))
    if other := misread(rows.boxes[finite], sizes[rows.owner[finite]], rows.owner[finite], rows.form):
        kind, shown = other
        first, *others = map(int, np.flatnonzero(finite)[shown][:EXAMPLES])
        problems.warn(kind, name(first), int(shown.sum()), map(name, others))
    return rows.select(keep)
