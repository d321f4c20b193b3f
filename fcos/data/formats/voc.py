"""Pascal VOC: one XML file a picture, splits as lists in ImageSets/Main."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...errors import DataError
from ...readers import read_lines, read_xml
from ...types import Classes
from ..assemble import ImageFile, Problems, Rows, assemble, check_classes
from ..dataset import Dataset, Size, Sources
from ..image import SUFFIXES
from ..splits import canonical_split
from .coco import safe_name

# fmt: off
VOC_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
_SPLITS = ("train", "trainval", "val", "valid", "test")


class _Object(NamedTuple):
    name: str
    box: tuple[float, float, float, float]
    ignore: bool


class _Page(NamedTuple):
    """One XML file."""

    size: Size | None
    objects: list[_Object]
    problem: str


def sources(folder: Path, strict: bool) -> Sources:
    """The splits of a VOC folder: name -> function that reads it. Empty when it is none."""
    if not (folder / "Annotations").is_dir():
        inner = [f for f in folder.iterdir() if (f / "Annotations").is_dir()]
        inner += [f for f in folder.glob("VOCdevkit/*") if (f / "Annotations").is_dir()]
        if len(inner) == 1:
            return sources(inner[0], strict)
        if inner:
            raise DataError(f"{folder} holds several data sets: {', '.join(f.name for f in sorted(inner))}; name one")
        # Roboflow and labelImg put each XML file beside its picture, perhaps in a folder for each split.
        parts = {s: folder / s for s in _SPLITS if any((folder / s).glob("*.xml"))}
        parts = parts or ({"all": folder} if any(folder.glob("*.xml")) else {})
        lists = {name: (place, place, sorted(f.stem for f in place.glob("*.xml"))) for name, place in parts.items()}
    else:
        pages, images = folder / "Annotations", folder / "JPEGImages"
        if not images.is_dir():
            return {}
        found = {f.stem: _stems(f) for f in sorted((folder / "ImageSets" / "Main").glob("*.txt"))}
        splits = {name: stems for name, stems in found.items() if stems is not None}
        splits = splits or {"all": sorted(f.stem for f in pages.glob("*.xml"))}
        lists = {name: (pages, images, stems) for name, stems in splits.items()}
    order = {name: place for place, name in enumerate(_SPLITS)}
    page = cache(_page)  # trainval reads what train and val have read
    named: Sources = {}
    for name in sorted(lists, key=lambda n: (order.get(n, 9), n)):
        places = tuple({(pages, images) for pages, images, _ in lists.values()})
        named[canonical_split(name)] = partial(_read, folder, canonical_split(name), *lists[name], places, page, strict)
    return named


def _stems(file: Path) -> list[str] | None:
    """The names in a split list; None for the lists of single classes, which have a second column."""
    lines = [line.split() for line in read_lines(file, kind=DataError) if line.strip()]
    if any(len(line) > 1 for line in lines):
        return None
    return [safe_name(line[0], file) for line in lines]


def _read(folder, split, pages: Path, images: Path, stems: list[str], places, page, strict: bool) -> Dataset:  # type: ignore[no-untyped-def]
    problems = Problems(folder, strict)
    classes = _classes(folder, places, page)
    label_of = {name: label for label, name in enumerate(classes.names)}
    files = {f.stem: f for f in sorted(images.iterdir()) if f.suffix.lower() in SUFFIXES}
    listed: list[ImageFile] = []
    rows: list[tuple[float, ...]] = []
    names: list[str] = []
    alone = not any(stem in files for stem in stems)
    if stems and alone:
        problems.note("no picture files found, only annotations", f"{images}/{stems[0]}.jpg", len(stems))
    for stem in stems:
        path = files.get(stem)
        if path is None and not alone:
            problems.skip("pictures that are not there", f"{images}/{stem}.jpg")
            continue
        xml = pages / f"{stem}.xml"
        if xml.is_file():
            content = page(xml)
        else:
            content = _Page(None, [], "")
            problems.note("pictures without an XML file, used as pictures without objects", stem)
        if content.problem:
            problems.skip("objects or files that cannot be used", f"{xml.name}: {content.problem}")
        for number, item in enumerate(content.objects, 1):
            if item.name not in label_of:
                problems.skip("objects of a class that is not listed", f"{xml.name}, object {number}: {item.name!r}")
                continue
            rows.append((len(listed), label_of[item.name], item.ignore, *item.box))
            names.append(f"object {number} ({item.name}) of {xml.name}")
        name = path.name if path else f"{stem}.jpg"
        listed.append(ImageFile(len(listed) + 1, name, path, content.size))
    table = np.array(rows, dtype=np.float64).reshape(-1, 7)
    flat = Rows(
        table[:, 0].astype(np.int64),
        table[:, 3:],
        table[:, 1].astype(np.int64),
        table[:, 2].astype(bool),
        np.full(len(table), np.nan),
        names.__getitem__,
    )
    records = assemble(listed, flat, problems)
    return Dataset(records, classes, "voc", split, folder, problems.notes())


def _classes(folder: Path, places: tuple[tuple[Path, Path], ...], page) -> Classes:  # type: ignore[no-untyped-def]
    """Names from labels.txt or labelmap.txt; else VOC's own order; else all that occur, by alphabet."""
    for file in (folder / "labels.txt", folder / "labelmap.txt"):
        if file.is_file():
            lines = read_lines(file, kind=DataError)
            if file.name == "labelmap.txt":  # CVAT: name:colour:parts:actions, and a background class
                lines = [line.partition(":")[0] for line in lines if not line.startswith(("#", "background:"))]
            names = [line.strip() for line in lines if line.strip()]
            break
    else:
        seen = {item.name for pages, _ in places for xml in pages.glob("*.xml") for item in page(xml).objects}
        names = list(VOC_NAMES) if seen <= set(VOC_NAMES) else sorted(seen)
    check_classes(names, folder)
    return Classes(tuple(names), tuple(range(1, len(names) + 1)))


def _page(file: Path) -> _Page:
    """Corners in the file are 1-based and both inclusive: pixel 1 is the interval from 0 to 1."""
    try:
        root = read_xml(file, kind=DataError)
    except DataError as error:
        return _Page(None, [], str(error))
    size = None
    try:
        height, width = int(root.findtext("size/height", "0")), int(root.findtext("size/width", "0"))
        size = (height, width) if 0 < height < 10**6 and 0 < width < 10**6 else None
    except ValueError:
        pass
    objects, problem = [], ""
    for number, item in enumerate(root.iter("object"), 1):
        try:
            x1, y1, x2, y2 = (float(item.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax"))
        except ValueError:
            problem = problem or f"object {number} has no bndbox of four numbers"
            continue
        name = (item.findtext("name") or "").strip()
        ignore = (item.findtext("difficult") or "0").strip() in ("1", "true", "True")
        objects.append(_Object(name, (x1 - 1, y1 - 1, x2, y2), ignore))
    return _Page(size, objects, problem)
