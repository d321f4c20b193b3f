"""Words and bars for a terminal: tables, times, shares, progress."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np

T = TypeVar("T")


def track(items: Iterable[T], total: int, label: str, weight: Any = None) -> Iterator[T]:
    """`items` with a bar on stderr; nothing is shown where stderr is no terminal. weight(item): its share."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True)
    ) as bar:
        task = bar.add_task(label, total=total)
        for item in items:
            yield item
            bar.advance(task, 1 if weight is None else weight(item))


def table(head: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> str:
    """Aligned columns; the first `left` of them flush left, numbers flush right."""
    cells = [[str(c) for c in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def data_name(root: str) -> str:
    """A short name of a data set: the folder, also where `root` is a file in it."""
    path = Path(root)
    return path.parent.name if path.suffix else path.name


def percent(value: float | None, digits: int = 2) -> str:
    """0.984 -> '98.40'; '-' where there is nothing."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


@overload
def plain(value: dict[str, Any]) -> dict[str, Any]: ...


@overload
def plain(value: Any) -> Any: ...


def plain(value: Any) -> Any:
    """JSON-ready: numpy numbers and arrays become Python's, NaN becomes None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plural(count: int, noun: str) -> str:
    """1 class, 20 classes, 1,234 boxes, 2 queries."""
    if count != 1:
        if noun.endswith(("s", "x", "ch", "sh")):
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
    text = ", ".join(repr(v) for v in values[:limit])
    return text + (f", ... {values[-1]!r}" if len(values) > limit else "")
