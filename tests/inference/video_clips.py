"""Frames whose picture says their number, a detector that reads it, and a camera that plays them."""

import time

import numpy as np
import pytest
import torch
from tiny import tiny_config

from fcos.detections import Detections
from fcos.inference import video_writing
from fcos.system.machine import Placement
from fcos.types import Classes

needs_ffmpeg = pytest.mark.skipif(video_writing.find_ffmpeg() is None, reason="ffmpeg is not on this machine")


def picture(number, size=(48, 64)):
    """A grey image with a bright square whose place says the number."""
    image = np.full((*size, 3), 60, np.uint8)
    image[10:22, 2 * number : 2 * number + 12] = 220
    return image


def number_of(image):
    """The number that `picture` was drawn with, though the codec has blurred it."""
    bright = np.flatnonzero(image[12:20, :, 1].mean(axis=0) > 140)
    return round((bright.mean() - 5.5) / 2)


class Counter:
    """A detector that gives the number of the image as its one box, and remembers how it was called."""

    def __init__(self, seconds=0.0):
        self.config, self.classes = tiny_config(), Classes(("square",))
        self.calls, self.seconds = [], seconds
        self.placement, self.shown = Placement(), 0.5

    def detect(self, images, names, score=0.0, batch=1):
        self.calls.append(len(images))
        time.sleep(self.seconds * len(images))
        return [
            Detections(
                torch.tensor([[float(number_of(i)), 0, 1, 1]]),
                torch.ones(1),
                torch.zeros(1).long(),
                torch.zeros(1).long(),
                names=("square",),
            )
            for i in images
        ]


class Camera:
    """A capture that gives an image every 5 ms and breaks off twice."""

    def __init__(self, plan):
        self.plan = plan

    def get(self, _):
        return 0.0

    def read(self):
        time.sleep(0.005)
        step = next(self.plan, None)
        return (step is not None, None if step is None else picture(step % 20))

    def release(self):
        pass
