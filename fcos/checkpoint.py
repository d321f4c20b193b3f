"""The state of a run: everything needed to go on as if nothing had happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .errors import ModelError
from .files import write_whole

KEEP = 2


def save_checkpoint(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write checkpoint-STEP.pt whole or not at all; keep the last two."""
    path = write_whole(folder / f"checkpoint-{step:08d}.pt", lambda p: torch.save({**state, "step": step}, p))
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
        raise ModelError(f"{folder} holds no checkpoint to resume from")
    for path in reversed(found):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file: the one before it may serve
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise ModelError(f"no checkpoint in {folder} can be read ({reason})")
