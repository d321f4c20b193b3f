"""How a training run speaks: aligned lines and a progress bar, all on stderr, so that stdout stays free for results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from ...system.progress import Bar

if TYPE_CHECKING:
    from ...evaluation.coco import Metrics
    from ..monitor import StepReport


class Console:
    """Output of a training run."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bar: Bar | None = None
        self._smooth: float | None = None

    def note(self, line: str) -> None:
        """One line of text."""
        (self._bar or Bar("", quiet=self.quiet)).write(line)

    def start(
        self, rows: Sequence[tuple[str, str]], total: int, done: int, most: Callable[[], float] | None = None
    ) -> None:
        """The summary, then the bar. most(): seconds that are left by the clock of a run in a given time."""
        for key, value in rows:
            first, *rest = value.splitlines() or [""]
            self.note(f"{key:>8}  {first}")
            for line in rest:
                self.note(f"{'':>8}  {line}")
        self._bar = Bar("step", total, done=done, quiet=self.quiet).start()
        self._bar.most = most
        self._bar.update(done)  # the rate counts from here, so that the first step has one

    def step(self, done: int, report: StepReport, batch: int) -> None:
        """After each optimiser step."""
        if self._bar is None:
            return
        self._smooth = report.loss if self._smooth is None else 0.95 * self._smooth + 0.05 * report.loss
        rate = batch * self._bar.rate(done)
        self._bar.update(done, info=f"loss {self._smooth:.3f}  iou {report.mean_iou:.2f}  {rate:.1f} img/s")

    def shorten(self, total: int) -> None:
        """The run has fewer steps than it was to have."""
        if self._bar is not None:
            self._bar.total = total

    def pause(self) -> AbstractContextManager[None]:
        """Hide the bar while something else draws one; that time does not count against the rate."""
        return nullcontext() if self._bar is None else self._bar.pause()

    def judged(self, epoch: float, metrics: Metrics, best: bool) -> None:
        """After each evaluation."""
        mark = "  best so far" if best else ""
        self.note(f"epoch {epoch:>5.1f}  AP {metrics.ap:.3f}  AP50 {metrics.ap50:.3f}  AP75 {metrics.ap75:.3f}{mark}")

    def stop(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
