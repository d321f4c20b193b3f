"""The application of `fcos serve`. The event loop only waits: bodies are parsed, decoded and computed in threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..errors import FcosError
from ..version import __version__
from . import pages
from .answers import failed
from .guard import Guard
from .options import Refused
from .routes import detect, protocol, studio, upkeep
from .server import Server
from .v2 import LENGTH


def build(server: Server, ready: Callable[[], None] = lambda: None) -> FastAPI:
    """The application around loaded models; `ready` is called when it begins to answer."""

    models = pages.BrowserModels()

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        ready()
        yield
        models.stop()
        server.fetching.shutdown(wait=False, cancel_futures=True)
        grace = server.limits.grace
        await asyncio.gather(*(asyncio.to_thread(engine.stop, grace) for engine in server.engines.values()))

    app = FastAPI(
        title="fcos", version=__version__, description="An FCOS detector behind HTTP.", lifespan=life,
        docs_url=None, redoc_url=None, redirect_slashes=False,
    )  # fmt: skip
    app.state.server = server
    _errors(app)
    detect.add(app, server)
    protocol.add(app, server)
    upkeep.add(app, server)
    pages.add(app, server.engines, models)
    if server.options.label_studio is not None:
        studio.add(app, server)
    app.add_middleware(Guard, access=server.options.access, metrics=server.metrics)
    if server.options.access.origins:  # around the guard: a page may read its refusals too
        app.add_middleware(
            CORSMiddleware, allow_origins=list(server.options.access.origins), allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", LENGTH], expose_headers=[LENGTH, "retry-after"],
        )  # fmt: skip
    return app


def _errors(app: FastAPI) -> None:
    """Every error is one JSON object with one line."""

    @app.exception_handler(FcosError)
    async def ours(_: Request, error: FcosError) -> Response:
        status, told = failed(None, error)
        headers = {}
        if isinstance(error, Refused) and error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
        return JSONResponse({"error": told["error"]}, status, headers)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code, dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def query(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"[:200]}, 400)
