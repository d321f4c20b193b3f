"""Changes of an image that change its boxes exactly alike. Every function is pure: sample in, sample out.

Boxes are xyxy in pixels of the image, edges between pixels: a box (0, 0, W, H) covers all of it.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from ...overlap import area
from ..images.reading import resize
from ..records import Window

KEEP = 0.3  # a box of which less than this share is left becomes a region to ignore
_HIDDEN = 0.3  # share of a box that a pasted one may hide
_PASTED = 3  # boxes that are pasted into an image, at most
_PLACES = 10  # that are tried for each
_SMALLEST = 4  # pixels of a side of a pasted box
Color = tuple[int, int, int]
Size = tuple[int, int]


class Sample(NamedTuple):
    """image [H,W,3] uint8 RGB, boxes [G,4] float32 xyxy pixels, labels [G] int64, ignore [G] bool."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray

    @property
    def size(self) -> Size:
        return self.image.shape[0], self.image.shape[1]


class Frame(NamedTuple):
    """What an image is put into: (height, width) in pixels, the colour of what it does not cover, and how it is
    resized (see `data.images.reading.resize`)."""

    size: Size
    fill: Color
    resample: str = "auto"


def fit(sample: Sample, shape: Size, resample: str = "auto") -> Sample:
    """The whole image at another size; boxes follow each side's own factor."""
    height, width = sample.size
    factor = np.array([shape[1] / width, shape[0] / height] * 2, dtype=np.float32)
    return sample._replace(image=resize(sample.image, shape, resample), boxes=sample.boxes * factor)


def flip(sample: Sample, last: int = 0) -> Sample:
    """Left becomes right. last: 1 where x2 is the last pixel inside (`data.inclusive_boxes`), else 0."""
    boxes = sample.boxes.copy()
    boxes[:, [0, 2]] = sample.size[1] - last - sample.boxes[:, [2, 0]]
    return sample._replace(image=cv2.flip(sample.image, 1), boxes=boxes)


def vertical_flip(sample: Sample, last: int = 0) -> Sample:
    """Top becomes bottom. last: 1 where y2 is the last pixel inside, else 0."""
    boxes = sample.boxes.copy()
    boxes[:, [1, 3]] = sample.size[0] - last - sample.boxes[:, [3, 1]]
    return sample._replace(image=cv2.flip(sample.image, 0), boxes=boxes)


def cut(sample: Sample, x1: int, y1: int, x2: int, y2: int) -> Sample:
    """The window from pixel (x1, y1) up to (x2, y2). Boxes are cut to it.

    A box of which less than `KEEP` is left is ignored: too little to learn from, too much to call empty.
    """
    boxes, keep, ignore = cut_boxes(sample.boxes, sample.ignore, Window(y1, x1, y2, x2))
    return Sample(sample.image[y1:y2, x1:x2], boxes[keep], sample.labels[keep], ignore[keep])


