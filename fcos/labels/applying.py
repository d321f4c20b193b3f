"""`fcos.labels.apply`: the decisions of a review put into a corrected copy of the data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.open import open_splits
from ..data.records import Record
from ..data.tree import DataSource
from ..data.write import check_outside, convert
from ..errors import DataError
from ..overlap import iou
from ..system.door import door
from ..system.files import is_there
from ..system.readers import read_json
from ..system.remote import is_remote
from ..system.terminal import plural
from .inject import CLASS, DUPLICATE, MISSING, SHIFTED, SPURIOUS

_ACTIONS = ("fix", "accept", "reject")
_NEAR = 0.05  # pixels: the page keeps two decimals
_THERE = 0.9  # IoU from which an annotated box of the class is the one to add


@dataclass(frozen=True)
class Applied:
    """What became of the decisions: `changes` of each action that was done, images `by_hand` that hold an annotation
    accepted as wrong, which nobody has mended yet, and `lost`: what was noticed in the data (what is left out of it is
    not in the copy), and what the format cannot hold, in lines."""

    out: Path
    changes: Mapping[str, int]
    by_hand: Sequence[str]
    lost: Sequence[str]

    def text(self) -> str:
        """For a terminal."""
        done = ", ".join(f"{count:,} {what}" for what, count in self.changes.items() if count) or "nothing changed"
        lines = [*self.lost, f"{self.out}: {done}"]
        if self.by_hand:
            images = list(dict.fromkeys(self.by_hand))
            head = f"{plural(len(self.by_hand), 'annotation')} to correct by hand, left as they are: "
            lines.append(head + ", ".join(images[:10]) + (f" and {len(images) - 10} more" if len(images) > 10 else ""))
        return "\n".join(lines)


@door
def apply(
    decisions: str | Path, *, data: str | Path | DataSource | None = None, to: str | None = None, out: str | Path
) -> Applied:
    """Write a corrected copy of the data set to the new folder `out`; the original is never touched.

    Args:
        decisions: the JSON file that the page saved. "fix" does what the page proposed, "accept" leaves the annotation
            as it is and lists it, "reject" leaves it.
        data: the data set; left out: where and as it was checked.
        to: a format; left out: that of the data.
        out: the new folder.

    Raises:
        DataError: a file that holds no decisions, or a decision that fits no annotation.
    """
    rows, named = _read(Path(decisions))
    source = DataSource.of(data) if data is not None else _source(named, decisions)
    splits = open_splits(source)
    target = Path(out).resolve()
    check_outside(target, source)
    places = {(split, r.file_name): (split, k) for split, d in splits.items() for k, r in enumerate(d.records)}
    todo: dict[tuple[str, int], list[dict[str, Any]]] = {}
    by_hand: list[str] = []
    for row in rows:
        place = places.get((row["split"], row["file"]))
        if place is None:
            raise DataError(f"{decisions}: {source} has no image {row['file']!r} in the split {row['split']!r}")
        if row["action"] == "accept":
            by_hand.append(row["file"])
        elif row["action"] == "fix":
            todo.setdefault(place, []).append(row)
    changes = dict.fromkeys(("added", "renamed", "moved", "removed", "there already"), 0)
    mended = {}
    for split, dataset in splits.items():
        records = list(dataset.records)
        for (of, index), orders in todo.items():
            if of == split:
                records[index] = _mend(records[index], orders, dataset, changes)
        mended[split] = replace(dataset, records=tuple(records))
    lost = [f"{split}: {note}" for split, dataset in splits.items() for note in dataset.notes]
    lost += convert(mended, target, to or next(iter(splits.values())).format)
    return Applied(Path(out), changes, by_hand, lost)


def _source(named: Mapping[str, str | None], decisions: str | Path) -> DataSource:
    """The data set that the decisions are about; DataError where they do not say, or it would have to be fetched."""
    if named["data"] is None:
        raise DataError(f"{decisions} does not say what data it is about; give it with --data")
    far = next((place for place in named.values() if place is not None and is_remote(place)), None)
    if far is not None:  # the file may be a stranger's, and nothing goes over the network unasked
        raise DataError(f"{decisions} is about {far}; if you want that to be fetched, say --data {far}")
    if not is_there(Path(named["data"])):
        raise DataError(f"{decisions} is about {named['data']}, which is not here; give the data with --data")
    images, labels = (None if place is None else Path(place) for place in (named["images"], named["labels"]))
    return DataSource(Path(named["data"]), named["format"], images, labels)


def _read(path: Path) -> tuple[list[dict[str, Any]], dict[str, str | None]]:
    """(decisions, the data set that they are about: data, format, images, labels); DataError with what is wrong."""
    told = read_json(path, kind=DataError)
    if (
        not isinstance(told, dict)
        or told.get("fcos") != "label decisions"
        or not isinstance(told.get("decisions"), list)
    ):
        raise DataError(f"{path} holds no label decisions; save them on the page of fcos labels check --out")
    for number, row in enumerate(told["decisions"], 1):
        fault = _fault(row)
        if fault:
            raise DataError(f"{path}: decision {number}: {fault}")
    named = {key: told.get(key) for key in ("data", "format", "images", "labels")}
    if not all(value is None or isinstance(value, str) for value in named.values()):
        raise DataError(f"{path}: data, format, images and labels must be texts; give the data with --data")
    return told["decisions"], named


def _fault(row: Any) -> str | None:
    if not isinstance(row, dict):
        return "is no object"
    if row.get("action") not in _ACTIONS:
        return f"action {row.get('action')!r} is not one of {', '.join(_ACTIONS)}"
    kind = row.get("kind")
    if kind not in (MISSING, CLASS, SHIFTED, SPURIOUS, DUPLICATE):
        return f"there is no kind {kind!r}"
    if not isinstance(row.get("file"), str) or not isinstance(row.get("split"), str):
        return "it names no file and split"
    needs = [("annotated", kind != MISSING), ("proposed", kind in (MISSING, CLASS, SHIFTED))]
    for key, needed in needs:
        value = row.get(key)
        if needed and not (
            isinstance(value, dict) and isinstance(value.get("label"), str) and _is_box(value.get("box"))
        ):
            return f"{key} is no label with a box of four numbers"
    return None


def _is_box(box: Any) -> bool:
    if not isinstance(box, list) or len(box) != 4:
        return False
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e7 for v in box):
        return False
    return bool(box[2] > box[0] and box[3] > box[1])


def _mend(record: Record, orders: Sequence[dict[str, Any]], dataset: Dataset, changes: dict[str, int]) -> Record:
    """A record with its fixes done."""
    boxes, labels = record.boxes.astype(np.float64), record.labels.copy()
    exact, areas = record.exact().copy(), record.areas.copy()
    gone: set[int] = set()
    new: list[tuple[list[float], int]] = []
    for order in orders:
        kind = order["kind"]
        label = _label(order["proposed"]["label"], dataset) if kind in (MISSING, CLASS, SHIFTED) else -1
        solid = [k for k in np.flatnonzero(~record.ignore).tolist() if k not in gone]  # what a check judges
        if kind == MISSING:
            box = [float(v) for v in order["proposed"]["box"]]
            alike = boxes[[k for k in solid if labels[k] == label]]
            there = len(alike) > 0 and float(iou(np.array([box]), alike).max()) >= _THERE
            new += [] if there else [(box, label)]
            changes["there already" if there else "added"] += 1
            continue
        row = _find(boxes, labels, order["annotated"], dataset.classes.names, solid)
        if row is None:
            raise DataError(
                f"{dataset.root}: {record.file_name} has no {order['annotated']['label']} box at "
                f"{order['annotated']['box']} any more; check the data set again"
            )
        if kind == CLASS:
            labels[row] = label
            changes["renamed"] += 1
        elif kind == SHIFTED:
            boxes[row] = order["proposed"]["box"]
            exact[row], areas[row] = _corners_to_sides(boxes[row])
            changes["moved"] += 1
        else:
            gone.add(row)
            changes["removed"] += 1
    stay = np.array([k for k in range(len(boxes)) if k not in gone], int)
    added = np.array([b for b, _ in new], np.float64).reshape(-1, 4)
    sides, sizes = _corners_to_sides(added)
    return replace(
        record,
        boxes=np.concatenate([boxes[stay], added]).astype(np.float32),
        labels=np.concatenate([labels[stay], np.array([k for _, k in new], np.int64)]),
        ignore=np.concatenate([record.ignore[stay], np.zeros(len(new), bool)]),
        areas=np.concatenate([areas[stay], sizes]),
        xywh=np.concatenate([exact[stay], sides]),
    )


def _corners_to_sides(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(x, y, width, height [...,4], areas [...]) of boxes xyxy [...,4]."""
    sides = np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)
    return sides, sides[..., 2] * sides[..., 3]


def _label(name: str, dataset: Dataset) -> int:
    if name not in dataset.classes.names:
        raise DataError(f"{dataset.root} has no class {name!r}; there are: {', '.join(dataset.classes.names[:20])}")
    return dataset.classes.names.index(name)


def _find(
    boxes: np.ndarray, labels: np.ndarray, annotated: dict[str, Any], names: Sequence[str], rows: Sequence[int]
) -> int | None:
    """The row of an annotation by its label and corners, among `rows`."""
    near = np.abs(boxes - np.array(annotated["box"], float)).max(axis=1, initial=0.0) <= _NEAR
    return next((k for k in rows if near[k] and names[labels[k]] == annotated["label"]), None)
