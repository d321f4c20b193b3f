"""The training program: one visible loop from batch to gradient to checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import zoo
from .assign import assign_batch
from .checkpoint import check_resumable, load_checkpoint, load_optimizer, save_checkpoint
from .config import Config, from_dict
from .console import Console
from .data.dataset import Dataset
from .data.loader import Sampler, train_loader
from .detector import Detector
from .distributed import gather, require_same, synchronize_norms, together
from .errors import DataError, FcosError, OtherProcess
from .evaluate import Metrics, evaluate
from .folding import fold_frozen
from .losses import count, fcos_loss, gather_positives, moving_average, normalizers
from .model import FCOS
from .monitor import StepReport, measure
from .optimizer import Average, learning_rate, make_optimizer, set_learning_rate
from .points import make_points
from .report import RunPictures, draw_batch, save_picture
from .results import predict_dataset
from .run import RunFolder, data_hash, environment
from .start import initialise, keep_memory, make_fabric, prepare
from .stop import StopNow, Stopped, StopSignals
from .types import Batch, Classes, Points


@dataclass(frozen=True)
class Result:
    """What a run came to: the folder, the steps done, the best AP (nan without validation) and its metrics."""

    folder: Path
    steps: int
    best_ap: float
    metrics: Metrics | None


class NotFinite(FcosError):
    """A loss or gradient that is NaN or infinite."""


def train(
    config: Config,
    data: Mapping[str, Dataset],
    out: str | Path,
    *,
    init: str | None = None,
    resume: bool = False,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    quiet: bool = False,
    sources: Mapping[str, Any] | None = None,
) -> Result:
    """Train on data["train"], judging by data["val"] where there is one; everything goes to the folder `out`.

    `init` names a detector (zoo name, run folder or file) whose weights are kept where they fit, "none" for
    the body's own weights only, or None for the bundled detector of that name where there is one. `resume`
    goes on from the newest checkpoint in `out` with the data and config given. `sources` is noted in the
    folder's environment.json: where the data came from, so that a resume need not be told.
    """
    data = {k: prepare(d, config) for k, d in data.items()}
    if not len(data["train"]) or not data["train"].counts().sum():
        raise DataError(f"{data['train'].root}: no boxes to learn from in the {data['train'].split} split")
    if any(r.path is None for r in data["train"].records):
        raise DataError(f"{data['train'].root}: the annotations name pictures that are not there")
    return Trainer(config, data, Path(out), init, resume, device, devices, nodes, quiet, sources or {}).run()


class Trainer:
    """State and steps of one run; `run` is the loop."""

    def __init__(
        self,
        config: Config,
        data: Mapping[str, Dataset],
        out: Path,
        init: str | None,
        resume: bool,
        device: str,
        devices: int,
        nodes: int,
        quiet: bool,
        sources: Mapping[str, Any],
    ) -> None:
        self.config, self.data = config, data
        self.classes: Classes = data["train"].classes
        self.fabric = make_fabric(config, device, devices, nodes)
        self.fabric.launch()
        self.rank, self.world = self.fabric.global_rank, self.fabric.world_size
        self.first = self.rank == 0
        self.console = Console(quiet=quiet or not self.first)
        self.signals = StopSignals()
        self.folder = RunFolder(Path(self.fabric.broadcast(str(out))), write=self.first)
        self.pictures = RunPictures(self.folder, config, data)
        torch.manual_seed(config.train.seed)
        if self.fabric.device.type == "cpu":
            keep_memory()
        if config.train.deterministic:
            torch.use_deterministic_algorithms(True)
        stored = together(lambda: load_checkpoint(self.folder.path) if resume else None, self.world)
        self.data_hash = data_hash(data["train"])
        start_step = None if stored is None else stored["step"]
        require_same({"settings": config.dump(), "data": self.data_hash, "checkpoint": str(start_step)}, self.world)

        self.network = zoo.build(config, len(self.classes))
        if stored is None:
            for line in initialise(self.network, config, self.classes, init):
                self.console.note(line)
        self.network.backbone.train().freeze(config.train.freeze_stages)
        if config.train.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.to(self.fabric.device)
        self.average = Average(self.network, config.train.ema) if config.train.ema else None
        if config.model.backbone_norm == "frozen":
            fold_frozen(self.network.backbone.body)
        if self.world > 1:
            synchronize_norms(self.network.train())
        optimizer = make_optimizer(self.network, config.train)
        forward = torch.compile(self.network, dynamic=True) if config.train.compile else self.network
        self.model, self.optimizer = self.fabric.setup(forward, optimizer)

        self.sampler = Sampler(data["train"], config.data, config.train, self.rank, self.world)
        self.total = self.sampler.total_steps
        self.step = 0
        self.best = -math.inf
        self.stale = 0  # evaluations since the best
        self.judged_at = 0  # step of the last evaluation
        self.saved_at: tuple[int, int] | None = None  # step and last evaluation of the newest checkpoint
        self.normalizer: float | None = None  # moving average of positives, for the dialect that has one
        self.metrics: Metrics | None = None
        self._points: dict[tuple[int, int], Points] = {}
        together(lambda: self.begin(stored, sources), self.world)
        self.save()
        together(lambda: self.folder.describe(config), self.world)

    # ------------------------------------------------------------------ the loop

    def run(self) -> Result:
        """Train to the end. SIGINT or SIGTERM raise Stopped, with a checkpoint to resume from."""
        per_epoch = self.sampler.steps_per_epoch
        self.console.start(self.summary(), self.total, self.step)
        loader = iter(
            train_loader(
                self.data["train"],
                self.config,
                rank=self.rank,
                world=self.world,
                start_step=self.step,
            )
        )
        try:
            with self.signals:
                while True:
                    done = self.step  # a resumed run may find that only the evaluation of its last step is left
                    end_of_epoch = done % per_epoch == 0 or done == self.total
                    if end_of_epoch and self.due(done // per_epoch, done == self.total):
                        self.judge(done / per_epoch)
                    if end_of_epoch or done % self.config.train.save_every == 0:
                        self.save()
                    if end_of_epoch and self.first:
                        self.draw()
                    self.stop_if_asked()
                    if done >= self.total:
                        break
                    if self.config.train.patience and self.stale >= self.config.train.patience:
                        self.console.note(f"stopped early: no better AP for {self.stale} evaluations")
                        break
                    self.log(self.train_step(loader))
        finally:
            self.console.stop()
        self.finish()
        return Result(self.folder.path, self.step, self.best if self.best > -math.inf else math.nan, self.metrics)

    def log(self, report: StepReport) -> None:
        """A row of metrics.csv when it is time, and the progress bar."""
        done, every = self.step, self.config.train.log_every
        if done % every == 0 or done == self.total:
            row = report.row(done, done / self.sampler.steps_per_epoch, self.config.train.batch)
            together(lambda: self.folder.record(row), self.world)
        self.console.step(done, report, self.config.train.batch)

    def stop_if_asked(self) -> None:
        """Save and raise Stopped when a signal has asked any of the processes to stop."""
        number = max(gather(self.signals.number, self.world))
        if not number:
            return
        self.save()
        self.console.stop()
        if not self.first:
            raise OtherProcess("stopped")
        raise Stopped(
            f"stopped at step {self.step} of {self.total}; go on with: fcos train --resume --out {self.folder.path}",
            number,
        )

    def train_step(self, loader: Iterator[list[Batch]]) -> StepReport:
        """One optimiser step over the parts of a batch; the normalisers count all parts and processes first."""
        cfg = self.config
        began = time.perf_counter()
        batches = [b.to(self.fabric.device) for b in next(loader)]
        waited = time.perf_counter() - began
        # dropout and drop path: the same after a resume, different in every process
        torch.manual_seed(cfg.train.seed * 1_000_003 + self.step * self.world + self.rank)

        points = self.points(batches[0])
        index = [assign_batch(points, b.targets, cfg.assign) for b in batches]
        positives = [gather_positives(points, b.targets, i) for b, i in zip(batches, index, strict=True)]
        norm = self.normalize(torch.stack([count(p, cfg.loss) for p in positives]).sum(dim=0))

        rate = cfg.train.lr * learning_rate(self.step, self.total, cfg.train)
        set_learning_rate(self.optimizer, rate)
        self.model.train()
        parts = []
        for i, batch in enumerate(batches):
            with self.fabric.no_backward_sync(self.model, enabled=i + 1 < len(batches)):
                images = batch.images
                if cfg.train.channels_last:
                    images = images.contiguous(memory_format=torch.channels_last)
                pred = self.model(images)
                losses = fcos_loss(pred, points, batch.targets, index[i], cfg.loss, cfg.model, norm, positives[i])
                self.fabric.backward(losses.total())
                parts.append((losses, pred, positives[i]))
        if self.first and cfg.train.plots and self.step in (0, self.sampler.steps_per_epoch):
            drawn = draw_batch(batches[0], points, index[0], self.classes.names)
            save_picture(self.folder.path / f"train_batch_{self.step // self.sampler.steps_per_epoch}.jpg", drawn)
        norm_of_gradient = self.clip_gradients()
        report = measure(parts, points, cfg.loss.quality)
        if not (math.isfinite(report.loss) and math.isfinite(norm_of_gradient)):
            raise NotFinite(
                f"step {self.step}: the loss ({report.loss:.4g}) or its gradient ({norm_of_gradient:.4g}) is not a "
                "number; lower train.lr, set train.clip=10 or train.precision=fp32"
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.network, self.step)
        self.step += 1
        report.lr, report.grad_norm, report.data_wait = rate, norm_of_gradient, waited
        report.seconds = time.perf_counter() - began
        return report

    def points(self, batch: Batch) -> Points:
        key = (batch.images.shape[-2], batch.images.shape[-1])
        if key not in self._points:
            self._points[key] = make_points(key, self.config.model, self.config.assign, self.fabric.device)
        return self._points[key]

    def normalize(self, counted: Tensor) -> Any:
        """Divisors of the losses from this process's counts [2]."""
        cfg, world = self.config.loss, 1
        if cfg.normalizer_scope == "world" and self.world > 1:
            counted, world = self.fabric.all_reduce(counted, reduce_op="sum"), self.world  # type: ignore[assignment]
        if cfg.normalizer == "moving-average":
            self.normalizer = moving_average(self.normalizer, float(counted[0]), cfg)
        return normalizers(counted, cfg, world, self.normalizer)

    def clip_gradients(self) -> float:
        """Total gradient norm before clipping."""
        limit = self.config.train.clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(
            [p for p in self.network.parameters() if p.grad is not None], limit, foreach=True
        )
        return float(norm)

    # ------------------------------------------------------------------ judging, saving

    @property
    def judged(self) -> FCOS:
        """The network that is evaluated and shipped: the average where there is one."""
        return self.average.network if self.average is not None else self.network

    def due(self, epoch: int, last: bool) -> bool:
        if self.judged_at == self.step:
            return False
        every = self.config.train.eval_every
        return "val" in self.data and (last or (every > 0 and epoch % every == 0))

    def judge(self, epoch: float) -> None:
        """Evaluate on the validation split; the first process keeps the best weights. A signal cuts it short;
        the resumed run then begins with it."""
        self.network.eval()
        together(lambda: self.judge_first(epoch) if self.first else None, self.world)
        self.stale, self.judged_at = self.fabric.broadcast((self.stale, self.judged_at))

    def judge_first(self, epoch: float) -> None:
        try:
            with self.console.pause(), self.signals.interruptible():
                detector = Detector(self.judged, self.config, self.classes, self.fabric.device)
                found = predict_dataset(detector, self.data["val"], batch=self.config.train.batch, allow_missing=True)
                metrics = evaluate(found, self.data["val"])
        except StopNow:
            return
        self.folder.record(
            {"step": self.step, "epoch": epoch, "AP": metrics.ap, "AP50": metrics.ap50, "AP75": metrics.ap75}
        )
        self.metrics, self.judged_at = metrics, self.step
        self.stale += 1
        if metrics.ap > self.best:
            self.best, self.stale = metrics.ap, 0
            self.export("best")
        self.pictures.judged(found, metrics)
        self.console.judged(epoch, metrics, best=self.stale == 0)

    def export(self, name: str) -> None:
        about = {"step": self.step, "AP": None if self.metrics is None else self.metrics.ap}
        zoo.save(
            self.folder.path / f"{name}.safetensors", self.judged.state_dict(), self.config, self.classes, about=about
        )

    def save(self) -> None:
        """Everything needed to go on, unless the newest checkpoint has it; written by the first process."""
        now = self.step, self.judged_at
        if self.saved_at == now:
            return
        normalizer = gather(self.normalizer, self.world)  # of each process, where they count apart

        def write() -> None:
            state = {
                "config": self.config.model_dump(mode="json"),
                "classes": {"names": list(self.classes.names), "ids": list(self.classes.ids)},
                "model": self.network.state_dict(),
                "average": self.average.network.state_dict() if self.average else None,
                "optimizer": self.optimizer.state_dict(),
                "best": self.best,
                "stale": self.stale,
                "judged_at": self.judged_at,
                "normalizer": normalizer,
                "data": self.data_hash,
            }
            save_checkpoint(self.folder.path, self.step, state)
            self.export("last")

        together(lambda: write() if self.first else None, self.world)
        self.saved_at = now

    def begin(self, stored: Mapping[str, Any] | None, sources: Mapping[str, Any]) -> None:
        """Open the run folder, or go on from what is stored there."""
        if stored is None:
            self.folder.start(environment(self.data, classes=list(self.classes.names), sources=dict(sources)))
        else:
            self.restore(stored)
        self.pictures.begin()

    def restore(self, stored: Mapping[str, Any]) -> None:
        for line in check_resumable(stored, self.config, self.classes, self.data_hash, self.folder.path):
            self.console.note(line)
        self.network.load_state_dict(stored["model"])
        if self.average is not None:
            self.average.network.load_state_dict(stored["average"] or stored["model"])
        load_optimizer(self.optimizer, stored["optimizer"])
        self.step, self.best, self.stale = stored["step"], stored["best"], stored["stale"]
        self.judged_at = stored.get("judged_at", self.step)
        self.saved_at = self.step, self.judged_at
        if isinstance(stored["normalizer"], list):  # one for each process
            self.normalizer = stored["normalizer"][self.rank % len(stored["normalizer"])]
        self.folder.rewind(self.step)

    def finish(self) -> None:
        if self.first:
            self.export("last")
            self.draw(last=True)
            self.console.finished(self.folder.path, self.metrics, self.best)

    def draw(self, last: bool = False) -> None:
        """Renew the pictures and the page, if it is time or the end."""
        self.pictures.renew(self.summary, last)

    def summary(self) -> list[tuple[str, str]]:
        cfg = self.config
        trained = sum(p.numel() for p in self.network.parameters() if p.requires_grad)
        sizes = cfg.data.train_sizes or (cfg.data.size,)
        return [
            ("model", f"{cfg.name}, {cfg.model.backbone} body, {trained / 1e6:.1f} M trainable parameters"),
            *[(k, d.summary()) for k, d in self.data.items()],
            ("pixels", f"shorter side {min(sizes)}-{max(sizes)} in training, {cfg.data.size} after"),
            (
                "steps",
                f"{self.total} of {cfg.train.batch} pictures ({self.total / self.sampler.steps_per_epoch:.3g} epochs), "
                f"{cfg.train.optimizer} lr {cfg.train.lr:g}, on {self.fabric.device}",
            ),
            ("folder", str(self.folder.path)),
        ]


def stored_config(folder: Path) -> Config:
    """The config of the newest checkpoint of a run."""
    return from_dict(load_checkpoint(folder)["config"], str(folder))
