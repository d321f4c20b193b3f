"""Linear probing: fresh rows of the class layer are fitted to what it sees before the first step (2202.10054).

A fresh row knows nothing of its class, and the steps in which it learns also change the features below it, by
gradients that mean little yet. A fit to features that stand still takes seconds and replaces those steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..assign import assign_batch
from ..config import Config
from ..data.dataset import Dataset
from ..data.loading.loader import eval_batches
from ..data.records import evenly
from ..losses import Positives, gather_positives
from ..network.model import FCOS
from ..points import make_points
from ..system.terminal import plural
from ..types import NEGATIVE, Batch
from .distributed import together
from .run import RunContext
from .step import in_layout_of

_POSITIVES = _NEGATIVES = 80  # locations of an image that are looked at, at most
_DECAY = 100.0  # weight of the squared weights, of features of spread 1, beside the sum of the losses
_ROUNDS = 40


class Rows(NamedTuple):
    """What the class layer sees at M locations, a column for each of its weights and one of ones [M,9C+1] float32; the
    class that each learns [M] int64, their number where it learns none; how many locations it stands for [M]."""

    inputs: Tensor
    label: Tensor
    weight: Tensor


def probe(network: FCOS, data: Dataset, config: Config, known: Sequence[str], context: RunContext) -> None:
    """`fit_classes` by the first process of a run, for all, on its device; told before, as it takes seconds. `known`:
    the classes whose rows are not new."""
    new = len(data.classes) - len(known)
    if not config.train.linear_probe or not new:
        return
    images = plural(min(config.train.linear_probe, len(data)), "image")
    context.console.note(
        f"linear probe: the layer of {plural(new, 'new class')} is fitted to {images} before the first step"
    )
    network.to(context.fabric.device)
    together(lambda: fit_classes(network, data, config, known) if context.first else 0, context.world)
    layer = network.head.class_logits
    layer.load_state_dict(context.fabric.broadcast({k: v.cpu() for k, v in layer.state_dict().items()}))


def fit_classes(network: FCOS, data: Dataset, config: Config, known: Sequence[str]) -> int:
    """Fit the rows of the class layer whose names are not in `known` to `train.linear_probe` images of `data`, evenly
    drawn, as far as these show them, and leave all else as it is. How many rows were fitted: 0 without an image, an
    object or a fresh row, or where no number comes out.
    """
    old = set(known)
    new = torch.tensor([name not in old for name in data.classes.names])
    if not new.any() or not len(data):
        return 0
    rows = seen(network, data.subset(evenly(len(data), config.train.linear_probe)), config)
    if rows is None:  # training says which image, and what to do
        return 0
    shown = torch.zeros(len(new) + 1, dtype=torch.bool).index_fill_(0, rows.label, True)[:-1]
    fresh = (new & shown).nonzero()[:, 0]  # a row without any object would learn that there is none
    if not len(fresh):
        return 0
    wanted = (rows.label[:, None] == fresh).float()
    weights, bias = fitted(rows, wanted, config)
    if not (weights.isfinite().all() and bias.isfinite().all()):
        return 0
    layer = network.head.class_logits
    with torch.no_grad():
        layer.weight[fresh] = weights.T.reshape(-1, *layer.weight.shape[1:]).to(layer.weight)
        layer.bias[fresh] = bias.to(layer.weight)  # type: ignore[index]
    return len(fresh)


def seen(network: FCOS, images: Dataset, config: Config) -> Rows | None:
    """Of every image some of the locations that learn an object and of those that learn none, drawn at random; None
    where no image can be read."""
    rng = np.random.default_rng(config.train.seed)
    config = config.override({"data": {"workers": 0}})
    found: list[Rows] = []
    training = network.training
    network.eval()
    for batch in eval_batches(images, config):
        _, objects, none = learned(batch, config)
        own = _some(torch.arange(len(objects.point)), _POSITIVES, rng)
        others = _some(none, _NEGATIVES, rng)
        around = torch.cat([F.unfold(m[None], 3, padding=1)[0].T for m in class_inputs(network, batch)])
        found.append(
            Rows(
                F.pad(around[torch.cat((objects.point[own.place], others.place))], (0, 1), value=1.0),
                torch.cat((objects.label[own.place], torch.full((len(others.place),), len(images.classes)))),
                torch.cat((own.weight, others.weight)),
            )
        )
    network.train(training)
    return Rows(*map(torch.cat, zip(*found, strict=True))) if found else None


def learned(batch: Batch, config: Config) -> tuple[Tensor, Positives, Tensor]:
    """What the one image of a batch teaches: (the object [P] of each point, as of `assign_batch`; the points that learn
    one; the numbers [B] of those that learn that nothing is there)."""
    size = (batch.images.shape[-2], batch.images.shape[-1])
    points = make_points(size, config.model, config.assign, torch.device("cpu"))
    index = assign_batch(points, batch.targets, config.assign)
    return index[0], gather_positives(points, batch.targets, index), (index[0] == NEGATIVE).nonzero()[:, 0]


class _Some(NamedTuple):
    """Places that were drawn [K], and how many each stands for [K]."""

    place: Tensor
    weight: Tensor


def _some(places: Tensor, most: int, rng: np.random.Generator) -> _Some:
    kept = places[torch.from_numpy(rng.permutation(len(places))[:most])]
    return _Some(kept, torch.full((len(kept),), len(places) / max(len(kept), 1)))


def class_inputs(network: FCOS, batch: Batch) -> list[Tensor]:
    """What the class layer sees of one image: a map [C,H,W] float32 on the CPU for each level."""
    maps: list[Tensor] = []
    hook = network.head.class_logits.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0][0]))
    images = batch.images.to(next(network.parameters()).device)
    try:
        with torch.no_grad():
            network(in_layout_of(network, images))
    finally:
        hook.remove()
    return [m.float().cpu() for m in maps]


def fitted(rows: Rows, wanted: Tensor, config: Config) -> tuple[Tensor, Tensor]:
    """Weights [9C,K] and biases [K] of least focal loss, each location as often as it stands for others; `wanted` [M,K]
    0..1. Weights cost their squares; features are brought to spread 1 for that."""
    spread = float(rows.inputs[:, :-1].std()) + 1e-6
    inputs = rows.inputs / rows.inputs.new_tensor([spread] * (rows.inputs.shape[1] - 1) + [1.0])
    layer = inputs.new_zeros(inputs.shape[1], wanted.shape[1])
    layer[-1] = -math.log((1 - config.model.prior) / config.model.prior)
    layer.requires_grad_()
    alpha = config.loss.focal_alpha * wanted + (1 - config.loss.focal_alpha) * (1 - wanted)
    alpha = alpha * rows.weight[:, None]
    solver = torch.optim.LBFGS([layer], max_iter=_ROUNDS, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        logits = inputs @ layer
        entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        missed = -torch.expm1(-entropy.clamp(min=1e-6))  # 1 - p of what is right
        loss = (alpha * missed**config.loss.focal_gamma * entropy).sum() + _DECAY / 2 * layer[:-1].square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    layer = layer.detach()
    return layer[:-1] / spread, layer[-1]
