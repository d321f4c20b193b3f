"""Ctrl-C, SIGTERM and a terminal that is closed ask a run to stop where it can be resumed; a second Ctrl-C or SIGTERM
stops it at once."""

from __future__ import annotations

import contextlib
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, ClassVar

from ..errors import FcosError

_HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)  # Windows has none
_SAME = 1.0  # seconds within which a second signal is the same one, delivered to a process group and passed on


class Stopped(FcosError):
    """A run that was asked to stop and has saved its state; `code` is 128 + the signal, as shells have it."""

    def __init__(self, line: str, number: int) -> None:
        super().__init__(line)
        self.code = 128 + number


def go_on(folder: object, *more: str) -> str:
    """How a run is gone on with, for the end of a message. more: further words of the command."""
    return f"go on with: {shlex.join(['fcos', 'train', *more, '--resume', '--out', str(folder)])}"


class StopNow(KeyboardInterrupt):
    """Raised by a signal inside `StopSignals.interruptible`."""


class StopSignals:
    """While entered, SIGINT, SIGTERM and SIGHUP set `number` and the program goes on; its loop looks when it can stop.
    A SIGHUP that was ignored before, as `nohup` has it, still is. `asked` is called by the first of them.

    Outside the main thread, where Python takes no signals, there is `ask_all`.
    """

    _entered: ClassVar[set[StopSignals]] = set()

    def __init__(self, asked: Callable[[], None] = lambda: None) -> None:
        self.number, self._asked = 0, asked
        self._when = 0.0
        self._inside = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            numbers = [signal.SIGINT, signal.SIGTERM]
            if _HANGUP is not None and signal.getsignal(_HANGUP) != signal.SIG_IGN:
                numbers.append(_HANGUP)
            self._before = {n: signal.signal(n, self._ask) for n in numbers}
        self._entered.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._entered.discard(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    @classmethod
    def ask_all(cls, number: int) -> None:
        """As if the signal `number` had come, for what hears of it in another way; from any thread."""
        for signals in tuple(cls._entered):
            signals.number = signals.number or number

    def _ask(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.number and number != _HANGUP and now - self._when > _SAME:
            raise KeyboardInterrupt
        if not self.number:
            self.number, self._when = number, now
            self._asked()
            if self._inside:
                raise StopNow

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Code that may be left at any point: a first signal raises StopNow there, also one that came before."""
        self._inside = True
        try:
            if self.number:
                raise StopNow
            yield
        finally:
            self._inside = False
