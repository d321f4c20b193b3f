"""/predict and /explain: images in; boxes, drawn images or stories out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response

from ..answers import Wanted, drawn, explainer, failed, result, tiler, to_json, wanted
from ..engine import Engine, Outcome
from ..options import Refused, check_options
from ..outcomes import compute
from ..request import Upload, fetch, parse_body, prefers, read_body, uploads
from ..server import Server
from . import studio

JSON, JPEG = "application/json", "image/jpeg"

Score = Annotated[
    str | None, Query(description="Least score, 0..1, or by class: person=0.4,dog=0.5. Default: as fcos predict.")
]
Names = Annotated[str | None, Query(alias="classes", description="Only these classes, separated by commas.")]
Most = Annotated[int | None, Query(alias="max", ge=0, description="At most so many detections, the best ones.")]
Model = Annotated[str | None, Query(description="Which model. Default: the first.")]
Tile = Annotated[
    str | None,
    Query(description="Look in tiles of so many pixels, or auto; none: whole images. Default: as the model learned."),
]
Maps = Annotated[bool, Query(description="Class probability and centerness of each level, as grey PNG files.")]
_BODY = {
    "requestBody": {
        "required": True,
        "description": "One image's bytes, or a form with one or several files.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


def add(app: FastAPI, server: Server) -> None:
    """The routes."""

    @app.post("/predict", openapi_extra=_BODY, summary="Detections of one or several images")
    async def predict(
        request: Request,
        score: Score = None,
        names: Names = None,
        most: Most = None,
        way: tuple[str | None, str | None] = Depends(_way),
    ) -> Response:
        """`Accept: image/jpeg` gives the drawn image. Of several images, one that cannot be read has `error` in
        place of `detections`; where none can be read the status is the first one's, 400 or 413."""
        model, tile = way
        check_options(_names(request), ("score", "classes", "max", "model", "tile"))
        deadline = time.monotonic() + server.limits.timeout
        engine = server.engine(model)
        detector = engine.detector
        which = wanted(detector.classes, detector.shown, score, names, most)
        body = await read_body(request, server.limits, deadline, server.bodies)
        if server.options.label_studio is not None and _is_json(request):
            message = await asyncio.to_thread(_message, body)
            if not isinstance(message, dict) or "url" not in message:
                return await studio.annotate(server, engine, message, which, deadline)
        task = None if tile is None else tiler(which.least, tile)
        sent = await _pictures(server, request, body, deadline)
        outcomes = await compute(engine, [upload.data for upload in sent], which.least, deadline, task)
        if prefers(request.headers.getlist("accept"), JPEG, JSON):
            if len(sent) != 1:
                raise Refused(400, "one image at a time can be drawn; ask for JSON, or send them one by one")
            async with server.drawing:  # it is decoded once more, besides what the engine has room for
                return await _draw(sent[0], outcomes[0], which)
        return await asyncio.to_thread(_answer, server, engine, sent, outcomes, which)

    @app.post("/explain", openapi_extra=_BODY, summary="Why each box of one image is there")
    async def explain(request: Request, score: Score = None, model: Model = None, maps: Maps = True) -> Response:
        """For each detection its level, location, distances to the sides, class probability, centerness and the boxes
        it silenced; for each level its heat maps."""
        check_options(_names(request), ("score", "model", "maps"))
        deadline = time.monotonic() + server.limits.timeout
        engine = server.engine(model)
        detector = engine.detector
        which = wanted(detector.classes, detector.shown, score, None, None)
        body = await read_body(request, server.limits, deadline, server.bodies)
        sent = await _pictures(server, request, body, deadline)
        if len(sent) != 1:
            raise Refused(400, "one image at a time is explained")
        outcomes = await compute(engine, [sent[0].data], 0.0, deadline, explainer(which.least, maps))
        one = outcomes[0]
        if isinstance(one, Exception):
            raise one
        height, width = one.size
        told = {"model": engine.name, "name": sent[0].name, "width": width, "height": height, **one.result}
        return Response(await asyncio.to_thread(to_json, told), media_type=JSON)


def _names(request: Request) -> list[str]:
    """What the query of a request gives, each as often as it does."""
    return [name for name, _ in request.query_params.multi_items()]


async def _way(model: Model = None, tile: Tile = None) -> tuple[str | None, str | None]:
    """Which model looks, and through which tiles, as the query says."""
    return model, tile


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == JSON


async def _pictures(server: Server, request: Request, body: bytes, deadline: float) -> list[Upload]:
    """What a request sends: bytes, a form, or, where hosts are allowed, {"url": ...}."""
    kind = request.headers.get("content-type", "")
    if _is_json(request):
        url = await asyncio.to_thread(_url, body)
        data = await server.fetched(partial(fetch, url, server.options.access.hosts, server.limits), deadline)
        return [Upload(data, url)]
    return await asyncio.to_thread(uploads, body, kind, server.limits, deadline)


def _message(body: bytes) -> Any:
    """The value of a JSON body; None where it is no JSON."""
    try:
        return parse_body(body)
    except (ValueError, RecursionError):
        return None


def _url(body: bytes) -> str:
    message = _message(body)
    url = message.get("url") if isinstance(message, dict) else None
    if not isinstance(url, str):
        raise Refused(400, 'JSON must be {"url": "https://..."}; better send the image\'s bytes')
    return url


async def _draw(upload: Upload, outcome: Outcome | Exception, which: Wanted) -> Response:
    if isinstance(outcome, Exception):
        raise outcome
    return Response(await asyncio.to_thread(drawn, upload.data, which.of(outcome.result)), media_type=JPEG)


def _answer(
    server: Server, engine: Engine, sent: Sequence[Upload], outcomes: Sequence[Outcome | Exception], which: Wanted
) -> Response:
    begun = time.monotonic()
    results, statuses = [], []
    for upload, one in zip(sent, outcomes, strict=True):
        if isinstance(one, Exception):
            status, told = failed(upload.name, one)
        else:
            status, told = 200, result(upload.name, one, which.of(one.result))
        statuses.append(status)
        results.append(told)
    status = 200 if 200 in statuses else statuses[0]
    answer: dict[str, Any] = {"model": engine.name, "results": results}
    if status != 200:
        answer = {"error": results[0]["error"], **answer}
    body = to_json(answer)
    server.metrics.seconds.labels("answer").observe(time.monotonic() - begun)
    return Response(body, status, media_type=JSON)
