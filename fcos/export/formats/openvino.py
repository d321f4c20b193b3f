"""OpenVINO, converted from a traced network or, with NMS inside, from the ONNX graph; int8 by NNCF."""

from __future__ import annotations

import tempfile
import threading
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import ModelError, require
from ...network.model import FCOS
from ...system.machine import Placement
from ...system.readers import MB, read_bytes
from .. import seal
from ..about import KEY, About, from_text
from ..graph import build, example, split_norms
from ..int8 import quantize
from ..runtime import Run
from . import onnx as onnx_format

GRAPH_LIMIT = 256 * MB  # of the .xml; that of a ResNet-101 has 2
_HINT = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}


def write(network: FCOS, about: About, path: Path, images: Iterable[Tensor] = ()) -> None:
    """Write path.xml and path.bin. fp16 halves the file; int8 is calibrated on `images` [1,3,H,W]."""
    openvino = require("openvino", "openvino")
    plain = replace(about, dtype="fp32")
    model, last = _from_onnx(network, plain, path.parent) if about.nms else _from_trace(network, plain)
    if about.dtype == "int8":
        convs = [op for op in model.get_ordered_ops() if op.get_type_name() in ("Convolution", "GroupConvolution")]
        model = quantize(model, about, images, [convs[0].get_friendly_name(), *last], "openvino")
    model.set_rt_info(about.to_text(), [KEY])
    openvino.save_model(model, str(path), compress_to_fp16=about.dtype == "fp16")
    path.write_bytes(seal.sealed(path.read_bytes(), path.with_suffix(".bin")))


def _from_trace(network: FCOS, about: About) -> tuple[Any, list[str]]:
    """(model, names of the head's output convolutions) by way of TorchScript, a tenth of the time of ONNX."""
    import openvino

    module = build(network, about)
    split_norms(module)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated, and warns of each size it keeps free
        traced = torch.jit.trace(module, example(about), check_trace=False)
    shape = [about.batch or -1, 3, *(about.size or (-1, -1))]
    kind = openvino.Type.u8 if about.pixels == "uint8" else openvino.Type.f32
    model = openvino.convert_model(traced, input=[(openvino.PartialShape(shape), kind)])
    model.inputs[0].get_tensor().set_names({"images"})
    for output, name in zip(model.outputs, about.outputs, strict=True):
        output.get_tensor().set_names({name})
    parts = ("head.class_logits/", "head.box_distances/", "head.centerness/")
    names = (op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() == "Convolution")
    return model, [name for name in names if any(part in name for part in parts)]


def _from_onnx(network: FCOS, about: About, folder: Path) -> tuple[Any, list[str]]:
    """The same by way of the ONNX graph, which knows NMS."""
    import openvino

    require("onnxscript", "openvino")
    onnx = require("onnx", "openvino")
    proto = onnx_format.trace(network, about)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        source = Path(temporary) / "model.onnx"
        onnx.save_model(proto, str(source))
        return openvino.convert_model(str(source)), onnx_format.float_nodes(proto)[1:]


def read(path: Path) -> About:
    """The metadata of a file."""
    seal.check(path, read_bytes(path, GRAPH_LIMIT, ModelError), path.with_suffix(".bin"))
    return from_text(_text(_load(path)), path)


def _load(path: Path):  # type: ignore[no-untyped-def]
    openvino = require("openvino", "openvino")
    try:
        return openvino.Core().read_model(str(path))
    except Exception as error:
        reason = [line for line in str(error).splitlines() if line.strip()][-1]
        raise ModelError(f"{path} is not a whole OpenVINO model (.xml with .bin beside it): {reason}") from error


def _text(model) -> str | None:  # type: ignore[no-untyped-def]
    return model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None


# OpenVINO fills tables at the first inference of a process, and two threads that do so at once may wait for each other
# for ever (one has the table's lock, the other the interpreter's).
_first = threading.Lock()


def runtime(path: Path, about: About, place: Placement) -> Run:
    """OpenVINO on the CPU. It computes in bf16 on CPUs that can unless it is told the dtype; here it is."""
    openvino = require("openvino", "openvino")
    settings = {"INFERENCE_PRECISION_HINT": _HINT[place.dtype], "PERFORMANCE_HINT": "LATENCY"}
    if place.threads:
        settings["INFERENCE_NUM_THREADS"] = str(place.threads * place.lanes)
    if place.lanes > 1:
        settings |= {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": str(place.lanes)}
    model = openvino.Core().compile_model(_load(path), "CPU", settings)
    own = threading.local()  # a request serves one thread at a time

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        arrays = [value.cpu().numpy() for value in inputs]
        if hasattr(own, "request"):
            outputs = own.request.infer(arrays, share_inputs=True)
        else:
            with _first:
                own.request = model.create_infer_request()
                outputs = own.request.infer(arrays, share_inputs=True)
        return tuple(torch.from_numpy(outputs[name]) for name in about.outputs)

    return run
