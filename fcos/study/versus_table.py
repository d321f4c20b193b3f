"""What `fcos study versus` comes to: methods with their runs, beside the paper's rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..system.terminal import data_name, json_ready, percent, table

_T95 = (math.nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # Student's t by degrees of freedom
CITED = (
    "paper: 1904.01355v5, ResNet-50 on COCO minival; RetinaNet's 35.9 and FCOS's 38.7 from memory. FCOS as RPN without "
    "centerness: 48.0 / 59.3.\n"
    "CornerNet is another network and not trained here: AP 40.5, AP50 56.5, AP75 43.1 with Hourglass-104 on COCO\n"
    "test-dev (arXiv 1808.01244, as 1904.01355 quotes it, from memory), beside FCOS's 41.5 with ResNet-101."
)


class Method(NamedTuple):
    """A row: what it is called, changes to the settings, the rival's kind ("": FCOS), whether all objects are one
    class, and the paper's numbers, 0..1 (1904.01355v5: ResNet-50, COCO minival)."""

    name: str
    changes: tuple[dict[str, Any], ...]
    rival: str = ""
    one_class: bool = False
    paper: Mapping[str, float] = {}


class Cost(NamedTuple):
    """Of a method: optimiser steps of its minutes (0: the settings say them), seconds a step and an image, output
    variables, parameters."""

    steps: int
    step: float
    image: float
    outputs: int
    parameters: int


@dataclass(frozen=True)
class Cell:
    """One run: its optimiser steps; AP and the others 0..1, nan where they mean nothing; the interval of its AP by the
    choice of images."""

    steps: int
    AP: float
    AP50: float
    low: float
    high: float
    AR100: float
    AR1000: float


@dataclass(frozen=True)
class MethodRow:
    """A method with all its runs."""

    key: str
    method: Method
    cost: Cost
    cells: tuple[Cell, ...]

    def mean(self, name: str) -> float:
        """Over the seeds."""
        return float(np.mean([getattr(c, name) for c in self.cells]))

    def interval(self) -> tuple[float, float]:
        """95 % of AP: Student's over the seeds, or of one seed by the choice of images."""
        if len(self.cells) == 1:
            return self.cells[0].low, self.cells[0].high
        values = [c.AP for c in self.cells]
        half = _T95[min(len(values), len(_T95)) - 1] * float(np.std(values, ddof=1)) / len(values) ** 0.5
        return max(self.mean("AP") - half, 0.0), min(self.mean("AP") + half, 1.0)


@dataclass(frozen=True)
class VersusStudy:
    """All methods on one data set. budget: what each run had; judged: the split and its number of images."""

    data: str
    budget: str
    judged: str
    rows: tuple[MethodRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        rows = [
            {
                "key": r.key,
                "name": r.method.name,
                "paper": dict(r.method.paper),
                **{k: v for k, v in r.cost._asdict().items() if k != "steps"},
                "interval": r.interval(),
                "seeds": [vars(c) for c in r.cells],
            }
            for r in self.rows
        ]
        return json_ready({"data": self.data, "budget": self.budget, "judged": self.judged, "rows": rows})

    def text(self) -> str:
        """For a terminal."""
        scores = ("", "seeds", "AP", "95 %", "AP50", "AR@100", "AR@1000", "paper AP", "paper AR@100", "paper AR@1000")
        costs = ("", "outputs", "parameters", "steps", "s a step", "ms an image")
        reached, spent = [], []
        for r in self.rows:
            low, high = r.interval()
            spread = "-" if math.isnan(low) else f"{percent(low, 1)} to {percent(high, 1)}"
            numbers = (percent(r.mean(k)) for k in ("AP50", "AR100", "AR1000"))
            cited = (percent(r.method.paper.get(k), 1) for k in ("AP", "AR@100", "AR@1000"))
            reached.append((r.method.name, len(r.cells), percent(r.mean("AP")), spread, *numbers, *cited))
            spent.append(
                (r.method.name, f"{r.cost.outputs:,}", f"{r.cost.parameters / 1e6:.2f} M", f"{r.cells[0].steps:,}",
                 f"{r.cost.step:.2f}", f"{r.cost.image * 1000:.0f}")
            )  # fmt: skip
        told = f"{self.data}, {self.budget} each, judged on {self.judged}; AP and AR in %"
        over = "95 %: over the seeds (Student), of one seed by the choice of images"
        return "\n".join([told, table(scores, reached), over, "", table(costs, spent), "", CITED])

    def plot(self, path: Path) -> None:
        """Bars of AP and of AR@100 beside the paper's AP."""
        from ..show.bar_plots import Columns, bars

        columns: Columns = {
            "AP here": [r.mean("AP") for r in self.rows],
            "AR@100 of proposals": [r.mean("AR100") for r in self.rows],
            "paper AP (COCO, R-50)": [r.method.paper.get("AP") for r in self.rows],
        }
        bars(path, f"versus: AP and proposals, {data_name(self.data)}", [r.method.name for r in self.rows], columns)
