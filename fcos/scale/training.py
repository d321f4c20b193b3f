"""`fcos train --engine ray`: the processes of a run are workers of Ray Train, which starts all of them again when one
is lost; the run goes on from its newest checkpoint.

Ray places the workers and joins them into a group of processes. Inside, a worker looks to the run as if torchrun had
started it (its variables, its count of restarts), so a run knows of no third way. What a worker says, and what the run
comes to, passes through a board, a small actor of Ray; so does Ctrl-C, the other way.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO, cast

import torch.distributed as dist

from ..errors import DeviceError, FcosError, LostProcess, OtherProcess, require
from ..system.door import at_command_line
from ..system.machine import pick_device
from ..system.remote import url_of
from ..system.stderr import say
from ..system.stop import StopSignals, go_on
from ..training.distributed import RAY, gather
from ..training.output.folder import holds_run, taken
from ..training.program import train
from ..training.run import Result
from .cluster import connected, reason
from .engine import Engine

_LOOK = 0.5  # seconds between two looks at the board


@dataclass(frozen=True)
class Cluster:
    """Where Ray is and what a run gets of it. address: of a running Ray, auto to find it, None to start one here.
    workers: processes, with a GPU each or `threads` cores. restarts: how often all may be started again after one was
    lost."""

    address: str | None = None
    workers: int = 1
    threads: int = 1
    restarts: int = 3


@dataclass(frozen=True)
class _Failed:
    """The FcosError of a worker: its line and details, its exit code, and whether it only tells of another's."""

    line: str
    details: str
    code: int
    told: bool

    def error(self) -> FcosError:
        error = FcosError(self.line, self.details.splitlines())
        error.code = self.code
        return error


