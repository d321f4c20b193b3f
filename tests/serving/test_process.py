"""`fcos serve` as a process: its start, mistakes on the command line, and its end."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from tiny import fcos

pytest.importorskip("fastapi", reason="pip install 'fcos-detector[serve]'")

import uvicorn

from fcos.serving.run import Workers
from fcos.system.files import ASSETS

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


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_killed_worker_is_replaced_while_the_other_answers():
    command = [sys.executable, "-m", "fcos", "serve", "--port", "0", "--runtime", "torch", "--workers", "2"]
    server = subprocess.Popen(
        [*command, "--device", "cpu", "--set", "data.size=192"], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        ready = iter_until(server.stderr, "ready: ", 2)
        address = ready[-1].split("ready: ")[1].split()[0].replace("localhost", "127.0.0.1")

        def ask():
            with urllib.request.urlopen(urllib.request.Request(f"{address}/predict", CAT), timeout=60) as answer:
                return answer.status

        def counted():
            with urllib.request.urlopen(f"{address}/metrics", timeout=60) as answer:
                lines = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")
            return float(lines['fcos_images_total{model="fcos-lite0"}'])

        assert [ask() for _ in range(6)] == [200] * 6
        assert counted() == 6  # whichever worker is asked
        os.kill(workers_of(server.pid)[0], signal.SIGKILL)
        assert [ask() for _ in range(4)] == [200] * 4
        iter_until(server.stderr, "ready: ", 1)  # the new one
        assert ask() == 200
        assert [counted() for _ in range(3)] == [11] * 3
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.wait()
        server.stderr.close()


def test_no_connection_is_held_while_the_workers_end(monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # which the parent sets
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        Workers(uvicorn.Config("", workers=2), [listening]).terminate_all()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=10)


def workers_of(parent):
    """The processes that serve; the parent has one more, which only keeps names."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status, line = (folder / "status").read_text(), (folder / "cmdline").read_text()
        except OSError:
            continue
        if f"PPid:\t{parent}\n" in status and "spawn_main" in line:
            found.append(int(folder.name))
    return found


def iter_until(stream, part, times):
    """The lines up to that in which `part` stands for the last of so many times."""
    lines = []
    for line in stream:
        lines.append(line)
        times -= part in line
        if not times:
            return lines
    raise AssertionError("".join(lines))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--model", "nowhere"), "nowhere"),
        (("--model", "fcos-lite0", "--model", "fcos-lite0"), "two models are called fcos-lite0"),
        (("--port", "x"), "port"),
        (("--runtime", "steam"), "steam"),
        (("--set", "decode.nothing=1"), "nothing"),
        (("--allow-url", "https://example.org"), "--allow-url https://example.org: give a host alone"),
        (("--allow-url", "example.org:8080"), "such as example.org"),
        (("--allow-url", ""), "such as example.org"),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, line):
    code, out, err = fcos(capsys, "serve", "--device", "cpu", "--runtime", "torch", *arguments)
    assert (code, out) == (2, "")
    assert line in err
    assert err.count("\n") == 1


def test_the_numbers_of_several_workers_are_added(tmp_path):
    """Each process counts for itself; any of them tells the sum. Only a queue ends with its process."""
    work = """
import sys
from fcos.serving.metrics import Metrics
metrics = Metrics()
metrics.images.labels("a").inc(float(sys.argv[1]))
metrics.queue.labels("a").set(float(sys.argv[1]))
metrics.seconds.labels("network").observe(0.3)
print(metrics.text().decode())
"""
    told = ""
    for count in ("3", "4"):
        env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
        told = subprocess.run(
            [sys.executable, "-c", work, count], env=env, check=True, capture_output=True, text=True
        ).stdout
    lines = dict(line.rsplit(" ", 1) for line in told.split("\n") if line and line[0] != "#")
    assert float(lines['fcos_images_total{model="a"}']) == 7
    assert float(lines['fcos_seconds_count{part="network"}']) == 2
    assert float(lines['fcos_queue_images{model="a"}']) == 4
