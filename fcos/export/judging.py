"""An exported file beside the detector it was made from: box by box on a few images, by AP on a data set."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.images.reading import read_image
from ..data.records import Size, evenly
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


@dataclass(frozen=True)
class Before:
    """How a model does on a data set in torch, as it is and at the fixed size of its file; judged when it is asked."""

    reference: Detector
    dataset: Dataset
    size: Size | None

    @cached_property
    def own(self) -> Metrics:
        """Of the model as it is."""
        return _judge(self.reference, self.dataset)

    @cached_property
    def ap50(self) -> tuple[float, float] | None:
        """AP50 of the model as it is and at the fixed size; None where there is no such size, or nothing to find."""
        if self.size is None or not self.own.objects:
            return None
        return self.own.ap50, _judge(self.reference.replace(size=self.size), self.dataset).ap50


def judge(
    reference: Detector, path: Path, before: Before | None, say: Callable[[str], None] = lambda line: None
) -> tuple[check.Report | None, list[str]]:
    """(report, what is wrong) of an exported file beside the detector it was made from; AP where that is known.

    (None, []) for a format that does not run here.
    """
    dataset = None if before is None else before.dataset
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
    if before is not None:
        say(f"AP on {plural(len(before.dataset.records), 'image')}, in torch and in {network.place.runtime}")
        own, after = before.own, _judge(exported, before.dataset)
        sized = None if before.ap50 is None else before.ap50[1]
        report = replace(report, ap50=(own.ap50, after.ap50), ap=(own.ap, after.ap), sized=sized)
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
