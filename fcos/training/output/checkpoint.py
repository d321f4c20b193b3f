"""The state of a run: everything needed to go on as if nothing had happened."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...config import Config
from ...errors import ConfigError, DataError, ModelError, first_line
from ...system.environment import WEIGHTS
from ...system.files import write_whole
from ...system.readers import check_archive
from ...types import Classes
from ..clock import Deadline

KEEP = 2
_KEPT: dict[str, type | tuple[type, ...]] = {  # what a checkpoint holds, each of its kind
    "step": int,
    "config": dict,
    "classes": dict,
    "model": dict,
    "average": (dict, type(None)),
    "optimizer": dict,
    "best": float,
    "stale": int,
    "judged_at": int,
    "start_due": bool,
    "AP": (float, type(None)),
    "shown": (float, type(None)),
    "normalizer": (list, type(None)),
    "trainer": str,
    "data": str,
    "val": (str, type(None)),
    "seconds": (float, int),
    "total": int,
    "plain_from": (int, type(None)),
    "deadline": (dict, type(None)),
}


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write checkpoint-STEP.pt whole or not at all; keep the last two."""
    path = write_torch(folder / f"checkpoint-{step:08d}.pt", {**state, "step": step})
    for old in checkpoints(folder)[:-KEEP]:
        old.unlink(missing_ok=True)
    return path


def write_torch(path: Path, state: dict[str, Any]) -> Path:
    """Write a file of torch.save, whole or not at all."""

    def write(place: Path) -> None:
        with place.open("wb") as file:  # torch hides why it cannot write to a path; a file object tells
            torch.save(state, file)

    return write_whole(path, write)


def read_torch(path: Path) -> Any:
    """The tensors and plain values in a file of torch.save; no code in it is run."""
    check_archive(path, ModelError)
    return torch.load(path, map_location="cpu", weights_only=True)


def remove_checkpoints(folder: Path, but: int) -> None:
    """Leave the newest `but` checkpoints in the folder of a run that has ended."""
    for path in checkpoints(folder)[: -but or None]:
        path.unlink(missing_ok=True)


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    return sorted(folder.glob("checkpoint-*.pt"))


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """The newest checkpoint of a run that can be read (tensors and plain values only; no code is run), with its path
    as "file" and lines about newer ones that cannot be read as "damaged". ModelError when there is none."""
    paths = checkpoints(folder)
    if not paths:
        kept = any((folder / name).is_file() for name in WEIGHTS)
        fix = f"start a new run from its weights with --init {folder}" if kept else "start the run without --resume"
        raise ModelError(f"{folder} holds no checkpoint to resume from; {fix}")
    damaged: list[str] = []
    for path in reversed(paths):
        try:
            state = _checked(read_torch(path))
            lines = [f"{line}; the run goes on from step {state['step']}" for line in damaged]
            return {**state, "file": str(path), "damaged": lines}
        except Exception as error:  # a damaged file: the one before it may serve
            reason = first_line(error)
            damaged.append(f"{path} cannot be read ({reason})")
    raise ModelError(
        f"no checkpoint in {folder} can be read ({path.name}: {reason}); start a new run, from the weights of this one "
        f"with --init {folder}"
    )


def _completed(state: dict[str, Any]) -> dict[str, Any]:
    """`state` with what checkpoints of version 1.0.0 lack; they have -1 where the start was still to be judged."""
    if "start_due" in state:
        return state
    due = state.get("judged_at") == -1
    return {"trainer": "Trainer", "val": None, "plain_from": None, **state, "start_due": due} | (
        {"judged_at": 0} if due else {}
    )


def _checked(state: object) -> dict[str, Any]:
    """`state` when it is what `save_checkpoint` was given by a run; ValueError otherwise."""
    if not isinstance(state, dict):
        raise ValueError("it is no checkpoint of fcos train")
    state = _completed(state)
    fault = _fault(state)
    if fault is not None:
        raise ValueError(f"it is no checkpoint of fcos train: {fault}")
    return state


