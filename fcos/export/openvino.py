"""OpenVINO, converted from the ONNX graph; int8 by NNCF."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ModelError, require
from ..model import FCOS
from . import onnx as onnx_format
from .about import KEY, About, from_text
from .runtime import Run

_HINT = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}


def write(network: FCOS, about: About, path: Path, pictures: Iterable[Tensor] = ()) -> None:
    """Write path.xml and path.bin. fp16 halves the file; int8 is calibrated on `pictures` [1,3,H,W]."""
    require("onnxscript", "onnx")
    onnx = require("onnx", "onnx")
    openvino = require("openvino", "openvino")
    from dataclasses import replace

    proto = onnx_format.trace(network, replace(about, precision="fp32"))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source = Path(folder) / "model.onnx"
        onnx.save_model(proto, str(source))
        model = openvino.convert_model(str(source))
        if about.precision == "int8":
            nncf = require("nncf", "openvino")
            data = nncf.Dataset([picture.numpy() for picture in pictures])
            model = nncf.quantize(
                model,
                data,
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=data.get_length(),
                ignored_scope=nncf.IgnoredScope(names=onnx_format.float_nodes(proto)),
            )
        model.set_rt_info(about.to_text(), [KEY])
        openvino.save_model(model, str(path), compress_to_fp16=about.precision == "fp16")


def read(path: Path) -> About:
    """The metadata of a file."""
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


def runtime(path: Path, about: About, precision: str, threads: int, device: torch.device) -> Run:
    """OpenVINO on the CPU. It computes in bf16 on CPUs that can unless it is told the precision; here it is."""
    openvino = require("openvino", "openvino")
    settings = {"INFERENCE_PRECISION_HINT": _HINT[precision], "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = str(threads)
    request = openvino.Core().compile_model(_load(path), "CPU", settings).create_infer_request()

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        found = request.infer([value.cpu().numpy() for value in inputs], share_inputs=True)
        return tuple(torch.from_numpy(found[name]) for name in about.outputs)

    return run
