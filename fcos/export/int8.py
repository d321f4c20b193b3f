"""Eight-bit networks by NNCF, calibrated on images; the same for ONNX and OpenVINO."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import ModelError, require
from ..system.stderr import quieter
from .about import About


def quantize(model: Any, about: About, images: Iterable[Tensor], keep: Sequence[str], extra: str) -> Any:
    """`model` with the ranges of `images` [1,3,H,W] in it; nodes named in `keep` stay in float. `extra` is the
    one to install where NNCF is missing. Raises ModelError without images."""
    nncf = require("nncf", extra)
    rows: list[dict[str, np.ndarray]] = []
    for image in images:
        row = {"images": image.numpy()}
        if about.nms:
            row["sizes"] = np.array([image.shape[-2:]], np.int64)
        rows.append(row)
    if not rows:
        raise ModelError("int8 needs images to calibrate on, and none could be read")
    with quieter(logging.ERROR, "nncf"):
        return nncf.quantize(
            model,
            nncf.Dataset(rows),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(rows),
            ignored_scope=nncf.IgnoredScope(names=list(keep)),
        )
