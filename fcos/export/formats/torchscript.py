"""TorchScript by tracing: for C++ programs that link libtorch."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from ...errors import ModelError
from ...machine import Placement, torch_threads
from ...network.model import FCOS
from ..about import KEY, About, from_text
from ..graph import build, example
from ..runtime import Run


def write(network: FCOS, about: About, path: Path, images: Iterable[Tensor] = ()) -> None:
    """Write the traced graph with its metadata as an extra file inside."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated, and warns of each size it keeps free
        traced = torch.jit.trace(build(network, about), example(about), check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={KEY: about.to_text()})


def read(path: Path) -> About:
    """The metadata of a file."""
    return from_text(_load(path, torch.device("cpu"))[1], path)


def _load(path: Path, device: torch.device) -> tuple[torch.jit.ScriptModule, str]:
    extra = {KEY: ""}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.jit.load(str(path), map_location=device, _extra_files=extra)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{path} is not a whole TorchScript file: {str(error).splitlines()[0]}") from error
    text: str | bytes = extra[KEY]
    return module, text.decode() if isinstance(text, bytes) else text


def runtime(path: Path, about: About, place: Placement) -> Run:
    """libtorch on the CPU or a GPU."""
    module = _load(path, place.device)[0]

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        with torch_threads(place.threads), torch.inference_mode():
            result: tuple[Tensor, ...] = module(*(value.to(place.device) for value in inputs))
            return result

    return run
