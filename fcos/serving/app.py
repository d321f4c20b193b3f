"""The routes of `fcos serve`. The event loop only waits: bodies are parsed, decoded and computed in threads."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..errors import FcosError
from ..types import Detections
from ..version import __version__
from . import label_studio, pages, v2
from .answers import Wanted, drawn, explainer, failed, result, tiler, to_json, wanted
from .engine import Engine, Found, Task
from .guard import Guard, allowed
from .intake import Upload, check_size, fetch, read_body, uploads
from .metrics import Metrics
from .options import Limits, Refused, ServeOptions

log = logging.getLogger("fcos.serving")
_JSON = "application/json"

Score = Annotated[
    str | None, Query(description="Least score, 0..1, or by class: person=0.4,dog=0.5. Left out: as fcos predict.")
]
Names = Annotated[str | None, Query(alias="classes", description="Only these classes, separated by commas.")]
Most = Annotated[int | None, Query(alias="max", ge=0, description="At most so many detections, the best ones.")]
Model = Annotated[str | None, Query(description="Which model; left out: the first.")]
Tile = Annotated[str | None, Query(description="Cut large pictures into tiles of so many pixels, or auto.")]
Maps = Annotated[bool, Query(description="Class probability and centerness of each level, as grey PNG files.")]
_BODY = {
    "requestBody": {
        "required": True,
        "description": "One picture's bytes, or a form with one or several files.",
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


@dataclass(frozen=True)
class Server:
    """What the routes share."""

    options: ServeOptions
    engines: dict[str, Engine]
    metrics: Metrics

    @property
    def limits(self) -> Limits:
        return self.options.limits

    def engine(self, name: str | None) -> Engine:
        """A model by name, or the first; Refused (404) where there is none."""
        if name is None:
            return next(iter(self.engines.values()))
        if name not in self.engines:
            raise Refused(404, f"there is no model {name[:80]!r}; models: {', '.join(self.engines)}")
        return self.engines[name]

    def ready(self) -> bool:
        return not any(engine.stopped for engine in self.engines.values())


def start(options: ServeOptions) -> Server:
    """Load the models; FcosError when one cannot be."""
    metrics = Metrics()
    engines: dict[str, Engine] = {}
    for model in options.models:
        engine = Engine(model, options, metrics)
        if engine.name in engines:
            raise FcosError(f"two models are called {engine.name}; name them: --model first={model}")
        engines[engine.name] = engine
    return Server(options, engines, metrics)


def build(server: Server, ready: Callable[[], None] = lambda: None) -> FastAPI:
    """The application around loaded models; `ready` is called when it begins to answer."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        ready()
        yield
        grace = server.limits.grace
        await asyncio.gather(*(asyncio.to_thread(engine.stop, grace) for engine in server.engines.values()))

    app = FastAPI(
        title="fcos", version=__version__, description="An FCOS detector behind HTTP.", lifespan=life,
        docs_url=None, redoc_url=None,
    )  # fmt: skip
    app.state.server = server
    _errors(app)
    _detecting(app, server)
    _protocol(app, server)
    _looking_after(app, server)
    pages.add(app, server.engines)
    if server.options.label_studio is not None:
        _label_studio(app, server)
    if server.options.access.origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(server.options.access.origins), allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
        )  # fmt: skip
    app.add_middleware(Guard, access=server.options.access, metrics=server.metrics)
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


async def _finish(futures: Sequence[asyncio.Future[Found]], deadline: float) -> list[Found | Exception]:
    """Each result or its error, at the deadline at the latest."""
    if futures:
        await asyncio.wait(futures, timeout=max(deadline - time.monotonic(), 0.0))
    done: list[Found | Exception] = []
    for future in futures:
        if not future.done():
            future.cancel()
            done.append(Refused(504, "the deadline passed; ask again later, or for fewer pictures"))
            continue
        error = future.exception()
        if error is None:
            done.append(future.result())
        elif isinstance(error, Exception):
            if not isinstance(error, FcosError):
                log.error("a picture failed", exc_info=error)
            done.append(error)
        else:
            raise error
    return done


