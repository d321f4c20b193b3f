"""A Detector by name, run folder or file, on the runtime that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..config import Config
from ..errors import FcosError, ModelError
from ..export.about import PRECISIONS
from ..export.open import on_the_fly, open_runtime
from ..export.registry import ON_DEVICE, ON_THE_FLY, OWN_THREADS, format_of
from ..export.runtime import Runtime
from ..machine import cpu_cores, pick_device
from ..network.folding import fuse
from ..types import Classes, Network
from ..zoo.find import find_weights, load_network
from .detector import Detector

if TYPE_CHECKING:
    from ..network.model import FCOS
RUNTIMES = ("auto", "torch", "compile", *ON_THE_FLY)
LANED = ("torch", *OWN_THREADS)  # several pictures may be in them at once, on a CPU


def load(
    name: str | Path = "fcos-lite0",
    *,
    runtime: str | None = None,
    precision: str | None = None,
    threads: int = 0,
    lanes: int = 1,
    device: str = "auto",
    overrides: Sequence[str] = (),
) -> Detector:
    """A Detector by model name, run folder or file, checkpoint or exported.

    `runtime` is torch, compile, onnx, openvino, tensorrt, or auto: the fastest that is installed and keeps the
    detections. Left out, a checkpoint runs in torch and an exported file in its own runtime. A checkpoint is
    converted in memory, which takes seconds; `fcos export` keeps the result. `precision` is fp32, bf16 or
    fp16; int8 is for files exported so. `threads` 0 leaves the number to the runtime. `lanes` is the number of
    pictures that may be detected at once from threads of the caller, on a CPU by torch, onnx and openvino; they
    share `threads`, which wait less for each other than many threads on one picture (`fcos.predict.run`).
    `overrides` are settings such as "decode.nms_iou=0.5". Raises ModelError, DeviceError, MissingExtra.
    """
    _check_choice("runtime", runtime, RUNTIMES)
    _check_choice("precision", precision, PRECISIONS)
    where = pick_device(device)
    path = find_weights(name)
    kind = format_of(path)
    if where.type != "cpu" or (runtime or (kind.name if kind else "torch")) not in LANED:
        lanes = 1
    if lanes > 1:
        threads = max(1, (threads or cpu_cores()) // lanes)
    if kind is not None:
        found = open_runtime(path, runtime, precision, threads, where, overrides, lanes)
        return _around(found, where, precision, lanes, threads)
    network, config, classes = load_network(path, overrides)
    network.requires_grad_(False)
    precision = precision or "fp32"
    if runtime == "auto":
        return _fastest(network, config, classes, precision, threads, where)
    if runtime in ON_THE_FLY:
        found = on_the_fly(network, config, classes, runtime, precision, threads, where, lanes)
        return _around(found, where, precision, lanes, threads)
    return _in_torch(network, config, classes, runtime or "torch", precision, threads, where, lanes)


def _check_choice(name: str, value: str | None, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        raise ModelError(f"there is no {name} {value!r}; choose from {', '.join(known)}")


def _around(network: Runtime, where: torch.device, precision: str | None, lanes: int = 1, threads: int = 0) -> Detector:
    about = network.about
    if network.kind not in ON_DEVICE:
        where = torch.device("cpu")  # results arrive there
    return Detector(
        network, about.config, about.classes, where,
        size=about.size, runtime=network.kind, precision=precision or about.precision, lanes=lanes, threads=threads,
    )  # fmt: skip


def _in_torch(
    model: FCOS, config: Config, classes: Classes, runtime: str, precision: str, threads: int, where: torch.device,
    lanes: int = 1,
) -> Detector:  # fmt: skip
    if precision == "int8":
        raise ModelError("torch has no int8 here: fcos export --format openvino --precision int8 --calibrate DATA")
    if threads and lanes == 1:  # otherwise each lane sets its own
        torch.set_num_threads(threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    network: Network = fuse(model, dtype).to(where)
    if runtime == "compile":
        # weights as constants, laid out for the kernels ahead of time; must be set before the first call
        torch._inductor.config.freezing = True
        network = torch.compile(network)
    return Detector(network, config, classes, where, runtime=runtime, precision=precision, lanes=lanes, threads=threads)


def _fastest(
    model: FCOS, config: Config, classes: Classes, precision: str, threads: int, where: torch.device
) -> Detector:
    """The first of the runtimes for this device that is installed and gives torch's detections of the package's
    pictures, else torch."""
    from ..export.check import compare, verdict

    reference = _in_torch(model, config, classes, "torch", precision, threads, where)
    for runtime in ON_THE_FLY if where.type == "cpu" else ON_DEVICE[:1]:
        try:
            network = on_the_fly(model, config, classes, runtime, precision, threads, where)
        except FcosError:  # not installed, or not for this network
            continue
        found = _around(network, where, precision)
        if not verdict(compare(reference, found), precision):
            return found
    return reference
