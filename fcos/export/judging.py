"""An exported file beside the detector it was made from: box by box on a few images, by AP on a data set."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.images.reading import read_image
from ..data.records import evenly
from ..errors import FcosError, ImageError, first_line
from ..system.terminal import plural
from . import check
from .open import open_runtime, own_placement
from .registry import Format, format_of

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..evaluation.coco import Metrics
    from ..inference.detector import Detector

_COMPARED = 16  # images of a data set that are compared box by box; AP takes all


def judge(
    reference: Detector, path: Path, dataset: Dataset | None, say: Callable[[str], None] = lambda line: None
) -> tuple[check.Report | None, list[str]]:
    """(report, what is wrong) of an exported file beside the detector it was made from; AP with a data set.

    (None, []) for a format that does not run here.
    """
    kind = format_of(path)
    assert kind is not None
    images = _images(dataset)
    if hasattr(kind.module, "detect"):
        return _judge_page(reference, path, kind, images)
    if not hasattr(kind.module, "runtime"):
        return None, []
    try:
        place = own_placement(path)
        network = open_runtime(path, place)
        about = network.about
        exported = reference.replace(
            network=network, config=about.config, classes=about.classes, placement=place, size=about.size
        )
        report = check.compare(reference, exported, images)
    except Exception as error:  # a runtime has errors of its own
        reason = first_line(error)
        return check.Report.nothing(), [f"it cannot be run: {reason}"]
    if dataset is not None:
        say(f"AP on {plural(len(dataset.records), 'image')}, in torch and in {network.place.runtime}")
        before, after = (_judge(d, dataset) for d in (reference, exported))
        sized = None
        if exported.size is not None and check.falls(before.ap50, after.ap50):
            sized = _judge(check.like(reference, exported), dataset).ap50
        report = replace(report, ap50=(before.ap50, after.ap50), ap=(before.ap, after.ap), sized=sized)
    return report, check.verdict(report, network.about.dtype)


def _judge_page(
    reference: Detector, path: Path, kind: Format, images: list[np.ndarray] | None
) -> tuple[check.Report | None, list[str]]:
    """`judge` for a format that prepares and decodes by itself; (None, []) where nothing here can show it."""
    images = check.bundled_images() if images is None else images
    about = kind.module.read(path)
    try:
        seen = kind.module.detect(path, images)
    except FcosError as error:
        return check.Report.nothing(), [f"it cannot be run: {error}"]
    if seen is None:
        return None, []
    expected = reference.replace(size=about.size).detect(images, [None] * len(images))
    report = check.measure(expected, seen, 0.0 if about.dtype == "fp32" else check.SURE)
    return report, check.verdict(report, about.dtype)


def _images(dataset: Dataset | None) -> list[np.ndarray] | None:
    if dataset is None:
        return None
    images = []
    for record in dataset.subset(evenly(len(dataset), _COMPARED)).records:
        if record.path is not None:
            with suppress(ImageError):
                images.append(read_image(record.path))
    return images


def _judge(detector: Detector, dataset: Dataset) -> Metrics:
    from ..evaluation.coco import evaluate
    from ..inference.dataset import predict_dataset

    return evaluate(predict_dataset(detector, dataset, 8), dataset)
