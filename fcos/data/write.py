"""Write a data set in another format, and say in plain lines what the format cannot hold."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..system.door import door
from ..system.files import real, whole_folder
from ..system.terminal import some
from ..types import Classes
from .dataset import Dataset
from .formats.common.writing import Output, disk_error, renamed
from .open import split_names
from .registry import format_named, formats
from .splits import ORDER, canonical_split, check_split
from .tree import DataSource

_OF_FILES = (".json", ".jsonl", ".ndjson", ".xml", ".txt", ".csv", ".yaml", ".yml", ".parquet", ".zip", ".tar")
SCORED = ("labelstudio", "cvat", "labelme", "coco", "yolo")  # formats with a place for scores and who proposes


@door
def save_dataset(
    data: Dataset | Mapping[str, Dataset], folder: str | Path, format: str = "coco", *, link: bool = False
) -> list[str]:
    """Write a data set, or several by the name of their split, to a new folder in any format that `fcos data convert`
    writes (docs/formats.md); images are copied, or linked with `link`.

    Returns a line for each thing that the format cannot hold. Raises DataError where the folder holds something
    already or lies in the data set itself, the format cannot be written, the splits have different classes, or a data
    set was opened with `inclusive`.

    >>> lost = fcos.save_dataset(fcos.open_dataset("my_data"), "as_yolo", "yolo")
    >>> fcos.open_dataset("as_yolo")
    Dataset(as_yolo/data.yaml, ...: 4 images, 3 classes, yolo)
    """
    splits = {data.split: data} if isinstance(data, Dataset) else data
    for dataset in splits.values():
        if dataset.format != "python":  # whose root is the folder of all images
            check_outside(Path(folder), DataSource(dataset.root))
    return convert(splits, folder, format, link=link)


def convert(
    splits: Mapping[str, Dataset], destination: str | Path, to: str, *, link: bool = False, model: str = ""
) -> list[str]:
    """Write all splits to a new folder in format `to`; images are copied, or linked with `link`. `model`: who
    proposes the boxes, whose records have scores; the formats of `SCORED` keep both.

    The folder is there when all of it is. Returns the lines that say what was lost. Raises DataError when the folder
    is not empty, the format is unknown or only read, the splits do not have the same classes, or a class has a name
    that no file holds safely.
    """
    target = Path(destination)
    if model and format_named(to).name not in SCORED:
        raise DataError(f"the format {to} cannot hold proposals with their scores; choose from {', '.join(SCORED)}")
    writers = {name: form.write for name, form in formats().items() if form.write is not None}
    write = writers.get(format_named(to).name)
    if write is None:
        raise DataError(f"the format {to} is only read; formats to write: {', '.join(writers)}")
    check_new(target)
    for name, dataset in splits.items():
        check_split(name, "the data set to write")
        if dataset.inclusive:
            raise DataError(
                f"{dataset.root} was opened with inclusive=True: its boxes end one pixel earlier than in the file, and "
                "would be written so; open it without to write it"
            )
    classes = _same_classes(splits)
    _check_names(classes)
    try:
        with whole_folder(target) as folder:
            lost = write(splits, Output(folder, classes, link, target.absolute().name, model, _unused(splits, classes)))
    except OSError as error:
        raise disk_error(error, target) from None
    return [*lost, *renamed(splits), *_lost_splits(splits, target)]


def _lost_splits(splits: Mapping[str, Dataset], target: Path) -> list[str]:
    """The line for splits that the new data set does not open with, because its format knows the usual names alone."""
    if splits.keys() <= ORDER.keys() or splits.keys() == {"all"}:
        return []
    found = split_names(target)
    lost = [name for name in splits if canonical_split(name) not in found]
    if not lost:
        return []
    which = f"split {lost[0]} is" if len(lost) == 1 else f"splits {', '.join(lost)} are"
    return [f"the {which} not found again: {target} opens with {', '.join(found)} (cvat and ndjson keep any name)"]


def check_new(target: Path) -> None:
    """DataError where `target`, which is to become a new folder, holds something."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target} is there already; name a new or empty folder")


def check_outside(target: Path, source: DataSource) -> None:
    """DataError where `target`, which is to become a new folder, is called as a file is, or lies in the data set that
    is read: it would be two data sets in one folder then, and no longer open."""
    if target.suffix.lower() in _OF_FILES and not target.exists():
        raise DataError(f"{target} is to be a folder, for images and annotations; leave {target.suffix} out")
    target, origin = real(target), real(source.path)
    if target == origin or origin in target.parents or (origin.is_file() and target == origin.parent):
        raise DataError(
            f"{target} lies in the data set itself, {source.path}, which is never changed; name another folder"
        )


def _same_classes(splits: Mapping[str, Dataset]) -> Classes:
    names = {dataset.classes.names for dataset in splits.values()}
    if len(names) > 1:
        listed = "; ".join(f"{split}: {', '.join(d.classes.names)}" for split, d in splits.items())
        raise DataError(f"the splits do not have the same classes: {listed}")
    return next(iter(splits.values())).classes


def _unused(splits: Mapping[str, Dataset], classes: Classes) -> frozenset[str]:
    """The classes without a box in any split."""
    used = {label for dataset in splits.values() for label in np.unique(dataset.packed.table.labels).tolist()}
    return frozenset(name for label, name in enumerate(classes.names) if label not in used)


def _check_names(classes: Classes) -> None:
    """DataError for a class name that would not come back from a file as it is: with a line break, a tab or another
    control character, half a character, or spaces around it."""
    bad = [name for name in classes.names if not name or name != name.strip() or any(_unsafe(c) for c in name)]
    if bad:
        raise DataError(
            f"the class {some(bad)} has a line break, a control character or spaces around it, which many formats "
            f"lose; rename it: fcos data convert --rename {bad[0]!a}=NAME"
        )


def _unsafe(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character == "\ufeff"  # the mark of a file
