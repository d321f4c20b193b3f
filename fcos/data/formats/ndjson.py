"""Ultralytics NDJSON: a line for the data set, then one for each image, with boxes in shares of it.

Defined at https://docs.ultralytics.com/datasets/detect/#ultralytics-ndjson-format.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...system.readers import parse_json, read_lines
from ...types import Classes
from ..dataset import Dataset, Sources
from ..probe import Probe
from ..registry import Format, ReadOptions
from ..splits import canonical_split
from ..tree import Tree
from .common.pages import Object, Page, Reading
from .common.values import around, mapping, number, size, word
from .common.writing import Output, left_out, names_of, shares

_LIMIT = 4096 << 20


def _sniff(probe: Probe) -> bool:
    first = probe.records[0] if probe.records else {}
    return (first.get("type") == "dataset" and "class_names" in first) or (
        first.get("type") == "image" and "file" in first
    )


def _sources(tree: Tree, files: list[Path], options: ReadOptions) -> Sources:
    named: dict[int, str] = {}
    parse = partial(_parse, named)

    def classes(reading: Reading) -> Classes | None:
        seen = reading.seen
        ids = sorted(named) or range(1 + max((k for k in seen if isinstance(k, int)), default=-1))
        return Classes(tuple(named.get(k, f"class{k}") for k in ids), tuple(ids))

    return Reading("ndjson", tree, files, parse, options.strict, classes=classes, splits_inside=True).sources()


def _parse(named: dict[int, str], file: Path) -> list[Page]:
    pages = []
    for line_number, line in enumerate(read_lines(file, _LIMIT, DataError), 1):
        if not line.strip():
            continue
        row = mapping(parse_json(line, f"{file}, line {line_number},", DataError, nan=True))
        if row.get("type") == "dataset":
            names = row.get("class_names")
            pairs = dict(enumerate(names)) if isinstance(names, list) else mapping(names)
            named |= {int(k): word(v) for k, v in pairs.items() if str(k).isdecimal() and len(str(k)) < 7}
        elif word(row.get("file")):
            pages.append(_page(row))
    return pages


def _page(row: dict[str, Any]) -> Page:
    given = mapping(row.get("annotations"))
    objects, problems = [], []
    for kind in ("boxes", "segments"):
        rows = given.get(kind)
        for index, values in enumerate(rows if isinstance(rows, list) else [], 1):
            numbers = [number(v) for v in values] if isinstance(values, list) else []
            if len(numbers) < (5 if kind == "boxes" else 7) or not numbers[0].is_integer():
                problems.append(f"{kind} {index} is no class with a box")
                continue
            if kind == "boxes":
                x, y, w, h = numbers[1:5]
                box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            else:
                box = around(list(zip(numbers[1::2], numbers[2::2], strict=False)))
            objects.append(Object(int(numbers[0]), box, where=f"{kind} {index}"))
    split = canonical_split(word(row.get("split"))) if word(row.get("split")) else ""
    frame = size(row.get("height"), row.get("width"))
    return Page(word(row["file"]), frame, objects, shares=True, split=split, problems=problems, form="cxcywh")


def _write(splits: Mapping[str, Dataset], output: Output) -> list[str]:
    names = {str(k): name for k, name in enumerate(output.classes.names)}
    lines = [json.dumps({"type": "dataset", "task": "detect", "name": output.name, "class_names": names})]
    for split, dataset in splits.items():
        for record, name in zip(dataset.records, names_of(dataset), strict=True):
            boxes = []
            for box, label, _ in output.rows(record, ignored=False):
                x1, y1, x2, y2 = shares(box, record)
                boxes.append([label, *(round(v, 8) for v in ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1))])
            row = {
                "type": "image",
                "file": f"{split}/{name}",
                "width": record.size[1],
                "height": record.size[0],
                "split": split,
                "annotations": {"boxes": boxes},
            }
            lines.append(json.dumps(row))
            output.image(record, f"images/{split}/{name}")
    output.text("dataset.ndjson", "\n".join(lines) + "\n")
    lost = ["NDJSON: image ids and areas are not kept; class ids are replaced by 0, 1, ... in the same order"]
    return lost + left_out(splits, "NDJSON")


FORMAT = Format("ndjson", "Ultralytics NDJSON", (".ndjson", ".jsonl"), _sniff, _sources, _write)
