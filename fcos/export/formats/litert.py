"""LiteRT (TensorFlow Lite) for Android and microcontrollers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import ModelError, first_line, require
from ...network.model import FCOS
from ...system.machine import Placement
from ..about import About, from_text, read_side_file, write_side_file
from ..graph import build, example
from ..runtime import Run


def write(network: FCOS, about: About, path: Path, images: Iterable[Tensor] = ()) -> None:
    """Write path.tflite, and path.tflite.json with its metadata."""
    litert_torch = require("litert_torch", "litert")
    with torch.no_grad():
        litert_torch.convert(build(network, about), example(about)).export(str(path))
    write_side_file(path, about)


def read(path: Path) -> About:
    """The metadata of a file."""
    return from_text(read_side_file(path), path)


def runtime(path: Path, about: About, place: Placement) -> Run:
    """LiteRT's interpreter on the CPU."""
    interpreter_module = require("ai_edge_litert.interpreter", "litert")
    try:
        interpreter = interpreter_module.Interpreter(str(path), num_threads=place.threads or None)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"LiteRT cannot load {path}: {first_line(error)}") from error
    given = interpreter.get_input_details()
    # outputs are numbered in the order of the traced module
    wanted = sorted(interpreter.get_output_details(), key=lambda detail: detail["name"])

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        for detail, value in zip(given, inputs, strict=True):
            interpreter.set_tensor(detail["index"], value.cpu().numpy())
        interpreter.invoke()
        return tuple(torch.from_numpy(np.array(interpreter.get_tensor(d["index"]))) for d in wanted)

    return run
