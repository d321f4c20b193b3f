"""Words and bars for a terminal: tables, times, shares, sizes, progress."""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import numpy as np

from ..errors import ConfigError, one_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

T = TypeVar("T")
PLAIN_SECONDS = 20.0  # between lines of progress where there is no bar
SMALLEST = 32  # pixels of a side


def in_notebook() -> bool:
    """Whether rich can draw a bar below a cell of Jupyter: its kernel runs this, and ipywidgets is there."""
    shell = sys.modules.get("IPython")
    if shell is None or type(shell.get_ipython()).__name__ != "ZMQInteractiveShell":
        return False
    return find_spec("ipywidgets") is not None


class Bar:
    """How far a long job is, on stderr: a bar with rate and time left; where stderr is no terminal a plain line every
    `PLAIN_SECONDS`. For use in a `with`.

    `unit` is what is counted ("images") and gives a rate; "B" counts bytes and shows MB. `total` None: not known.
    `done` lies behind already and does not count for the rate. `quiet`: nothing at all. `most()`, where it is set: in
    how many seconds it ends, whatever the rate says.
    """

    most: Callable[[], float] | None = None

    def __init__(
        self, label: str, total: float | None = None, unit: str = "", *, done: float = 0, quiet: bool = False
    ) -> None:
        self.label, self.total, self.unit, self.quiet = label, total, unit, quiet
        self.done, self.info = done, ""
        self._first: float | None = done if done else None  # where the rate counts from
        self._began = self._last = time.perf_counter()
        self._live: tuple[Progress, TaskID] | None = None
        self._spoken = False

    def start(self) -> Self:
        """Show it; `with` does."""
        if not self.quiet and (sys.stderr.isatty() or in_notebook()):
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
            live = Progress(*columns, console=Console(stderr=not in_notebook()))
            self._live = live, live.add_task(self.label, total=self.total, text="")
            live.start()
        return self

    def stop(self) -> None:
        """Leave it as it stands."""
        if self._live is not None:
            self._live[0].stop()
            self._live = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def advance(self, count: float = 1) -> None:
        """`count` more are done."""
        self._first = 0 if self._first is None else self._first
        self.update(self.done + count)

    def update(self, done: float, total: float | None = None, info: str | None = None) -> None:
        """`done` in all; `info` is text beside the count."""
        self._first = done if self._first is None else self._first
        self.done = done
        self.total = self.total if total is None else total
        self.info = self.info if info is None else info
        if self._live is not None:
            live, task = self._live
            live.update(task, completed=done, total=self.total, text=self.text())
            return
        now = time.perf_counter()
        if now - self._last >= PLAIN_SECONDS or (self._spoken and self.done == self.total):
            self._last, self._spoken = now, True
            self.write(f"{self.label} {self.text()}")

    def rate(self, done: float | None = None) -> float:
        """How much is done in a second, without pauses, where `done` is reached now; 0.0 before anything is."""
        seconds = time.perf_counter() - self._began
        moved = (self.done if done is None else done) - (self._first or 0)
        return moved / seconds if moved > 0 and seconds > 0 else 0.0

    def text(self) -> str:
        """Count, rate, `info` and time left."""
        rate = self.rate()
        if self.unit == "B":
            of = "" if self.total is None else f" of {self.total / 1e6:.1f}"
            parts = [f"{self.done / 1e6:.1f}{of} MB", f"{rate / 1e6:.1f} MB/s" if rate else ""]
        else:
            of = "" if self.total is None else f"/{self.total:.0f}"
            parts = [f"{self.done:.0f}{of}", f"{rate:.1f} {self.unit}/s" if rate and self.unit else ""]
        left = ""
        if rate and self.total is not None:
            seconds = (self.total - self.done) / rate
            left = f"{clock(seconds if self.most is None else max(0.0, min(seconds, self.most())))} left"
        return "  ".join(filter(None, [*parts, self.info, left]))

    def write(self, line: str) -> None:
        """A line of text, above the bar where there is one."""
        if self._live is not None:
            self._live[0].console.print(line, highlight=False, markup=False)
        elif not self.quiet:
            print(line, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Hidden while something else draws a bar; the time does not count against the rate."""
        began = time.perf_counter()
        if self._live is not None:
            self._live[0].stop()
        try:
            yield
        finally:
            if self._live is not None:
                self._live[0].start()
            self._began += time.perf_counter() - began


def track(
    items: Iterable[T],
    total: int,
    label: str,
    weight: Callable[[T], float] | None = None,
    unit: str = "",
    *,
    quiet: bool = False,
) -> Iterator[T]:
    """`items` with a `Bar`. weight(item): its share of `total`, 1 when left out."""
    with Bar(label, total, unit, quiet=quiet) as bar:
        for item in items:
            yield item
            bar.advance(1 if weight is None else weight(item))


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


@contextlib.contextmanager
def ticking(tell: Callable[[str], None], every: float = PLAIN_SECONDS) -> Iterator[None]:
    """A sign of life during work that cannot say how far it is: every `every` seconds `tell` gets the time so far, from
    another thread, and not once the block is left."""
    over = threading.Event()
    began = time.perf_counter()

    def tick() -> None:
        while not over.wait(every):
            tell(clock(time.perf_counter() - began))

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


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
