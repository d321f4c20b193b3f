"""Downloads against a local server that breaks, lies and forgets."""

import hashlib
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fileserver import FileServer

from fcos.errors import FcosError, ModelError
from fcos.system.machine import cache_folder
from fcos.zoo import download
from fcos.zoo.download import Remote, fetch

CONTENT = np.random.default_rng(0).bytes(700_000)  # more than one chunk
HASH = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    with FileServer(CONTENT) as running:
        yield running


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FCOS_CACHE", str(tmp_path / "a cache ü"))
    monkeypatch.delenv("FCOS_MIRROR", raising=False)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    return tmp_path / "a cache ü"


def remote(server, digits=64, name="model-ab.pth"):
    return Remote(f"{server.url}/models/{name}", HASH[:digits], len(CONTENT))


def left(cache: Path) -> set[str]:
    """Names in the cache, without the lock."""
    return {p.name for p in cache.iterdir() if p.suffix != ".lock"} if cache.is_dir() else set()


@pytest.mark.parametrize("digits", [64, 8])
def test_once_and_never_again(server, cache, digits):
    path = fetch(remote(server, digits))
    assert path == cache / "model-ab.pth"
    assert path.read_bytes() == CONTENT
    assert fetch(remote(server, digits)) == path
    assert server.requests == [None]
    assert left(cache) == {"model-ab.pth"}


def test_a_broken_transfer_goes_on_where_it_stopped(server, cache):
    server.cut = [300_000, 50_000]
    assert fetch(remote(server)).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-", "bytes=350000-"]
    assert server.served == len(CONTENT)  # nothing came twice


def test_a_transfer_that_breaks_often_and_comes_further_each_time_ends_well(server, cache):
    server.cut = [60_000] * (2 * download.TRIES)
    assert fetch(remote(server)).read_bytes() == CONTENT
    assert server.served == len(CONTENT)


def test_half_a_file_of_an_earlier_call_is_resumed(server, cache):
    server.cut = [400_000, *[0] * download.TRIES]
    with pytest.raises(ModelError, match="400000 of 700000 bytes"):
        fetch(remote(server))
    assert left(cache) == {"model-ab.pth.part"}
    server.cut = []
    server.requests.clear()
    assert fetch(remote(server)).read_bytes() == CONTENT
    assert server.requests == ["bytes=400000-"]


def test_a_whole_part_needs_nothing_more(server, cache):
    cache.mkdir()
    (cache / "model-ab.pth.part").write_bytes(CONTENT)
    assert fetch(remote(server)).read_bytes() == CONTENT
    assert server.served == 0


@pytest.mark.parametrize("junk", [CONTENT[:9] + b"other", b"x" * (len(CONTENT) + 5)])
def test_a_part_of_another_file_is_thrown_away(server, cache, junk):
    cache.mkdir()
    (cache / "model-ab.pth.part").write_bytes(junk)
    assert fetch(remote(server)).read_bytes() == CONTENT
    assert left(cache) == {"model-ab.pth"}


def test_a_server_that_ignores_range(server, cache):
    server.ranges = False
    server.cut = [300_000]
    assert fetch(remote(server)).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-"]
    assert server.served == 300_000 + len(CONTENT)


def test_a_server_that_always_breaks_ends(server, cache):
    server.ranges = False
    server.cut = [1000] * 50
    with pytest.raises(ModelError, match="1000 of 700000"):
        fetch(remote(server))
    assert len(server.requests) == download.TRIES


def test_wrong_checksum_keeps_nothing(server, cache):
    wrong = Remote(f"{server.url}/x.pth", "0" * 64, 1)
    with pytest.raises(ModelError, match=f"not the file expected: its SHA-256 is {HASH[:16]}"):
        fetch(wrong)
    assert left(cache) == set()


def test_a_damaged_file_in_the_cache_is_replaced(server, cache, capsys):
    cache.mkdir()
    (cache / "model-ab.pth").write_bytes(b"half")
    assert fetch(remote(server)).read_bytes() == CONTENT
    assert "damaged" in capsys.readouterr().err


