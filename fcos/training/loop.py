"""The training program: one visible loop from batch to gradient to checkpoint."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from ..assign import assign_batch
from ..config import Config
from ..data.classes import match_classes
from ..data.dataset import Dataset
from ..data.loader import train_loader
from ..data.sampler import Sampler
from ..data.tiles import empty_share, tiled
from ..environment import data_hash, environment
from ..errors import DataError, FcosError, OtherProcess
from ..evaluation.coco import Metrics, evaluate
from ..evaluation.uncertainty import Draws, Interval, intervals
from ..inference.composite import Composite, Looks, compose
from ..inference.dataset import Progress, predict_dataset
from ..inference.detector import Detector
from ..inference.load import load
from ..losses import Assignment, Normalizers, count, moving_average, normalizers
from ..machine import Placement, compiling, has_bf16
from ..network import weights
from ..network.model import FCOS
from ..points import make_points
from ..show.judged import save_image
from ..terminal import clock, plural
from ..types import Batch, Classes, Detections, Losses, Points
from .ahead import Ahead
from .alarms import Watch
from .batch_size import auto_batch
from .checkpoint import (
    StepRecord,
    check_resumable,
    fill,
    load_checkpoint,
    load_optimizer,
    remove_checkpoints,
    save_checkpoint,
    save_step,
)
from .clock import Deadline
from .console import Console
from .distributed import gather, one_line_for_lost_peers, require_same, synchronize_norms, together
from .ending import Ending, worst
from .folder import RunFolder, check_loggers
from .images import RunImages, draw_batch
from .monitor import StepReport, add_crowded, count_crowded, measure
from .optimizer import learning_rate, make_optimizer, set_learning_rate
from .setup import be_deterministic, initialise, keep_memory, make_fabric, make_ready
from .step import backward_parts
from .stop import StopNow, Stopped, StopSignals
from .validation import Pass, divided, eval_batch, in_order, loss_sums, share, threshold_of

_RESAMPLES = 200  # draws for the interval at the end: seconds, where fcos eval --ci takes more
_MOST = 10_000  # images of a validation split for which it is made; of more it is narrow and takes minutes


@dataclass(frozen=True)
class RunOptions:
    """How a run is done, beside its settings and data.

    `out` is its folder. `init` names a detector (zoo name, run folder or file) whose weights are kept where they fit,
    "none" for the backbone's own weights only, None for the bundled detector of that name where there is one. `resume`
    goes on from the newest checkpoint in `out`. `device`: auto, cpu, cuda, cuda:1, mps; `devices` processes on each of
    `nodes` machines. `sources` is noted in environment.json: where the data came from, so that a resume need not be
    told; `notes` are lines to tell first. `on_step(step, report)` is called after every optimiser step, with the steps
    done so far, and `on_epoch(epoch, metrics)` after every epoch, with those of its evaluation or None; both in the
    first process only. `deadline` ends the run in time, by fewer steps than the settings have.
    """

    out: Path
    init: str | None = None
    resume: bool = False
    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    quiet: bool = False
    sources: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    on_step: Callable[[int, StepReport], object] | None = None
    on_epoch: Callable[[float, Metrics | None], object] | None = None
    deadline: Deadline | None = None


@dataclass(frozen=True, repr=False)
class Result:
    """What a run came to: its folder, the steps done, the best AP (nan without validation), the metrics of the best
    weights with the 95 % interval of their AP (None without validation), and the seconds it took, resumes included."""

    folder: Path
    steps: int
    best_ap: float
    metrics: Metrics | None
    interval: Interval | None = None
    seconds: float = 0.0
    device: str = field(default="auto", compare=False)

    @cached_property
    def detector(self) -> Detector:
        """The trained detector with the best weights, the last ones where nothing was judged; loaded at first use."""
        return load(self.folder, device=self.device)

    def __repr__(self) -> str:
        judged = "" if self.metrics is None else f", AP {self.metrics.ap:.3f}, AP50 {self.metrics.ap50:.3f}"
        return f"Result({str(self.folder)!r}, {plural(self.steps, 'step')}{judged}, {clock(self.seconds)})"

    def __str__(self) -> str:
        """What `print` shows: the numbers and the classes too."""
        return repr(self) if self.metrics is None else f"{self!r}\n{self._judged()!r}"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from html import escape

        return f"<p>{escape(repr(self))}</p>{'' if self.metrics is None else self._judged()._repr_html_()}"

    def _judged(self) -> Metrics:
        assert self.metrics is not None
        return self.metrics if self.interval is None else replace(self.metrics, intervals={"AP": self.interval})


class NotFinite(FcosError):
    """A loss or gradient that is NaN or infinite."""


def check_data(config: Config, data: Mapping[str, Dataset]) -> None:
    """DataError where a run with `data` would end in an error after hours: no boxes, no image files, other classes."""
    train, val = data["train"], data.get("val")
    if not len(train) or not train.counts().sum():
        raise DataError(f"{train.root}: no boxes to learn from in the {train.split} split")
    for dataset in data.values():
        absent = [r.file_name for r in dataset.records if r.path is None]
        if absent:
            raise DataError(
                f"{dataset.root}: the {dataset.split} split names {plural(len(absent), 'image')} without a file, such "
                f"as {absent[0]}; put the images where the annotations say"
            )
    if val is not None:
        if not len(val):
            raise DataError(f"{val.root}: the {val.split} split has no images to judge by; give others with --val DATA")
        match_classes(train.classes, val.classes, allow_missing=True)


class Share(NamedTuple):
    """What one process found in its share of the validation split: detections, lines to tell, sums of the losses."""

    detections: list[Detections]
    lines: list[str]
    losses: list[float]


class Trainer:
    """State and steps of one run; `run` is the loop. `data` is as the settings want it (`as_seen`)."""

    def __init__(self, config: Config, data: Mapping[str, Dataset], options: RunOptions) -> None:
        check_data(config, data)
        if config.train.logger:
            check_loggers(config.train.logger)
        self.config, self.options = config, options
        self.data = {**data, "train": tiled(data["train"], config.data.tile)}
        self.classes: Classes = data["train"].classes
        self.fabric = make_fabric(config, options.device, options.devices, options.nodes)
        self.fabric.launch()
        self.rank, self.world = self.fabric.global_rank, self.fabric.world_size
        self.first = self.rank == 0
        self.console = Console(quiet=options.quiet or not self.first)
        self.signals = StopSignals()
        self.folder = RunFolder(Path(self.fabric.broadcast(str(options.out))), write=self.first)
        self.images = RunImages(self.folder, config, self.data)
        self.began = time.perf_counter()
        try:
            with one_line_for_lost_peers(self.world, self.rank, self.folder.path):
                together(self.folder.hold, self.world)
                self.set_up()
        except BaseException:
            self.folder.release()
            raise

    def set_up(self) -> None:
        """The network, the optimiser and the order of images, fresh or as a checkpoint has them."""
        config, options = self.config, self.options
        torch.manual_seed(config.train.seed)
        if self.fabric.device.type == "cpu":
            keep_memory()
        if config.train.deterministic:
            be_deterministic()
        stored = together(lambda: load_checkpoint(self.folder.path) if options.resume else None, self.world)
        self.data_hash = data_hash(self.data["train"])
        start_step = None if stored is None else stored["step"]
        require_same({"settings": config.dump(), "data": self.data_hash, "checkpoint": str(start_step)}, self.world)

        self.network = weights.build(config, len(self.classes))
        if stored is None:
            for line in initialise(self.network, config, self.classes, options.init):
                self.console.note(line)
        self.average = make_ready(self.network, config, self.fabric.device)
        if self.world > 1:
            synchronize_norms(self.network.train())
        optimizer = make_optimizer(self.network, config.train)
        forward = torch.compile(self.network, dynamic=True) if config.train.compile else self.network
        self.model, self.optimizer = self.fabric.setup(forward, optimizer)

        if not config.train.batch:
            config = self.config = self.with_batch(config)
        self.sampler = Sampler(self.data["train"], config.data, config.train, self.rank, self.world)
        self.total = self.sampler.total_steps  # fewer where the time is short; the sampler's plan stays
        self.deadline = options.deadline
        self.step = 0
        self.best = -math.inf
        self.stale = 0  # evaluations since the best
        self.judged_at = 0  # step of the last evaluation
        self.ap: float | None = None  # that it found
        self.shown: float | None = None  # score of the best F1 there, the lowest that its weights show
        self.saved_at: tuple[int, int] | None = None  # step and last evaluation of the newest checkpoint
        self.normalizer: float | None = None  # moving average of positives, for the dialect that has one
        self.metrics: Metrics | None = None  # of the last evaluation
        self.seen_best: tuple[list[Detections], Metrics] | None = None  # the best evaluation, in the first process
        self.seconds = 0.0  # of this run before this process
        self._points: dict[tuple[int, int], Points] = {}
        together(lambda: self.begin(stored), self.world)
        whole_epoch = self.sampler.steps_per_epoch + -self.step % self.sampler.steps_per_epoch
        self.watch = Watch(self.classes.names, self.data["train"].counts().tolist(), whole_epoch)
        self.save()
        together(lambda: self.folder.describe(config), self.world)

    # ------------------------------------------------------------------ the loop

    def run(self) -> Result:
        """Train to the end. SIGINT or SIGTERM raise Stopped, with a checkpoint to resume from."""
        per_epoch, start = self.sampler.steps_per_epoch, self.step
        for line in self.options.notes:
            self.console.note(line)
        self.console.start(self.summary(), self.total, self.step)
        if self.config.train.compile:
            self.console.note("compile   the first step waits for torch.compile, minutes on a CPU")
        batches = train_loader(self.data["train"], self.config, rank=self.rank, world=self.world, start_step=self.step)
        loader = Ahead(iter(batches), self.fabric.device)
        try:
            with self.signals, one_line_for_lost_peers(self.world, self.rank, self.folder.path):
                while True:
                    done = self.step  # a resumed run may find that only the evaluation of its last step is left
                    end_of_epoch = done % per_epoch == 0 or done == self.total
                    if end_of_epoch and self.due(done // per_epoch, done == self.total):
                        self.judge(done / per_epoch)
                    if end_of_epoch and done > start and self.first and self.options.on_epoch is not None:
                        self.options.on_epoch(done / per_epoch, self.metrics if self.judged_at == done else None)
                    if end_of_epoch or done % self.config.train.save_every == 0:
                        self.save()
                    if end_of_epoch and self.first:
                        self.draw()
                    self.stop_if_asked()
                    if done >= self.total:
                        break
                    if self.config.train.patience and self.stale >= self.config.train.patience:
                        self.console.note(f"stopped early: no better AP for {plural(self.stale, 'evaluation')}")
                        break
                    with compiling():
                        report = self.train_step(loader)
                    if self.config.train.compile and done == start:
                        self.console.note(f"compile   done; the first step took {clock(report.seconds)}")
                    self.log(report)
                    self.keep_time()
                    if self.first and self.options.on_step is not None:
                        self.options.on_step(self.step, report)
                self.console.stop()
                return self.finish()
        finally:
            self.console.stop()
            self.folder.close()
            loader.close()
            self.folder.release()

    def log(self, report: StepReport) -> None:
        """A row of metrics.csv and a look for alarms when it is time, and the progress bar."""
        done, cfg = self.step, self.config.train
        self.watch.add(report)
        if done % cfg.log_every == 0 or done == self.total:
            seconds, waited = self.watch.pace(cfg.log_every)
            row = report.row(done, done / self.sampler.steps_per_epoch)
            row |= {"images_per_second": cfg.batch / max(seconds, 1e-9), "data_wait": waited}
            alarms = self.watch.look()
            for alarm in alarms:
                self.console.note(f"alarm     {alarm}")
            together(lambda: self.folder.record(row, [str(alarm) for alarm in alarms]), self.world)
        self.console.step(done, report, cfg.batch)

    def keep_time(self) -> None:
        """Fewer steps where a deadline asks for it, which a checkpoint keeps: a resume sees the same run."""
        if self.deadline is None:
            return
        total = self.deadline.look(self.step, self.total)
        if total < self.total:
            fewer = f"{total} in place of {self.total}" if total > self.step else f"{total}, the time is up"
            self.console.note(f"    time  steps: {fewer}")
            self.total = total
            self.console.shorten(total)
            self.save()

    def stop_if_asked(self) -> None:
        """Save and raise Stopped when a signal has asked any of the processes to stop."""
        number = self.signals.number
        if self.world > 1:
            number = int(self.fabric.all_reduce(float(number), reduce_op="max"))
        if not number:
            return
        self.save()
        self.console.stop()
        if not self.first:
            raise OtherProcess("stopped", 128 + number)
        raise Stopped(
            f"stopped at step {self.step} of {self.total}; go on with: fcos train --resume --out {self.folder.path}",
            number,
        )

    def train_step(self, loader: Ahead) -> StepReport:
        """One optimiser step over the parts of a batch; the normalisers count all parts and processes first."""
        cfg = self.config
        began = time.perf_counter()
        batches = next(loader)
        waited = time.perf_counter() - began
        torch.manual_seed(self.seed())

        points = self.points(batches[0])
        index = [assign_batch(points, b.targets, cfg.assign) for b in batches]
        assigned = [Assignment.of(points, b.targets, i) for b, i in zip(batches, index, strict=True)]
        norm = self.normalize(torch.stack([count(a.positives, cfg.loss) for a in assigned]).sum(dim=0))

        rate = cfg.train.lr * learning_rate(self.step, self.total, cfg.train)
        set_learning_rate(self.optimizer, rate)
        self.model.train()
        parts = backward_parts(self.fabric, self.model, list(zip(batches, assigned, strict=True)), norm, cfg)
        if self.first and cfg.train.plots and self.step in (0, self.sampler.steps_per_epoch):
            drawn = draw_batch(batches[0], points, index[0], self.classes.names)
            save_image(self.folder.path / f"train_batch_{self.step // self.sampler.steps_per_epoch}.jpg", drawn)
        length = self.clip_gradients()
        logged = (self.step + 1) % cfg.train.log_every == 0 or self.step + 1 == self.total
        sums = measure(parts, points, norm, cfg.loss, len(self.classes))
        if logged:
            add_crowded(sums, count_crowded(points, [t for b in batches for t in b.targets], cfg.assign))
        sums = self.add_up(sums)
        # the one look at the device in a step: without it a weight could move by what is not finite
        *numbers, gradient = torch.cat((sums, length.to(sums).reshape(1))).tolist()
        report = StepReport.of(numbers, len(points.grids), self.world)
        if not (math.isfinite(report.loss) and math.isfinite(gradient)):
            self.not_finite(batches, norm, [part.losses for part in parts], gradient)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.network, self.step)
        self.step += 1
        report.lr, report.grad_norm, report.data_wait = rate, gradient, waited
        report.seconds = time.perf_counter() - began
        return report

    def with_batch(self, config: Config) -> Config:
        """`config` with the batch that fits on every process."""
        batch, line = auto_batch(self.network, config, len(self.classes), self.fabric, len(self.data["train"]))
        self.console.note(line)
        return config.override({"train": {"batch": min(gather(batch, self.world))}})

    def points(self, batch: Batch) -> Points:
        key = (batch.images.shape[-2], batch.images.shape[-1])
        if key not in self._points:
            self._points[key] = make_points(key, self.config.model, self.config.assign, self.fabric.device)
        return self._points[key]

    def normalize(self, plural: Tensor) -> Any:
        """Divisors of the losses from this process's counts [2]."""
        cfg, world = self.config.loss, 1
        if cfg.normalizer_scope == "world" and self.world > 1:
            plural, world = self.fabric.all_reduce(plural, reduce_op="sum"), self.world
        if cfg.normalizer == "moving-average":
            self.normalizer = moving_average(self.normalizer, float(plural[0]), cfg)
        return normalizers(plural, cfg, world, self.normalizer)

    def seed(self) -> int:
        """Of dropout and drop path in this step: the same after a resume, different in every process."""
        result: int = self.config.train.seed * 1_000_003 + self.step * self.world + self.rank
        return result

    def add_up(self, sums: Tensor) -> Tensor:
        """`sums` of every process together."""
        return self.fabric.all_reduce(sums, reduce_op="sum") if self.world > 1 else sums

    def not_finite(
        self, batches: Sequence[Batch], norm: Normalizers, losses: Sequence[Losses], gradient: float
    ) -> NoReturn:
        """Keep the step whole on the processes whose losses are not finite, or on the first, and stop."""
        terms = [t for t in Losses._fields if not all(math.isfinite(float(getattr(part, t))) for part in losses)]
        of_each = gather(terms, self.world)
        rank = next((r for r, terms in enumerate(of_each) if terms), 0)
        files = [self.folder.path / f"nan-{self.step:08d}{f'-process{r}' if r else ''}.pt" for r in range(self.world)]
        images = self.data["train"].records

        def keep() -> None:
            facts = {
                "step": self.step,
                "world": self.world,
                "grad_norm": gradient,
                "config": self.config.model_dump(mode="json"),
                "classes": list(self.classes.names),
                "files": [str(images[i].path) for b in batches for i in b.ids],
            }
            save_step(files[self.rank], self.network, StepRecord(batches, norm, losses, self.seed()), facts)

        together(lambda: keep() if terms or self.rank == rank else None, self.world)
        what = f"the {' and '.join(of_each[rank])} loss" if of_each[rank] else f"the gradient (norm {gradient:.4g})"
        raise (NotFinite if self.first else OtherProcess)(
            f"step {self.step}: {what} is not finite, and the weights are as they were before; "
            f"fcos train --replay {files[rank]} shows where it begins. Lower train.lr, or set train.clip=10 or "
            "train.precision=fp32"
        )

    def clip_gradients(self) -> Tensor:
        """Total gradient norm before clipping, a scalar on the device."""
        limit = self.config.train.clip or math.inf
        return torch.nn.utils.clip_grad_norm_(
            [p for p in self.network.parameters() if p.grad is not None], limit, foreach=True
        )

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
        """Evaluate on the validation split, each process its share; the first counts, and keeps the best weights.

        A signal cuts it short; the resumed run then begins with it.
        """
        self.network.eval()
        with self.console.pause():
            shares = gather(together(self.look, self.world), self.world)
            seen = [s for s in shares if s is not None]
            if len(seen) == self.world:
                together(lambda: self.count(seen, epoch) if self.first else None, self.world)
        self.stale, self.judged_at = self.fabric.broadcast((self.stale, self.judged_at))

    def look(self) -> Share | None:
        """This process's share of the validation split; None when a signal cut it short."""
        data, batch = self.data["val"], eval_batch(self.config, self.world)
        lines: list[str] = []
        try:
            with self.signals.interruptible():
                detector = Detector(self.judged, self.config, self.classes, Placement(self.fabric.device))
                part = data.subset(share(len(data), batch, self.rank, self.world))
                progress = Progress(lines.append, self.console.quiet)
                detections = predict_dataset(self.looking(detector), part, batch, allow_missing=True, progress=progress)
                losses = self.validation_sums(batch) if self.config.train.val_loss else []
        except StopNow:
            return None
        return Share(detections, lines, losses)

    def validation_sums(self, batch: int) -> list[float]:
        over = Pass(self.fabric.device, batch, self.fabric.autocast, self.rank, self.world)
        val = tiled(self.data["val"], self.config.data.tile)
        return loss_sums(self.judged, val, self.config, self.classes, over)

    def looking(self, detector: Detector) -> Detector | Composite:
        """The detector as the run judges it: through tiles where it learns from tiles."""
        return compose([detector], Looks(self.config.data.tile or None))

    def count(self, shares: Sequence[Share], epoch: float) -> None:
        """The numbers of an evaluation from what all processes found."""
        for line in dict.fromkeys(line for s in shares for line in s.lines):
            sys.stderr.write(f"fcos: {line}\n")
        detections = in_order([s.detections for s in shares], eval_batch(self.config, self.world))
        try:
            with self.signals.interruptible():
                metrics = evaluate(detections, self.data["val"])
        except StopNow:
            return
        loss = None
        if self.config.train.val_loss:
            sums = torch.tensor([s.losses for s in shares], dtype=torch.float64).sum(dim=0)
            loss = float(divided(sums, self.config).total())
        self.folder.record(
            {"step": self.step, "epoch": epoch, "val_loss": loss, "AP": metrics.ap, "AP50": metrics.ap50,
             "AP75": metrics.ap75}
        )  # fmt: skip
        self.metrics, self.judged_at, self.ap = metrics, self.step, metrics.ap
        self.shown = threshold_of(metrics)
        self.stale += 1
        if metrics.ap > self.best:
            self.best, self.stale, self.seen_best = metrics.ap, 0, (detections, metrics)
            self.export("best")
        self.images.judged(detections, metrics)
        self.console.judged(epoch, metrics, best=self.stale == 0)

    def export(self, name: str) -> None:
        about = {"step": self.step, "AP": self.ap}
        config = self.config
        if config.decode.shown is None and self.shown is not None:
            config = config.override({"decode": {"shown": self.shown}})
        weights.save(
            self.folder.path / f"{name}.safetensors", self.judged.state_dict(), config, self.classes, about=about
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
                "AP": self.ap,
                "shown": self.shown,
                "normalizer": normalizer,
                "data": self.data_hash,
                "seconds": self.elapsed(),
                "total": self.total,
                "deadline": None if self.deadline is None else self.deadline.stored(),
            }
            save_checkpoint(self.folder.path, self.step, state)
            self.export("last")

        together(lambda: write() if self.first else None, self.world)
        self.saved_at = now

    def elapsed(self) -> float:
        """Seconds of the run, those before a resume included."""
        return self.seconds + time.perf_counter() - self.began

    def begin(self, stored: Mapping[str, Any] | None) -> None:
        """Open the run folder, or go on from what is stored there."""
        if stored is None:
            sources = dict(self.options.sources)
            self.folder.start(environment(self.data, classes=list(self.classes.names), sources=sources))
        else:
            self.restore(stored)
        self.images.begin()

    def restore(self, stored: Mapping[str, Any]) -> None:
        for line in check_resumable(stored, self.config, self.classes, self.data_hash, self.folder.path):
            self.console.note(line)
        fill(self.network, stored["model"], stored["file"])
        if self.average is not None:
            fill(self.average.network, stored["average"] or stored["model"], stored["file"])
        load_optimizer(self.optimizer, stored["optimizer"])
        self.seconds = float(stored.get("seconds", 0.0))
        before, now = stored["config"]["train"], self.config.train
        if (before["iterations"], before["epochs"]) == (
            now.iterations,
            now.epochs,
        ):  # else it was made longer or shorter
            self.total = stored.get("total", self.total)
            self.deadline = Deadline.again(stored["deadline"]) if stored.get("deadline") else None
        self.step, self.best, self.stale = stored["step"], stored["best"], stored["stale"]
        self.judged_at, self.ap = stored.get("judged_at", self.step), stored.get("AP")
        self.shown = stored.get("shown")
        self.saved_at = self.step, self.judged_at
        if isinstance(stored["normalizer"], list):  # one for each process
            self.normalizer = stored["normalizer"][self.rank % len(stored["normalizer"])]
        self.folder.rewind(self.step)

    def finish(self) -> Result:
        """The last files and words of a run; the first process writes them."""
        best = self.best if self.best > -math.inf else math.nan
        if not self.first:
            return Result(self.folder.path, self.step, best, None, None, self.elapsed(), self.options.device)
        self.export("last")
        detections, metrics = self.best_again() if self.seen_best is None else self.seen_best
        interval = None
        if metrics is not None and len(detections) <= _MOST:
            interval = intervals(detections, self.data["val"], Draws(_RESAMPLES))["AP"]
        if metrics is not None:
            self.images.judged(detections, metrics)
        ending = Ending(
            self.folder.path, self.step, self.elapsed(), metrics, interval,
            worst(detections, self.data["val"], metrics) if metrics is not None else (), self.options.sources,
        )  # fmt: skip
        self.images.ending = ending
        self.draw(last=True)
        remove_checkpoints(self.folder.path, but=1 if self.config.train.keep == "resume" else 0)
        self.folder.finish(ending.to_dict())
        for line in ending.lines():
            self.console.note(line)
        return Result(self.folder.path, self.step, best, metrics, interval, self.elapsed(), self.options.device)

    def best_again(self) -> tuple[list[Detections], Metrics | None]:
        """What the best weights find, where this process has not seen it: they are of before a resume."""
        if "val" not in self.data or not (self.folder.path / "best.safetensors").is_file():
            return [], None
        batch = eval_batch(self.config, self.world)
        try:
            detector = load(self.folder.path / "best.safetensors", device=str(self.fabric.device))
            progress = Progress(quiet=self.console.quiet)
            detections = predict_dataset(
                self.looking(detector), self.data["val"], batch, allow_missing=True, progress=progress
            )
        except FcosError as error:
            self.console.note(f"the best weights cannot be judged again: {error}")
            return [], None
        return detections, evaluate(detections, self.data["val"])

    def draw(self, last: bool = False) -> None:
        """Renew the pictures and the page, if it is time or the end."""
        self.images.renew(lambda: [*self.summary(), ("alarms", "\n".join(self.folder.alarms()) or "none")], last)

    def tiles(self) -> list[tuple[str, str]]:
        """A row about the tiles that are learned from, if so."""
        train = self.data["train"]
        tile = np.array([r.window is not None for r in train.records])
        bare = tile & np.array([bool(r.ignore.all()) for r in train.records])
        if not tile.any():
            return []
        row = f"{plural(int(tile.sum()), 'tile')} of {self.config.data.tile} pixels, {bare.sum():,} without objects"
        drawn = round(float(empty_share(train)[bare].sum()))
        return [("tiles", row + (f", {drawn:,} of which an epoch shows" if drawn < bare.sum() else ""))]

    def summary(self) -> list[tuple[str, str]]:
        cfg = self.config
        trained = sum(p.numel() for p in self.network.parameters() if p.requires_grad)
        first, sizes = cfg.data.sides(0.0), cfg.data.sides()
        early = f" ({_range(first)} in the first {cfg.data.first_share:.0%})" if first != sizes else ""
        emulated = cfg.train.precision == "bf16" and not has_bf16(self.fabric.device)
        slow = [("slow", "train.precision=bf16 is emulated on this CPU: fp32 is far faster")] if emulated else []
        where = f"{self.world} x {self.fabric.device.type}" if self.world > 1 else str(self.fabric.device)
        epochs = f"{self.total / self.sampler.steps_per_epoch:.3g}"
        return [
            ("model", f"{cfg.name}, {cfg.model.backbone} backbone, {trained / 1e6:.1f} M trainable parameters"),
            *[(k, d.summary()) for k, d in self.data.items()],
            *self.tiles(),
            *([] if "val" in self.data else [("val", "none, so nothing is judged: --val DATA")]),
            ("pixels", f"shorter side {_range(sizes)} in training{early}, {cfg.data.size} after"),
            (
                "steps",
                f"{self.total} of {plural(cfg.train.batch, 'picture')} ({epochs} epoch{'' if epochs == '1' else 's'}), "
                f"{cfg.train.optimizer} lr {cfg.train.lr:g}, on {where}",
            ),
            *slow,
            ("folder", str(self.folder.path)),
        ]


def _range(sizes: Sequence[int]) -> str:
    return str(sizes[0]) if min(sizes) == max(sizes) else f"{min(sizes)}-{max(sizes)}"
