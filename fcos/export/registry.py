"""The table of export formats: one row a format, one module each in formats/."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from ..errors import ModelError, require
from .about import Dtype


@dataclass(frozen=True)
class Format:
    """A file format: its name on the command line, its suffix ("": a folder, chosen by name only), whether its batch
    and size can stay free and decoding and NMS be part of it, and the dtypes it holds, the usual one first. Of a
    folder, `runs` is the file inside that a runtime here opens, `mark` one by which it is known. `beside`: the suffix
    of a second file.
    `needs` are modules that writing and checking it takes, of the extra `extra`."""

    name: str
    suffix: str
    dynamic: bool
    nms: bool
    dtypes: tuple[Dtype, ...]
    about: str
    extra: str = ""
    needs: tuple[str, ...] = ()
    runs: str = ""
    mark: str = ""
    beside: str = ""

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(f".formats.{self.name}", __package__)

    def check_installed(self) -> None:
        """MissingExtra with the install line, in a moment, before a model is loaded in vain."""
        for module in self.needs:
            if find_spec(module) is None:
                require(module, self.extra)

    def computes(self, stored: str, asked: str) -> bool:
        """Whether a file that holds `stored` numbers runs in `asked`: OpenVINO chooses among floats, those that an int8
        file has kept included; others do not."""
        floats = asked != "int8" and (stored != "int8" or asked == "bf16")
        return asked == stored or (self.name == "openvino" and floats)


_ONNX = ("onnx", "onnxscript")
FORMATS = {
    f.name: f
    for f in (
        Format(
            "onnx",
            ".onnx",
            True,
            True,
            ("fp32", "fp16", "int8"),
            "ONNX, run by onnxruntime and most others",
            "onnx",
            (*_ONNX, "onnxruntime"),
        ),
        Format(
            "openvino",
            ".xml",
            True,
            True,
            ("fp32", "fp16", "int8"),
            "OpenVINO, .xml with .bin beside it",
            "openvino",
            (*_ONNX, "openvino"),
            beside=".bin",
        ),
        Format(
            "tensorrt",
            ".engine",
            True,
            True,
            ("fp32", "fp16"),
            "TensorRT engine for the GPU that builds it",
            "tensorrt",
            (*_ONNX, "tensorrt"),
        ),
        Format("torchscript", ".torchscript", True, False, ("fp32", "fp16"), "TorchScript, for libtorch"),
        Format("executorch", ".pte", False, False, ("fp32",), "ExecuTorch with XNNPACK", "executorch", ("executorch",)),
        Format(
            "coreml",
            ".mlpackage",
            False,
            False,
            ("fp32", "fp16"),
            "Core ML, for Apple devices",
            "coreml",
            ("coremltools",),
            mark="Manifest.json",
        ),
        Format(
            "litert",
            ".tflite",
            False,
            False,
            ("fp32",),
            "LiteRT (TensorFlow Lite)",
            "litert",
            ("litert_torch", "ai_edge_litert"),
        ),
        Format(
            "html",
            ".html",
            True,
            False,
            ("fp16", "fp32", "int8"),
            "one page that detects, in any browser, offline",
            "onnx",
            _ONNX,
        ),
        Format(
            "triton",
            "",
            True,
            True,
            ("fp32", "fp16", "int8"),
            "a model's folder for NVIDIA Triton, ONNX inside",
            "onnx",
            (*_ONNX, "onnxruntime"),
            runs="1/model.onnx",
            mark="config.pbtxt",
        ),
    )
}
# runtimes that a checkpoint can be converted to on the fly, fastest first
ON_THE_FLY = ("tensorrt", "openvino", "onnx")
KEPT = ("openvino", "onnx")  # those whose graphs are kept in the cache, fastest first
OWN_THREADS = ("onnx", "openvino")  # compute with threads of their own, not torch's, on a CPU
ON_DEVICE = ("tensorrt", "torchscript")  # their results stay on the GPU; the others' arrive on the CPU


def format_of(path: str | Path) -> Format | None:
    """The format that a file's suffix names; None for a checkpoint, and for a folder."""
    return next((f for f in FORMATS.values() if f.suffix and Path(path).suffix.lower() == f.suffix), None)


def _known(name: str) -> Format:
    if name not in FORMATS:
        raise ModelError(f"there is no format {name!r}; formats: {', '.join(FORMATS)}")
    return FORMATS[name]
