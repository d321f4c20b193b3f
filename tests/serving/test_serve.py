"""`fcos serve`: the same detections as model(), public clients, limits, mistakes and malice."""

import base64
import contextlib
import http.server
import io
import json
import socket
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from localserver import (
    CAT,
    PHOTOS,
    SMALL,
    ask,
    detections,
    encoded,
    form,
    held,
    malformed,
    odd_pictures,
    png_that_claims,
    raw,
    serving,
)  # fmt: skip
from matching import assert_same_detections
from PIL import Image

from fcos.detections import Detections
from fcos.errors import FcosError
from fcos.inference.load import load
from fcos.serving import engine
from fcos.serving.answers import wanted
from fcos.serving.options import Access, Limits, Placing, Refused, bare_host, bare_token
from fcos.serving.request import fetch, prefers
from fcos.system.files import ASSETS
from fcos.types import Classes


@pytest.fixture(scope="module")
def server():
    with serving(limits=Limits(body=4 << 20, pixels=4_000_000, timeout=20.0)) as (address, _):
        yield address


@pytest.fixture(scope="module")
def model():
    return load("fcos-lite0", device="cpu", runtime="torch", threads=1, overrides=SMALL)


def equal(answered, expected):
    """To the last digit, whatever the order of equal scores."""
    assert all(d["name"] == d["label"] for d in answered)
    rows = [(d["name"], d["class"], d["score"], *d["box"]) for d in answered]
    wanted = [
        (expected.name(i), int(expected.labels[i]), float(expected.scores[i]), *expected.boxes[i].tolist())
        for i in range(len(expected))
    ]
    return sorted(rows) == sorted(wanted)


def test_answers_equal_the_model_to_the_last_digit(server, model):
    pictures = [(path.name, path.read_bytes()) for path in PHOTOS] + list(odd_pictures())
    for name, data in pictures:
        assert equal(detections(server, data), model(data, score=0.0)), name
    assert any(detections(server, data, "") for _, data in pictures)


@pytest.mark.parametrize("count", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_answers_equal_the_model_on_real_pictures(server, model, shared_data, count):
    paths = sorted((shared_data / "coco_val2017_60").rglob("*.jpg"))[:count]
    assert len(paths) == count
    for path in paths:
        assert equal(detections(server, path.read_bytes()), model(path.read_bytes(), score=0.0)), path.name


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_other_runtimes_answer_as_the_model_does_there(runtime):
    """At the images' whole size, a huge one among them, in several lanes."""
    pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime))
    expected = load("fcos-lite0", device="cpu", runtime=runtime, threads=2)
    pictures = [path.read_bytes() for path in PHOTOS] + [data for _, data in odd_pictures()]
    pictures.append(encoded(Image.open(io.BytesIO(CAT)).resize((7500, 5000)), "JPEG"))
    with serving(settings=(), placing=Placing(device="cpu", runtime=runtime, threads=2, lanes=2)) as (address, _):
        for data in pictures:
            found = detections(address, data, "?score=0.05")
            columns = {"boxes": "box", "scores": "score", "labels": "class"}
            found = {name: np.array([d[key] for d in found]) for name, key in columns.items()}
            wanted = expected(data, score=0.05)
            assert_same_detections(found, wanted, box=1e-4 * max(wanted.size))