def cut_boxes(boxes: np.ndarray, ignore: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(boxes [G,4] cut to the window, in its pixels; which of them it shows [G]; which are to be ignored [G])."""
    top, left, bottom, right = window
    moved = boxes - np.array([left, top, left, top], dtype=np.float32)
    clipped = clip(moved, (bottom - top, right - left))
    # in double precision, where KEEP of a whole number is that number if it is one: exactly KEEP is enough
    before, after = (area(boxes.astype(np.float64)) for boxes in (moved, clipped))
    return clipped, after > 0, ignore | (after < KEEP * before)


def zoom(sample: Sample, rng: np.random.Generator | None, frame: Frame, factor: float) -> Sample:
    """The image scaled by `factor` in a frame: a random window of it where it is larger,
    at a random place on the fill colour where it is smaller. Without `rng` the corner at top left."""
    window, output = [], []
    for side, room in zip(sample.size, frame.size, strict=True):
        length = max(1, min(side, round(room / factor)))
        out = max(1, min(room, round(length * factor)))
        start = int(rng.integers(side - length + 1)) if rng is not None else 0
        at = int(rng.integers(room - out + 1)) if rng is not None else 0
        window.append((start, start + length))
        output.append((at, out))
    (y1, y2), (x1, x2) = window
    (top, height), (left, width) = output
    part = fit(cut(sample, x1, y1, x2, y2), (height, width), frame.resample)
    if (height, width) == tuple(frame.size):
        return part
    image = np.empty((*frame.size, 3), dtype=np.uint8)
    image[:] = frame.fill
    image[top : top + height, left : left + width] = part.image
    return part._replace(image=image, boxes=part.boxes + np.array([left, top, left, top], dtype=np.float32))


def jitter(sample: Sample, rng: np.random.Generator, frame: Frame, scales: tuple[float, float]) -> Sample:
    """Large-scale jitter: zoomed by a random factor (uniform in its logarithm) relative to filling the frame."""
    scale = float(np.exp(rng.uniform(*sorted(np.log(scales)))))
    return zoom(sample, rng, frame, scale * contain(sample.size, frame.size))


def contain(size: Size, frame: Size) -> float:
    """The largest factor at which an image of `size` still fits into `frame`."""
    return min(frame[0] / size[0], frame[1] / size[1])


def mosaic(samples: list[Sample], rng: np.random.Generator, frame: Frame) -> Sample:
    """Four images around a random point of the frame, each at half to full size, cut at the seams."""
    height, width = frame.size
    y = int(np.clip(round(height * rng.uniform(0.3, 0.7)), 1, max(1, height - 1)))
    x = int(np.clip(round(width * rng.uniform(0.3, 0.7)), 1, max(1, width - 1)))
    image = np.empty((height, width, 3), dtype=np.uint8)
    parts = []
    tiles = ((0, 0, y, x), (0, x, y, width - x), (y, 0, height - y, x), (y, x, height - y, width - x))
    for sample, (top, left, h, w) in zip(samples, tiles, strict=True):
        if h < 1 or w < 1:
            continue
        factor = contain(sample.size, frame.size) * rng.uniform(0.5, 1.0)
        part = zoom(sample, rng, frame._replace(size=(h, w)), factor)
        image[top : top + h, left : left + w] = part.image
        parts.append(part._replace(boxes=part.boxes + np.array([left, top, left, top], dtype=np.float32)))
    return _join(image, parts)


def paste(sample: Sample, other: Sample, rng: np.random.Generator, frame: Frame, last: int = 0) -> Sample:
    """The image with one to three boxes of the other, each with all that is in it, at random places where it hides no
    box by more than 30 %, and none twice. Copy-paste (arXiv 2012.07177), but by boxes, as there are no masks.

    A box is scaled by 0.5 to 1.5 times what makes both images as large. One that is as large as the image, or for which
    ten places do not do, is left out. Of `frame` the way of resizing is taken. last: as of `flip`.
    """
    image, parts = sample.image.copy(), [sample]
    height, width = sample.size
    scale = contain(other.size, sample.size)
    shares = np.full(len(sample.boxes), _HIDDEN)  # that may be hidden of each box
    chosen = rng.permutation(np.flatnonzero(~other.ignore))[: int(rng.integers(1, _PASTED + 1))]
    for window in other.boxes[chosen]:
        x1, y1 = np.floor(window[:2]).astype(int).clip(0).tolist()
        x2, y2 = (np.ceil(window[2:]).astype(int) + last).clip(max=other.size[::-1]).tolist()
        factor = scale * float(rng.uniform(0.5, 1.5))
        h, w = round((y2 - y1) * factor), round((x2 - x1) * factor)
        if not (_SMALLEST <= h < height and _SMALLEST <= w < width):
            continue
        boxes = np.concatenate([part.boxes for part in parts])
        for _ in range(_PLACES):
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            corner = np.array([left, top, left, top], dtype=np.float32)
            hidden = area(clip(boxes - corner, (h, w)))
            if not (hidden > shares * area(boxes)).any():
                piece = fit(cut(other, x1, y1, x2, y2), (h, w), frame.resample)
                image[top : top + h, left : left + w] = piece.image
                parts.append(piece._replace(boxes=piece.boxes + corner))
                shares = np.append(np.where(hidden > 0, 0.0, shares), np.full(len(piece.boxes), _HIDDEN))
                break
    return _join(image, parts)


def mixup(first: Sample, second: Sample, rng: np.random.Generator) -> Sample:
    """Both images laid over each other at about half strength; all boxes stay. Size of the first."""
    share = float(rng.beta(8, 8))
    height, width = first.size
    h, w = min(height, second.size[0]), min(width, second.size[1])
    image = first.image.copy()
    image[:h, :w] = cv2.addWeighted(first.image[:h, :w], share, second.image[:h, :w], 1 - share, 0)
    return _join(image, [first, cut(second, 0, 0, w, h)])


def color(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Brightness, contrast, saturation (each up to 40 % at strength 1) and hue (18 degrees) of an image [H,W,3] uint8.

    All four are linear in RGB, so together they are one 3x4 matrix and one pass over the image.
    """
    bright, contrast, saturation = 1 + rng.uniform(-0.4, 0.4, 3) * strength
    angle = rng.uniform(-0.1, 0.1) * np.pi * strength
    luma = np.array([0.299, 0.587, 0.114])
    grey = np.tile(luma, (3, 1))  # projects a colour on its brightness
    # Rotation about the grey axis, built so that it leaves greys and brightness alone.
    axis = np.ones(3) / np.sqrt(3)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = np.eye(3) * np.cos(angle) + np.sin(angle) * cross + (1 - np.cos(angle)) * np.outer(axis, axis)
    matrix = grey + saturation * (turn - grey @ turn)
    mean = float(np.dot(image[::8, ::8].reshape(-1, 3).mean(axis=0), luma))
    matrix = bright * contrast * matrix
    offset = np.full((3, 1), bright * (1 - contrast) * mean)
    return cv2.transform(image, np.hstack((matrix, offset)))


def clip(boxes: np.ndarray, size: Size) -> np.ndarray:
    """Boxes [G,4] float32 xyxy cut to an image of (height, width)."""
    limit = np.array([size[1], size[0], size[1], size[0]], dtype=np.float32)
    result: np.ndarray = np.minimum(np.maximum(boxes, 0), limit)
    return result


def _join(image: np.ndarray, parts: list[Sample]) -> Sample:
    return Sample(
        image,
        np.concatenate([p.boxes for p in parts]),
        np.concatenate([p.labels for p in parts]),
        np.concatenate([p.ignore for p in parts]),
    )
