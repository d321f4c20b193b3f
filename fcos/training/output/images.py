"""The drawings and the page of a run folder: what it learned from, how it went, what it finds now."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ...config import Config
from ...data.dataset import Dataset
from ...detections import Detections
from ...errors import FcosError
from ...evaluation.coco import Metrics
from ...show import run_plots
from ...show.draw import Marks, draw_cell, level_color, sheet
from ...show.judged import draw_evaluation, draw_validation
from ...show.page import Page
from ...system.environment import CONFIG_FILE, METRICS_FILE, RUN_FILE
from ...system.files import write_whole
from ...system.readers import read_text
from ...system.terminal import plural
from ...types import Batch, Points
from .ending import Ending
from .folder import RunFolder

_SCANNED = 2000  # images whose boxes are shown in labels.png
_DRAWN = 8  # images in train_batch_*.jpg
_CELL = 480  # pixels of an image in train_batch_*.jpg
_RENEW = 60.0  # seconds at least between two drawings while a run goes on


# --------------------------------------------------------------------------- single images


def draw_batch(parts: Sequence[tuple[Batch, Tensor]], points: Points, names: Sequence[str]) -> np.ndarray:
    """Augmented images of a step with their boxes and the points that learn them (the index of each part's assignment),
    coloured by level."""
    import cv2

    images = []
    flat = [(batch, index, i) for batch, index in parts for i in range(len(batch))]
    for batch, index, i in flat[:_DRAWN]:
        height, width = batch.sizes[i]
        pixels = batch.images[i].permute(1, 2, 0)[:height, :width].cpu().numpy().copy()
        target = batch.targets[i].to("cpu")
        factor = _CELL / max(height, width)
        marks = Marks(target.boxes.numpy(), target.labels.numpy(), names, ignore=target.ignore.numpy())
        pixels = draw_cell(pixels, marks, _CELL)
        chosen = (index[i] >= 0).nonzero()[:, 0].cpu()
        for (x, y), level in zip(points.xy.cpu()[chosen].tolist(), points.level.cpu()[chosen].tolist(), strict=True):
            spot = round(factor * x), round(factor * y)
            radius = 3 + 2 * int(level)
            cv2.circle(pixels, spot, radius + 1, (255, 255, 255), -1, cv2.LINE_AA)
            cv2.circle(pixels, spot, radius, level_color(int(level)), -1, cv2.LINE_AA)
        images.append(pixels)
    return sheet(images, cell=_CELL)


def draw_labels(path: Path, dataset: Dataset, config: Config) -> Path:
    """labels.png: boxes of each class and image, their sizes, places and levels under `config`."""
    from ...analysis.scan import scan

    every = max(1, math.ceil(len(dataset) / _SCANNED))
    some = dataset.subset(range(0, len(dataset), every))
    seen = scan(some, config)
    level = np.where(seen.recalled, seen.learned.argmax(axis=1), -1)
    boxes = [r.boxes[~r.ignore] / np.array([*r.size[::-1]] * 2, np.float32) for r in some.records]
    xyxy = np.concatenate([np.zeros((0, 4), np.float32), *boxes]).astype(np.float64)
    per_image = np.array([int((~r.ignore).sum()) for r in some.records], np.int64)
    about = f": {plural(len(dataset), 'image')}, {plural(int(dataset.counts().sum()), 'box')}"
    if every > 1:
        about += f" (all but the classes from every {every}th image)"
    told = run_plots.Labels(
        counts=dataset.counts().tolist(),
        names=dataset.classes.names,
        per_image=per_image,
        size=seen.size.astype(np.float64),
        centre=(xyxy[:, :2] + xyxy[:, 2:]) / 2,
        level=level,
        strides=config.model.strides,
    )
    return write_whole(path, lambda p: run_plots.labels(told, p, about=about))


# --------------------------------------------------------------------------- the page


def write_page(folder: Path, title: str, facts: Sequence[tuple[str, Any]], images: Sequence[tuple[str, str]]) -> Path:
    """report.html, one file: facts as a table, then those images of the folder, (file name, caption), that exist."""
    page = Page(title)
    page.facts(facts)
    for name, caption in images:
        page.file(folder / name, caption)
    return page.write(folder / "report.html")


IMAGES = {
    "What it finds": (
        ("val_0.jpg", "Validation images: truth on the left, detections from the score of the best F1 on the right."),
        ("val_1.jpg", "More of them."),
        ("val_worst.jpg", "The images with most objects missed or detections wrong: look here first."),
        ("pr.png", "Precision over recall. The dot is the score threshold with the best F1."),
        ("f1.png", "F1 by score threshold. The dot is the threshold to use when all classes share one."),
        ("confusion.png", "Rows: truth, columns: what it was found as. Last column: missed; last row: nothing there."),
        ("reliability.png", "Share of right detections by score. On the diagonal a score is a probability."),
    ),
    "How it went": (
        ("results.png", "Every logged step, with a running mean; AP from each evaluation of the validation split."),
    ),
    "What it learned from": (
        ("labels.png", "Boxes of the training split: classes, sizes at the network input, places, levels."),
        ("train_batch_0.jpg", "The first batch as the network saw it. Dots are the locations that learn, by level."),
        ("train_batch_1.jpg", "The first batch of the second epoch."),
    ),
}  # fmt: skip


def write_run_page(
    folder: Path,
    title: str,
    facts: Sequence[tuple[str, str]],
    metrics: Metrics | None,
    ending: Ending | None,
) -> Path:
    """report.html of a training run: the result first, the settings last. `metrics` are of the last evaluation, or of
    the best weights where the run has come to its `ending`; the images are those in the folder."""
    page = Page(title)
    page.contents()
    page.heading("Result" if ending is not None else "So far")
    if ending is not None:
        for sentence in ending.sentences():
            page.text(sentence)
    if metrics is not None:
        _numbers(page, metrics.to_dict())
    elif ending is None:
        page.text("Nothing has been judged yet.")
    if ending is not None:
        page.code("\n".join(command for key, command in ending.next() if key != "report"))
    for heading, images in IMAGES.items():
        if any((folder / name).is_file() for name, _ in images):
            page.heading(heading)
        for name, caption in images:
            page.file(folder / name, caption)
    page.heading("The run")
    page.facts([(k, _brief(v)) for k, v in facts])
    page.heading("Settings and surroundings")
    for name in (CONFIG_FILE, RUN_FILE):
        if (folder / name).is_file():
            try:
                text = read_text(folder / name)
            except FcosError as error:
                text = str(error)
            page.folded(name, text)
    return page.write(folder / "report.html")


def _brief(text: str) -> str:
    """The summary of a data set without its line for each class, which labels.png shows."""
    return "\n".join(line for line in text.splitlines() if not line.startswith("  ") or line.startswith("  note"))


def _numbers(page: Page, metrics: Mapping[str, Any]) -> None:
    def show(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    first = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
    page.table(first, [[show(metrics[k]) for k in first]], left=0)
    page.text(
        f"{plural(metrics['images'], 'image')}, {plural(metrics['objects'], 'object')}. Best F1 over all classes "
        f"{show(metrics['best_F1'])} at score {show(metrics['best_F1_score'])} (IoU 0.5)."
    )
    keys = ("AP", "AP50", "best_F1", "best_F1_score")
    rows = [[c["name"], f"{c['objects']:,}", *(show(c[k]) for k in keys)] for c in metrics["per_class"]]
    page.table(("class", "objects", "AP", "AP50", "best F1", "at score"), rows)


class RunImages:
    """The drawings and the page of a run, renewed at most once a minute while it goes on and once at its end."""

    def __init__(self, run: RunFolder, config: Config, data: Mapping[str, Dataset]) -> None:
        self.run, self.config, self.data = run, config, data
        self.detections: Sequence[Detections] | None = None
        self.ending: Ending | None = None
        self.metrics: Metrics | None = None
        self.score = 0.5
        self._drawn = time.monotonic()

    def begin(self) -> None:
        """labels.png."""
        if self.run.write and self.config.train.plots and not (self.run.path / "labels.png").is_file():
            draw_labels(self.run.path / "labels.png", self.data["train"], self.config)

    def judged(self, detections: Sequence[Detections], metrics: Metrics) -> None:
        """Remember an evaluation for the next drawing, its numbers in metrics.json at once."""
        write_whole(self.run.path / METRICS_FILE, json.dumps(metrics.to_dict(), indent=1))
        self.metrics, self.detections = metrics, detections
        self.score = metrics.threshold if metrics.threshold == metrics.threshold else 0.5

    def renew(self, facts: Callable[[], Sequence[tuple[str, str]]], last: bool = False) -> None:
        """Draw what is new, and the page with facts() on top, if the last time was a minute ago or this is the
        `last`."""
        if not self.run.write or not (last or time.monotonic() - self._drawn > _RENEW):
            return
        folder = self.run.path
        if self.config.train.plots:
            if self.detections is not None:
                draw_evaluation(folder, self.detections, self.data["val"])
                draw_validation(folder, self.detections, self.data["val"], self.score)
                self.detections = None
            rows, strides = self.run.rows(), self.config.model.strides
            write_whole(folder / "results.png", lambda p: run_plots.results(rows, p, strides))
        write_run_page(folder, f"Training {self.config.name}: {folder.name}", facts(), self.metrics, self.ending)
        self._drawn = time.monotonic()