def test_many_clients_at_once_get_their_own_answers(server, model):
    pictures = [path.read_bytes() for path in PHOTOS]
    expected = [model(data, score=0.0) for data in pictures]
    wrong = []

    def client(start):
        for i in range(start, start + 6):
            if not equal(detections(server, pictures[i % len(pictures)]), expected[i % len(pictures)]):
                wrong.append(i)

    threads = [threading.Thread(target=client, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_score_classes_and_max_choose(server, model):
    every = detections(server, CAT)
    assert every == sorted(every, key=lambda d: -d["score"])
    assert detections(server, CAT, "?score=0.3") == [d for d in every if d["score"] >= 0.3]
    assert detections(server, CAT, "?score=0&max=3") == every[:3]
    assert detections(server, CAT, "?score=0&classes=cat,dog") == [d for d in every if d["label"] in ("cat", "dog")]
    shown = model.shown
    assert detections(server, CAT, "") == [d for d in every if d["score"] >= shown]
    assert detections(server, CAT, "?score=cat=0.99,0.2") == [
        d for d in every if d["score"] >= (0.99 if d["label"] == "cat" else 0.2)
    ]


def test_tiles(server, model):
    large = encoded(Image.open(io.BytesIO(CAT)).resize((902, 600)), "PNG")
    expected = model(large, score=0.1, tile=400)
    assert len(expected) != len(model(large, score=0.1))  # more was looked at
    assert equal(detections(server, large, "?score=0.1&tile=400"), expected)


def test_tiles_as_the_model_learned(server, model):
    """Of a file that says so they are looked at unasked, also by the other protocols; few enough of them."""
    large = encoded(Image.open(io.BytesIO(CAT)).resize((902, 600)), "PNG")
    with serving(settings=(*SMALL, "data.tile=400")) as (address, _):
        assert equal(detections(address, large, "?score=0.1"), model(large, score=0.1, tile=400))
        assert equal(detections(address, large, "?score=0.1&tile=none"), model(large, score=0.1))
        status, _, body = ask(address, "/explain", large)  # not the story of other boxes than those of /predict
        assert (status, "in tiles of 400 px" in json.loads(body)["error"]) == (400, True)
        small = encoded(Image.open(io.BytesIO(CAT)).resize((380, 300)), "PNG")
        assert ask(address, "/explain", small)[0] == 200
    with serving(settings=(*SMALL, "data.tile=96")) as (address, _):
        huge = encoded(Image.open(io.BytesIO(CAT)).resize((1500, 1500)), "PNG")
        status, _, body = ask(address, "/predict?score=0.1", huge)
        assert status == 413
        assert "pixels make 535 tiles of 96" in json.loads(body)["error"]
        assert equal(detections(address, huge, "?score=0.1&tile=none"), model(huge, score=0.1))


@pytest.mark.parametrize(
    ("query", "words"),
    [("scores=0.3", "did you mean score"), ("maps=1", "there are score"), ("score=nan", "write 0.4 or person=0.5")],
)
def test_an_option_that_means_nothing_is_told(server, query, words):
    status, _, body = ask(server, f"/predict?{query}", CAT)
    assert status == 400
    assert words in json.loads(body)["error"]
    assert ".json" not in json.loads(body)["error"]


@pytest.mark.parametrize(
    "query", ["score=2", "score=cow=x", "score=/etc/passwd.json", "classes=nose", "max=-1", "max=x", "tile=x", "tile=3"]
)
def test_a_wrong_query_is_one_line(server, query):
    status, _, body = ask(server, f"/predict?{query}", CAT)
    assert status == 400
    assert "\n" not in json.loads(body)["error"]


def test_a_form_with_several_pictures_where_one_is_broken(server, model):
    body, kind = form(("cat.jpg", CAT), ("broken.jpg", CAT[:2000]), ("ü.png", b"hello"))
    status, _, answer = ask(server, "/predict?score=0", body, content_type=kind)
    first, second, third = json.loads(answer)["results"]
    assert status == 200
    assert (first["name"], first["width"], first["height"]) == ("cat.jpg", 451, 300)
    assert equal(first["detections"], model(CAT, score=0.0))
    assert "cut short" in second["error"]
    assert third["name"] == "ü.png"
    assert "not an image" in third["error"]


def test_a_drawn_picture(server):
    status, headers, body = ask(server, data=CAT, accept="image/jpeg")
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    drawn, plain = (np.asarray(Image.open(io.BytesIO(data))).astype(int) for data in (body, CAT))
    assert drawn.shape == plain.shape
    assert (abs(drawn - plain).max(axis=2) > 60).sum() > 200  # a frame lies on it
    assert ask(server, data=CAT, accept="image/*")[1]["content-type"] == "image/jpeg"
    assert ask(server, data=CAT, accept="application/json, image/jpeg;q=0")[1]["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("accept", "drawn"),
    [
        ("", False),
        ("*/*", False),
        ("text/html, image/webp, */*;q=0.8", False),  # a browser's
        ("image/*;q=0.8, application/json", False),
        ("image/png, */*;q=0.1", False),
        ("text/html", False),
        ("image/jpeg, */*", True),
        ("image/jpeg, application/json", True),
        ("Image/JPEG; q=0.5", True),
        ("image/jpeg;q=0.2, application/json;q=0.1", True),
    ],
)
def test_what_is_accepted(accept, drawn):
    assert prefers([accept], "image/jpeg", "application/json") == drawn


def test_the_story_of_each_box(server):
    status, _, body = ask(server, "/explain?score=0.2", CAT)
    told = json.loads(body)
    assert status == 200
    assert told["detections"]
    for story in told["detections"]:
        x, y = story["location"]
        left, top, right, bottom = story["distances"]
        np.testing.assert_allclose(
            np.clip((x - left, y - top, x + right, y + bottom), 0, (451, 300, 451, 300)), story["box"], atol=0.01
        )
        assert story["score"] == pytest.approx((story["probability"] * story["centerness"]) ** 0.5, abs=1e-5)
    levels = [m["level"] for m in told["maps"]]
    assert levels == sorted(levels)
    assert all(m["class"].startswith("data:image/png;base64,") for m in told["maps"])


def test_triton_client(server, model):
    """A client that others wrote, over JSON and binary tensors."""
    client_library = pytest.importorskip("tritonclient.http", reason="pip install 'tritonclient[http]'")
    client = client_library.InferenceServerClient(server.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("fcos-lite0")
    metadata = client.get_model_metadata("fcos-lite0")
    assert [o["name"] for o in metadata["outputs"]] == ["boxes", "scores", "labels", "count"]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(CAT)))] * 2)
    pixels[1] = pixels[1, :, ::-1]
    expected = [model(one, score=0.3) for one in pixels]
    for binary in (True, False):
        given = client_library.InferInput("images", list(pixels.shape), "UINT8")
        given.set_data_from_numpy(pixels, binary_data=binary)
        wanted = [client_library.InferRequestedOutput(o["name"], binary_data=binary) for o in metadata["outputs"]]
        answer = client.infer("fcos-lite0", [given], outputs=wanted, parameters={"score": "0.3"}, request_id="7")
        assert answer.get_response()["id"] == "7"
        for i, one in enumerate(expected):
            count = int(answer.as_numpy("count")[i])
            assert count == len(one) > 0
            np.testing.assert_array_equal(answer.as_numpy("boxes")[i, :count], one.boxes.numpy())
            np.testing.assert_array_equal(answer.as_numpy("scores")[i, :count], one.scores.numpy())
            np.testing.assert_array_equal(answer.as_numpy("labels")[i, :count], one.labels.numpy())
    files = np.array([CAT], dtype=np.object_)
    given = client_library.InferInput("images", [1], "BYTES")
    given.set_data_from_numpy(files)
    answer = client.infer("fcos-lite0", [given], parameters={"score": "0"}, timeout=10_000_000, sequence_id=3)
    np.testing.assert_array_equal(answer.as_numpy("boxes")[0], model(CAT, score=0.0).boxes.numpy())
    with pytest.raises(client_library.InferenceServerException, match="there is no model 'other'"):
        client.infer("other", [given])
    with pytest.raises(client_library.InferenceServerException, match="no option 'scor'; did you mean score"):
        client.infer("fcos-lite0", [given], parameters={"scor": "0"})


