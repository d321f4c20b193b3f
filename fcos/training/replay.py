"""`fcos train --replay`: a step whose loss or gradient was not finite, done again under observation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..assign import assign_batch
from ..config import from_dict
from ..errors import ModelError, first_line
from ..losses import Assignment, Normalizers
from ..network import weights
from ..points import make_points
from ..system.terminal import plural
from ..types import Batch, Predictions, Target
from .output.step_file import load_step
from .setup import make_fabric, make_ready
from .step import backward_parts

TERMS = ("classification", "box", "centerness")
_LISTED = 8  # names in a list


@dataclass
class Replay:
    """What a step did when it was done again. Lists of names are in the order of the network."""

    step: int
    files: list[str]
    processes: int  # of the run
    recorded: list[list[float]]  # losses of each part, by TERMS
    losses: list[list[float]]
    recorded_norm: float
    grad_norm: float
    weights: list[str]  # parameters that were not finite before the step
    heaviest: tuple[str, float]  # the weight of largest magnitude among the finite ones
    first: str | None  # module whose output was the first that is not finite
    images: list[str]  # with predictions that are not finite
    predictions: dict[str, bool]  # is the gradient of the loss by each prediction finite?
    gradients: list[str]  # parameters whose gradient is not finite
    layers: int  # parameters with a gradient
    largest: list[tuple[str, float]] = field(default_factory=list)  # layers with the largest gradient norms

    def reproduced(self, tolerance: float = 1e-4) -> bool:
        """Are all losses what they were, to a relative `tolerance`, and NaN or infinite where they were?"""
        before = [x for part in self.recorded for x in part]
        now = [x for part in self.losses for x in part]
        return len(before) == len(now) and all(_same(a, b, tolerance) for a, b in zip(before, now, strict=True))

    def text(self) -> str:
        """For a terminal."""
        lines = [f"step {self.step}, {plural(len(self.files), 'image')}", "", f"{'':<16}{'recorded':>14}{'now':>14}"]
        for number, (before, now) in enumerate(zip(self.recorded, self.losses, strict=True)):
            part = f" of part {number + 1}" if len(self.losses) > 1 else ""
            for name, a, b in zip(TERMS, before, now, strict=True):
                lines.append(f"{name + part:<16}{a:>14.6g}{b:>14.6g}{'' if math.isfinite(b) else '   not finite'}")
        lines.append(f"{'gradient norm':<16}{self.recorded_norm:>14.6g}{self.grad_norm:>14.6g}")
        lines.append("the losses are those of the run" if self.reproduced() else "the losses are NOT those of the run")
        if not self.reproduced() and self.processes > 1:
            lines.append(f"it had {self.processes} processes; trained BatchNorm took its statistics over all of them")
        lines += ["", *_wrap("weights not finite before the step", self.weights, "none")]
        lines.append(f"largest weight: {self.heaviest[1]:.4g}, in {self.heaviest[0]}")
        lines.append(f"first output not finite: {self.first or 'none, all outputs are finite'}")
        if self.images and len(self.images) < len(self.files):
            lines += _wrap("images with such outputs", self.images, "none")
        for name, finite in self.predictions.items():
            if not finite:
                lines.append(f"gradient of the loss by the {name}: not finite")
        bad = f"{len(self.gradients)} of {self.layers}"
        lines += _wrap(f"gradients not finite, {bad}", self.gradients, "none")
        if self.largest:
            lines.append("largest gradients: " + ", ".join(f"{n} {v:.3g}" for n, v in self.largest))
        return "\n".join(lines)


def _wrap(title: str, names: Sequence[str], nothing: str) -> list[str]:
    if not names:
        return [f"{title}: {nothing}"]
    more = [f"  and {len(names) - _LISTED} more"] if len(names) > _LISTED else []
    return [f"{title}:", *(f"  {n}" for n in names[:_LISTED]), *more]


def _same(a: float, b: float, tolerance: float) -> bool:
    if math.isfinite(a) and math.isfinite(b):
        return abs(a - b) <= tolerance * max(abs(a), abs(b), 1e-12)
    return (math.isnan(a) and math.isnan(b)) or a == b


def replay(path: str | Path, device: str = "auto") -> Replay:
    """Do the step in the file again, without the optimiser. ModelError when the file cannot be read."""
    stored = load_step(Path(path))
    config = from_dict(stored["config"], str(path)).override({"train": {"compile": False}})
    fabric = make_fabric(config, device, 1, 1)
    network = weights.build(config, len(stored["classes"]))
    learned = {name for name, _ in network.named_parameters()}  # BatchNorm's statistics are of after the step
    try:
        network.load_state_dict(stored["model"])
        batches = [_batch(b).to(fabric.device) for b in stored["batches"]]
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ModelError(f"{path} is damaged: {first_line(error)}") from error
    make_ready(network, config, fabric.device)
    model: Any = fabric.setup_module(network)
    height, width = batches[0].images.shape[-2:]
    points = make_points((height, width), config.model, config.assign, fabric.device)
    index = [assign_batch(points, b.targets, config.assign) for b in batches]
    assigned = [Assignment.of(points, b.targets, i) for b, i in zip(batches, index, strict=True)]
    norm = Normalizers(*(torch.tensor(n, device=fabric.device) for n in stored["normalizers"]))

    watch = _Watch(network)
    torch.manual_seed(stored["seed"])
    torch.set_rng_state(stored["rng"])
    network.train()
    parts = backward_parts(fabric, model, list(zip(batches, assigned, strict=True)), norm, config)
    gradients = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    norms = {n: float(g.norm()) for n, g in gradients.items()}
    finite = {n: v for n, v in norms.items() if math.isfinite(v)}
    return Replay(
        step=stored["step"],
        files=stored["files"],
        processes=stored["world"],
        recorded=stored["losses"],
        losses=[[float(x) for x in part.losses] for part in parts],
        recorded_norm=stored["grad_norm"],
        grad_norm=float(torch.nn.utils.get_total_norm(list(gradients.values()))),
        weights=[n for n, t in stored["model"].items() if n in learned and not _finite(t)],
        heaviest=max(
            ((n, float(p.detach().abs().nan_to_num(0.0, 0.0, 0.0).max())) for n, p in network.named_parameters()),
            key=lambda pair: pair[1],
        ),
        first=watch.first,
        images=_images(watch.predictions, stored["files"]),
        predictions=watch.gradients(),
        gradients=[n for n, g in gradients.items() if not _finite(g)],
        layers=len(gradients),
        largest=sorted(finite.items(), key=lambda pair: -pair[1])[:3],
    )


def _batch(stored: Mapping[str, Any]) -> Batch:
    sizes = [(int(h), int(w)) for h, w in stored["sizes"]]
    return Batch(stored["images"], sizes, [Target(**t) for t in stored["targets"]], list(stored["ids"]))


def _finite(x: Tensor) -> bool:
    return bool(torch.isfinite(x.detach()).all()) if x.is_floating_point() else True


def _images(predictions: Sequence[Predictions], files: Sequence[str]) -> list[str]:
    bad: list[bool] = []
    for pred in predictions:
        wrong = [~torch.isfinite(x.detach()).flatten(1).all(dim=1) for x in pred]
        bad += torch.stack(wrong).any(dim=0).tolist()
    return [name for name, wrong in zip(files, bad, strict=True) if wrong]


class _Watch:
    """Sees every module's output in the forward pass, and the gradient of the loss by the predictions."""

    def __init__(self, network: nn.Module) -> None:
        self.first: str | None = None
        self.predictions: list[Predictions] = []
        for name, module in network.named_modules():
            if not list(module.children()):
                module.register_forward_hook(lambda _, __, out, name=name: self._look(name, out))
        network.register_forward_hook(lambda _, __, out: self._end(out))

    def _look(self, name: str, output: Any) -> None:
        if self.first is None and not all(_finite(x) for x in tree_leaves(output) if isinstance(x, Tensor)):
            self.first = name

    def _end(self, pred: Predictions) -> None:
        self._look("the predictions", pred)
        for value in pred:
            if value.requires_grad:
                value.retain_grad()
        self.predictions.append(pred)

    def gradients(self) -> dict[str, bool]:
        """Of each prediction: is the gradient of the loss by it finite?"""
        return {
            name: all(_finite(g) for p in self.predictions if (g := getattr(p, name).grad) is not None)
            for name in Predictions._fields
        }
