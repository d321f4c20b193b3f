"""What the analyses share: boxes as the network sees them, classes, raw scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..config import DataConfig
from ..data.classes import match_classes
from ..data.images.reading import resized_shape
from ..data.loading.augment import clip
from ..errors import DataError
from ..points import padded
from ..types import Classes, Points

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..inference.detector import Detector


def uncalibrated(detector: Detector) -> Detector:
    """The detector with the network's own scores: what is explained are the parts that these are made of."""
    if not detector.config.decode.calibrated:
        return detector
    return detector.replace(config=detector.config.override("decode.calibrated=false"))


def label_mapping(model: Classes, data: Classes) -> Tensor:
    """For each class of the model its label in the data, -1 for none [C]; DataError where no class fits."""
    mapping = match_classes(model, data, allow_missing=True)
    if (mapping < 0).all():
        match_classes(model, data)  # raises, and names both sides
    return torch.from_numpy(mapping)


def known_labels(mapping: Tensor, data: Classes) -> np.ndarray:
    """[C] bool: which classes of the data the model knows, by `label_mapping`."""
    return np.isin(np.arange(len(data)), mapping.numpy())


def with_files(dataset: Dataset) -> Dataset:
    """The data set as it is; DataError where an image has no file."""
    absent = next((r for r in dataset.records if r.path is None), None)
    if absent is not None:
        raise DataError(f"{dataset.root}: there is no image file for {absent.file_name}")
    return dataset


class Scene(NamedTuple):
    """The boxes of one image in pixels of the network input: number of the record, boxes [G,4] xyxy,
    labels [G], ignore [G] (crowd and difficult)."""

    record: int
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray


def scenes_by_size(dataset: Dataset, data: DataConfig) -> dict[tuple[int, int], list[Scene]]:
    """Every image's boxes at the input size of `data`, by the padded (height, width) of the input."""
    groups: dict[tuple[int, int], list[Scene]] = {}
    for index, record in enumerate(dataset.records):
        height, width = resized_shape(record.size, data.size, data.max_size, data.round)
        ratio = np.array([width / record.size[1], height / record.size[0]] * 2, np.float32)
        boxes = clip(record.boxes, record.size)  # as training cuts them
        scene = Scene(index, boxes * ratio, record.labels, record.ignore)
        groups.setdefault(padded((height, width), data.divisor), []).append(scene)
    return groups


def stack(scenes: Sequence[Scene]) -> tuple[Tensor, Tensor, Tensor]:
    """(boxes [G,4], labels [G], image [G]) of several scenes, ignored boxes left out; image counts from 0."""
    boxes = [s.boxes[~s.ignore] for s in scenes]
    image = np.repeat(np.arange(len(scenes)), [len(b) for b in boxes])
    labels = np.concatenate([s.labels[~s.ignore] for s in scenes]).astype(np.int64)
    return torch.from_numpy(np.concatenate(boxes).astype(np.float32)), torch.from_numpy(labels), torch.from_numpy(image)


def on_cpu(points: Points) -> Points:
    """The same points in main memory."""
    xy, stride, lower, upper, level, grids = points
    return Points(xy.cpu(), stride.cpu(), lower.cpu(), upper.cpu(), level.cpu(), grids)
