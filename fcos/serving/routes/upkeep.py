"""Routes for who runs the server: health, numbers, models, reloading."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from ..engine import Engine
from ..guard import allowed
from ..options import Refused
from ..server import Server


def add(app: FastAPI, server: Server) -> None:
    """The routes."""

    @app.get("/health", summary="Whether the server answers; 503 while it stops")
    async def health() -> Response:
        return JSONResponse({"status": "UP" if server.ready() else "STOPPING"}, 200 if server.ready() else 503)

    @app.get("/metrics", summary="Numbers for Prometheus")
    async def metrics() -> Response:
        return Response(
            await asyncio.to_thread(server.metrics.text), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    @app.get("/models", summary="The models, their classes and the score from which boxes are shown")
    async def models() -> dict[str, Any]:
        return {"models": [_told(engine) for engine in server.engines.values()]}

    @app.post("/models/{name}/reload", summary="Load a model's file again")
    async def reload(request: Request, name: str) -> dict[str, Any]:
        """Needs `--admin-token`, sent in the header `X-Admin-Token`."""
        admin = server.options.access.admin
        given = request.headers.get("x-admin-token", "")
        if admin is None:
            raise Refused(403, "reloading is off; start the server with --admin-token")
        if not allowed(type(request.headers)({"authorization": f"Bearer {given}"}), admin):
            raise Refused(403, "reloading wants the admin token in the header X-Admin-Token")
        if server.options.workers > 1:
            raise Refused(403, "one of several workers cannot reload for all; restart the server")
        engine = server.engine(name)
        await asyncio.to_thread(engine.reload)
        return _told(engine)


def _told(engine: Engine) -> dict[str, Any]:
    detector = engine.detector
    return {
        "name": engine.name,
        "classes": list(detector.classes.names),
        "shown": detector.shown,
        "runtime": detector.running.runtime,
        "dtype": detector.running.dtype,
        "lanes": detector.placement.lanes,
    }
