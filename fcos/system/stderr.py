"""What the person at the terminal is told beside the results: lines on stderr."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

from ..errors import one_line


def say(line: str, *, details: str = "") -> None:
    """One line, and below it what an error has to say in more; where nobody reads it any more, the work goes on."""
    if sys.stderr is None:  # as of programs without a terminal on Windows
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"fcos: {one_line(line)}\n" + (f"{details}\n" if details else ""))
        sys.stderr.flush()


@contextlib.contextmanager
def quieter(level: int, *names: str) -> Iterator[None]:
    """Loggers of other libraries tell nothing below `level` inside; afterwards they are as the caller had them. A
    library that sets the level of its own when it is imported has to be imported before."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, was in zip(loggers, before, strict=True):
            logger.setLevel(was)
