"""A Detector by name, run folder or file, on the runtime that is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, Unpack

import torch
from torch import Tensor

from ..changes import as_words
from ..config import Config
from ..errors import ModelError, check_names, require
from ..export.about import DTYPES, Dtype
from ..export.open import on_the_fly, open_runtime, own_placement
from ..export.registry import FORMATS, KEPT, ON_DEVICE, ON_THE_FLY, OWN_THREADS, format_of
from ..export.runtime import Runtime
from ..network.folding import fuse
from ..system.door import door
from ..system.machine import Placement, compiling, pick_device
from ..system.threads import check_threads, cpu_cores, limited_threads
from ..types import Classes, Network, Predictions
from ..zoo.find import find_weights, load_network
from . import fast, graphs
from .composite import Composite, Looks, compose
from .detector import Detector
from .graphs import Origin

if TYPE_CHECKING:
    from ..network.model import FCOS

Overrides: TypeAlias = "str | Mapping[str, object] | Sequence[str | Mapping[str, object]]"
RUNTIMES = ("auto", "own", "torch", "compile", *ON_THE_FLY)
LANED = ("auto", "own", "torch", *OWN_THREADS)  # several images may be in them at once, on a CPU


class Placing(TypedDict, total=False):
    """Where and how to compute, as people say it; what is left out is chosen. See `load`."""

    device: str
    runtime: str | None
    dtype: str | None
    threads: int
    lanes: int
    trust: bool


@door
def load(name: str | Path = "fcos-lite0", *, overrides: Overrides = (), **placing: Unpack[Placing]) -> Detector:
    """A Detector by model name, run folder or file, checkpoint or exported.

    Args:
        name: a name of `fcos models`, a run folder, a file, or hf://owner/name.
        overrides: settings such as ["decode.nms_iou=0.5"] or {"decode.nms_iou": 0.5}.
        device: auto (CUDA, MPS, CPU, in this order), cpu, cuda, cuda:1, mps.
        runtime: torch, compile, onnx, openvino, tensorrt, or auto: the fastest that is installed and keeps the
            detections. An exported file runs in its own runtime. Left out, a checkpoint runs in a graph that an
            earlier use made, and else in torch until one is made in the background (docs/export.md); with
            auto and the name of a runtime, loading waits for it. own: torch for a checkpoint, whatever is there.
            The environment variable FCOS_RUNTIME stands for what is left out.
        dtype: fp32, bf16 or fp16; int8 is for files exported so. Left out or auto: fp32, or the file's own; in a
            kept graph, bf16 where its check has no doubts.
        threads: CPU threads; 0 leaves the number to the runtime.
        lanes: images that may be detected at once from threads of the caller, on a CPU by torch, onnx and
            openvino; they share `threads`, which wait less for each other than many threads on one image
            (`fcos.inference.stream.run`).
        trust: read a .torchscript file, which is code and may do anything; no other file is (docs/security.md).

    Raises:
        ModelError: no such model, or a file that cannot be used. DeviceError: no such device. MissingExtra: a runtime
            that is not installed.

    >>> fcos.load("fcos-lite0", device="cpu")
    Detector(fcos-lite0, 20 classes, torch fp32 on cpu)
    """
    check_names(placing, Placing.__annotations__, "fcos.load")
    changes = as_words(overrides)
    runtime, dtype, lanes = placing.get("runtime"), placing.get("dtype"), placing.get("lanes", 1)
    dtype = None if dtype == "auto" else dtype
    _check_choice("runtime", runtime, RUNTIMES)
    _check_choice("dtype", dtype, DTYPES)
    device = pick_device(placing.get("device", "auto"))
    path = find_weights(name)
    kind = format_of(path)
    if runtime is None and kind is None and (runtime := os.environ.get("FCOS_RUNTIME") or None):
        _check_choice("FCOS_RUNTIME", runtime, RUNTIMES)
    if kind is not None and runtime in (None, "auto", "own"):
        runtime = kind.name
    if lanes < 1:
        raise ModelError(f"lanes={lanes}: give 1 or more")
    if device.type != "cpu" or (runtime or "auto") not in LANED:
        lanes = 1
    threads = placing.get("threads", 0)
    check_threads(threads)
    threads = threads or min(limited_threads(), torch.get_num_threads())  # a caller may have set fewer
    if kind is not None and kind.name == "torchscript" and not placing.get("trust", False):
        raise ModelError(f"{path} is TorchScript, which is code; if you trust who made it, say --trust")
    if lanes > 1:
        threads = max(1, (threads or cpu_cores()) // lanes)
    place = Placement(device, runtime or "torch", dtype or "fp32", threads, lanes)
    if kind is not None:
        place = replace(place, dtype=dtype or own_placement(path).dtype)
        return _around(open_runtime(path, place, changes), place)
    return _of_checkpoint(Origin(path.absolute(), changes), place, runtime, dtype)


def fastest() -> str | None:
    """The `runtime` for a program that is not told one and may choose: auto, unless FCOS_RUNTIME stands for it."""
    return None if os.environ.get("FCOS_RUNTIME") else "auto"


def load_together(
    names: Sequence[str | Path], looks: Looks = Looks(), *, overrides: Overrides = (), **placing: Unpack[Placing]
) -> Detector | Composite:
    """Models that look together, in several ways: each as `load` reads it, the detector itself where nothing more is
    asked for. The first one's classes and settings of decoding count; the others must know the same classes."""
    return compose([load(name, overrides=overrides, **placing) for name in names], looks)


