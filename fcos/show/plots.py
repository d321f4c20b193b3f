"""The plots of an evaluation: precision-recall, F1 by confidence, confusion.

matplotlib loads only when a function is called, and without a display. Every function writes a PNG. With
few classes each has a line in the colour it has on images; with many, the weakest stand out of the grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation.metrics import Curve, Curves, Floats, Ints, coco_ap
from ..evaluation.operating_point import Cut
from .axes import INK, LINES, MUTED, POOLED, class_name, heading, names_width, new_figure
from .draw import label_color
from .fonts import families

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MANY = 12  # classes that can be told apart by colour
DASHED = (0, (4, 2))
WEAKEST = 6  # named where there are many
NAMED_CELLS = 20  # a confusion matrix with more classes has no numbers in its cells
MOST_CELLS = 100  # one with more shows those with most mistakes: of 1,203 it would have 10 GB of pixels


def pr_curve(curves: Curves, path: str | Path) -> None:
    """Precision over recall: all detections pooled at each IoU, each class at the first IoU. The AP are COCO's."""
    ious = list(curves.pooled)
    figure, axes = _sheet("Precision and recall", "recall", "precision")
    lines = [(coco_ap(curve), curve) for curve in curves.classes[ious[0]]]
    _class_lines(axes, curves.names, lines, lambda curve: _steps(curve), f"AP at IoU {ious[0]:g}")
    known = [curve for value, curve in lines if np.isfinite(value)]
    if len(known) > 1:
        grid = np.linspace(0, 1, 1001)
        mean = np.mean([_precision_at(curve, grid) for curve in known], axis=0)
        label = f"mean of classes   {_text(float(np.mean([coco_ap(curve) for curve in known])))}"
        axes.plot(grid, mean, color=POOLED[0], linewidth=1.8, linestyle=DASHED, label=label, zorder=5)
    for color, iou in zip(POOLED, ious, strict=False):
        curve = curves.pooled[iou]
        label = f"all, IoU {iou:g}   {_text(coco_ap(curve))}"
        axes.plot(*_steps(curve), color=color, linewidth=2.4, label=label, zorder=5)
    curve = curves.pooled[ious[0]]
    threshold, _ = curve.best()
    if np.isfinite(threshold):
        last = int(np.searchsorted(-curve.scores, -threshold, side="right")) - 1
        label = f"all, at score {_text(threshold)} (best F1)"
        spot = [curve.recall[last]], [curve.precision[last]]
        axes.plot(*spot, "o", color=POOLED[0], markersize=7, label=label, zorder=6)
    _finish(figure, axes, path)


def f1_curve(curves: Curves, path: str | Path) -> None:
    """F1 of the detections above each confidence, at the first IoU; a dot marks the best threshold."""
    iou = next(iter(curves.pooled))
    scores = curves.pooled[iou].scores
    low, high = min(0.0, scores.min(initial=0.0)), max(1.0, scores.max(initial=1.0))  # of other programs, in percent
    grid = np.linspace(low, high, 501)
    figure, axes = _sheet(f"F1 by confidence (IoU {iou:g})", "confidence threshold", "F1")
    axes.set_xlim(low, high)
    lines = [(curve.best()[1], curve) for curve in curves.classes[iou]]
    _class_lines(axes, curves.names, lines, lambda curve: (grid, curve.f1(grid)), "best F1")
    known = [curve for value, curve in lines if np.isfinite(value)]
    if len(known) > 1:
        mean = np.mean([curve.f1(grid) for curve in known], axis=0)
        label = f"mean of classes   {_text(float(mean.max()))} at {_text(float(grid[mean.argmax()]))}"
        axes.plot(grid, mean, color=POOLED[0], linewidth=1.8, linestyle=DASHED, label=label, zorder=5)
    pooled = curves.pooled[iou]
    threshold, best = pooled.best()
    label = f"all   {_text(best)} at {_text(threshold)}"
    axes.plot(grid, pooled.f1(grid), color=POOLED[0], linewidth=2.4, label=label, zorder=5)
    if np.isfinite(threshold):
        axes.plot([threshold, threshold], [0, best], color=POOLED[0], linewidth=1, linestyle=(0, (1, 2)), zorder=4)
        axes.plot([threshold], [best], "o", color=POOLED[0], markersize=7, zorder=6)
    _finish(figure, axes, path)


