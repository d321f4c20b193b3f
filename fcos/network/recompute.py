"""Activation checkpointing (Chen et al., arXiv 1604.06174): blocks forget what they computed and compute it again
in the backward pass. Less memory for more time, the same gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(network: nn.Module) -> int:
    """Let every trainable block of `network` be computed again in the backward pass; returns how many."""
    blocks = [b for b in find_blocks(network) if any(p.requires_grad for p in b.parameters())]
    for block in blocks:
        block.forward = partial(_recomputed, block, block.forward)
    return len(blocks)


def find_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The blocks that stand in the lists and sequences of a network: residual blocks, tower layers."""
    listed = isinstance(module, nn.Sequential | nn.ModuleList)
    for child in module.children():
        inner = list(child.children())
        sequence = isinstance(child, nn.Sequential | nn.ModuleList) and any(list(m.children()) for m in inner)
        if listed and inner and not sequence:
            yield child
        else:
            yield from find_blocks(child)


def _recomputed(block: nn.Module, forward: Callable[..., Any], *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=partial(_contexts, block))


def _contexts(block: nn.Module) -> tuple[Any, Any]:
    return contextlib.nullcontext(), _statistics_kept(block)


@contextlib.contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """The second pass must not count a batch twice in the running statistics of BatchNorm."""
    norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    before = [(m.momentum, m.num_batches_tracked.clone() if m.num_batches_tracked is not None else None) for m in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and batches is not None:
                norm.num_batches_tracked.copy_(batches)
