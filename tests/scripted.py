"""A network that says what a test wants, and a small world for it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fcos.config import Config, DataConfig
from fcos.data.dataset import Dataset
from fcos.data.records import Record
from fcos.inference.detector import Detector
from fcos.points import make_points
from fcos.types import Classes, Predictions

CLASSES = Classes(("cat", "dog"))
CONFIG = Config(data=DataConfig(size=128, max_size=128))


class Scripted:
    """A network that says what it is told: rows of (x, y, box, label, class probability, centerness)."""

    def __init__(self, rows, size=(128, 128)):
        self.points = make_points(size, CONFIG.model, CONFIG.assign)
        count = len(self.points.xy)
        logits, centerness = torch.full((1, count, 2), -12.0), torch.zeros(1, count)
        distances = torch.zeros(1, count, 4)
        for (x, y), box, label, probability, quality in rows:
            p = int((self.points.xy - torch.tensor([float(x), float(y)])).abs().sum(dim=1).argmin())
            assert self.points.xy[p].tolist() == [x, y]
            logits[0, p, label] = torch.logit(torch.tensor(probability))
            centerness[0, p] = torch.logit(torch.tensor(quality))
            distances[0, p] = torch.tensor([x - box[0], y - box[1], box[2] - x, box[3] - y], dtype=torch.float32)
        self.predictions = Predictions(logits, distances, centerness)

    def __call__(self, images):
        return self.predictions


def detector(rows, config=CONFIG):
    return Detector(Scripted(rows), config, CLASSES)


GREY = np.full((128, 128, 3), 127, np.uint8)


@pytest.fixture
def world(tmp_path):
    import cv2

    path = tmp_path / "1.png"
    cv2.imwrite(str(path), GREY)

    def make(*boxes, number=7):
        rows = np.array(boxes, np.float32).reshape(-1, 6)
        areas = (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1])
        one = Record(
            number, path, (128, 128), rows[:, :4].copy(), rows[:, 4].astype(np.int64), rows[:, 5] > 0, areas, "1.png"
        )
        return Dataset((one,), CLASSES, "coco", "val", Path("made"))

    return make


TRUTH = (20, 20, 60, 60)


class ByColour:
    """A network for the images of `make_shapes`: it finds them by their colour, all but perfectly."""

    colours = ((40, 80, 240), (230, 60, 40))

    def __init__(self, classes):
        self.classes = classes

    def __call__(self, images):
        size = tuple(images.shape[-2:])
        points = make_points(size, CONFIG.model, CONFIG.assign)
        count = len(points.xy)
        logits = torch.full((1, count, self.classes), -6.0)
        distances, centerness = torch.ones(1, count, 4), torch.full((1, count), -6.0)
        pixels = images[0].permute(1, 2, 0).numpy().astype(np.int32)
        for label, colour in enumerate(self.colours):
            mask = (np.abs(pixels - np.array(colour)).sum(axis=2) < 120).astype(np.uint8)
            for x, y, w, h, area in cv2.connectedComponentsWithStats(mask)[2][1:]:
                if area < 40:
                    continue
                near = (points.xy - torch.tensor([x + w / 2, y + h / 2])).abs().sum(dim=1).argsort()[:3]
                for place in near.tolist():
                    px, py = points.xy[place].tolist()
                    logits[0, place, label], centerness[0, place] = 3.0, 3.0
                    sides = torch.tensor([px - x, py - y, x + w - px, y + h - py], dtype=torch.float32)
                    distances[0, place] = sides
        return Predictions(logits, distances, centerness)
