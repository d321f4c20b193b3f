"""The loss of a validation split: the training loss of images that were not learned from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch

from ..assign import assign_batch
from ..config import Config, LossConfig
from ..data.classes import match_classes
from ..data.dataset import Dataset
from ..data.loading.loader import eval_batches
from ..evaluation.coco import Metrics
from ..losses import Assignment, Normalizers, count, fcos_loss, normalizers
from ..network.model import FCOS
from ..points import make_points
from ..system.names import UNKNOWN
from ..types import Classes, Losses

T = TypeVar("T")
_ENOUGH = 10  # objects; the best F1 of fewer is chance


class Pass(NamedTuple):
    """How a process goes over a data set: where, how many images at once, in which precision, and as which of how many
    processes."""

    device: torch.device
    batch: int = 8
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    rank: int = 0
    world: int = 1


def eval_batch(config: Config, world: int) -> int:
    """Images that one process judges at once: `train.eval_batch`, or as many as it learns from at once, fewer where
    they are larger than those of training. Judging them needs less memory than learning, so they fit."""
    if config.train.eval_batch:
        return config.train.eval_batch
    at_once = config.train.batch / (world * config.train.accumulate)
    return max(1, int(at_once * min(1.0, (config.data.largest_side() / config.data.size) ** 2)))


def threshold_of(metrics: Metrics) -> float | None:
    """The score from which a model shows what it finds, that of the best F1, rounded down to four digits; None where it
    found nothing right, or too few objects were there to tell."""
    if metrics.objects < _ENOUGH or math.isnan(metrics.threshold):
        return None
    return math.floor(metrics.threshold * 10_000) / 10_000


def share(number: int, batch: int, rank: int, world: int) -> list[int]:
    """Which of `number` images process `rank` judges: every world-th block of `batch`, so that the batches are those of
    one process."""
    return [i for i in range(number) if i // batch % world == rank]


def in_order(shares: Sequence[Sequence[T]], batch: int) -> list[T]:
    """What was found in the `share` of each process, in the order of the data set."""
    number, world = sum(len(s) for s in shares), len(shares)
    result: list[T | None] = [None] * number
    for rank, values in enumerate(shares):
        for i, value in zip(share(number, batch, rank, world), values, strict=True):
            result[i] = value
    return cast(list[T], result)


def divided(sums: torch.Tensor, config: Config) -> Losses:
    """The losses from what `loss_sums` gave, [5] float64, added up over processes."""
    norm = normalizers(sums[3:], _divided_by_positives(config))
    return Losses(*(sums[:3] / torch.stack(list(norm))))


def _divided_by_positives(config: Config) -> LossConfig:
    return config.loss.model_copy(update={"normalizer": "positives"})


@torch.no_grad()
def loss_sums(network: FCOS, dataset: Dataset, config: Config, classes: Classes, over: Pass) -> list[float]:
    """The three undivided losses and the two counts that divide them, over this process's batches of a data set, by the
    functions that training uses.

    Images are resized as for evaluation, not augmented. The sums are divided once, by the counts of the whole set, so
    that `over.batch` changes nothing but speed. Boxes of classes that the network does not know are ignored.
    """
    network.eval()
    cfg = _divided_by_positives(config)
    device = over.device
    one = torch.ones((), device=device)
    sums = torch.zeros(3, dtype=torch.float64)
    counts = torch.zeros(2, dtype=torch.float64)
    for part in eval_batches(known_to(dataset, classes), config, over.batch, rank=over.rank, world=over.world):
        part = part.to(device)
        height, width = part.images.shape[-2:]
        points = make_points((height, width), config.model, config.assign, device)
        index = assign_batch(points, part.targets, config.assign)
        assigned = Assignment.of(points, part.targets, index)
        with over.autocast():
            pred = network(part.padded_with(config.model.mean) if config.data.padding == "exact" else part.images)
        losses = fcos_loss(pred, assigned, cfg, config.model, Normalizers(one, one, one))
        sums += torch.stack(list(losses)).cpu().double()  # on the CPU, since Apple's GPUs have no float64
        counts += count(assigned.positives, cfg).cpu().double()
    return [*sums.tolist(), *counts.tolist()]


def known_to(dataset: Dataset, classes: Classes) -> Dataset:
    """The data set under the labels of a network; boxes of classes that it does not know become ignored."""
    if dataset.classes.names == classes.names:
        return dataset
    theirs = match_classes(classes, dataset.classes, allow_missing=True)
    ours = np.full(len(dataset.classes), UNKNOWN, np.int64)
    ours[theirs[theirs != UNKNOWN]] = np.flatnonzero(theirs != UNKNOWN)
    labels = ours[dataset.packed.table.labels]
    unknown = labels == UNKNOWN
    records = dataset.packed.labelled(np.maximum(labels, 0), dataset.packed.table.ignore | unknown)
    return replace(dataset, records=records, classes=classes)