def test_too_large_is_refused_before_it_is_decoded(server):
    assert ask(server, data=png_that_claims(30000, 30000))[0] == 413
    assert ask(server, data=encoded(Image.new("RGB", (2100, 2100)), "PNG"))[0] == 413
    assert ask(server, data=b"x" * (5 << 20))[0] == 413
    chunks = (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 80 + b"0\r\n\r\n"
    assert (
        b" 413 "
        in raw(server, b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)[:20]
    )
    assert ask(server, data=encoded(Image.new("RGB", (1900, 2000)), "PNG"))[0] == 200
    body, kind = form(*[("cat.jpg", CAT)] * 17)
    assert ask(server, data=body, content_type=kind)[0] == 413


def test_a_full_queue_says_when_to_return():
    with serving(limits=Limits(queue=2)) as (address, parts):
        with held(parts.engines["fcos-lite0"]):
            status, headers, body = ask(address, data=CAT)
            assert status == 503
            assert int(headers["retry-after"]) >= 1
            assert "ask again later" in json.loads(body)["error"]
            assert ask(address, "/health")[0] == 200
        assert ask(address, data=CAT)[0] == 200


def test_a_passed_deadline():
    with serving(limits=Limits(timeout=0.7)) as (address, parts):
        with held(parts.engines["fcos-lite0"]):
            status, _, body = ask(address, data=CAT)
            assert status == 504
            assert "deadline" in json.loads(body)["error"]
        assert ask(address, data=CAT)[0] == 200
        slow = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=10)
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
        slow.close()


