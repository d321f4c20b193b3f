"""Large images in tiles: cut into overlapping windows, each detected like an image, and put together (merge.py).

Tiles of twice the side, four times, and so on up to the whole image go along, so that what is larger than a tile is
seen as well; that costs a third more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..boxes import last_pixel
from ..config import Config, DataConfig
from ..data.images.reading import resize
from ..data.records import Size, Window
from ..data.tiles import OVERLAP, count_windows, cut_windows
from ..detections import Detections
from ..errors import ConfigError
from ..types import Classes
from .merge import Merged, Rows, merge, rows_of

Pixels = NDArray[np.uint8]
_LEAST = 32  # pixels a tile's side must have
_READ = 17_000_000  # pixels of a window from which it is read smaller, as the network takes it


class Windows(Protocol):
    """An image that is read in parts: an array, or a file too large to be held."""

    @property
    def size(self) -> Size:
        """(height, width) in pixels."""

    def read(self, window: Window, shape: Size | None = None) -> Pixels:
        """uint8 [h,w,3] RGB of a window; in (height, width) where a shape is given, no larger than the window."""


class Looker(Protocol):
    """What looks at one tile: a Detector, or several looks put together."""

    @property
    def config(self) -> Config: ...

    @property
    def classes(self) -> Classes: ...

    def detect(
        self, images: Sequence[Pixels], names: Sequence[str | None], score: float = 0.0, batch: int = 1
    ) -> list[Detections]: ...


@dataclass(frozen=True)
class Held:
    """An image in memory, uint8 [H,W,3] RGB, as `Windows`."""

    image: Pixels

    @property
    def size(self) -> Size:
        height, width = self.image.shape[:2]
        return height, width

    def read(self, window: Window, shape: Size | None = None) -> Pixels:
        part = self.image[window.top : window.bottom, window.left : window.right]
        return part if shape is None else resize(part, shape)


@dataclass(frozen=True)
class Tiling:
    """How an image is cut. tile: side of a tile in pixels of the image; overlap: of two neighbours, as a share of the
    side, 0..0.9; whole: larger tiles and the whole image go along; batch: tiles in one pass of the network; largest:
    longest side in pixels of what is looked for, where that is known: larger tiles end where their overlap holds it."""

    tile: int
    overlap: float = OVERLAP
    whole: bool = True
    batch: int = 4
    largest: float = math.inf

    def __post_init__(self) -> None:
        if self.tile < _LEAST:
            raise ConfigError(f"tile {self.tile} is too small; give at least {_LEAST} pixels, or auto")
        if not 0 <= self.overlap <= 0.9:
            raise ConfigError(f"--overlap {self.overlap:g} is no share of a tile; give 0 to 0.9, such as 0.2")

    def windows(self, size: Size) -> list[Window]:
        """The tiles of an image of (height, width), then the larger ones; the whole image comes last. One alone where
        the image is no larger than a tile."""
        windows = cut_windows(size, self.tile, self.overlap)
        if len(windows) == 1 or not self.whole:
            return windows
        windows += [window for side in self._larger(size) for window in cut_windows(size, side, self.overlap)]
        return [*windows, Window(0, 0, *size)]

    def count(self, size: Size) -> int:
        """How many `windows` gives, without making them."""
        count = count_windows(size, self.tile, self.overlap)
        if count == 1 or not self.whole:
            return count
        return count + sum(count_windows(size, side, self.overlap) for side in self._larger(size)) + 1

    def _larger(self, size: Size) -> list[int]:
        """The sides of the larger tiles of an image: what a tile cuts, a larger one may hold."""
        sides, side = [], self.tile
        while self.overlap * side < self.largest and 2 * side < max(size):
            side *= 2
            sides.append(side)
        return sides


def parse_tile(text: str | int, data: DataConfig, overlap: float = OVERLAP, batch: int = 4) -> Tiling:
    """The tiling of "auto" or a number of pixels, for a model with the settings `data`.

    "auto" goes by the boxes that the model learned, which its file keeps: tiles of the size of the images they were on,
    so that objects come out as large as the network knows them, and larger tiles only until their overlap holds 95 % of
    the learned boxes whole. Where the file does not say, tiles of the model's input size, and larger ones up to the
    whole image.
    """
    if str(text) == "auto":
        largest = data.learned_boxes[-1] if data.learned_boxes else math.inf
        return Tiling(max(data.learned_side or data.size, _LEAST), overlap, batch=batch, largest=largest)
    try:
        return Tiling(int(text), overlap, batch=batch)
    except ValueError:
        raise ConfigError(f"tile {text!r} is neither a number of pixels nor auto") from None


@dataclass(frozen=True)
class Looked:
    """An image through its windows: what each saw, in pixels of the image, all of that as `rows`, and what became of
    it."""

    windows: tuple[Window, ...]
    seen: tuple[Detections, ...]
    rows: Rows
    merged: Merged

    @staticmethod
    def of(windows: Sequence[Window], seen: Sequence[Detections], size: Size) -> Looked:
        """What `windows` of an image of (height, width) saw, merged."""
        rows = rows_of(seen, windows, size)
        return Looked(tuple(windows), tuple(seen), rows, merge(rows))


def look(detector: Looker, image: Windows, tiling: Tiling) -> Looked:
    """Detect in each window of an image, and merge."""
    windows = tiling.windows(image.size)
    seen: list[Detections] = []
    count, last = max(1, tiling.batch), last_pixel(detector.config.data)
    for start in range(0, len(windows), count):
        part = windows[start : start + count]
        images = [image.read(w, read_shape(w, image.size, detector.config.data)) for w in part]
        seen += [
            _placed(detections, window, last)
            for detections, window in zip(detector.detect(images, [None] * len(part), 0.0, count), part, strict=True)
        ]
    return Looked.of(windows, seen, image.size)


def detect_tiles(
    detector: Looker, image: Windows, tiling: Tiling, *, score: float = 0.0, name: str | None = None
) -> Detections:
    """Detections of a large image, in its pixels, at least `score`. One tile alone is plain detection, bit for bit.

    Locations (`points`) are -1: they would be those of a tile's own input.
    """
    windows = tiling.windows(image.size)
    if len(windows) == 1:
        return detector.detect([image.read(windows[0])], [name], score)[0]
    # a weak box of the whole image, or of the next tile, may still say that a stronger one is a piece
    found = kept(look(detector, image, tiling), detector)[0]
    return replace(found[found.scores >= score], size=image.size, source=name)


def kept(looked: Looked, detector: Looker) -> tuple[Detections, NDArray[np.int64]]:
    """(the detections of an image after NMS, best first; which of the merged boxes they are [D])."""
    merged, decode = looked.merged, detector.config.decode
    keep, scores = merged.suppress(decode, decode.max_detections * len(looked.windows))
    boxes, labels = torch.from_numpy(merged.boxes[keep]), torch.from_numpy(merged.labels[keep])
    names, ids = detector.classes.names, detector.classes.ids
    points = torch.full((len(keep),), -1, device="cpu")
    return Detections(boxes, torch.from_numpy(scores), labels, points, names=names, ids=ids), keep


def read_shape(window: Window, size: Size, data: DataConfig) -> Size | None:
    """(height, width) in which a window is read: None for its own; smaller where it is the whole image or too large to
    be held beside others: twice what the network takes, which shrinks it the rest of the way."""
    height, width = window.bottom - window.top, window.right - window.left
    if (height, width) != size and height * width <= _READ:
        return None
    ratio = min(1.0, 2 * data.size / min(height, width), 2 * data.max_size / max(height, width))
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def _placed(detections: Detections, window: Window, last: Tensor) -> Detections:
    """Detections of a window as it was read, in pixels of the image. `last` [4], the pixel that the detector added to
    its boxes (`last_pixel`), is one of the image."""
    height, width = detections.size or (window.bottom - window.top, window.right - window.left)
    factor = last.new_tensor([(window.right - window.left) / width, (window.bottom - window.top) / height] * 2)
    shift = last.new_tensor([window.left, window.top] * 2) + last * (1 - factor)
    return replace(detections, boxes=detections.boxes * factor + shift)
