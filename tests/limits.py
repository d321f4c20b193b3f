"""What a hostile input may cost, and how often it cost more: for the fuzzers."""

import contextlib
import io
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fcos.cli import main
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


def run(words: list[str]) -> int:
    """The exit code of a command line, which must be one that is promised."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(words)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
    err.flush()
    said = err.buffer.getvalue().decode(errors="replace").splitlines()
    own = [line for line in said if line.startswith("fcos: ")]
    if code not in (0, 1, 2) or (code == 2 and not own) or any("Traceback" in line for line in said):
        raise WrongCode(f"{code}: {' | '.join(said)[-500:]}")
    return code


def attack(count: int, gate: Callable[[random.Random], object]) -> None:
    """`gate` with a generator of its own for each case; a case is told by its number."""
    tally = Tally()
    for number in range(count):
        tally.try_one(lambda n: gate(random.Random(n)), number)
    tally.check()


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """`whole` with some bytes changed, cut out, doubled or put in; never as it was."""
    data = bytearray(whole)
    for _ in range(rng.choice((1, 1, 3, 9))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at : at + rng.choice((1, 4, 50, 10**9))]
        elif kind == 2:
            data[at:at] = data[at : at + rng.randint(1, 100)]
        else:
            data[at:at] = rng.randbytes(rng.randint(1, 8))
    return bytes(data) if data != whole else whole + b"\0"
