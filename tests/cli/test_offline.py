"""The verbs work with the network cut, and none tries to reach it."""

import os
import shutil
import socket
import subprocess
import sys

import pytest
from tiny import fcos, learn, make_shapes, tiny_config

from fcos.data.open import open_splits
from fcos.system.files import ASSETS


@pytest.fixture(autouse=True)
def cut(monkeypatch):
    """Every address but this machine's own is unreachable; returned is what was tried."""
    tried = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def at_home(host):
        return host in (None, "", "localhost", "127.0.0.1", "::1", b"localhost")

    def no_connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not at_home(address[0]):
            tried.append(address)
            raise OSError(101, "Network is unreachable")
        return connect(self, address)

    def no_name(host, *rest, **named):
        if not at_home(host):
            tried.append(host)
            raise socket.gaierror(-2, "Name or service not known")
        return look_up(host, *rest, **named)

    monkeypatch.setattr(socket.socket, "connect", no_connect)
    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    return tried


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("offline")
    data = make_shapes(folder / "shapes", {"train": 6, "val": 3})
    config = tiny_config(model={"backbone_norm": "batch"})
    learn(config, {"train": open_splits(data)["train"]}, folder / "run")
    shutil.copy(ASSETS / "photos" / "cat.jpg", folder / "photo.jpg")
    return folder


VERBS = {
    "predict": "predict photo.jpg --out found",
    "predict, a run": "predict photo.jpg --model run --json",
    "eval": "eval shapes --model run",
    "explain": "explain photo.jpg --model run --out why",
    "doctor": "doctor shapes --out page.html",
    "data": "data info shapes",
    "convert": "data convert shapes copy --to yolo",
    "models": "models",
    "info": "info fcos-lite0",
    "config": "config fcos-lite0",
    "train": "train shapes --out again --model fcos-lite0 --epochs 1 data.size=64 data.train_sizes=[] data.workers=0",
    "export": "export --model run --format onnx --out model.onnx --size 64",
}


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_need_no_network(verb, work, capsys, monkeypatch, cut):
    monkeypatch.chdir(work)
    words = VERBS[verb].split()
    code, _, err = fcos(capsys, *words)
    assert code == 0, err
    assert not cut, f"{verb} tried to reach {cut}"


def test_what_needs_the_network_says_so(capsys, work, monkeypatch, cut, tmp_path):
    monkeypatch.chdir(work)
    monkeypatch.setenv("FCOS_CACHE", str(tmp_path / "empty"))
    code, _, err = fcos(capsys, "predict", "photo.jpg", "--model", "torchvision/fcos-r50-coco")
    assert code == 2
    assert len(err.strip().splitlines()) == 1, err
    assert cut


@pytest.mark.parametrize("module", ["onnxruntime", "openvino", "nncf"])
def test_runtimes_do_not_report_to_their_makers(module, tmp_path):
    """They leave an identifier and a list of events in the home folder where they do."""
    pytest.importorskip(module)
    work = f"""
import sys, time
from fcos.errors import require
require("{module}", "onnx")
time.sleep(0.3)
assert sys.modules.get("openvino_telemetry") is None
"""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "ORT_", "CI"))}
    subprocess.run([sys.executable, "-c", work], env={**kept, "HOME": str(tmp_path)}, check=True)
    left = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert not [p for p in left if "Microsoft" in p.parts or "intel" in str(p).lower()], left
