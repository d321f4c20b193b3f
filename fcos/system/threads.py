"""The cores that this process may use, and the threads that torch computes with."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from ..errors import ModelError
from .cgroups import groups, time_in

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
MOST_THREADS = 512  # of one process: where the system has no room for them, libgomp ends it


def cpu_cores(root: Path = Path("/")) -> int:
    """The cores that this process may use, or as many as it gets the time of, rounded up, where it is in a container or
    a job with less. root: of the file system that tells."""
    return max(1, math.ceil(min([_given(), *map(time_in, groups(root, "cpu"))])))


def limited_threads() -> int:
    """The threads that torch and others should have where they would take all cores of a machine of which this process
    gets the time of some; 0: as they choose, as on most machines, and where a person's OMP_NUM_THREADS says."""
    if os.environ.get("OMP_NUM_THREADS", _Limit.told) != _Limit.told:
        return 0
    cores = cpu_cores()
    return cores if cores < _given() else 0


class _Limit:
    """told: OMP_NUM_THREADS as `limit_threads` has set it."""

    told = ""


def limit_threads() -> None:
    """Before torch is imported: let it have `limited_threads`."""
    if threads := limited_threads():
        _Limit.told = os.environ["OMP_NUM_THREADS"] = str(threads)


def _given() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_threads(number: int) -> None:
    """ModelError for a number of CPU threads that the system may have no room for; 0 is all cores."""
    if not 0 <= number <= MOST_THREADS:
        raise ModelError(f"{number} threads cannot be; give 0 to {MOST_THREADS}, 0 for all cores")


class _Pool:
    """torch's threads in this process. used: whether it computed with several; lost: whether that was in the process
    that this one was forked of, whose threads it lacks and would wait for without end."""

    used = lost = False


def _forked() -> None:
    _Pool.lost = _Pool.lost or _Pool.used
    if _Pool.lost and "torch" in sys.modules:  # for whatever this process does with torch, such as loading a model
        sys.modules["torch"].set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """torch computes with `number` threads inside, 0: as before, and with those of before afterwards; with one where
    this process was forked after others were used.

    torch counts them for each thread, and a new thread begins with the number that any thread set last."""
    import torch

    before = torch.get_num_threads()
    number = 1 if _Pool.lost else number
    _Pool.used = _Pool.used or (number or before) > 1
    if number not in (0, before):  # setting it costs a pool of threads even where nothing changes
        torch.set_num_threads(number)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


@contextmanager
def usual_torch() -> Iterator[None]:
    """torch as building a network and training need it, whatever the caller has set: gradients, numbers of 32 bits,
    tensors on the CPU unless said otherwise. Afterwards all is as the caller had it, what `train.deterministic` has set
    too."""
    import torch

    dtype, cpu = torch.get_default_dtype(), torch.device("cpu")
    strict, cublas = torch.get_deterministic_debug_mode(), os.environ.get(CUBLAS)
    torch.set_default_dtype(torch.float32)
    try:
        threads = min(limited_threads(), torch.get_num_threads())  # a caller may have set fewer
        # each call of torch costs more where a device is set
        here = cpu if torch.get_default_device() != cpu else nullcontext()
        with here, torch.inference_mode(False), torch.enable_grad(), torch_threads(threads):
            yield
    finally:
        torch.set_default_dtype(dtype)
        if torch.get_deterministic_debug_mode() != strict:
            torch.set_deterministic_debug_mode(strict)
            os.environ.pop(CUBLAS, None)
            os.environ.update({} if cublas is None else {CUBLAS: cublas})


@contextmanager
def own_random_numbers() -> Iterator[None]:
    """torch's random numbers go on afterwards as if nothing had been drawn or seeded inside."""
    import torch

    with torch.random.fork_rng(range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()):
        yield