def test_a_token_is_wanted_by_all_but_health_and_page_files():
    with serving(access=Access(token="s3cret", admin="boss")) as (address, _):
        for path in ("/predict", "/explain", "/models", "/metrics", "/v2/models/fcos-lite0", "/openapi.json"):
            data = CAT if path in ("/predict", "/explain") else None
            assert ask(address, path, data)[0] == 401, path
            assert ask(address, path, data, authorization="Bearer wrong")[0] == 401
            assert ask(address, path, data, authorization="Basic s3cret")[0] == 401
            assert ask(address, path, data, authorization="Digest s3cret")[0] == 401
            assert ask(address, path, data, authorization="Basic bWU6czNjcmV0IQ==")[0] == 401  # me:s3cret!
            assert ask(address, path, data, authorization="Bearer s3cret")[0] == 200, path
        assert ask(address, "/models", authorization="Basic bWU6czNjcmV0")[0] == 200  # me:s3cret
        for path in ("/health", "/v2/health/live", "/v2/health/ready"):
            assert ask(address, path)[0] == 200
        token = {"authorization": "Bearer s3cret"}
        reload = "/models/fcos-lite0/reload"
        assert ask(address, reload, b"", **token)[0] == 403
        assert ask(address, reload, b"", x_admin_token="boss")[0] == 401
        assert ask(address, reload, b"", x_admin_token="bos", **token)[0] == 403
        assert ask(address, reload, b"", x_admin_token="boss", **token)[0] == 200


def test_head_is_answered_as_get_is_without_a_body(server):
    for path in ("/health", "/v2/health/ready", "/", "/models", "/nothing"):
        (status, headers, body), head = ask(server, path), urllib.request.Request(server + path, method="HEAD")
        try:
            answer = urllib.request.urlopen(head, timeout=30)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            assert (answer.status, answer.read()) == (status, b""), path
            assert answer.headers["content-length"] == headers["content-length"] == str(len(body))


def test_an_option_that_is_given_twice_is_told(server):
    for path in ("/predict?score=0.4&score=0.9", "/explain?maps=0&score=0.4&maps=1"):
        status, _, body = ask(server, path, CAT)
        assert (status, "is given twice" in json.loads(body)["error"]) == (400, True), path


