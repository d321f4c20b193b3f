"""Variants of one trained network beside each other and beside the paper's numbers: what several studies come to.

The paper's numbers are those of ResNet-50 on COCO; they stand beside this project's to compare the direction, not the
height.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..detections import Detections
from ..evaluation.coco import evaluate
from ..show.bar_plots import bars
from ..system.terminal import data_name, json_ready, percent, plural, table

if TYPE_CHECKING:
    from ..data.dataset import Dataset


@dataclass(frozen=True)
class Row:
    """One variant: its numbers by name, 0..1, and the paper's where it has them."""

    name: str
    numbers: dict[str, float]
    paper: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperStudy:
    """A table of variants. `advice`: settings for the config, where the study gives some; `extra`: what
    the plot needs (arrays), not printed."""

    study: str
    data: str
    split: str
    images: int
    rows: tuple[Row, ...]
    advice: str = ""
    note: str = ""
    extra: dict[str, Any] = field(default_factory=dict, repr=False)
    drawing: Callable[[PaperStudy, Path], None] = field(default=lambda study, path: ap_bars(study, path), repr=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return json_ready(
            {k: v for k, v in vars(self).items() if k not in ("rows", "extra", "drawing")}
            | {"rows": [vars(r) for r in self.rows]}
        )

    def text(self) -> str:
        """For a terminal."""
        names = list(dict.fromkeys(k for r in self.rows for k in r.numbers))
        cited = [k for k in names if any(k in r.paper for r in self.rows)]
        head = (self.study, *names, *(f"paper {k}" for k in cited))
        rows = [
            (r.name, *(percent(r.numbers.get(k)) for k in names), *(percent(r.paper.get(k), 1) for k in cited))
            for r in self.rows
        ]
        lines = [f"{self.data}, split {self.split}, {plural(self.images, 'image')}; all in %", table(head, rows)]
        if self.note:
            lines.append(self.note)
        if self.advice:
            lines += ["best setting found here:", f"  {self.advice}"]
            if self.split.startswith("test"):
                lines.append("  (chosen on a test split: check it on another before relying on it)")
        return "\n".join(lines)

    def plot(self, path: Path) -> None:
        """Write the plot of the study: bars of its AP beside the paper's, where it has no other."""
        self.drawing(self, path)

    @classmethod
    def of(cls, study: str, dataset: Dataset, rows: Sequence[Row], **more: Any) -> Self:
        """Of what was judged on `dataset`."""
        return cls(study, str(dataset.root), dataset.split, len(dataset), tuple(rows), **more)


def judged_ap(detections: Sequence[Detections], dataset: Dataset) -> dict[str, float]:
    """AP, AP50 and AP75 of a row."""
    m = evaluate(detections, dataset)
    return {"AP": m.ap, "AP50": m.ap50, "AP75": m.ap75}


def ap_bars(study: PaperStudy, path: Path) -> None:
    """The AP of each row beside the paper's."""
    number_bars(study, path, ["AP"])


def number_bars(study: PaperStudy, path: Path, keys: Sequence[str]) -> None:
    """These numbers of each row beside the paper's."""
    names, here, paper = [], [], []
    for row in study.rows:
        for key in keys:
            names.append(f"{row.name}, {key}")
            here.append(row.numbers.get(key))
            paper.append(row.paper.get(key))
    title = f"{study.study}: {data_name(study.data)}, {study.split}"
    bars(path, title, names, {"here": here, "paper (COCO, R-50)": paper})
