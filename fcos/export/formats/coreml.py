"""Core ML for Apple devices. The file is written anywhere; only macOS runs it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ...errors import ModelError, first_line, require
from ...network.model import FCOS
from ...system.readers import read_bytes
from .. import seal
from ..about import KEY, About, from_text
from ..graph import build, example


def write(network: FCOS, about: About, path: Path, images: Iterable[Tensor] = ()) -> None:
    """Write an ML program that takes an RGB image; fp16 is the dtype of its arithmetic."""
    coremltools = require("coremltools", "coreml")
    sample = example(about)[0].float()
    with torch.no_grad():
        module = build(network, replace(about, dtype="fp32"))
        exported = torch.export.export(module, (sample,)).run_decompositions({})
    half = about.dtype == "fp16"
    model = coremltools.convert(
        exported,
        inputs=[coremltools.ImageType(name="images", shape=tuple(sample.shape))],
        outputs=[coremltools.TensorType(name=name) for name in about.outputs],
        compute_precision=coremltools.precision.FLOAT16 if half else coremltools.precision.FLOAT32,
        minimum_deployment_target=coremltools.target.iOS16,
    )
    model.user_defined_metadata[KEY] = about.to_text()
    model.save(str(path))
    program, *others = _files(path)
    program.write_bytes(seal.sealed(program.read_bytes(), *others))


def _files(path: Path) -> list[Path]:
    """The file of a package that holds the program and its metadata, and all others."""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return sorted(files, key=lambda p: p.suffix != ".mlmodel")


def read(path: Path) -> About:
    """The metadata of a package."""
    coremltools = require("coremltools", "coreml")
    files = _files(path)
    if files:
        seal.check(path, read_bytes(files[0], seal.GRAPH_LIMIT, ModelError), *files[1:])
    try:
        spec = coremltools.utils.load_spec(str(path))
    except Exception as error:
        raise ModelError(f"{path} is not a whole Core ML package: {first_line(error)}") from error
    return from_text(dict(spec.description.metadata.userDefined).get(KEY), path)
