"""What the plots share: colours, an empty figure, and axes with a title, labels and a quiet grid.

matplotlib loads only when a figure is made, and without a display.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..system.stderr import quieter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, LINES = "#22262e", "#6b7280", "#e5e7eb"
POOLED = ("#111827", "#4b5563", "#9ca3af")  # of all classes; strict IoU thresholds fade
OURS, READ, PAPER = "#2563eb", "#93c5fd", "#f59e0b"
COLORS = ("#2563eb", "#f59e0b", "#10b981", "#db2777", "#7c3aed", "#6b7280")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    with quieter(logging.ERROR, "matplotlib"):  # it tells of a HOME without room for its cache
        from matplotlib.figure import Figure  # without pyplot: no display, no global state

    return Figure(figsize=(width, height), dpi=130, layout="constrained", facecolor="white")


def style(axes: Axes, title: str, x: str = "", y: str = "") -> None:
    """Title, labels and a quiet grid."""
    axes.set_title(title, loc="left", color=INK, fontsize=12, pad=10)
    axes.set_xlabel(x, color=MUTED)
    axes.set_ylabel(y, color=MUTED)
    axes.grid(color=LINES, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=MUTED)
    for spine in axes.spines.values():
        spine.set_visible(False)


def heading(figure: Figure, title: str, size: float = 12) -> None:
    """A title from the left edge of the figure on: above the axes long names at their side would push it out."""
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=size)


def names_width(names: Iterable[str], size: float) -> float:
    """Inches that the widest of these names takes in letters of `size` points."""
    from rich.cells import cell_len  # signs of some scripts are two columns wide

    return 0.6 * size / 72 * max(map(cell_len, names), default=0)


def short_name(name: str) -> str:
    """A name as pictures and plots write it: cut in the middle, since long names often differ only at the end."""
    return name if len(name) <= 22 else f"{name[:10]}…{name[-11:]}"


def class_name(name: str) -> str:
    """A short name as a plot writes it: dollars are no formula, and an underscore in front does not hide it from the
    legend."""
    short = short_name(name)
    return ("\u200b" if short.startswith("_") else "") + short.replace("$", r"\$")
