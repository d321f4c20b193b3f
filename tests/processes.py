"""Real processes for tests: forked from one that has imported everything, killed and signalled for real."""

import io
import multiprocessing
import os
import pkgutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

if os.name != "posix":
    pytest.skip("processes are forked and signalled as Unix does it", allow_module_level=True)
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "processes",
        "fcos.training.loop",
        "fcos.cli.train",
        "fcos.data.splits",
        "timm",
        "lightning_fabric",
        "hotcoco",
        "rich.progress",
    ]
)


def start(work, log: Path, env=None, cwd: Path | None = None):
    """`work()` in a process of its own, as leader of a process group; its output goes to the file `log`."""
    process = CONTEXT.Process(target=_run, args=(work, str(log), dict(env or {}), cwd), daemon=False)
    process.start()
    return process


def finish(process, timeout: float = 900.0) -> int:
    """Exit status, negative for a signal."""
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError("the process does not end")
    return process.exitcode


def run(work, log: Path, env=None, cwd: Path | None = None) -> int:
    return finish(start(work, log, env, cwd))


def _run(work, log, env, cwd):
    import torch

    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(n, "wb", 0), write_through=True) for n in (1, 2))
    os.setpgid(0, 0)
    os.environ.update(env)
    if cwd is not None:
        os.chdir(cwd)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.set_start_method("fork", force=True)  # of loader processes, as in a program
    torch.set_num_threads(1)
    work()


def fcos(arguments, *prepare):
    """A picklable call of the command line, after the `prepare` steps."""
    return partial(_fcos, [str(a) for a in arguments], prepare)


def _fcos(arguments, prepare):
    from fcos.cli import main

    for step in prepare:
        step()
    main(arguments)


def at(where: str, call: int, number: int = signal.SIGKILL, after: bool = False):
    """The whole process group gets signal `number` just before (or after) the call-th call of `module:function`."""
    return partial(_at, where, call, number, after)


def _at(where, call, number, after):
    holder, name, real = _resolve(where)
    calls = []

    def replacement(*arguments, **named):
        calls.append(1)
        if len(calls) == call and not after:
            os.killpg(0, number)
        result = real(*arguments, **named)
        if len(calls) == call and after:
            os.killpg(0, number)
        return result

    setattr(holder, name, replacement)


def away(where: str, call: int, folder: Path):
    """`folder` has gone, to FOLDER.away, from the call-th call of `module:function` on."""
    return partial(_away, where, call, folder)


def _away(where, call, folder):
    holder, name, real = _resolve(where)
    calls = []

    def replacement(*arguments, **named):
        calls.append(1)
        if len(calls) == call:
            folder.rename(f"{folder}.away")
        return real(*arguments, **named)

    setattr(holder, name, replacement)


def half_save(call: int):
    """SIGKILL in the middle of the call-th `torch.save`: half of the bytes are on the disk."""
    return partial(_half_save, call)


def _half_save(call):
    import torch

    real, calls = torch.save, []

    def save(state, file):
        calls.append(1)
        if len(calls) < call:
            return real(state, file)
        whole = io.BytesIO()
        real(state, whole)
        file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = save


def half_row(call: int):
    """SIGKILL in the middle of the call-th row of metrics.csv."""
    return partial(_half_row, call)


def _half_row(call):
    from fcos.training.output.folder import RunFolder

    real, calls = RunFolder.record, []

    def record(self, row, *more):
        calls.append(1)
        before = self._metrics.read_bytes()
        real(self, row, *more)
        if len(calls) == call:
            added = self._metrics.read_bytes()[len(before) :]
            self._metrics.write_bytes(before + added[:1])  # the first digit of the step
            os.kill(os.getpid(), signal.SIGKILL)

    RunFolder.record = record


@contextmanager
def small_disk(folder: Path, size: int):
    """`folder` as a disk of `size` bytes; skips the test where nobody may mount one."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def full_disk(call: int, filler: Path):
    """The disk of `filler` is full from the call-th `torch.save` on."""
    return partial(_full_disk, call, filler)


def _full_disk(call, filler):
    import torch

    real, calls = torch.save, []

    def save(state, file):
        calls.append(1)
        if len(calls) == call:
            with open(filler, "wb", buffering=0) as sink:
                try:
                    while sink.write(bytes(4096)):
                        pass
                except OSError:
                    pass
        return real(state, file)

    torch.save = save


def small_files(call: int, limit: int):
    """From the call-th `torch.save` on, the system refuses files of more than `limit` bytes."""
    return partial(_small_files, call, limit)


def _small_files(call, limit):
    import resource

    import torch

    real, calls = torch.save, []

    def save(state, file):
        calls.append(1)
        if len(calls) == call:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        return real(state, file)

    torch.save = save


def _resolve(where):
    module, _, path = where.partition(":")
    holder, name = pkgutil.resolve_name(module), path
    if "." in path:
        owner, _, name = path.rpartition(".")
        holder = pkgutil.resolve_name(f"{module}:{owner}")
    return holder, name, getattr(holder, name)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def as_torchrun(rank: int, world: int, port: int) -> dict[str, str]:
    """What torchrun tells its process `rank` of `world` on one machine."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": "False",
    }  # fmt: skip
