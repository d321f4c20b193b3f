"""Convolutions of stride 2 that compute what they should in bfloat16 on a CPU.

On Intel's processors with AMX, oneDNN 3.12 (torch 2.14) leaves parts of the output of such a convolution, or of its
weight's gradient, as memory was before, where the output is one column wide. Two more columns of zeros at the right
give a second column of output, which is cut off again: the same sums, by code without that fault.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WIDEST = 2  # columns of an input whose output is one column wide


class Halving(nn.Conv2d):
    """A convolution of stride 2, padded by half its kernel, that avoids oneDNN's faulty code (see above)."""

    def forward(self, x: Tensor) -> Tensor:
        return widened(super().forward, x)


def widened(halve: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Compute `halve(x)`, the convolution of a `Halving`, x [N,C,H,W]. In bfloat16 on a CPU a narrow x gets two more
    columns, and the output loses what they add."""
    if _in_bfloat16(x) and x.shape[-1] <= _WIDEST:
        return halve(F.pad(x, (0, 2)))[..., :1]
    return halve(x)


def _in_bfloat16(x: Tensor) -> bool:
    """Whether a convolution of `x` computes so, on a CPU."""
    if x.device.type != "cpu":
        return False
    cast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return cast or x.dtype == torch.bfloat16


def avoid_faulty_code(network: nn.Module) -> None:
    """Turn every convolution of `network` with stride 2 and padding kernel // 2 into a `Halving`; names and
    weights stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d and module.stride == (2, 2) and module.dilation == (1, 1):
            half = tuple(k // 2 for k in module.kernel_size)
            odd = all(k % 2 for k in module.kernel_size)
            if odd and half != (0, 0) and module.padding == half:
                module.__class__ = Halving
