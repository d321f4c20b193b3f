"""What a detector's network says about an image, or about its tiles, before anything is dropped."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..data.records import Window
from ..inference.detector import Detector
from ..inference.tiles import Tiling, Windows, parse_tile, read_shape
from ..types import Points, Predictions


class Raw:
    """What the network says about one image [H,W,3] uint8, or about a window of one, in pixels of the input.

    ratio, shift [4]: a box xyxy of the input times the first and plus the second is one of the image."""

    def __init__(self, detector: Detector, image: np.ndarray, window: Window | None = None) -> None:
        tensor, self.size = detector.prepare(image)
        self.points: Points = detector.points(tensor.shape[-2:])
        with torch.inference_mode():
            predicted = detector.network(tensor[None].to(detector.device))
        self.predictions = Predictions(*(v[0].float() for v in predicted))
        self.window = window or Window(0, 0, *image.shape[:2])
        top, left, bottom, right = self.window
        self.ratio = torch.tensor([(right - left) / self.size[1], (bottom - top) / self.size[0]] * 2)
        self._last_pixel = detector.last_pixel
        self.shift = torch.tensor([left, top] * 2) + self._last_pixel

    def placed(self, boxes: Tensor) -> Tensor:
        """Boxes [D,4] xyxy of the input in pixels of the image."""
        return boxes * self.ratio + self.shift

    def seen(self, boxes: Tensor) -> Tensor:
        """Boxes [G,4] xyxy of the window in pixels of the input, as the network learned such."""
        return (boxes - self._last_pixel) / self.ratio


def own_tiling(detector: Detector) -> Tiling | None:
    """The tiles that the model learned from, and so looks through; None for whole images."""
    tile = detector.config.data.tile
    return parse_tile(tile, detector.config.data) if tile else None


def raw_parts(detector: Detector, image: Windows, tiling: Tiling | None) -> Iterator[Raw]:
    """What the network says of each window of an image; of the whole image where `tiling` is None."""
    windows = [Window(0, 0, *image.size)] if tiling is None else tiling.windows(image.size)
    for window in windows:
        shape = read_shape(window, image.size, detector.config.data) if len(windows) > 1 else None
        yield Raw(detector, image.read(window, shape), window)
