"""Fair times: ways that take turns, the products that stand for a machine's peak, and what stands under a figure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ..system.environment import environment

_SIDE = 1024  # of the matrices whose product stands for the machine's peak
_PAUSE = 0.02  # seconds

Product = tuple[Callable[[], Any], float]  # something to run, and its GFLOP


def alternate(
    ways: Mapping[Any, Callable[[], Any]], rounds: int, warm: int = 1, clock: Callable[[], float] = time.perf_counter
) -> dict[Any, list[float]]:
    """Seconds of each way in `rounds` rounds, in which all take their turn; `warm` rounds before do not count.
    In front of each is a pause: thread pools spin for a while when their work is done, at the cost of the next.
    On a busy machine `clock=time.process_time` gives the CPU time of what runs on one thread."""
    times: dict[Any, list[float]] = {name: [] for name in ways}
    for number in range(warm + rounds):
        for name, way in ways.items():
            synchronize()
            time.sleep(_PAUSE)
            began = clock()
            way()
            synchronize()
            if number >= warm:
                times[name].append(clock() - began)
    return times


def synchronize() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def products(dtype: str, device: str | torch.device = "cpu") -> list[Product]:
    """What can stand for the peak in `dtype`: a matrix product and, on a CPU, a convolution. Empty where torch
    has none or only emulates it (slower than in fp32), which would be no measure of the machine."""
    usable = [made for made in (matrix_product(dtype, device), convolution(dtype, device)) if made is not None]
    if usable and dtype != "fp32" and _speed(usable[0]) < _speed(products("fp32", device)[0]):
        return []
    return usable


def matrix_product(dtype: str, device: str | torch.device) -> Product | None:
    """(a matrix product in `dtype`, its GFLOP), or None where torch has none for it here.

    fp16 is left out on a CPU, where it is emulated and takes seconds.
    """
    where = torch.device(device)
    if dtype == "fp16" and where.type == "cpu":
        return None
    side = _SIDE if where.type == "cpu" else 8 * _SIDE
    work = 2 * side**3 / 1e9
    if dtype == "int8":
        a, b = (torch.randint(-127, 127, (side, side), dtype=torch.int8, device=where) for _ in range(2))
        way: Callable[[], Any] = lambda: torch._int_mm(a, b)  # noqa: E731
    else:
        kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
        x, y = (torch.randn(side, side, device=where).to(kind) for _ in range(2))
        way = lambda: torch.mm(x, y)  # noqa: E731
    try:
        way()
    except (RuntimeError, NotImplementedError):
        return None
    return way, work


def convolution(dtype: str, device: str | torch.device = "cpu") -> Product | None:
    """(a 3x3 convolution of 256 channels over 80x80, its GFLOP), or None where torch has none worth timing.

    Beside `matrix_product`, because the library behind a CPU's matrix product need not be the fastest one: on AMD's,
    MKL reaches three quarters of what oneDNN's convolutions do.
    """
    if dtype not in ("fp32", "bf16") or torch.device(device).type != "cpu":
        return None
    kind = torch.float32 if dtype == "fp32" else torch.bfloat16
    x, w = (
        torch.randn(shape, device=device).to(kind).to(memory_format=torch.channels_last)
        for shape in ((1, 256, 80, 80), (256, 256, 3, 3))
    )
    way: Callable[[], Any] = lambda: torch.nn.functional.conv2d(x, w, padding=1)  # noqa: E731
    return way, 2 * 9 * 256 * 256 * 80 * 80 / 1e9


def _speed(made: Product) -> float:
    """GFLOP/s, once."""
    way, gflop = made
    (seconds,) = alternate({0: way}, 1)[0]
    return gflop / seconds


def heading() -> tuple[str, str]:
    """(machine, versions and commit): what stands under every figure."""
    facts = environment({})
    gpu = f"; {facts['gpu']}" if facts["gpu"] else ""
    versions = f"fcos {facts['fcos']} (commit {facts['commit']}), torch {facts['torch']}, {facts['date']}"
    return f"{facts['machine']}{gpu}", versions
