"""What Label Studio asks of a machine-learning backend, by the forms in its documentation."""

import base64
import http.server
import json
import threading

import pytest
from test_serve import CAT, ask, detections, serving

from fcos.serving.label_studio import Studio, Tags, parse_config, picture
from fcos.serving.options import Limits, Refused

CONFIG = """<View><Image name="photo" value="$picture"/>
<RectangleLabels name="boxes" toName="photo"><Label value="Cat"/><Label value="Person" background="red"/>
</RectangleLabels></View>"""


class Files(http.server.BaseHTTPRequestHandler):
    """A Label Studio's files, for who has the key."""

    def do_GET(self):
        good = self.path == "/data/upload/1/cat.jpg" and self.headers["Authorization"] == "Token k3y"
        self.send_response(200 if good else 404)
        self.end_headers()
        self.wfile.write(CAT if good else b"")

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
        picture({"data": {"picture": place}}, tags, Studio(studio, "k3y"), Limits())
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
