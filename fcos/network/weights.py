"""Weights in one .safetensors file with config and class names inside: written, read, put into a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..config import Config
from ..errors import FcosError, ModelError, first_line
from ..system.files import noticed, write_whole
from ..types import Classes, class_names
from .checkpoints import unwrapped
from .header import StoredAbout, StoredClasses, StoredWeights, parse, parse_mapping, stored_config
from .model import FCOS

_FORMAT = "1"
_CHECKPOINTS = (".pth", ".pt", ".pkl", ".bin", ".ckpt")
_FLOATS, _COUNTS = (torch.float32, torch.float16), (torch.int64,)  # what `save` writes
_PARTS = ("backbone", "fpn", "head")
_HALF_MAX = torch.finfo(torch.float16).max


def build(config: Config, num_classes: int) -> FCOS:
    """A network with fresh weights."""
    return FCOS(config.model, num_classes)


def save(
    path: str | Path,
    state: Mapping[str, Tensor],
    config: Config,
    classes: Classes,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write weights, config, class names and ids to one .safetensors file.

    The state may be that of a network within torch.compile, DistributedDataParallel or AveragedModel, and in any
    floating point. Of half the size with `halved(state)`; `load` and `load_state` give float32 again. ModelError where
    the weights tell another number of classes apart, or are none of such a network.
    """
    from safetensors.torch import save_file

    classes = classes if isinstance(classes, Classes) else Classes(class_names(classes))
    state = unwrapped(state)
    odd = next((k for k in state if k.partition(".")[0] not in _PARTS), None)
    if odd is not None:
        raise ModelError(f"{path}: {odd!r} is no tensor of an fcos network; its parts are {', '.join(_PARTS)}")
    logits = state.get("head.class_logits.bias")
    if logits is not None and len(logits) != len(classes):
        raise ModelError(f"{path}: the weights tell {len(logits)} classes apart, and {len(classes)} are named")
    state = {k: v.float() if v.is_floating_point() and v.dtype not in _FLOATS else v for k, v in state.items()}
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    metadata = {
        "format": _FORMAT,
        "config": config.model_dump_json(),
        "classes": json.dumps({"names": classes.names, "ids": classes.ids}),
        "about": json.dumps(dict(about or {}), allow_nan=False),  # `load` takes no other
    }
    return write_whole(path, lambda p: save_file(tensors, p, metadata={"fcos": json.dumps(metadata)}))


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of two and more dimensions (all but norms and biases, so nearly everything) as float16 where their values
    fit."""
    return {k: _halved(v) for k, v in state.items()}


def _halved(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point() or tensor.ndim < 2 or not bool((tensor.abs() <= _HALF_MAX).all()):
        return tensor
    return tensor.half()


def read(path: str | Path) -> tuple[dict[str, Tensor], Config, Classes, dict[str, Any]]:
    """(weights, config, classes, about) of a file written by `save`; ModelError for anything else."""
    state: dict[str, Tensor] = {}
    config, classes, about = _read(Path(path), state)
    return state, config, classes, about


def header(path: str | Path) -> tuple[Config, Classes, dict[str, Any]]:
    """(config, classes, about) of a file written by `save`, without its weights."""
    return _read(Path(path), None)


def _read(path: Path, state: dict[str, Tensor] | None) -> tuple[Config, Classes, dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelError(f"there is no model file {path}")
    try:
        noticed(path.stat())
        with safe_open(path, framework="pt") as file:
            metadata = (file.metadata() or {}).get("fcos")
            if state is not None:
                state.update({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        hint = f"; for a checkpoint: fcos convert {path} OUT.safetensors" if path.suffix in _CHECKPOINTS else ""
        raise ModelError(f"{path} is not a whole safetensors file: {first_line(error)}{hint}") from error
    if metadata is None:
        raise ModelError(f"{path} holds weights but no fcos config; `fcos convert` reads other detectors' files")
    stored = parse(metadata, StoredWeights, path)
    classes = parse(stored.classes, StoredClasses, path).classes()
    parse(stored.about, StoredAbout, path)
    about = parse_mapping(stored.about, path)
    return stored_config(parse_mapping(stored.config, path), path, str(about.get("fcos", ""))), classes, about


class _Unfilled(TorchFunctionMode):
    """Tensors on the meta device are not filled with random numbers: there is nothing to fill, and torch would import
    its compiler for it, two seconds that the first image would wait for."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.endswith("__") and name.strip("_").endswith(("normal", "uniform")):
            given = {**dict(enumerate(args)), **(kwargs or {})}
            return given.get(0, given.get("tensor"))
        return func(*args, **(kwargs or {}))


def check_fit(config: Config, num_classes: int, state: Mapping[str, Tensor], source: str, changed: bool) -> None:
    """ModelError as of `load_state`, told by shapes alone: a config that asks for a huge network takes no memory."""
    try:
        with torch.device("meta"), _Unfilled():
            network = FCOS(config.model, num_classes)
    except FcosError:
        raise
    except Exception:  # a few backbones compute with numbers while they are built; none of them is large
        return
    _compare(network, state, source, changed)


def load_state(network: FCOS, state: Mapping[str, Tensor], source: str, changed: bool = False) -> None:
    """Fill the network; ModelError that lists both sides where the keys, shapes or kinds of numbers differ."""
    wanted = _compare(network, state, source, changed)
    network.load_state_dict({k: v.to(wanted[k].dtype) for k, v in state.items()})


def _compare(network: FCOS, state: Mapping[str, Tensor], source: str, changed: bool) -> Mapping[str, Tensor]:
    wanted = network.state_dict()
    missing = [k for k in wanted if k not in state or state[k].shape != wanted[k].shape]
    spare = [k for k in state if k not in wanted]
    if missing or spare:
        hint = "; the model.* settings given do not fit these weights" if changed else ""
        raise ModelError(
            f"{source} does not fit its config: missing or misshapen {missing[:3]}, left over {spare[:3]}{hint}"
        )
    odd = next((k for k in wanted if state[k].dtype not in (_FLOATS if wanted[k].is_floating_point() else _COUNTS)), "")
    if odd:
        given = str(state[odd].dtype).removeprefix("torch.")
        kinds = "float32 or float16" if wanted[odd].is_floating_point() else "int64"
        raise ModelError(f"{source} is damaged: {odd} is stored as {given}, and only {kinds} is written there")
    return wanted


def transfer(network: FCOS, state: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Fill what fits of another detector's weights, layer by layer (a bias alone means nothing); (kept, fresh) names
    of tensors."""
    wanted = network.state_dict()
    unfit = {k.rpartition(".")[0] for k in wanted if k not in state or state[k].shape != wanted[k].shape}
    kept = [k for k in wanted if k.rpartition(".")[0] not in unfit]
    network.load_state_dict({k: state[k].to(wanted[k].dtype) for k in kept}, strict=False)
    return kept, [k for k in wanted if k not in kept]
