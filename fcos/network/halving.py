"""Convolutions of stride 2 that compute what they should in bfloat16 on a CPU.

On Intel's processors with AMX, oneDNN 3.12 (torch 2.14) leaves parts of the output of such a convolution, or of its
weight's gradient, as memory was before, where the output is one column wide. Two more columns of zeros at the right
give a second column of output, which is cut off again: the same sums, by code that is whole.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WIDEST = 2  # columns of an input whose output is one column wide


class Halving(nn.Conv2d):
    """A convolution of stride 2, padded by half its kernel, that is whole."""

    def forward(self, x: Tensor) -> Tensor:
        return whole(super().forward, x)


def whole(halve: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What `halve` makes of x [N,C,H,W], by code that is whole; `halve` is the convolution of a `Halving`."""
    if _in_bfloat16(x) and x.shape[-1] <= _WIDEST:
        return halve(F.pad(x, (0, 2)))[..., :1]
    return halve(x)


def _in_bfloat16(x: Tensor) -> bool:
    """Whether a convolution of `x` computes so, on a CPU."""
    if x.device.type != "cpu":
        return False
    cast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return cast or x.dtype == torch.bfloat16


def make_whole(network: nn.Module) -> None:
    """Let every convolution of `network` that `Halving` is about be one; names and weights stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d and module.stride == (2, 2) and module.dilation == (1, 1):
            half = tuple(k // 2 for k in module.kernel_size)
            odd = all(k % 2 for k in module.kernel_size)
            if odd and half != (0, 0) and module.padding == half:
                module.__class__ = Halving
