"""One training step, and the state that it changes."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..assign import assign_batch
from ..config import Config
from ..data.dataset import Dataset
from ..data.loading.sampler import Sampler
from ..losses import Assignment, count, moving_average, normalizers
from ..network.model import FCOS
from ..points import make_points
from ..show.judged import save_image
from ..types import Batch, Classes, Points, Target
from .lanes import Lanes
from .monitor import StepReport, add_crowded, count_crowded, measure
from .not_finite import stop
from .optimizer import Average, learning_rate, set_learning_rate
from .output.console import Console
from .output.folder import RunFolder
from .output.images import draw_batch
from .output.step_file import StepRecord
from .prefetch import Ahead
from .run import RunContext
from .step import Learned, backward_parts


class Learner:
    """A network that learns in the processes of a run, `step` of `total` done; `Trainer` sets it up. `average` is the
    network's moving average, `normalizer` that of its positives, for the dialect that has one."""

    config: Config
    data: dict[str, Dataset]
    classes: Classes
    context: RunContext
    network: FCOS
    model: Any  # the network as its processes share it
    optimizer: Any
    average: Average | None
    lanes: Lanes | None
    sampler: Sampler
    step: int
    total: int
    normalizer: float | None
    _points: dict[tuple[int, int], Points]

    @property
    def fabric(self) -> Any:
        """lightning-fabric, for what a step asks of the device and of the other processes."""
        return self.context.fabric

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.context.world

    @property
    def first(self) -> bool:
        """Whether this process counts, draws and writes."""
        return self.context.first

    @property
    def console(self) -> Console:
        """How the run speaks."""
        return self.context.console

    @property
    def folder(self) -> RunFolder:
        """Where the run is kept."""
        return self.context.folder

    def train_step(self, loader: Ahead) -> StepReport:
        """One optimiser step over the parts of a batch; the normalisers count all parts and processes first."""
        cfg = self.config
        began = time.perf_counter()
        batches = next(loader) if self.lanes is None else self.lanes.split(next(loader))
        waited = time.perf_counter() - began
        torch.manual_seed(self.seed())

        rate = cfg.train.lr * learning_rate(self.step, self.total, cfg.train)
        set_learning_rate(self.optimizer, rate)
        self.model.train()
        learned = self.learn(batches)
        length = self.clip_gradients()
        sums = self.add_up(learned.sums)
        # the one look at the device in a step: without it a weight could move by what is not finite
        *numbers, gradient = torch.cat((sums, length.to(sums).reshape(1))).tolist()
        report = StepReport.of(numbers, len(cfg.model.strides), self.world)
        if not (math.isfinite(report.loss) and math.isfinite(gradient)):
            self.not_finite(batches, learned, gradient)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.network, self.step)
        self.step += 1
        report.lr, report.grad_norm, report.data_wait = rate, gradient, waited
        report.seconds = time.perf_counter() - began
        return report

    def learn(self, batches: list[Batch]) -> Learned:
        """Assignment, forward, losses and backward of the parts of a step: its gradients lie in the network then.

        Where a trainer of another method than FCOS differs, with `build` and `not_finite` (fcos/study/rivals.py).
        """
        cfg = self.config
        points = self.points(batches[0])
        index = [self.assign(points, b.targets) for b in batches]
        assigned = [Assignment.of(points, b.targets, i) for b, i in zip(batches, index, strict=True)]
        norm = self.normalize(torch.stack([count(a.positives, cfg.loss) for a in assigned]).sum(dim=0))
        both = list(zip(batches, assigned, strict=True))
        if self.lanes is not None:
            parts = self.lanes.backward(both, norm, cfg)
        else:
            parts = backward_parts(self.fabric, self.model, both, norm, cfg)
        if self.first and cfg.train.plots and self.step in (0, self.sampler.steps_per_epoch):
            drawn = draw_batch(list(zip(batches, index, strict=True)), points, self.classes.names)
            save_image(self.folder.path / f"train_batch_{self.step // self.sampler.steps_per_epoch}.jpg", drawn)
        sums = measure(parts, points, norm, cfg.loss, len(self.classes))
        if (self.step + 1) % cfg.train.log_every == 0 or self.step + 1 == self.total:
            add_crowded(sums, count_crowded(points, [t for b in batches for t in b.targets], cfg.assign))
        return Learned(sums, [p.losses for p in parts], norm)

    def assign(self, points: Points, targets: Sequence[Target]) -> Tensor:
        """What each location learns, [N,P] int64 as `assign_batch` gives it; for another rule than the settings know
        (docs/own-loop.md)."""
        return assign_batch(points, targets, self.config.assign)

    def not_finite(self, batches: list[Batch], learned: Learned, gradient: float) -> NoReturn:
        """Keep the step whole and raise NotFinite."""
        assert learned.norm is not None
        images = self.data["train"].records
        facts = {
            "step": self.step,
            "world": self.world,
            "grad_norm": gradient,
            "config": self.config.model_dump(mode="json"),
            "classes": list(self.classes.names),
            "files": [str(images[i].path) for b in batches for i in b.ids],
        }
        stop(self.network, StepRecord(batches, learned.norm, learned.losses, self.seed()), facts, self.context)

    def points(self, batch: Batch) -> Points:
        key = (batch.images.shape[-2], batch.images.shape[-1])
        if key not in self._points:
            self._points[key] = make_points(key, self.config.model, self.config.assign, self.fabric.device)
        return self._points[key]

    def normalize(self, counts: Tensor) -> Any:
        """Divisors of the losses from this process's counts [2]."""
        cfg, world = self.config.loss, 1
        if cfg.normalizer_scope == "world" and self.world > 1:
            counts, world = self.fabric.all_reduce(counts, reduce_op="sum"), self.world
        if cfg.normalizer == "moving-average":
            self.normalizer = moving_average(self.normalizer, float(counts[0]), cfg)
        return normalizers(counts, cfg, world, self.normalizer)

    def seed(self) -> int:
        """Of dropout and drop path in this step: the same after a resume, different in every process."""
        result: int = self.config.train.seed * 1_000_003 + self.step * self.world + self.context.rank
        return result

    def add_up(self, sums: Tensor) -> Tensor:
        """`sums` of every process together."""
        return self.fabric.all_reduce(sums, reduce_op="sum") if self.world > 1 else sums

    def clip_gradients(self) -> Tensor:
        """Total gradient norm before clipping, a scalar on the device."""
        limit = self.config.train.clip or math.inf
        learned = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        return torch.nn.utils.clip_grad_norm_(learned, limit)
