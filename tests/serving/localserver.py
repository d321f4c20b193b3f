"""A server in a thread of the test, its clients, and what they send: good images, odd ones, and what is wrong."""

import io
import json
import random
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
import zlib
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="pip install 'fcos-detector[serve]'")

import uvicorn

from fcos.serving.app import build
from fcos.serving.connection import Connection
from fcos.serving.options import Placing, ServeOptions
from fcos.serving.server import start
from fcos.system.files import ASSETS

PHOTOS = sorted((ASSETS / "photos").glob("*.jpg"))
SMALL = ("data.size=192", "data.max_size=256")  # quick
ONNX = Placing(device="cpu", runtime="onnx", threads=2)
CAT = (ASSETS / "photos" / "cat.jpg").read_bytes()


@contextmanager
def serving(patience=30, **changes):
    """A server in a thread, as (address, its parts); patience: seconds until a request must have begun."""
    changes = {"settings": SMALL, "placing": Placing(device="cpu", runtime="torch", threads=2, lanes=2), **changes}
    options = ServeOptions(**changes)
    parts = start(options)
    config = uvicorn.Config(
        build(parts), log_level="warning", access_log=False, lifespan="on", http=Connection, ws="none",
        timeout_keep_alive=patience,
    )  # fmt: skip
    server = uvicorn.Server(config)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", parts
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@contextmanager
def held(engine):
    """Every lane of an engine busy until the end of the block."""
    gate, begun = threading.Event(), threading.Semaphore(0)

    def hold(*_):
        begun.release()
        gate.wait(20)

    held = engine.submit([CAT] * len(engine._lanes), 0.0, time.monotonic() + 30, hold)
    for _ in held:
        assert begun.acquire(timeout=20)
    try:
        yield
    finally:
        gate.set()
        for future in held:
            future.result()


def ask(address, path="/predict", data=None, **headers):
    """(status, headers, body) of one request."""
    request = urllib.request.Request(address + path, data, {k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def detections(address, data, query="?score=0"):
    status, _, body = ask(address, f"/predict{query}", data)
    assert status == 200, body
    return json.loads(body)["results"][0]["detections"]


def form(*files, boundary="x1y2"):
    """(body, content type) of a form with (name, bytes) files."""
    body = b"".join(
        b'--%s\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s\r\n'
        % (boundary.encode(), name.encode(), data)
        for name, data in files
    )
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def encoded(image, suffix, **options):
    stream = io.BytesIO()
    image.save(stream, suffix, **options)
    return stream.getvalue()


def odd_pictures():
    """Images whose pixels are easily got wrong."""
    cat = Image.open(io.BytesIO(CAT))
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "rotated by EXIF", encoded(cat, "JPEG", exif=exif, quality=90)
    yield "grey", encoded(cat.convert("L"), "PNG")
    sixteen = (np.asarray(cat.convert("L")).astype(np.uint16) * 257) ^ 3
    yield "16 bits", cv2.imencode(".png", sixteen)[1].tobytes()
    transparent = cat.convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(cat.size))
    yield "transparent", encoded(transparent, "PNG")
    yield "palette", encoded(cat.convert("P"), "GIF")
    yield "CMYK", encoded(cat.convert("CMYK"), "JPEG")
    yield "one pixel high", encoded(cat.resize((300, 1)), "PNG")
    yield "large", encoded(cat.resize((2250, 1500)), "JPEG")


def raw(address, data, wait=3.0):
    """The status line that answers bytes of any kind, or b"" where the connection just ends."""
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=wait) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            return connection.recv(4000)
        except OSError:
            return b""


def png_that_claims(width, height):
    """A PNG of a few bytes whose header names any size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    small = encoded(Image.new("RGB", (4, 4)), "PNG")
    chunk = b"IHDR" + head
    return small[:8] + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)) + small[33:]


def malformed(seed):
    """(path, content type, body) of a request that is wrong in some way, from a seed."""
    rng = random.Random(seed)
    body, kind = form(("a.jpg", CAT[: rng.randrange(1, 6000)]), ("b.png", rng.randbytes(rng.randrange(400))))
    wrong = bytearray(body)
    for _ in range(rng.randrange(1, 30)):
        wrong[rng.randrange(min(len(wrong), 400) if rng.random() < 0.7 else len(wrong))] = rng.randrange(256)
    tensor = {"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 2, 2, 3], "data": [0] * 12}]}
    tensor["inputs"][0][rng.choice(("shape", "data", "datatype", "name"))] = rng.choice(
        (None, -1, [], "x", [[1]], {"a": 1}, [1, -2, 2, 3], [10**9, 1, 1, 3], 1e400, [None] * 12, ["a"] * 12)
    )
    infer = "/v2/models/fcos-lite0/infer"
    return rng.choice(
        (
            ("/predict", kind, bytes(wrong)),
            ("/predict", kind, body[: rng.randrange(len(body))]),
            ("/predict", "multipart/form-data", body),
            ("/predict", "multipart/form-data; boundary=" + "z" * rng.choice((1, 70, 3000)), body),
            ("/predict", "image/jpeg", bytes(wrong)),
            ("/predict", "image/jpeg", CAT[:20] + rng.randbytes(rng.randrange(3000))),
            ("/predict", "image/png", png_that_claims(rng.randrange(1, 1900), rng.randrange(1, 1900))),
            ("/explain", "image/tiff", b"II*\0" + rng.randbytes(rng.randrange(200))),
            ("/predict", "application/json", rng.choice((b"{", b"[]", b'{"url": 3}', b"[" * 100000, b"\xff"))),
            (infer, "application/json", json.dumps(tensor).encode()),
            (infer, "application/json", rng.randbytes(50)),
            ("/predict?score=" + rng.choice(("nan", "%00", "-1", "1e9", "a=b=c")), "image/jpeg", CAT),
        )
    )
