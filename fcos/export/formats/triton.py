"""A model of NVIDIA's Triton Inference Server: a folder with config.pbtxt and 1/model.onnx, run by its ONNX Runtime.

The folder that holds it is the model repository, and the folder's name the model's. Source: Triton's model_config.proto
and its page on model configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import require
from ...network.model import FCOS
from ..about import KEY, About
from . import onnx as onnx_format

BATCH = 8  # at most so many images in a pass, where the graph takes any number
CONFIG = "config.pbtxt"
# the kinds of number that the graphs use, by ONNX's name for them
_KINDS = {"UINT8": "TYPE_UINT8", "FLOAT": "TYPE_FP32", "FLOAT16": "TYPE_FP16", "INT64": "TYPE_INT64"}


def write(network: FCOS, about: About, path: Path, images: Iterable[Tensor] = ()) -> None:
    """Write the model's folder; int8 is calibrated on `images` [1,3,H,W]."""
    onnx = require("onnx", "onnx")
    graph = path / "1" / "model.onnx"
    graph.parent.mkdir(parents=True)
    onnx_format.write(network, about, graph, images)
    model = onnx.load(str(graph), load_external_data=False)
    (path / CONFIG).write_text(config(model, about), encoding="utf-8")


def config(model: Any, about: About) -> str:
    """The text of config.pbtxt for an ONNX graph. It does not name the model, so that its folder may be renamed."""
    parts = ['backend: "onnxruntime"', f"max_batch_size: {0 if about.batch else BATCH}"]
    parts += [_tensor("input", value, about) for value in model.graph.input]
    parts += [_tensor("output", value, about) for value in model.graph.output]
    if about.batch is None:
        parts.append("dynamic_batching { max_queue_delay_microseconds: 2000 }")
    parts.append(_parameter(KEY, about.to_text()))
    parts.append(_parameter("classes", "\n".join(about.classes.names)))
    return "\n".join(parts) + "\n"


def _tensor(role: str, value: Any, about: About) -> str:
    """One input or output. Where the batch is free Triton counts that axis by itself, and a tensor that has no other
    is told as one number an image."""
    import onnx

    kind = value.type.tensor_type
    # onnxruntime's names for free axes mean nothing to Triton
    dims = [axis.dim_value if axis.HasField("dim_value") else -1 for axis in kind.shape.dim]
    reshape = ""
    if about.batch is None:
        dims = dims[1:]
        if not dims:
            dims, reshape = [1], "\n  reshape { shape: [ ] }"
    number = _KINDS[onnx.TensorProto.DataType.Name(kind.elem_type)]
    return f'{role} {{\n  name: "{value.name}"\n  data_type: {number}\n  dims: [ {_list(dims)} ]{reshape}\n}}'


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _parameter(key: str, text: str) -> str:
    """Text that Triton keeps for clients, in the escapes of protobuf's text format."""
    plain = "".join(chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in text.encode())
    return f'parameters {{ key: "{key}" value {{ string_value: "{plain}" }} }}'
