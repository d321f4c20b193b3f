"""The doctor's page: findings, plots and advice in one HTML file. matplotlib loads here, late."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ..data.dataset import EXAMPLES
from ..data.images.reading import read_image
from ..errors import ImageError
from ..points import level_name
from ..show.axes import INK, MUTED, class_name, heading, names_width, new_figure, style
from ..show.draw import level_in_plot
from ..show.fonts import families
from ..show.page import Page
from ..system.terminal import data_name, percent
from .doctor import Diagnosis
from .findings import Finding

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CLASSES = 40  # shown in a plot
_TILE = 240  # pixels of a thumbnail
_AROUND = 96  # pixels of the surroundings that a small box is shown in
_NONE = np.zeros((0, 4))
_MARKS = ((220, 38, 38), (37, 99, 235))  # of the first and the second box of a pair
_SPLITS = ("#64748b", "#60a5fa", "#f59e0b", "#a3a3a3", "#10b981", "#db2777", "#7c3aed")  # colours of splits
_HATCHES = ("", "//", "..")  # for more splits than there are colours
_WIDE = 4.6  # inches of a plot: narrow, so that a telephone shows its letters at nearly their size
_SMALL = 10  # points
_NUMBERED = 12  # classes whose shares are written into the cells


def write_page(path: str | Path, diagnosis: Diagnosis) -> Path:
    """Write the page."""
    d = diagnosis
    page = Page(f"{data_name(d.data) or d.data}: the doctor's report")
    page.text(f"Verdict: {d.verdict()}.")
    page.table(("split", "images", "boxes"), [(k, f"{p:,}", f"{b:,}") for k, (p, b) in d.splits.items()])
    page.heading("Findings")
    if d.findings:
        rows = [(f.level, f.told, "; ".join(f.places(EXAMPLES)), d.advice(f), f"{f.count:,}") for f in d.findings]
        page.table(("", "what", "where", "what to do", "count"), rows, left=4)
    else:
        page.text("No problems found.")
    for finding in d.findings:
        tiles, titles = _thumbnails(finding)
        if tiles:
            page.tiles(tiles, titles, f"{finding.told}: {min(len(tiles), finding.count):,} of {finding.count:,}")
    page.heading(f"What FCOS sees at input {d.size[0]}/{d.size[1]} ({d.trained_on})")
    page.text(f"{d.counted()}.")
    n = d.numbers()
    rows2 = [
        ("best possible recall", f"{percent(n['best_possible_recall'])} %"),
        ("boxes without a location", f"{n['boxes_without_location']:,} of {d.scan.boxes:,}"),
        ("boxes hidden by smaller ones", f"{n['boxes_outranked']:,}"),
        ("ambiguous locations", f"{percent(n['ambiguous_share'])} % of positives"),
        ("between different classes", f"{percent(n['ambiguous_different_share'])} %"),
        ("positives an image", f"{n['positives_per_image']:.0f} of {n['locations_per_image']:,.0f} locations"),
    ]
    page.table(("", ""), rows2)
    if d.scan.boxes:
        page.figure(sizes_plot(d))
        page.figure(levels_plot(d))
    if d.pairs:
        page.text("Ambiguous locations by class: who keeps them, who gives way.")
        page.table(("kept by", "lost by", "locations"), [(a, b, f"{c:,}") for a, b, c in d.pairs], left=2)
    page.heading("Classes")
    page.figure(classes_plot(d))
    if len(d.classes) > 1:
        page.figure(together_plot(d))
    if d.today is not None and d.best is not None:
        page.heading("Settings")
        page.text(
            "Lost: mean share of a box's locations that learn another box; a box without any counts 1. "
            "Cost: FLOPs of backbone, FPN and head for the average image."
            + (f" Judged {d.searched()}, so that recall may differ from that above." if d.searched() else "")
        )
        options = [("now", d.today)] + ([("better", d.best)] if d.best != d.today else [])
        page.table(
            ("", "lost %", "recall %", "locations", "GFLOP"),
            [(k, percent(o.lost), percent(o.recall), f"{o.points:,.0f}", f"{o.gflop:.2f}") for k, o in options],
        )
        if d.best != d.today:
            page.code(d.command())
        else:
            page.text("Nothing within this budget loses less than the present settings.")
        if d.tried:
            page.figure(search_plot(d))
    return page.write(path)


def _axes(figure: Figure, title: str, x: str = "", y: str = "") -> Axes:
    heading(figure, title)
    axes = figure.add_subplot()
    style(axes, "", x, y)
    return axes


def sizes_plot(d: Diagnosis) -> Figure:
    """Boxes by the longer side at the input size, those that no location learns in red."""
    figure = new_figure(_WIDE, 3.7)
    axes = _axes(figure, "Size of the boxes at the input", "longer side, px", "boxes")
    longer = d.scan.size.max(axis=1)
    bins = np.geomspace(max(longer.min(), 1), max(longer.max(), 2) * 1.01, 48).tolist()
    axes.hist(
        [longer[d.scan.recalled], longer[~d.scan.recalled]],
        bins=bins,
        stacked=True,
        color=["#94a3b8", "#dc2626"],
        label=["learned", "not learned"],
    )
    axes.set_xscale("log")
    ticks = [t for t in (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048) if bins[0] <= t <= bins[-1]]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    for i, level in enumerate(d.levels[:-1]):
        side = 2 * level.upper  # from the middle of a box it is half its longer side to the farthest edge
        if side <= bins[-1]:
            axes.axvline(side, color=level_in_plot(i), linewidth=1.6, label=f"middle leaves {level.name}")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, labelcolor=INK, fontsize=_SMALL)
    return figure


def levels_plot(d: Diagnosis) -> Figure:
    """Share of boxes and of positives on each level."""
    figure = new_figure(_WIDE, 2.9)
    axes = _axes(figure, "Who learns: share of boxes (dark)\nand of positives (pale) by level", "", "%")
    for i, level in enumerate(d.levels):
        boxes = 100 * level.boxes / max(sum(v.boxes for v in d.levels), 1)
        positives = 100 * level.positives / max(sum(v.positives for v in d.levels), 1)
        for x, value, alpha in ((i - 0.2, boxes, 1.0), (i + 0.2, positives, 0.45)):
            axes.bar(x, value, 0.38, color=level_in_plot(i), alpha=alpha)
            axes.text(x, value, f"{value:.1f}", ha="center", va="bottom", fontsize=_SMALL, color=INK)
    axes.set_xticks(range(len(d.levels)), [f"{v.name}\nstride {v.stride}" for v in d.levels])
    axes.margins(y=0.15)
    return figure


def classes_plot(d: Diagnosis) -> Figure:
    """Boxes of each class by split, the most frequent first."""
    order = np.argsort(-np.array(d.counts[d.trained_on]), kind="stable")[:_CLASSES]
    figure = new_figure(_WIDE, 1.6 + 0.28 * len(order) * (1 if len(order) > 8 else 1.5))
    more = f" (the first {_CLASSES} of {len(d.classes)})" if len(d.classes) > _CLASSES else ""
    axes = _axes(figure, f"Boxes by class{more}", "boxes", "")
    left = np.zeros(len(order))
    for number, (name, counts) in enumerate(d.counts.items()):
        values = np.array(counts)[order]
        hatch = _HATCHES[number // len(_SPLITS) % len(_HATCHES)]
        color = _SPLITS[number % len(_SPLITS)]
        axes.barh(range(len(order)), values, left=left, color=color, hatch=hatch, label=name)
        left += values
    for y, total in enumerate(left):
        axes.text(total, y, f" {int(total):,}", va="center", fontsize=_SMALL, color=INK)
    axes.set_yticks(
        range(len(order)), [class_name(d.classes[k]) for k in order], fontsize=_SMALL, fontfamily=families(d.classes)
    )
    axes.invert_yaxis()
    axes.margins(x=0.08, y=0.01)
    axes.legend(frameon=False, labelcolor=INK, loc="lower right")
    return figure


def together_plot(d: Diagnosis) -> Figure:
    """Share of the images of the row's class that also show the column's."""
    shown = np.argsort(-np.diag(d.together), kind="stable")[:_CLASSES]
    counts = d.together[np.ix_(shown, shown)]
    share = counts / np.maximum(np.diag(counts)[:, None], 1)
    names = [class_name(d.classes[k]) for k in shown]
    side = 1.2 + names_width(names, _SMALL) + 0.22 * len(shown) * (1 if len(shown) > 8 else 2)
    figure = new_figure(max(side + 1, _WIDE), side)
    axes = _axes(figure, "Of the images with the row's class,\nhow many show the column's too")
    axes.grid(False)
    np.fill_diagonal(share, np.nan)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    if len(shown) <= _NUMBERED:
        for (row, column), value in np.ndenumerate(share):
            if row != column:
                color = "white" if value > 0.55 else INK
                axes.text(column, row, f"{100 * value:.0f} %", ha="center", va="center", fontsize=_SMALL, color=color)
    family = families(names)
    axes.set_xticks(range(len(shown)), names, rotation=90, fontsize=_SMALL, fontfamily=family)
    axes.set_yticks(range(len(shown)), names, fontsize=_SMALL, fontfamily=family)
    bar = figure.colorbar(image, ax=axes, shrink=0.6)
    bar.ax.tick_params(colors=MUTED)
    bar.outline.set_visible(False)
    return figure


def search_plot(d: Diagnosis) -> Figure:
    """Every setting the search tried: cost against loss."""
    figure = new_figure(_WIDE, 4.0)
    axes = _axes(figure, "Settings within the budget", "GFLOP an image", "lost, %")
    groups = sorted({o.strides for o in d.tried})
    colors = cycle(("#2563eb", "#f59e0b", "#10b981", "#db2777", "#7c3aed", "#6b7280"))
    for strides, color in zip(groups, colors, strict=False):
        mine = [o for o in d.tried if o.strides == strides]
        name = f"{level_name(strides[0])}-{level_name(strides[-1])}"
        axes.scatter([o.gflop for o in mine], [100 * o.lost for o in mine], s=22, color=color, alpha=0.75, label=name)
    assert d.today is not None
    assert d.best is not None
    for name, o in (("now", d.today), ("better", d.best)) if d.best != d.today else (("now", d.today),):
        axes.scatter([o.gflop], [100 * o.lost], s=130, facecolor="none", edgecolor=INK, linewidth=1.8)
        axes.annotate(name, (o.gflop, 100 * o.lost), xytext=(8, 8), textcoords="offset points", color=INK)
    axes.legend(frameon=False, labelcolor=INK)
    return figure


def _thumbnails(finding: Finding) -> tuple[list[np.ndarray], list[str]]:
    """The places of a finding, crops around the boxes that are meant, and their titles; those that can be read."""
    tiles, titles = [], []
    for spot in finding.spots:
        try:
            boxes, others = (np.array(b).reshape(-1, 4) for b in (spot.boxes, spot.others))
            tiles.append(_tile(read_image(spot.path), boxes, others))
        except ImageError:
            continue
        titles.append(spot.title)
    return tiles, titles


def _tile(pixels: np.ndarray, boxes: np.ndarray, others: np.ndarray = _NONE) -> np.ndarray:
    """At most `_TILE` pixels wide and high: the surroundings of the boxes, which are drawn; without any the whole.
    Others are drawn over them in a second colour."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = 0, 0, width, height
    if len(boxes):
        (x1, y1), (x2, y2) = boxes[:, :2].min(0), boxes[:, 2:].max(0)
        reach = 0.5 * max(2 * max(x2 - x1, y2 - y1), min(_AROUND, height, width))
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        left, right = max(0, int(x - reach)), min(width, int(x + reach) + 1)
        top, bottom = max(0, int(y - reach)), min(height, int(y + reach) + 1)
    part = pixels[top:bottom, left:right]
    scale = _TILE / max(part.shape[:2])
    shape = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
    tile = cv2.resize(part, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    pair = len(boxes) == 2 or len(others) > 0
    second = 1 if len(boxes) == 2 else len(boxes)  # the first box in the second colour
    for k, box in enumerate((np.concatenate([boxes, others]) - [left, top, left, top]) * scale):
        x1, y1, x2, y2 = np.round(box).astype(int).tolist()
        cv2.rectangle(tile, (x1, y1), (x2, y2), _MARKS[k >= second], 5 if pair and k == 0 else 2)
    return tile
