"""Exported files: one file a format, each with `write` and, where it runs here, `read` and `runtime`."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from torch import Tensor, device

from ..config import Config
from ..errors import ModelError
from ..types import Classes
from .about import About, Precision

if TYPE_CHECKING:
    from ..network.model import FCOS
    from .runtime import Runtime


@dataclass(frozen=True)
class Format:
    """A file format: its name on the command line, its suffix, whether its batch and size can stay free and
    decoding and NMS be part of it, and the precisions it holds."""

    name: str
    suffix: str
    dynamic: bool
    nms: bool
    precisions: tuple[Precision, ...]
    about: str

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(f".formats.{self.name}", __package__)

    def computes(self, stored: str, asked: str) -> bool:
        """Whether a file that holds `stored` numbers runs in `asked`: OpenVINO chooses among floats, others do not."""
        return asked == stored or (self.name == "openvino" and "int8" not in (stored, asked))


FORMATS = {
    f.name: f
    for f in (
        Format("onnx", ".onnx", True, True, ("fp32", "fp16", "int8"), "ONNX, run by onnxruntime and most others"),
        Format("openvino", ".xml", True, True, ("fp32", "fp16", "int8"), "OpenVINO, .xml with .bin beside it"),
        Format("tensorrt", ".engine", True, True, ("fp32", "fp16"), "TensorRT engine for the GPU that builds it"),
        Format("torchscript", ".torchscript", True, False, ("fp32", "fp16"), "TorchScript, for libtorch"),
        Format("executorch", ".pte", False, False, ("fp32",), "ExecuTorch with XNNPACK"),
        Format("coreml", ".mlpackage", False, False, ("fp32", "fp16"), "Core ML, for Apple devices"),
        Format("litert", ".tflite", False, False, ("fp32",), "LiteRT (TensorFlow Lite)"),
    )
}
# runtimes that a checkpoint can be converted to on the fly, fastest first
RUNTIMES = ("tensorrt", "openvino", "onnx")
OWN_THREADS = ("onnx", "openvino")  # compute with threads of their own, not torch's, on a CPU
ON_DEVICE = ("tensorrt", "torchscript")  # their results stay on the GPU; the others' arrive on the CPU


def format_of(path: str | Path) -> Format | None:
    """The format that a file's suffix names; None for a checkpoint."""
    return next((f for f in FORMATS.values() if Path(path).suffix.lower() == f.suffix), None)


def read(path: Path) -> About:
    """What an exported file says about itself; ModelError when it is not one of `fcos export`."""
    found = format_of(path)
    if found is None:
        raise ModelError(f"{path} is not an exported model; suffixes: {', '.join(f.suffix for f in FORMATS.values())}")
    return found.module.read(path)


def settings(name: str | Path) -> tuple[Config, Classes]:
    """(config, classes) of a model name, run folder or file, a checkpoint or an exported one."""
    from ..zoo import find as zoo

    path = zoo.find(name)
    if format_of(path) is not None:
        about = read(path)
        return about.config, about.classes
    return zoo.read(path)[1:3]


def write(network: FCOS, about: About, format: str, path: Path, pictures: Iterable[Tensor] = ()) -> None:
    """Write `network` to `path` in a format; int8 is calibrated on `pictures`, prepared [1,3,H,W] each. What the
    toolchain prints goes to stderr."""
    chosen = _known(format)
    with redirect_stdout(sys.stderr):
        chosen.module.write(network, about, path, pictures)


def open_runtime(
    path: Path,
    runtime: str | None = None,
    precision: str | None = None,
    threads: int = 0,
    where: device | None = None,
    overrides: Sequence[str] = (),
    lanes: int = 1,
) -> Runtime:
    """A Network that runs an exported file. `runtime` may be openvino for an ONNX file; `threads` 0: all. `lanes`:
    calls at once, from so many threads, each with `threads`.

    `overrides` are settings around the network: those of the network itself are part of the file, and those
    of decoding too where it was exported with --nms.
    """
    from dataclasses import replace

    from .runtime import wrap

    written = format_of(path)
    about = read(path)
    if runtime in (None, "auto", written and written.name):
        used = written
    elif runtime == "openvino" and written is FORMATS["onnx"]:
        used = FORMATS["openvino"]
    else:
        assert written is not None
        hint = f"; `fcos export --format {runtime}` makes one" if runtime in FORMATS else ""
        raise ModelError(f"{path} is a file for the runtime {written.name}, not {runtime}{hint}")
    assert used is not None
    if not hasattr(used.module, "runtime"):
        raise ModelError(f"{path}: {used.name} files run on other devices only; nothing here can open them")
    asked = precision or about.precision
    if not used.computes(about.precision, asked):
        raise ModelError(f"{path} computes in {about.precision}; export it with --precision {asked}")
    config = about.config.override(*overrides, source="command line")
    for section in ("model", *(("decode",) if about.nms else ())):
        if getattr(config, section) != getattr(about.config, section):
            raise ModelError(f"{path}: the {section}.* settings are part of the file; give them to fcos export")
    changed = replace(about, config=config)
    if changed.pixels != about.pixels or config.data.divisor % about.config.data.divisor:
        raise ModelError(f"{path} takes {about.pixels} pictures padded to {about.config.data.divisor}; keep these")
    more = {"lanes": lanes} if used is FORMATS["openvino"] else {}  # others take calls from any thread, or one
    run = used.module.runtime(path, about, asked, threads, where or device("cpu"), **more)
    return wrap(run, changed, used.name, str(path))


def on_the_fly(
    network: FCOS, config: Config, classes: Classes, runtime: str, precision: str, threads: int, where: device,
    lanes: int = 1,
) -> Runtime:  # fmt: skip
    """A checkpoint's network on another runtime, through a file that is gone afterwards."""
    if precision == "int8":
        raise ModelError("int8 needs pictures to calibrate on: fcos export --precision int8 --calibrate DATA")
    chosen = _known(runtime)
    stored: Precision = "fp16" if precision == "fp16" else "fp32"  # bf16 is a way to compute, not a file
    if not chosen.computes(stored, precision):
        raise ModelError(f"{runtime} computes in {', '.join(chosen.precisions)}, not {precision}")
    about = About(config, classes, precision=stored)
    with tempfile.TemporaryDirectory(prefix="fcos-") as folder:
        path = Path(folder) / f"model{chosen.suffix}"
        write(network, about, runtime, path)
        return open_runtime(path, runtime, precision, threads, where, lanes=lanes)


def _known(name: str) -> Format:
    if name not in FORMATS:
        raise ModelError(f"there is no format {name!r}; formats: {', '.join(FORMATS)}")
    return FORMATS[name]
