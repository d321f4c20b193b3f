"""Deviation and channel order of the pixels as part of the first convolution's weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..config import Config
from ..errors import ModelError


def fold_pixels(
    state: Mapping[str, Tensor], config: Config, *, bgr: bool = False, std: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> tuple[dict[str, Tensor], Config]:
    """The same network for pixels in another order and divided by another deviation (RGB order, 0..255).

    Equal up to float32 rounding; the mean stays, because a convolution's border of zeros stands for it.
    """
    was = config.model
    key = next((k for k, v in state.items() if k.startswith("backbone.body.") and v.ndim == 4 and v.shape[1] == 3), "")
    if not key:
        raise ModelError(f"{was.backbone} has no first convolution of 3 channels to fold the pixels into")
    weight = state[key].double()
    weight = weight.flip(1) if was.bgr else weight
    weight = weight * (torch.tensor(std, dtype=torch.float64) / torch.tensor(was.std, dtype=torch.float64)).view(
        3, 1, 1
    )
    weight = weight.flip(1) if bgr else weight
    folded = {**state, key: weight.to(state[key].dtype).contiguous()}
    return folded, config.override({"model": {"bgr": bgr, "std": std}}, source="folded pixels")
