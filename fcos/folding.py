"""BatchNorm with fixed statistics is a scaling of the convolution in front of it: one operation, not two."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def find_pairs(body: nn.Module, size: int = 64) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """(convolution, BatchNorm) pairs where the norm takes what the convolution gives, found by running
    `body` once on an empty picture of `size` pixels."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def after(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        made[id(output)] = (module, output)  # type: ignore[assignment]  # the tensor is kept, so its id stays its own

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            pairs.append((made[id(inputs[0])][0], module))  # type: ignore[arg-type]

    hooks = [m.register_forward_hook(after) for m in body.modules() if isinstance(m, nn.Conv2d)]
    hooks += [m.register_forward_pre_hook(before) for m in body.modules() if isinstance(m, nn.BatchNorm2d)]
    parameter = next(body.parameters())
    modes = [(m, m.training) for m in body.modules()]
    try:
        with torch.no_grad():
            body.eval()(torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype))
    finally:
        for module, training in modes:
            module.training = training
        for hook in hooks:
            hook.remove()
    return pairs


def fold_frozen(body: nn.Module) -> int:
    """Let every frozen BatchNorm of `body` be computed as part of its convolution, at each forward pass.

    The arithmetic and the trainable weights stay the same, state dicts too; forward and backward lose one
    pass over every feature map. Returns the number of pairs.
    """
    count = 0
    for conv, norm in find_pairs(body):
        if norm.training or any(p.requires_grad for p in norm.parameters(recurse=False)):
            continue
        conv.forward = partial(_folded_forward, conv, norm)  # type: ignore[method-assign]
        norm.forward = partial(activation, norm)  # type: ignore[method-assign]
        count += 1
    return count


def _folded_forward(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    weight, shift = folded(conv, norm)
    padding = conv.padding
    if type(conv).__name__ == "Conv2dSame":  # TensorFlow's padding, as timm has it in its tf_ models
        from timm.layers.padding import pad_same

        x, padding = pad_same(x, conv.kernel_size, conv.stride, conv.dilation), (0, 0)  # type: ignore[arg-type]
    return F.conv2d(x, weight, shift, conv.stride, padding, conv.dilation, conv.groups)


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that equals `conv` followed by `norm` in eval mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    if conv.bias is not None:
        shift = shift + conv.bias * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    return conv.weight * scale.view(-1, 1, 1, 1), shift


def activation(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """What a BatchNorm module does besides the norm: timm's carry dropout and activation."""
    for name in ("drop", "act"):
        module = getattr(norm, name, None)
        if module is not None:
            x = module(x)
    return x
