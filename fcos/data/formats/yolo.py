"""YOLO: one text file of boxes in shares of the image for each image; names and splits in data.yaml, darknet's .data,
or nowhere.

Defined at https://docs.ultralytics.com/datasets/detect/ and by darknet (https://pjreddie.com/darknet/yolo/).
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from ...errors import DataError, ImageError
from ...system.files import csv_text
from ...system.readers import read_json, read_lines
from ...system.terminal import plural
from ...types import Classes
from .. import kinds
from ..dataset import EXAMPLES, Dataset, Note, Sources
from ..images.reading import image_size
from ..kinds import Kind
from ..probe import Probe
from ..registry import Format, ReadOptions
from ..splits import ALIASES, canonical_split
from ..tree import Tree, set_images_below
from .common.assemble import ImageFile, Problems, Rows, assemble, check_classes
from .common.lists import named_in, read_names, share_out, told
from .common.pages import in_order
from .common.writing import Output, count, left_out, names_of, need_images, shares
from .common.yolo_labels import CLASS_FILES, LabelFiles
from .common.yolo_yaml import DataFile

_KEYS = ("train", "val", "test", "minival", *ALIASES)
_MOST_CLASSES = 100_000
# the key of a split of another name: night: images/night
_OWN = re.compile(r"^['\"]?([^\s'\":#]+)['\"]?: *(?:\S*/)\1 *$", re.MULTILINE)
_LOOKED = 50  # label files that are looked at to say why none is one
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


# --------------------------------------------------------------------------- recognising


def _sniff(probe: Probe) -> bool:
    if probe.suffix in (".yaml", ".yml"):
        keys = _keys(probe.text)
        return bool(keys & {"names", "nc"}) and bool(keys & set(_KEYS) or _OWN.search(probe.text))
    if probe.suffix == ".data":
        keys = set(re.findall(r"^\s*(\w+)\s*=", probe.text, re.MULTILINE))
        return "names" in keys and bool(keys & {"train", "valid"})
    lines = probe.lines[:20]
    return bool(lines) and all(_is_row(line) for line in lines)


def _keys(text: str) -> set[str]:
    """The outermost keys of YAML."""
    found = re.findall(r"^( *)[\"']?(\w+)[\"']?\s*:", text, re.MULTILINE)
    indent = min((len(spaces) for spaces, _ in found), default=0)
    return {key for spaces, key in found if len(spaces) == indent}


def _is_row(line: str) -> bool:
    fields = line.split()
    if len(fields) != 5 and (len(fields) < 7 or len(fields) % 2 == 0):
        return False
    if not all(_NUMBER.fullmatch(f) for f in fields) or _class_of(fields[0]) is None:
        return False
    return all(-0.5 <= float(f) <= 1.5 for f in fields[1:])


def _class_of(field: str) -> int | None:
    """The number of a class, which some programs write as 0.0; None for anything else."""
    if not _NUMBER.fullmatch(field):
        return None
    value = float(field)
    return int(value) if value.is_integer() and 0 <= value < _MOST_CLASSES else None


def nearly(tree: Tree) -> str:
    """What is wrong with the first row of numbers of a label file that belongs to an image by its name, where it is no
    row of this format; empty where there is no such."""
    for path in [p for p in tree.annotations if p.suffix.lower() == ".txt" and tree.pair(p)][:_LOOKED]:
        for number, line in enumerate(tree.probe(path).lines[:20], 1):
            numbers = [_NUMBER.fullmatch(field) for field in line.replace(",", " ").split()]
            if len(numbers) < 5 or not all(numbers) or _is_row(line):
                continue
            wrong = "the class is no whole number, or a value is far from 0..1"
            try:
                kind = _class_of(line.split()[0])
                _row(line, {} if kind is None else {kind: 0}, 0)
            except ValueError as error:
                wrong = str(error)
            return f"{path}, line {number}: {wrong}"
    return ""


def _sources(tree: Tree, files: list[Path], options: ReadOptions) -> Sources:
    described = [f for f in files if f.suffix.lower() != ".txt"]
    if len(described) > 1:
        named = [f for f in described if f.stem.lower() in ("data", "dataset")]
        described = named if len(named) == 1 else described
    if len(described) > 1:
        listed = ", ".join(str(f.relative_to(tree.root)) for f in described)
        raise DataError(f"{tree.root} has several data files: {listed}; name one of them")
    if described:
        return _described(tree, described[0], options)
    return _bare(tree, files, options)


# --------------------------------------------------------------------------- with data.yaml or .data


@dataclass(frozen=True)
class _Set:
    """What is common to the splits of a set: its file or folder, the classes, where labels lie, and how many numbers of
    keypoints stand behind a box."""

    tree: Tree
    source: Path
    classes: Classes
    labels: LabelFiles
    strict: bool
    keypoints: int = 0


def _described(tree: Tree, file: Path, options: ReadOptions) -> Sources:
    data = DataFile.read(tree, file)
    made = _Set(tree, file, data.classes(), LabelFiles(tree), options.strict, data.keypoints())
    sources: Sources = {}
    own = [key for key in data.own_splits(_KEYS) if _is_labelled(made, data, key)]
    for key in (k for k in (*_KEYS, *own) if data.entries(k)):
        places = [data.place(str(entry)) for entry in data.entries(key)]
        # Public files name test splits that few people have; training and validation have to be there.
        if all(p is None for p in places) and canonical_split(key) not in ("train", "val"):
            continue
        sources[canonical_split(key)] = partial(_read_entries, made, data, key)
    if not sources:
        raise DataError(f"{file} names no images; it needs train: or val: with a folder or a list of images")
    for split in {s for s in tree.images.splits.values() if s} - set(sources):
        extra = [p for p, s in tree.images.splits.items() if s == split and made.labels.of(p).is_file()]
        if extra:  # Roboflow's test/, which its data.yaml may leave out
            sources[split] = partial(_read_unnamed, made, split)
    return {name: sources[name] for name in in_order(sources)}


def _is_labelled(made: _Set, data: DataFile, key: str) -> bool:
    """Whether one of the images of a key has a label file: masks: ./masks is no split."""
    place = data.place(str(data.keys[key]))
    return place is not None and any(made.labels.of(image).is_file() for image in set_images_below(place))


def _read_entries(made: _Set, data: DataFile, key: str) -> Dataset:
    split, problems = canonical_split(key), Problems(made.source, made.strict)
    paths = [path for entry in data.entries(key) for path in data.images(split, str(entry), problems)]
    return _read_images(made, split, paths, problems)


def _read_unnamed(made: _Set, split: str) -> Dataset:
    problems = Problems(made.source, made.strict)
    paths = [p for p, s in made.tree.images.splits.items() if s == split]
    problems.note(Kind(f"the split {split} is not named in {made.source.name}; its folder has images and labels"))
    return _read_images(made, split, paths, problems)


# --------------------------------------------------------------------------- without


def _bare(tree: Tree, files: list[Path], options: ReadOptions) -> Sources:
    """Label files alone: the names from classes.txt, obj.names or the like, else numbers."""
    labels = LabelFiles(tree)
    if not {labels.of(image) for image in tree.images.paths} & set(files):  # photos/a.jpg, my_labels/a.txt
        labels.elsewhere = _called_alike(tree, files)
    pairs = {image: labels.of(image) for image in tree.images.paths}
    have = {image for image, label in pairs.items() if label.is_file()}
    matched = {pairs[image] for image in have}
    if not matched & set(files):
        raise DataError(f"{tree.root}: no label file belongs to an image by its name, such as {files[0]}")
    made = _Set(tree, tree.root, _bare_classes(tree, sorted(matched)), labels, options.strict)
    folders = {image.parent for image in have}
    images = [image for image in tree.images.paths if image.parent in folders]
    away = [image for image in tree.images.paths if image.parent not in folders]

    def split_of(image: Path) -> str | None:
        return tree.images.splits[image] or (tree.split_of(pairs[image]) if image in have else None)

    names = [image.relative_to(tree.images.root).as_posix() for image in images]
    named = {split: [images[k] for k in numbers] for split, numbers in named_in(tree.lists, names, tree.root).items()}
    parts, notes = share_out(named, images, tree.lists, split_of, str)
    if not parts:
        for image in images:
            parts.setdefault(split_of(image) or "all", []).append(image)
    if away:
        first, *more = (str(image.relative_to(tree.images.root)) for image in away[:EXAMPLES])
        notes = (*notes, Note(kinds.NO_LABEL_FOLDER, len(away), first, "note", tuple(more)))
    return told({s: partial(_read_bare, made, s, parts[s]) for s in in_order(parts)}, notes)


def _called_alike(tree: Tree, files: list[Path]) -> dict[Path, Path]:
    """The label file of each image, by the name alone, where one file has that."""
    found: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        if (image := tree.pair(file)) is not None:
            found[image].append(file)
    return {image: same[0] for image, same in found.items() if len(same) == 1}


def _read_bare(made: _Set, split: str, images: list[Path]) -> Dataset:
    return _read_images(made, split, images, Problems(made.source, made.strict))


def _bare_classes(tree: Tree, labels: list[Path]) -> Classes:
    """The classes by the file that lists them, else as many as the label files have numbers."""
    listed = _listed_classes(tree) or _noted_classes(tree)
    if len(listed) > 1:
        places = " and ".join(str(f.relative_to(tree.root)) for f in listed.values())
        raise DataError(f"{tree.root}: {places} name different classes; remove one of them")
    if listed:
        classes, file = next(iter(listed.items()))
        check_classes(classes.names, file)
        return classes
    most = -1
    for label in labels:
        for line in read_lines(label, kind=DataError):
            first = _class_of(line.split(maxsplit=1)[0]) if line.strip() else None
            most = max(most, -1 if first is None else first)
    names = tuple(f"class{k}" for k in range(most + 1))
    check_classes(names, tree.root)
    return _counted(names)


def _listed_classes(tree: Tree) -> dict[Classes, Path]:
    """Classes, and the file that lists them: classes.txt and the like, and YAML that names no images, or it would
    describe the set."""
    listed: dict[Classes, Path] = {}
    for file in (p for p in tree.annotations if p.name.lower() in CLASS_FILES or p.suffix.lower() == ".names"):
        lines = tree.probe(file).lines[:5]
        if not lines or not all(map(_is_row, lines)):
            listed[_counted(read_names(file))] = file
    for file in (p for p in tree.annotations if p.suffix.lower() in (".yaml", ".yml")):
        if "names" in _keys(tree.probe(file).text):
            listed[DataFile.read(tree, file).classes()] = file
    return listed


def _noted_classes(tree: Tree) -> dict[Classes, Path]:
    """The same of Label Studio's notes.json."""
    listed: dict[Classes, Path] = {}
    for file in (p for p in tree.annotations if p.name.lower() == "notes.json"):
        data = read_json(file, kind=DataError)
        rows = data.get("categories") if isinstance(data, dict) else None
        if isinstance(rows, list) and all(isinstance(r, dict) and isinstance(r.get("id"), int) for r in rows):
            listed[_counted(tuple(str(r.get("name")) for r in sorted(rows, key=lambda r: r["id"])))] = file
    return listed


