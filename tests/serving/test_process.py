"""`fcos serve` as a process: its start, mistakes on the command line, and its end."""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from tiny import fcos

pytest.importorskip("fastapi", reason="pip install 'fcos-detector[serve]'")

from fcos.files import ASSETS

CAT = (ASSETS / "photos" / "cat.jpg").read_bytes()


@pytest.fixture
def process():
    """(the process, its address) of `fcos serve` on a free port."""
    command = [sys.executable, "-m", "fcos", "serve", "--port", "0", "--runtime", "torch", "--grace", "20"]
    server = subprocess.Popen(
        [*command, "--device", "cpu", "--set", "data.size=192"], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    lines = []
    for line in server.stderr:
        lines.append(line)
        if "ready: " in line:
            break
    else:
        raise AssertionError("".join(lines))
    yield server, line.split("ready: ")[1].split()[0].replace("localhost", "127.0.0.1")
    server.kill()
    server.wait()
    server.stderr.close()


def test_sigterm_lets_what_has_begun_finish(process):
    server, address = process
    statuses = []

    def client():
        with urllib.request.urlopen(urllib.request.Request(f"{address}/predict", CAT), timeout=30) as answer:
            statuses.append((answer.status, len(answer.read())))

    client()
    threads = [threading.Thread(target=client) for _ in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)  # some wait, some compute
    server.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(30)
    assert server.wait(30) in (0, -signal.SIGTERM)
    # requests that came before the signal are answered, those after it find a closed door; none is cut off
    assert all(status == 200 and size > 50 for status, size in statuses)
    assert len(statuses) >= 2
    assert "Traceback" not in server.stderr.read()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--model", "nowhere"), "nowhere"),
        (("--model", "fcos-lite0", "--model", "fcos-lite0"), "two models are called fcos-lite0"),
        (("--port", "x"), "port"),
        (("--runtime", "steam"), "steam"),
        (("--set", "decode.nothing=1"), "nothing"),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, line):
    code, out, err = fcos(capsys, "serve", "--device", "cpu", "--runtime", "torch", *arguments)
    assert (code, out) == (2, "")
    assert line in err
    assert err.count("\n") == 1
