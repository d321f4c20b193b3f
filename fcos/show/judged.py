"""Images of what was judged: truth beside detections, the worst images, plots of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.dataset import Dataset
from ..data.images.reading import read_image
from ..data.records import Record, evenly
from ..detections import Detections
from ..errors import ImageError
from ..evaluation.calibration import Calibration, calibration
from ..evaluation.coco import count_at, curves, flatten
from ..evaluation.metrics import IOU, Ints, match_image, matches_coco, overlaps
from ..evaluation.operating_point import Cut, OperatingPoint
from ..system.files import write_whole
from . import plots
from .draw import GREY, Marks, caption, draw_cell, sheet

_IMAGES = 6  # in each val_*.jpg
_CELL = 360  # pixels of one of them, truth or prediction
GREEN, RED, ORANGE = (60, 170, 75), (225, 50, 50), (245, 150, 30)


class Verdict(NamedTuple):
    """What was found in an image, green where it is right, red where it is wrong, grey on a box to ignore, and what
    was missed, orange and dashed; hits, misses and alarms (wrong detections) counted."""

    marks: Marks
    hits: int
    misses: int
    alarms: int


def verdict(found: Detections, record: Record, names: Sequence[str], mapping: Ints) -> Verdict:
    """Judge the detections of one image at IoU 0.5 by COCO's rule. `names` are those of the data; `mapping` [C]
    leads from the classes of the detections to them, and what it does not lead to cannot be missed."""
    hit, used = match(found, record, mapping)
    missed = ~used & ~record.ignore & np.isin(record.labels, mapping)
    lost = int(missed.sum())
    texts = [found.name(i) if found.names else names[mapping[label]] for i, label in enumerate(found.labels.tolist())]
    marks = Marks(
        np.concatenate([found.boxes.detach().cpu().numpy(), record.boxes[missed]]),
        range(len(texts) + lost),
        [*texts, *(names[label] for label in record.labels[missed])],
        np.append(found.scores.detach().cpu().numpy(), np.zeros(lost)),
        np.arange(len(texts) + lost) >= len(texts),
        [*((RED, GREEN, GREY)[h] for h in hit), *[ORANGE] * lost],
    )
    return Verdict(marks, int((hit > 0).sum()), lost, int((hit == 0).sum()))


def match(detections: Detections, record: Record, mapping: Ints) -> tuple[Ints, np.ndarray]:
    """(for each detection: 1 hit, 0 false, -1 on a box to ignore; for each object: found or not), by COCO's rule."""
    boxes, scores, labels = (value.cpu().numpy() for value in (detections.boxes, detections.scores, detections.labels))
    taken = match_image((boxes, scores, mapping[labels]), (record.boxes, record.labels, record.ignore), IOU)
    used = np.isin(np.arange(len(record.boxes)), taken) & ~record.ignore
    hit = np.where(taken < 0, 0, np.where(record.ignore[taken], -1, 1)) if len(record.boxes) else 0 * taken
    return hit, used


def save_image(path: Path, pixels: np.ndarray) -> Path:
    """An RGB array [H,W,3] as JPEG, written whole."""
    from PIL import Image

    return write_whole(path, lambda p: Image.fromarray(pixels).save(p, quality=90))


def draw_judged(
    dataset: Dataset, detections: Sequence[Detections], score: float, chosen: Sequence[int] | None = None
) -> np.ndarray | None:
    """Truth beside prediction for the records `chosen`, or for some spread over those with boxes; None when
    none of them can be read. Detections from `score` on are shown."""
    if chosen is None:
        chosen = spread(dataset, _IMAGES)
    cells, titles = [], []
    for i in chosen:
        record, shown = dataset.records[i], detections[i][detections[i].scores >= score]
        try:
            pixels = read_image(str(record.path))
        except ImageError:
            continue
        names = dataset.classes.names
        truth = Marks(record.boxes, record.labels, names, ignore=record.ignore)
        judged = verdict(shown, record, names, np.arange(len(names)))
        cells += [draw_cell(pixels, marks, _CELL) for marks in (truth, judged.marks)]
        counts = (judged.misses, "missed (dashed)"), (judged.alarms, "wrong (red)")
        told = ", ".join(f"{n} {what}" for n, what in counts if n)
        titles += [f"truth: {caption(record.file_name)}", f"found: {told or 'all right'}"]
    return sheet(cells, columns=4, titles=titles, cell=_CELL) if cells else None


def spread(dataset: Dataset, count: int) -> list[int]:
    """Numbers of `count` records with boxes (of all, where none has any), evenly over the data set."""
    some = [i for i, r in enumerate(dataset.records) if len(r.boxes)] or list(range(len(dataset)))
    return [some[i] for i in evenly(len(some), count)]


