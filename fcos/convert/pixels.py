"""Pixel normalisation as part of the first convolution: in weights (`fold_pixels`), mean and all in a network
that takes plain 0..255 pixels (`fold_normalization`)."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import Config
from ..errors import ModelError
from ..network.model import FCOS


class FoldedStem(nn.Module):
    """The first convolution on raw RGB pixels 0..255: [N,3,H,W] -> [N,O,H',W'].

    Deviation and channel order are in `weight`, the mean is in `bias`. A convolution pads normalised pixels
    with 0, which is the mean among raw ones, so the border is filled with `fill` and the result is the same.
    """

    fill: Tensor

    def __init__(self, conv: nn.Conv2d, mean: Tensor, std: Tensor, bgr: bool) -> None:
        super().__init__()
        weight = (conv.weight.detach().double().flip(1) if bgr else conv.weight.detach().double()) / std.double()
        bias = -(weight * mean.double()).sum(dim=(1, 2, 3))
        if conv.bias is not None:
            bias = bias + conv.bias.detach().double()
        self.weight = nn.Parameter(weight.to(conv.weight.dtype))
        self.bias = nn.Parameter(bias.to(conv.weight.dtype))
        self.register_buffer("fill", mean.reshape(1, 3, 1, 1).to(conv.weight.dtype))
        self.stride = conv.stride
        self.padding = conv.padding

    def forward(self, x: Tensor) -> Tensor:
        high, wide = int(self.padding[0]), int(self.padding[1])
        edges = [wide, wide, high, high]
        # a frame of ones around zeros times the mean: three channels, three colours, no branch
        frame = F.pad(torch.zeros_like(x[:1, :1]), edges, value=1.0)
        return F.conv2d(F.pad(x, edges) + frame * self.fill, self.weight, self.bias, self.stride)


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


def fold_normalization(model: FCOS) -> FCOS:
    """A copy of `model` that takes raw pixels straight into its stem, equal up to rounding, borders included.

    The config stays as it was: whoever prepares pictures goes on padding them with its mean. ModelError for a
    stem that is no plain convolution of 3 channels.
    """
    folded = copy.deepcopy(model)
    stem = next(((name, m) for name, m in folded.backbone.body.named_modules() if isinstance(m, nn.Conv2d)), ("", None))
    name, conv = stem
    if conv is None or conv.in_channels != 3 or conv.groups != 1 or isinstance(conv.padding, str):
        raise ModelError(f"cannot fold the pixel normalisation into the stem of {model.cfg.backbone}")
    if type(conv) is not nn.Conv2d and "Same" in type(conv).__name__:
        raise ModelError(f"cannot fold the pixel normalisation: the stem of {model.cfg.backbone} pads by its input")
    owner = folded.backbone.body.get_submodule(name.rpartition(".")[0]) if "." in name else folded.backbone.body
    setattr(
        owner,
        name.rpartition(".")[2],
        FoldedStem(conv, model.mean.reshape(3, 1, 1), model.std.reshape(3, 1, 1), model.cfg.bgr),
    )
    folded.mean = torch.zeros_like(model.mean)
    folded.std = torch.ones_like(model.std)
    folded.cfg = model.cfg.model_copy(update={"bgr": False})
    return folded
