"""What a run is worth so far: the validation split judged by all processes, the best weights remembered."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from ..config import Config
from ..data.classes import as_learned
from ..data.dataset import Dataset
from ..data.tiles import tiled
from ..detections import Detections
from ..errors import FcosError
from ..evaluation.coco import Metrics, evaluate
from ..inference.composite import OWN, Composite, Looks, compose
from ..inference.dataset import Progress, predict_dataset
from ..inference.detector import Detector
from ..inference.load import load
from ..network.model import FCOS
from ..system.environment import BEST
from ..system.machine import Placement
from ..system.stop import StopNow
from ..types import Classes
from .distributed import gather, together
from .output.images import RunImages
from .run import RunContext
from .validation import Pass, divided, eval_batch, in_order, loss_sums, share, threshold_of


def how_judged(config: Config) -> tuple[object, ...]:
    """What decides the AP of given weights on given images."""
    return config.data.size, config.data.max_size, config.data.tile, config.decode.model_copy(update={"shown": None})


class Share(NamedTuple):
    """What one process found in its share of the validation split: detections, lines to tell, sums of the losses."""

    detections: list[Detections]
    lines: list[str]
    losses: list[float]


class Judge:
    """Evaluates the weights of a run on `data`, its validation split (None: there is none), and knows the best so far.

    `best` is the best AP, `stale` the evaluations since, `at` the step of the last one (0: none yet), `ap` what it
    found and `shown` the score of the best F1 there, the lowest that its weights show. `start_due`: what the run begins
    from is still to be judged. `metrics` are those of the last, `seen_best` the best one's detections and metrics, in
    the first process only.
    """

    def __init__(
        self, config: Config, data: Dataset | None, classes: Classes, context: RunContext, images: RunImages
    ) -> None:
        self.config, self.data, self.classes, self.context, self.images = config, data, classes, context, images
        self.best = -math.inf
        self.stale = 0
        self.at = 0
        self.start_due = False
        self.ap: float | None = None
        self.shown: float | None = None
        self.metrics: Metrics | None = None
        self.seen_best: tuple[list[Detections], Metrics] | None = None

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {
            "best": self.best,
            "stale": self.stale,
            "judged_at": self.at,
            "start_due": self.start_due,
            "AP": self.ap,
            "shown": self.shown,
        }

    def restore(self, stored: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.best, self.stale, self.ap, self.shown = stored["best"], stored["stale"], stored["AP"], stored["shown"]
        self.at, self.start_due = stored["judged_at"], stored["start_due"]

    def forget(self) -> None:
        """Forget the best so far: it was measured on other images."""
        self.best, self.stale, self.at, self.ap, self.shown = -math.inf, 0, 0, None, None

    def due(self, step: int, epoch: int, last: bool) -> bool:
        """Whether to evaluate after `step`, where `epoch` ends."""
        if self.data is None:
            return False
        if step == 0:
            return self.start_due
        if self.at == step:
            return False
        every = self.config.train.eval_every
        return last or (every > 0 and epoch % every == 0)

    def judge(self, network: FCOS, step: int, epoch: float, keep: Callable[[], None]) -> None:
        """Evaluate `network` after `step`, each process its share; the first counts, and calls `keep` for weights that
        are the best so far.

        A signal cuts it short; the resumed run then begins with it.
        """
        context = self.context
        with context.console.pause():
            shares = gather(together(lambda: self._look(network), context.world), context.world)
            seen = [s for s in shares if s is not None]
            if len(seen) == context.world:
                together(lambda: self._count(seen, step, epoch, keep) if context.first else None, context.world)
        self.stale, self.at, self.start_due = context.fabric.broadcast((self.stale, self.at, self.start_due))

    def _look(self, network: FCOS) -> Share | None:
        """This process's share of the validation split; None when a signal cut it short."""
        assert self.data is not None
        context, batch = self.context, eval_batch(self.config, self.context.world)
        lines: list[str] = []
        try:
            with context.signals.interruptible():
                detector = Detector(network, self.config, self.classes, Placement(context.fabric.device))
                part = self.data.subset(share(len(self.data), batch, context.rank, context.world))
                progress = Progress(lines.append, context.console.quiet)
                detections = predict_dataset(
                    self._looking(detector), part, batch, allow_missing=True, progress=progress
                )
                losses = self._losses(network, self.data, batch) if self.config.train.val_loss else []
        except StopNow:
            return None
        return Share(detections, lines, losses)

    def _looking(self, detector: Detector) -> Detector | Composite:
        """The detector as the run judges it: through tiles where it learns from tiles."""
        return compose([detector], Looks(OWN))

    def _losses(self, network: FCOS, data: Dataset, batch: int) -> list[float]:
        context = self.context
        over = Pass(context.fabric.device, batch, context.fabric.autocast, context.rank, context.world)
        data = tiled(as_learned(data, self.config.data), self.config.data.tile)
        return loss_sums(network, data, self.config, self.classes, over)

    def _count(self, shares: Sequence[Share], step: int, epoch: float, keep: Callable[[], None]) -> None:
        """The numbers of an evaluation from what all processes found."""
        assert self.data is not None
        for line in dict.fromkeys(line for s in shares for line in s.lines):
            self.context.console.note(f"fcos: {line}")
        detections = in_order([s.detections for s in shares], eval_batch(self.config, self.context.world))
        try:
            with self.context.signals.interruptible():
                metrics = evaluate(detections, self.data)
        except StopNow:
            return
        loss = None
        if self.config.train.val_loss:
            sums = torch.tensor([s.losses for s in shares], dtype=torch.float64).sum(dim=0)
            loss = float(divided(sums, self.config).total())
        self.context.folder.record(
            {"step": step, "epoch": epoch, "val_loss": loss, "AP": metrics.ap, "AP50": metrics.ap50,
             "AP75": metrics.ap75}
        )  # fmt: skip
        self.metrics, self.at, self.start_due, self.ap = metrics, step, False, metrics.ap
        self.shown = threshold_of(metrics)
        self.stale += not math.isnan(metrics.ap)  # where nothing can be judged nothing gets better or worse
        if metrics.ap > self.best:
            self.best, self.stale, self.seen_best = metrics.ap, 0, (detections, metrics)
            keep()
        self.images.judged(detections, metrics)
        self.context.console.judged(epoch, metrics, best=self.stale == 0)

    def best_again(self) -> tuple[list[Detections], Metrics | None]:
        """Detections and metrics of the best weights; detected again if they were found before a resume."""
        if self.seen_best is not None:
            return self.seen_best
        context, file = self.context, self.context.folder.path / BEST
        if self.data is None or not file.is_file():
            return [], None
        batch = eval_batch(self.config, context.world)
        try:
            detector = load(file, runtime="torch", device=str(context.fabric.device))
            progress = Progress(quiet=context.console.quiet)
            detections = predict_dataset(
                self._looking(detector), self.data, batch, allow_missing=True, progress=progress
            )
        except FcosError as error:
            context.console.note(f"the best weights cannot be judged again: {error}")
            return [], None
        return detections, evaluate(detections, self.data)