async def _run(
    engine: Engine, sources: Sequence[Any], least: float, deadline: float, task: Task | None = None
) -> list[Found | Exception]:
    """Each picture through the engine. A picture that is refused fails alone, except where too many wait already."""
    limits = engine.options.limits

    async def one(source: Any) -> Found:
        if isinstance(source, bytes):
            await asyncio.to_thread(check_size, source, limits)
        return await asyncio.wrap_future(engine.submit(source, least, deadline, task))

    if len(sources) > limits.images:
        raise Refused(413, f"{len(sources)} pictures; at most {limits.images} in a request")
    outcomes = await _finish([asyncio.ensure_future(one(source)) for source in sources], deadline)
    full = next((e for e in outcomes if isinstance(e, Refused) and e.status == 503), None)
    if full is not None:
        raise full
    return outcomes


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == _JSON


async def _pictures(server: Server, request: Request, deadline: float) -> list[Upload]:
    """What a request sends: bytes, a form, or, where hosts are allowed, {"url": ...}."""
    body = await read_body(request, server.limits, deadline)
    kind = request.headers.get("content-type", "")
    if _is_json(request):
        url = await asyncio.to_thread(_url, body)
        data = await asyncio.to_thread(fetch, url, server.options.access.hosts, server.limits)
        return [Upload(data, url)]
    return await asyncio.to_thread(uploads, body, kind, server.limits)


def _url(body: bytes) -> str:
    import json

    try:
        url = json.loads(body)["url"]
    except (ValueError, KeyError, TypeError, RecursionError):
        url = None
    if not isinstance(url, str):
        raise Refused(400, 'JSON must be {"url": "https://..."}; better send the picture\'s bytes')
    return url


async def _way(model: Model = None, tile: Tile = None) -> tuple[str | None, str | None]:
    """Which model looks, and through which tiles, as the query says."""
    return model, tile


def _detecting(app: FastAPI, server: Server) -> None:
    @app.post("/predict", openapi_extra=_BODY, summary="Detections of one or several pictures")
    async def predict(
        request: Request,
        score: Score = None,
        names: Names = None,
        most: Most = None,
        way: tuple[str | None, str | None] = Depends(_way),
    ) -> Response:
        """`Accept: image/jpeg` gives the drawn picture. Of several pictures, one that cannot be read has `error` in
        place of `detections`; where none can be read the status is the first one's, 400 or 413."""
        model, tile = way
        deadline = time.monotonic() + server.limits.timeout
        engine = server.engine(model)
        detector = engine.detector
        which = wanted(detector.classes, detector.shown, score, names, most)
        if server.options.label_studio is not None and _is_json(request):
            return await _for_label_studio(server, engine, request, which, deadline)
        task = None if tile is None else tiler(which.least, tile)
        sent = await _pictures(server, request, deadline)
        outcomes = await _run(engine, [upload.data for upload in sent], which.least, deadline, task)
        if "image/jpeg" in request.headers.get("accept", ""):
            if len(sent) != 1:
                raise Refused(400, "one picture at a time can be drawn; ask for JSON, or send them one by one")
            return await _draw(outcomes[0], which)
        return await asyncio.to_thread(_answer, server, engine, sent, outcomes, which)

    @app.post("/explain", openapi_extra=_BODY, summary="Why each box of one picture is there")
    async def explain(request: Request, score: Score = None, model: Model = None, maps: Maps = True) -> Response:
        """For each detection its level, location, distances to the sides, class probability, centerness and the boxes
        it silenced; for each level its heat maps."""
        deadline = time.monotonic() + server.limits.timeout
        engine = server.engine(model)
        detector = engine.detector
        which = wanted(detector.classes, detector.shown, score, None, None)
        sent = await _pictures(server, request, deadline)
        if len(sent) != 1:
            raise Refused(400, "one picture at a time is explained")
        outcomes = await _run(engine, [sent[0].data], 0.0, deadline, explainer(which.least, maps))
        one = outcomes[0]
        if isinstance(one, Exception):
            raise one
        height, width = one.image.shape[:2]
        told = {"model": engine.name, "name": sent[0].name, "width": width, "height": height, **one.result}
        return Response(await asyncio.to_thread(to_json, told), media_type=_JSON)