class _Board:
    """What the program and its workers leave for each other; an actor of Ray."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.number = 0
        self.ends: dict[int, Result | _Failed] = {}

    def say(self, text: str) -> None:
        self.text.append(text)

    def heard(self) -> str:
        """What was said since the last call."""
        text, self.text = "".join(self.text), []
        return text

    def ask(self, number: int) -> None:
        """Pass on a signal."""
        self.number = number

    def asked(self) -> int:
        return self.number

    def end(self, rank: int, what: Result | _Failed) -> None:
        self.ends[rank] = what

    def ended(self) -> dict[int, Result | _Failed]:
        return self.ends


class _Voice:
    """The stderr of the first worker: what is written there is said on the board."""

    def __init__(self, board: Any) -> None:
        self.board = board

    def write(self, text: str) -> int:
        self.board.say.remote(text)
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


def train_on_ray(data: Any = None, *, out: str | Path, cluster: Cluster | None = None, **options: Any) -> Result:
    """`fcos.train(data, out=out, **options)` in workers of Ray; when one is lost, all begin again where the newest
    checkpoint in `out` stands. Returns what `fcos.train` does.

    `out` and `data` are where every machine finds them: a shared folder or URLs. Paths are as seen from the folder that
    this process stands in, which the workers enter too. Ctrl-C ends the run as that of `fcos train`: after a step, with
    a checkpoint. Raises FcosError as `fcos.train`; MissingExtra without Ray; DeviceError where the cluster has less
    than `cluster` asks for.
    """
    cluster = cluster or Cluster()
    if cluster.workers < 1 or cluster.threads < 1 or cluster.restarts < 0:
        raise FcosError(f"{cluster}: give 1 worker and 1 thread or more, and no fewer than 0 restarts")
    if options.get("minutes") is not None:
        raise FcosError("minutes are planned for one process; leave out --engine ray, or give train.epochs")
    if not options.get("resume") and holds_run(Path(out)):
        raise taken(url_of(out))
    engine = Engine("ray", cluster.address, cpus=cluster.workers * cluster.threads, threads=cluster.threads)
    os.environ |= {"RAY_TRAIN_V2_ENABLED": "1", "RAY_TRAIN_ENABLE_PRINT_PATCH": "0"}  # each line once
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "600")  # of 60 importing torch may take more
    with connected(engine) as ray:
        device = _device(ray, cluster, options.pop("device", "auto"))
        board = ray.remote(num_cpus=0)(_Board).remote()
        job = _Job(board, data, {**options, "out": out, "device": device}, os.getcwd(), sys.argv)
        ended = _fit(ray, cluster, job)
    first = ended.get(0)
    for failed in sorted((end for end in ended.values() if isinstance(end, _Failed)), key=lambda end: end.told):
        raise failed.error()
    if not isinstance(first, Result):
        raise FcosError(f"the run ended without a word; {go_on(out, '--engine', 'ray')}")
    return first


def _device(ray: ModuleType, cluster: Cluster, asked: str) -> str:
    """cuda or cpu, as asked for or as the cluster has it; DeviceError where it has less."""
    there = ray.cluster_resources()
    gpus, cores = int(there.get("GPU", 0)), int(there.get("CPU", 0))
    kind = asked
    if asked == "auto":
        kind = "cuda" if gpus and (cluster.address or pick_device("auto").type == "cuda") else "cpu"
    if kind not in ("cpu", "cuda"):
        raise DeviceError(f"--device {asked}: with --engine ray give auto, cuda or cpu; Ray picks the GPUs")
    if kind == "cuda" and gpus < cluster.workers:
        raise DeviceError(f"{cluster.workers} workers on GPUs: this Ray has {gpus}; give fewer --devices")
    if cores < cluster.workers * cluster.threads:
        raise DeviceError(
            f"{cluster.workers} workers of {cluster.threads} cores: this Ray has {cores}; give fewer --devices"
        )
    return kind


@dataclass(frozen=True)
class _Job:
    """What travels to the workers: the board, the words of `train`, the folder that the program stands in, and its
    command line, which the run folder keeps."""

    board: Any
    data: Any
    options: dict[str, Any]
    folder: str
    command: list[str]


def _fit(ray: ModuleType, cluster: Cluster, job: _Job) -> dict[int, Result | _Failed]:
    """Let Ray Train run the job, show what is said, pass signals on; what each worker came to."""
    frame = require("ray.train", "ray")
    torch = require("ray.train.torch", "ray")
    gpus = int(job.options["device"] == "cuda")
    failed: list[BaseException] = []
    with tempfile.TemporaryDirectory(prefix="fcos-") as notes:  # Ray's own; nothing is reported to it
        trainer = torch.TorchTrainer(
            _work,
            train_loop_config={"job": job},
            scaling_config=frame.ScalingConfig(
                num_workers=cluster.workers,
                use_gpu=gpus > 0,
                resources_per_worker={"CPU": cluster.threads} | ({"GPU": gpus} if gpus else {}),
            ),
            run_config=frame.RunConfig(
                name="run", storage_path=notes, failure_config=frame.FailureConfig(max_failures=cluster.restarts)
            ),
        )

        def fit() -> None:
            try:
                trainer.fit()
            except BaseException as error:
                failed.append(error)

        # beside this thread, which takes the signals: Ray's own way with Ctrl-C kills the workers
        beside = threading.Thread(target=fit, daemon=True)
        beside.start()
        with StopSignals() as signals:
            passed = False
            while beside.is_alive():
                beside.join(_LOOK)
                sys.stderr.write(ray.get(job.board.heard.remote()))
                if signals.number and not passed:
                    passed = True
                    ray.get(job.board.ask.remote(signals.number))
        ended: dict[int, Result | _Failed] = ray.get(job.board.ended.remote())
        sys.stderr.write(ray.get(job.board.heard.remote()))
    if failed and not ended:
        if not type(failed[0]).__module__.startswith("ray."):
            raise failed[0]
        raise FcosError(
            f"workers were lost more often than --max-restarts {cluster.restarts} allows; the last time: "
            f"{reason(failed[0])}; {go_on(job.options['out'], '--engine', 'ray')}"
        ) from failed[0]
    return ended


# --------------------------------------------------------------------------- in a worker


def _work(given: dict[str, Any]) -> None:
    """What each worker runs, at every attempt."""
    job: _Job = given["job"]
    ray = require("ray", "ray")
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        with _listening(ray, job.board, rank), at_command_line():
            _enter(job.folder)
            sys.argv = job.command
            result = train(job.data, **_as_torchrun_would(job.options, rank, world))
            if rank == 0:
                ray.get(job.board.end.remote(rank, result))
    except LostProcess:
        if not ray.get(job.board.ended.remote()):  # else it left because of a mistake, which is told
            raise
    except FcosError as error:  # another attempt would not help
        failed = _Failed(str(error), error.details, error.code, isinstance(error, OtherProcess))
        ray.get(job.board.end.remote(rank, failed))
        if dist.is_initialized() and world > 1:
            dist.destroy_process_group()  # so that the others do not wait for this one


def _as_torchrun_would(options: dict[str, Any], rank: int, world: int) -> dict[str, Any]:
    """Set the variables of torchrun that Ray Train does not, and say whether an attempt was before this one."""
    again = gather(rank == 0 and holds_run(Path(options["out"])), world)[0]
    os.environ["TORCHELASTIC_RUN_ID"] = RAY
    os.environ["GROUP_RANK"] = os.environ["NODE_RANK"]
    os.environ["TORCHELASTIC_RESTART_COUNT"] = str(int(again))
    if again and not options.get("resume") and rank == 0:
        say(f"a worker was lost; all go on from the newest checkpoint in {options['out']}")
    return options


def _enter(folder: str) -> None:
    try:
        os.chdir(folder)
    except OSError:
        raise FcosError(
            f"{socket.gethostname()} has no folder {folder}; start the run from one that all machines have"
        ) from None


@contextmanager
def _listening(ray: ModuleType, board: Any, rank: int) -> Iterator[None]:
    """Inside, the first worker is heard by the program, and hears of its signals."""
    if rank:
        yield
        return
    over = threading.Event()

    def hear() -> None:
        while not over.wait(_LOOK):
            if number := ray.get(board.asked.remote()):
                StopSignals.ask_all(number)

    before, sys.stderr = sys.stderr, cast(TextIO, _Voice(board))
    threading.Thread(target=hear, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        sys.stderr = before
