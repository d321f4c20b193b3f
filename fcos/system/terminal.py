"""Words for a terminal and for reports: tables, times, shares, counts."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from ..errors import ConfigError, one_line

SMALLEST = 32  # pixels of a side


def parse_shape(text: str) -> tuple[int, int]:
    """(height, width) of "HxW" or "N" in pixels; ConfigError for anything else."""
    match = re.fullmatch(r"\s*(\d{1,5})(?:x(\d{1,5}))?\s*", text)
    shape = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if min(shape) < SMALLEST:
        raise ConfigError(f"--size {text!r}: write HxW in pixels, {SMALLEST} at least, such as 800x1088, or one number")
    return shape


def table(head: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> str:
    """Aligned columns; the first `left` of them flush left, numbers flush right."""
    from rich.cells import cell_len  # signs of some scripts are two columns wide

    cells = [[one_line(str(c)) for c in row] for row in [head, *rows]]
    widths = [max(cell_len(row[i]) for row in cells) for i in range(len(head))]

    def padded(cell: str, width: int, first: bool) -> str:
        gap = " " * (width - cell_len(cell))
        return cell + gap if first else gap + cell

    lines = [
        "  ".join(padded(c, w, i < left) for i, (c, w) in enumerate(zip(row, widths, strict=True))) for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def html_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The same for a notebook; the first column is the row's name."""
    from html import escape

    def row(tag: str, cells: Sequence[object]) -> str:
        first, *rest = (escape(one_line(str(c))) for c in cells)
        return f"<tr><th style='text-align:left'>{first}</th>{''.join(f'<{tag}>{c}</{tag}>' for c in rest)}</tr>"

    return f"<table>{row('th', head)}{''.join(row('td', cells) for cells in rows)}</table>"


def data_name(root: str) -> str:
    """A short name of a data set: the folder, also where `root` is a file in it."""
    path = Path(os.path.abspath(root))
    return path.parent.name if path.suffix and not os.path.isdir(path) else path.name


def percent(value: float | None, digits: int = 2) -> str:
    """0.984 -> '98.40'; '-' where there is nothing."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def decimal(value: float, digits: int = 3) -> str:
    """0.98432 -> '0.984'; '-' where there is nothing (nan)."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


@overload
def json_ready(value: dict[str, Any]) -> dict[str, Any]: ...


@overload
def json_ready(value: Any) -> Any: ...


def json_ready(value: Any) -> Any:
    """JSON-ready: numpy numbers and arrays become Python's, NaN becomes None."""
    if isinstance(value, dict):
        return {str(k): json_ready(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(v) for v in value]
    if isinstance(value, np.ndarray):
        return json_ready(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plural(count: int, noun: str) -> str:
    """1 class, 20 classes, 1,234 boxes, 2 queries, 5 epochs."""
    if count != 1:
        if noun.endswith(("s", "x", "ch", "sh")) and not noun.endswith("epoch"):
            noun += "es"
        elif noun.endswith("y") and noun[-2] not in "aeiou":
            noun = noun[:-1] + "ies"
        else:
            noun += "s"
    return f"{count:,} {noun}"


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    whole = int(max(0.0, seconds) + 0.5)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def some(values: Sequence[Any], limit: int = 5) -> str:
    """The first `limit` of several values and the last one, for a message: 'a', 'b', ... 'z'."""
    text = ", ".join(repr(v) for v in values[:limit])
    return text + (f", ... {values[-1]!r}" if len(values) > limit else "")
