"""Which classes the detector that a run begins from knows under another name: "Auto" as car, "pedestrian" as person."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch

from ..boxes import iou
from ..config import Config
from ..data.dataset import Dataset
from ..data.images.reading import read_image
from ..data.records import evenly
from ..errors import ImageError
from ..inference.detector import Detector
from ..inference.load import load
from ..zoo.find import find_weights
from .setup import bundled, known_classes

_IMAGES, _MOST = 24, 48  # that are looked at, as many of each class; and where there are many classes
_SCORE, _IOU = 0.25, 0.5  # from which on a detection has found a box
_LEAST = 5  # boxes of a class below which nothing is concluded
_SHARE = 0.5  # of them that are found, as one and the same class


def known_by_sight(config: Config, train: Dataset, init: str | None, device: str) -> dict[str, str]:
    """Classes of `train` whose objects the detector that a run with this `init` (see `train`) begins from finds as one
    of its own classes, and that one: those that it knows by name (`known_classes`) are left out, and each of its own
    is taken once. Empty where it begins from no whole detector, or learns from tiles.

    On images of VOC's cars, cats and chairs under made-up names the package's detector had AP 0.488 once its class
    layer was fitted; 150 s of one core as for new classes left 0.194 of it, and as for known ones 0.469
    (docs/measurements/training.md).
    """
    path = _weights_of(config, init)
    if path is None or config.data.tile:
        return {}
    named = set(known_classes(config, train.classes, init))
    if len(named) == len(train.classes):
        return {}
    detector = load(path, device=device, runtime="own")
    boxes, votes = _votes(detector, train)
    taken = {name.casefold() for name in named}
    found: dict[str, str] = {}
    for (mine, theirs), count in sorted(votes.items(), key=lambda item: (-item[1], item[0])):
        mine_name, name = train.classes.names[mine], detector.classes.names[theirs]
        enough = boxes[mine] >= _LEAST and count >= _SHARE * boxes[mine]
        if enough and mine_name not in named and mine_name not in found and name.casefold() not in taken:
            found[mine_name] = name
            taken.add(name.casefold())
    return found


def drawn(dataset: Dataset, most: int) -> Dataset:
    """At most so many images, evenly, of those with objects where there are any."""
    shown = np.unique(dataset.packed.owner[~dataset.packed.table.ignore])
    shown = shown if len(shown) else np.arange(len(dataset))
    return dataset.subset(shown[evenly(len(shown), most)])


def _weights_of(config: Config, init: str | None) -> Path | None:
    """The detector that a run begins from, None where it begins from a backbone or from nothing."""
    if init in ("none", "backbone"):
        return None
    return bundled(config) if init is None else find_weights(init)


def _shown(train: Dataset) -> Dataset:
    """Images to look at: of each class a few, evenly drawn."""
    table, owner = train.packed.table, train.packed.owner
    each = max(_LEAST, _IMAGES // max(len(train.classes), 1))
    images: set[int] = set()
    for label in range(len(train.classes)):
        has = np.unique(owner[(table.labels == label) & ~table.ignore])
        images |= set(has[evenly(len(has), each)].tolist())
    return drawn(train.subset(sorted(images)), _MOST)


def _votes(detector: Detector, train: Dataset) -> tuple[Counter[int], Counter[tuple[int, int]]]:
    """How many boxes of each class of `train` some images have, and how many are found as each class of the detector:
    (label, its label) -> boxes. A box counts for the surest detection on it. Images that cannot be read are left out:
    training says which."""
    boxes: Counter[int] = Counter()
    votes: Counter[tuple[int, int]] = Counter()
    for record in _shown(train).records:
        try:
            found = detector(read_image(str(record.path)), score=_SCORE)
        except ImageError:
            continue
        labels = record.labels[~record.ignore].tolist()
        boxes.update(labels)
        for label, overlap in zip(
            labels, iou(torch.from_numpy(record.boxes[~record.ignore]), found.boxes), strict=True
        ):
            on_it = (overlap >= _IOU).nonzero()[:, 0]
            if len(on_it):
                votes[label, int(found.labels[on_it[found.scores[on_it].argmax()]])] += 1
    return boxes, votes
