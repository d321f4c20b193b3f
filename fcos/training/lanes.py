"""The parts of a step side by side on a CPU, each in a thread of its own with its share of the cores.

All cores at one layer wait for each other after every layer, and most layers of a small detector are short. Two halves
of a batch, each on half of the cores, wait once a step: 1.3 times as many steps of fcos-lite0 on two cores
(benchmarks/lanes.py, docs/measurements/speed.md).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..config import Config, TrainConfig
from ..losses import Assignment, Normalizers
from ..network.model import FCOS
from ..types import Batch, Predictions
from .step import Part, in_layout_of, part_of

AUTO = 2  # lanes of depthwise backbones where nobody says; what more bring on more cores was not measured


def lanes_for(network: FCOS, train: TrainConfig, device: torch.device) -> int:
    """How many parts of a step to compute at once in this process; `network` as it is in training.

    One where a part would learn something else than the whole batch (BatchNorm that takes its statistics from it,
    dropout, whose numbers all threads draw from one source), or where torch's own machinery counts on one thread. Dense
    backbones, whose layers are long, gain nothing by themselves: fcos-r50 0.92 to 1.05.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads < 2 or train.compile or train.checkpointing:
        return 1
    if any(_needs_whole_batch(module) for module in network.modules()):
        return 1
    auto = AUTO if network.backbone.depthwise else 1
    return min(train.lanes or auto, threads)


def _needs_whole_batch(module: nn.Module) -> bool:
    if not module.training:
        return False
    if isinstance(module, _BatchNorm):
        return True
    chance = getattr(module, "p", 0.0) if isinstance(module, nn.modules.dropout._DropoutNd) else 0.0
    return bool(chance or getattr(module, "drop_prob", 0.0))  # timm's DropPath and DropBlock have the latter


def _take(threads: int) -> None:
    """So many of torch's threads for this one. torch sets them itself at the first question, so that comes first."""
    torch.get_num_threads()
    torch.set_num_threads(threads)


class Lanes:
    """Computes parts of a step, `count` at a time, and adds up their gradients in the order of the parts, so that
    threads which overtake each other change nothing. `close` ends the threads."""

    def __init__(self, network: nn.Module, fabric: Any, count: int) -> None:
        self.network, self.fabric, self.count = network, fabric, count
        self._learned = [p for p in network.parameters() if p.requires_grad]

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        """Its threads, from the first step on: the loader's processes are forked before that."""
        threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(self.count, "lane", initializer=partial(_take, max(1, threads // self.count)))
        all_there = threading.Barrier(self.count + 1)
        try:
            for _ in range(self.count):
                pool.submit(all_there.wait)
            all_there.wait()
        except BaseException:  # a thread that cannot be started, or Ctrl-C: the others wait no longer
            all_there.abort()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        torch.set_num_threads(threads)  # a new thread begins with the number that any thread set last
        return pool

    def split(self, batches: Sequence[Batch]) -> list[Batch]:
        """The parts of a step, each cut into one for every lane."""
        return [part for batch in batches for part in batch.split(self.count)]

    def backward(self, batches: Sequence[tuple[Batch, Assignment]], norm: Normalizers, cfg: Config) -> list[Part]:
        """As `fcos.training.step.backward_parts`."""
        tasks = [self._pool.submit(self._learn, batch, learns, norm, cfg) for batch, learns in batches]
        parts = []
        for task in tasks:
            part, gradients = task.result()
            parts.append(part)
            self._add(gradients)
        return parts

    def _learn(
        self, batch: Batch, learns: Assignment, norm: Normalizers, cfg: Config
    ) -> tuple[Part, Sequence[Tensor | None]]:
        loss, part = part_of(self._predict, batch, learns, norm, cfg)
        return part, torch.autograd.grad(loss, self._learned, allow_unused=True)

    def _predict(self, images: Tensor) -> Predictions:
        with self.fabric.autocast():
            found: Predictions = self.network(in_layout_of(self.network, images))
        return Predictions(*(x.float() for x in found))

    def _add(self, gradients: Sequence[Tensor | None]) -> None:
        old, new = [], []
        for parameter, gradient in zip(self._learned, gradients, strict=True):
            if gradient is None:
                continue
            if gradient.stride() != parameter.stride():  # as `backward` has it; fused optimizers read memory in order
                gradient = torch.empty_like(parameter).copy_(gradient)
            if parameter.grad is None:
                parameter.grad = gradient
            else:
                old.append(parameter.grad)
                new.append(gradient)
        if old:
            torch._foreach_add_(old, new)

    def close(self) -> None:
        if "_pool" in vars(self):
            self._pool.shutdown(wait=True, cancel_futures=True)
