"""Some requests of `fcos serve` must not hold up the others, nor take what the machine does not have."""

import asyncio
import contextlib
import gc
import json
import socket
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from localserver import CAT, ask, detections, encoded, form, held, serving
from PIL import Image
from starlette.requests import Request

from fcos.detections import Detections
from fcos.errors import FcosError, ModelError
from fcos.serving import engine, pages
from fcos.serving.metrics import Metrics
from fcos.serving.options import Access, Limits, Refused
from fcos.serving.pixel_budget import Room
from fcos.serving.request import Bodies, read_body, uploads

MANY = 40  # more than asyncio's default pool has threads


def test_those_who_wait_for_the_browsers_model_hold_up_nobody_and_share_one(monkeypatch):
    gate, exports = threading.Event(), []

    def export(network, about):
        exports.append(about)
        if len(exports) == 1:
            raise ModelError("the first fails")
        gate.wait(60)
        return b"a graph"

    monkeypatch.setattr(pages, "browser_model", export)
    path = "/models/fcos-lite0/model.onnx"
    with serving() as (address, _), ThreadPoolExecutor(MANY) as clients:
        assert ask(address, path)[0] == 501
        waiting = [clients.submit(ask, address, path) for _ in range(MANY)]
        try:
            time.sleep(0.5)
            assert ask(address, "/metrics")[0] == 200
            assert detections(address, CAT)
            assert not any(one.done() for one in waiting)
        finally:
            gate.set()
        assert {one.result()[2] for one in waiting} == {b"a graph"}
        assert json.loads(ask(address, "/models/fcos-lite0/about.json")[2])["classes"]
    assert len(exports) == 2


def test_slow_hosts_hold_up_nobody(monkeypatch):
    class Public:
        is_global = True

    monkeypatch.setattr("fcos.serving.request.ipaddress.ip_address", lambda text: Public())
    limits, access = Limits(timeout=2.0), Access(hosts=("localhost",))
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        serving(limits=limits, access=access) as (address, _),
        ThreadPoolExecutor(MANY) as clients,
    ):
        body = json.dumps({"url": f"http://localhost:{silent.getsockname()[1]}/cat.jpg"}).encode()
        detections(address, CAT)
        begun = time.monotonic()
        waiting = [clients.submit(ask, address, data=body, content_type="application/json") for _ in range(MANY)]
        time.sleep(0.5)
        assert detections(address, CAT)
        assert ask(address, "/metrics")[0] == 200
        assert not any(one.done() for one in waiting)
        assert {one.result()[0] for one in waiting} <= {400, 504}
        assert time.monotonic() - begun < 2 * limits.timeout


def test_a_form_with_fields_or_past_the_deadline_is_not_read_on():
    field = b'--b\r\nContent-Disposition: form-data; name="score"\r\n\r\n0.9\r\n'
    later = time.monotonic() + 60
    body, kind = form(("cat.jpg", CAT), boundary="b")
    assert uploads(body, kind, Limits(), later)[0].data == CAT
    for fields in (field, field * 50_000):
        with pytest.raises(Refused, match=r"a field 'score'; .* options in the address: \?score=") as refused:
            uploads(fields + body, kind, Limits(), later)
        assert refused.value.status == 400
    with pytest.raises(Refused, match="deadline") as refused:
        uploads(body, kind, Limits(), time.monotonic() - 1)
    assert refused.value.status == 504


def test_a_body_of_the_limit_is_read_and_what_has_arrived_is_counted_while_it_arrives(monkeypatch):
    """Not a byte more than the limit; whatever comes of a request, its bytes are not counted any more after it."""
    monkeypatch.setattr("fcos.serving.request._ARRIVING", 2)
    bodies, seen = Bodies(held=5), []

    def read(parts):
        async def receive():
            seen.append(bodies.held)
            body = parts.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(parts)}

        request = Request({"type": "http", "method": "POST", "headers": []}, receive)
        return asyncio.run(read_body(request, Limits(body=10), time.monotonic() + 20, bodies))

    assert read([b"abcd", b"efghij"]) == b"abcdefghij"
    assert (seen, bodies.held) == ([5, 9], 5)
    for parts, status in (([b"abcd", b"efghijk"], 413), ([b"abcd"] * 2 + [b"ab"], 503)):
        bodies.held = 5 if status == 413 else 11
        before = bodies.held
        with pytest.raises(Refused) as refused:
            read(parts)
        assert (refused.value.status, bodies.held) == (status, before)


