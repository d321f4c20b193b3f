"""How a box moves: a Kalman filter with constant velocity, in seconds, so that any frame rate and gap will do.

State: centre x, y, width, height and their speeds in pixels a second. As in SORT (arXiv 1602.00763) and ByteTrack
(arXiv 2110.06864) the noise grows with the size of the box: what is large on the image also moves more pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_PLACE = 1 / 40  # deviation of a place, as a share of the height; half of the papers, whose boxes come from crowds
_SPEED = 1 / 160 * 30  # change of speed in a second, as a share of the height; 1/160 a frame at 30 frames a second
_FRAME = 1 / 30  # seconds: the unit in which the papers' noise is given


class Motion:
    """One object's filter. Boxes are xyxy [4] in pixels, times in seconds."""

    def __init__(self, box: Floats, time: float) -> None:
        measured = _to_center(box)
        self.mean = np.concatenate([measured, np.zeros(4)])
        height = max(measured[3], 1.0)
        deviations = np.array([2 * _PLACE * height] * 4 + [10 * _SPEED * height] * 4)
        self.covariance = np.diag(np.square(deviations))
        self.time = time

    def copy(self) -> Motion:
        twin = Motion.__new__(Motion)
        twin.mean, twin.covariance, twin.time = self.mean.copy(), self.covariance.copy(), self.time
        return twin

    def predict(self, time: float) -> Floats:
        """Go on to `time`, unless it is past; the box that is expected there."""
        step = time - self.time
        if step > 0:
            move = np.eye(8)
            move[:4, 4:] = step * np.eye(4)
            height = max(self.mean[3], 1.0)
            frames = step / _FRAME
            noise = np.array([_PLACE * height] * 4 + [_SPEED * height] * 4)
            self.mean = move @ self.mean
            self.covariance = move @ self.covariance @ move.T + frames * np.diag(np.square(noise))
            self.time = time
            if (shrunk := self.mean[2:4] <= 1).any():  # a side that runs to nothing stops there
                self.mean[6:8][shrunk] = 0.0
                self.mean[2:4] = np.maximum(self.mean[2:4], 1.0)
        return self.box

    def update(self, box: Floats) -> None:
        """Learn that the object is at `box` now."""
        height = max(self.mean[3], 1.0)
        noise = np.diag(np.full(4, (_PLACE * height) ** 2))
        innovation = self.covariance[:4, :4] + noise
        gain = np.linalg.solve(innovation, self.covariance[:4]).T
        self.mean = self.mean + gain @ (_to_center(box) - self.mean[:4])
        self.covariance = self.covariance - gain @ innovation @ gain.T
        self.mean[2:4] = np.maximum(self.mean[2:4], 1.0)

    @property
    def box(self) -> Floats:
        """The box xyxy [4] of the state."""
        x, y, width, height = self.mean[:4]
        return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def _to_center(box: Floats) -> Floats:
    x1, y1, x2, y2 = box
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])