def _counted(names: tuple[str, ...]) -> Classes:
    """Classes that are numbered from 0."""
    return Classes(names, tuple(range(len(names))))


# --------------------------------------------------------------------------- the label files


def _read_images(made: _Set, split: str, paths: list[Path], problems: Problems) -> Dataset:
    images: list[ImageFile] = []
    rows: list[tuple[int, int, float, float, float, float]] = []
    names: list[tuple[Path, int]] = []
    bare = 0
    label_of = {id: label for label, id in enumerate(made.classes.ids)}
    roots = (made.tree.images.root, made.source.parent, made.source)
    for path in paths:
        labels = made.labels.of(path)
        try:
            lines = read_lines(labels, kind=DataError) if (labelled := labels.exists()) else []
        except DataError as error:
            problems.skip(kinds.LABEL_FILES, str(error))
            continue
        bare += not labelled
        try:
            size = image_size(path)
        except ImageError:
            size = None  # `assemble` reports it
        root = next((r for r in roots if path.is_relative_to(r)), path.parent)
        index = len(images)
        images.append(ImageFile(index + 1, path.relative_to(root).as_posix(), path, size))
        height, width = size or (1, 1)
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                label, (x1, y1, x2, y2) = _row(line, label_of, made.keypoints)
            except ValueError as error:
                problems.skip(kinds.LABEL_ROWS, f"{labels}, line {number}: {error}")
                continue
            rows.append((index, label, x1 * width, y1 * height, x2 * width, y2 * height))
            names.append((labels, number))
    if bare:
        none = bare == len(paths)
        problems.note(kinds.NO_LABELS if none else kinds.without("a label file", kinds.UNLABELLED), count=bare)
    table = np.array(rows, dtype=np.float64).reshape(-1, 6)
    flat = Rows(
        table[:, 0].astype(np.int64),
        table[:, 2:],
        table[:, 1].astype(np.int64),
        np.zeros(len(table), dtype=bool),
        np.full(len(table), np.nan),
        lambda k: f"line {names[k][1]} of {names[k][0].name}",
        form="cxcywh",
    )
    records = assemble(images, flat, problems)
    return Dataset(records, made.classes, "yolo", split, made.source, problems.notes())