def picture(side):
    return encoded(Image.new("RGB", (side, side), "grey"), "PNG")


def until(holds):
    """Wait for what is going to be so."""
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def decoded(monkeypatch):
    """References to the pixels of every image that the server decodes. Room is for a million of them."""
    references, load_source = [], engine.load_source

    def load(source):
        pixels = load_source(source)
        references.append(weakref.ref(pixels))
        return pixels

    monkeypatch.setattr(engine, "load_source", load)
    monkeypatch.setattr(engine, "PIXELS_AHEAD", 1_000_000)
    return references


def alive(references):
    gc.collect()
    return sum(reference() is not None for reference in references)


def test_few_large_images_are_held_decoded_and_all_are_answered(decoded):
    body, kind = form(*[(f"{side}.png", picture(side)) for side in [600] * 6 + [1500] + [600] * 5])
    with serving() as (address, parts), ThreadPoolExecutor(3) as clients:
        with held(parts.engines["fcos-lite0"]):  # two small ones, which leave room for two of 600 x 600
            waiting = [clients.submit(ask, address, data=body, content_type=kind) for _ in range(3)]
            until(lambda: len(decoded) >= 4)
            time.sleep(0.5)
            assert len(decoded) == alive(decoded) == 4
        for one in waiting:
            status, _, answer = one.result()
            told = json.loads(answer)["results"]
            assert (status, [image["width"] for image in told]) == (200, [600] * 6 + [1500] + [600] * 5)
            assert all("detections" in image for image in told)
        until(lambda: alive(decoded) == 0)


def test_a_request_that_is_given_up_leaves_no_pixels_behind(decoded):
    body, kind = form(*[("a.png", picture(600))] * 4)
    with serving(limits=Limits(timeout=1.0)) as (address, parts):
        with held(parts.engines["fcos-lite0"]):
            for count in (4, 6):
                answer = json.loads(ask(address, data=body, content_type=kind)[2])
                assert all("deadline" in image["error"] for image in answer["results"])
                assert len(decoded) >= count  # the second request found room; one may still come as time runs out
                until(lambda: alive(decoded) == 2)  # those in the lanes
        assert ask(address, data=picture(600))[0] == 200


def test_small_images_do_not_keep_a_large_one_waiting():
    room, later, order = Room(100), time.monotonic() + 20, []
    assert room.take(60, later)
    assert not room.take(50, time.monotonic() + 0.05)
    assert room.take(40, later)

    def take(pixels):
        order.append(pixels if room.take(pixels, later) else None)

    large, small = (threading.Thread(target=take, args=(pixels,)) for pixels in (1000, 10))
    large.start()
    time.sleep(0.2)
    small.start()
    room.give_back(40)
    time.sleep(0.2)
    assert not order  # there is room for the small one, which came later
    room.give_back(60)
    until(lambda: order == [1000])
    room.close()
    small.join(20)
    assert order == [1000, None]


def test_a_request_finds_places_for_all_its_images_or_none(decoded):
    limits = Limits(queue=4)
    with serving(limits=limits) as (address, parts):
        for count, right in ((4, 200), (5, 413), (8, 413)):
            body, kind = form(*[("cat.jpg", CAT)] * count)
            status, _, answer = ask(address, data=body, content_type=kind)
            assert status == right, answer
            if status == 413:
                assert json.loads(answer)["error"] == "the request holds more than 4 images"
        assert len(decoded) == 4
        body, kind = form(*[("cat.jpg", CAT)] * 3)
        with held(parts.engines["fcos-lite0"]):  # which takes two places
            status, headers, answer = ask(address, data=body, content_type=kind)
            assert status == 503
            assert int(headers["retry-after"]) >= 1
            assert "2 images in front already" in json.loads(answer)["error"]
        assert ask(address, data=body, content_type=kind)[0] == 200
        assert len(decoded) == 4 + 2 + 3  # nothing of what was refused


