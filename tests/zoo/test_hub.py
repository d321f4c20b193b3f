"""hf:// names against a local stand-in of the Hub that speaks its protocol."""

import base64
import builtins
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from tiny import NAMES, tiny_config

from fcos.cli import main
from fcos.errors import MissingExtra, ModelError
from fcos.network import weights
from fcos.types import Classes
from fcos.zoo import hub
from fcos.zoo.find import find_weights, load_network

constants = pytest.importorskip("huggingface_hub.constants")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, body, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        files, address = self.server.files, f"http://127.0.0.1:{self.server.server_address[1]}"
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command == "POST" and self.headers.get("Authorization") != "Bearer hf_right":
            return self.send(401, {"error": "Invalid credentials"})
        if self.path == "/api/validate-yaml":
            return self.send(200, {"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            return self.send(200, {"url": f"{address}/me/shapes", "id": "me/shapes"})
        if "/preupload/" in self.path:
            wanted = json.loads(body)["files"]
            answer = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in wanted]
            return self.send(200, {"files": answer})
        if "/commit/" in self.path:
            self.server.commits += 1
            for row in map(json.loads, body.splitlines()):
                if row["key"] == "file":
                    files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            return self.send(
                200, {"commitOid": "a" * 40, "commitUrl": f"{address}/me/shapes/commit/{'a' * 40}", "success": True}
            )
        match = re.match(r"/me/shapes/resolve/(main|v1|a{40})/(.+)", self.path)
        if match and match[2] in files:
            content = files[match[2]]
            tag = f'"{hashlib.sha1(content).hexdigest()}"'
            return self.send(200, content, X_Repo_Commit="a" * 40, ETag=tag)
        if self.path.startswith("/me/shapes/resolve"):
            return self.send(404, {}, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
        if self.path.startswith("/api/models/me/shapes"):
            return self.send(200, {"id": "me/shapes", "sha": "a" * 40, "siblings": []})
        return self.send(404, {}, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")

    do_POST = do_HEAD = do_GET


@pytest.fixture
def server(tmp_path, monkeypatch):
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.files, running.created, running.commits = {}, [], 0
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    address = f"http://127.0.0.1:{running.server_address[1]}"
    # as a start with this HF_ENDPOINT would have them
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def model(tmp_path):
    config = tiny_config()
    torch.manual_seed(0)
    state = weights.build(config, 2).state_dict()
    about = {"AP": 0.25, "judged_on": "shapes val, 4 images", "licence": "Apache-2.0"}
    weights.save(tmp_path / "run" / "last.safetensors", state, config, Classes(NAMES, (2, 7)), about=about)
    return tmp_path / "run"


def failed(capsys, *arguments) -> str:
    """The one line of a command that ends with code 2."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    assert stop.value.code == 2
    err = capsys.readouterr().err.strip()
    assert "Traceback" not in err
    return err.splitlines()[-1]


def equal(network, path) -> bool:
    stored = weights.read(path)[0]
    return all(torch.equal(v, stored[k]) for k, v in network.state_dict().items())


def test_push_and_load_again(server, model, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["models", "push", str(model), "hf://me/shapes", "--private"])
    assert capsys.readouterr().out.strip().endswith("/me/shapes")
    assert server.commits == 1
    assert server.created[0]["name"] == "shapes"
    assert "private" in json.dumps(server.created[0])
    assert set(server.files) == {"model.safetensors", "config.json", "README.md"}
    described = json.loads(server.files["config.json"])
    assert described["classes"] == {"names": list(NAMES), "ids": [2, 7]}
    assert described["config"]["model"]["backbone"] == "test_resnet"
    readme = server.files["README.md"].decode()
    assert readme.startswith("---\nlibrary_name: fcos\npipeline_tag: object-detection\nlicense: apache-2.0\n")
    for word in ("# hf://me/shapes", "disc, square", "0.250", "shapes val, 4 images"):
        assert word in readme
    for name in ("hf://me/shapes", "hf://me/shapes@v1"):
        network, _, classes = load_network(name)
        assert classes == Classes(NAMES, (2, 7))
        assert equal(network, model / "last.safetensors")


def test_from_the_cache_without_the_server(server, model, monkeypatch):
    hub.push(model / "last.safetensors", "hf://me/shapes", "a card", half=True)
    assert len(server.files["model.safetensors"]) < 0.6 * (model / "last.safetensors").stat().st_size
    first = find_weights("hf://me/shapes")
    server.files.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_weights("hf://me/shapes") == first
    with pytest.raises(ModelError, match="cannot be reached and is not in the local cache"):
        find_weights("hf://me/other")


def test_what_goes_wrong_is_one_line(server, model, capsys, monkeypatch):
    assert "hf://owner/name" in failed(capsys, "models", "push", model, "me/shapes")
    assert "there is no hf://me/none" in failed(capsys, "models", "download", "hf://me/none")
    assert "holds no model.safetensors" in failed(capsys, "models", "download", "hf://me/shapes")
    assert "none.md" in failed(capsys, "models", "push", model, "hf://me/shapes", "--card", model / "none.md")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "hf auth login" in failed(capsys, "models", "push", model, "hf://me/shapes")
    assert not server.files


def test_without_the_extra_the_error_is_the_install_line(monkeypatch, model):
    real = builtins.__import__

    def missing(name, *rest, **options):
        if name.startswith("huggingface_hub"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *rest, **options)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(MissingExtra, match=r"pip install .*\[hub\]"):
        find_weights("hf://me/shapes")
    with pytest.raises(MissingExtra, match=r"pip install .*\[hub\]"):
        hub.push(model / "last.safetensors", "hf://me/shapes", "a card")


def test_a_network_that_is_not_there_is_told_of_in_one_line(server, monkeypatch, capfd):
    """Its client tries again and again, and tells of each."""
    closed = "http://127.0.0.1:9"
    monkeypatch.setattr(constants, "ENDPOINT", closed)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", closed + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(ModelError, match="cannot be reached"):
        hub.download("hf://me/shapes")
    told = capfd.readouterr().err.splitlines()
    assert len(told) <= 1
    assert all(line.startswith("fcos: trying again for up to a minute") for line in told)
