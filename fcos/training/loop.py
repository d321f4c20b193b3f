"""The training program: one visible loop from batch to gradient to checkpoint."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from ..config import Config
from ..data.dataset import Dataset
from ..data.loading.loader import one_line_for_lost_loaders, train_loader
from ..data.loading.sampler import Sampler
from ..data.tiles import tiled
from ..errors import OtherProcess
from ..evaluation.uncertainty import QUICK, intervals
from ..network import weights
from ..network.model import FCOS
from ..system.environment import COMMAND, data_hash
from ..system.files import write_whole
from ..system.machine import compiling
from ..system.stderr import quieter
from ..system.stop import Stopped, StopSignals, go_on
from ..system.terminal import clock, plural
from ..types import Classes, Points
from .alarms import Watch
from .batch_size import auto_batch
from .checkpointing import Keeper
from .data import check_data
from .distributed import gather, join, launched, one_line_for_lost_peers, require_same, synchronize_norms, together
from .extrapolate import outlook
from .judging import Judge
from .lanes import Lanes, lanes_for
from .memory import keep_memory, shortage
from .monitor import StepReport
from .optimizer import make_optimizer
from .output.checkpoint import load_checkpoint, remove_checkpoints
from .output.console import Console
from .output.ending import Ending, began_best, worst
from .output.folder import RunFolder, check_loggers
from .output.images import RunImages
from .output.saving import Saver
from .output.store import Away
from .output.summary import Steps, summary
from .prefetch import Ahead
from .probing import probe
from .run import Result, RunContext, RunOptions
from .setup import (
    FABRIC,
    be_deterministic,
    initialise,
    known_classes,
    make_fabric,
    make_ready,
    too_large_to_say,
    untrained_score,
)
from .validation import threshold_of

_MOST = 10_000  # images of a validation split for which it is made; of more it is narrow and takes minutes


class Trainer(Keeper):
    """State and steps of one run; `run` is the loop. `data` is as the settings want it (`as_seen`)."""

    def __init__(self, config: Config, data: Mapping[str, Dataset], options: RunOptions) -> None:
        check_data(data)
        if config.train.logger:
            check_loggers(config.train.logger)
        self.config = config
        self.data = {**data, "train": tiled(data["train"], config.data.tile)}
        self.classes: Classes = data["train"].classes
        fabric = make_fabric(config, options.device, options.devices, options.nodes)
        join(fabric.device.type)
        with quieter(logging.WARNING, FABRIC):
            fabric.launch()
        # each process has asked what to start from, and on unlike machines may have come to another answer
        self.options = options = replace(options, init=fabric.broadcast(options.init))
        rank, first = fabric.global_rank, fabric.global_rank == 0
        console, signals = Console(quiet=options.quiet or not first), StopSignals()
        self.saver = Saver()
        self.away = Away(options.out, options.url if first else None)
        if options.resume:
            self.away.known()
        folder = RunFolder(Path(fabric.broadcast(str(options.out))), write=first)
        self.context = RunContext(fabric, rank, fabric.world_size, console, signals, folder)
        self.images = RunImages(self.folder, config, self.data)
        self.began = time.perf_counter()
        try:
            with one_line_for_lost_peers(self.world, self.context.rank, self.kept):
                together(self.folder.hold, self.world)
                self.set_up()
        except BaseException:
            self.saver.close()
            self.folder.release()
            raise

    def set_up(self) -> None:
        """The network, the optimiser and the order of images, fresh or as a checkpoint has them."""
        config, device = self.config, self.fabric.device
        torch.manual_seed(config.train.seed)
        if device.type == "cpu":
            keep_memory()
        if config.train.deterministic:
            be_deterministic()
        stored = together(lambda: load_checkpoint(self.folder.path) if self.options.resume else None, self.world)
        self.check_equal(None if stored is None else stored["step"])
        self.here, _ = launched(self.options.devices, self.options.nodes)
        short = shortage(config, device, len(self.classes), self.world, self.here)
        for line in (*self.options.notes, *untrained_score(config), *too_large_to_say(config), *short):
            self.console.note(line)
        start_due = self.make_network(fresh=stored is None)
        self.make_optimizer()
        self.sampler = Sampler(self.data["train"], self.config.data, self.config.train, self.context.rank, self.world)
        self.total = self.sampler.total_steps  # fewer where the time is short; the order and the sizes of images stay
        self.deadline = self.options.deadline
        self.step = 0
        self.judging = Judge(self.config, self.data.get("val"), self.classes, self.context, self.images)
        self.judging.start_due = start_due
        self.ended = False  # by the caller of the run
        self.saved_at: tuple[int, int, bool] | None = None
        self.saved_when = time.perf_counter()
        self.normalizer: float | None = None  # moving average of positives, for the dialect that has one
        self.seconds = 0.0  # of this run before this process
        self._points: dict[tuple[int, int], Points] = {}
        together(lambda: self.begin(stored), self.world)
        if stored is not None:  # when every process has read where the data was
            together(lambda: self.folder.moved(self.options.sources, self.data), self.world)
        whole_epoch = self.sampler.steps_per_epoch + -self.step % self.sampler.steps_per_epoch
        self.watch = Watch(self.classes.names, self.data["train"].counts().tolist(), whole_epoch)
        self.save()

        def describe() -> None:
            self.saver.wait()  # a folder is a run once it holds a checkpoint
            self.folder.describe(self.config)
            self.tell_command()

        together(describe, self.world)

    def check_equal(self, step: int | None) -> None:
        """Remember the hashes of the data. FcosError where the processes differ in these, in the settings or in the
        `step` of their checkpoint, None for a fresh run."""
        self.data_hash = data_hash(self.data["train"])
        self.val_hash = data_hash(self.data["val"]) if "val" in self.data else None
        require_same({"settings": self.config.dump(), "data": self.data_hash, "checkpoint": str(step)}, self.world)

    def make_network(self, fresh: bool) -> bool:
        """The network, with the weights that a `fresh` run starts from, and its average; the batch of settings that
        leave it open. Returns whether these weights are to be judged before the first step."""
        config, init = self.config, self.options.init
        start_due = False
        self.network = self.build()
        if fresh:
            for line in initialise(self.network, config, self.classes, init):
                self.console.note(line)
            known = known_classes(config, self.classes, init)
            start_due = "val" in self.data and bool(known or self.options.seen)
            probe(self.network, self.data["train"], config, known, self.context)
        self.average = make_ready(self.network, config, self.fabric.device)
        if not config.train.batch:  # before norms are synchronised: a process would wait there for one that ran out
            self.config = self.with_batch(config)
        return start_due

    def make_optimizer(self) -> None:
        """The optimiser, and the network as a step runs it: on the device, compiled or in lanes, by the settings."""
        config = self.config.train
        if self.world > 1:
            synchronize_norms(self.network.train())
        optimizer = make_optimizer(self.network, config)
        forward = torch.compile(self.network, dynamic=True) if config.compile else self.network
        self.model, self.optimizer = self.fabric.setup(forward, optimizer)
        lanes = lanes_for(self.network.train(), config, self.fabric.device) if self.world == 1 else 1
        self.lanes = Lanes(self.network, self.fabric, lanes) if lanes > 1 else None

    def build(self) -> FCOS:
        """The network with fresh weights."""
        return weights.build(self.config, len(self.classes))

    # ------------------------------------------------------------------ the loop

    def run(self) -> Result:
        """Train to the end. SIGINT, SIGTERM or SIGHUP raise Stopped, with a checkpoint to resume from."""
        with closing(self):
            data, quiet = self.data["train"], self.console.quiet  # images may be decoded into memory first, with a bar
            batches = train_loader(data, self.config, sampler=self.sampler, start_step=self.step, quiet=quiet)
            deadline = self.deadline
            most = None if deadline is None else lambda: deadline.left
            self.console.start(self.summary(), self.total, self.step, most)
            if self.config.train.compile:
                self.console.note("compile   the first step waits for torch.compile, minutes on a CPU")
            with (
                closing(Ahead(iter(batches), self.fabric.device)) as loader,
                self.context.signals,
                one_line_for_lost_peers(self.world, self.context.rank, self.kept),
                one_line_for_lost_loaders(go_on(self.kept)),
                self.told_how_to_go_on(),
            ):
                return self.steps(loader)

    def steps(self, loader: Ahead) -> Result:
        """All that are left, with what is due between them."""
        start, config = self.step, self.config.train
        while True:  # a resumed run may find that only the evaluation of its last step is left
            self.between_steps(anew=self.step > start)
            self.stop_if_asked()
            if self.step >= self.total or self.ends_early():
                break
            with compiling():
                report = self.train_step(loader)
            if config.compile and self.step == start + 1:
                self.console.note(f"compile   done; the first step took {clock(report.seconds)}")
            self.log(report)
            self.keep_time()
            if self.first and self.options.on_step is not None:
                with self.kept_first():
                    self.options.on_step(self.step, report)
        together(self.saver.wait, self.world)
        self.console.stop()
        return self.finish()

    def between_steps(self, anew: bool) -> None:
        """Judge, save and draw where that is due after the step that was done last; `anew`: in this process."""
        done, per_epoch = self.step, self.sampler.steps_per_epoch
        end_of_epoch = done % per_epoch == 0 or done == self.total
        if end_of_epoch:
            if self.judging.due(done, done // per_epoch, done == self.total):
                self.judge(done / per_epoch)
            if anew:
                self.tell_epoch(done / per_epoch)
        if (end_of_epoch and self.worth_saving()) or done % self.config.train.save_every == 0:
            self.save()
        if end_of_epoch and self.first:
            self.draw()

    def tell_epoch(self, epoch: float) -> None:
        """Call `on_epoch` in the first process; StopIteration ends the run for all of them."""
        on_epoch, ended = self.options.on_epoch, False
        if on_epoch is None:
            return
        if self.first:
            try:
                with self.kept_first():
                    on_epoch(epoch, self.judging.metrics if self.judging.at == self.step else None)
            except StopIteration:
                ended = True
        self.ended = bool(self.fabric.broadcast(ended))

    def ends_early(self) -> bool:
        """Whether `on_epoch` ended the run, or too many evaluations found nothing better; that is told."""
        if self.ended:
            self.console.note("stopped early: on_epoch raised StopIteration")
            return True
        patience, stale = self.config.train.patience, self.judging.stale
        if not patience or stale < patience:
            return False
        self.console.note(f"stopped early: no better AP for {plural(stale, 'evaluation')}")
        return True

    def close(self) -> None:
        """End its threads, remove the bar, close its files and let go of the folder."""
        self.console.stop()
        self.saver.close()
        if self.lanes is not None:
            self.lanes.close()
        self.folder.close()
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

            def record() -> None:
                self.saver.check()
                self.folder.record(row, [str(alarm) for alarm in alarms])

            together(record, self.world)
        self.console.step(done, report, cfg.batch)

    def keep_time(self) -> None:
        """Fewer steps where a deadline asks for it, without mosaics at their end as planned; a checkpoint keeps both: a
        resume sees the same run. The clock of the first process counts for all, and the loader that is furthest."""
        if self.deadline is None:
            return
        total = self.deadline.look(self.step, self.total) if self.first else self.total
        total = int(self.fabric.broadcast(total))
        if total < self.total:
            over = total == self.step
            told = f"is up: the run ends after {plural(total, 'step')}"
            if not over:
                told = f"is too short for {self.total:,} steps at this pace; the run will have {total:,}"
            self.console.note(f"    time  {told}")
            self.total = total
            plain = float(self.sampler.earlier_plain(total))
            plain = self.fabric.all_reduce(plain, reduce_op="max") if self.world > 1 else plain
            self.sampler.plain_from = int(plain)
            self.console.shorten(total)
            self.save()

    def stop_if_asked(self) -> None:
        """Save and raise Stopped when a signal has asked any of the processes to stop."""
        number = self.context.signals.number
        if self.world > 1:
            number = int(self.fabric.all_reduce(float(number), reduce_op="max"))
        if not number:
            return
        self.save()
        together(self.saver.wait, self.world)
        self.console.stop()
        if not self.first:
            raise OtherProcess("stopped", 128 + number)
        raise Stopped(
            f"stopped at step {self.step} of {self.total}; {go_on(self.kept)}",
            number,
        )

    def with_batch(self, config: Config) -> Config:
        """`config` with the batch that fits on every process."""
        images, here = len(self.data["train"]), self.here
        mine = together(lambda: auto_batch(self.network, config, self.fabric, images, here), self.world)
        batch, line = min(gather(mine, self.world))
        self.console.note(line)
        return config.override({"train": {"batch": batch}})

    # ------------------------------------------------------------------ judging, saving

    def judge(self, epoch: float) -> None:
        """Evaluate the weights on the validation split and keep the best."""
        self.network.eval()
        self.judging.judge(
            self.shipped, self.step, epoch, lambda: self.export("best", self.shipped.state_dict(), self.about())
        )

    def tell_command(self) -> None:
        """command.txt, by the steps that there are now; none where a run goes on otherwise than one command would."""
        file = self.folder.path / COMMAND
        if self.first and self.options.equal is not None:
            write_whole(file, self.options.equal(self.total) + "\n")
        elif self.first and self.options.resume:
            file.unlink(missing_ok=True)

    def finish(self) -> Result:
        """The last files and words of a run; the first process writes them."""
        best = self.judging.best if self.judging.best > -math.inf else math.nan
        if not self.first:
            return Result(self.folder.path, self.step, best, None, None, self.elapsed(), self.options.device)
        self.export("last", self.shipped.state_dict(), self.about())
        detections, metrics = self.judging.best_again()
        interval = None
        if metrics is not None and len(detections) <= _MOST:
            interval = intervals(detections, self.data["val"], QUICK)["AP"]
        if metrics is not None:
            self.images.judged(detections, metrics)
        rows, error = self.folder.rows(), math.nan if interval is None else interval.error
        shown = self.config.decode.shown
        if shown is None and metrics is not None:  # of the best weights, which need not be the last that were judged
            shown = threshold_of(metrics)
        ending = Ending(
            kept=self.options.url or self.folder.path,
            steps=self.step,
            seconds=self.taken(),
            metrics=metrics,
            interval=interval,
            worst=worst(detections, self.data["val"], metrics) if metrics is not None else (),
            sources=self.options.sources,
            deadline=self.deadline,
            outlook=outlook(rows, self.step, self.elapsed(), error),
            in_vain=metrics is not None and began_best(rows),
            shown=shown,
        )
        self.images.ending = ending
        self.draw(last=True)
        ending = replace(ending, seconds=self.taken())
        remove_checkpoints(self.folder.path, but=1 if self.config.train.keep == "resume" else 0)
        self.tell_command()
        self.folder.finish(ending.to_dict())
        self.away.push()
        for line in ending.lines():
            self.console.note(line)
        return Result(self.folder.path, self.step, best, metrics, interval, ending.seconds, self.options.device)

    def draw(self, last: bool = False) -> None:
        """Renew the drawings and the page, if it is time or the end."""
        self.images.renew(lambda: [*self.summary(), ("alarms", "\n".join(self.folder.alarms()) or "none")], last)

    def summary(self) -> list[tuple[str, str]]:
        steps = Steps(self.total, self.sampler.steps_per_epoch)
        return summary(self.config, self.network, self.data, steps, self.context)