async def _draw(outcome: Found | Exception, which: Wanted) -> Response:
    if isinstance(outcome, Exception):
        raise outcome
    return Response(await asyncio.to_thread(lambda: drawn(outcome, which.of(outcome.result))), media_type="image/jpeg")


def _answer(
    server: Server, engine: Engine, sent: Sequence[Upload], outcomes: Sequence[Found | Exception], which: Wanted
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
    return Response(body, status, media_type=_JSON)


async def _for_label_studio(
    server: Server, engine: Engine, request: Request, which: Wanted, deadline: float
) -> Response:
    """Pre-annotations of Label Studio's tasks. It takes no half of an answer: one bad image fails the request."""
    studio = label_studio.Studio(server.options.label_studio or "", os.environ.get("LABEL_STUDIO_API_KEY"))
    tasks, tags = await asyncio.to_thread(label_studio.read, await read_body(request, server.limits, deadline))
    if len(tasks) > server.limits.images:
        raise Refused(413, f"{len(tasks)} tasks; at most {server.limits.images} in a request")
    images = await asyncio.gather(
        *(asyncio.to_thread(label_studio.picture, task, tags, studio, server.limits) for task in tasks)
    )
    results = []
    for one in await _run(engine, images, which.least, deadline):
        if isinstance(one, Exception):
            raise one
        height, width = one.image.shape[:2]
        results.append(label_studio.annotation(which.of(one.result), (height, width), tags, engine.name))
    return Response(await asyncio.to_thread(to_json, {"results": results}), media_type=_JSON)


def _label_studio(app: FastAPI, server: Server) -> None:
    """What Label Studio asks besides /predict and /health."""

    @app.post("/setup", summary="Label Studio connects a project")
    async def setup() -> dict[str, str]:
        return {"model_version": server.engine(None).name}

    @app.post("/webhook", summary="Label Studio tells of new annotations, of which nothing is made", status_code=201)
    async def webhook() -> dict[str, str]:
        return {}


def _protocol(app: FastAPI, server: Server) -> None:
    """Open Inference Protocol v2, with and without a version in the path."""
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
        """Input `images`: UINT8 [N,H,W,3], or BYTES [N], each a picture's file. Parameters: score, classes, max."""
        deadline = time.monotonic() + server.limits.timeout
        engine = server.engine(name)
        body = await read_body(request, server.limits, deadline)
        asked = await asyncio.to_thread(v2.read, body, request.headers.get(v2.LENGTH), server.limits)
        detector = engine.detector
        which = _parameters(partial(wanted, detector.classes, detector.shown), asked.parameters)
        outcomes = await _run(engine, asked.sources, which.least, deadline)
        kept: list[Detections] = []
        for one in outcomes:
            if isinstance(one, Exception):
                raise one
            kept.append(which.of(one.result))
        answer, head = await asyncio.to_thread(v2.write, name, asked, kept)
        if head is None:
            return Response(answer, media_type=_JSON)
        return Response(answer, media_type="application/octet-stream", headers={v2.LENGTH: str(head)})


def _parameters(make: Callable[[str | None, str | None, int | None], Wanted], given: dict[str, Any]) -> Wanted:
    score, names, most = (given.get(key) for key in ("score", "classes", "max"))
    if not isinstance(score, str | int | float | None) or not isinstance(names, str | None):
        raise Refused(400, "parameters: score is a number or text, classes is text")
    if most is not None and (not isinstance(most, int) or most < 0):
        raise Refused(400, "parameters: max is a whole number from 0")
    return make(None if score is None else str(score), names, most)


def _looking_after(app: FastAPI, server: Server) -> None:
    @app.get("/health", summary="Whether the server answers; 503 while it stops")
    async def health() -> Response:
        return JSONResponse({"status": "UP" if server.ready() else "STOPPING"}, 200 if server.ready() else 503)

    @app.get("/metrics", summary="Numbers for Prometheus")
    async def metrics() -> Response:
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

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
        "runtime": detector.placement.runtime,
        "dtype": detector.placement.dtype,
        "lanes": detector.placement.lanes,
    }
