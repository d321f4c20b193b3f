"""Depthwise convolutions whose gradient is not slow in bfloat16 on a CPU.

oneDNN has fast code for the weight gradient of 3x3 depthwise convolutions and none for larger ones: in bfloat16 that of
a 5x5 takes twenty times as long as its forward pass, and made a whole step slower than in float32
(docs/measurements/speed.md). A 5x5 kernel is covered by four 3x3 windows, so its gradient is four of the fast ones,
exactly: every tap is the same sum of products, over the same places. In float32 that gained nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_backward = torch.ops.aten.convolution_backward


class Grid(NamedTuple):
    """How a kernel goes over an image, the same both ways."""

    stride: int
    padding: int
    groups: int


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, grid: Grid) -> Tensor:
    """`F.conv2d` without dilation, with that gradient where it pays: 5x5, depthwise, learned on a CPU in bfloat16."""
    if not pays(x, weight, bias, grid.groups):
        return F.conv2d(x, weight, bias, grid.stride, grid.padding, 1, grid.groups)
    x, weight, bias = x.bfloat16(), weight.bfloat16(), None if bias is None else bias.bfloat16()  # as autocast has it
    result: Tensor = _Depthwise.apply(x, weight, bias, grid)
    return result


def pays(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> bool:
    """Whether the gradient of `weight` is wanted and is one of the slow ones."""
    cast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return (
        x.device.type == "cpu"
        and (cast or x.dtype == torch.bfloat16)
        and torch.is_grad_enabled()
        and weight.requires_grad
        and not (bias is not None and bias.requires_grad)
        and weight.shape[1:] == (1, 5, 5)
        and groups == weight.shape[0] == x.shape[1]
        and not torch.compiler.is_compiling()
    )


class _Depthwise(torch.autograd.Function):
    """x [N,C,H,W], weight [C,1,5,5], bias [C] or None, which does not learn."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, grid: Grid) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = grid.stride, grid.padding
        return F.conv2d(x, weight, bias, grid.stride, grid.padding, 1, grid.groups)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding = [ctx.stride] * 2, [ctx.padding] * 2
        last = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        grad = grad.contiguous(memory_format=last)
        to_x = None
        if ctx.needs_input_grad[0]:
            mask = [True, False, False]
            to_x = _backward(grad, x, weight, None, stride, padding, [1, 1], False, [0, 0], len(weight), mask)[0]
        padded = F.pad(x, [ctx.padding] * 4)
        high, wide = ((size - 1) * ctx.stride + 3 for size in grad.shape[2:])
        window = weight[:, :, :3, :3].contiguous(memory_format=last)
        to_weight = torch.empty_like(weight)
        for i in (0, 2):
            for j in (0, 2):
                seen = padded[:, :, i : i + high, j : j + wide].contiguous(memory_format=last)
                part = _backward(grad, seen, window, None, stride, [0, 0], [1, 1], False, [0, 0], len(weight),
                                 [False, True, False])[1]  # fmt: skip
                to_weight[:, :, i : i + 3, j : j + 3] = part
        return to_x, to_weight, None, None
