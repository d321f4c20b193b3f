"""One of several processes that serve. Light to import: its parent wants to hear from it before torch is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import FcosError
from ..system.stderr import say
from .options import ServeOptions

if TYPE_CHECKING:
    from fastapi import FastAPI


STARTUP_FAILURE = 3  # exit code, as uvicorn's own, whose name for it has moved between its modules


def application(options: ServeOptions, line: str) -> FastAPI:
    """The application of a worker, which says `line` when it begins to answer."""
    from .app import build
    from .server import start

    try:
        return build(start(options), lambda: say(line))
    except FcosError as error:
        say(str(error))
        raise SystemExit(STARTUP_FAILURE) from None
