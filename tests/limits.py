"""What a hostile input may cost, and how often it cost more: for the fuzzers."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fcos.errors import LONGEST, FcosError

resource = pytest.importorskip("resource", reason="limits on time and memory are those of Unix")

SECONDS = 20  # of computing; a case takes thousandths
WAITING = 300  # of the clock, for what waits and does not compute, such as the opening of a pipe
MEMORY = 3 << 30  # bytes on top of what the process has
KINDS = ("traceback", "code", "hang", "memory", "message", "silent")


class Hang(BaseException):
    """No Exception, so that no reader takes it for a fault of the file."""


class WrongCode(AssertionError):
    """A command line that ended otherwise than it should."""


class Silent(AssertionError):
    """What was read is not what was written, and nobody was told."""


@contextmanager
def limits(seconds: int = SECONDS, memory: int = MEMORY) -> Iterator[None]:
    """Hang after so many seconds of the CPU, or WAITING of the clock; MemoryError beyond `memory` bytes more."""

    def stop(*_: object) -> None:
        raise Hang

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, WAITING)
    try:
        yield
    finally:
        for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
            signal.setitimer(timer, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        for number, handler in handlers.items():
            signal.signal(number, handler)


class Tally:
    """How hostile inputs ended: taken, refused in one line, or in one of KINDS; the shortest input of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.shortest: dict[str, str] = {}

    def try_one(self, gate: Callable[[Any], object], value: Any) -> None:
        try:
            with limits():
                gate(value)
            kind, why = "taken", ""
        except FcosError as error:
            message = str(error)
            good = message and message.isprintable() and len(message) <= LONGEST
            kind, why = ("refused", "") if good else ("message", message)
        except Hang:
            kind, why = "hang", ""
        except MemoryError as error:
            kind, why = "memory", str(error)
        except WrongCode as error:
            kind, why = "code", str(error)
        except Silent as error:
            kind, why = "silent", str(error)
        except Exception as error:
            kind, why = "traceback", f"{type(error).__name__}: {error}"
        self.counts[kind] += 1
        if kind in KINDS:
            told = f"{repr(value)[:300]} ({why[:300]})"
            self.shortest[kind] = min(told, self.shortest.get(kind, told), key=len)

    def check(self) -> None:
        """Fails where anything but a value or a line came out."""
        bad = {kind: f"{self.counts[kind]}, such as {self.shortest[kind]}" for kind in KINDS if self.counts[kind]}
        assert not bad, bad
        assert self.counts["taken"] + self.counts["refused"] == self.counts.total() > 0
