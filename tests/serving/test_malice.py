"""A thousand malformed requests against `fcos serve` as a process: no 500, no growth, health stays green."""

import concurrent.futures
import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from localserver import CAT, ask, detections, encoded, malformed, png_that_claims, raw

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc"),
]
ALLOWED = {200, 400, 403, 408, 413, 415, 422, 503}


@pytest.fixture(scope="module")
def process():
    """(number of the process, its address); an image may have 4 million pixels, a request take 30 seconds."""
    command = [sys.executable, "-m", "fcos", "serve", "--port", "0", "--runtime", "torch", "--device", "cpu"]
    limits = ["--max-mb", "4", "--max-megapixels", "4", "--timeout", "30", "--set", "data.size=192"]
    server = subprocess.Popen([*command, *limits], stderr=subprocess.PIPE, text=True, env=os.environ)
    line = next(line for line in server.stderr if "ready: " in line)
    yield server.pid, line.split("ready: ")[1].split()[0].replace("localhost", "127.0.0.1")
    server.terminate()
    _, told = server.communicate(timeout=60)
    assert "Traceback" not in told


def held(number):
    """Resident MiB."""
    lines = Path(f"/proc/{number}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def zip_bomb():
    """A PNG of 60 KB that says it has 2 x 2 pixels and unpacks to 60 MB."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes(60_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def bombs():
    """(path, content type, body, statuses) of what costs far more than it weighs."""
    from PIL import Image

    huge = encoded(Image.new("1", (40000, 40000)), "PNG")  # 200 MB of pixels in some KB
    inputs = [{"name": "images", "datatype": "UINT8", "shape": [1, 60000, 60000, 3], "data": [0]}]
    deep = b'{"inputs":' * 100_000
    yield "/predict", "image/png", huge, {413}
    yield "/predict", "image/png", png_that_claims(65000, 65000), {413}
    yield "/predict", "image/png", zip_bomb(), {200, 400}  # decoders stop where the image ends
    yield "/explain", "image/png", huge, {413}
    yield "/v2/models/fcos-lite0/infer", "application/json", json.dumps({"inputs": inputs}).encode(), {400, 413}
    yield "/v2/models/fcos-lite0/infer", "application/json", deep, {400}
    yield "/predict", "multipart/form-data; boundary=b", b"--b\r\n" * 200_000, {400}
    yield "/predict", "multipart/form-data; boundary=b", b"--b\r\n" + b"a: b\r\n" * 100_000, {400}
    yield "/predict?tile=128", "image/png", encoded(Image.new("L", (1990, 1990)), "PNG"), {413}


def lying(address, seed):
    """The answer to a raw request whose lengths, chunks or headers lie."""
    rng = random.Random(seed)
    claimed = rng.choice((0, 1, 5, len(CAT) - 7, len(CAT) + 999, 10**15, -1))
    how = rng.choice((b"Content-Length: %d\r\n" % claimed, b"Transfer-Encoding: chunked\r\n", b"",
                      b"Content-Length: 5\r\nContent-Length: 9\r\n",
                      b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"))  # fmt: skip
    path = rng.choice((b"/predict", b"/v2/models/fcos-lite0/infer", b"/explain", b"/%ff%00", b"/web/../../etc/passwd"))
    body = rng.choice((CAT[: rng.randrange(3000)], b"ffffffff\r\nx", b"-1\r\n\r\n", rng.randbytes(300), b""))
    return raw(address, b"POST " + path + b" HTTP/1.1\r\nHost: x\r\n" + how + b"\r\n" + body, wait=40)


def slow_sender(address, seconds):
    """The answer to a request that comes a byte at a time and never ends."""
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=60) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                connection.sendall(b"x")
                time.sleep(0.25)
            return connection.recv(200)
        except OSError:
            return b""


def throw_bombs(address):
    for path, kind, body, right in bombs():
        status, _, answer = ask(address, path, body, content_type=kind)
        assert status in right, (path, kind, status)
        if status != 200:
            assert "\n" not in json.loads(answer)["error"]
        assert ask(address, "/health")[0] == 200


def test_a_thousand_malformed_requests(process):
    number, address = process
    for seed in range(200):  # what is kept once, such as room for the largest image in each thread, is kept now
        path, kind, body = malformed(seed)
        ask(address, path, body, content_type=kind)
    for _ in range(3):
        throw_bombs(address)
    detections(address, CAT)
    before, statuses = held(number), []
    slow = concurrent.futures.ThreadPoolExecutor(8)
    waiting = [slow.submit(slow_sender, address, 33) for _ in range(8)]

    def one(seed):
        path, kind, body = malformed(seed)
        status, _, answer = ask(address, path, body, content_type=kind)
        return status, answer

    with concurrent.futures.ThreadPoolExecutor(4) as clients:
        for count, (status, answer) in enumerate(clients.map(one, range(1000, 1700)), 1):
            statuses.append(status)
            assert status in ALLOWED, (count, status, answer[:300])
            assert b"Traceback" not in answer
            if status != 200:
                assert "\n" not in json.loads(answer)["error"]
            if count % 100 == 0:
                assert ask(address, "/health")[0] == 200
        for answer in clients.map(lambda seed: lying(address, seed), range(300)):
            line = answer[:16]
            assert not line or int(line.split()[1]) in {*ALLOWED, 404, 405}, line
            assert b"Traceback" not in answer
    throw_bombs(address)
    assert {400, 413} <= set(statuses)
    # a server that has not been asked for long enough answers 408, or closes; none of the slow ones gets a lane
    assert all(not answer or b" 408 " in answer[:16] for answer in (future.result() for future in waiting))
    slow.shutdown()
    assert ask(address, "/health")[0] == 200
    assert ask(address, "/v2/health/ready")[0] == 200
    assert detections(address, CAT)
    assert held(number) < 1.05 * before
