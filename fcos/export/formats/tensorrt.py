"""TensorRT for NVIDIA GPUs, built from the ONNX graph. An engine fits only the GPU and version that built it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import DeviceError, ModelError, require
from ...network.model import FCOS
from ...system.files import write_whole
from ...system.machine import Placement
from ..about import About, from_text, read_side_file, write_side_file
from ..runtime import Run, in_parts
from . import onnx as onnx_format

_BATCHES = (1, 1, 16)  # smallest, usual and largest of a free batch


def write(network: FCOS, about: About, path: Path, images: Iterable[Tensor] = ()) -> None:
    """Write path.engine, and path.engine.json with its metadata. Dtypes are those of the ONNX graph."""
    trt = require("tensorrt", "tensorrt")
    require("onnxscript", "onnx")
    if not torch.cuda.is_available():
        raise DeviceError("a TensorRT engine is built on the GPU it is for, and no CUDA device is visible")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    definition = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(definition, logger)
    if not parser.parse(onnx_format.trace(network, about).SerializeToString()):
        raise ModelError(f"TensorRT cannot take the graph: {parser.get_error(0).desc()}")
    settings = builder.create_builder_config()
    if about.batch is None or about.size is None:
        profile = builder.create_optimization_profile()
        data = about.config.data
        step = data.divisor
        usual, most = (-(-side // step) * step for side in (data.size, data.max_size))
        sides = [about.size] * 3 if about.size else [(step, step), (usual, usual), (most, most)]
        batches = (about.batch,) * 3 if about.batch else _BATCHES
        profile.set_shape("images", *((n, 3, *side) for n, side in zip(batches, sides, strict=True)))
        if about.nms:
            profile.set_shape("sizes", *((n, 2) for n in batches))
        settings.add_optimization_profile(profile)
    engine = builder.build_serialized_network(definition, settings)
    if engine is None:
        raise ModelError("TensorRT could not build the engine; its own message stands above")
    write_whole(path, bytes(engine))
    write_side_file(path, about)


def read(path: Path) -> About:
    """The metadata of a file."""
    return from_text(read_side_file(path), path)


def runtime(path: Path, about: About, place: Placement) -> Run:
    """The engine on a CUDA device; inputs and outputs stay there."""
    device = place.device
    trt: Any = require("tensorrt", "tensorrt")
    if device.type != "cuda":
        raise DeviceError(f"{path} runs on an NVIDIA GPU; --device {device} is not one")
    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise ModelError(f"TensorRT cannot load {path}: built by another version or for another GPU; export it here")
    context = engine.create_execution_context()
    types = {trt.float32: torch.float32, trt.int64: torch.int64, trt.int32: torch.int32}

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(("images", "sizes"), (value.to(device).contiguous() for value in inputs), strict=False))
        for name, value in given.items():
            context.set_input_shape(name, tuple(value.shape))
            context.set_tensor_address(name, value.data_ptr())
        outputs = []
        for name in about.outputs:
            kind = types[engine.get_tensor_dtype(name)]
            outputs.append(torch.empty(tuple(context.get_tensor_shape(name)), dtype=kind, device=device))
            context.set_tensor_address(name, outputs[-1].data_ptr())
        stream = torch.cuda.current_stream(device)
        context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()  # the inputs may go away
        return tuple(outputs)

    return run if about.batch else in_parts(run, _BATCHES[-1])
