"""A validation part for data that has none."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..errors import DataError
from .dataset import Dataset, Record


def draw_holdout(dataset: Dataset, share: float, seed: int) -> list[str]:
    """File names of `share` (0..1) of the pictures, at least one; the same for the same names and seed.

    The order of the data does not matter, and a picture that is listed twice falls on one side. DataError when
    nothing with boxes would be left on one of the sides.
    """
    if not 0 < share < 1:
        raise DataError(f"--holdout {share:g} is not a share of the pictures; give one between 0 and 1, such as 0.1")
    names = sorted({name_of(r) for r in dataset.records}, key=lambda n: hashlib.sha256(f"{seed}/{n}".encode()).digest())
    held = names[: max(1, round(share * len(names)))]
    for part in hold_out(dataset, held):
        if not any((~r.ignore).any() for r in part.records):
            raise DataError(
                f"--holdout {share:g} of the {len(dataset)} pictures of {dataset.root} leaves one side without boxes; "
                "give another share or another train.seed"
            )
    return sorted(held)


def hold_out(dataset: Dataset, names: Iterable[str]) -> tuple[Dataset, Dataset]:
    """(the rest, the pictures called `names`). DataError when one of them is not there."""
    held = set(names)
    missing = held - {name_of(r) for r in dataset.records}
    if missing:
        raise DataError(
            f"{dataset.root}: {len(missing)} of the pictures that the run held out are gone, such as {min(missing)}"
        )
    return (
        replace(dataset, records=_records(dataset.records, held, False)),
        replace(dataset, records=_records(dataset.records, held, True), split="holdout", notes=()),
    )


def name_of(record: Record) -> str:
    """What a picture is called in its data set."""
    return record.file_name or (str(record.path) if record.path is not None else str(record.id))


def _records(records: Sequence[Record], held: set[str], inside: bool) -> tuple[Record, ...]:
    return tuple(r for r in records if (name_of(r) in held) is inside)


TAUGHT = ("train", "trainval")  # from which splits to learn, and in which to judge, unless one is named
JUDGED = ("test", "val")


def default_split(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first of `wanted` among `names`, else the only one; None where one has to be chosen."""
    only = names[0] if len(names) == 1 else None
    return next((name for name in wanted if name in names), only)


# --------------------------------------------------------------------------- what folders and files are called

WORDS = {
    **dict.fromkeys(("train", "training", "trn", "trainset"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "valset"), "val"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation", "testset"), "test"),
    **{name: name for name in ("trainval", "minival")},
}
ALIASES = {word: name for word, name in WORDS.items() if word != name}
ORDER = {name: place for place, name in enumerate(("train", "trainval", "val", "minival", "test"))}
# Words of folders that say what kind of files lie there, not which data set or split they belong to.
# fmt: off
_GENERIC = frozenset((
    "image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "pic", "pics", "jpegimages", "jpg",
    "jpgs", "jpeg", "jpegs", "png", "pngs", "label", "labels", "labeltxt", "lbl", "annotation", "annotations",
    "annot", "annots", "ann", "anns", "anno", "annos", "xml", "xmls", "json", "jsons", "txt", "txts", "csv", "bbox",
    "bboxes", "box", "boxes", "gt", "groundtruth", "instance", "instances", "object", "objects", "obj", "detection",
    "det", "data", "dataset", "set", "split", "splits", "part", "subset", "main", "imagesets", "image_sets", "lists",
    "coco", "voc", "yolo", "labelme", "kitti", "createml", "left", "colored", "raw",
))
# fmt: on


def canonical_split(name: str) -> str:
    """'valid' -> 'val' and the like; other names as they are, in lower case."""
    return WORDS.get(name.lower(), name.lower())


def split_of_folder(name: str) -> str | None:
    """The split that a folder's name means: 'train', 'Valid', 'val2017', 'train_images'; None where it means none."""
    words = [w for w in _words(name) if w not in _GENERIC]
    return WORDS.get(words[0]) if len(words) == 1 else None


def split_of_file(stem: str) -> str | None:
    """The split that a file's name ends in or begins with: 'custom_train', 'instances_val2017', 'test-labels'."""
    words = [w for w in _words(stem) if w not in _GENERIC]
    if words[-2:] == ["test", "dev"]:
        return "test"
    return (WORDS.get(words[-1]) or WORDS.get(words[0])) if words else None


def is_generic(name: str) -> bool:
    """True for a folder called 'images', 'Labels', 'image_2', ...: its name says nothing more."""
    words = _words(name)
    return bool(words) and all(w in _GENERIC for w in words) and not re.search(r"\d{3}", name)  # VOC2007 is a set


def _words(name: str) -> list[str]:
    """Lower-case words of a name, without numbers: 'instances_val2017' -> instances, val."""
    words = re.findall(r"[A-Z]*[a-z]+|[A-Z]+", name) if name.isascii() else re.findall(r"[^\W\d_]+", name)
    whole = name.lower()
    if whole in WORDS or whole in _GENERIC:
        return [whole]
    parts = [w.lower() for w in re.findall(r"[^\W\d_]+", name)]
    # CamelCase counts only where every part of it is a word that is known: JPEGImages and VOCdevkit are names.
    if len(parts) == 1 and len(words) > 1 and all(w.lower() in WORDS or w.lower() in _GENERIC for w in words):
        return [w.lower() for w in words]
    return parts
