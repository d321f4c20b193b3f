"""Detections of a whole data set."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..data.classes import UNKNOWN, match_classes
from ..errors import DataError, ImageError
from ..terminal import Bar, some
from ..types import Detections

if TYPE_CHECKING:
    from ..data.dataset import Dataset


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"fcos: {line}\n")


def predict_dataset(
    detector: Any,
    dataset: Dataset,
    batch: int = 8,
    *,
    allow_missing: bool = False,
    report: Callable[[str], None] = _to_stderr,
    quiet: bool = False,
) -> list[Detections]:
    """Run `detector` (fcos.detector.Detector) over every picture; labels become those of the data set.

    A picture that cannot be read counts as one without detections; `report` gets a line about it, about
    model classes that the data lacks (their detections are dropped) and about pictures whose size differs
    from the annotations'. A bar on stderr shows rate and time left, unless `quiet`. Raises DataError when
    classes do not match (see `match_classes`).
    """
    absent = [record.file_name for record in dataset.records if record.path is None]
    if absent:
        raise DataError(f"{len(absent)} pictures of {dataset.root} have no file to detect in: {some(absent)}")
    mapping = match_classes(detector.classes, dataset.classes, allow_missing=allow_missing)
    dropped = [name for name, label in zip(detector.classes.names, mapping, strict=True) if label == UNKNOWN]
    if dropped:
        names = list(dict.fromkeys(dropped))  # torchvision's outputs without a class are all called N/A
        report(f"{len(dropped)} classes of the model are not in the data and are left out: {some(names)}")
    to_data = torch.from_numpy(mapping)
    results: list[Detections] = []
    resized: list[str] = []
    with Bar("detecting", len(dataset.records), "pictures", quiet=quiet) as bar:
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
                        ids=dataset.classes.ids,
                    )
                )
            bar.advance(len(records))
    if resized:
        report(f"{len(resized)} pictures have another size than their annotations say: {some(resized)}")
    return results


def _detect(detector: Any, records: Sequence[Any], report: Callable[[str], None]) -> list[Detections]:
    """One batch; when a picture in it cannot be read, its pictures one by one."""
    try:
        result: list[Detections] = detector([record.path for record in records], score=0.0, batch=len(records))
        return result
    except ImageError as error:
        if len(records) == 1:
            report(f"counted as a picture without detections: {error}")
            return [Detections.empty()]
        return [found for record in records for found in _detect(detector, [record], report)]
