"""What this machine is and has: Python, devices, number formats, memory, the cache folder."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DeviceError, ModelError, first_line, one_line
from .cgroups import UNKNOWN, groups, left_in

if TYPE_CHECKING:  # imported late: the command line asks for the cache folder, and --help and TAB cannot wait for torch
    import torch


@dataclass(frozen=True)
class Placement:
    """Where and how a network computes: the device, the runtime (torch, compile, or a format of `fcos export`), the
    number format (fp32, bf16, fp16, int8), and, on a CPU, `lanes`, how many threads of the caller may be in it at
    once, with `threads` of the runtime's own each (0: its choice)."""

    device: torch.device = field(default_factory=lambda: pick_device("cpu"))
    runtime: str = "torch"
    dtype: str = "fp32"
    threads: int = 0
    lanes: int = 1


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may still take: of the machine, or of the group of processes that it is in, such as a
    container or a job, where one around it has a limit. root: of the file system that tells."""
    free = UNKNOWN
    with suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    return min([free, *map(left_in, groups(root, "memory"))])


# What torch, CUDA, oneDNN, C++ and ONNX Runtime say where there is no more; "a primitive descriptor" is another matter.
_NO_MEMORY = re.compile(
    "out of memory|not enough memory|allocate memory|bad[_ ]alloc|_ALLOC_FAILED|could not create a primitive(?! desc)",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory; most libraries have no class of errors for it."""
    if isinstance(error, ImportError):  # "cannot allocate memory in static TLS block": of a library, not for want of it
        return False
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None


@contextmanager
def compiling() -> Iterator[None]:
    """ModelError, in one line, for what torch.compile cannot do here: often there is no C++ compiler, or not for the
    instructions that torch was told to use."""
    try:
        yield
    except RuntimeError as error:
        dynamo = sys.modules.get("torch._dynamo.exc")  # not imported for its name alone: that takes seconds
        if dynamo is None or not isinstance(error, dynamo.TorchDynamoException):
            raise
        lines = str(getattr(error, "inner_exception", error)).splitlines()
        reason = next((line for line in lines if "error: " in line), lines[0] if lines else type(error).__name__)
        raise ModelError(
            f"torch.compile does not work here: {one_line(reason.strip(), 300)}; do without (--runtime torch, "
            "train.compile=false)"
        ) from error


def cache_folder() -> Path:
    """Where downloads are kept: $FCOS_CACHE, or `fcos` in the user's cache folder of the platform."""
    if chosen := os.environ.get("FCOS_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "fcos"


def python_program() -> str | None:
    """The interpreter that runs this program, to start another with; None where Python is part of something else, such
    as a program frozen by PyInstaller, or uWSGI: that would start itself again, and take the words for its own."""
    program = sys.executable or ""
    is_python = re.match("(python|pypy|graalpy)", Path(program).name.lower())
    return program if is_python and not getattr(sys, "frozen", False) else None


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 is more than emulated there: without its instructions a step takes many times as long.

    NVIDIA's cards have them from compute capability 8.0 on (A100, RTX 30); V100 is 7.0 and T4 7.5, and
    `torch.cuda.is_bf16_supported()` counts their emulation. So does oneDNN on x86 processors that have AVX-512
    without its bf16 part.
    """
    import torch

    if device.type == "cuda":
        if torch.version.hip is not None:  # AMD's numbers mean something else; torch knows those cards
            return bool(torch.cuda.is_bf16_supported())
        return torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return True
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():  # torch says neither of these two elsewhere
        return False
    return not is_x86() or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def is_x86() -> bool:
    """Whether the processor is of Intel's and AMD's kind."""
    return platform.machine().lower() in ("x86_64", "amd64")


def training_dtype(precision: str, device: torch.device) -> str:
    """`train.precision` with "auto" decided: bf16 on GPUs and on x86 processors where it is quicker, else fp32.

    On AMD's with its instructions a step of `fcos-lite0` takes 0.7 of the time and one of R-50 half, for the same AP.
    On Intel's without AMX they take 1.08 and 1.5 times as long (docs/measurements/speed.md). Nobody has measured it on
    processors of other makes.
    """
    import torch

    if precision != "auto":
        return precision
    here = device.type == "cuda" or (device.type == "cpu" and is_x86())
    slower = device.type == "cpu" and _is_intel() and not torch.cpu._is_amx_tile_supported()
    return "bf16" if here and has_bf16(device) and not slower else "fp32"


def _is_intel() -> bool:
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        told = platform.processor()
    return "GenuineIntel" in told


def pick_device(name: str) -> torch.device:
    """'auto' (CUDA, MPS, CPU, in this order), or a device by name, a GPU also by its number; DeviceError when it is not
    there."""
    import torch

    name = str(name)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        if "," in name:
            raise RuntimeError(f"it names several; fcos train takes their number, --devices {name.count(',') + 1}")
        device = torch.device("cuda" if name == "gpu" else f"cuda:{name}" if name.isdecimal() else name)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise RuntimeError(f"{torch.cuda.device_count()} CUDA devices are visible")
        if device.type not in ("cpu", "cuda") and not torch.get_device_module(device).is_available():
            raise RuntimeError("it is not available here")
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        if reason.startswith("Expected one of"):  # torch's list of all devices that anyone has
            reason = "there is no such device; the usual are cpu, cuda, cuda:1 and mps"
        raise DeviceError(f"device {name!r} cannot be used: {reason}; try --device cpu") from None
    return device
