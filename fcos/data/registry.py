"""The formats of data sets: one row each here, one file each in formats/. docs/formats.md says how to add one."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError
from .dataset import Dataset, Sources
from .images.reading import SUFFIXES
from .probe import Probe
from .tree import Tree

if TYPE_CHECKING:
    from .formats.common.writing import Output

NAMES = (
    *("coco", "yolo", "voc", "labelstudio", "labelme", "labelmexml", "cvat", "ndjson", "huggingface"),
    *("parquet", "webdataset", "openimages", "csv", "createml", "kitti", "mot", "supervisely", "via"),
)


@dataclass(frozen=True)
class ReadOptions:
    """strict: what would be skipped is a DataError. inclusive: x2 = x + w - 1 for COCO boxes. pixels: whether the
    images are needed; else those of COCO that are missing or cannot be read stay, if the file gives their size."""

    strict: bool = False
    inclusive: bool = False
    pixels: bool = True


@dataclass(frozen=True)
class Format:
    """A format of data sets.

    name: on the command line. title: for people. suffixes: of its annotation files, in lower case. sniff: whether
    the beginning of a file looks like this format. sources(tree, files, options): the splits that the files which
    look like it hold; empty where they turn out to hold none; DataError with the reason where they cannot be read.
    write(splits, output): writes a data set, and returns a line for each thing that the format cannot hold; None
    where writing makes no sense.
    """

    name: str
    title: str
    suffixes: Sequence[str]
    sniff: Callable[[Probe], bool]
    sources: Callable[[Tree, list[Path], ReadOptions], Sources]
    write: Callable[[Mapping[str, Dataset], Output], list[str]] | None = None


@cache
def formats() -> dict[str, Format]:
    """All formats by name, in the order in which they are tried."""
    return {name: importlib.import_module(f".formats.{name}", __package__).FORMAT for name in NAMES}


def format_named(name: str) -> Format:
    """The format of that name; DataError with all names where there is none."""
    known = formats()
    name = "labelstudio" if name.lower() == "label-studio" else name  # as labels propose calls it
    if name.lower() not in known:
        raise DataError(f"there is no format {name!r}; formats: {', '.join(known)}")
    return known[name.lower()]


def recognise(probe: Probe) -> str:
    """What one file looks like, in words."""
    for form in formats().values():
        if probe.suffix in form.suffixes and form.sniff(probe):
            return form.title
    if probe.suffix in (".json", ".json.gz"):
        value = probe.json
        if isinstance(value, dict):
            return f"an object with {', '.join(map(repr, list(value)[:6])) or 'nothing in it'}"
        if isinstance(value, list):
            keys = list(probe.first())
            if {"image_id", "score"} <= set(keys):
                return "a list of detections (COCO results), not annotations"
            return f"a list of objects with {', '.join(map(repr, keys[:6]))}" if keys else "a list without objects"
        return "no JSON"
    if probe.suffix == ".xml":
        return f"XML <{probe.root}>" if probe.root else "no XML"
    first = probe.lines[0][:40] if probe.lines else ""
    if first.lower().endswith(tuple(SUFFIXES)):
        return "a list of images; give the data.yaml that names it"
    return f"a text that begins {first!r}" if first else "empty or no text"
