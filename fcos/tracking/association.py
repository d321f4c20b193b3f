"""Which detection is which object: overlaps, and the pairs that make their sum largest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import require
from ..overlap import pairwise_iou

Floats = NDArray[np.float64]
Pairs = list[tuple[int, int]]


_BUFFER = 0.15  # share of its sides by which a box is enlarged at each side (arXiv 2211.13437): few frames, long ways


def enlarged_iou(a: Floats, b: Floats) -> Floats:
    """IoU [A,B] of boxes a [A,4] and b [B,4], xyxy, each enlarged a little."""
    return pairwise_iou(_enlarged(a), _enlarged(b))


def pair(worth: Floats, allowed: NDArray[np.bool_]) -> Pairs:
    """Pairs (row, column) whose worth [A,B] in 0..1 sums to the most, none twice, only where `allowed` [A,B]."""
    if not allowed.any():
        return []
    optimize = require("scipy.optimize", "track")
    rows, columns = optimize.linear_sum_assignment(np.where(allowed, -worth, 1e3))
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if allowed[r, c]]


def _enlarged(boxes: Floats) -> Floats:
    more = _BUFFER * (boxes[:, 2:] - boxes[:, :2])
    return np.concatenate([boxes[:, :2] - more, boxes[:, 2:] + more], axis=1)
