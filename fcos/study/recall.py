"""Best possible recall (1904.01355, section 4.1.1, table 1): the share of true boxes that at least one
location, or anchor, learns. No detector finds the others, however well it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..analysis.common import scenes_by_size, stack
from ..analysis.scan import scan
from ..config import Config
from ..data.classes import as_seen, inclusive
from ..points import make_points
from ..system.progress import track
from ..system.terminal import json_ready, percent, plural, table
from .anchors import match
from .asked import Asked, Judged

if TYPE_CHECKING:
    from ..data.dataset import Dataset

_IMAGES = 32
LOW_QUALITY = ("no low-quality matches", "low-quality matches with IoU >= 0.4", "all low-quality matches")


@dataclass(frozen=True)
class RecallRow:
    """One method: best possible recall 0..1, of the boxes as they are and as the original code reads them
    (x2 = x + w - 1; RetinaNet's anchors then by that code too); `paper`: the paper's number on COCO
    val2017, None where it has none."""

    method: str
    detail: str
    recall: float
    inclusive: float
    paper: float | None


@dataclass(frozen=True)
class RecallStudy:
    """Best possible recall of a data set at one input size."""

    data: str
    images: int
    boxes: int
    size: tuple[int, int]
    rows: tuple[RecallRow, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        result: dict[str, Any] = json_ready({**vars(self), "rows": [vars(r) for r in self.rows]})
        return result

    def text(self) -> str:
        """For a terminal."""
        rows = [(r.method, r.detail, percent(r.recall), percent(r.inclusive), percent(r.paper)) for r in self.rows]
        return "\n".join(
            [
                f"best possible recall, %, {self.data}: {plural(self.boxes, 'box')} "
                f"of {plural(self.images, 'image')}, "
                f"input {self.size[0]}/{self.size[1]}",
                table(("method", "", "here", "x+w-1", "paper"), rows, left=2),
                "x+w-1: boxes, and RetinaNet's anchors, as the paper's code has them; paper: COCO val2017 at 800/1333",
            ]
        )

    def plot(self, path: Path) -> None:
        """Bars of every row beside the paper's numbers."""
        from ..show.bar_plots import bars

        names = [f"{r.method}, {r.detail}" for r in self.rows]
        columns: dict[str, list[float | None]] = {
            "here": [r.recall for r in self.rows],
            "as the paper's code": [r.inclusive for r in self.rows],
            "paper": [r.paper for r in self.rows],
        }
        least = min(v for column in columns.values() for v in column if v is not None)
        bars(path, "Best possible recall", names, columns, low=0.8 if least > 0.82 else 0.0)


def p4_only(config: Config) -> Config:
    """`config` with the one level P4, which learns boxes of all sizes (the paper's comparison without FPN)."""
    return config.override({"model": {"strides": (16,)}, "assign": {"ranges": ()}})


def sampling(config: Config, radius: float) -> Config:
    """`config` with positives within `radius` strides of the centre; 0: the whole box."""
    return config.override({"assign": {"center_radius": radius}})


def recall_study(dataset: Dataset, config: Config) -> RecallStudy:
    """All six rows of the paper's table 1 and two with center sampling, at the input size of `config`, by the boxes as
    they are and as the original code reads them. Crowd and difficult boxes are left out."""
    radius = config.assign.center_radius or 1.5
    readings = [dataset, inclusive(dataset)]
    anchors = [retinanet_recall(d, config, original=d is not dataset) for d in readings]
    paper = (0.8682, 0.9092, 0.9923)
    rows = [
        RecallRow("RetinaNet", detail, anchors[0][i], anchors[1][i], paper[i]) for i, detail in enumerate(LOW_QUALITY)
    ]
    whole = sampling(config, 0.0)
    variants: list[tuple[str, Config, float | None]] = [
        ("P4 only", p4_only(whole), 0.9555),
        ("FPN", whole, 0.9840),
        (f"P4 only, center sampling {radius:g}", p4_only(sampling(config, radius)), None),
        (f"FPN, center sampling {radius:g}", sampling(config, radius), None),
    ]
    boxes = 0
    for detail, variant, number in variants:
        scans = [scan(d, variant, f"FCOS, {detail}") for d in readings]
        boxes = scans[0].boxes
        rows.append(RecallRow("FCOS", detail, scans[0].recall, scans[1].recall, number))
    size = (config.data.size, config.data.max_size)
    return RecallStudy(str(dataset.root), len(dataset.records), boxes, size, tuple(rows))


def retinanet_recall(dataset: Dataset, config: Config, *, original: bool = False) -> tuple[float, float, float]:
    """Best possible recall of RetinaNet's nine anchors a location on P3-P7 in three variants: `LOW_QUALITY`.

    `original`: as the code behind the paper has it: sides of anchors rounded (see anchors.py), and boxes one
    pixel wider and higher where IoU is measured, at the size of the input (x2 - x1 + 1).
    """
    config = config.override({"model": {"strides": (8, 16, 32, 64, 128)}, "assign": {"ranges": (64, 128, 256, 512)}})
    learned = np.zeros(3, np.int64)
    boxes = 0
    groups = scenes_by_size(dataset, config.data)
    parts = [(k, v[i : i + _IMAGES]) for k, v in groups.items() for i in range(0, len(v), _IMAGES)]
    for size, scenes in track(parts, len(dataset.records), "RetinaNet", lambda part: len(part[1])):
        truth, _, image = stack(scenes)
        boxes += len(truth)
        if len(truth):
            if original:
                truth = truth + torch.tensor([0.0, 0.0, 1.0, 1.0])
            matched = match(make_points(size, config.model, config.assign), truth, image, original)
            learned += torch.stack(matched).sum(dim=1).numpy()
    none, some, every = (learned / boxes if boxes else np.full(3, np.nan)).tolist()
    return none, some, every


def run(asked: Asked) -> Judged:
    """The study as it is asked for."""
    config = asked.config()
    dataset = as_seen(asked.dataset(), config.data)
    return dataset, recall_study(dataset, config)
