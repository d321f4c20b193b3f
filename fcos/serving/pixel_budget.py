"""How many pixels may be held decoded at once."""

from __future__ import annotations

import threading
import time


class Room:
    """Room for so many pixels, or for one image that has more. First come, first served, so that small images do not
    keep a large one waiting for ever."""

    def __init__(self, most: int) -> None:
        self._most, self._held, self._closed = most, 0, False
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    def take(self, pixels: int, deadline: float) -> bool:
        """Wait for room and take it; False where there is none until `deadline`, a time of `time.monotonic`, or the
        room is closed."""
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits(pixels), max(deadline - time.monotonic(), 0.0))
            if self._closed or not self._fits(pixels):
                return False
            self._held += pixels
            return True

    def give_back(self, pixels: int) -> None:
        """Room that was taken is free again."""
        with self._changed:
            self._held -= pixels
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody waits or takes any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, pixels: int) -> bool:
        return self._held == 0 or self._held + pixels <= self._most
