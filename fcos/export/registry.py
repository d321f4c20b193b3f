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
    """A file format: its name on the command line, its suffix ("": a folder, chosen by name only), the dtypes it holds,
    the usual one first; whether its batch and size can stay free (`dynamic`) and decoding and NMS be part of it
    (`nms`). Of a folder, `runs` is the file inside that a runtime here opens, `mark` one by which it is known.
    `beside`: the suffix of a second file.
    `needs` are modules that writing and checking it takes, of the extra `extra`."""

    name: str
    suffix: str
    dtypes: tuple[Dtype, ...]
    about: str
    dynamic: bool = False
    nms: bool = False
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
            ("fp32", "fp16", "int8"),
            "ONNX, run by onnxruntime and most others",
            dynamic=True,
            nms=True,
            extra="onnx",
            needs=(*_ONNX, "onnxruntime"),
        ),
        Format(
            "openvino",
            ".xml",
            ("fp32", "fp16", "int8"),
            "OpenVINO, .xml with .bin beside it",
            dynamic=True,
            nms=True,
            extra="openvino",
            needs=(*_ONNX, "openvino"),
            beside=".bin",
        ),
        Format(
            "tensorrt",
            ".engine",
            ("fp32", "fp16"),
            "TensorRT engine for the GPU that builds it",
            dynamic=True,
            nms=True,
            extra="tensorrt",
            needs=(*_ONNX, "tensorrt"),
        ),
        Format("torchscript", ".torchscript", ("fp32", "fp16"), "TorchScript, for libtorch", dynamic=True),
        Format("executorch", ".pte", ("fp32",), "ExecuTorch with XNNPACK", extra="executorch", needs=("executorch",)),
        Format(
            "coreml",
            ".mlpackage",
            ("fp32", "fp16"),
            "Core ML, for Apple devices",
            extra="coreml",
            needs=("coremltools",),
            mark="Manifest.json",
        ),
        Format(
            "litert",
            ".tflite",
            ("fp32",),
            "LiteRT (TensorFlow Lite)",
            extra="litert",
            needs=("litert_torch", "ai_edge_litert"),
        ),
        Format(
            "html",
            ".html",
            ("fp16", "fp32", "int8"),
            "one page that detects, in any browser, offline",
            dynamic=True,
            extra="onnx",
            needs=_ONNX,
        ),
        Format(
            "triton",
            "",
            ("fp32", "fp16", "int8"),
            "a model's folder for NVIDIA Triton, ONNX inside",
            dynamic=True,
            nms=True,
            extra="onnx",
            needs=(*_ONNX, "onnxruntime"),
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
