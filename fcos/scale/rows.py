"""One image as one row of a table, and parts of a table as files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict, cast

from ..detections import Detections
from ..errors import DataError, FcosError, first_line, require
from ..system.files import text_name
from ..system.readers import open_file, parse_json, read_lines

Form = Literal["parquet", "jsonl"]
_LIMIT = 4096 << 20  # bytes of a part
_TOLD = 10  # errors of a part that are told by name


class Row(TypedDict):
    """What is known of one image. width and height in pixels, 0 where it could not be read; boxes [D,4] xyxy in
    pixels of the image as displayed, labels [D] in 0..C-1, names [D] of the classes, scores [D] in 0..1, best first;
    error: why the image could not be read, empty where it could; model: name and digest of its weights; version:
    of this package."""

    path: str
    width: int
    height: int
    boxes: list[list[float]]
    labels: list[int]
    names: list[str]
    scores: list[float]
    error: str
    model: str
    version: str


class Count(NamedTuple):
    """What a part holds: images, how many of them could not be read, detections, and the first errors."""

    images: int = 0
    failed: int = 0
    detections: int = 0
    errors: tuple[str, ...] = ()

    def plus(self, other: Count) -> Count:
        """The sum of two counts."""
        errors = (self.errors + other.errors)[:_TOLD]
        return Count(self.images + other.images, self.failed + other.failed, self.detections + other.detections, errors)


def to_row(path: str, detections: Detections | FcosError, model: str, version: str) -> Row:
    """The row of an image from its detections, or from why there are none."""
    row = Row(
        path=text_name(path), width=0, height=0, boxes=[], labels=[], names=[], scores=[], error="", model=model,
        version=version,
    )  # fmt: skip
    if isinstance(detections, FcosError):
        row["error"] = text_name(str(detections)) or type(detections).__name__
        return row
    row["height"], row["width"] = detections.size or (0, 0)
    boxes, scores, labels, _ = detections.numpy()
    row["boxes"], row["scores"], row["labels"] = boxes.tolist(), scores.tolist(), labels.tolist()
    row["names"] = [detections.name(k) for k in range(len(detections))]
    return row


def count(rows: Sequence[Row]) -> Count:
    """What some rows hold."""
    errors = [row["error"] for row in rows if row["error"]]
    return Count(len(rows), len(errors), sum(len(row["scores"]) for row in rows), tuple(errors[:_TOLD]))


def columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Rows as columns, all of them also where there is no row."""
    return {key: [row[key] for row in rows] for key in Row.__annotations__}  # type: ignore[literal-required]


def schema() -> Any:
    """The columns as Arrow types."""
    pa = require("pyarrow", "parquet")
    types = {
        "path": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "boxes": pa.list_(pa.list_(pa.float32())),
        "labels": pa.list_(pa.int32()),
        "names": pa.list_(pa.string()),
        "scores": pa.list_(pa.float32()),
        "error": pa.string(),
        "model": pa.string(),
        "version": pa.string(),
    }
    return pa.schema(list(types.items()))


# --------------------------------------------------------------------------- files


def write_part(rows: Sequence[Row], form: Form, path: Path) -> None:
    """Rows as one file, which the caller moves into place when it is whole."""
    if form == "jsonl":
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return
    pa, parquet = require("pyarrow", "parquet"), require("pyarrow.parquet", "parquet")
    about = {b"fcos": json.dumps(count(rows)).encode()}
    table = pa.table(columns(rows), schema=schema().with_metadata(about))
    parquet.write_table(table, path, compression="zstd")


def read_part(path: Path, form: Form) -> Iterator[Row]:
    """The rows of a part, in its order; DataError where it is no part."""
    if form == "jsonl":
        for number, line in enumerate(read_lines(path, _LIMIT, DataError), 1):
            if line.strip():
                yield _row(parse_json(line, f"{path}, line {number},", DataError), path)
        return
    parquet = require("pyarrow.parquet", "parquet")
    with open_file(path, _LIMIT, DataError) as file:
        batches = iter(_readable(path, partial(parquet.ParquetFile, file)).iter_batches(batch_size=256))
        while (batch := _readable(path, partial(next, batches, None))) is not None:
            for row in _readable(path, batch.to_pylist):
                yield _row(row, path)


def count_part(path: Path, form: Form) -> Count:
    """What a part holds; of Parquet by its footer alone."""
    if form == "jsonl":
        return count(list(read_part(path, form)))
    parquet = require("pyarrow.parquet", "parquet")
    with open_file(path, _LIMIT, DataError) as file:
        kept = _readable(path, partial(parquet.read_metadata, file)).metadata or {}
    if b"fcos" not in kept:
        return count(list(read_part(path, form)))
    told = parse_json(kept[b"fcos"], f"{path}: its count", DataError)
    try:
        images, failed, detections, errors = told
        return Count(int(images), int(failed), int(detections), tuple(map(str, errors)))
    except (TypeError, ValueError):
        raise DataError(f"{path} does not count its rows; remove it, and --resume does that part again") from None


def _readable(path: Path, read: Any) -> Any:
    try:
        return read()
    except Exception as error:  # pyarrow raises its own kinds, and OSError and ValueError
        raise DataError(f"{path} is not Parquet that can be read: {first_line(error)}") from None


def _row(value: Any, path: Path) -> Row:
    if not isinstance(value, Mapping) or not Row.__annotations__.keys() <= value.keys():
        raise DataError(f"{path} holds no rows of detections; they have {', '.join(Row.__annotations__)}")
    row = cast(Row, {key: value[key] for key in Row.__annotations__})
    texts = (row["path"], row["error"])
    lists = (row["boxes"], row["labels"], row["names"], row["scores"])
    right = all(isinstance(text, str) for text in texts) and all(isinstance(column, list) for column in lists)
    right = right and len({len(column) for column in lists}) == 1
    right = right and all(isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)) for box in row["boxes"])
    right = right and all(map(_is_number, row["scores"])) and all(type(label) is int for label in row["labels"])
    if not right or type(row["width"]) is not int or type(row["height"]) is not int:
        raise DataError(f"{path} holds a row that is damaged; remove the file, and --resume does that part again")
    return row


def _is_number(value: object) -> bool:
    return type(value) in (int, float)