def test_not_found_is_final(server, cache):
    server.status = [404]
    with pytest.raises(ModelError, match="HTTP 404") as error:
        fetch(remote(server))
    assert str(cache / "model-ab.pth") in str(error.value)
    assert "\n" not in str(error.value)
    assert len(server.requests) == 1


def test_a_busy_server_is_asked_again(server, cache):
    server.status = [503, 429]
    assert fetch(remote(server)).read_bytes() == CONTENT


def test_without_a_network_the_error_says_where_the_file_goes(cache):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    for host in (f"http://127.0.0.1:{port}", "http://no-such-host.invalid"):
        with pytest.raises(ModelError) as error:
            fetch(Remote(f"{host}/model-ab.pth", HASH, 1))
        for word in (f"{host}/model-ab.pth", str(cache / "model-ab.pth"), "FCOS_MIRROR"):
            assert word in str(error.value)
    assert time.monotonic() - began < 5
    # and a file put there is used
    (cache / "model-ab.pth").write_bytes(CONTENT)
    assert fetch(Remote(f"{host}/model-ab.pth", HASH, 1)).read_bytes() == CONTENT


def test_mirror(server, cache, monkeypatch):
    monkeypatch.setenv("FCOS_MIRROR", f"{server.url}/copy/")
    assert fetch(Remote("https://host.invalid/a/model-ab.pth", HASH[:8], 1)).read_bytes() == CONTENT
    monkeypatch.setenv("FCOS_MIRROR", "not an address")
    with pytest.raises(ModelError, match="FCOS_MIRROR"):
        fetch(Remote("https://host.invalid/a/other.pth", HASH[:8], 1))


def test_a_folder_that_cannot_be_written(server, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FCOS_CACHE", str(tmp_path / "file"))
    with pytest.raises(FcosError, match="FCOS_CACHE"):
        fetch(remote(server))


def test_two_processes_at_once_download_once(server, cache):
    server.wait = threading.Event()
    code = (
        "import sys; from fcos.zoo.download import Remote, fetch;"
        "print(fetch(Remote(sys.argv[1], sys.argv[2], 1)).stat().st_size)"
    )
    command = [sys.executable, "-c", code, remote(server).url, HASH]
    logs = [cache.parent / "first", cache.parent / "second"]
    processes = []
    for log in logs:
        with log.open("w") as file:
            processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True))
    end = time.monotonic() + 30
    while time.monotonic() < end and not any("waiting for it" in log.read_text() for log in logs):
        time.sleep(0.02)
    server.wait.set()
    for process in processes:
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        assert out.strip() == str(len(CONTENT))
    assert sorted("waiting for it" in log.read_text() for log in logs) == [False, True]
    assert server.requests == [None]
    assert server.served == len(CONTENT)


def test_a_killed_process_leaves_no_lock_and_its_bytes(server, cache):
    server.cut = [500_000]
    code = (
        "import sys, os; from fcos.zoo import download;"
        "download.time.sleep = lambda _: os.kill(os.getpid(), 9);"  # dies in the pause after the break
        "download.fetch(download.Remote(sys.argv[1], sys.argv[2], 1))"
    )
    done = subprocess.run([sys.executable, "-c", code, remote(server).url, HASH], capture_output=True, timeout=30)
    assert done.returncode == -9
    assert left(cache) == {"model-ab.pth.part"}
    assert fetch(remote(server)).read_bytes() == CONTENT
    assert server.served == len(CONTENT)


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("FCOS_CACHE", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "fcos"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "fcos"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "fcos"
    monkeypatch.setenv("FCOS_CACHE", "~/elsewhere")
    assert cache_folder() == Path.home() / "elsewhere"


def test_a_bar_where_there_is_a_terminal(server, cache, monkeypatch):
    class Terminal:
        def __init__(self):
            self.text = ""

        def isatty(self):
            return True

        def write(self, text):
            self.text += text
            return len(text)

        def flush(self):
            pass

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fetch(remote(server))
    assert "model-ab.pth" in terminal.text
    assert "0.7 of 0.7 MB" in terminal.text
