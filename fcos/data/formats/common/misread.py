"""What the numbers of boxes look like that do not fit their images: another unit, or another form than the format's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ... import kinds
from ...kinds import Form, Kind

_FEW = 5  # boxes of which none is wider than a pixel
_SOME = 11  # boxes of which some do not fit their images
_MANY, _IMAGES = 50, 20  # boxes that lie in one part of so many images
_OFF = 0.1  # share of the boxes that do not fit as they are read
_FIT = 0.99  # share of them that fit as they are meant: a few are wrong in most sets
_PART = 0.7  # of both sides of the images, from the upper left corner on

_Four = tuple[np.ndarray, ...]
_NUMBERS: dict[Form, Callable[[_Four], _Four]] = {  # corners -> the numbers as the file has them
    "xyxy": lambda c: c,
    "xywh": lambda c: (c[0], c[1], c[2] - c[0], c[3] - c[1]),
    "cxcywh": lambda c: ((c[0] + c[2]) / 2, (c[1] + c[3]) / 2, c[2] - c[0], c[3] - c[1]),
}
_CORNERS: dict[Form, Callable[[_Four], _Four]] = {  # the numbers -> corners, in the order in which they are tried
    "xywh": lambda n: (n[0], n[1], n[0] + n[2], n[1] + n[3]),
    "cxcywh": lambda n: (n[0] - n[2] / 2, n[1] - n[3] / 2, n[0] + n[2] / 2, n[1] + n[3] / 2),
    "xyxy": lambda n: n,
    "xxyy": lambda n: (n[0], n[2], n[1], n[3]),
    "yxyx": lambda n: (n[1], n[0], n[3], n[2]),
}


def misread(
    boxes: np.ndarray, sizes: np.ndarray, owner: np.ndarray, form: Form | None
) -> tuple[Kind, np.ndarray] | None:
    """What boxes [G,4] (xyxy, finite) look like that do not fit their images, and which of them show it [G] bool; None
    where they look well, or are too few to tell. `sizes` [G,2] (height, width) and `owner` [G]: their images; `form`:
    how they were read, None if in several ways."""
    everything = np.ones(len(boxes), bool)
    numbers = _NUMBERS[form or "xyxy"](tuple(boxes.T))
    if len(boxes) >= _FEW and (np.abs(numbers) <= 1.5).all() and (sizes > 10).all():
        return kinds.SHARES, everything
    off = ~_fits(tuple(boxes.T), sizes, 2)
    if form is not None and len(boxes) >= _SOME and off.mean() >= _OFF:
        for meant, corners in _CORNERS.items():
            if meant != form and _fits(corners(numbers), sizes, 1).mean() >= _FIT:
                return kinds.MEANT[form, meant], off
    if len(boxes) >= _MANY and (boxes[:, :1:-1] < _PART * sizes).all() and len(np.unique(owner)) >= _IMAGES:
        return kinds.UPPER_LEFT, everything
    return None


def _fits(corners: _Four, sizes: np.ndarray, slack: float) -> np.ndarray:
    """Which boxes [G] have an area and lie within their image, up to `slack` pixels."""
    x1, y1, x2, y2 = corners
    height, width = sizes.T
    solid = (x2 > x1) & (y2 > y1)
    fits: np.ndarray = solid & (x1 >= -slack) & (y1 >= -slack) & (x2 <= width + slack) & (y2 <= height + slack)
    return fits
