"""What goes wrong in training, found in the reports of recent steps, with advice. docs/runs.md lists
them.

Every function here looks at StepReports (oldest first) and gives an Alarm or None; `Watch` remembers which are on,
so that each is told once, and again only after it has cleared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from statistics import median

from .monitor import StepReport

RECENT = 500  # steps that are remembered
_BLOCK = 50  # steps over which a number is judged
_RISE = 1.25  # a loss this much above its lowest block is rising
_WAIT = 1 / 3  # share of the time
_START = 10  # steps after which the loader is under way


@dataclass(frozen=True)
class Alarm:
    """What is wrong, by name, and one line that says what was seen and what to do."""

    name: str
    advice: str

    def __str__(self) -> str:
        return f"{self.name}: {self.advice}"


def dead_regression(recent: Sequence[StepReport]) -> Alarm | None:
    """More than half of the positives predict boxes without extent, in 10 steps (FCOS#310)."""
    last = [r for r in recent[-_BLOCK:] if r.positives][-10:]
    share = sum(r.dead for r in last) / max(1, len(last))
    if len(last) < 10 or share <= 0.5:
        return None
    return Alarm(
        "dead regression",
        f"the four distances of {share:.0%} of the positive locations are zero, and a ReLU at zero learns no more. "
        "Start again with a lower train.lr, a longer train.warmup or train.clip=10; model.regression=exp cannot die",
    )


def no_positives(recent: Sequence[StepReport]) -> Alarm | None:
    """No location has learned a box for 50 steps."""
    last = recent[-_BLOCK:]
    if len(last) < _BLOCK or any(r.positives for r in last):
        return None
    return Alarm(
        "no positives",
        f"no location learned a box in {_BLOCK} steps. Are the boxes a few pixels wide at data.size, written as "
        "shares of 0..1, or all marked crowd? `fcos doctor` says which boxes no location learns",
    )


def loss_rising(recent: Sequence[StepReport]) -> Alarm | None:
    """The median loss of 50 steps is a quarter above the lowest such median before."""
    blocks = [recent[max(0, end - _BLOCK) : end] for end in range(len(recent), 0, -_BLOCK)]
    medians = [median(r.loss for r in b) for b in blocks if len(b) == _BLOCK]  # newest first
    if len(medians) < 2 or medians[0] <= _RISE * min(medians[1:]):
        return None
    lowest = min(medians[1:])
    return Alarm(
        "loss rising",
        f"from {lowest:.3g} to {medians[0]:.3g} (medians of {_BLOCK} steps). Lower train.lr, or set train.clip=10; "
        f"the gradient norm now is {median(r.grad_norm for r in recent[-_BLOCK:]):.3g}",
    )


def slow_data(recent: Sequence[StepReport]) -> Alarm | None:
    """A third of the time of 50 steps went into waiting for images."""
    last = recent[-_BLOCK:]
    seconds = sum(r.seconds for r in last)
    if len(recent) < _BLOCK + _START or seconds <= 0:
        return None
    share = sum(r.data_wait for r in last) / seconds
    if share <= _WAIT:
        return None
    return Alarm(
        "slow data",
        f"{share:.0%} of the time goes into waiting for images ({seconds / len(last):.2g} s a step). Keep decoded "
        "images with data.cache=ram or disk, raise data.workers, or shrink the files to the size training needs",
    )


def never_seen(seen: AbstractSet[int], names: Sequence[str], boxes: Sequence[int]) -> Alarm | None:
    """After an epoch: classes that no location has learned. `seen`: labels among the positives; `boxes`: of
    each class in the training data."""
    absent = [name for name, n in zip(names, boxes, strict=True) if not n]
    missed = [name for label, (name, n) in enumerate(zip(names, boxes, strict=True)) if n and label not in seen]
    if not absent and not missed:
        return None
    lines = []
    if missed:
        lines.append(
            f"no location learned {_first(missed)} in an epoch, though the data has such boxes: they are too small for "
            "the first level (are they written as shares of 0..1?), or lie under others; `fcos doctor` shows them, and "
            "a larger data.size helps where their numbers are right"
        )
    if absent:
        lines.append(f"the training data has no box of {_first(absent)}; data.classes can leave classes out")
    return Alarm("class never seen", ". ".join(lines))


def _first(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more classes" if len(names) > limit else "")


class Watch:
    """The recent steps of a run and the alarms that are on.

    `boxes`: of each class in the training data. `epoch`: steps after which every image has been shown.
    """

    def __init__(self, names: Sequence[str], boxes: Sequence[int], epoch: int) -> None:
        self.names, self.boxes, self.epoch = names, boxes, epoch
        self.recent: deque[StepReport] = deque(maxlen=RECENT)
        self.steps = 0
        self.seen: set[int] = set()
        self.on: set[str] = set()

    def add(self, report: StepReport) -> None:
        """After every step."""
        self.recent.append(report)
        self.steps += 1
        self.seen |= report.seen

    def pace(self, steps: int) -> tuple[float, float]:
        """(seconds of a step, seconds of it spent waiting for data), means of the last `steps`."""
        last = list(self.recent)[-steps:]
        return sum(r.seconds for r in last) / len(last), sum(r.data_wait for r in last) / len(last)

    def look(self) -> list[Alarm]:
        """The alarms that have come on since the last look."""
        recent = list(self.recent)
        checks = [dead_regression(recent), no_positives(recent), loss_rising(recent), slow_data(recent)]
        if self.steps >= self.epoch:
            checks.append(never_seen(self.seen, self.names, self.boxes))
        raised = [alarm for alarm in checks if alarm is not None]
        new = [alarm for alarm in raised if alarm.name not in self.on]
        self.on = {alarm.name for alarm in raised}
        return new
