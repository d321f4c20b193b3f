"""The loss of a validation split: the training loss of pictures that were not learned from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..assign import assign_batch
from ..config import Config
from ..data.classes import UNKNOWN, match_classes
from ..data.dataset import Dataset
from ..data.loader import eval_batches
from ..losses import Normalizers, count, fcos_loss, gather_positives, normalizers
from ..network.model import FCOS
from ..points import make_points
from ..types import Classes, Losses


@torch.no_grad()
def validation_loss(
    network: FCOS,
    dataset: Dataset,
    config: Config,
    classes: Classes,
    device: torch.device,
    batch: int = 8,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Losses:
    """The three losses of a whole data set, as floats in tensors, by the functions that training uses.

    Pictures are resized as for evaluation, not augmented. The sums are divided once, by the counts of the whole
    set, so that `batch` changes nothing but speed. Boxes of classes that the network does not know are ignored.
    """
    network.eval()
    cfg = config.loss.model_copy(update={"normalizer": "positives"})
    one = torch.ones((), device=device)
    sums = torch.zeros(3, dtype=torch.float64)
    counts = torch.zeros(2, dtype=torch.float64)
    for part in eval_batches(known_to(dataset, classes), config, batch):
        part = part.to(device)
        height, width = part.images.shape[-2:]
        points = make_points((height, width), config.model, config.assign, device)
        index = assign_batch(points, part.targets, config.assign)
        positives = gather_positives(points, part.targets, index)
        with autocast():
            pred = network(part.images)
        losses = fcos_loss(pred, points, part.targets, index, cfg, config.model, Normalizers(one, one, one), positives)
        sums += torch.stack(list(losses)).double().cpu()
        counts += count(positives, cfg).double().cpu()
    norm = normalizers(counts, cfg)
    return Losses(*(sums / torch.stack(list(norm))))


def known_to(dataset: Dataset, classes: Classes) -> Dataset:
    """The data set under the labels of a network; boxes of classes that it does not know become ignored."""
    if dataset.classes.names == classes.names:
        return dataset
    theirs = match_classes(classes, dataset.classes, allow_missing=True)
    ours = np.full(len(dataset.classes), UNKNOWN, np.int64)
    ours[theirs[theirs != UNKNOWN]] = np.flatnonzero(theirs != UNKNOWN)
    records = tuple(
        replace(r, labels=np.maximum(ours[r.labels], 0), ignore=r.ignore | (ours[r.labels] == UNKNOWN))
        for r in dataset.records
    )
    return replace(dataset, records=records, classes=classes)
