"""Learning curves: AP over time and over images, as measured and as forecast."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..evaluation.forecast import Curve
from .axes import INK, MUTED, new_figure, style


class Learned(NamedTuple):
    """One side: what x is, the points (x, AP) that were measured, the curve through them, and how far to draw it."""

    what: str
    points: Sequence[tuple[float, float]]
    curve: Curve
    end: float


def learning_curves(sides: Sequence[Learned], path: str | Path) -> None:
    """A PNG with a plot for each side: dots measured, line and 90 % band forecast; grey line: where measuring ended."""
    figure = new_figure(5.6 * len(sides), 4.6)
    for place, side in enumerate(sides, start=1):
        axes = figure.add_subplot(1, len(sides), place)
        style(axes, f"AP by {side.what}", x=side.what, y="AP" if place == 1 else "")
        x = np.linspace(side.points[0][0], side.end, 60)
        at = np.array([side.curve.at(v) for v in x])
        axes.fill_between(x, at[:, 1], at[:, 2], color="#2563eb", alpha=0.15, linewidth=0, label="90 % interval")
        axes.plot(x, at[:, 0], color="#2563eb", linewidth=2, label="forecast")
        axes.axvline(side.points[-1][0], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        axes.plot(*zip(*side.points, strict=True), "o", color=INK, markersize=6, label="measured")
        axes.set_xlim(0, side.end)
        axes.legend(loc="lower right", frameon=False, fontsize=9, labelcolor=INK)
    figure.savefig(path)
