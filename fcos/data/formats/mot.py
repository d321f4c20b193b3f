"""MOT Challenge: a folder for each sequence, with gt/gt.txt, img1/000001.jpg, ... and seqinfo.ini.

Defined in "MOT16: A Benchmark for Multi-Object Tracking", arXiv 1603.00831, section 3: frames, boxes and identities
count from 1; confidence 0 means to be ignored. Names of classes: gt/labels.txt as CVAT writes it, else MOT16's.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from ...errors import DataError
from ...system.files import plain_number
from ...system.readers import read_lines, read_text
from ...types import Classes
from ..dataset import Dataset, Sources
from ..probe import Probe
from ..registry import Format, ReadOptions
from ..tree import Tree
from .common.lists import read_names
from .common.pages import Object, Page, Reading
from .common.pairing import folder_key
from .common.values import number, size
from .common.writing import Output, need_images, one_a_line, short

# fmt: off
NAMES = (
    "pedestrian", "person on vehicle", "car", "bicycle", "motorbike", "non motorized vehicle", "static person",
    "distractor", "occluder", "occluder on the ground", "occluder full", "reflection",
)
# fmt: on


def _sniff(probe: Probe) -> bool:
    if probe.path.name.lower() != "gt.txt":
        return False
    rows = [line.split(",") for line in probe.lines[:10]]
    return not rows or all(6 <= len(r) <= 10 and all(number(v) == number(v) for v in r) for r in rows)


def _sources(tree: Tree, files: list[Path], options: ReadOptions) -> Sources:
    return Reading("mot", tree, files, partial(_parse, tree), options.strict, classes=_classes).sources()


def _classes(reading: Reading) -> Classes | None:
    listed = {}
    for file in reading.tree.annotations:
        if file.name.lower() == "labels.txt":
            listed[read_names(file)] = file
    if len(listed) > 1:
        raise DataError(f"{' and '.join(map(str, listed.values()))} name different classes; remove one of them")
    names = next(iter(listed), NAMES)
    return Classes(names, tuple(range(1, len(names) + 1)))


def _home(file: Path) -> Path:
    """The folder of the sequence that a gt.txt describes."""
    return file.parent.parent if file.parent.name.lower() == "gt" else file.parent


def _parse(tree: Tree, file: Path) -> list[Page]:
    home = _home(file)
    info = home / "seqinfo.ini"
    keys = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", read_text(info, kind=DataError), re.M)) if info.exists() else {}
    frame_size = size(keys.get("imHeight"), keys.get("imWidth"))
    images = {}
    for path in _frames(tree, file, home):
        if (frame := plain_number(path)) is not None:
            images[frame] = path
    objects: dict[int, list[Object]] = defaultdict(list)
    problems: list[str] = []
    for line_number, line in enumerate(read_lines(file, kind=DataError), 1):
        values = [number(v) for v in line.split(",")]
        if not line.strip():
            continue
        if len(values) < 6 or not 1 <= values[0] < 1e8:
            problems.append(f"line {line_number} is no frame with a box")
            continue
        left, top, width, height = values[2:6]
        label = values[7] if len(values) > 7 else 1.0
        ignore = len(values) > 6 and values[6] == 0
        box = (left - 1, top - 1, left - 1 + width, top - 1 + height)
        kind = int(label) if label > 0 and label < 1e6 else 1
        objects[int(values[0])].append(Object(kind, box, ignore, where=f"line {line_number}"))
    suffix = keys.get("imExt", ".jpg") if re.fullmatch(r"\.\w+", keys.get("imExt", "")) else ".jpg"
    frames = sorted(images) or sorted(objects)
    late = sorted(set(objects) - set(frames))
    problems += [f"frame {late[0]} and {len(late) - 1} more have boxes but no image"] if late else []
    pages = [
        Page(
            f"{home.name}/img1/{k:06d}{suffix}",
            None if k in images else frame_size,
            objects.get(k, []),
            path=images.get(k),
            form="xywh",
        )
        for k in frames
    ]
    if problems and pages:
        pages[0] = pages[0]._replace(problems=problems)
    return pages


def _frames(tree: Tree, file: Path, home: Path) -> list[Path]:
    """The images of a sequence: those below its folder; where there are none, those of a folder of the same name that
    lies in parallel, or is the only one while no other sequence is called so."""
    below = [path for path in tree.images.paths if path.is_relative_to(home)]
    if below:
        return below
    alike = [path for path in tree.images.paths if path.parent.parent.name == home.name]
    key, root = folder_key(tree.folders(file)), tree.images.root
    keys = {path.parent: folder_key(path.relative_to(root).parts[:-1]) for path in alike}
    parallel = [
        folder for folder, other in keys.items() if all(a == b for a, b in zip(key[::-1], other[::-1], strict=False))
    ]
    others = [p for p in tree.annotations if p.name.lower() == "gt.txt" and _home(p).name == home.name and p != file]
    chosen = parallel if len(parallel) == 1 else [] if others or len(keys) > 1 else [*keys]
    return [path for path in alike if path.parent in chosen]


def _write(splits: Mapping[str, Dataset], output: Output) -> list[str]:
    need_images(splits, "MOT")
    for split, dataset in splits.items():
        home = f"{split}/{split}-01"
        rows: list[str] = []
        for frame, record in enumerate(dataset.records, 1):
            assert record.path is not None
            output.image(record, f"{home}/img1/{frame:06d}{record.path.suffix.lower()}")
            for (x1, y1, x2, y2), label, ignore in output.rows(record):
                box = ",".join(str(short(v)) for v in (x1 + 1, y1 + 1, x2 - x1, y2 - y1))
                rows.append(f"{frame},{len(rows) + 1},{box},{int(not ignore)},{label + 1},1\n")
        output.text(f"{home}/gt/gt.txt", "".join(rows))
        output.text(f"{home}/gt/labels.txt", one_a_line(output.classes.names, output.unused))
        first = dataset.records[0] if dataset.records else None
        height, width = first.size if first else (0, 0)
        suffix = first.path.suffix.lower() if first and first.path else ".jpg"
        output.text(
            f"{home}/seqinfo.ini",
            f"[Sequence]\nname={split}-01\nimDir=img1\nframeRate=1\nseqLength={len(dataset)}\n"
            f"imWidth={width}\nimHeight={height}\nimExt={suffix}\n",
        )
    return [
        "MOT: images become frames 1, 2, ... of one sequence a split; names, image ids, class ids and areas are not "
        "kept, every box is a track of its own, and tools expect frames of one size"
    ]


FORMAT = Format("mot", "MOT gt.txt", (".txt",), _sniff, _sources, _write)