def _check_choice(name: str, value: str | None, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        raise ModelError(f"there is no {name} {value!r}; choose from {', '.join(known)}")


def _around(network: Runtime, place: Placement) -> Detector:
    about = network.about
    if network.place.runtime not in ON_DEVICE:
        place = replace(place, device=torch.device("cpu"))  # results arrive there
    return Detector(network, about.config, about.classes, place, about.size)


def _in_torch(model: FCOS, config: Config, classes: Classes, place: Placement) -> Detector:
    if place.dtype == "int8":
        raise ModelError("torch has no int8 here: fcos export --format openvino --dtype int8 --calibrate DATA")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[place.dtype]
    network: Network = fuse(model, dtype).to(place.device)
    if place.runtime == "compile":
        network = Compiled(network)
    return Detector(network, config, classes, place)


class Compiled:
    """A network through torch.compile, for inference: its weights are constants, laid out for the kernels ahead of
    time. images [N,3,H,W] -> Predictions.

    Every new state of what goes in is compiled again, and after a few times torch gives up and stays eager. So all
    images come in one state, and the compiled code is this network's alone: torch counts by code, not by network.
    """

    def __init__(self, network: Network, backend: str | Callable[..., Any] = "inductor") -> None:
        self._made_of = network, backend

        def forward(images: Tensor) -> Predictions:
            return network(images)

        forward.__code__ = forward.__code__.replace()  # a copy: torch keeps what it compiled with the code object
        self._forward = torch.compile(forward, backend=backend)

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process it is compiled again."""
        return Compiled, self._made_of

    def __call__(self, images: Tensor) -> Predictions:
        from torch._inductor import config as inductor

        # the setting is one for the process; it is read while a call compiles
        with compiling(), torch.inference_mode(), inductor.patch(freezing=True):
            return self._forward(images.clone(memory_format=torch.channels_last))


def _of_checkpoint(origin: Origin, place: Placement, runtime: str | None, dtype: str | None) -> Detector:
    """A checkpoint in the runtime that was asked for, None or "auto": in that of `fast`."""
    in_torch = partial(_torch_of, origin)
    plain = replace(place, runtime="torch")
    kept = place.device.type == "cpu" and dtype in fast.DTYPES
    if runtime is None and kept:
        return fast.unasked(origin, plain, dtype, in_torch)
    if runtime == "auto":
        if kept:
            with suppress(graphs.NoCache):
                return fast.prepared(origin, plain, dtype, in_torch)
        return _fastest(origin, plain)
    if runtime in ON_THE_FLY:
        return _kept(origin, place) or _around(on_the_fly(*_read(origin), place), place)
    return in_torch(place if runtime == "compile" else plain)


def _read(origin: Origin) -> tuple[FCOS, Config, Classes]:
    network, config, classes = load_network(origin.path, origin.overrides)
    return network.requires_grad_(False), config, classes


def _torch_of(origin: Origin, place: Placement) -> Detector:
    origin.check_same()
    return _in_torch(*_read(origin), place)


def _kept(origin: Origin, place: Placement) -> Detector | None:
    """A checkpoint's kept graph, made now where there is none; None where none can be kept."""
    stored: Dtype = "fp16" if place.dtype == "fp16" else "fp32"  # bf16 is a way to compute, not a file
    runtime = place.runtime
    if runtime not in KEPT or place.device.type != "cpu" or not FORMATS[runtime].computes(stored, place.dtype):
        return None
    for module in graphs.NEEDED[runtime]:
        require(module, runtime)
    try:
        graph = graphs.make(origin, runtime, None, stored)
    except graphs.NoCache:
        return None
    if graph.failed:
        raise ModelError(graph.failed)
    return Detector(graph.open(place), origin.config, origin.classes, place)


def _fastest(origin: Origin, place: Placement) -> Detector:
    """The first of the runtimes for this device that is installed and gives torch's detections of the package's
    images, else torch; nothing is kept."""
    from ..export.check import compare, verdict

    model, config, classes = _read(origin)
    reference = _in_torch(model, config, classes, place)
    for runtime in KEPT if place.device.type == "cpu" else ON_DEVICE[:1]:
        there = replace(place, runtime=runtime)
        try:
            detector = _around(on_the_fly(model, config, classes, there), there)
        except Exception:  # not installed, or not for this network, in the words of any runtime
            continue
        if not verdict(compare(reference, detector), place.dtype):
            return detector
    return reference