def _row(line: str, label_of: dict[int, int], keypoints: int) -> tuple[int, tuple[float, float, float, float]]:
    """`class x y w h` and so many numbers of keypoints, or `class x y x y x y ...` (a polygon) in a set without any, in
    shares of the image -> label, corners."""
    fields = line.split()
    try:
        values = [float(v) for v in fields]
    except ValueError:  # the text is not shown: a link may lead anywhere
        raise ValueError("a row is made of numbers: class x y w h") from None
    if not values[0].is_integer() or int(values[0]) not in label_of:
        raise ValueError(f"there is no class {fields[0][:40]}")
    label, numbers = label_of[int(values[0])], values[1:]
    if keypoints and len(numbers) != 4 + keypoints:
        raise ValueError(f"{len(fields)} numbers; a box with the keypoints of kpt_shape has {5 + keypoints}")
    if keypoints or len(numbers) == 4:
        x, y, w, h = numbers[:4]
        box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    elif len(numbers) >= 6 and len(numbers) % 2 == 0:
        xs, ys = numbers[::2], numbers[1::2]
        box = (min(xs), min(ys), max(xs), max(ys))
    else:
        last = "; is the sixth a score? Leave it out" if len(fields) == 6 else ""
        raise ValueError(f"{len(fields)} numbers; a box has 5, a polygon an odd count from 7{last}")
    if max(box) > 2:
        raise ValueError(f"{line.strip()[:60]!r} is not in shares of the image (0..1)")
    return label, box


