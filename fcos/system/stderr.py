"""What the person at the terminal is told beside the results: lines on stderr."""

from __future__ import annotations

import contextlib
import sys

from ..errors import one_line


def say(line: str, *, details: str = "") -> None:
    """One line, and below it what an error has to say in more; where nobody reads it any more, the work goes on."""
    if sys.stderr is None:  # as of programs without a terminal on Windows
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"fcos: {one_line(line)}\n" + (f"{details}\n" if details else ""))
        sys.stderr.flush()