@pytest.mark.parametrize("sent", ["schlüssel à".encode(), "schlüssel à".encode("latin-1")])
def test_a_token_beyond_ascii(sent):
    """HTTP does not say how such a header is written: curl and browsers differ."""
    with serving(access=Access(token="schlüssel à")) as (address, _):
        head = b"GET /models HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: "
        basic = b"Basic " + base64.b64encode(b"me:" + sent)
        for authorization, right in (
            (b"Bearer " + sent, b" 200 "),
            (basic, b" 200 "),
            (b"Bearer " + sent[:-1], b" 401 "),
        ):
            assert right in raw(address, head + authorization + b"\r\n\r\n")[:16], authorization


def test_pages_of_other_hosts_read_answers_and_refusals():
    access = Access(token="s3cret", origins=("https://example.org",))
    page, allowed = {"origin": "https://example.org"}, "access-control-allow-origin"
    with serving(access=access) as (address, _):
        for token, right in (("s3cret", 200), ("wrong", 401)):
            status, headers, _ = ask(address, "/models", authorization=f"Bearer {token}", **page)
            assert (status, headers[allowed]) == (right, "https://example.org")
            assert headers["x-content-type-options"] == "nosniff"
        assert allowed not in ask(address, "/models", origin="https://elsewhere.example")[1]
        asking = "authorization, content-type, inference-header-content-length"
        request = urllib.request.Request(f"{address}/v2/models/fcos-lite0/infer", method="OPTIONS", headers={
            "Origin": page["origin"], "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": asking,
        })  # fmt: skip
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert (answer.status, answer.headers[allowed]) == (200, "https://example.org")


def test_several_models_and_reload(tmp_path):
    copy = tmp_path / "mine.safetensors"
    copy.write_bytes((ASSETS / "fcos-lite0.safetensors").read_bytes())
    names = ("fcos-lite0", f"other={copy}")
    with serving(models=names, access=Access(admin="boss")) as (address, _):
        told = json.loads(ask(address, "/models")[2])["models"]
        assert [m["name"] for m in told] == ["fcos-lite0", "other"]
        assert detections(address, CAT, "?model=other&score=0") == detections(address, CAT)
        assert ask(address, "/predict?model=third", CAT)[0] == 404
        copy.write_bytes(b"no weights")
        status, _, body = ask(address, "/models/other/reload", b"", x_admin_token="boss")
        assert status == 400
        assert str(copy) in json.loads(body)["error"]
        assert detections(address, CAT, "?model=other&score=0") == detections(address, CAT)  # the old ones stay
        copy.write_bytes((ASSETS / "fcos-lite0.safetensors").read_bytes())
        assert ask(address, "/models/other/reload", b"", x_admin_token="boss")[0] == 200


def test_a_model_file_with_an_equals_sign_in_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert engine.split_name("m=1.safetensors") == ("m", "1.safetensors")
    (tmp_path / "m=1.safetensors").write_bytes(b"")
    assert engine.split_name("m=1.safetensors") == ("m=1", "m=1.safetensors")
    assert engine.split_name("other=m=1.safetensors") == ("other", "m=1.safetensors")


