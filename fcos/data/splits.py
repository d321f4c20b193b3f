"""A validation part for data that has none."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from ..errors import DataError
from ..system.terminal import plural
from .dataset import Dataset
from .records import Record


def draw_holdout(dataset: Dataset, share: float, seed: int, together: Sequence[Sequence[int]] = ()) -> list[str]:
    """File names of `share` (0..1) of the images, at least one; the same for the same names, labels and seed.

    Each class has about that share of its images among them, rarest first; the last image of a class stays where it
    is learned. The order of the data does not matter, and an image that is listed twice falls on one side, as do those
    whose numbers are in one group of `together` (near-duplicates). DataError when nothing with boxes would be left on
    one of the sides.
    """
    if not 0 < share < 1:
        raise DataError(f"--holdout {share:g} is not a share of the images; give one between 0 and 1, such as 0.1")
    units = units_of(dataset, together, 3)
    order = sorted(range(len(units)), key=lambda u: hashlib.sha256(f"{seed}/{min(units[u])}".encode()).digest())
    shown = _classes_of(dataset)
    classes = [frozenset().union(*(shown[name] for name in units[u])) for u in range(len(units))]
    left: dict[int, int] = {}  # images of each class that are learned; -1: those without boxes
    for name in shown:
        for label in shown[name]:
            left[label] = left.get(label, 0) + 1
    need = {label: share * number for label, number in left.items()}
    total = max(1, round(share * len(shown)))
    held: set[str] = set()

    def take(candidates: Iterable[int], spare: bool, enough: Callable[[], bool]) -> None:
        for u in candidates:
            if enough() or len(held) >= total:
                return
            names = units[u] - held
            taken = {label: sum(label in shown[name] for name in names) for label in classes[u]}
            last = any(label >= 0 and left[label] <= n for label, n in taken.items())
            if not names or len(names) > total - len(held) or (spare and last):
                continue
            held.update(names)
            for label, n in taken.items():
                left[label] -= n
                need[label] -= n

    for label in sorted(need, key=lambda k: (left[k], k)):
        mine = [u for u in order if label in classes[u]]
        take(mine, True, lambda label=label: need[label] < 0.5)  # type: ignore[misc]
    take(order, True, lambda: False)
    take(order, False, lambda: False)  # rather a class that is judged alone than too few images
    for part in hold_out(dataset, held):
        if not any((~r.ignore).any() for r in part.records):
            raise DataError(
                f"--holdout {share:g} of the {plural(len(dataset), 'image')} of {dataset.root} leaves one side "
                "without boxes; give another share or another train.seed"
            )
    return sorted(held)


def units_of(dataset: Dataset, together: Sequence[Sequence[int]], parts: int) -> list[set[str]]:
    """The names of the images, those that belong on one side in one set. A group of `together` that holds over one of
    `parts` equal parts of all images (frames of one film) says nothing, would fill a part, and is not heard."""
    names = [name_of(r) for r in dataset.records]
    unit = {name: {name} for name in names}
    for group in together:
        joined = set().union(*(unit[names[i]] for i in group))
        if parts * len(joined) <= len(unit):
            unit |= dict.fromkeys(joined, joined)
    return list({id(members): members for members in unit.values()}.values())


def parted(
    dataset: Dataset, together: Sequence[Sequence[int]], *parts: Iterable[str], so: str = "AP will be too high"
) -> str:
    """A line, ending in `so`, where images that show the same, a group of `together`, are on several sides: the names
    of each of `parts`, and all other images. Empty where none are."""
    names = [name_of(r) for r in dataset.records]
    side = {name: number for number, part in enumerate(parts) for name in part}
    torn = [group for group in together if len({side.get(names[i], -1) for i in group}) > 1]
    if not torn:
        return ""
    largest = max(torn, key=len)
    return (
        f"{plural(len(largest), 'image')} that show the same, such as {names[largest[0]]}, are too many to stay "
        f"together: some are learned from and some judge, so {so}"
    )


def _classes_of(dataset: Dataset) -> dict[str, frozenset[int]]:
    """The labels on each image by name, -1 for one without boxes."""
    shown: dict[str, frozenset[int]] = {}
    for record in dataset.records:
        labels = frozenset(int(x) for x in np.unique(record.labels[~record.ignore]))
        shown[name_of(record)] = shown.get(name_of(record), frozenset()) | labels
    return {name: labels or frozenset((-1,)) for name, labels in shown.items()}


def val_is_learned(splits: Collection[str], taught: Collection[str]) -> bool:
    """Whether what is learned, `taught_splits`, has the images of a val split, so that it cannot judge."""
    return "val" in taught or ("trainval" in taught and "val" in splits)


def hold_out(dataset: Dataset, names: Iterable[str]) -> tuple[Dataset, Dataset]:
    """(the rest, the images called `names`). DataError when one of them is not there."""
    held = set(names)
    called = [name_of(r) for r in dataset.records]
    missing = held.difference(called)
    if missing:
        raise DataError(
            f"{dataset.root}: {len(missing)} of the images that the run held out are gone, such as {min(missing)}"
        )
    return (
        dataset.subset([k for k, name in enumerate(called) if name not in held]),
        replace(dataset.subset([k for k, name in enumerate(called) if name in held]), split="holdout", notes=()),
    )


def name_of(record: Record) -> str:
    """What an image is called in its data set."""
    return record.file_name or (str(record.path) if record.path is not None else str(record.id))


TAUGHT = ("train", "trainval")  # from which splits to learn, and in which to judge, unless one is named
JUDGED = ("test", "val")


def default_split(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first of `wanted` among `names`, else the only one; None where one has to be chosen."""
    only = names[0] if len(names) == 1 else None
    return next((name for name in wanted if name in names), only)


def taught_splits(splits: Iterable[str], asked: str | None, name: object) -> list[str]:
    """The splits to learn from: those of `asked`, with commas, else train, trainval, or the only one. DataError with
    what to do where `name`, the data set, lacks them."""
    there = list(splits)
    if asked:
        wanted = [s.strip() for s in asked.split(",") if s.strip()]
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
    "coco", "voc", "yolo", "labelme", "kitti", "createml", "via", "left", "colored", "raw",
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
