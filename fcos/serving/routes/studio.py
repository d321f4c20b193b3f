"""What Label Studio asks of its machine-learning backend; its /predict is told from ours by its JSON."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import FastAPI, Response

from ...errors import FcosError, one_line
from .. import label_studio
from ..answers import Wanted, failed, to_json
from ..engine import Engine, Outcome
from ..outcomes import compute
from ..server import Server

log = logging.getLogger("fcos.serving")
_PATIENCE = 95.0  # seconds; Label Studio itself waits for 100


def add(app: FastAPI, server: Server) -> None:
    """What Label Studio asks besides /predict and /health."""

    @app.post("/setup", summary="Label Studio connects a project")
    async def setup() -> dict[str, str]:
        return {"model_version": server.engine(None).name}

    @app.post("/webhook", summary="Label Studio tells of new annotations, which are not used", status_code=201)
    async def webhook() -> dict[str, str]:
        return {}


async def annotate(server: Server, engine: Engine, message: Any, which: Wanted, deadline: float) -> Response:
    """Pre-annotations of Label Studio's tasks. It sends all that a person has chosen in one request and wants as many
    rows back; one without a result, as for an image that cannot be had, it logs and leaves out."""
    limits = server.limits
    studio = label_studio.Studio(server.options.label_studio or "", os.environ.get("LABEL_STUDIO_API_KEY"))
    tasks, tags = await asyncio.to_thread(label_studio.read, message)
    studio = await server.fetched(partial(studio.signed, limits), deadline)
    end = time.monotonic() + _PATIENCE
    rows: list[dict[str, Any]] = []
    for first in range(0, len(tasks), limits.together):
        until = min(time.monotonic() + limits.timeout, end)
        part = tasks[first : first + limits.together]
        taking = (partial(label_studio.image_of, task, tags, studio, limits) for task in part)
        images = await asyncio.gather(*(server.fetched(take, until) for take in taking), return_exceptions=True)
        some = await _outcomes(engine, images, which.least, until)
        rows += [_row(engine, one, which, tags) for one in some]
    for task, row in zip(tasks, rows, strict=True):
        if "error" in row:
            log.warning("Label Studio's task %s: %s", one_line(str(task.get("id")), 40), row["error"])
    return Response(await asyncio.to_thread(to_json, {"results": rows}), media_type="application/json")


async def _outcomes(
    engine: Engine, images: Sequence[bytes | BaseException], least: float, deadline: float
) -> list[Outcome | Exception]:
    """What becomes of each image, or of the error that stands for it."""
    computed = iter(await compute(engine, [i for i in images if isinstance(i, bytes)], least, deadline))
    outcomes: list[Outcome | Exception] = []
    for image in images:
        if isinstance(image, bytes):
            outcomes.append(next(computed))
        elif isinstance(image, FcosError):
            outcomes.append(image)
        else:
            raise image
    return outcomes


def _row(engine: Engine, outcome: Outcome | Exception, which: Wanted, tags: label_studio.Tags) -> dict[str, Any]:
    if isinstance(outcome, Exception):
        return {"error": failed(None, outcome)[1]["error"]}
    return label_studio.annotation(which.of(outcome.result), outcome.size, tags, engine.name)