@pytest.mark.parametrize(
    ("given", "host"),
    [
        ("Example.org", "example.org"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("a-b.c_d", "a-b.c_d"),
    ],
)
def test_hosts_are_compared_in_lower_case(given, host):
    assert bare_host(given) == host


def test_a_token_is_the_word_in_a_file_of_secrets():
    assert bare_token("FCOS_TOKEN", None) is bare_token("FCOS_TOKEN", "") is None
    assert bare_token("FCOS_TOKEN", " schlüssel à\r\n") == "schlüssel à"
    for given in ("\n", "a\nb"):
        with pytest.raises(FcosError, match="FCOS_TOKEN"):
            bare_token("FCOS_TOKEN", given)


def test_detections_of_a_model_with_other_classes_are_not_answered():
    """A request may wait while its model is loaded anew: its least scores are by the classes of before."""
    asked = wanted(Classes(("cat", "dog")), 0.5, "cat=0.2", None, None)
    boxes = np.array([[0.0, 0.0, 9.0, 9.0]] * 2)
    found = Detections(boxes, [0.9, 0.3], [1, 0], names=("cat", "dog"))
    assert [d.name for d in asked.of(found)] == ["dog", "cat"]
    for names in (("dog", "cat"), ("cat", "dog", "cow")):
        with pytest.raises(Refused, match="ask again") as refused:
            asked.of(Detections(boxes, [0.9, 0.3], [1, 0], names=names))
        assert refused.value.status == 503


def test_reloading_and_urls_are_off_by_default(server):
    assert ask(server, "/models/fcos-lite0/reload", b"")[0] == 403
    body = b'{"url": "http://example.org/cat.jpg"}'
    assert ask(server, data=body, content_type="application/json")[0] == 403
    assert "access-control-allow-origin" not in ask(server, "/health", origin="https://example.org")[1]


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("http://localhost/x.jpg", 403),  # an allowed name with a private address
        ("http://127.0.0.1:80/x.jpg", 403),
        ("http://[::1]/x.jpg", 403),
        ("http://169.254.169.254/latest/meta-data", 403),
        ("http://elsewhere.example/x.jpg", 403),
        ("http://not-localhost/x.jpg", 403),
        ("file:///etc/passwd", 400),
        ("http://user@localhost/x.jpg", 400),
        ("http://localhost:99999/", 400),
        ("http://[::1", 400),
        ("http://local\udcffhost/", 403),
        (f"http://{'a' * 70}.example/x.jpg", 400),  # longer than a part of a name can be
        ("gopher://localhost/", 400),
        ("", 400),
    ],
)
def test_urls_lead_only_to_public_addresses_of_allowed_hosts(url, status):
    hosts = ("localhost", "127.0.0.1", "::1", "169.254.169.254", f"{'a' * 70}.example")
    with pytest.raises(Refused) as refused:
        fetch(url, hosts, Limits())
    assert refused.value.status == status


def test_no_redirect_is_followed_and_bytes_are_limited(monkeypatch):
    """Fetching itself, against a server of this machine that passes for a public one."""
    answers = {
        "/cat.jpg": (200, CAT), "/moved": (302, b""), "/big": (200, b"x" * 5000), "/empty": (200, b""),
        "/K%C3%A4tzchen%202.jpg?a=%2f": (200, CAT),
    }  # fmt: skip

    named = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = answers[self.path]
            named.append(self.headers["Host"])
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    there = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=there.serve_forever, daemon=True).start()

    class Public:
        is_global = True

    monkeypatch.setattr("fcos.serving.request.ipaddress.ip_address", lambda text: Public())
    base = f"http://localhost:{there.server_port}"
    try:
        for name in ("cat.jpg", "Kätzchen 2.jpg?a=%2f", "K%C3%A4tzchen%202.jpg?a=%2f#part"):
            assert fetch(f"{base}/{name}", ["LocalHost"], Limits()) == CAT
        assert fetch(f"{base.replace('localhost', 'LOCALHOST')}/cat.jpg", ["localhost"], Limits()) == CAT
        assert set(named) == {f"localhost:{there.server_port}"}
        for path, status in (("/moved", 400), ("/big", 413)):
            with pytest.raises(Refused) as refused:
                fetch(base + path, ["localhost"], Limits(body=4000))
            assert refused.value.status == status
    finally:
        there.shutdown()
        there.server_close()


def test_metrics_count_what_happened():
    with serving() as (address, _):
        ask(address, data=CAT)
        ask(address, data=CAT)
        ask(address, data=b"no image")
        text = ask(address, "/metrics")[2].decode()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['fcos_images_total{model="fcos-lite0"}'] == "2.0"
    assert lines['fcos_requests_total{route="/predict",status="200"}'] == "2.0"
    assert lines['fcos_requests_total{route="/predict",status="400"}'] == "1.0"
    assert lines['fcos_queue_images{model="fcos-lite0"}'] == "0.0"
    for part in ("decode", "wait", "network"):
        assert lines[f'fcos_seconds_count{{part="{part}"}}'] == "2.0"