def mistakes(detections: Sequence[Detections], dataset: Dataset, score: float) -> tuple[Ints, Ints]:
    """Missed objects [N] and wrong detections [N] of each record, among detections with a score >= `score`."""
    kept = [d[d.scores >= score] for d in detections]
    flat, truth = flatten(kept, dataset)
    box = matches_coco(flat, truth, overlaps(flat, truth, minimum=IOU), IOU)
    hit = np.isin(np.arange(len(truth.image)), box) | truth.ignore
    place = np.argsort([record.id for record in dataset.records], kind="stable")  # flatten goes by id
    missed, wrong = np.zeros(len(dataset), np.int64), np.zeros(len(dataset), np.int64)
    missed[place] = np.bincount(truth.image[~hit], minlength=len(dataset))
    wrong[place] = np.bincount(flat.image[box < 0], minlength=len(dataset))
    return missed, wrong


def draw_evaluation(
    folder: Path, detections: Sequence[Detections], dataset: Dataset, point: OperatingPoint | None = None
) -> list[Path]:
    """pr.png, f1.png, confusion.png and reliability.png of detections[i] on dataset.records[i].

    point: where the confusion matrix is counted; left out: at the score of the best F1 and IoU 0.5.
    """
    lines = curves(detections, dataset)
    point = point or count_at(detections, dataset)
    cut, names = Cut(point.score, point.iou), dataset.classes.names
    return [
        write_whole(folder / "pr.png", lambda p: plots.pr_curve(lines, p)),
        write_whole(folder / "f1.png", lambda p: plots.f1_curve(lines, p)),
        write_whole(folder / "confusion.png", lambda p: plots.confusion_matrix(point.confusion, names, p, cut)),
        write_whole(folder / "reliability.png", lambda p: reliability_plot(calibration(detections, dataset), p)),
    ]


def draw_validation(folder: Path, detections: Sequence[Detections], dataset: Dataset, score: float) -> None:
    """val_0.jpg and val_1.jpg: images spread over the data; val_worst.jpg: those with most mistakes."""
    chosen = spread(dataset, 2 * _IMAGES)
    sheets = {"val_0.jpg": chosen, "val_1.jpg": []}
    if len(chosen) > _IMAGES:
        sheets = {"val_0.jpg": chosen[::2], "val_1.jpg": chosen[1::2]}
    total = np.add(*mistakes(detections, dataset, score))
    worst = np.argsort(-total, kind="stable")[:_IMAGES]
    sheets["val_worst.jpg"] = [int(i) for i in worst if total[i]]
    for name, images in sheets.items():
        drawn = draw_judged(dataset, detections, score, images) if images else None
        if drawn is None:
            (folder / name).unlink(missing_ok=True)  # one of an earlier evaluation would mislead
        else:
            save_image(folder / name, drawn)


def reliability_plot(judged: Calibration, path: str | Path) -> None:
    """Precision over score with the diagonal of a calibrated detector, and how many detections each bin has."""
    from .axes import INK, LINES, MUTED, new_figure

    figure = new_figure(6.4, 6.2)
    upper, lower = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    bins = len(judged.count)
    middle, width = (np.arange(bins) + 0.5) / bins, 0.92 / bins
    some = judged.count > 0
    upper.bar(middle[some], judged.precision[some], width, color="#93c5fd", label="share that is right")
    upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1.2, linestyle=(0, (4, 4)), label="calibrated")
    upper.plot(
        judged.score[some], judged.precision[some], "o-", color="#2563eb", markersize=5, label="at the mean score"
    )
    ece = "-" if np.isnan(judged.ece) else f"{judged.ece:.3f}"
    upper.set_title(f"Reliability of the scores (IoU {judged.iou:g}), ECE {ece}", loc="left", color=INK, fontsize=13)
    upper.set_ylabel("precision", color=MUTED)
    upper.set(xlim=(0, 1), ylim=(0, 1.02))
    upper.legend(facecolor="white", edgecolor="none", framealpha=0.9, labelcolor=INK, loc="upper left")
    lower.bar(middle[some], judged.count[some], width, color="#cbd5e1")
    lower.set_yscale("log")
    for x, n in zip(middle[some], judged.count[some], strict=True):
        lower.text(x, n, f"{n:,}", ha="center", va="bottom", fontsize=7, color=INK)
    lower.set_ylim(0.7, 8 * max(int(judged.count.max()), 1))
    lower.set_ylabel("detections", color=MUTED)
    lower.set_xlabel("score", color=MUTED)
    for axes in (upper, lower):
        axes.grid(color=LINES, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, colors=MUTED)
        axes.minorticks_off()
        for spine in axes.spines.values():
            spine.set_visible(False)
    lower.grid(axis="y", visible=False)
    figure.savefig(path, format="png")