def _fault(state: Mapping[str, Any]) -> str | None:
    """Why `state` is not what a run keeps, None where it is."""
    for key, kind in _KEPT.items():
        if key not in state or not isinstance(state[key], kind):
            return f"{key} is missing or of another kind"
    counted = state["normalizer"]
    if counted is not None and not (counted and all(n is None or isinstance(n, float | int) for n in counted)):
        return "its count of positives cannot be read"
    counts = (state["step"], state["stale"], state["judged_at"], state["total"], state["plain_from"] or 0)
    counted_well = all(0 <= count < 2**62 for count in counts)
    if not (counted_well and 0 <= state["seconds"] < math.inf and Deadline.fits(state["deadline"])):
        return "its steps or its time cannot be read"
    names = state["classes"].get("names")
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        return "it names no classes"
    if not all(isinstance(state["config"].get(k), dict) for k in ("model", "train")):
        return "it has no settings"
    for key in ("model", "average"):
        if not all(isinstance(v, torch.Tensor) for v in (state[key] or {}).values()):
            return f"{key} does not hold tensors alone"
    return None


def fill(network: nn.Module, state: Mapping[str, torch.Tensor], file: str) -> None:
    """Load `state` of the checkpoint `file`; ModelError when it is of another network."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        line = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{file} does not hold the weights of the network that its settings describe ({line}); move it away, and "
            "--resume goes on from the checkpoint before it"
        ) from error


def check_resumable(
    stored: Mapping[str, Any], config: Config, classes: Classes, data_hash: str, folder: str
) -> list[str]:
    """Lines to tell before going on from `stored`, of the run kept in `folder`, with these settings and this data.

    Raises DataError for other classes, ConfigError for settings that the stored state cannot go on with.
    """
    if tuple(stored["classes"]["names"]) != classes.names:
        raise DataError(f"the run in {folder} learned other classes than the data has")
    before, now = stored["config"], config.model_dump(mode="json")
    changed = [k for k, v in now["model"].items() if k != "backbone_weights" and before["model"].get(k, v) != v]
    if changed:
        raise ConfigError(
            f"model.{changed[0]} cannot change in a resume: {folder} has {before['model'][changed[0]]!r}; "
            f"start a new run with --init {folder}"
        )
    for key in ("batch", "optimizer"):
        if before["train"][key] != now["train"][key]:
            fix = "; train.accumulate takes less memory for the same batch" if key == "batch" else ""
            raise ConfigError(
                f"train.{key} cannot change in a resume: {folder} has {before['train'][key]!r}{fix}; "
                f"or start a new run with --init {folder}"
            )
    if stored["data"] != data_hash:
        return [f"the training data is not what it was when {folder} was saved; images will come in another order"]
    return []


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Momenta of the stored optimiser; learning rates and weight decay stay as the config has them."""
    ours = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state)
        _check_momenta(optimizer)
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the checkpoint's optimiser state is damaged ({type(error).__name__}: {error}); move the file away, and "
            "--resume goes on from the checkpoint before it"
        ) from error
    except ValueError as error:
        raise ConfigError(
            "a setting that says which weights learn, and how fast, cannot change in a resume (such as "
            f"train.freeze_stages or train.bias_lr): {error}"
        ) from error
    for group, mine in zip(optimizer.param_groups, ours, strict=True):
        group.update(mine)
    _lay_out(optimizer)


def _check_momenta(optimizer: torch.optim.Optimizer) -> None:
    """TypeError where what is kept of a weight is not what the optimiser goes on with: tensors of its shape, and how
    many steps it has taken."""
    needed = {"step", "exp_avg", "exp_avg_sq"} if "betas" in optimizer.defaults else set()
    for weight, kept in optimizer.state.items():
        lost = sorted(needed - kept.keys()) if kept else []
        if lost:
            raise TypeError(f"a weight has no {lost[0]}")
        for name, value in kept.items():
            if value is None and name == "momentum_buffer":  # before the first step
                continue
            if not isinstance(value, torch.Tensor) or value.shape != (torch.Size() if name == "step" else weight.shape):
                what = list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
                raise TypeError(f"{name} of a weight of {list(weight.shape)} is {what}")
            if name == "step" and not 0 <= float(value) < math.inf:  # a number is made a tensor when it is loaded
                raise TypeError(f"a weight has taken {float(value):g} steps")


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Momenta as the weights lie in memory, whatever those of the run that saved them did: a fused optimiser of the CPU
    goes through both in the order of memory."""
    for weight, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape and value.stride() != weight.stride():
                kept[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
