"""Checkpoints of other families, made with distinct weights."""

from functools import cache

import torch
from golden import CASES

from fcos.network.model import FCOS
from fcos.presets import preset, with_dialect

LISTS = sorted({(family, listed) for family, _, listed in CASES.values()} | {("torchvision", "torchvision_bn")})


def distinct(shapes):
    """A tensor of its own value for each name; expanded, so that a whole model takes no memory."""
    return {
        k: torch.tensor(
            i if "num_batches" in k else i / 7, dtype=torch.int64 if "num_batches" in k else torch.float32
        ).expand(shape)
        for i, (k, shape) in enumerate(shapes.items())
    }


@cache
def shapes_of(config):
    with torch.device("meta"):
        return {k: tuple(v.shape) for k, v in FCOS(config.model, 80).state_dict().items()}


def variant(dialect, name="fcos-r50", ranges=None, **model):
    assign = {"ranges": ranges} if ranges else {}
    data = {"divisor": 64} if model.get("neck") == "hrfpn" else {}
    return with_dialect(preset(name), dialect).override({"model": model, "assign": assign, "data": data})
