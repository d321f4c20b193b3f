"""WebDataset: tar files (shards) in which an image and a JSON file of the same name follow each other.

Defined at https://github.com/webdataset/webdataset; what the JSON says of boxes it leaves open. Here it is what Hugging
Face's metadata.jsonl says: "objects" with bbox [x, y, width, height], categories (names), area and iscrowd. Shards are
not unpacked: an image is read from its place in the tar file.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...system import tars
from ...system.readers import MB, open_file, parse_json, read_bytes
from ..dataset import Dataset, Sources
from ..images.reading import IMAGE_LIMIT, SUFFIXES
from ..probe import Probe
from ..registry import Format, ReadOptions
from ..tree import Tree
from .common.pages import Page, Reading, listed_classes
from .common.values import mapping, size, word
from .common.writing import Output, names_of, need_images
from .huggingface import objects_of

_IMAGES = 1000  # of a shard at most
_BYTES = 512 * MB  # and about so many bytes
_SHARD = 1 << 40  # bytes of a tar file at most
_LOOKED = 8  # members that are looked at to know the format


def _sniff(probe: Probe) -> bool:
    """Whether an image and its JSON stand among the first files: other tar files are just tar files."""
    kinds: dict[str, set[str]] = {}
    try:
        with open_file(probe.path, _SHARD, DataError) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for _, member in zip(range(_LOOKED), archive, strict=False):
                key, suffix = _key(member.name)
                kinds.setdefault(key, set()).add("image" if suffix in SUFFIXES else suffix)
    except (DataError, tarfile.TarError, OSError, ValueError):
        return False
    return any({"image", ".json"} <= kind for kind in kinds.values())


def _sources(tree: Tree, files: list[Path], options: ReadOptions) -> Sources:
    return Reading(
        "webdataset", tree, files, _parse, options.strict, classes=listed_classes, names_inside=True, noun="shard"
    ).sources()


def _key(name: str) -> tuple[str, str]:
    """(the name up to the first dot behind the folders, the rest in lower case), which is WebDataset's rule."""
    folder, slash, last = name.rpartition("/")
    key, dot, suffix = last.partition(".")
    return f"{folder}{slash}{key}", f"{dot}{suffix}".lower()


def _parse(file: Path) -> Iterator[Page]:
    groups: dict[str, dict[str, str]] = {}
    for name in tars.members(file, DataError):
        key, suffix = _key(name)
        groups.setdefault(key, {})["image" if suffix in SUFFIXES else suffix] = name
    for group in groups.values():
        if "image" not in group:
            continue
        row: dict[str, Any] = {}
        if ".json" in group:
            text = tars.read(file, group[".json"], 64 * MB, DataError)
            row = mapping(parse_json(text, f"{file / group['.json']}", DataError, nan=True))
        objects = objects_of(row.get("objects"))
        name = word(row.get("file_name")) or group["image"]  # as before it became a member, if it says so
        yield Page(name, size(row.get("height"), row.get("width")), *objects, path=file / group["image"], form="xywh")


def _write(splits: Mapping[str, Dataset], output: Output) -> list[str]:
    need_images(splits, "WebDataset")
    renamed = 0
    for split, dataset in splits.items():
        names, taken = names_of(dataset), set[str]()
        shards = _Shards(output.folder(split))
        for index, name in enumerate(names):
            stem, suffix = os.path.splitext(name)
            key = stem.replace(".", "_")
            while key in taken:
                key += f"_{index}"
            taken.add(key)
            renamed += key != stem
            record = dataset.records[index]
            assert record.path is not None
            height, width = record.size
            objects = {
                "bbox": record.exact().tolist(),
                "categories": [output.classes.names[k] for k in record.labels.tolist()],
                "area": record.areas.tolist(),
                "iscrowd": record.ignore.astype(int).tolist(),
            }
            row = {"file_name": name, "width": width, "height": height, "objects": objects}
            pixels = read_bytes(record.path, IMAGE_LIMIT, DataError)
            shards.add(f"{key}{suffix.lower()}", pixels, f"{key}.json", json.dumps(row, ensure_ascii=False).encode())
        shards.close()
    output.labels()
    lines = ["WebDataset: image ids are replaced by 1, 2, ...; class ids are replaced by 1, 2, ... in the same order"]
    if renamed:
        what = "member is" if renamed == 1 else "members are"
        lines.append(
            f"WebDataset: {renamed:,} {what} called otherwise than the image: a name there ends at its first dot; "
            "file_name in the JSON has the whole"
        )
    return lines


class _Shards:
    """000000.tar, 000001.tar, ... in a folder; equal input gives equal bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = self.images = self.bytes = 0
        self.archive: tarfile.TarFile | None = None

    def add(self, name: str, pixels: bytes, other: str, text: bytes) -> None:
        if self.archive is not None and (self.images == _IMAGES or self.bytes + len(pixels) > _BYTES):
            self.close()
        if self.archive is None:
            path = self.folder / f"{self.number:06d}.tar"
            self.archive = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - `close` ends it
            self.number, self.images, self.bytes = self.number + 1, 0, 0
        for called, content in ((other, text), (name, pixels)):
            member = tarfile.TarInfo(called)
            member.size = len(content)
            self.archive.addfile(member, io.BytesIO(content))
        self.images += 1
        self.bytes += len(pixels)

    def close(self) -> None:
        if self.archive is not None:
            self.archive.close()
            self.archive = None


FORMAT = Format("webdataset", "WebDataset", (".tar",), _sniff, _sources, _write)
