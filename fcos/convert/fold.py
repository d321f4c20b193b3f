"""Pixel normalisation as part of the first convolution, for runtimes that should take plain 0..255 pixels."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ModelError
from ..model import FCOS


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
