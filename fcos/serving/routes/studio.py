"""What Label Studio asks of its machine-learning backend; its /predict is told from ours by its JSON."""

from __future__ import annotations

import asyncio
import os

from fastapi import FastAPI, Request, Response

from .. import label_studio
from ..answers import Wanted, to_json
from ..engine import Engine
from ..intake import read_body
from ..options import Refused
from ..outcomes import compute
from ..server import Server


def add(app: FastAPI, server: Server) -> None:
    """What Label Studio asks besides /predict and /health."""

    @app.post("/setup", summary="Label Studio connects a project")
    async def setup() -> dict[str, str]:
        return {"model_version": server.engine(None).name}

    @app.post("/webhook", summary="Label Studio tells of new annotations, of which nothing is made", status_code=201)
    async def webhook() -> dict[str, str]:
        return {}


async def annotate(server: Server, engine: Engine, request: Request, which: Wanted, deadline: float) -> Response:
    """Pre-annotations of Label Studio's tasks. It takes no half of an answer: one bad image fails the request."""
    studio = label_studio.Studio(server.options.label_studio or "", os.environ.get("LABEL_STUDIO_API_KEY"))
    tasks, tags = await asyncio.to_thread(label_studio.read, await read_body(request, server.limits, deadline))
    if len(tasks) > server.limits.images:
        raise Refused(413, f"{len(tasks)} tasks; at most {server.limits.images} in a request")
    images = await asyncio.gather(
        *(asyncio.to_thread(label_studio.picture, task, tags, studio, server.limits) for task in tasks)
    )
    results = []
    for one in await compute(engine, images, which.least, deadline):
        if isinstance(one, Exception):
            raise one
        height, width = one.image.shape[:2]
        results.append(label_studio.annotation(which.of(one.result), (height, width), tags, engine.name))
    return Response(await asyncio.to_thread(to_json, {"results": results}), media_type="application/json")
