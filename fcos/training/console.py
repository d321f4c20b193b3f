"""How a long program speaks: aligned lines, a progress bar with rate and time left; plain lines without a
terminal. Everything goes to stderr, so that stdout stays free for results."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..terminal import clock

if TYPE_CHECKING:
    from ..evaluation.coco import Metrics
    from .monitor import StepReport

_PLAIN_SECONDS = 20.0  # between progress lines where there is no terminal


class Console:
    """Output of a training run."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = not quiet and sys.stderr.isatty()
        self._bar: Any = None
        self._task: Any = None
        self._last = 0.0
        self._smooth: float | None = None

    def note(self, line: str) -> None:
        """One line of text."""
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def start(self, rows: Sequence[tuple[str, str]], total: int, done: int) -> None:
        """The summary, then the bar."""
        for key, value in rows:
            first, *rest = value.splitlines() or [""]
            self.note(f"{key:>8}  {first}")
            for line in rest:
                self.note(f"{'':>8}  {line}")
        self._total, self._start, self._began = total, done, time.perf_counter()
        self._last = self._began
        if self.live:
            from rich.console import Console as Rich
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[info]}"),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Rich(stderr=True),
            )
            self._task = self._bar.add_task("training", total=total, completed=done, info="")
            self._bar.start()

    def step(self, done: int, report: StepReport, batch: int) -> None:
        """After each optimiser step."""
        if self.quiet:
            return
        now = time.perf_counter()
        self._smooth = report.loss if self._smooth is None else 0.95 * self._smooth + 0.05 * report.loss
        rate = batch * (done - self._start) / max(now - self._began, 1e-9)
        text = f"loss {self._smooth:.3f}  iou {report.mean_iou:.2f}  {rate:.1f} img/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, info=text)
        elif now - self._last >= _PLAIN_SECONDS or done == self._total:
            self._last = now
            left = (self._total - done) * (now - self._began) / max(done - self._start, 1)
            self.note(f"step {done:>6}/{self._total}  {text}  {clock(left)} left")

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Hide the bar while something else draws one."""
        bar, began = self._bar, time.perf_counter()
        if bar is not None:
            bar.stop()
        try:
            yield
        finally:
            if bar is not None:
                bar.start()
            self._began += time.perf_counter() - began  # evaluation does not count against the rate

    def judged(self, epoch: float, metrics: Metrics, best: bool) -> None:
        """After each evaluation."""
        mark = "  best so far" if best else ""
        self.note(f"epoch {epoch:>5.1f}  AP {metrics.ap:.3f}  AP50 {metrics.ap50:.3f}  AP75 {metrics.ap75:.3f}{mark}")

    def stop(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def finished(self, folder: Path, metrics: Metrics | None, best: float) -> None:
        """The last words: where things are and what to do next."""
        if metrics is not None:
            self.note(f"best AP {best:.3f}")
        self.note(f"look:     {folder}")
        self.note(f"evaluate: fcos eval --model {folder} --data DATA")
        self.note(f"detect:   fcos predict PICTURE --model {folder}")
