"""Judge a model on a data set: the function behind `fcos eval`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias, TypedDict, Unpack

from ..data.classes import as_seen
from ..data.dataset import Dataset
from ..data.open import open_judged
from ..inference.composite import Composite
from ..inference.dataset import Progress, predict_dataset
from ..inference.detector import Detector
from ..inference.load import load
from ..types import Detections
from . import coco
from .coco import Metrics

Judged: TypeAlias = "Detector | Composite | str | Path | Sequence[Detections]"


class Options(TypedDict, total=False):
    """What `evaluate` may be told; see there."""

    split: str | None
    batch: int
    allow_missing: bool
    class_agnostic: bool
    voc_plus_one: bool


def evaluate(model: Judged, data: Dataset | str | Path, **options: Unpack[Options]) -> Metrics:
    """COCO and VOC numbers of a model on annotated images, or of detections that are there already.

    Args:
        model: a Detector, the name, run folder or file of one, or a list with the Detections of each image of `data`.
        data: a Dataset, or the path of one.
        split: of a path; left out: test, else val, else the only one.
        batch: images that go through the network together, 8.
        allow_missing: go on when the data has classes that the model does not know.
        class_agnostic: take all classes for one (proposals).
        voc_plus_one: VOC numbers by the devkit's pixels, x2 - x1 + 1 wide.

    All detections count, whatever their score; the data is taken as the model sees it (`data.classes`,
    `data.single_class`).

    Raises:
        DataError: data that cannot be used, or classes that do not fit. ModelError: no such model.

    >>> metrics = fcos.evaluate("fcos-lite0", "my_data")
    >>> metrics.images, 0 <= metrics.ap <= metrics.ap50 <= 1
    (4, True)
    """
    dataset = data if isinstance(data, Dataset) else open_judged(data, options.get("split"))
    if isinstance(model, str | Path):
        model = load(model)
    if isinstance(model, Detector | Composite):
        detections, dataset = detect(
            model, dataset, options.get("batch", 8), allow_missing=options.get("allow_missing", False)
        )
    else:
        detections = list(model)
    return coco.evaluate(
        detections,
        dataset,
        class_agnostic=options.get("class_agnostic", False),
        voc_plus_one=options.get("voc_plus_one", False),
    )


def detect(
    detector: Detector | Composite,
    dataset: Dataset,
    batch: int = 8,
    *,
    allow_missing: bool = False,
    progress: Progress = Progress(),
) -> tuple[list[Detections], Dataset]:
    """All detections of a data set, and the data set as the model sees it."""
    seen = as_seen(dataset, detector.config.data, detector.classes.names[0])
    return predict_dataset(detector, seen, batch, allow_missing=allow_missing, progress=progress), seen
