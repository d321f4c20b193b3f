"""ONNX, written by torch's dynamo exporter and run by onnxruntime."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import ModelError, first_line, require
from ...network.backbones import DeformableConv2d
from ...network.model import FCOS
from ...system.machine import Placement
from ...system.readers import read_bytes
from ...system.stderr import quieter
from .. import seal
from ..about import KEY, About, from_text
from ..graph import build, dynamic_shapes, example
from ..int8 import quantize
from ..runtime import Run


def write(network: FCOS, about: About, path: Path, images: Iterable[Tensor] = ()) -> None:
    """Write the graph, checked, with its metadata; int8 is calibrated on `images` [1,3,H,W]."""
    path.write_bytes(seal.sealed(described(network, about, images).SerializeToString()))


def described(network: FCOS, about: About, images: Iterable[Tensor] = ()) -> Any:
    """The ModelProto of the graph, checked, with its metadata."""
    require("onnxscript", "onnx")
    onnx = require("onnx", "onnx")
    model = trace(network, about)
    if about.dtype == "int8":
        model = quantize(model, about, images, float_nodes(model), "int8")
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, about.to_text()
    onnx.checker.check_model(model, full_check=True)
    return model


def trace(network: FCOS, about: About) -> Any:
    """The ModelProto of the graph, without metadata; int8 is written as fp32."""
    import io

    inputs = example(about)
    deformable = any(isinstance(module, DeformableConv2d) for module in network.modules())
    module = build(network, about)
    silent = contextlib.redirect_stdout(io.StringIO())
    with quieter(logging.ERROR, "torch.onnx"), _plain_errors(), torch.no_grad(), silent:
        exported = torch.export.export(module, inputs, dynamic_shapes=dynamic_shapes(about))
        program = torch.onnx.export(
            exported,
            inputs,
            dynamo=True,
            input_names=["images", "sizes"][: len(inputs)],
            output_names=about.outputs,
            external_data=False,
            verbose=False,
            opset_version=20 if deformable else None,
            custom_translation_table={torch.ops.fcos.nms.default: _nms} if about.nms else None,
        )
    assert program is not None
    return program.model_proto


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """What the exporter cannot take, as one line; its last cause says which operation."""
    try:
        yield
    except (torch.onnx.OnnxExporterError, torch._dynamo.exc.UserError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ModelError(f"torch cannot write this network as ONNX: {first_line(cause)}") from error


def _nms(boxes, scores, labels, iou: float, classes: int, limit: int):  # type: ignore[no-untyped-def]
    """`fcos::nms` in operators of ONNX: one row of scores for each class, -1 for boxes of the others."""
    from onnxscript import opset18

    op: Any = opset18
    below = np.float32(iou)
    if float(below) > iou:  # torchvision compares with the float64 limit
        below = np.nextafter(below, np.float32(0))
    kinds = op.Constant(value_ints=list(range(classes)))
    ours = op.Equal(op.Unsqueeze(labels, [1]), op.Unsqueeze(kinds, [0, 2]))
    rows = op.Where(ours, op.Unsqueeze(scores, [1]), op.Constant(value_float=-1.0))
    kept = op.NonMaxSuppression(
        boxes,
        rows,
        op.Constant(value_ints=[limit]),
        op.Constant(value_floats=[float(below)]),
        op.Constant(value_floats=[-0.5]),
        center_point_box=0,
    )
    spots = op.Gather(kept, op.Constant(value_ints=[0, 2]), axis=1)
    ones = op.Expand(op.Constant(value_floats=[1.0]), op.Slice(op.Shape(spots), [0], [1]))
    empty = op.Expand(op.Constant(value_float=0.0), op.Shape(scores))
    return op.Greater(op.ScatterND(empty, spots, ones), op.Constant(value_float=0.5))


def float_nodes(model: Any) -> list[str]:
    """Names of the convolutions that stay in float under int8: the first, and the three outputs of the head."""
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    last = [n for n in convs if any(part in n.input[1] for part in ("class_logits", "box_distances", "centerness"))]
    return [convs[0].name, *(n.name for n in last)]


def read(path: Path) -> About:
    """The metadata of a file."""
    onnx = require("onnx", "onnx")
    content = read_bytes(path, seal.GRAPH_LIMIT, ModelError)
    seal.check(path, content)
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:
        raise ModelError(f"{path} is not a whole ONNX file: {first_line(error)}") from error
    return from_text(next((entry.value for entry in model.metadata_props if entry.key == KEY), None), path)


def runtime(path: Path, about: About, place: Placement) -> Run:
    """onnxruntime on the CPU, or on CUDA where its GPU build is installed."""
    ort = require("onnxruntime", "onnx")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = place.threads
    known = ort.get_available_providers()
    providers: list[Any] = ["CPUExecutionProvider"]
    if place.device.type == "cuda" and "CUDAExecutionProvider" in known:
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": place.device.index or 0}))
    try:
        session = ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise ModelError(f"onnxruntime cannot load {path}: {first_line(error)}") from error
    names = [value.name for value in session.get_inputs()]

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(("images", "sizes"), (value.cpu().numpy() for value in inputs), strict=False))
        return tuple(torch.from_numpy(v) for v in session.run(about.outputs, {k: given[k] for k in names}))

    return run
