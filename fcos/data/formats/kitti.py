"""KITTI: a text file of 15 columns for each image; DontCare marks regions to ignore.

Defined by the development kit of the object benchmark (Geiger et al., readme.txt): pixels from 0, corners as floats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ...errors import DataError
from ...system.readers import read_lines
from ...system.terminal import plural
from ..dataset import Dataset, Sources
from ..probe import Probe
from ..registry import Format, ReadOptions
from ..tree import Tree
from .common.pages import ANY, Object, Page, listed_classes
from .common.per_image import FilePerImage
from .common.values import number
from .common.writing import Output, one_a_line, stems_of


def _sniff(probe: Probe) -> bool:
    rows = [line.split() for line in probe.lines[:10]]
    return bool(rows) and all(map(_is_row, rows))


def _is_row(fields: list[str]) -> bool:
    """A word and 14 or 15 numbers, of which some may be nan. Where the word is a number too, as of digits, polygons in
    YOLO's txt look so, but for their shares of the image, and a KITTI box lies in pixels."""
    if len(fields) not in (15, 16) or any(number(v) != number(v) and v.lower() != "nan" for v in fields[1:]):
        return False
    x2, y2 = number(fields[6]), number(fields[7])
    return number(fields[0]) != number(fields[0]) or (x2 > 1 and y2 > 1 and number(fields[2]) in (-1, 0, 1, 2, 3))


def _sources(tree: Tree, files: list[Path], options: ReadOptions) -> Sources:
    files = tree.with_empty(files)
    reading = FilePerImage("kitti", tree, files, _parse, options.strict, classes=listed_classes)
    return reading.sources()


def _parse(file: Path) -> list[Page]:
    objects, problems = [], []
    for line_number, line in enumerate(read_lines(file, kind=DataError), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) < 8:
            problems.append(f"line {line_number} has {len(fields)} columns, not 15")
            continue
        x1, y1, x2, y2 = (number(v) for v in fields[4:8])
        whole = fields[0] == "DontCare"
        objects.append(Object(ANY if whole else fields[0], (x1, y1, x2, y2), whole, where=f"line {line_number}"))
    return [Page("", None, objects, problems=problems)]


def _write(splits: Mapping[str, Dataset], output: Output) -> list[str]:
    names = [re.sub(r"\s", "_", name) for name in output.classes.names]
    if len(set(names)) < len(names) or "DontCare" in names:
        raise DataError(
            "KITTI: two class names are one without spaces, or one is DontCare; rename it: fcos data convert --rename"
        )
    changed = [name for name in output.classes.names if name not in names]
    output.text("labels.txt", one_a_line(names, output.unused))
    stems, renamed = stems_of(splits)
    ignored = 0
    for split, dataset in splits.items():
        folder = {"train": "training", "test": "testing"}.get(split, split)
        for index, record in enumerate(dataset.records):
            stem, suffix = stems[split, index]
            rows: dict[str, None] = {}
            for (x1, y1, x2, y2), label, ignore in output.rows(record):
                ignored += ignore
                name, state = ("DontCare", "-1 -1") if ignore else (names[label], "0.00 0")
                corners = f"{x1:.3f} {y1:.3f} {x2:.3f} {y2:.3f}"
                # A region ignored for every class is one DontCare.
                row = f"{name} {state} -10 {corners} -1 -1 -1 -1000 -1000 -1000 -10\n"
                rows[row if ignore else f"{len(rows)} {row}"] = None
            lines = [row if row.startswith("DontCare") else row.partition(" ")[2] for row in rows]
            output.text(f"{folder}/label_2/{stem}.txt", "".join(lines))
            output.image(record, f"{folder}/image_2/{stem}{suffix}")
    lost = ["KITTI: image ids, class ids, sizes and areas are not kept; labels.txt holds the order of the classes"]
    if changed:
        lost.append(f"KITTI: spaces in class names become _, such as {changed[0]!r}")
    if renamed:
        lost.append(f"KITTI: {plural(renamed, 'image')} with a new name, as all lie in one folder")
    if ignored:
        lost.append(f"KITTI: {ignored:,} crowd or difficult boxes become DontCare, which is ignored for every class")
    return lost


FORMAT = Format("kitti", "KITTI labels", (".txt",), _sniff, _sources, _write)
