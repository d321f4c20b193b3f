"""A run seen from outside: what it is told, what it has around it, what it comes to."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..evaluation.coco import Metrics
from ..evaluation.uncertainty import Interval
from ..inference.detector import Detector
from ..inference.load import load
from ..system.stop import StopSignals
from ..system.terminal import clock, plural
from .clock import Deadline
from .monitor import StepReport
from .output.console import Console
from .output.folder import RunFolder


@dataclass(frozen=True)
class RunOptions:
    """How a run is done, beside its settings and data.

    `out` is its folder. `init` names a detector (zoo name, run folder or file) whose weights are kept where they
    fit, "none" for the backbone's own weights only, None for the bundled detector of that name where there is one.
    `seen` are classes that this detector knows under other names (see `starting.Start`). `resume` goes on from the
    newest checkpoint in `out`. `device`: auto, cpu, cuda, cuda:1, mps; `devices` processes on each of `nodes`
    machines. `sources` is noted in environment.json: where the data came from, so that a resume need not be told;
    `notes` are lines to tell first. `on_step(step, report)` is called after every optimiser step, with the steps
    done so far, and `on_epoch(epoch, metrics)` after every epoch, with those of its evaluation or None; both in the
    first process only, and StopIteration in `on_epoch` ends the run. `deadline` ends the run in time, by fewer steps
    than the settings have. `url`: where the folder is kept, `out` being the copy that the run works in.
    `began`: `time.monotonic()` when it was asked for.
    `equal(steps)`: the command that trains so many steps without a clock, for a run in a given time.
    """

    out: Path
    init: str | None = None
    seen: Collection[str] = ()
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
    url: str | None = None
    began: float = field(default_factory=time.monotonic)
    equal: Callable[[int], str] | None = None


@dataclass(frozen=True)
class RunContext:
    """What every part of a run uses: the processes it is (`fabric`, process `rank` of `world`), how it speaks, the
    signals that may stop it, and its folder."""

    fabric: Any
    rank: int
    world: int
    console: Console
    signals: StopSignals
    folder: RunFolder

    @property
    def first(self) -> bool:
        """Whether this process counts, draws and writes."""
        return self.rank == 0


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
        return load(self.folder, runtime="torch", device=self.device)

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
