"""The plots of a run: its labels, and how losses, AP and speed went. Each writes a PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.records import evenly
from ..evaluation.metrics import Floats, Ints
from ..points import level_name
from .axes import INK, MUTED, POOLED, class_name, heading, new_figure, style
from .draw import level_in_plot
from .fonts import families

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Lines = list[tuple[str, str]]  # of a panel: column of metrics.csv, label
NAMED_BARS = 30  # of more classes the most and the least frequent are shown
ALARM, BAR = "#dc2626", "#64748b"


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
    figure = new_figure(13.2, max(7.4, 2 + 0.21 * min(len(names), NAMED_BARS)))
    heading(figure, f"What there is to learn{about}", 14)
    grid = figure.add_gridspec(2, 3)
    _class_bars(figure.add_subplot(grid[:, 0]), told.counts, names)
    sizes, places, levels, images = (figure.add_subplot(grid[i, j]) for i in (0, 1) for j in (1, 2))

    style(sizes, "Width and height at the network input", "width, px", "height, px")
    shown = evenly(len(size), 4000)
    colors = np.array([ALARM, *(level_in_plot(i) for i in range(len(strides)))], dtype=object)
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
    ticks = [f"{level_name(stride)}\n{stride} px" for stride in strides]
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
    shown = [f"{hidden} more" if k is None else class_name(names[k]) for k in rows]
    axes.set_yticks(range(len(rows)), shown, fontsize=9, fontfamily=families(shown))
    for tick, k in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set_color(MUTED if k is None else INK if counts[k] else ALARM)
        tick.set_fontstyle("italic" if k is None else "normal")
    axes.set_ylim(max(len(rows), 9) - 0.4, -0.6)
    axes.set_xlim(0, max(max(values), 1) * 1.16)
    axes.grid(axis="y", visible=False)


def results(rows: Sequence[Mapping[str, str]], path: str | Path, strides: Sequence[int] = ()) -> None:
    """The run so far, from the rows of metrics.csv: losses, IoU, AP, rates. What was not measured is left out.
    `strides` name the levels."""
    panels = _panels(rows, strides)
    drawn = [p for p in panels if p[0].startswith("AP") or any(_series(rows, key)[0] for key, _ in p[1])]
    columns = 3 if len(drawn) < 10 else 4
    lines = math.ceil(len(drawn) / columns)
    figure = new_figure(4.4 * columns - 0.6 * (columns - 3), 0.3 + 2.7 * lines)
    grid = figure.subplots(lines, columns, squeeze=False).flat
    for axes in grid:
        axes.set_axis_off()
    end = max([1.0, *(float(row["step"]) for row in rows)])  # a run may be judged before its first step
    for axes, (title, series, scale) in zip(figure.axes, drawn, strict=False):
        axes.set_axis_on()
        style(axes, title, "step")
        _draw_panel(axes, rows, series, scale)
        axes.set_xlim(0, 1.03 * end)
    figure.savefig(path)


def _panels(rows: Sequence[Mapping[str, str]], strides: Sequence[int]) -> list[tuple[str, Lines, str]]:
    """(title, lines, scale) of each panel."""
    return [
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


def _draw_panel(axes: Axes, rows: Sequence[Mapping[str, str]], series: Lines, scale: str) -> None:
    """The lines that were measured, with a legend where there are several."""
    from matplotlib.ticker import LogLocator, NullFormatter

    known = [(label, *_series(rows, key), key) for key, label in series]
    known = [row for row in known if row[1]]
    for number, (label, x, y, key) in enumerate(known):
        many = len(x) > 40 and key != "lr"
        color = _line_color(key, number, len(known))
        marker = "o" if len(x) < 15 else None
        if many:
            axes.plot(x, y, color=color, linewidth=1, alpha=0.3)
        shown = _smooth(y) if many else y
        axes.plot(x, shown, marker=marker, markersize=4, color=color, linewidth=1.8, label=label)
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
        axes.set_ylim(0, 1.03 if scale == "share" else None)
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


def _levels(rows: Sequence[Mapping[str, str]], strides: Sequence[int]) -> Lines:
    """The parts of the column of positives by level, "12 5 0", where they were counted, else their sum."""
    counted = next((r["positives_by_level"] for r in rows if r.get("positives_by_level")), "").split()
    names = [level_name(stride) for stride in strides] or [str(i) for i in range(len(counted))]
    return [(f"positives_by_level {i}", n) for i, n in enumerate(names[: len(counted)])] or [("positives", "")]


def _line_color(key: str, place: int, lines: int) -> Any:
    if key.startswith("positives_by_level"):
        return level_in_plot(place)
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
