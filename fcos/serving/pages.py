"""The page for people, the page of the API, and the network for a browser that computes itself."""

from __future__ import annotations

import asyncio
import gzip
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path

from fastapi import FastAPI, Request, Response

from ..errors import FcosError, ModelError
from ..export.about import About
from ..export.formats.html import WEB, about_text, browser_model
from ..export.open import read_about
from ..export.registry import FORMATS, format_of
from ..zoo.find import find_weights, load_network
from .engine import Engine
from .options import Refused

_OURS = {
    "core.js": "text/javascript",
    "page.js": "text/javascript",
    "worker.js": "text/javascript",
    "docs.js": "text/javascript",
    "style.css": "text/css",
}
_THEIRS = {
    "ort.mjs": "text/javascript",
    "ort.wasm": "application/wasm",
    "swagger-ui.js": "text/javascript",
    "swagger-ui.css": "text/css",
}


class BrowserModels:
    """The ONNX file and its description for each engine, written when first asked for, again after a reload or where
    it failed: one at a time, in a thread of its own, so that those who wait for it hold none of those that answer."""

    def __init__(self) -> None:
        self._writer = ThreadPoolExecutor(1, "browser-model")
        self._kept: dict[str, tuple[object, Future[tuple[bytes, str]]]] = {}

    async def of(self, engine: Engine) -> tuple[bytes, str]:
        """(ONNX file, JSON about it); takes up to some minutes at the first call. FcosError where it cannot be had."""
        detector, written = self._kept.get(engine.name, (None, None))
        if written is None or detector is not engine.detector or (written.done() and written.exception() is not None):
            written = self._writer.submit(_files_of, engine)
            self._kept[engine.name] = (engine.detector, written)
        return await asyncio.shield(asyncio.wrap_future(written))  # one who stops waiting stops nobody else

    def stop(self) -> None:
        """Write no more."""
        self._writer.shutdown(wait=False, cancel_futures=True)


def _files_of(engine: Engine) -> tuple[bytes, str]:
    graph, about = _written(engine)
    return graph, about_text(about)


def _written(engine: Engine) -> tuple[bytes, About]:
    path = find_weights(engine.source)
    kind = format_of(path)
    if kind is None:
        network, config, classes = load_network(path, engine.options.settings)
        about = About(config, classes)
        return browser_model(network.eval(), _plain(about)), about
    if kind is not FORMATS["onnx"]:
        raise ModelError(f"{path} is for {kind.name}; a browser runs checkpoints and ONNX files")
    about = read_about(path)
    if about.nms:
        raise ModelError(f"{path} ends in detections; a browser needs one exported without --nms")
    return Path(path).read_bytes(), _plain(about)


def _plain(about: About) -> About:
    """ModelError for a model whose scores are calibrated, which the page does not do."""
    if about.config.decode.calibrated:
        raise ModelError("the page computes plain scores, not calibrated ones; serve with decode.calibrated=false")
    return about


@cache
def _vendored(name: str, packed: bool) -> bytes:
    """A file of `_THEIRS`, as it lies there or unpacked; kept, since many ask."""
    data = (WEB / "vendor" / f"{name}.gz").read_bytes()
    return data if packed else gzip.decompress(data)


def add(app: FastAPI, engines: dict[str, Engine], models: BrowserModels) -> None:
    """The routes."""

    def page(name: str) -> Response:
        return Response((WEB / name).read_bytes(), media_type="text/html; charset=utf-8")

    @app.get("/", include_in_schema=False)
    async def home() -> Response:
        return await asyncio.to_thread(page, "index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return await asyncio.to_thread(page, "docs.html")

    @app.get("/web/{name}", include_in_schema=False)
    async def file(request: Request, name: str) -> Response:
        if name in _OURS:
            data = await asyncio.to_thread((WEB / name).read_bytes)
            return Response(data, media_type=_OURS[name], headers={"Cache-Control": "no-cache"})
        if name not in _THEIRS:
            raise Refused(404, "there is no such file")
        headers = {"Cache-Control": "max-age=86400", "Vary": "Accept-Encoding"}
        packed = "gzip" in request.headers.get("accept-encoding", "")
        if packed:
            headers["Content-Encoding"] = "gzip"
        data = await asyncio.to_thread(_vendored, name, packed)
        return Response(data, media_type=_THEIRS[name], headers=headers)

    async def model(name: str) -> tuple[bytes, str]:
        if name not in engines:
            raise Refused(404, f"there is no model {name[:80]!r}; models: {', '.join(engines)}")
        try:
            return await models.of(engines[name])
        except FcosError as error:
            raise Refused(501, f"this network cannot be had for the browser: {error}") from None

    @app.get("/models/{name}/model.onnx", summary="The network as an ONNX file, for browsers that compute themselves")
    async def onnx(name: str) -> Response:
        return Response((await model(name))[0], media_type="application/octet-stream")

    @app.get("/models/{name}/about.json", summary="Settings and classes around that file")
    async def about(name: str) -> Response:
        return Response((await model(name))[1], media_type="application/json")
