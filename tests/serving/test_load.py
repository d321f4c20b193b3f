"""Some requests of `fcos serve` must not hold up the others, nor take what the machine does not have."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_serve import CAT, ask, detections, form, serving

from fcos.errors import ModelError
from fcos.serving import intake, pages
from fcos.serving.options import Access, Limits, Refused

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

    monkeypatch.setattr(intake.ipaddress, "ip_address", lambda text: Public())
    limits, access = Limits(timeout=6.0), Access(hosts=("localhost",))
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


def test_a_form_of_many_fields_or_past_the_deadline_is_not_read_on():
    field = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n'
    kind, later = "multipart/form-data; boundary=b", time.monotonic() + 60
    with pytest.raises(Refused, match="more than 100 fields") as refused:
        intake.uploads(field * 50_000 + b"--b--\r\n", kind, Limits(), later)
    assert refused.value.status == 413
    body, kind = form(("cat.jpg", CAT), boundary="b")
    assert intake.uploads(field * 100 + body, kind, Limits(), later)[0].data == CAT
    with pytest.raises(Refused, match="deadline") as refused:
        intake.uploads(body, kind, Limits(), time.monotonic() - 1)
    assert refused.value.status == 504
