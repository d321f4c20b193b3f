"""A run that goes on otherwise than it was planned: to more epochs, or for more minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
) -> Longer:
    """How the run of a checkpoint goes on: with `changes` to its settings, of which `given` are the names, and for
    `budget`, if any, from now on.

    Epochs that are asked for take the place of the steps that a plan of minutes wrote. More minutes are turned into
    steps by what a step of this run has taken so far, its evaluations included. ConfigError where nothing was learned
    yet, or where the minutes are over before a step.
    """
    config = from_dict(stored["config"], stored["file"]).override(*changes, source="settings")
    if budget is None:
        if "train.epochs" in given and "train.iterations" not in given:
            config = config.override({"train": {"iterations": 0}})
        return Longer(config, None, [])
    step, seconds = stored["step"], float(stored.get("seconds", 0.0))
    if not step or seconds <= 0:
        raise ConfigError("--minutes: no step of this run is saved, so its pace is not known; leave it out")
    tail = float(stored["deadline"]["tail"]) if stored.get("deadline") else _TAIL * 60 * budget.minutes
    more = int((budget.left - tail) * step / seconds)
    if more < 1:
        least = (60 * budget.minutes - budget.left + tail + seconds / step) / 60
        raise ConfigError(f"--minutes {budget.minutes:g} is too short for a step of this run; give {least:.1f} or more")
    line = f"goes on   for {budget.minutes:g} minutes: about {plural(more, 'step')} after the {step:,} that are done"
    return Longer(
        config.override({"train": {"iterations": step + more}}),
        Deadline(60 * budget.minutes, tail, start=budget.start),
        [line],
    )
