"""The bars of the studies: shares in percent, and whole numbers. Each writes a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .axes import INK, OURS, PAPER, READ, new_figure, style

Columns = Mapping[str, Sequence[float | None]]  # shares 0..1; None and nan: no bar


def bars(path: Path, title: str, names: Sequence[str], columns: Columns, low: float = 0.0) -> None:
    """Horizontal bars in %, one group a name, one colour a column (here, as the original reads boxes, paper)."""
    figure = new_figure(9.6, 1.4 + 0.62 * len(names))
    axes = figure.add_subplot()
    style(axes, title, "%")
    high = 0.8 / len(columns)
    for k, (label, values) in enumerate(columns.items()):
        color = OURS if label == "here" else PAPER if label.startswith("paper") else READ
        shown = [(i, 100 * v) for i, v in enumerate(values) if v is not None and not np.isnan(v)]
        y = [i + (k - (len(columns) - 1) / 2) * high for i, _ in shown]
        axes.barh(y, [v for _, v in shown], high * 0.92, color=color, label=label)
        for at, (_, v) in zip(y, shown, strict=True):
            axes.text(v, at, f" {v:.2f}", va="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    most = max((v for values in columns.values() for v in values if v is not None and not np.isnan(v)), default=1.0)
    axes.set_xlim(100 * low, 100 * (most + 0.12 * (most - low)))
    figure.legend(loc="outside lower center", ncols=len(columns), frameon=False, labelcolor=INK)
    figure.savefig(path, format="png")


def counts(path: Path, title: str, names: Sequence[str], columns: Mapping[str, Sequence[int]]) -> None:
    """Horizontal bars of whole numbers, one group a name, one colour a column."""
    figure = new_figure(9.6, 1.4 + 0.62 * len(names))
    axes = figure.add_subplot()
    style(axes, title)
    high = 0.8 / len(columns)
    for k, (label, values) in enumerate(columns.items()):
        y = [i + (k - (len(columns) - 1) / 2) * high for i in range(len(names))]
        axes.barh(y, values, high * 0.92, color=(OURS, PAPER)[k], label=label)
        for at, v in zip(y, values, strict=True):
            axes.text(v, at, f" {v:,}", va="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks([])
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.set_xlim(0, 1.12 * max(v for values in columns.values() for v in values))
    figure.legend(loc="outside lower center", ncols=len(columns), frameon=False, labelcolor=INK)
    figure.savefig(path, format="png")
