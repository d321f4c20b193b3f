"""A lock keeps other processes out, and is free again when its process ends, however it ends."""

import errno
import subprocess
import sys

import pytest

from fcos.system.locks import Lock

HOLD = """
import sys
from pathlib import Path
from fcos.system.locks import Lock
lock = Lock(Path(sys.argv[1]))
print(lock.take(), flush=True)
sys.stdin.read()
"""


def test_a_lock_is_free_once_its_process_is_killed(tmp_path):
    lock = Lock(tmp_path / "not" / "there" / "a.lock")
    program = [sys.executable, "-c", HOLD, lock.file]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"True\n"
        assert not lock.take()
        assert not lock.take(0.1)
        other.kill()
        assert lock.take(60)
    lock.remove()
    assert not lock.file.exists()
    with lock:
        assert lock.file.exists()


def test_a_file_system_without_locks_is_an_error_of_the_system(tmp_path, monkeypatch):
    def refused(_, **__):
        raise NotImplementedError("no flock here")

    monkeypatch.setattr("fcos.system.locks.FileLock.acquire", refused)
    with pytest.raises(OSError, match="lock") as told:
        Lock(tmp_path / "a.lock").take()
    assert told.value.errno == errno.ENOLCK
