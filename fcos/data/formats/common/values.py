"""Values out of files of strangers, as what they should be: whatever stands there, nothing raises but DataError."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ...records import Size
from .pages import Box

NAN = float("nan")


def dicts(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; what is none is left out."""
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def mapping(value: Any) -> dict[str, Any]:
    """An object, or an empty one."""
    return value if isinstance(value, dict) else {}


def number(value: Any) -> float:
    """A float; NaN for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return NAN
    try:
        return float(value)
    except (ValueError, OverflowError):
        return NAN


def word(value: Any) -> str:
    """A text without spaces around it; '' for what is neither text nor number."""
    return str(value).strip() if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def yes(value: Any) -> bool:
    """True for true, 1, '1', '1.0', 'true', 'yes'; False for everything else."""
    return value is True or number(value) == 1 or word(value).lower() in ("true", "yes")


def size(height: Any, width: Any) -> Size | None:
    """(height, width) in pixels; None where they are no sides of an image."""
    sides = number(height), number(width)
    return (int(sides[0]), int(sides[1])) if all(1 <= side < 10**6 for side in sides) else None


def bounds(points: Any) -> Box | None:
    """The box around points [[x, y], ...]; None where they are none."""
    if not isinstance(points, list) or not points:
        return None
    pairs = [p for p in points if isinstance(p, list) and len(p) >= 2]
    if len(pairs) != len(points):
        return None
    return around([(number(p[0]), number(p[1])) for p in pairs])


def around(points: Iterable[tuple[float, float]]) -> Box:
    """The box around points; NaN where one of them is."""
    xs, ys = zip(*points, strict=True)
    if any(math.isnan(v) for v in (*xs, *ys)):
        return NAN, NAN, NAN, NAN
    return min(xs), min(ys), max(xs), max(ys)


def turned(box: Box, degrees: float, centre: tuple[float, float]) -> Box:
    """The box around a box that is turned clockwise about a point."""
    if not degrees:
        return box
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    x1, y1, x2, y2 = box
    cx, cy = centre
    corners = ((x, y) for x in (x1, x2) for y in (y1, y2))
    return around(
        [(cx + (x - cx) * cosine - (y - cy) * sine, cy + (x - cx) * sine + (y - cy) * cosine) for x, y in corners]
    )
