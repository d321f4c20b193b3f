"""The image that detections remember, to be drawn on later."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor

_LARGE = 64 << 20  # bytes of an image above which only its owner keeps it alive


class Kept:
    """An image that detections remember: the pixels where they are few, else a weak reference to what was given. Pixels
    whose memory is the caller's, to be written again, are copied."""

    def __init__(self, pixels: np.ndarray, given: object) -> None:
        if pixels.nbytes <= _LARGE and _shared(pixels, given):
            pixels = pixels.copy()
        self.pixels: np.ndarray | None = pixels if pixels.nbytes <= _LARGE else None
        self._given: weakref.ref[Any] | None = None
        if self.pixels is None:
            try:
                self._given = weakref.ref(given)
            except TypeError:  # bytes cannot be referred to
                self.pixels = pixels

    def get(self) -> Any:
        """The image; None where it was large and is gone."""
        if self.pixels is not None:
            return self.pixels if self.pixels.size else None
        return self._given() if self._given is not None else None

    def __deepcopy__(self, memo: dict[int, Any]) -> Kept:
        return self  # nothing writes into the pixels

    def __reduce__(self) -> tuple[Any, ...]:
        pixels = self.pixels if self.pixels is not None else np.zeros((0, 0, 3), np.uint8)
        return Kept, (pixels, None)


def _shared(pixels: np.ndarray, given: object) -> bool:
    """Whether the memory of `pixels` is that of what was given, an array or a tensor that may be written again."""
    if isinstance(given, Tensor):
        given = given.detach().numpy() if given.device.type == "cpu" and given.dtype == torch.uint8 else None
    if not isinstance(given, np.ndarray) or not np.may_share_memory(pixels, given):
        return False
    owner: Any = given
    while isinstance(owner, np.ndarray):  # a view that is not to be written may be of a buffer that is
        if owner.flags.writeable:
            return True
        owner = owner.base
    return not (owner is None or isinstance(owner, bytes))