# --------------------------------------------------------------------------- writing


def _write(splits: Mapping[str, Dataset], output: Output) -> list[str]:
    need_images(splits, "YOLO")
    keys: dict[str, str] = {}
    lines = ["YOLO: image ids and areas are not kept"]
    for split in splits:
        free = "train" not in splits and "train" not in keys.values()
        keys[split] = "train" if split in ("all", "trainval") and free else split
        if keys[split] != split:
            lines.append(f"YOLO: the split {split} is called {keys[split]}")
        elif split not in ("train", "val", "test"):
            lines.append(f"YOLO: tools know only train, val and test, not {split}")
    if output.classes.ids != tuple(range(len(output.classes))):
        lines.append("YOLO: class ids are replaced by 0, 1, ... in the same order")
    for split, dataset in splits.items():
        for record, name in zip(dataset.records, names_of(dataset), strict=True):
            rows = []
            for box, label, _ in output.rows(record, cut=True, ignored=False):
                x1, y1, x2, y2 = shares(box, record)
                rows.append(f"{label} {(x1 + x2) / 2:.8f} {(y1 + y2) / 2:.8f} {x2 - x1:.8f} {y2 - y1:.8f}\n")
            output.text(f"labels/{keys[split]}/{os.path.splitext(name)[0]}.txt", "".join(rows))
            output.image(record, f"images/{keys[split]}/{name}")
    trimmed = count(splits, "over")
    if trimmed:
        lines.append(f"YOLO: {plural(trimmed, 'box')} cut at the edge of their image")
    content = {key: f"images/{key}" for key in keys.values()} | {"names": dict(enumerate(output.classes.names))}
    output.text("data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    if output.model:
        output.text("scores.csv", _scores(splits, output))
        lines.append("YOLO: label files hold no score and no source, so they look like the truth; scores.csv has both")
    return lines + left_out(splits, "YOLO")


def _scores(splits: Mapping[str, Dataset], output: Output) -> str:
    """A table of the score of each row of a label file, and the model that proposes it."""
    table: list[tuple[object, ...]] = [("image", "row", "class", "score", "source")]
    for dataset in splits.values():
        for record, name in zip(dataset.records, names_of(dataset), strict=True):
            rows = zip(record.labels, record.ignore, output.scores(record), strict=True)
            kept = [(output.classes.names[label], score) for label, ignore, score in rows if not ignore]
            table.extend((name, k, label, score, output.model) for k, (label, score) in enumerate(kept, 1))
    return csv_text(table)


FORMAT = Format("yolo", "YOLO", (".yaml", ".yml", ".data", ".txt"), _sniff, _sources, _write)
