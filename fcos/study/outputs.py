"""Output variables (1904.01355, section 3.1): nine times fewer than with nine anchors a location.

Both heads are built and counted: FCOS's own last layers, and the two that RetinaNet puts in their place
(classes x 9 and 4 x 9 values a location, no centerness).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config import Config
from ..network.info import ANCHORS, parse_size
from ..network.model import Head
from ..points import level_shapes
from ..system.terminal import json_ready, plural, table
from .asked import Asked, Judged

CLASSES = 80  # COCO's


@dataclass(frozen=True)
class OutputsStudy:
    """Values that each head gives for one input (height, width), counted on real tensors: class scores,
    box coordinates, centerness, and all of them; `parameters` of the layers that give them."""

    size: tuple[int, int]
    classes: int
    points: int
    fcos: dict[str, int]
    anchors: dict[str, int]

    @property
    def ratio(self) -> float:
        """How many times more values the anchors give."""
        return self.anchors["all"] / self.fcos["all"]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        result: dict[str, Any] = json_ready({**vars(self), "ratio": self.ratio, "paper": 9})
        return result

    def text(self) -> str:
        """For a terminal."""
        keys = list(self.fcos)
        rows = [(key, f"{self.fcos[key]:,}", f"{self.anchors[key]:,}") for key in keys]
        without = (self.anchors["all"]) / (self.fcos["all"] - self.fcos["centerness"])
        return "\n".join(
            [
                f"output variables at {self.size[0]}x{self.size[1]}, {plural(self.classes, 'class')}, "
                f"{plural(self.points, 'location')}",
                table(("", "FCOS", f"{ANCHORS} anchors"), rows),
                f"{self.ratio:.2f} times as many with anchors; {without:.2f} without counting the centerness "
                "(paper: 9 times)",
            ]
        )

    def plot(self, path: Path) -> None:
        """Bars of the values of both heads."""
        from ..show.bar_plots import counts

        keys = [k for k in self.fcos if k != "parameters"]
        columns = {
            "FCOS": [self.fcos[k] for k in keys],
            f"{ANCHORS} anchors a location": [self.anchors[k] for k in keys],
        }
        counts(
            path, f"Output variables at {self.size[0]} x {self.size[1]}, {plural(self.classes, 'class')}", keys, columns
        )


def outputs_study(config: Config) -> OutputsStudy:
    """Count the outputs of a model's head with COCO's 80 classes and of the same head with nine anchors a location."""
    size = parse_size(None, config)
    shapes = level_shapes(size, config.model.strides)
    head = Head(config.model.model_copy(update={"head_convs": 0, "head_shared_convs": 0}), CLASSES).eval()
    width = config.model.fpn_channels
    class_layer = nn.Conv2d(width, CLASSES * ANCHORS, 3, padding=1)
    box_layer = nn.Conv2d(width, 4 * ANCHORS, 3, padding=1)
    fcos = {"classes": 0, "boxes": 0, "centerness": 0}
    anchors = dict(fcos)
    with torch.inference_mode():
        for level, (rows, columns) in enumerate(shapes):
            features = torch.zeros(1, width, rows, columns)
            logits, distances, centerness = head.level(features, level)
            for key, value in zip(fcos, (logits, distances, centerness), strict=True):
                fcos[key] += value.numel()
            anchors["classes"] += class_layer(features).numel()
            anchors["boxes"] += box_layer(features).numel()
    for counts, layers in (
        (fcos, [head.class_logits, head.box_distances, head.centerness]),
        (anchors, [class_layer, box_layer]),
    ):
        counts["all"] = sum(counts.values())
        counts["parameters"] = sum(p.numel() for layer in layers for p in layer.parameters())
    return OutputsStudy(size, CLASSES, sum(r * c for r, c in shapes), fcos, anchors)


def run(asked: Asked) -> Judged:
    """The study as it is asked for."""
    return None, outputs_study(asked.config())
