"""ExecuTorch for phones and small devices: the XNNPACK delegate computes, portable kernels do the rest."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from ...errors import ModelError, first_line, require
from ...network.model import FCOS
from ...system.files import write_whole
from ...system.machine import Placement
from ..about import About, from_text, read_side_file, write_side_file
from ..graph import build, example
from ..runtime import Run


def write(network: FCOS, about: About, path: Path, images: Iterable[Tensor] = ()) -> None:
    """Write path.pte, and path.pte.json with its metadata."""
    require("executorch", "executorch")
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    with torch.no_grad():
        exported = torch.export.export(build(network, about), example(about))
        program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    write_whole(path, bytes(program.buffer))
    write_side_file(path, about)


def read(path: Path) -> About:
    """The metadata of a file."""
    return from_text(read_side_file(path), path)


def runtime(path: Path, about: About, place: Placement) -> Run:
    """ExecuTorch's own runtime on the CPU."""
    require("executorch", "executorch")
    from executorch.runtime import Runtime

    try:
        method = Runtime.get().load_program(path).load_method("forward")
    except RuntimeError as error:
        raise ModelError(f"ExecuTorch cannot load {path}: {first_line(error)}") from error
    assert method is not None

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(value.clone() for value in method.execute([value.cpu() for value in inputs]))

    return run
