"""The state of a run: everything needed to go on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .config import Config
from .errors import ConfigError, DataError, ModelError
from .files import write_whole
from .types import Classes

KEEP = 2


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write checkpoint-STEP.pt whole or not at all; keep the last two."""

    def write(path: Path) -> None:
        with path.open("wb") as file:  # torch hides why it cannot write to a path; a file object tells
            torch.save({**state, "step": step}, file)

    path = write_whole(folder / f"checkpoint-{step:08d}.pt", write)
    for old in checkpoints(folder)[:-KEEP]:
        old.unlink(missing_ok=True)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    return sorted(folder.glob("checkpoint-*.pt"))


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """The newest checkpoint of a run that can be read (tensors and plain values only; no code is run)."""
    found = checkpoints(folder)
    if not found:
        raise ModelError(f"{folder} holds no checkpoint to resume from; start the run without --resume")
    for path in reversed(found):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file: the one before it may serve
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise ModelError(f"no checkpoint in {folder} can be read ({reason})")


def check_resumable(
    stored: Mapping[str, Any], config: Config, classes: Classes, data_hash: str, folder: Path
) -> list[str]:
    """Lines to tell before going on from `stored` with these settings and this data.

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
    if stored.get("data", data_hash) != data_hash:
        return [f"the training data is not what it was when {folder} was saved; pictures will come in another order"]
    return []


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Momenta of the stored optimiser; learning rates and weight decay stay as the config has them."""
    ours = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(state)
    except ValueError as error:
        raise ConfigError(
            "a setting that says which weights learn, and how fast, cannot change in a resume (such as "
            f"train.freeze_stages or train.bias_lr): {error}"
        ) from error
    for group, mine in zip(optimizer.param_groups, ours, strict=True):
        group.update(mine)
