"""Detections of a whole data set: read from a results file of anyone, or made with a detector."""

from __future__ import annotations

import difflib
import gzip
import json
import re
import sys
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import DataError, ImageError
from ..types import Classes, Detections

if TYPE_CHECKING:
    from ..data.dataset import Dataset

UNKNOWN = -1  # a class of the model that the data does not have


def read_results(path: str | Path, dataset: Dataset) -> list[Detections]:
    """A COCO results file (.json or .json.gz) as one `Detections` per record of `dataset`, best first.

    The file is a list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}; ids are those
    of the data set. Boxes and scores stay float64, so that the file is judged as written; equal scores keep
    the file's order. Raises DataError: unreadable, no list, a row without a key, an id that the data set
    does not have, a number that is not finite, a negative width or height.
    """
    rows = _read_rows(path)
    image, category, boxes, scores = _columns(path, rows)
    _check_numbers(path, boxes, scores)

    records = dataset.records
    place = {record.id: i for i, record in enumerate(records)}
    label_of = {number: k for k, number in enumerate(dataset.classes.ids)}
    position = np.array([place.get(i, -1) for i in image], np.int64)
    labels = np.array([label_of.get(c, -1) for c in category], np.int64)
    _check_known(path, "image_id", image, position, f"{len(records)} pictures of the data set")
    _check_known(path, "category_id", category, labels, f"classes of the data set (ids {_some(dataset.classes.ids)})")

    boxes[:, 2:] += boxes[:, :2]
    order = np.lexsort((-scores, position))  # stable
    edges = np.searchsorted(position[order], np.arange(len(records) + 1)).tolist()
    all_boxes, all_scores = torch.from_numpy(boxes[order]), torch.from_numpy(scores[order])
    all_labels, points = torch.from_numpy(labels[order]), torch.full((len(order),), -1)
    return [
        Detections(
            all_boxes[a:b],
            all_scores[a:b],
            all_labels[a:b],
            points[a:b],
            names=dataset.classes.names,
            size=record.size,
            source=str(record.path or record.file_name),
        )
        for record, a, b in zip(records, edges[:-1], edges[1:], strict=True)
    ]


def write_results(path: str | Path, detections: Sequence[Detections], dataset: Dataset) -> None:
    """Write detections[i] of dataset.records[i] as a COCO results file with the data set's ids."""
    rows: list[dict[str, Any]] = []
    for found, record in zip(detections, dataset.records, strict=True):
        rows += found.to_coco(record.id, dataset.classes.ids)
    Path(path).write_text(json.dumps(rows))


def _read_rows(path: str | Path) -> list[dict[str, Any]]:
    try:
        raw = Path(path).read_bytes()
        rows = json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
    except OSError as error:  # gzip.BadGzipFile is one
        raise DataError(f"cannot read the detections file {path}: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} is not JSON: {str(error).splitlines()[0]}") from error
    if not isinstance(rows, list):
        hint = ""
        if isinstance(rows, dict) and "annotations" in rows:
            hint = "; this looks like a ground-truth file, which belongs to --data"
        raise DataError(f"{path} must hold a list of detections (COCO results), not a {type(rows).__name__}{hint}")
    return rows


def _columns(path: str | Path, rows: list[dict[str, Any]]) -> tuple[tuple, tuple, np.ndarray, np.ndarray]:
    if not rows:
        return (), (), np.zeros((0, 4)), np.zeros(0)
    keys = ("image_id", "category_id", "bbox", "score")
    try:
        image, category, boxes, scores = zip(*map(itemgetter(*keys), rows), strict=True)
        box_array, score_array = np.array(boxes, np.float64), np.array(scores, np.float64)
        if box_array.shape == (len(rows), 4) and score_array.shape == (len(rows),):
            hash(image), hash(category)  # an id that is a list or dict cannot be looked up
            return image, category, box_array, score_array
    except (KeyError, TypeError, ValueError):
        pass
    number, reason = next(((n, r) for n, row in enumerate(rows) if (r := _wrong(row))), (0, "cannot be read"))
    raise DataError(f"{path}: row {number} {reason}; a row is {{image_id, category_id, bbox: [x, y, w, h], score}}")


def _wrong(row: Any) -> str:
    """What is wrong with one row, or ''."""
    if not isinstance(row, dict):
        return f"is a {type(row).__name__}"
    for key in ("image_id", "category_id", "bbox", "score"):
        if key not in row:
            return f"has no {key!r}"
    box = row["bbox"]
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(v, int | float) for v in box):
        return f"has the bbox {box!r}, not four numbers"
    if not isinstance(row["score"], int | float):
        return f"has the score {row['score']!r}, not a number"
    for key in ("image_id", "category_id"):
        if isinstance(row[key], list | dict):
            return f"has the {key} {row[key]!r}"
    return ""


def _check_numbers(path: str | Path, boxes: np.ndarray, scores: np.ndarray) -> None:
    bad = ~(np.isfinite(boxes).all(axis=1) & np.isfinite(scores))
    if bad.any():
        first = int(bad.argmax())
        values = f"bbox {boxes[first].tolist()}, score {scores[first]}"
        raise DataError(f"{path}: {int(bad.sum())} rows are not finite numbers, the first is row {first}: {values}")
    bad = (boxes[:, 2:] < 0).any(axis=1)
    if bad.any():
        first = int(bad.argmax())
        raise DataError(
            f"{path}: {int(bad.sum())} rows have a negative width or height, the first is row {first}: "
            f"{boxes[first].tolist()}; bbox is [x, y, width, height]"
        )


