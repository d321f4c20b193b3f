"""The plan of a run for a given time: how many steps, how often it is judged, and what the rules choose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ...system.terminal import plural
from .facts import Facts
from .rules import BINS, LEAST, Choice, Pace, Settings, flips_for, mixing_for

_ROWS = ("model", "start", "boxes", "tile", "size", "batch", "cache", "rate", "probe")  # of a plan, in order
COUNTED = 0.008  # seconds of an image's scores, intervals and drawings: 3,000 of 60 detections, 25 s of one core
CLOSING = 5.0  # seconds of drawing, writing the report and ending the process


class TooShort(NamedTuple):
    """Why there is no plan, and how many more seconds it takes."""

    reason: str
    missing: int


@dataclass(frozen=True)
class Plan:
    """settings: of the run, train.iterations among them. choices: the same in words. tail: seconds after the last
    step."""

    settings: Settings
    choices: tuple[Choice, ...]
    tail: float

    def text(self) -> str:
        """For a terminal."""
        wide = max(len(c.value) for c in self.choices)
        return "\n".join(f"{c.name:>8}  {c.value:<{wide}}  {c.reason}" for c in self.choices)


def make_plan(
    facts: Facts, pace: Pace, seconds: float, chosen: Mapping[str, Choice], given: Mapping[str, object]
) -> Plan | TooShort:
    """The plan for `seconds` from now to the end of the process, or the reason why there is none, with what it takes.

    chosen: "model", "batch" and "size", and "tile", "cache" and the like if any, as they are settled. given: settings
    of the user, by their name; what they settle is not planned.
    """
    course = _course(facts, pace, seconds, given.get("train.eval_every"))
    if isinstance(course, TooShort):
        return course
    steps, epochs = course.steps, course.epochs
    mixing, mixed = mixing_for(epochs, "tile" not in chosen and "data.mosaic" not in given)
    settings = {**_settings(facts, pace, course, chosen), **mixing}
    settings = {key: value for key, value in settings.items() if key not in given}
    rows = [chosen[key] for key in _ROWS if key in chosen]
    if "data.flip" in settings and "data.vertical_flip" in settings:
        rows.append(flips_for(facts))
    if mixed and f"data.{mixed.name}" in settings:
        rows.append(mixed)
    times = "never" if not facts.judged else "once, at the end" if course.looks == 1 else f"{course.looks} times"
    tail = ending(facts, pace)
    rows += [
        Choice(
            "steps", f"{steps:,}", f"{epochs:.1f} epochs at {pace.step:.2f} s a step; fewer if the machine gets slower"
        ),
        Choice("judged", times, f"{plural(facts.judged, 'image')} to judge by; {tail:.0f} s are kept for the end"),
    ]
    return Plan(settings, tuple(rows), tail)


class _Course(NamedTuple):
    """How long a run is: its steps, as epochs too (the last batch of one is short), and how often it is judged: `looks`
    times, after each `every` epochs."""

    steps: int
    epochs: float
    every: int
    looks: int


def _course(facts: Facts, pace: Pace, seconds: float, asked: object) -> _Course | TooShort:
    """What `seconds` allow. asked: the epochs between two evaluations, where the user says so; then each step pays its
    share of them."""
    every = asked if isinstance(asked, int) else 0
    one = facts.judged * pace.image  # seconds of an evaluation
    share = one * pace.batch / (every * max(facts.images, 1)) if every else 0.0
    tail = ending(facts, pace)
    steps = int((seconds - tail) / (pace.step + share))
    if steps < LEAST:
        missing = math.ceil(LEAST * (pace.step + share) + tail - seconds) + 1
        return TooShort(
            f"there is time for {plural(max(steps, 0), 'step')} of training here, at {pace.step:.2f} s a step, and a "
            f"run needs {LEAST}",
            missing,
        )
    images = steps * pace.batch / max(facts.images, 1)
    per_epoch = max(math.ceil(facts.images / pace.batch), 1)
    if every:
        return _Course(steps, steps / per_epoch, every, math.ceil(images / every))
    looks = evaluations(facts, pace, seconds, images)
    steps -= math.ceil((looks - 1) * one / pace.step)
    every = math.ceil(steps / per_epoch / looks)
    return _Course(steps, steps / per_epoch, every, math.ceil(steps / per_epoch / every))


def _settings(facts: Facts, pace: Pace, course: _Course, chosen: Mapping[str, Choice]) -> Settings:
    """The settings of a run of this length with what is `chosen`."""
    settings: Settings = {
        "train.batch": pace.batch,
        "train.iterations": course.steps,
        "train.warmup": min(100, max(5, course.steps // 10)),
        "train.ema": 0.998 if course.steps >= 1500 else round(max(0.9, 1 - 3 / course.steps), 4),
        "train.eval_every": course.every if course.looks > 1 else 0,
        "train.val_loss": False,
        **sides(pace.size),
    }
    for name, key, kind in (
        ("tile", "data.tile", int),
        ("cache", "data.cache", str),
        ("rate", "train.lr", float),
        ("probe", "train.linear_probe", int),
    ):
        if name in chosen:
            settings[key] = kind(chosen[name].value)
    settings |= BINS if "boxes" in chosen else {}
    settings["data.flip"] = 0.0 if facts.handed else 0.5
    settings["data.vertical_flip"] = 0.0 if facts.handed or facts.upright else 0.5
    return settings


def sides(size: int) -> Settings:
    """The settings of an input size: its limit of the longer side, and three sizes to learn at."""
    return {
        "data.size": size,
        "data.max_size": size * 5 // 3,
        "data.train_sizes": [max(32, size - 32), size, size + 32],
    }


def ending(facts: Facts, pace: Pace) -> float:
    """Seconds after the last step: judging, intervals, drawings, the report, the end of the process. A third more than
    measured, since nothing can be taken back by then."""
    return facts.judged * (1.3 * pace.image + COUNTED) + CLOSING + 20 * pace.image


def evaluations(facts: Facts, pace: Pace, seconds: float, epochs: float) -> int:
    """How often a run is judged, so that the best weights are kept: up to five times where that costs less than a
    twentieth of the time. Short runs end at their best (judgement)."""
    if not facts.judged or epochs < 15:
        return 1
    return int(max(1, min(5, 1 + 0.05 * seconds / max(facts.judged * pace.image, 1e-9))))
