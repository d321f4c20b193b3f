"""The routes of the Open Inference Protocol, version 2, with and without a version in the path."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from ...detections import Detections
from ...version import __version__
from .. import v2
from ..answers import Wanted, wanted
from ..options import Refused, check_options
from ..outcomes import compute
from ..request import read_body
from ..server import Server


def add(app: FastAPI, server: Server) -> None:
    """The routes."""
    tags: list[Any] = ["Open Inference Protocol v2"]

    def get(path: str) -> Callable[[Any], Any]:
        return app.get(path, tags=tags)

    @get("/v2")
    async def about() -> dict[str, Any]:
        return {"name": "fcos", "version": __version__, "extensions": ["binary_tensor_data"]}

    @get("/v2/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @get("/v2/health/ready")
    async def ready() -> Response:
        return JSONResponse({"ready": server.ready()}, 200 if server.ready() else 503)

    @get("/v2/models/{name}")
    @get("/v2/models/{name}/versions/1")
    async def model(name: str) -> dict[str, Any]:
        return v2.metadata(name, server.engine(name).detector.classes.names)

    @get("/v2/models/{name}/ready")
    @get("/v2/models/{name}/versions/1/ready")
    async def model_ready(name: str) -> Response:
        good = not server.engine(name).stopped
        return JSONResponse({"name": name, "ready": good}, 200 if good else 503)

    @app.post("/v2/models/{name}/infer", tags=tags)
    @app.post("/v2/models/{name}/versions/1/infer", tags=tags)
    async def infer(request: Request, name: str) -> Response:
        """Input `images`: UINT8 [N,H,W,3], or BYTES [N], each an image's file. Parameters: score, classes, max."""
        deadline = time.monotonic() + server.limits.timeout
        engine = server.engine(name)
        body = await read_body(request, server.limits, deadline, server.bodies)
        asked = await asyncio.to_thread(v2.read, body, request.headers.get(v2.LENGTH), server.limits)
        detector = engine.detector
        which = _parameters(partial(wanted, detector.classes, detector.shown), asked.parameters)
        outcomes = await compute(engine, asked.sources, which.least, deadline)
        kept: list[Detections] = []
        for one in outcomes:
            if isinstance(one, Exception):
                raise one
            kept.append(which.of(one.result))
        answer, head = await asyncio.to_thread(v2.write, name, asked, kept)
        if head is None:
            return Response(answer, media_type="application/json")
        return Response(answer, media_type="application/octet-stream", headers={v2.LENGTH: str(head)})


def _parameters(make: Callable[[str | None, str | None, int | None], Wanted], given: dict[str, Any]) -> Wanted:
    known = ("score", "classes", "max")
    check_options(given.keys() - v2.IDLE - {v2.AS_BYTES}, known)
    score, names, most = (given.get(key) for key in known)
    if not isinstance(score, str | int | float | None) or not isinstance(names, str | None):
        raise Refused(400, "parameters: score is a number or text, classes is text")
    if most is not None and (not isinstance(most, int) or most < 0):
        raise Refused(400, "parameters: max is a whole number from 0")
    return make(None if score is None else str(score), names, most)
