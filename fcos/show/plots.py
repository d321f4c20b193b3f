"""The plots of an evaluation (precision-recall, F1 by confidence, confusion) and of a run (labels, results).

matplotlib loads only when a function is called, and without a display. Every function writes a PNG. With
few classes each has a line in the colour it has on images; with many, the weakest stand out of the grey.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..evaluation.metrics import Curve, Curves, Floats, Ints, voc_ap
from .draw import label_color, level_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, LINES = "#22262e", "#6b7280", "#e5e7eb"
POOLED = ("#111827", "#4b5563", "#9ca3af")  # strict IoU thresholds fade
MANY = 12  # classes that can be told apart by colour
DASHED = (0, (4, 2))
WEAKEST = 6  # named where there are many
NAMED_CELLS = 20  # a confusion matrix with more classes has no numbers in its cells
NAMED_BARS = 30  # of more classes the most and the least frequent are shown
ALARM, BAR = "#dc2626", "#64748b"


def pr_curve(curves: Curves, path: str | Path) -> None:
    """Precision over recall: all detections pooled at each IoU, each class at the first IoU."""
    ious = list(curves.pooled)
    figure, axes = _sheet("Precision and recall", "recall", "precision")
    lines = [(voc_ap(curve), curve) for curve in curves.classes[ious[0]]]
    _class_lines(axes, curves.names, lines, lambda curve: _steps(curve), f"AP at IoU {ious[0]:g}")
    known = [curve for value, curve in lines if np.isfinite(value)]
    if len(known) > 1:
        grid = np.linspace(0, 1, 1001)
        mean = np.mean([_precision_at(curve, grid) for curve in known], axis=0)
        label = f"mean of classes   {_text(float(np.mean([voc_ap(curve) for curve in known])))}"
        axes.plot(grid, mean, color=POOLED[0], linewidth=1.8, linestyle=DASHED, label=label, zorder=5)
    for color, iou in zip(POOLED, ious, strict=False):
        curve = curves.pooled[iou]
        label = f"all, IoU {iou:g}   {_text(voc_ap(curve))}"
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
    grid = np.linspace(0, 1, 501)
    figure, axes = _sheet(f"F1 by confidence (IoU {iou:g})", "confidence threshold", "F1")
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


def confusion_matrix(
    matrix: Ints, names: Sequence[str], path: str | Path, *, score: float | None = None, iou: float = 0.5
) -> None:
    """Counts [C+1, C+1] of `metrics.confusion`: rows truth, columns prediction. Blue is right, orange wrong,
    the darker the larger the share of the row."""
    classes = len(names)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    numbers = classes <= NAMED_CELLS
    side = 2.6 + (0.55 if numbers else 0.19) * (classes + 1)
    figure = _figure(max(side + 1.2, 6.4), max(side, 5.2))
    axes = figure.add_subplot()
    right = np.eye(classes + 1, dtype=bool)
    for cells, colors in ((~right, "Oranges"), (right, "Blues")):
        # The scale starts below 0: a single mistake must not look like an empty cell.
        shown = np.ma.masked_where(~cells | (matrix == 0), share)
        axes.imshow(shown, cmap=colors, vmin=-0.15, vmax=1, aspect="equal")
    axes.set_facecolor("#f6f7f9")
    size = 10 if numbers else 7
    axes.set_xticks(
        range(classes + 1), [*map(_short, names), "missed"], rotation=90 if classes > 6 else 35, fontsize=size
    )
    if classes <= 6:
        for tick in axes.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")
    axes.set_yticks(range(classes + 1), [*map(_short, names), "background"], fontsize=size)
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
    at = f"score ≥ {score:.3f}, " if score is not None else ""
    axes.set_title(
        f"What was taken for what\n{at}IoU ≥ {iou:g}; darker: larger share of the row",
        loc="left",
        color=INK,
        fontsize=12,
        pad=12,
    )
    figure.savefig(path)


@dataclass(frozen=True)
class Labels:
    """What there is to learn: boxes of each class (counts [C], names [C]), boxes in an image (per_image [N]), their
    sizes and places (size [B,2] in pixels of the network input, centre [B,2] as shares 0..1 of the image), and the
    level [B] that learns each, -1 where no location does, of levels with these strides."""

    counts: Sequence[int]
    names: Sequence[str]
    per_image: Ints
    size: Floats
    centre: Floats
    level: Ints
    strides: Sequence[int]


def labels(told: Labels, path: str | Path, *, about: str = "") -> None:
    """What there is to learn, drawn. `about` is added to the title."""
    names, size, centre, level, strides = told.names, told.size, told.centre, told.level, told.strides
    per_image = told.per_image
    figure = _figure(13.2, max(7.4, 2 + 0.21 * min(len(names), NAMED_BARS)))
    figure.suptitle(f"What there is to learn{about}", x=0.01, ha="left", color=INK, fontsize=14)
    grid = figure.add_gridspec(2, 3)
    _class_bars(figure.add_subplot(grid[:, 0]), told.counts, names)
    sizes, places, levels, images = (figure.add_subplot(grid[i, j]) for i in (0, 1) for j in (1, 2))

    style(sizes, "Width and height at the network input", "width, px", "height, px")
    shown = np.arange(len(size)) if len(size) <= 4000 else np.linspace(0, len(size) - 1, 4000).astype(int)
    colors = np.array([ALARM, *(_rgb(level_color(i)) for i in range(len(strides)))], dtype=object)
    if len(shown):
        side = np.maximum(size[shown], 0.5)
        dots = min(10.0, max(2.0, 4000 / len(shown)))
        sizes.scatter(side[:, 0], side[:, 1], s=dots, alpha=0.5, linewidths=0, c=list(colors[level[shown] + 1]))
        ends = max(1.0, float(side.min()) * 0.8), float(side.max()) * 1.25
        sizes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
        ticks = [2**k for k in range(13) if ends[0] <= 2**k <= ends[1]]
        sizes.set_xticks(ticks, [str(t) for t in ticks])
        sizes.set_yticks(ticks, [str(t) for t in ticks])
        sizes.minorticks_off()

    style(places, "Where the middles of the boxes are", "share of the width", "share of the height")
    cells = int(min(32, max(8, math.sqrt(len(centre) / 4))))
    heat, _, _ = np.histogram2d(centre[:, 1], centre[:, 0], bins=cells, range=[[0, 1], [0, 1]])
    places.imshow(heat, extent=(0, 1, 1, 0), cmap="Blues", aspect="auto", vmin=0)
    places.grid(visible=False)
    places.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])

    style(levels, "Boxes by level", "level and its stride", "boxes")
    bars = np.bincount(level + 1, minlength=len(strides) + 1)
    ticks = [f"P{stride.bit_length() - 1}\n{stride} px" for stride in strides]
    order = [*range(1, len(strides) + 1), *([0] if bars[0] else [])]
    levels.bar(range(len(order)), bars[order], 0.72, color=[colors[i] for i in order])
    for x, i in enumerate(order):
        levels.text(x, bars[i], f"{bars[i]:,}", ha="center", va="bottom", fontsize=9, color=ALARM if i == 0 else INK)
    levels.set_xticks(range(len(order)), [*ticks, "none"][: len(order)])
    levels.grid(axis="x", visible=False)
    levels.margins(y=0.15)

    style(images, "Boxes in an image", "boxes", "images")
    most = int(per_image.max()) if len(per_image) else 1
    step = max(1, math.ceil((most + 1) / 40))
    images.hist(per_image, bins=(np.arange(0, most + 1 + step, step) - 0.5).tolist(), color=BAR, rwidth=0.9)
    figure.savefig(path)


def _class_bars(axes: Axes, counts: Sequence[int], names: Sequence[str]) -> None:
    """Boxes of each class, the most frequent first; of many classes those at both ends."""
    order = sorted(range(len(names)), key=lambda k: (-counts[k], k))
    rows: list[int | None] = list(order)
    if len(order) > NAMED_BARS:
        rows = [*order[: NAMED_BARS // 2], None, *order[-(NAMED_BARS // 2 - 1) :]]
    style(axes, f"Boxes of {len(names)} classes" if len(names) > 1 else "Boxes of the class", "boxes")
    values = [0 if k is None else counts[k] for k in rows]
    axes.barh(range(len(rows)), values, 0.72, color=BAR)
    for y, k in enumerate(rows):
        if k is not None:
            axes.text(counts[k], y, f" {counts[k]:,}", va="center", fontsize=8, color=INK if counts[k] else ALARM)
    hidden = len(order) - NAMED_BARS + 1
    axes.set_yticks(range(len(rows)), [f"{hidden} more" if k is None else _short(names[k]) for k in rows], fontsize=9)
    for tick, k in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color(MUTED if k is None else INK if counts[k] else ALARM)
        tick.set_fontstyle("italic" if k is None else "normal")
    axes.set_ylim(max(len(rows), 9) - 0.4, -0.6)
    axes.set_xlim(0, max(max(values), 1) * 1.16)
    axes.grid(axis="y", visible=False)


def results(rows: Sequence[Mapping[str, str]], path: str | Path, strides: Sequence[int] = ()) -> None:
    """The run so far, from the rows of metrics.csv: losses, IoU, AP, rates. What was not measured is left out.
    `strides` name the levels."""
    from matplotlib.ticker import LogLocator, NullFormatter

    panels: list[tuple[str, list[tuple[str, str]], str]] = [
        (
            "losses",
            [
                ("classification", "class"),
                ("box", "box"),
                ("centerness", "centerness"),
                ("val_loss", "sum, validation"),
            ],
            "log",
        ),
        ("centerness loss above its floor", [("centerness_excess", "")], "zero"),
        ("IoU of positives with their boxes", [("mean_iou", "")], "share"),
        ("AP, validation", [("AP50", "AP50"), ("AP75", "AP75"), ("AP", "AP")], "share"),
        ("learning rate", [("lr", "")], "zero"),
        ("gradient norm", [("grad_norm", "")], "log"),
        ("positives a step", _levels(rows, strides), "zero"),
        ("ambiguous share of positives", [("ambiguous", "")], "zero"),
        ("images per second", [("images_per_second", "")], "zero"),
        ("waiting for data, s a step", [("data_wait", "")], "zero"),
    ]
    drawn = [p for p in panels if p[0].startswith("AP") or any(_series(rows, key)[0] for key, _ in p[1])]
    columns = 3 if len(drawn) < 10 else 4
    lines = math.ceil(len(drawn) / columns)
    figure = _figure(4.4 * columns - 0.6 * (columns - 3), 0.3 + 2.7 * lines)
    grid = figure.subplots(lines, columns, squeeze=False).flat
    for axes in grid:
        axes.set_axis_off()
    end = max((float(row["step"]) for row in rows), default=1.0)
    for axes, (title, series, scale) in zip(figure.axes, drawn, strict=False):
        axes.set_axis_on()
        style(axes, title, "step")
        known = [(label, *_series(rows, key), key) for key, label in series]
        known = [row for row in known if row[1]]
        for number, (label, x, y, key) in enumerate(known):
            many = len(x) > 40 and key != "lr"
            color = _line_color(key, number, len(known))
            marker = "o" if len(x) < 15 else None
            axes.plot(x, y, marker=marker, markersize=4, color=color, linewidth=1, alpha=0.3 if many else 1.0)
            axes.plot(x, _smooth(y) if many else y, color=color, linewidth=1.8, label=label)
            if key == "AP":
                best = int(np.argmax(y))
                axes.plot(x[best], y[best], "o", color=color, markersize=6, label=f"best AP {y[best]:.3f}")
        if not known:
            axes.text(0.5, 0.5, "not measured yet", ha="center", va="center", transform=axes.transAxes, color=MUTED)
            axes.set(xticks=[], yticks=[])
        elif scale == "log" and min(min(y) for _, _, y, _ in known) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.tick_params(which="minor", length=0)
        else:
            axes.set_ylim(0, 1 if scale == "share" else None)
        axes.set_xlim(0, 1.02 * end)
        if len(known) > 1:
            axes.legend(
                loc="lower right",
                bbox_to_anchor=(1.01, 0.99),
                ncols=len(known) + (series[-1][0] == "AP"),
                frameon=False,
                fontsize=8,
                labelcolor=INK,
                handlelength=0.9,
                handletextpad=0.4,
                columnspacing=0.9,
                borderpad=0.2,
            )
    figure.savefig(path)


def _levels(rows: Sequence[Mapping[str, str]], strides: Sequence[int]) -> list[tuple[str, str]]:
    """The parts of the column of positives by level, "12 5 0", where they were counted, else their sum."""
    counted = next((r["positives_by_level"] for r in rows if r.get("positives_by_level")), "").split()
    names = [f"P{stride.bit_length() - 1}" for stride in strides] or [str(i) for i in range(len(counted))]
    return [(f"positives_by_level {i}", n) for i, n in enumerate(names[: len(counted)])] or [("positives", "")]


def _line_color(key: str, place: int, lines: int) -> Any:
    if key.startswith("positives_by_level"):
        return _rgb(level_color(place))
    if key.startswith("AP"):
        return {"AP": POOLED[0], "AP50": "#2563eb", "AP75": "#93c5fd"}[key]
    return ("#2563eb", "#f59e0b", "#10b981", POOLED[0])[place] if lines > 1 else "#2563eb"


def _series(rows: Sequence[Mapping[str, str]], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of a column, or of the i-th number in it for "column i"; empty cells and what is not
    finite left out."""
    name, _, place = key.partition(" ")
    pairs = [(float(r["step"]), float(r[name].split()[int(place or 0)])) for r in rows if r.get(name)]
    pairs = [p for p in pairs if math.isfinite(p[1])]
    return [p[0] for p in pairs], [p[1] for p in pairs]


