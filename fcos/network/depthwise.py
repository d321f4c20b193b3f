"""Depthwise convolutions whose gradients are not slow in bfloat16 on a CPU.

oneDNN has fast code for most of them; where it has none it takes ten to forty times as long, and made a whole step
slower than in float32 (docs/measurements/speed.md):

- the weight's, of kernels more than three columns wide. Two windows of 5x3 cover a 5x5 kernel, so its gradient is two
  of the fast ones, exactly: every tap is the same sum of products, over the same places. Only used in bfloat16;
- the input's, with a stride. It is computed in float32, where it is fast.
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
    """`F.conv2d` without dilation, with those gradients where they pay: depthwise, learned on a CPU in bfloat16."""
    if not pays(x, weight, bias, grid):
        return F.conv2d(x, weight, bias, grid.stride, grid.padding, 1, grid.groups)
    x, weight, bias = x.bfloat16(), weight.bfloat16(), None if bias is None else bias.bfloat16()  # as autocast has it
    result: Tensor = _Depthwise.apply(x, weight, bias, grid)
    return result


def pays(x: Tensor, weight: Tensor, bias: Tensor | None, grid: Grid) -> bool:
    """Whether one of the slow gradients is wanted."""
    cast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return (
        x.device.type == "cpu"
        and (cast or x.dtype == torch.bfloat16)
        and torch.is_grad_enabled()
        and not (bias is not None and bias.requires_grad)
        and grid.groups == weight.shape[0] == x.shape[1]
        and ((weight.requires_grad and weight.shape[2:] == (5, 5)) or (x.requires_grad and grid.stride > 1))
        and not torch.compiler.is_compiling()
    )


class _Depthwise(torch.autograd.Function):
    """x [N,C,H,W], weight [C,1,K,K], bias [C] or None, which does not learn."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, grid: Grid) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.grid = grid
        return F.conv2d(x, weight, bias, grid.stride, grid.padding, 1, grid.groups)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=_layout(x))
        to_x = _to_input(grad, x, weight, ctx.grid) if ctx.needs_input_grad[0] else None
        to_weight = None
        if ctx.needs_input_grad[1]:
            way = _by_windows if weight.shape[3] in (5, 7) else _to_weight  # windows cover odd widths
            to_weight = way(grad, x, weight, ctx.grid)
        return to_x, to_weight, None, None


def _to_input(grad: Tensor, x: Tensor, weight: Tensor, grid: Grid) -> Tensor:
    stride, padding = [grid.stride] * 2, [grid.padding] * 2
    if grid.stride > 1 and x.dtype == torch.bfloat16:
        # of the input only its shape counts
        grad, x, weight = grad.float(), torch.empty_like(x, dtype=torch.float32), weight.float()
    mask = [True, False, False]
    result: Tensor = _backward(grad, x, weight, None, stride, padding, [1, 1], False, [0, 0], grid.groups, mask)[0]
    return result


def _to_weight(grad: Tensor, x: Tensor, weight: Tensor, grid: Grid, padding: tuple[int, int] | None = None) -> Tensor:
    """`padding`: of rows and columns, where it is not the grid's."""
    stride, pads, mask = [grid.stride] * 2, list(padding or [grid.padding] * 2), [False, True, False]
    result: Tensor = _backward(grad, x, weight, None, stride, pads, [1, 1], False, [0, 0], grid.groups, mask)[1]
    return result


def _by_windows(grad: Tensor, x: Tensor, weight: Tensor, grid: Grid) -> Tensor:
    """The weight's gradient in windows of three columns."""
    padded = F.pad(x, [grid.padding, grid.padding])
    wide = (grad.shape[3] - 1) * grid.stride + 3
    result = torch.empty_like(weight)
    for j in range(0, weight.shape[3] - 2, 2):
        seen = padded[:, :, :, j : j + wide].contiguous(memory_format=_layout(x))
        window = weight[:, :, :, j : j + 3].contiguous(memory_format=_layout(x))
        result[:, :, :, j : j + 3] = _to_weight(grad, seen, window, grid, (grid.padding, 0))
    return result


def _layout(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