def test_images_that_are_computed_together_have_scores_of_their_own_and_fail_alone():
    """As on a GPU; one image that upsets the network is computed again, and so are those beside it."""
    counts = []

    class Lane(engine.Engine):
        def __init__(self):
            self.name, self.metrics, self._rate, self._lanes = "m", Metrics(), 0.0, [None]
            self.detector = SimpleNamespace(detect=self.detect)

        def detect(self, images, names, least, batch):
            counts.append(len(images))
            if any(image.shape[0] == 13 for image in images):
                raise ModelError("this one")
            scores = torch.tensor([0.9, 0.5, 0.2])
            found = Detections(torch.tensor([[0.0, 0, 5, 5]] * 3), scores, torch.zeros(3, dtype=torch.int64))
            return [found[scores >= least] for _ in images]

    def compute(*wanted):
        lane, later = Lane(), time.monotonic() + 60
        jobs = [engine._Job(b"", s, later, None, image=np.zeros((h, 8, 3), np.uint8)) for s, h in wanted]
        lane._compute(jobs)
        return lane, [job.future for job in jobs]

    lane, (low, high) = compute((0.1, 20), (0.6, 21))
    assert [len(one.result().result) for one in (low, high)] == [3, 1]
    assert [one.result().size for one in (low, high)] == [(20, 8), (21, 8)]
    assert 'fcos_images_total{model="m"} 2.0' in lane.metrics.text().decode()
    _, (first, wrong, last) = compute((0.1, 20), (0.1, 13), (0.4, 21))
    assert [len(one.result().result) for one in (first, last)] == [3, 2]
    with pytest.raises(ModelError, match="this one"):
        wrong.result()
    assert counts == [2, 3, 1, 1, 1]


def test_weights_that_would_run_in_other_lanes_are_not_taken():
    class Lane(engine.Engine):
        def __init__(self):
            self.name, self.detector, self._lanes = "m", "old", [None] * 2

        def _load(self):
            return SimpleNamespace(placement=SimpleNamespace(lanes=lanes))

    lane = Lane()
    lanes = 3
    with pytest.raises(FcosError, match="m would now run in 3 lanes, not 2; restart the server"):
        lane.reload()
    assert lane.detector == "old"
    lanes = 2
    lane.reload()
    assert lane.detector.placement.lanes == 2


@pytest.mark.parametrize("query", ["?tile=128", "?tile=auto"])
def test_a_long_thin_image_makes_no_end_of_tiles(query):
    long = encoded(Image.new("RGB", (80_000, 1)), "PNG")
    with serving() as (address, _):
        status, _, body = ask(address, f"/predict{query}", long)
        assert status == 413
        assert "80000x1 pixels make" in json.loads(body)["error"]


@pytest.mark.parametrize("more", [b"", pytest.param(b"Connection: close\r\n", marks=pytest.mark.slow)])
def test_an_answer_that_nobody_reads_is_dropped(monkeypatch, more):
    """Its bytes would stay until the client goes."""
    monkeypatch.setattr(pages, "_vendored", lambda name, packed: bytes(32 << 20))
    with serving(patience=0.5) as (address, _):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET /web/ort.wasm HTTP/1.1\r\nHost: a\r\n" + more + b"\r\n")
            time.sleep(2)
            taken = 0
            with contextlib.suppress(ConnectionError):
                while part := client.recv(1 << 20):
                    taken += len(part)
        assert taken < 32 << 20


def test_a_slow_reader_gets_all_of_its_answer(monkeypatch):
    size = 3 << 20
    monkeypatch.setattr(pages, "_vendored", lambda name, packed: bytes(size))
    with serving(patience=1) as (address, _):
        host, port = address.removeprefix("http://").split(":")
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            client.connect((host, int(port)))
            client.sendall(b"GET /web/ort.wasm HTTP/1.1\r\nHost: a\r\n\r\n")
            taken, end = 0, time.monotonic() + 3
            while taken < size and (part := client.recv(1 << 15)):
                taken += len(part)
                if time.monotonic() < end:  # 320 KB a second
                    time.sleep(0.1)
        assert taken >= size


def test_json_of_millions_of_lists_is_not_parsed():
    body = b'{"inputs":[' + b"[]," * 3_000_000 + b"[]]}"
    with serving() as (address, _):
        begun = time.monotonic()
        status, _, answer = ask(address, "/v2/models/fcos-lite0/infer", body, content_type="application/json")
        assert (status, "2,000,000 lists" in json.loads(answer)["error"]) == (413, True)
        assert time.monotonic() - begun < 5


def test_uploads_that_stop_halfway_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr("fcos.serving.request._ARRIVING", 2)
    with serving(limits=Limits(body=1 << 20, timeout=20.0)) as (address, _):
        host, port = address.removeprefix("http://").split(":")
        head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
        clients = [socket.create_connection((host, int(port))) for _ in range(2)]
        for client in clients:
            client.sendall(head + bytes(990_000))
        until(lambda: ask(address, "/predict", bytes(300_000))[0] == 503)
        for client in clients:
            client.close()
        until(lambda: ask(address, "/predict", CAT)[0] == 200)
