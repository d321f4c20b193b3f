"""Models that are exported by name, run folder or file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import ModelError
from ..inference.detector import Detector
from ..inference.load import load
from ..zoo.find import find_weights
from .registry import format_of


def named(model: str, settings: Sequence[str] = ()) -> tuple[Detector, str]:
    """The detector of that name, run folder or file, in torch on the CPU, and what to call it."""
    path = find_weights(model)
    if format_of(path) is not None:
        raise ModelError(f"{path} is exported already; export the checkpoint it came from")
    name = Path(os.path.abspath(model)).name.removesuffix(".safetensors")  # of "." the folder's
    return load(path, device="cpu", runtime="torch", overrides=settings), name
