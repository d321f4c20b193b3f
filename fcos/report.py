"""The pictures and the page of a run folder: what it learned from, how it went, what it finds now."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from .data.dataset import Dataset
from .data.image import read_image
from .draw import draw_boxes, level_color, sheet, side_by_side
from .errors import ImageError
from .files import write_whole
from .types import Batch, Detections, Points

if TYPE_CHECKING:
    from .evaluate import Metrics

_PICTURES = 6  # in val.jpg


def save_picture(path: Path, pixels: np.ndarray) -> Path:
    """An RGB array [H,W,3] as JPEG, written whole."""
    from PIL import Image

    return write_whole(path, lambda p: Image.fromarray(pixels).save(p, quality=90))


def draw_batch(batch: Batch, points: Points, index: Tensor, names: Sequence[str], limit: int = 8) -> np.ndarray:
    """Augmented pictures of a batch with their boxes and the points that learn them, coloured by level."""
    import cv2

    images = []
    for i in range(min(limit, len(batch))):
        height, width = batch.sizes[i]
        pixels = batch.images[i].permute(1, 2, 0)[:height, :width].cpu().numpy().copy()
        target = batch.targets[i].to("cpu")
        pixels = draw_boxes(pixels, target.boxes.numpy(), target.labels.numpy(), names, ignore=target.ignore.numpy())
        chosen = (index[i] >= 0).nonzero()[:, 0].cpu()
        for (x, y), level in zip(points.xy.cpu()[chosen].tolist(), points.level.cpu()[chosen].tolist(), strict=True):
            cv2.circle(pixels, (round(x), round(y)), 2 + int(level), level_color(int(level)), -1, cv2.LINE_AA)
        images.append(pixels)
    return sheet(images)


def draw_judged(
    dataset: Dataset, found: Sequence[Detections], score: float, limit: int = _PICTURES
) -> np.ndarray | None:
    """Truth beside prediction for pictures spread over the data set; None when none can be read."""
    with_boxes = [i for i, r in enumerate(dataset.records) if len(r.boxes)] or list(range(len(dataset)))
    chosen = [
        with_boxes[i] for i in np.linspace(0, len(with_boxes) - 1, min(limit, len(with_boxes))).round().astype(int)
    ]
    pairs = []
    for i in chosen:
        record, shown = dataset.records[i], found[i][found[i].scores >= score]
        try:
            pixels = read_image(str(record.path))
        except ImageError:
            continue
        names = dataset.classes.names
        truth = draw_boxes(pixels, record.boxes, record.labels, names, ignore=record.ignore)
        guess = draw_boxes(pixels, shown.boxes.numpy(), shown.labels.numpy(), names, scores=shown.scores.numpy())
        pairs.append(side_by_side(truth, guess))
    return sheet(pairs, columns=2, cell=720) if pairs else None


def plot_run(rows: Sequence[Mapping[str, str]], path: Path) -> Path:
    """results.png: losses, IoU of positives, AP and learning rate over the steps of metrics.csv."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    def series(key: str) -> tuple[list[float], list[float]]:
        pairs = [(float(r["step"]), float(r[key])) for r in rows if r.get(key) not in (None, "", "nan")]
        return [p[0] for p in pairs], [p[1] for p in pairs]

    figure, axes = plt.subplots(2, 3, figsize=(13, 6.4), constrained_layout=True)
    panels: list[tuple[str, list[tuple[str, str]]]] = [
        ("loss", [("classification", "classes"), ("box", "boxes"), ("centerness", "centerness")]),
        ("centerness loss above its floor", [("centerness_excess", "excess")]),
        ("IoU of positives with their boxes", [("mean_iou", "mean IoU")]),
        ("AP on the validation split", [("AP", "AP"), ("AP50", "AP50"), ("AP75", "AP75")]),
        ("learning rate", [("lr", "lr")]),
        ("pictures per second", [("images_per_second", "img/s")]),
    ]
    for axis, (title, lines) in zip(axes.flat, panels, strict=True):
        drawn = 0
        for key, label in lines:
            x, y = series(key)
            if not x:
                continue
            drawn += 1
            raw = axis.plot(
                x, y, alpha=0.35 if len(x) > 40 else 1.0, linewidth=1.0, marker="o" if len(x) < 15 else None
            )
            if len(x) > 40:
                axis.plot(x, _smooth(y), color=raw[0].get_color(), linewidth=1.8, label=label)
            else:
                raw[0].set_label(label)
        axis.set_title(title, loc="left", fontsize=10)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if title == "loss" and drawn:
            axis.set_yscale("log")
        if len(lines) > 1 and drawn:
            axis.legend(frameon=False, fontsize=8)
        if not drawn:
            axis.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axis.transAxes, color="0.5")
    for axis in axes[1]:
        axis.set_xlabel("step")
    write_whole(path, lambda p: figure.savefig(p, dpi=110))
    plt.close(figure)
    return path


def _smooth(values: Sequence[float]) -> np.ndarray:
    """Running mean over a twentieth of the run, shorter at the ends."""
    width = max(1, len(values) // 20)
    total = np.cumsum(np.concatenate(([0.0], values)))
    low = np.maximum(np.arange(len(values)) - width, 0)
    high = np.minimum(np.arange(len(values)) + width + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def write_page(folder: Path, title: str, facts: Sequence[tuple[str, Any]], pictures: Sequence[tuple[str, str]]) -> Path:
    """report.html: facts as a table, then the pictures of the folder, (file name, caption) each."""
    rows = "\n".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(str(v))}</td></tr>" for k, v in facts)
    figures = "\n".join(
        f'<figure><img src="{html.escape(name)}" alt="{html.escape(caption)}"><figcaption>{html.escape(caption)}'
        "</figcaption></figure>"
        for name, caption in pictures
        if (folder / name).is_file()
    )
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #222 }}
h1 {{ font-size: 1.5rem }} table {{ border-collapse: collapse; margin: 1rem 0 }}
th {{ text-align: left; font-weight: 600; padding: .2rem 1.5rem .2rem 0; vertical-align: top; white-space: nowrap }}
td {{ padding: .2rem 0; white-space: pre-wrap; font-variant-numeric: tabular-nums }}
figure {{ margin: 2rem 0 }} img {{ max-width: 100%; border: 1px solid #ddd; border-radius: 4px }}
figcaption {{ color: #555; font-size: .9rem }}
</style></head><body>
<h1>{html.escape(title)}</h1>
<table>{rows}</table>
{figures}
</body></html>
"""
    return write_whole(folder / "report.html", page)


def write_run_page(folder: Path, title: str, facts: Sequence[tuple[str, Any]], metrics: Metrics | None) -> Path:
    """report.html of a training run: its facts, its last metrics, the pictures that are there."""
    rows = list(facts)
    if metrics is not None:
        rows += [(k, "-" if math.isnan(v) else f"{v:.4f}") for k, v in metrics.numbers().items()]
    pictures = [
        ("results.png", "Losses, IoU of positives, AP, learning rate and speed over the run"),
        ("val.jpg", "Validation pictures: truth on the left, prediction on the right"),
        ("train_batch_0.jpg", "First batch as the network saw it; dots are the locations that learn, by level"),
        ("train_batch_1.jpg", "First batch of the second epoch"),
    ]
    return write_page(folder, title, rows, pictures)
