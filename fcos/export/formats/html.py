"""One HTML file that detects: page, weights, onnxruntime-web and classes, opened from disk, without a network.

Its own JavaScript prepares images and decodes, so the check compares detections and not tensors; a Chromium without a
window runs it.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...detections import Detections
from ...errors import ModelError
from ...network.model import FCOS
from ...system.files import ASSETS, write_whole
from ...system.readers import read_bytes
from .. import seal
from ..about import About, from_text
from ..browser import Browser, find_chromium
from . import onnx as onnx_format

WEB = ASSETS / "web"
_SMALL = 256  # numbers; tensors with fewer stay as they are
# What the file may do. No server is among it: nothing can leave the computer.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; style-src 'unsafe-inline'; "
    "img-src data: blob:; media-src blob: mediastream:; worker-src blob:; connect-src data: blob:"
)


def write(network: FCOS, about: About, path: Path, images: Iterable[Tensor] = ()) -> None:
    """Write the page around the graph; int8 is calibrated on `images` [1,3,H,W]. fp16 keeps the weights in half
    precision and computes in single: the file is half as large, and not slower."""
    graph = browser_model(network, about, images)
    write_whole(path, seal.sealed(_page(graph, about, path.stem).encode()))


def browser_model(network: FCOS, about: About, images: Iterable[Tensor] = ()) -> bytes:
    """The ONNX file that the page runs."""
    stored = about if about.dtype == "int8" else replace(about, dtype="fp32")
    model = onnx_format.described(network, stored, images)
    if about.dtype == "fp16":
        _halve(model)
    return seal.sealed(model.SerializeToString())


def _halve(model: Any) -> None:
    """Large float weights as float16, each with a Cast that the runtime folds when it loads the file."""
    import onnx

    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _SMALL or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])


def about_text(about: About) -> str:
    """What the page has to know of a graph, as JSON."""
    return json.dumps({**json.loads(about.to_text()), "shown": about.config.decode.lowest_shown})


def _page(graph: bytes, about: About, title: str) -> str:
    """The page of the server with everything inside, called `title`."""

    def text(name: str) -> str:
        return (WEB / name).read_text(encoding="utf-8")

    def script(name: str, content: str, kind: str = "text/plain") -> str:
        return f'<script id="{name}" type="{kind}">{content}</script>\n'

    def packed(name: str) -> str:
        return base64.b64encode((WEB / "vendor" / name).read_bytes()).decode()

    for name in ("core.js", "worker.js", "page.js"):
        assert "</script" not in text(name), name  # it would end the element that holds it
    told = about_text(about).replace("<", "\\u003c")
    licence = html.escape((WEB / "vendor" / "onnxruntime.LICENSE.txt").read_text(encoding="utf-8"))
    inside = (
        script("core-source", text("core.js"), "text/javascript")
        + script("worker-source", text("worker.js"))
        + script("packed-about", told, "application/json")
        + script("packed-ort", packed("ort.mjs.gz"))
        + script("packed-wasm", packed("ort.wasm.gz"))
        + script("packed-model", base64.b64encode(graph).decode())
        + script("page-source", text("page.js"), "text/javascript")
        + f"<template>onnxruntime-web, which this file holds: {licence}</template>"
    )
    page = text("index.html")
    page = page.replace(
        '<meta charset="utf-8">',
        f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
    )
    for element in ("title", "h1"):
        page = page.replace(f"<{element}>fcos<", f"<{element}>{html.escape(title)}<")
    page = page.replace('<link rel="stylesheet" href="web/style.css">', f"<style>\n{text('style.css')}</style>")
    page, count = re.subn(r'(<script src="web/[a-z]+\.js"></script>\n)+', lambda _: inside, page)
    assert count == 1
    return page


def read(path: Path) -> About:
    """What a file says about itself; ModelError where it is no page of `fcos export`."""
    page = read_bytes(path, seal.GRAPH_LIMIT, ModelError)
    seal.check(path, page)
    match = re.search(rb'<script id="packed-about" type="application/json">(.*?)</script>', page, re.DOTALL)
    return from_text(match[1] if match else None, path)


def detect(path: Path, images: Sequence[NDArray[np.uint8]]) -> list[Detections] | None:
    """Detections of decoded images [H,W,3] by the page itself, all candidates; None where there is no Chromium.
    ModelError when the page fails."""
    if find_chromium() is None:
        return None
    with Browser() as browser:
        tab = browser.open(path.resolve().as_uri())
        return [told(tab.evaluate(f"fcosPage.detect({json.dumps(_url(image))})")) for image in images]


def told(story: dict[str, Any]) -> Detections:
    """What the page says of an image."""
    rows = story["detections"]
    return Detections(
        torch.tensor([row["box"] for row in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([row["score"] for row in rows], dtype=torch.float32),
        torch.tensor([row["class"] for row in rows], dtype=torch.int64),
        torch.tensor([row["point"] for row in rows], dtype=torch.int64),
        size=(story["height"], story["width"]),
    )


def _url(image: NDArray[np.uint8]) -> str:
    """An image as a PNG file in a URL, every pixel kept."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
