"""What to start from: all of the bundled detector, or its backbone alone."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import Config
from ..data.dataset import Dataset
from ..data.loading.loader import eval_batches
from ..data.records import evenly
from ..data.tiles import tiled
from ..errors import ImageError, one_line
from ..losses import centerness_target
from ..network import weights
from ..network.model import FCOS
from ..system.machine import pick_device
from ..types import Batch, Classes
from .class_matching import known_by_sight
from .probing import class_inputs, learned
from .setup import bundled, initialise, known_classes

BACKBONE = "backbone"
_IMAGES = 32  # that are looked at, evenly drawn
_EACH = 40  # locations of objects that are taken from an image, and as many of the background
_FOLDS = 4
_ENOUGH = 400  # of these, from which on no further image is looked at
_LEAST = 60  # locations of objects below which nothing is concluded
_SURE = 2.0  # standard errors
_DECAY = 10.0  # weight of the squared weights beside the sum of the losses


class Start(NamedTuple):
    """`init` as of `fcos.train`, and why in words ("" where nothing was asked). seen: classes of the data that the
    detector knows under other names, and those."""

    init: str | None
    reason: str
    seen: Mapping[str, str] = MappingProxyType({})

    def lines(self) -> list[str]:
        """For the log of a run, where it does not start as usual."""
        usual = self.init != BACKBONE or not self.reason
        return [*([] if usual else [f"start: {self.reason}"]), *self.sights()]

    def sights(self) -> list[str]:
        """A line that says what the detector knows under other names, if anything."""
        pairs = [f"{one_line(mine, 40)} as {theirs}" for mine, theirs in self.seen.items()]
        more = f" and {len(pairs) - 8} more" if len(pairs) > 8 else ""
        return [f"it finds classes under other names: {', '.join(pairs[:8])}{more}"] if pairs else []


def start_for(config: Config, train: Dataset, init: str | None, device: str) -> Start:
    """What to start from where `init` is left out and the package has a detector of the config's name.

    The FPN and the classification tower of a detector may have given up what tells new classes apart: AP 0.21 in place
    of 0.47 after the same steps, for images full of digits of 17 to 51 pixels, though the same detector is a good
    start for all other sets that were tried (docs/measurements/speed.md). So the question is put to the features that
    the classification layer will see, by a linear classifier of the objects' locations, with and without that FPN and
    head: if it knows the classes clearly better without, the backbone alone is kept. 3 to 6 s of
    one core for fcos-lite0. Every process of a run asks for itself: what process 0 came to is what they all get.
    """
    if not len(train):
        return Start(init, "")
    seen = known_by_sight(config, train, init, device)
    if init is not None or bundled(config) is None:
        return Start(init, "", seen)
    if seen or known_classes(config, train.classes, None):
        return Start(None, "", seen)
    images = tiled(train, config.data.tile)
    config = config.override({"data": {"workers": 0}})
    where = pick_device(device)
    networks = [network.to(where).eval() for network in _both(config, train.classes)]
    try:
        looked = _look(networks, images.subset(evenly(len(images), _IMAGES)), config)
    except ImageError:
        return Start(None, "")  # training says which image, and what to do
    if int((looked.label < len(train.classes)).sum()) < _LEAST or len(looked.image.unique()) < 2 * _FOLDS:
        return Start(None, "")
    own, fresh = (log_losses(x, looked.label, looked.image) for x in looked.features)
    return better_start(own, fresh, looked.image)


def _both(config: Config, classes: Classes) -> tuple[FCOS, FCOS]:
    """The network that begins with all of the detector, and the one that begins with its backbone alone."""
    rng = torch.random.get_rng_state()
    torch.manual_seed(config.train.seed)
    whole, alone = weights.build(config, len(classes)), weights.build(config, len(classes))
    torch.random.set_rng_state(rng)
    initialise(whole, config, classes, None)
    initialise(alone, config, classes, BACKBONE)
    return whole, alone


def better_start(whole: Tensor, alone: Tensor, image: Tensor) -> Start:
    """The start by the log losses [M] of the same locations with all of the detector and with its backbone alone. The
    standard error is that of the mean over images [M], since locations of one image are alike."""
    gain = whole - alone
    mean = gain.mean()
    sums = torch.zeros(int(image.max()) + 1, dtype=gain.dtype).index_add_(0, image, gain - mean)
    error = sums.square().sum().sqrt() / len(gain)
    told = f"(log loss {whole.mean():.2f}, fresh {alone.mean():.2f}; lower is better)"
    if mean > _SURE * error:
        return Start(BACKBONE, f"fresh FPN and head tell your classes apart better {told}")
    better = "tell your classes apart" if mean <= 0 else "are kept, fresh ones are not surely better"
    return Start(None, f"the detector's FPN and head {better} {told}")


class Seen(NamedTuple):
    """The features [M,C] of each network at M locations, their labels [M] (the number of classes for the background),
    and their images [M]."""

    features: list[Tensor]
    label: Tensor
    image: Tensor


def _look(networks: list[FCOS], images: Dataset, config: Config) -> Seen:
    """What the classification layer of each network sees at locations of objects and of the background."""
    rng = np.random.default_rng(0)
    features: list[list[Tensor]] = [[] for _ in networks]
    labels, numbers = [], []
    for number, batch in enumerate(eval_batches(images, config)):
        where, label = _drawn(batch, config, len(images.classes), rng)
        for network, kept in zip(networks, features, strict=True):
            maps = class_inputs(network, batch)
            kept.append(torch.cat([m.flatten(1).T for m in maps])[where])
        labels.append(label)
        numbers.append(torch.full((len(where),), number))
        if number >= 2 * _FOLDS - 1 and sum(map(len, labels)) >= 2 * _ENOUGH:
            break
    return Seen([torch.cat(kept) for kept in features], torch.cat(labels), torch.cat(numbers))


def _drawn(batch: Batch, config: Config, classes: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """(the point of each object of one image that is nearest to its middle, and as many that learn none; labels)."""
    index, objects, none = learned(batch, config)
    which = index[objects.point]
    best = [int(torch.where(which == i, centerness_target(objects.distances), -1.0).argmax()) for i in which.unique()]
    chosen = torch.tensor(best, dtype=torch.int64)[torch.from_numpy(rng.permutation(len(best))[:_EACH])]
    others = none[torch.from_numpy(rng.permutation(len(none))[: len(chosen)])]
    label = torch.cat((objects.label[chosen], torch.full((len(others),), classes)))
    return torch.cat((objects.point[chosen], others)), label


def log_losses(features: Tensor, label: Tensor, image: Tensor) -> Tensor:
    """The log loss [M] of each location by a linear classifier that learned from the other images: features [M,C],
    label [M] int64, image [M]."""
    losses = features.new_zeros(len(features))
    _, known = label.unique(return_inverse=True)
    for fold in range(_FOLDS):
        out = image % _FOLDS == fold
        if out.any() and not out.all():
            mean, spread = features[~out].mean(0), features[~out].std(0) + 1e-6
            scaled = F.pad((features - mean) / spread, (0, 1), value=1.0)
            layer = _classifier(scaled[~out], known[~out], int(known.max()) + 1)
            losses[out] = F.cross_entropy(scaled[out] @ layer, known[out], reduction="none")
    return losses


def _classifier(features: Tensor, label: Tensor, classes: int) -> Tensor:
    """Multinomial logistic regression: [C,K] from features [M,C], of which the last is the constant 1."""
    layer = features.new_zeros(features.shape[1], classes, requires_grad=True)
    solver = torch.optim.LBFGS([layer], max_iter=40, history_size=8, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(features @ layer, label, reduction="sum") + _DECAY / 2 * layer[:-1].square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    return layer.detach()
