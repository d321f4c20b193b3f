"""COCO JSON: one file a split, with images, annotations and categories.

Defined at https://cocodataset.org/#format-data. Where an annotation has no bbox it is computed from its polygons or
its run lengths.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import DataError
from ...system.json_rows import read_json_rows
from ...types import Classes
from .. import kinds
from ..dataset import EXAMPLES, Dataset, Note, Sources
from ..ids import Id, id_of, look_up, settle, spelled
from ..kinds import Kind
from ..probe import Probe, stem_of
from ..registry import Format, ReadOptions
from ..splits import FILE_PREFIX, is_generic, split_of_file, split_of_folder
from ..tree import Tree
from .common.assemble import ImageFile, Problems, Rows, assemble, check_classes
from .common.coco_columns import ABSENT, Columns, float_of
from .common.lists import told
from .common.pages import in_order
from .common.pairing import clean_name
from .common.writing import Output, count, names_of

_WHOLE = ("_annotations.coco", "annotations", "instances", "labels", "coco", "result", "dataset")
_OTHERS = ("captions", "person_keypoints", "panoptic", "stuff", "image_info", "densepose")  # of COCO itself
_MOST_ID = 2**53  # that every program reads from JSON as it is, and that a model's file keeps
_YEAR = re.compile(r"[_-]?((19|20)\d\d)$")


def _sniff(probe: Probe) -> bool:
    value = probe.json
    if not isinstance(value, dict):
        return False
    image, row = probe.first("images"), probe.first("annotations")
    if "caption" in row and "bbox" not in row:
        return False
    images = isinstance(value.get("images"), list) and ("file_name" in image or not value["images"])
    rows = "image_id" in row and ("bbox" in row or "segmentation" in row or "category_id" in row)
    return images or rows or ("categories" in value and "annotations" in value)


def _sources(tree: Tree, files: list[Path], options: ReadOptions) -> Sources:
    """A split for each file; where several files mean one split, those of instances before those of captions."""
    left: list[Path] = []
    if tree.file is not None:
        stem = stem_of(tree.file)
        name = _split_of(tree, tree.file) or _own_name(tree.file)
        named = {"all" if stem.lower() in _WHOLE and not _split_of(tree, tree.file) else name: tree.file}
    else:
        named, left = _named(tree, files)
    one = len(named) == 1 and tree.file is None  # else other files may list what this one does not
    sources: Sources = {n: partial(_read, _File(named[n], n, one), tree, options) for n in in_order(named)}
    names = [str(f.relative_to(tree.root)) for f in left]
    notes = [Note(kinds.NO_SPLIT_NAME, len(names), names[0], "note", tuple(names[1:EXAMPLES]))] if names else []
    return told(sources, notes)


def _named(tree: Tree, files: list[Path]) -> tuple[dict[str, Path], list[Path]]:
    """(the file of each split, those that are left out, since others name their splits)."""
    files = [f for f in files if suffix_is_plain(f) or f.with_suffix("") not in files]  # a.json before a.json.gz
    main = [f for f in files if not stem_of(f).lower().startswith(_OTHERS)]
    groups: dict[str, list[Path]] = defaultdict(list)
    for file in main or files:
        groups[_split_of(tree, file) or "all"].append(file)
    named: dict[str, Path] = {}
    left: list[Path] = []
    if len(groups) > 1 and "all" in groups:  # annotations.json beside train.json and val.json: the whole, or notes
        left = groups.pop("all")
        there = tree.images.folders
        if groups.keys() <= {split_of_folder(name) for name in there}:
            # but night.json beside train.json, and the folders night and train of images: a split too
            named = {n: f for f in left if (n := _own_name(f)) in there and not is_generic(n)}
            left = [f for f in left if f not in named.values()]
    elif list(groups) == ["all"] and len(groups["all"]) > 1:
        own = {_own_name(f): f for f in groups["all"]}
        if len(own) == len(groups["all"]):
            return own, []
    for split, same in groups.items():
        named |= _chosen(tree, split, same)
    return named, left


def _chosen(tree: Tree, split: str, files: list[Path]) -> dict[str, Path]:
    """The file of several that look like one split: that of instances, or one for each year. DataError where nothing
    tells."""
    chosen = [f for f in files if stem_of(f).lower().startswith("instances")] or files
    if len(chosen) == 1:
        return {split: chosen[0]}
    years = {_year(f): f for f in chosen}
    if len(years) == len(chosen) and "" not in years:  # val2014 and val2017
        return {f"{split}{year}": file for year, file in years.items()}
    listed = ", ".join(str(f.relative_to(tree.root)) for f in chosen)
    raise DataError(f"{tree.root}: {listed} all look like the split {split}; name one of them, or its folder")


def suffix_is_plain(file: Path) -> bool:
    """True for .json, False for .json.gz."""
    return file.suffix.lower() == ".json"


def _own_name(file: Path) -> str:
    """What a file is called that names no usual split: 'night' of instances_night.json."""
    stem = stem_of(file).lower()
    return FILE_PREFIX.sub("", stem) or stem


def _year(file: Path) -> str:
    match = _YEAR.search(stem_of(file)) or _YEAR.search(file.parent.name)
    return match[1] if match else ""


def _split_of(tree: Tree, file: Path) -> str | None:
    parent = split_of_file(file.parent.name) if tree.file is not None else tree.split_of(file)
    return split_of_file(stem_of(file)) or parent


class _File(NamedTuple):
    """An annotation file, the split that it is, and whether there is no other."""

    path: Path
    split: str
    alone: bool


def _read(file: _File, tree: Tree, options: ReadOptions) -> Dataset:
    """One COCO file as a Dataset. Raises DataError for anything that is not the format."""
    path, split = file.path, file.split
    data, parts = read_json_rows(path, "annotations", partial(Columns.of, path), DataError, nan=True)
    annotations = Columns.together(parts)
    del parts
    if isinstance(data, list):
        raise DataError(f"{path} is a list, such as a results file; a data set has images, annotations, categories")
    if not isinstance(data, dict) or "images" not in data:
        raise DataError(f"{path} is no COCO file: it has no 'images'")
    problems = Problems(path, options.strict, options.pixels)
    listed = _list(data, "images", path)
    if "annotations" not in data:
        problems.note(kinds.NO_ANNOTATIONS)
    classes, label_of = _classes(_list(data, "categories", path), annotations, path, problems)
    images, index_of = _images(listed, file, tree, problems)
    del data, listed  # of COCO's size they are most of the memory that opening takes
    rows = _rows(annotations, index_of, label_of, options.inclusive, problems)
    del annotations
    records = assemble(images, rows, problems)
    aliases = {alias: image.id for image in images for alias in image.ids if alias != image.id}
    used = set(records.table.ids.tolist())
    absent = frozenset(index_of).difference(id for image in images if image.id in used for id in image.ids)
    return Dataset(records, classes, "coco", split, path, problems.notes(), aliases, options.inclusive, absent)


def _list(data: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    value = data.get(key, [])
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise DataError(f"{path}: {key!r} must be a list of objects")
    return value


# --------------------------------------------------------------------------- reading


def _classes(
    categories: list[dict[str, Any]], annotations: Columns, path: Path, problems: Problems
) -> tuple[Classes, dict[Id, int]]:
    rows = []
    for category in categories:
        if "id" not in category or "name" not in category:
            raise DataError(f"{path}: the category {category} needs an 'id' and a 'name'")
        rows.append((_integer(category["id"], f"{path}: category id"), str(category["name"]), category))
    rows.sort(key=lambda row: row[0])
    twice = [a for a, b in pairwise(rows) if a[0] == b[0]]
    if twice:
        raise DataError(f"{path}: the category id {twice[0][0]} appears twice; give one of them another id")
    # Roboflow puts the group of all classes in front as a class of its own, with no boxes.
    if len(rows) > 1 and all(row[2].get("supercategory") == rows[0][1] for row in rows[1:]):
        head = rows[0]
        own = {_key(head): 0, head[0]: 0}
        unused = all(look_up(category, own, -1) for category in set(map(_plain, annotations.categories.tolist())))
        if head[2].get("supercategory") in ("none", None) and unused:
            told = f"the class {head[1]!r} (id {head[0]}) only groups the others and has no boxes: left out"
            problems.note(Kind(told))
            rows = rows[1:]
    names = tuple(row[1] for row in rows)
    check_classes(names, path)
    ids = tuple(row[0] for row in rows)
    keys = {_key(row): label for label, row in enumerate(rows)}  # "01" stands there for annotations of "01"
    return Classes(names, ids), {id: label for label, id in enumerate(ids)} | keys


def _key(row: tuple[int, str, dict[str, Any]]) -> Id:
    """The id of a category as the file has it."""
    key = id_of(row[2]["id"])
    return row[0] if key is None else key


def _integer(value: Any, what: str) -> int:
    try:
        number = int(value)
        if isinstance(value, bool) or (not isinstance(value, int) and number != float(value)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{what} must be a whole number, not {value!r}") from None
    if abs(number) > _MOST_ID:
        raise DataError(f"{what} {number} is too large; number them from 1 on")
    return number


def _images(
    listed: list[dict[str, Any]], file: _File, tree: Tree, problems: Problems
) -> tuple[list[ImageFile], dict[Id, int]]:
    """(the images, the index of each by its id in the file, -1 for one that is left out with its annotations)."""
    path, split, _ = file
    ids = [_image_id(image, path) for image in listed]
    names = [clean_name(image["file_name"], path) for image in listed]
    paths = tree.images.locate(names, path, split_of_file(split) if split != "all" else None)
    alone = not any(paths)
    _tell_missing([name for name, place in zip(names, paths, strict=True) if place is None], alone, problems)
    used = {place for place in paths if place is not None}
    if file.alone and (unlisted := tree.images.beside(used, split, True)):
        problems.note(kinds.without("an entry in the annotation file", kinds.LEFT_OUT), unlisted[0].name, len(unlisted))
    numbers = settle(ids)
    renamed = [str(key) for key, number in numbers.items() if spelled(key) != number]
    if renamed:
        problems.note(kinds.NO_NUMBERS, renamed[0], len(renamed))
    images: list[ImageFile] = []
    index_of: dict[Id, int] = {}
    for image, key, name, place in zip(listed, ids, names, paths, strict=True):
        if place is None and not alone and problems.pixels:
            index_of[key] = -1  # its annotations go silently with the image
            continue
        if index_of.get(key, -1) >= 0:
            if images[index_of[key]].file_name != name:
                raise DataError(f"{path}: the image id {key!r} belongs to two images, {name} is one of them")
            problems.note(kinds.LISTED_TWICE, name)
            continue
        index_of[key] = len(images)
        height, width = float_of(image.get("height")), float_of(image.get("width"))
        size = (int(height), int(width)) if 1 <= height < 1e6 and 1 <= width < 1e6 else None
        images.append(ImageFile(numbers[key], name, place, size, (key,)))
    return images, index_of


def _image_id(image: dict[str, Any], path: Path) -> Id:
    """The id of an image; DataError where it has none, or no name."""
    named = isinstance(image.get("file_name"), str) and image["file_name"]
    if not named or "id" not in image:
        raise DataError(f"{path}: the image {str(image)[:80]} needs an 'id' and a 'file_name'")
    key = id_of(image["id"])
    if key is None:
        raise DataError(f"{path}: the image id {str(image['id'])[:80]} must be a whole number or a text")
    return key


def _tell_missing(names: list[str], all_of_them: bool, problems: Problems) -> None:
    """Note the images that have no file; where that is so of `all_of_them`, the annotations are alone."""
    if not names:
        return
    if all_of_them:
        problems.note(kinds.ONLY_ANNOTATIONS, names[0], len(names))
    elif problems.pixels:
        problems.skip(kinds.MISSING, names[0], len(names), names[1:])
    else:
        problems.note(kinds.MISSING, names[0], len(names))


def _rows(
    annotations: Columns,
    index_of: dict[Id, int],
    label_of: dict[Id, int],
    inclusive: bool,
    problems: Problems,
) -> Rows:
    owner = _looked_up(annotations.images, index_of, -2)
    labels = _looked_up(annotations.categories, label_of, -1)
    xywh, ids = annotations.boxes, annotations.ids

    def name(row: int) -> str:
        return f"annotation {row if ids[row] is ABSENT else ids[row]}"

    for bad, what, key, values in (
        (owner == -2, kinds.NO_SUCH_IMAGE, "image_id", annotations.images),
        (
            (owner >= 0) & (labels < 0),
            kinds.NO_SUCH_CATEGORY,
            "category_id",
            annotations.categories,
        ),
    ):
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            value = values[first : first + 1].tolist()[0]
            value = None if value is ABSENT else value
            problems.skip(what, f"{name(first)}, {key} {value!r}", int(bad.sum()))
    boxes = xywh.copy()
    with np.errstate(invalid="ignore", over="ignore"):
        boxes[:, 2:] += xywh[:, :2]
        if inclusive:
            boxes[:, 2:] = np.maximum(boxes[:, 2:] - 1, np.minimum(xywh[:, :2], boxes[:, 2:]))
    rows = Rows(owner, boxes, labels, annotations.ignore, annotations.areas, name, None if inclusive else xywh[:, 2:])
    rows.form = "xywh"
    return rows.select((owner >= 0) & (labels >= 0))


def _plain(value: Any) -> Any:
    """The value, or None where it is a list or an object, which no set takes."""
    return value if isinstance(value, int | float | str) else None


def _looked_up(values: np.ndarray, table: dict[Id, int], missing: int) -> np.ndarray:
    """`look_up` of each value [G] int64; each different number once."""
    if values.dtype != np.int64:
        return np.array([look_up(v, table, missing) for v in values], dtype=np.int64)
    different, where = np.unique(values, return_inverse=True)
    return np.array([look_up(v, table, missing) for v in different.tolist()], dtype=np.int64)[where]


# --------------------------------------------------------------------------- writing


def _write(splits: Mapping[str, Dataset], output: Output) -> list[str]:
    for split, dataset in splits.items():
        names = names_of(dataset)
        ids = dataset.classes.ids
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for record, name in zip(dataset.records, names, strict=True):
            height, width = record.size
            images.append({"id": record.id, "file_name": name, "width": width, "height": height})
            columns = (record.exact(), record.labels, record.ignore, record.areas)
            values = zip(*(c.tolist() for c in columns), output.scores(record), strict=True)
            for xywh, label, ignore, area, score in values:
                row = {
                    "id": len(annotations) + 1,
                    "image_id": record.id,
                    "category_id": ids[label],
                    "bbox": [_whole(v) for v in xywh],
                    "area": _whole(area),
                    "iscrowd": int(ignore),  # the only mark that pycocotools honours
                }
                if output.model:
                    row |= {"score": score, "source": output.model}
                annotations.append(row | {"ignore": 1} if ignore else row)
            output.image(record, f"images/{split}/{name}")
        categories = [{"id": id, "name": name} for name, id in zip(dataset.classes.names, ids, strict=True)]
        content: dict[str, Any] = {"images": images, "annotations": annotations, "categories": categories}
        if output.model:
            content = {"info": {"description": f"proposed by {output.model}, not looked at by a person"}, **content}
        output.json(f"instances_{split}.json", content)
    lost = []
    if any(dataset.format == "coco" for dataset in splits.values()):  # whose files may hold more
        lost.append("COCO: boxes alone are kept; polygons, keypoints and further fields of the annotations are not")
    ignored = count(splits, "ignored")
    if ignored:
        lost.append(f"COCO: {ignored:,} crowd or difficult boxes carry iscrowd 1, which means ignored")
    return lost


def _whole(value: float) -> float | int:
    """The number to the last bit, as an int where it is one: the copy is judged as the original."""
    return int(value) if value == int(value) else value


FORMAT = Format("coco", "COCO JSON", (".json", ".json.gz"), _sniff, _sources, _write)
