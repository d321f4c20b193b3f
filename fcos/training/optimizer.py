"""What moves the weights: parameter groups, the learning rate as a pure function of the step, EMA."""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..network.model import FCOS


def learning_rate(step: int, total: int, cfg: TrainConfig) -> float:
    """Factor of `cfg.lr` at a step of 0..total-1: warm-up, then step, cosine or constant."""
    warmup = min(cfg.warmup, total // 10)
    if step < warmup:
        if cfg.warmup_rule == "constant":
            return cfg.warmup_start
        return cfg.warmup_start + (1 - cfg.warmup_start) * step / warmup
    if cfg.schedule == "constant":
        return 1.0
    if cfg.schedule == "step":
        return cfg.gamma ** sum(step >= round(m * total) for m in cfg.milestones)
    progress = (step - warmup) / max(1, total - warmup)
    return cfg.final_lr + (1 - cfg.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def parameter_groups(network: FCOS, cfg: TrainConfig) -> list[dict[str, Any]]:
    """Trainable parameters by learning rate and weight decay; each group carries its `factor` of the rate."""
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    norms = {
        id(p)
        for m in network.modules()
        if isinstance(m, nn.GroupNorm | nn.modules.batchnorm._BatchNorm | nn.LayerNorm)
        for p in m.parameters(recurse=False)
    }
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        factor = 1.0
        if name.startswith("backbone."):
            factor = cfg.backbone_lr * cfg.layer_decay ** _depth(name, network)
        is_bias = name.endswith("bias") and (cfg.bias_of_norms or id(parameter) not in norms)
        decay = cfg.weight_decay
        spared = (
            parameter.ndim <= 1 if cfg.decay_norm is False else cfg.decay_norm == "biases" and id(parameter) in norms
        )
        if spared or (is_bias and not cfg.bias_decay):
            decay = 0.0
        factor *= cfg.bias_lr if is_bias else 1.0
        group = groups.setdefault(
            (factor, decay), {"params": [], "lr": cfg.lr * factor, "weight_decay": decay, "factor": factor}
        )
        group["params"].append(parameter)
    return list(groups.values())


def make_optimizer(network: FCOS, cfg: TrainConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over `parameter_groups`."""
    groups = parameter_groups(network, cfg)
    if cfg.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=cfg.lr, momentum=cfg.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=cfg.lr, betas=(cfg.momentum, 0.999), fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """`rate` times each group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def _depth(name: str, network: FCOS) -> int:
    """Stages between a backbone parameter and the top: 0 for the last stage, more towards the stem."""
    flat = name.removeprefix("backbone.body.").replace(".", "_") + "_"
    stages = [s.replace(".", "_") + "_" for s in network.backbone.stages]
    for depth, stage in enumerate(reversed(stages)):
        if flat.startswith(stage):
            return depth
    return len(stages) - 1


class _Tensors(NamedTuple):
    """Tensors of an average, each with the one it follows: parameters that are learned, and buffers."""

    learned: list[tuple[Tensor, Tensor]]
    buffers: list[tuple[Tensor, Tensor]]


class Average:
    """Exponential moving average of a network's weights; `network` holds it, ready for evaluation.

    The decay rises from 0.1 as (1 + t) / (10 + t), so that short runs are not tied to their first steps.
    """

    def __init__(self, network: FCOS, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._last: tuple[FCOS, _Tensors] | None = None  # gathering them takes 20 ms, at each step the same

    @torch.no_grad()
    def update(self, network: FCOS, step: int) -> None:
        """After optimiser step number `step` (0-based)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        if self._last is None or self._last[0] is not network:
            self._last = network, self._tensors(network)
        learned, buffers = self._last[1]
        torch._foreach_lerp_([a for a, _ in learned], [b for _, b in learned], 1 - decay)
        for ours, theirs in buffers:
            ours.copy_(theirs)

    def _tensors(self, network: FCOS) -> _Tensors:
        parameters = zip(self.network.parameters(), network.parameters(), strict=True)
        buffers = zip(self.network.buffers(), network.buffers(), strict=True)
        return _Tensors([(a, b) for a, b in parameters if b.requires_grad], list(buffers))
