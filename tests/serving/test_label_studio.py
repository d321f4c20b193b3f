"""What Label Studio asks of a machine-learning backend, by the forms in its documentation."""

import base64
import http.server
import json
import threading

import pytest
from localserver import CAT, ask, detections, serving

from fcos.serving.label_studio import Studio, Tags, image_of, parse_config
from fcos.serving.options import Limits, Refused

CONFIG = """<View><Image name="photo" value="$picture"/>
<RectangleLabels name="boxes" toName="photo"><Label value="Cat"/><Label value="Person" background="red"/>
</RectangleLabels></View>"""


class Files(http.server.BaseHTTPRequestHandler):
    """A Label Studio's files, for who has a key of the older kind, or a token got for one of the newer."""

    def do_GET(self):
        known = self.headers["Authorization"] in ("Token k3y", "Bearer fresh")
        wanted = "*/*" in self.headers["Accept"]  # it answers 406 to others
        there = self.path in ("/data/upload/1/cat.jpg", "/data/upload/1/K%C3%A4tzchen.jpg")
        good = there and known and wanted
        self.answer(200 if good else 404, CAT if good else b"")

    def do_POST(self):
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        good = self.path == "/api/token/refresh/" and given == {"refresh": "a.b.c"}
        self.answer(200 if good else 401, b'{"access": "fresh"}' if good else b"{}")

    def answer(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def studio(monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "k3y")
    there = http.server.HTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=there.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{there.server_port}"
    there.shutdown()
    there.server_close()


def test_tasks_become_rectangles_in_percent(studio):
    url = "data:image/jpeg;base64," + base64.b64encode(CAT).decode()
    tasks = [{"id": i, "data": {"picture": place}} for i, place in enumerate(("/data/upload/1/cat.jpg", url))]
    message = {"tasks": tasks, "project": "1.2", "label_config": CONFIG, "params": {}}
    with serving(label_studio=studio) as (address, _):
        assert json.loads(ask(address, "/health")[2])["status"] == "UP"
        status, _, body = ask(address, "/setup", b'{"project": "1", "schema": ""}', content_type="application/json")
        assert (status, json.loads(body)) == (200, {"model_version": "fcos-lite0"})
        assert ask(address, "/webhook", b"{}", content_type="application/json")[0] == 201
        status, _, body = ask(
            address, "/predict?score=0.3", json.dumps(message).encode(), content_type="application/json"
        )
        assert status == 200, body
        first, second = json.loads(body)["results"]
        assert first == second
        wanted = [d for d in detections(address, CAT, "?score=0.3") if d["label"] in ("cat", "person")]
        assert len(first["result"]) == len(wanted) > 0
        for row, one in zip(first["result"], wanted, strict=True):
            value = row["value"]
            left, top = value["x"] * 4.51, value["y"] * 3
            box = [left, top, left + value["width"] * 4.51, top + value["height"] * 3]
            assert box == pytest.approx(one["box"], abs=1e-6)
            assert value["rectanglelabels"] == [one["label"].capitalize()]
            assert (row["from_name"], row["to_name"], row["type"]) == ("boxes", "photo", "rectanglelabels")
            assert (row["original_width"], row["original_height"]) == (451, 300)
        assert detections(address, CAT, "")  # bytes are still bytes


@pytest.mark.parametrize("key", ["k3y", "a.b.c"])
def test_many_tasks_at_once_of_which_some_have_no_image(studio, monkeypatch, caplog, key):
    """Label Studio sends all chosen tasks in one request, wants as many rows, and leaves out those without a result."""
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", key)
    places = ["/data/upload/1/cat.jpg", "/data/upload/1/gone.jpg", "data:,aGVsbG8=", *["/data/upload/1/cat.jpg"] * 4]
    places += ["http://[", "/data/upload/1/Kätzchen.jpg", "/data/\ud800.jpg"]
    tasks = [{"id": 10 + i, "data": {"picture": place}} for i, place in enumerate(places)]
    tasks[1]["id"] = "11\nfcos: stopped"
    message = {"tasks": tasks, "label_config": CONFIG}
    with serving(label_studio=studio, limits=Limits(images=3)) as (address, _):
        status, _, body = ask(address, "/predict", json.dumps(message).encode(), content_type="application/json")
    assert status == 200
    rows = json.loads(body)["results"]
    assert ["result" in row for row in rows] == [True, False, False, True, True, True, True, False, True, False]
    assert rows[0]["result"]
    assert all(row == rows[0] for row in rows if "result" in row)
    assert "404" in rows[1]["error"]
    assert "task 11\\nfcos: stopped: " in caplog.text  # one line, whatever a task is called


def test_a_key_that_is_refused_is_one_line(studio, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "a.b.wrong")
    message = {"tasks": [{"data": {"picture": "/data/upload/1/cat.jpg"}}], "label_config": CONFIG}
    with serving(label_studio=studio) as (address, _):
        status, _, body = ask(address, "/predict", json.dumps(message).encode(), content_type="application/json")
    assert status == 400
    assert "401" in json.loads(body)["error"]


@pytest.mark.parametrize(
    ("place", "status"),
    [
        ("http://127.0.0.1:1/data/cat.jpg", 403),
        ("https://example.org/cat.jpg", 403),
        ("//example.org/cat.jpg", 403),
        ("/data/upload/1/other.jpg", 400),
        ("file:///etc/passwd", 403),
        ("data:image/png;base64,???", 400),
        (7, 400),
    ],
)
def test_images_come_from_the_label_studio_that_was_named(studio, place, status):
    tags = Tags("boxes", "photo", "picture", {})
    with pytest.raises(Refused) as refused:
        image_of({"data": {"picture": place}}, tags, Studio(studio, "k3y"), Limits())
    assert refused.value.status == status


@pytest.mark.parametrize(
    "text", ["", "<View/>", "<View>", CONFIG.replace("photo", "x", 1), '<!DOCTYPE a [<!ENTITY b "c">]><View/>']
)
def test_another_configuration_is_refused(text):
    with pytest.raises(Refused):
        parse_config(text)


def test_without_the_option_there_is_no_setup():
    with serving() as (address, _):
        assert ask(address, "/setup", b"{}", content_type="application/json")[0] in (404, 405)
