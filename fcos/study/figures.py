"""The pictures of the studies. matplotlib loads when a function is called, without a display."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..analysis.common import data_name
from ..show.plots import INK, MUTED, _figure, style

if TYPE_CHECKING:
    from .paper import PaperStudy

OURS, READ, PAPER = "#2563eb", "#93c5fd", "#f59e0b"
_COLORS = ("#2563eb", "#f59e0b", "#10b981", "#db2777", "#7c3aed", "#6b7280")


def bars(path: Path, title: str, names: list[str], columns: dict[str, list[float | None]], low: float = 0.0) -> None:
    """Horizontal bars in %, one group a name, one colour a column (here, as the original reads boxes, paper)."""
    figure = _figure(9.6, 1.4 + 0.62 * len(names))
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


def counts(path: Path, title: str, names: list[str], columns: dict[str, list[int]]) -> None:
    """Horizontal bars of whole numbers, one group a name, one colour a column."""
    figure = _figure(9.6, 1.4 + 0.62 * len(names))
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


def paper_plot(study: PaperStudy, path: Path) -> None:
    """The picture of one of the studies of `paper.py`."""
    if study.study == "centerness":
        _centerness(study, path)
    elif study.study == "nms":
        _nms(study, path)
    else:
        keys = list(dict.fromkeys(k for r in study.rows for k in (*r.numbers, *r.paper)))
        names, here, paper = [], [], []
        for row in study.rows:
            for key in keys if study.study == "proposals" else ["AP"]:
                names.append(f"{row.name}, {key}")
                here.append(row.numbers.get(key))
                paper.append(row.paper.get(key))
        bars(
            path,
            f"{study.study}: {data_name(study.data)}, {study.split}",
            names,
            {"here": here, "paper (COCO, R-50)": paper},
        )


def _centerness(study: PaperStudy, path: Path) -> None:
    figure = _figure(13.6, 4.2)
    left, middle, right = figure.subplots(1, 3)
    points = study.extra["scatter"]
    for axes, column, title in ((left, 0, "class probability"), (middle, 1, "class probability x centerness")):
        style(axes, title, "score", "IoU with its object")
        axes.scatter(points[:, column], points[:, 2], s=4, alpha=0.25, color=OURS, linewidths=0)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
        axes.set(xlim=(0, 1), ylim=(0, 1))
    style(right, "all classes as one", "recall", "precision")
    styles = {0.5: "-", 0.75: (0, (5, 2)), 0.9: (0, (1, 1.5))}
    for (name, curves), color in zip(study.extra["curves"].items(), _COLORS, strict=False):
        for least, curve in curves.items():
            label = name if least == 0.5 else None
            right.plot(curve.recall, curve.precision, color=color, linestyle=styles[least], linewidth=1.4, label=label)
    for least, line in styles.items():
        right.plot([], [], color=MUTED, linestyle=line, label=f"IoU {least:g}")
    right.set(xlim=(0, 1), ylim=(0, 1.02))
    figure.legend(frameon=False, labelcolor=INK, fontsize=9, loc="outside right upper")
    figure.savefig(path, format="png")


def _nms(study: PaperStudy, path: Path) -> None:
    from .paper import NMS_IOU

    figure = _figure(8.4, 4.6)
    axes = figure.add_subplot()
    style(axes, "AP by NMS threshold and score rule", "NMS threshold, IoU", "AP, %")
    grid: dict[str, Any] = study.extra["grid"]
    for (rule, values), color in zip(grid.items(), _COLORS, strict=False):
        line = "o--" if rule.startswith("sqrt") else "o-"  # ranks as its square does, and would hide it
        axes.plot(NMS_IOU, 100 * np.array(values), line, color=color, markersize=4, label=rule)
    axes.legend(frameon=False, labelcolor=INK)
    figure.savefig(path, format="png")
