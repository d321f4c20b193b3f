"""BatchNorm with fixed statistics is a scaling of the convolution in front of it: one operation, not two."""

from __future__ import annotations

import copy
from collections import Counter
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from .backbones import DeformableConv2d
from .depthwise import Grid, convolve
from .halving import Halving, widened
from .lite import Conv2dSame
from .model import FCOS, TowerLayer


def fuse(network: FCOS, dtype: torch.dtype = torch.float32) -> FCOS:
    """A copy for inference only: BatchNorm folded into its convolutions, channels_last, weights in `dtype`.

    The outputs are the same to rounding. The statistics that a head keeps for each level become a convolution
    for each level. Pixels are normalised and distances computed in float32 whatever the `dtype`.
    """
    fused = copy.deepcopy(network).eval().requires_grad_(False)
    names = {module: name for name, module in fused.backbone.named_modules()}
    for conv, norm in find_pairs(fused.backbone.body):
        conv.weight, conv.bias = (nn.Parameter(t, requires_grad=False) for t in folded(conv, norm))
        rest = [m for m in (getattr(norm, name, None) for name in ("drop", "act")) if m is not None]
        fused.backbone.set_submodule(names[norm], nn.Sequential(*rest) if rest else nn.Identity())
    for layer in fused.head.modules():
        if isinstance(layer, TowerLayer) and isinstance(layer.norm, nn.ModuleList) and _is_norm(layer.norm[0]):
            _fuse_levels(layer)
    fused.to(memory_format=torch.channels_last)
    head = fused.head
    for part in (fused.backbone, fused.fpn, head.shared, head.classification, head.regression):
        part.to(dtype)
    head.class_logits.to(dtype)
    head.centerness.to(dtype)
    if dtype in (torch.bfloat16, torch.float16):
        for module in fused.modules():
            if isinstance(module, DeformableConv2d):  # torchvision has it in float32 only
                module.float()
    return fused


def _is_norm(module: nn.Module) -> bool:
    """Whether it is still to be folded; of a network that was fused before it is a convolution."""
    return isinstance(module, nn.BatchNorm2d)


def _fuse_levels(layer: TowerLayer) -> None:
    """One convolution for each level where there was one with a BatchNorm for each level."""
    conv: Any = layer.conv
    norms: Any = layer.norm
    last: Any = conv[-1] if isinstance(conv, nn.Sequential) else conv
    convs = []
    for norm in norms:
        own = copy.deepcopy(last)
        own.weight, own.bias = (nn.Parameter(t, requires_grad=False) for t in folded(last, norm))
        convs.append(own)
    layer.norm = nn.ModuleList(convs)
    layer.conv = conv[:-1] if isinstance(conv, nn.Sequential) else nn.Identity()


class _Uses(TorchFunctionMode):
    """Counts how often each tensor is the argument of a function that gives tensors (not of `x.dim()`)."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
            self.count.update(id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        return result


def find_pairs(backbone: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """(convolution, BatchNorm) pairs where the norm, and nothing else, takes what the convolution gives; found
    by running `backbone` once on a small empty image."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    pairs: dict[int, tuple[nn.Conv2d, nn.BatchNorm2d]] = {}
    uses = _Uses()

    def after(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        made[id(output)] = (module, output)  # type: ignore[assignment]  # the tensor is kept, so its id stays its own
        uses.count[id(output)] = 0  # a tensor that is gone may have had this id

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in made:
            pairs[id(inputs[0])] = (made[id(inputs[0])][0], module)  # type: ignore[assignment]

    hooks = [m.register_forward_hook(after) for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    hooks += [m.register_forward_pre_hook(before) for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    parameter = next(backbone.parameters())
    modes = [(m, m.training) for m in backbone.modules()]
    try:
        with torch.no_grad(), uses:
            given = backbone.eval()(torch.zeros(1, 3, 64, 64, device=parameter.device, dtype=parameter.dtype))
    finally:
        for module, training in modes:
            module.training = training
        for hook in hooks:
            hook.remove()
    uses.count.update(id(leaf) for leaf in tree_leaves(given))
    return [pair for output, pair in pairs.items() if uses.count[output] == 1]


def fold_frozen(backbone: nn.Module) -> int:
    """Let every frozen BatchNorm of `backbone` be computed as part of its convolution, at each forward pass.

    The arithmetic and the trainable weights stay the same, state dicts too; forward and backward lose one
    pass over every feature map. Returns the number of pairs.
    """
    count = 0
    for conv, norm in find_pairs(backbone):
        if norm.training or any(p.requires_grad for p in norm.parameters(recurse=False)):
            continue
        conv.forward = partial(_folded_forward, conv, norm)  # type: ignore[method-assign]
        norm.forward = partial(activation, norm)  # type: ignore[method-assign]
        count += 1
    return count


def _folded_forward(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    weight, shift = folded(conv, norm)
    padding = conv.padding
    if isinstance(conv, Conv2dSame):
        x = conv.pad(x)
    elif type(conv).__name__ == "Conv2dSame":  # the same in timm's tf_ models
        from timm.layers.padding import pad_same

        x, padding = pad_same(x, conv.kernel_size, conv.stride, conv.dilation), (0, 0)  # type: ignore[arg-type]
    even = conv.stride[0] == conv.stride[1] and padding[0] == padding[1] and tuple(conv.dilation) == (1, 1)

    def compute(x: Tensor) -> Tensor:
        if even and not isinstance(padding, str):
            return convolve(x, weight, shift, Grid(conv.stride[0], int(padding[0]), conv.groups))
        return F.conv2d(x, weight, shift, conv.stride, padding, conv.dilation, conv.groups)

    return widened(compute, x) if isinstance(conv, Halving) else compute(x)


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
