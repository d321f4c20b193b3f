"""What splits and images are called, and which splits are learned from and judged in."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from ..errors import DataError
from ..system.files import file_name
from .records import Record

TAUGHT = ("train", "trainval")  # the splits to learn from, where none is named: the first that is there
JUDGED = ("test", "val")  # the splits to judge by, where none is named: the first that is there
CHOSEN_BY = ("val", "test")  # those of other data to judge a run by, so that its best weights are chosen
# splits of which the first is a part of the second, as VOC and COCO publish them
NESTED = ({"train", "trainval"}, {"val", "trainval"}, {"minival", "trainval"}, {"minival", "val"})


def default_split(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first of `wanted` among `names`, else the only one; None where one has to be chosen."""
    only = names[0] if len(names) == 1 else None
    return next((name for name in wanted if name in names), only)


def taught_splits(splits: Iterable[str], asked: str | None, name: object) -> list[str]:
    """The splits to learn from: those of `asked`, with commas, else train, trainval, or the only one. DataError with
    what to do where `name`, the data set, lacks them."""
    there = list(splits)
    if asked:
        wanted = [meant_split(s.strip(), there) or s.strip() for s in asked.split(",") if s.strip()]
    else:
        wanted = [s for s in TAUGHT if s in there][:1] or (there if len(there) == 1 else [])
    absent = [s for s in wanted if s not in there]
    if absent == ["val"] and len(wanted) > 1:
        rest = ",".join(s for s in wanted if s != "val")
        raise DataError(
            f"{name} has no split called val; it has {', '.join(there)}. Leave --split out, and a tenth of the images "
            f"is held out for judging; or learn from all with --split {rest} --holdout 0"
        )
    if absent or not wanted:
        missing = f"no split called {absent[0]}" if absent else "no split called train; choose with --split"
        if not absent and len(there) > 1:
            missing += f", or several, as {','.join(there[:2])}"
        raise DataError(f"{name} has {missing}; it has {', '.join(there)}")
    return wanted


def val_is_learned(splits: Collection[str], taught: Collection[str]) -> bool:
    """Whether what is learned, `taught_splits`, has the images of a val split, so that it cannot judge."""
    return "val" in taught or ("trainval" in taught and "val" in splits)


def name_of(record: Record) -> str:
    """What an image is called in its data set."""
    return record.file_name or (str(record.path) if record.path is not None else str(record.id))


# --------------------------------------------------------------------------- what folders and files are called

FILE_PREFIX = re.compile(r"^_?(instances|annotations?|labels)[._-]*", re.IGNORECASE)  # of a COCO file's name
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
    "coco", "voc", "yolo", "labelme", "kitti", "createml", "via", "left", "colored", "raw",
))
# fmt: on


def canonical_split(name: str) -> str:
    """'valid' -> 'val' and the like; other names as they are, in lower case."""
    return WORDS.get(name.lower(), name.lower())


def meant_split(asked: str, there: Collection[str]) -> str | None:
    """The one of the splits `there` that a person means: by its name, by another word for it (valid), or by the name of
    its COCO file (instances_day)."""
    names = (asked, canonical_split(asked), FILE_PREFIX.sub("", asked.lower()))
    return next((name for name in names if name in there), None)


def check_split(name: str, place: object) -> None:
    """DataError for the name of a split of `place` that no folder can have, or that leads to another folder."""
    if not name.strip() or name[0] == "." or re.search(r"[/\\\x00-\x1f\x7f]", name) or file_name(name) != name:
        raise DataError(f"{place}: a split is called {name[:80]!r}, which is no name of a folder; rename it there")


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