def _check_known(path: str | Path, key: str, values: tuple, found: np.ndarray, among: str) -> None:
    bad = np.flatnonzero(found < 0)
    if len(bad):
        unknown = list(dict.fromkeys(values[i] for i in bad.tolist()))
        plural = "" if len(unknown) == 1 else "s"
        raise DataError(
            f"{path}: {len(bad)} rows have {len(unknown)} unknown {key}{plural} ({_some(unknown)}), "
            f"not among the {among}"
        )


def _some(values: Sequence[Any], limit: int = 5) -> str:
    text = ", ".join(repr(v) for v in values[:limit])
    return text + (f", ... {values[-1]!r}" if len(values) > limit else "")


def match_classes(model: Classes, data: Classes, *, allow_missing: bool = False) -> np.ndarray:
    """For each class of the model the label in the data with the same name, -1 without one: int64 [C].

    Names are the same when they differ only in case, spaces, '-' and '_', and no other name comes as near.
    Raises DataError when the data has classes that the model lacks, unless `allow_missing`.
    """
    exact = {name: k for k, name in enumerate(data.names)}
    folded: dict[str, list[int]] = {}
    for k, name in enumerate(data.names):
        folded.setdefault(_fold(name), []).append(k)
    mapping = np.full(len(model), UNKNOWN, np.int64)
    for label, name in enumerate(model.names):
        near = folded.get(_fold(name), [])
        # "Cell" must not take the place of "cell" where the model has both.
        free = len(near) == 1 and (data.names[near[0]] == name or data.names[near[0]] not in model.names)
        mapping[label] = exact.get(name, near[0] if free else UNKNOWN)
    missing = [name for k, name in enumerate(data.names) if k not in set(mapping.tolist())]
    if missing and not allow_missing:
        near_names = difflib.get_close_matches(missing[0], model.names, 1)
        hint = f"; is {missing[0]!r} the model's {near_names[0]!r}?" if near_names else ""
        if all(re.fullmatch(r"class\d+|__background__", name) for name in model.names):
            hint = "; it was converted without names: fcos convert ... --names FILE gives it one a line"
        elif len(missing) < len(data):
            hint += "; --allow-missing judges the others"
        raise DataError(
            f"the model does not know {len(missing)} of the data's {len(data)} classes: {_some(missing)} "
            f"(it knows {_some(model.names)}){hint}"
        )
    return mapping


def _fold(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"fcos: {line}\n")


def predict_dataset(
    detector: Any,
    dataset: Dataset,
    batch: int = 8,
    *,
    allow_missing: bool = False,
    report: Callable[[str], None] = _to_stderr,
) -> list[Detections]:
    """Run `detector` (fcos.detector.Detector) over every picture; labels become those of the data set.

    A picture that cannot be read counts as one without detections; `report` gets a line about it, about
    model classes that the data lacks (their detections are dropped) and about pictures whose size differs
    from the annotations'. Where stderr is a terminal a bar shows rate and time left. Raises DataError when
    classes do not match (see `match_classes`).
    """
    absent = [record.file_name for record in dataset.records if record.path is None]
    if absent:
        raise DataError(f"{len(absent)} pictures of {dataset.root} have no file to detect in: {_some(absent)}")
    mapping = match_classes(detector.classes, dataset.classes, allow_missing=allow_missing)
    dropped = [name for name, label in zip(detector.classes.names, mapping, strict=True) if label == UNKNOWN]
    if dropped:
        names = list(dict.fromkeys(dropped))  # torchvision's outputs without a class are all called N/A
        report(f"{len(dropped)} classes of the model are not in the data and are left out: {_some(names)}")
    to_data = torch.from_numpy(mapping)
    results: list[Detections] = []
    resized: list[str] = []
    with _progress(len(dataset.records)) as advance:
        for start in range(0, len(dataset.records), max(1, batch)):
            records = dataset.records[start : start + max(1, batch)]
            for record, found in zip(records, _detect(detector, records, report), strict=True):
                if found.size is not None and tuple(found.size) != tuple(record.size):
                    resized.append(record.file_name)
                labels = to_data.to(found.labels.device)[found.labels]
                kept = found[labels != UNKNOWN].to("cpu")
                results.append(
                    Detections(
                        kept.boxes,
                        kept.scores,
                        labels[labels != UNKNOWN].cpu(),
                        kept.points,
                        names=dataset.classes.names,
                        size=record.size,
                        source=str(record.path),
                    )
                )
            advance(len(records))
    if resized:
        report(f"{len(resized)} pictures have another size than their annotations say: {_some(resized)}")
    return results


def _detect(detector: Any, records: Sequence[Any], report: Callable[[str], None]) -> list[Detections]:
    """One batch; when a picture in it cannot be read, its pictures one by one."""
    try:
        return detector([record.path for record in records], batch=len(records))
    except ImageError as error:
        if len(records) == 1:
            report(f"counted as a picture without detections: {error}")
            return [Detections.empty()]
        return [found for record in records for found in _detect(detector, [record], report)]


class _progress:
    """A bar on stderr with pictures per second and time left; nothing where stderr is no terminal."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("detecting"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("detecting", total=total, rate="")

    def __enter__(self) -> Callable[[int], None]:
        self.bar.start()
        return self._advance

    def _advance(self, count: int) -> None:
        self.bar.advance(self.task, count)
        speed = self.bar.tasks[0].speed
        self.bar.update(self.task, rate=f"{speed:.1f} pictures/s" if speed else "")

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
