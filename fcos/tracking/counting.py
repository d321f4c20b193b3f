"""Objects counted as they cross a line or enter a zone. What counts is the middle of the box's lower edge, where most
things stand on the ground.

Boxes tremble, so whoever stands at an edge would cross it with every frame. So an object is over a line or an edge only
once it is `MARGIN` of its box's height beyond it; until then it is where it was. (A Schmitt trigger. By the height,
since boxes tremble the more, the larger they are.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

Floats = NDArray[np.float64]
Point = tuple[float, float]
V = TypeVar("V")
MARGIN = 0.05  # of a box's height
KEPT = 10_000  # objects seen last that are remembered: a camera that runs for months sees millions


def foot(box: Floats) -> Point:
    """The point of a box xyxy [4] that counts."""
    return float(box[0] + box[2]) / 2, float(box[3])


@dataclass
class Line:
    """A line from (x1, y1) to (x2, y2). Who crosses it from its left to its right, as one walks along it, goes in; the
    other way out. Each object counts once for each crossing. margin: how far it must come beyond, in heights of its
    box."""

    start: Point
    end: Point
    margin: float = MARGIN
    entered: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    _last: dict[int, Point] = field(default_factory=dict)

    def update(self, ids: Sequence[int], names: Sequence[str], boxes: Floats) -> None:
        """Count the crossings since the frame before."""
        for number, name, box in zip(ids, names, boxes, strict=True):
            now = foot(box)
            before = self._last.get(number)
            beyond = self._beyond(now)
            if before is not None and beyond * self._beyond(before) < 0:
                if abs(beyond) < self.margin * _height(box):  # not over it yet
                    keep(self._last, number, before)
                    continue
                if _meet(before, now, self.start, self.end):
                    (self.entered if beyond > 0 else self.left)[name] += 1
            if beyond != 0:  # on the line it is on no side
                keep(self._last, number, now)

    def _beyond(self, point: Point) -> float:
        """Pixels to the right of the line as the image shows it (y grows downward), negative to the left."""
        return _turn(self.start, self.end, point) / float(np.hypot(*np.subtract(self.end, self.start)))


@dataclass
class Zone:
    """A polygon. entered, left: objects that came in and went out; what is inside at first counts as having come in.
    margin: how far one must come beyond its edge, in heights of its box."""

    corners: Sequence[Point]
    margin: float = MARGIN
    entered: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    _inside: dict[int, str] = field(default_factory=dict)
    _known: dict[int, None] = field(default_factory=dict)
    _stayed: int = 0  # inside when they were seen last, and forgotten

    def update(self, ids: Sequence[int], names: Sequence[str], boxes: Floats) -> None:
        """Count who came and went since the frame before. Who is out of sight is where he was."""
        for number, name, box in zip(ids, names, boxes, strict=True):
            point = foot(box)
            inside = within(point, self.corners)
            changed = number in self._known and inside != (number in self._inside)
            gone = keep(self._known, number, None)
            if gone is not None and self._inside.pop(gone[0], None) is not None:
                self._stayed += 1
            if changed and _to_edge(point, self.corners) < self.margin * _height(box):  # not over the edge yet
                continue
            if inside and number not in self._inside:
                self.entered[name] += 1
                self._inside[number] = name
            elif not inside and number in self._inside:
                self.left[self._inside.pop(number)] += 1

    @property
    def inside(self) -> int:
        """Objects inside now."""
        return len(self._inside) + self._stayed


def keep(seen: dict[int, V], number: int, value: V) -> tuple[int, V] | None:
    """Put the value of an object behind all others; of more than `KEPT` the one that was seen first is taken out, and
    returned."""
    seen.pop(number, None)
    seen[number] = value
    if len(seen) <= KEPT:
        return None
    oldest = next(iter(seen))
    return oldest, seen.pop(oldest)


def within(point: Point, corners: Sequence[Point]) -> bool:
    """Whether a point lies inside a polygon (even-odd rule)."""
    x, y = point
    odd = False
    for (x1, y1), (x2, y2) in zip(corners, (*corners[1:], corners[0]), strict=True):
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            odd = not odd
    return odd


def _height(box: Floats) -> float:
    return float(box[3] - box[1])


def _to_edge(point: Point, corners: Sequence[Point]) -> float:
    """Pixels from a point to the nearest edge of a polygon."""
    start = np.array(corners, float)
    side = np.roll(start, -1, axis=0) - start
    from_start = np.array(point, float) - start
    along = (from_start * side).sum(axis=1) / np.maximum((side**2).sum(axis=1), 1e-12)
    return float(np.linalg.norm(from_start - np.clip(along, 0, 1)[:, None] * side, axis=1).min())


def _turn(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _meet(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether the way a-b crosses the line c-d between its ends."""
    return _turn(a, b, c) * _turn(a, b, d) <= 0 and _turn(c, d, a) * _turn(c, d, b) <= 0


def parse_line(text: str, margin: float = MARGIN) -> Line:
    """The line of "x1,y1,x2,y2" in pixels; ConfigError for anything else."""
    numbers = _numbers(text)
    if len(numbers) != 4 or numbers[:2] == numbers[2:]:
        raise ConfigError(f"--count-line {text!r} is no line; write x1,y1,x2,y2 in pixels, such as 0,200,640,200")
    return Line((numbers[0], numbers[1]), (numbers[2], numbers[3]), margin)


def parse_zone(text: str, margin: float = MARGIN) -> Zone:
    """The polygon of "x1,y1,x2,y2,x3,y3,..." in pixels; ConfigError for fewer than three corners."""
    numbers = _numbers(text)
    if len(numbers) < 6 or len(numbers) % 2:
        raise ConfigError(f"--zone {text!r} is no polygon; write three corners or more: x1,y1,x2,y2,x3,y3")
    return Zone(list(zip(numbers[::2], numbers[1::2], strict=True)), margin)


def _numbers(text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        return []
    return values if all(abs(v) < 1e7 for v in values) else []