# ---------------------------------------------------------------------------------------------------- malice


def test_malformed_requests_never_break_it(server):
    for seed in range(160):
        path, kind, body = malformed(seed)
        status, _, answer = ask(server, path, body, content_type=kind)
        assert status in (200, 400, 403, 408, 413, 415, 422), (seed, path, kind, status, answer[:300])
        assert b"Traceback" not in answer
        if status != 200:
            assert "\n" not in json.loads(answer)["error"], seed
    head = b"POST /v2/models/fcos-lite0/infer HTTP/1.1\r\nHost: x\r\nInference-Header-Content-Length: %s\r\n"
    post = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
    for data in (
        b"", b"\0" * 300, b"GET", b"GET / HTTP/9.9\r\n\r\n", post + b"Content-Length: -5\r\n\r\n",
        post + b"Content-Length: 99999999999999\r\n\r\nabc", post + b"Content-Length: 100\r\n\r\nshort",
        post + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", post + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        post + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", post + b"A: " + b"b" * 100000,
        *(head % n + b"Content-Length: 2\r\n\r\n{}" for n in (b"-1", b"5", b"x", b"2", b"99999999999999999999")),
    ):  # fmt: skip
        answer = raw(server, data)
        assert b" 500 " not in answer[:20], data[:80]
        assert b"Traceback" not in answer
    assert ask(server, "/health")[0] == 200
    assert detections(server, CAT)


def test_a_request_that_never_begins_is_closed_and_those_in_work_are_not():
    """Half headers, however slowly they go on, must not keep a connection: a thousand of them take every descriptor."""
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(CAT)
    with serving(patience=1) as (address, _):
        place = ("127.0.0.1", int(address.rpartition(":")[2]))
        with contextlib.ExitStack() as stack:
            silent, half, dripping, again, sending = (
                stack.enter_context(socket.create_connection(place, timeout=20)) for _ in range(5)
            )
            half.sendall(b"GET /health HTTP/1.1\r\nHost: x")
            again.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            first = b""
            while not first.endswith(b"}"):
                first += again.recv(4000)
            assert b"200 OK" in first
            again.sendall(b"GET /health HTTP")  # a second request on it, which stays half
            sending.sendall(head)
            for byte in b"GET /health HTTP":
                with contextlib.suppress(OSError):  # it is closed meanwhile
                    dripping.sendall(bytes([byte]))
                time.sleep(0.1)
            for connection in (silent, half, dripping, again):
                told = b""
                while part := connection.recv(4000):
                    told += part
                assert told.startswith(b"HTTP/1.1 408 "), told
                assert json.loads(told.partition(b"\r\n\r\n")[2])["error"] == "no request arrived in time"
            sending.sendall(CAT)  # its header was whole: the time of a request is another limit
            assert b"200 OK" in sending.recv(4000)


def test_what_is_no_http_gets_its_line_as_json(server):
    answer = raw(server, b"\x16\x03\x01 hello\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"].startswith("this is no HTTP request")


def test_an_error_nobody_expected_is_one_line(monkeypatch, caplog):
    with serving() as (address, parts):
        engine = parts.engines["fcos-lite0"]
        monkeypatch.setattr(engine, "detector", engine.detector.replace(network=lambda _: 1 / 0))
        status, _, body = ask(address, data=CAT)
        assert status == 500
        assert json.loads(body)["error"] == "the server failed; its log says why"
        assert b"division" not in body
        assert "division by zero" in caplog.text  # the log says why
        monkeypatch.undo()
        assert ask(address, data=CAT)[0] == 200
