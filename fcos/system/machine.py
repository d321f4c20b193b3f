"""What this machine is and has: devices, cores, threads, memory, the cache folder."""

from __future__ import annotations

import math
import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..errors import DeviceError, ModelError, first_line, one_line

if TYPE_CHECKING:  # imported late: the command line asks for the cache folder, and --help and TAB cannot wait for torch
    import torch

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
MOST_THREADS = 512  # of one process: where the system has no room for them, libgomp ends it


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


def cpu_cores(root: Path = Path("/")) -> int:
    """The cores that this process may use, or as many as it gets the time of, rounded up, where it is in a container or
    a job with less. root: of the file system that tells."""
    return max(1, math.ceil(min([_given(), *map(_time_in, _groups(root, "cpu"))])))


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


UNKNOWN = 1 << 62  # bytes of free memory: let the allocation decide


def free_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may still take: of the machine, or of the group of processes that it is in, such as a
    container or a job, where one around it has a limit. root: of the file system that tells."""
    free = UNKNOWN
    with suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    return min([free, *map(_left_in, _groups(root, "memory"))])


def _groups(root: Path, what: str) -> list[Path]:
    """The folders of the control groups that limit `what` of this process, of version 1 and 2, up to the outermost."""
    found = [root / "sys/fs/cgroup", root / "sys/fs/cgroup" / what]  # a container sees its own at the top
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds and what not in kinds.split(","):
                continue
            top, inner = found[bool(kinds)], PurePosixPath(path.lstrip("/"))
            if ".." not in inner.parts:
                found += [top / part for part in (inner, *inner.parents) if part.parts]
    return found


def _time_in(group: Path) -> float:
    """The cores of which a control group gets the time."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        most, period = (group / "cpu.max").read_text().split()
        return int(most) / int(period) if most != "max" else math.inf
    with suppress(OSError, ValueError, ZeroDivisionError):
        most, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(most) / int(period) if int(most) > 0 else math.inf  # -1: no limit
    return math.inf


def _left_in(group: Path) -> int:
    """Bytes until the limit of a control group; what files it could drop counts as free."""
    for limit, used, kept in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with suppress(OSError, ValueError, KeyError):
            most = (group / limit).read_text().strip()
            if most != "max":
                stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                return int(most) - int((group / used).read_text()) + int(stat[kept])
    return UNKNOWN


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


def pick_device(name: str = "auto") -> torch.device:
    """'auto' (CUDA, MPS, CPU, in this order), or a device by name; DeviceError when it is not there."""
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
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
