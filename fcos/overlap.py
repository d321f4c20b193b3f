"""How boxes in NumPy arrays overlap, where they never become tensors (those: boxes.py). All xyxy, width = x2 - x1.

Leading dimensions are broadcast: `iou(a[:, None], b[None])` is every pair, `iou(a, b)` each box with its own.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", bound=np.floating[Any])


def area(boxes: NDArray[F]) -> NDArray[F]:
    """Areas [...] of boxes [...,4]; 0 where corners are exchanged."""
    result: NDArray[F] = np.maximum(boxes[..., 2:] - boxes[..., :2], 0).prod(axis=-1)
    return result


def shared(a: NDArray[F], b: NDArray[F]) -> NDArray[F]:
    """Areas [...] that lie in boxes a [...,4] and in b [...,4]."""
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    result: NDArray[F] = np.maximum(sides, 0).prod(axis=-1)
    return result


def iou(a: NDArray[F], b: NDArray[F]) -> NDArray[F]:
    """IoU [...] of boxes a [...,4] and b [...,4], in 0..1; 0 where both are empty."""
    both = shared(a, b)
    result: NDArray[F] = both / np.maximum(area(a) + area(b) - both, 1e-12)
    return result


def pairwise_iou(a: NDArray[F], b: NDArray[F]) -> NDArray[F]:
    """IoU [A,B] of every pair of a [A,4] and b [B,4], in 0..1; 0 where both are empty."""
    return iou(a[:, None], b[None])