def _smooth(values: Sequence[float]) -> Floats:
    """Running mean over a twentieth of the run on either side, shorter at the ends."""
    width = max(1, len(values) // 20)
    total = np.cumsum(np.concatenate(([0.0], values)))
    low = np.maximum(np.arange(len(values)) - width, 0)
    high = np.minimum(np.arange(len(values)) + width + 1, len(values))
    result: Floats = (total[high] - total[low]) / (high - low)
    return result


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


def _rgb(color: tuple[int, int, int]) -> tuple[float, float, float]:
    red, green, blue = (c / 255 for c in color)
    return red, green, blue


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    return Figure(figsize=(width, height), dpi=130, layout="constrained", facecolor="white")


def _sheet(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = _figure(9.6, 5.6)
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
        label = None if grey else f"{_short(names[k])}   {_text(value)}"
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
        fontsize=9,
        labelcolor=INK,
    )
    figure.savefig(path)


def _steps(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Recall and the highest precision at that recall or above, from recall 0 to where the curve ends."""
    if not len(curve.recall):
        return np.zeros(1), np.zeros(1)
    highest = np.maximum.accumulate(curve.precision[::-1])[::-1]
    recall = np.concatenate([[0.0], curve.recall, curve.recall[-1:]])
    return recall, np.concatenate([highest[:1], highest, [0.0]])


def _precision_at(curve: Curve, recall: Floats) -> Floats:
    """The highest precision at each `recall` or above, 0 beyond the end of the curve."""
    highest = np.append(np.maximum.accumulate(curve.precision[::-1])[::-1], 0.0)
    return highest[np.searchsorted(curve.recall, recall - 1e-12)]


def _dark(color: tuple[int, int, int]) -> tuple[float, float, float]:
    """Image colours are made for photographs; on white paper they need less light."""
    red, green, blue = (0.82 * c / 255 for c in color)
    return red, green, blue


def _short(name: str, limit: int = 22) -> str:
    """`name`, cut in the middle: long names often differ only at the end."""
    return name if len(name) <= limit else f"{name[: limit - limit // 2 - 1]}…{name[-(limit // 2) :]}"


def _text(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"


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
