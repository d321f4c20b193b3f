"""How far a long job is: a bar, plain lines, or a sign of life."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Self, TypeVar

from .terminal import clock

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

T = TypeVar("T")
PLAIN_SECONDS = 20.0  # between lines of progress where there is no bar


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