def confusion_matrix(matrix: Ints, names: Sequence[str], path: str | Path, cut: Cut = Cut()) -> None:
    """Counts [C+1, C+1] of `metrics.confusion` at `cut`: rows truth, columns prediction. Blue is right, orange wrong,
    the darker the larger the share of the row. Of more than `MOST_CELLS` classes those with most mistakes."""
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    of = ""
    if len(names) > MOST_CELLS:
        of = f"the {MOST_CELLS} of {len(names):,} classes with most mistakes; "
        mistakes = (matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * matrix.diagonal())[:-1]
        worst = np.sort(np.argsort(-mistakes, kind="stable")[:MOST_CELLS])
        names = [names[label] for label in worst]
        rows = np.append(worst, len(matrix) - 1)
        matrix, share = matrix[np.ix_(rows, rows)], share[np.ix_(rows, rows)]
    classes = len(names)
    numbers = classes <= NAMED_CELLS
    size = 10 if numbers else 7
    shown = list(map(class_name, names))
    side = 1.8 + names_width([*shown, "background"], size) + (0.55 if numbers else 0.19) * (classes + 1)
    figure = new_figure(max(side + 1.2, 6.4), max(side, 5.2))
    axes = figure.add_subplot()
    right = np.eye(classes + 1, dtype=bool)
    for cells, colors in ((~right, "Oranges"), (right, "Blues")):
        # The scale starts below 0: a single mistake must not look like an empty cell.
        filled = np.ma.masked_where(~cells | (matrix == 0), share)
        axes.imshow(filled, cmap=colors, vmin=-0.15, vmax=1, aspect="equal")
    axes.set_facecolor("#f6f7f9")
    family = families(names)
    axes.set_xticks(
        range(classes + 1),
        [*shown, "missed"],
        rotation=90 if classes > 6 else 35,
        fontsize=size,
        fontfamily=family,
    )
    if classes <= 6:
        for tick in axes.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")
    axes.set_yticks(range(classes + 1), [*shown, "background"], fontsize=size, fontfamily=family)
    axes.tick_params(length=0, colors=INK)
    axes.set_xlabel("found as", color=MUTED, fontsize=11)
    axes.set_ylabel("truth", color=MUTED, fontsize=11)
    for line in np.arange(classes) + 0.5:  # thin gaps between the cells
        axes.axhline(line, color="white", linewidth=1.5 if numbers else 0.4)
        axes.axvline(line, color="white", linewidth=1.5 if numbers else 0.4)
    # What was not there, and what was not found, apart from the classes.
    axes.axhline(classes - 0.5, color=MUTED, linewidth=1)
    axes.axvline(classes - 0.5, color=MUTED, linewidth=1)
    if numbers:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                color = "white" if share[row, column] > 0.55 else INK
                axes.text(column, row, f"{count}", ha="center", va="center", fontsize=9, color=color)
    for spine in axes.spines.values():
        spine.set_visible(False)
    at = f"score ≥ {cut.score:.3f}, " if cut.score is not None else ""
    heading(figure, f"What was taken for what\n{of}{at}IoU ≥ {cut.iou:g}; darker: larger share of the row")
    figure.savefig(path)


def _sheet(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = new_figure(9.6, 5.6)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", color=INK, fontsize=14, pad=12)
    axes.set_xlabel(x, color=MUTED, fontsize=11)
    axes.set_ylabel(y, color=MUTED, fontsize=11)
    axes.set(xlim=(0, 1), ylim=(0, 1.03))
    axes.grid(color=LINES, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6, colors=MUTED)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(LINES)
    return figure, axes


def _class_lines(axes: Axes, names: Sequence[str], lines: list[tuple[float, Curve]], points: Any, what: str) -> None:
    """One line per class that has objects; of many classes only the weakest are coloured and named."""
    known = [(value, k, curve) for k, (value, curve) in enumerate(lines) if np.isfinite(value)]
    many = len(known) > MANY
    known.sort(key=lambda row: row[0])  # the weakest first: they head the legend of many classes
    if not many:
        known.sort(key=lambda row: row[1])
    if known:
        title = f"weakest of {len(known)} classes, {what}" if many else f"class, {what}"
        axes.plot([], [], " ", label=title)
    for place, (value, k, curve) in enumerate(known):
        grey = many and place >= WEAKEST
        color = "#cbd0d8" if grey else _dark(label_color(place if many else k))
        label = None if grey else f"{class_name(names[k])}   {_text(value)}"
        x, y = points(curve)
        width = 0.8 if grey else 1.6
        axes.plot(x, y, color=color, linewidth=width, alpha=0.7 if grey else 0.95, label=label, zorder=2 + (not grey))


def _finish(figure: Figure, axes: Axes, path: str | Path) -> None:
    handles, labels = axes.get_legend_handles_labels()
    pooled = [i for i, handle in enumerate(handles) if handle.get_zorder() >= 5]  # of all classes
    pooled.sort(key=lambda i: labels[i].startswith("mean"))
    order = [*pooled, *(i for i in range(len(labels)) if i not in pooled)]
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside right upper",
        frameon=False,
        prop={"family": families(labels), "size": 9},
        labelcolor=INK,
    )
    figure.savefig(path)


def _steps(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Recall and the highest precision at that recall or above, from recall 0 to where the curve ends."""
    if not len(curve.recall):
        return np.zeros(1), np.zeros(1)
    highest = curve.highest
    recall = np.concatenate([[0.0], curve.recall, curve.recall[-1:]])
    return recall, np.concatenate([highest[:1], highest, [0.0]])


def _precision_at(curve: Curve, recall: Floats) -> Floats:
    """The highest precision at each `recall` or above, 0 beyond the end of the curve."""
    highest = np.append(curve.highest, 0.0)
    return highest[np.searchsorted(curve.recall, recall - 1e-12)]


def _dark(color: tuple[int, int, int]) -> tuple[float, float, float]:
    """Image colours are made for photographs; on white paper they need less light."""
    red, green, blue = (0.82 * c / 255 for c in color)
    return red, green, blue


def _text(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"
