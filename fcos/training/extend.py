"""A run that goes on otherwise than it was planned: to more epochs, or for more minutes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from ..config import Config, from_dict
from ..errors import ConfigError
from ..system.terminal import plural
from .clock import Budget, Deadline

_TAIL = 0.06  # of the minutes, after the last step, where the run has not planned it


class Longer(NamedTuple):
    """The settings of a run that goes on, when it must be over (None: no clock), and what to tell about that."""

    config: Config
    deadline: Deadline | None
    lines: list[str]


def lengthened(
    stored: Mapping[str, Any],
    changes: Sequence[str | dict[str, Any]],
    given: Mapping[str, object],
    budget: Budget | None,
    rows: Sequence[Mapping[str, str]] = (),
) -> Longer:
    """How the run of a checkpoint goes on: with `changes` to its settings, of which `given` are the names, and for
    `budget`, if any, from now on. rows: of its metrics.csv.

    Epochs that are asked for take the place of the steps that a plan of minutes wrote, and a batch that is left open
    (`train.batch=auto`) is what it came to when the run began. More minutes are turned into steps by what a step of
    this run has taken so far. ConfigError where nothing was learned yet, or where the minutes
    are over before a step.
    """
    before = from_dict(stored["config"], stored["file"])
    config = before.override(*changes, source="settings")
    if not config.train.batch:
        config = config.override({"train": {"batch": before.train.batch}})
    if budget is None:
        if "train.epochs" in given and "train.iterations" not in given:
            config = config.override({"train": {"iterations": 0}})
        return Longer(config, None, [])
    step, seconds = stored["step"], float(stored["seconds"])
    if not step or seconds <= 0:
        raise ConfigError("--minutes: no step of this run is saved, so its pace is not known; leave it out")
    tail = float(stored["deadline"]["tail"]) if stored["deadline"] else _TAIL * 60 * budget.minutes
    each = _pace(seconds / step, config.train.batch, rows)
    more = int((budget.left - tail) / each)
    if more < 1:
        least = (60 * budget.minutes - budget.left + tail + each) / 60
        enough = math.ceil(10 * least + 1) / 10
        raise ConfigError(f"--minutes {budget.minutes:g} is too short for a step of this run; give {enough:g} or more")
    time = f"{budget.minutes:g} minute{'s' * (budget.minutes != 1)}"
    line = f"goes on   for {time}: about {plural(more, 'step')} after the {step:,} that are done"
    return Longer(
        config.override({"train": {"iterations": step + more}}),
        Deadline(60 * budget.minutes, tail, start=budget.start),
        [line],
    )


def _pace(whole: float, batch: int, rows: Sequence[Mapping[str, str]]) -> float:
    """Seconds that a step will take, evaluations included. `whole` is the mean so far of all that was done; of what it
    has beyond the steps themselves, by metrics.csv, half is taken to come again and half to have been the start and
    the end. Should it be more, the clock lowers the number of steps."""
    rates = [float(row["images_per_second"]) for row in rows if row.get("images_per_second")]
    steps = [batch / rate for rate in rates if 0 < rate < math.inf]
    return whole if not steps else (whole + min(median(steps), whole)) / 2
