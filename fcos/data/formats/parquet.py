"""Parquet with the images inside, as Hugging Face keeps data sets; boxes [x, y, w, h].

Defined at https://huggingface.co/docs/datasets/image_dataset#object-detection. Names of numbered classes: the features
in the file's own description, or in README.md. Images are unpacked once into the cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import DataError, FcosError, first_line, require
from ...system.files import write_whole
from ...system.machine import cache_folder
from ...system.readers import PARQUET_LIMIT, open_file, parse_json, read_bytes
from ..dataset import Dataset, Sources
from ..images.reading import IMAGE_LIMIT
from ..probe import Probe
from ..registry import Format, ReadOptions
from ..tree import Tree
from .common.pages import Page, Reading
from .common.values import mapping, size, word
from .common.writing import Output, names_of, need_images
from .huggingface import names_in, numbered, objects_of, readme_names

_ENDS = {"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "RIFF": ".webp"}
_ROWS = 1000  # images of a file
_GROUP = 100  # images that a reader holds at a time


def _sniff(probe: Probe) -> bool:
    return probe.text.startswith("PAR1")


def _sources(tree: Tree, files: list[Path], options: ReadOptions) -> Sources:
    named: list[str] = []
    for file in files:
        named = named or readme_names(file, tree)

    def parse(file: Path) -> list[Page]:
        return list(_pages(named, file))

    return Reading("parquet", tree, files, parse, options.strict, classes=numbered(named)).sources()


def _pages(named: list[str], file: Path) -> Iterator[Page]:
    """A page for each row; the images are unpacked beside each other."""
    parquet = require("pyarrow.parquet", "parquet")
    stamp = file.stat()
    key = hashlib.sha256(os.fsencode(f"{file.resolve()}/{stamp.st_size}/{stamp.st_mtime_ns}")).hexdigest()[:16]
    folder = cache_folder() / "parquet" / key
    try:
        with open_file(file, PARQUET_LIMIT, DataError) as opened:
            table = parquet.ParquetFile(opened)
            described = (table.schema_arrow.metadata or {}).get(b"huggingface")
            if described and not named:
                named += names_in(parse_json(described, f"{file}: its description", DataError))
            columns = table.schema_arrow.names
            if "objects" not in columns or "image" not in columns:
                raise DataError(f"{file} has the columns {', '.join(columns[:8])}; image and objects are needed")
            wanted = [c for c in ("image", "objects", "width", "height") if c in columns]
            index = 0
            for batch in table.iter_batches(batch_size=64, columns=wanted):
                for row in batch.to_pylist():
                    index += 1
                    yield _row(mapping(row), file, folder, index)
    except FcosError:
        raise
    except Exception as error:  # pyarrow raises its own kinds, and OSError and ValueError
        raise DataError(f"{file} is not Parquet that can be read: {first_line(error)}") from None


def _row(row: dict[str, Any], file: Path, folder: Path, index: int) -> Page:
    image = mapping(row.get("image"))
    data = image.get("bytes")
    name = word(image.get("path")).replace("\\", "/").rpartition("/")[2] or f"{file.stem}-{index:06d}"
    path = None
    if isinstance(data, bytes) and data:
        kind = "JPEG" if data[:2] == b"\xff\xd8" else "PNG" if data[1:4] == b"PNG" else data[:4].decode("latin-1")[:4]
        suffix = os.path.splitext(name)[1] or _ENDS.get(kind, ".jpg")
        path = folder / f"{file.stem}-{index:06d}{suffix}"
        if not path.is_file() or path.stat().st_size != len(data):
            write_whole(path, data)
    return Page(
        name, size(row.get("height"), row.get("width")), *objects_of(row.get("objects")), path=path, form="xywh"
    )


def _write(splits: Mapping[str, Dataset], output: Output) -> list[str]:
    need_images(splits, "Parquet")
    arrow, parquet = require("pyarrow", "parquet"), require("pyarrow.parquet", "parquet")
    boxes = arrow.list_(arrow.float64(), 4)
    kinds = {"bbox": boxes, "categories": arrow.int64(), "area": arrow.float64(), "iscrowd": arrow.int8()}
    image = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    objects = arrow.struct([(key, arrow.list_(kind)) for key, kind in kinds.items()])
    sizes = [("width", arrow.int32()), ("height", arrow.int32())]
    schema = arrow.schema([("image", image), *sizes, ("objects", objects)])
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": _features(output)}})})
    for split, dataset in splits.items():
        names = names_of(dataset)
        files = -(-len(dataset) // _ROWS)
        for number in range(files):
            name = f"data/{split}-{number:05d}-of-{files:05d}.parquet"
            output.folder("data")
            with parquet.ParquetWriter(str(output.at(name)), schema) as writer:
                last = min((number + 1) * _ROWS, len(dataset))
                for first in range(number * _ROWS, last, _GROUP):
                    rows = [_written(dataset, k, names[k]) for k in range(first, min(first + _GROUP, last))]
                    writer.write_table(arrow.Table.from_pylist(rows, schema))
    return [
        "Parquet: image ids are not kept, and images are named by their number; class ids are replaced by 0, 1, ... in "
        "the same order"
    ]


def _written(dataset: Dataset, index: int, name: str) -> dict[str, Any]:
    record = dataset.records[index]
    assert record.path is not None
    height, width = record.size
    return {
        "image": {"bytes": read_bytes(record.path, IMAGE_LIMIT, DataError), "path": name},
        "width": width,
        "height": height,
        "objects": {
            "bbox": record.exact().tolist(),
            "categories": record.labels.tolist(),
            "area": record.areas.tolist(),
            "iscrowd": record.ignore.astype(int).tolist(),
        },
    }


def _features(output: Output) -> dict[str, Any]:
    def value(dtype: str) -> dict[str, Any]:
        return {"dtype": dtype, "_type": "Value"}

    def many(feature: dict[str, Any], length: int = -1) -> dict[str, Any]:
        return {"feature": feature, "length": length, "_type": "Sequence"}

    label = {"names": list(output.classes.names), "_type": "ClassLabel"}
    objects = {"bbox": many(many(value("float64"), 4)), "categories": many(label)}
    objects |= {"area": many(value("float64")), "iscrowd": many(value("int8"))}
    return {
        "image": {"_type": "Image"},
        "width": value("int32"),
        "height": value("int32"),
        "objects": objects,
    }


FORMAT = Format("parquet", "Parquet with images", (".parquet",), _sniff, _sources, _write)
