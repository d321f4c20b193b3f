"""The file of one step that gave no finite number, kept so that it can be done again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ...errors import ModelError, first_line
from ...losses import Normalizers
from ...types import Batch, Losses
from .checkpoint import read_torch, write_torch

_KIND = "fcos step"  # what the file says it is
_KEPT: dict[str, type] = {  # what it holds, each of its kind
    "config": dict,
    "classes": list,
    "model": dict,
    "batches": list,
    "normalizers": list,
    "losses": list,
    "seed": int,
    "rng": torch.Tensor,
    "step": int,
    "files": list,
    "world": int,
    "grad_norm": float,
}


class StepRecord(NamedTuple):
    """One step of one process: its batches, the divisors of the losses, the seed of its random numbers, and the losses
    of each batch that came of them."""

    batches: Sequence[Batch]
    normalizers: Normalizers
    losses: Sequence[Losses]
    seed: int


def save_step(path: Path, network: nn.Module, step: StepRecord, facts: Mapping[str, Any]) -> Path:
    """Everything that decides one step of one process, for `fcos train --replay`: weights, images, boxes, the
    divisors of the losses, random numbers; and the losses themselves. `facts` are plain values."""
    torch.manual_seed(step.seed)
    state = {
        "kind": _KIND,
        "model": network.state_dict(),
        "batches": [
            {
                "images": b.images.cpu(),
                "sizes": [list(s) for s in b.sizes],
                "targets": [vars(t.to("cpu")) for t in b.targets],
                "ids": list(b.ids),
            }
            for b in step.batches
        ],
        "normalizers": [float(n) for n in step.normalizers],
        "losses": [[float(x) for x in part] for part in step.losses],
        "seed": step.seed,
        "rng": torch.get_rng_state(),
        "torch": str(torch.__version__),
        **facts,
    }
    return write_torch(path, state)


def load_step(path: Path) -> dict[str, Any]:
    """What `save_step` wrote; ModelError when the file is missing, damaged or something else."""
    if not path.is_file():
        raise ModelError(f"there is no file {path}")
    try:
        state = read_torch(path)
    except Exception as error:
        raise ModelError(f"{path} cannot be read: {first_line(error)}") from error
    if not isinstance(state, dict) or state.get("kind") != _KIND:
        raise ModelError(f"{path} is not a step that training kept; those are called nan-STEP.pt")
    wrong = [key for key, kind in _KEPT.items() if not isinstance(state.get(key), kind)]
    if wrong:
        raise ModelError(f"{path} is not a step that training kept whole: {wrong[0]} is missing or of another kind")
    return state
