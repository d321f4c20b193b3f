"""Detections of a whole data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..data.classes import match_classes
from ..data.images.reading import IN_A_ROW, is_there, unread
from ..detections import Detections
from ..errors import DataError, ImageError
from ..system.names import UNKNOWN
from ..system.progress import Bar
from ..system.stderr import say
from ..system.terminal import plural, some
from .stream import run

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from .composite import Composite
    from .detector import Detector


class Progress(NamedTuple):
    """What is told on the way: `report` gets lines; a bar on stderr shows rate and time left, unless `quiet`."""

    report: Callable[[str], None] = say
    quiet: bool = False


SILENT = Progress(lambda _: None, quiet=True)


def predict_dataset(
    detector: Detector | Composite,
    dataset: Dataset,
    batch: int = 8,
    *,
    allow_missing: bool = False,
    progress: Progress = Progress(),
) -> list[Detections]:
    """Run a detector over every image, decoding ahead of the network; labels become those of the data set.

    An image that cannot be read counts as one without detections; `progress.report` gets a line about it, about
    model classes that the data lacks (their detections are dropped) and about images whose size differs
    from the annotations'. Raises DataError when classes do not match (see `match_classes`), ImageError where the
    files of twenty in a row, or of all, are not there.
    """
    report, quiet = progress
    absent = [record.file_name for record in dataset.records if record.path is None]
    if absent:
        raise DataError(f"{plural(len(absent), 'image')} of {dataset.root} without a file to detect in: {some(absent)}")
    mapping = match_classes(detector.classes, dataset.classes, allow_missing=allow_missing)
    dropped = [name for name, label in zip(detector.classes.names, mapping, strict=True) if label == UNKNOWN]
    if dropped:
        names = list(dict.fromkeys(dropped))  # torchvision's outputs without a class are all called N/A
        report(f"{plural(len(dropped), 'class')} of the model left out, not in the data: {some(names)}")
    to_data = torch.from_numpy(mapping)
    results: list[Detections] = []
    resized: list[str] = []
    failed = 0  # in a row, whose files went away
    paths = [Path(record.path) for record in dataset.records if record.path is not None]
    all_of_them = torch.zeros(len(detector.classes))
    with Bar("detecting", len(paths), "images", quiet=quiet) as bar:
        for record, (_, _, seen) in zip(dataset.records, run(detector, paths, all_of_them, max(1, batch)), strict=True):
            failed = failed + 1 if isinstance(seen, ImageError) and not is_there(str(record.path)) else 0
            if isinstance(seen, ImageError):
                if failed == min(IN_A_ROW, len(paths)):
                    raise unread(failed, seen)
                report(f"counted as an image without detections: {seen}")
                seen = Detections.empty()
            if seen.size is not None and tuple(seen.size) != tuple(record.size):
                resized.append(record.file_name)
            labels = to_data.to(seen.labels.device)[seen.labels]
            kept = seen[labels != UNKNOWN].to("cpu")
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
            bar.advance()
    if resized:
        report(f"{plural(len(resized), 'image')} of another size than the annotations say: {some(resized)}")
    return results
