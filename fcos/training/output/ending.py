"""The end of a run in words: what it came to, where it fails, and what to do next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from ...data.dataset import Dataset
from ...data.splits import name_of
from ...detections import Detections
from ...errors import install_line
from ...evaluation.coco import Metrics
from ...evaluation.uncertainty import Interval
from ...show.judged import mistakes
from ...system.terminal import clock, decimal, plural, table
from ..clock import Deadline
from ..extrapolate import Outlook

_CLASSES = 10  # rows of the table; report.html has all
_WORST = 3
_APART = 0.08  # of a class's best score from that of all classes, from which on it is told


class Worst(NamedTuple):
    """An image with its objects missed and its detections wrong, at the score of the best F1."""

    name: str
    path: Path | None
    missed: int
    wrong: int

    def __str__(self) -> str:
        told = [f"{n} {what}" for n, what in ((self.missed, "missed"), (self.wrong, "wrong")) if n]
        return f"{self.name}: {', '.join(told)}"


def worst(detections: Sequence[Detections], dataset: Dataset, metrics: Metrics) -> tuple[Worst, ...]:
    """The images with most mistakes, at most three, none where all is right."""
    score = metrics.threshold if not math.isnan(metrics.threshold) else 0.5
    missed, wrong = mistakes(detections, dataset, score)
    order = sorted(range(len(dataset)), key=lambda i: (-int(missed[i] + wrong[i]), i))[:_WORST]
    return tuple(
        Worst(name_of(dataset.records[i]), dataset.records[i].path, int(missed[i]), int(wrong[i]))
        for i in order
        if missed[i] + wrong[i]
    )


def began_best(rows: Sequence[Mapping[str, str]]) -> bool:
    """Whether, by metrics.csv, no evaluation had a higher AP than that of what the run began from."""
    judged = [(ap, -int(r["step"])) for r in rows if r.get("AP") and math.isfinite(ap := float(r["AP"]))]
    return bool(judged) and max(judged)[1] == 0


@dataclass(frozen=True)
class Ending:
    """What a run came to. `kept`: its folder, or the URL where that is kept; `metrics` and `interval` are of the best
    weights, None without validation; `sources` says where the data came from, as environment.json; `deadline` is that
    of a run with --minutes; `in_vain`: nothing was better than what it began from; `shown`: the lowest score that the
    detector shows (`decode.shown`), None where too few objects were there to choose it by."""

    kept: Path | str
    steps: int
    seconds: float
    metrics: Metrics | None
    interval: Interval | None
    worst: tuple[Worst, ...]
    sources: Mapping[str, Any]
    deadline: Deadline | None = None
    outlook: Outlook | None = None
    in_vain: bool = False
    shown: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: result.json."""
        return {
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
            "AP": None if self.interval is None else self.interval.to_dict(),
            "worst": [w.name for w in self.worst],
            "more_minutes": None if self.outlook is None else self.outlook.to_dict(),
        }

    def headline(self) -> str:
        """One line: AP with its interval, on what."""
        if self.metrics is None:
            return "nothing was judged: there was no validation split"
        m = self.metrics
        between = ""
        if self.interval is not None and not math.isnan(self.interval.low):
            between = f" (95 % interval {self.interval.low:.3f} to {self.interval.high:.3f})"
        on = f"{plural(m.images, 'validation image')}, {plural(m.objects, 'object')}"
        return f"AP {decimal(m.ap)}{between}, AP50 {decimal(m.ap50)}, AP75 {decimal(m.ap75)} on {on}"

    def taken(self) -> str:
        """How long it took, and its steps: "in 1:32, 54 steps"."""
        taken = f"in {clock(self.seconds)}"
        if self.deadline is not None:  # which began before the plan was made
            taken = f"after {clock(min(self.seconds, self.deadline.spent()))} of {clock(self.deadline.seconds)}"
        return f"{taken}, {plural(self.steps, 'step')}"

    def vain(self) -> str:
        """What to know where training did not help, else nothing."""
        if not self.in_vain:
            return ""
        return (
            "training did not help: this is the detector that it began from, which scored higher on the validation "
            "images (best.safetensors); last.safetensors is what was learned"
        )

    def scores(self) -> str:
        """A hint where one score for all classes suits some of them badly, else nothing."""
        common = self.shown
        if common is None or self.metrics is None or len(self.metrics.classes) < 2:
            return ""
        apart = [c for c in self.metrics.classes if c.f1 > 0 and abs(c.threshold - common) >= _APART]
        if not apart:
            return ""

        def cut(score: float) -> str:
            """Down to two digits, so that the detection with this score is shown."""
            return f"{math.floor(100 * score) / 100:.2f}"

        farthest = sorted(apart, key=lambda c: -abs(c.threshold - common))[:_WORST]
        own = shlex.quote(",".join(f"{c.name}={cut(c.threshold)}" for c in farthest))
        first = f"the {len(farthest)} farthest of {len(apart)} " if len(apart) > len(farthest) else ""
        return (
            f"shown from score {cut(common)}; {first}classes whose own best score is {_APART:g} or more away: "
            f"--score {own}"
        )

    def lines(self) -> list[str]:
        """For a terminal."""
        lines = ["", f"done {self.taken()}", self.headline()]
        lines += [self.vain()] if self.in_vain else []
        if self.metrics is not None and len(self.metrics.classes) > 1:
            rows = sorted((c for c in self.metrics.classes if c.objects), key=lambda c: c.ap)
            shown = [
                (c.name[:32], f"{c.objects:,}", *(decimal(v) for v in (c.ap, c.ap50, c.f1, c.threshold)))
                for c in rows[:_CLASSES]
            ]
            lines += table(("class", "objects", "AP", "AP50", "best F1", "at score"), shown).splitlines()
            if len(rows) > _CLASSES:
                lines.append(f"({plural(len(rows) - _CLASSES, 'class')} with a higher AP: report.html)")
        if self.metrics is not None and (hint := self.metrics.hint()):
            more = f"--minutes {self.deadline.seconds / 60:g}" if self.deadline is not None else "--epochs MORE"
            lines += [hint, f"longer:   fcos train --resume --out {shlex.quote(str(self.kept))} {more}"]
        if scores := self.scores():
            lines.append(f"{'scores:':<9} {scores}")
        if self.outlook is not None:
            lines.append(f"{'more:':<9} {self.outlook}")
        if self.worst:
            lines += [f"{'look at:' if w is self.worst[0] else '':<9} {w}" for w in self.worst]
        return [*lines, *(f"{key + ':':<9} {command}" for key, command in self.next())]

    def sentences(self) -> list[str]:
        """For the page of the run."""
        told = [f"Done {self.taken()}. {self.headline()}."]
        told += [f"{line[0].upper()}{line[1:]}." for line in (self.vain(), self.scores()) if line]
        if self.outlook is not None:
            told.append(f"{self.outlook}.")
        if self.worst:
            told.append(f"Look at: {'; '.join(str(w) for w in self.worst)}.")
        return told

    def next(self) -> list[tuple[str, str]]:
        """(what for, command) with the paths of this run."""
        run = shlex.quote(str(self.kept))
        here = isinstance(self.kept, Path)
        page = self.kept / "report.html" if isinstance(self.kept, Path) else f"{self.kept.rstrip('/')}/report.html"
        steps = [("report", str(page))]
        if here and self.metrics is not None and (self.sources.get("val") or self.sources.get("data")):
            steps += [("evaluate", f"fcos eval {run}"), ("explain", f"fcos explain {run}")]
        image = next((w.path for w in self.worst if w.path is not None), None)
        steps += [("detect", f"fcos predict {shlex.quote(str(image)) if image else 'IMAGE'} --model {run}")]
        first = "" if find_spec("onnx") else f"    # first: {install_line('onnx')}"
        return [*steps, ("export", f"fcos export --model {run} --format onnx{first}")]
