"""What a model is made of, computed from the network itself: parameters, FLOPs by part, output variables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from ..boxes import load_operators
from ..config import Config
from ..errors import one_line
from ..points import level_of, level_shapes, padded
from ..system.terminal import parse_shape, plural
from .model import FCOS

_NAMES = 20  # of classes that are listed
ANCHORS = 9  # a location's anchors in RetinaNet: 3 scales x 3 shapes (1904.01355, section 3.1)


@dataclass(frozen=True)
class NetworkPart:
    """One part of the network: its parameters and its FLOPs (2 per multiply-add) at the given size."""

    name: str
    parameters: int
    flops: int


@dataclass(frozen=True)
class Info:
    """Everything `fcos info` tells; see `describe_model`. Of weights also the `names` of their classes, from which
    score on detections are `shown`, and what the file says `about` itself."""

    name: str
    dialect: str
    range_rule: str
    backbone: str
    classes: int
    size: tuple[int, int]
    parts: tuple[NetworkPart, ...]
    levels: tuple[dict[str, Any], ...]
    points: int
    outputs: int
    anchor_outputs: int
    layers: tuple[tuple[str, str, int], ...]
    names: tuple[str, ...] = ()
    shown: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the upper limit of the last level is None."""
        told = asdict(self)
        told["levels"] = [{k: None if v == math.inf else v for k, v in level.items()} for level in self.levels]
        return told

    def text(self) -> str:
        """For a terminal."""
        lines = [
            f"{self.name}: {self.backbone} backbone, {plural(self.classes, 'class')}, dialect {self.dialect}",
            *self._weights(),
            "",
            f"part       parameters     GFLOP   share   at {self.size[0]}x{self.size[1]}",
        ]
        total = sum(p.flops for p in self.parts) or 1
        for part in self.parts:
            lines.append(f"{part.name:<9}{part.parameters:>12,}{part.flops / 1e9:>10.2f}{part.flops / total:>8.0%}")
        lines += [
            f"{'all':<9}{sum(p.parameters for p in self.parts):>12,}{total / 1e9:>10.2f}",
            "",
            "level  stride  grid        points   learns boxes with max(l,t,r,b) in",
        ]
        brackets = {"strict": "()", "inclusive": "[]"}.get(self.range_rule, "(]")
        for level in self.levels:
            grid = f"{level['height']}x{level['width']}"
            lines.append(
                f"P{level['level']:<5}{level['stride']:>7}  {grid:<10}{level['points']:>8}   "
                f"{brackets[0]}{level['lower']:g}, {level['upper']:g}{brackets[1]} px"
            )
        lines += [
            "",
            f"output variables: {self.outputs:,} from {self.points:,} points x "
            f"({plural(self.classes, 'class')} + 4 + 1)",
            f"with {ANCHORS} anchors a location (classes + 4 each): {self.anchor_outputs:,}, "
            f"{self.anchor_outputs / self.outputs:.2f} times as many",
        ]
        if self.layers:
            width = max(len(n) for n, _, _ in self.layers)
            lines += ["", *(f"{n:<{width}}  {kind:<22}{count:>11,}" for n, kind, count in self.layers)]
        return "\n".join(lines)

    def _weights(self) -> list[str]:
        """What a person who was given the file asks first."""
        told, more = self.about, len(self.names) - _NAMES
        names = ", ".join(self.names[:_NAMES]) + (f" and {more} more" if more > 0 else "")
        ap = told.get("AP")
        numbers = [f"AP {ap:.3f}"] if isinstance(ap, int | float) else []
        numbers += [f"on {told['judged_on']}"] if numbers and told.get("judged_on") else []
        rows = [
            ("classes", names),
            ("shown", "" if self.shown is None else f"from score {self.shown:.2f}"),
            ("judged", " ".join(numbers)),
            ("licence", told.get("licence")),
            ("recipe", told.get("command")),
        ]
        return [f"{key:<9}{one_line(str(value), 1000)}" for key, value in rows if value]


def parse_size(text: str | None, config: Config) -> tuple[int, int]:
    """(height, width) of "HxW" or "N", padded to the divisor; the config's square size when None."""
    shape = (config.data.size, config.data.size) if text is None else parse_shape(text)
    return padded(shape, config.data.divisor)


def describe_network(network: FCOS, config: Config, size: tuple[int, int], layers: bool = False) -> Info:
    """Info of a network for inputs of (height, width); FLOPs are counted while it runs once."""
    flops = _count_flops(network, size)
    parts = tuple(
        NetworkPart(name, sum(p.numel() for p in module.parameters()), flops.get(name, 0))
        for name, module in (("backbone", network.backbone), ("fpn", network.fpn), ("head", network.head))
    )
    limits = (0.0, *config.assign.ranges, float("inf"))
    levels: list[dict[str, Any]] = []
    for i, (stride, (height, width)) in enumerate(
        zip(config.model.strides, level_shapes(size, config.model.strides), strict=True)
    ):
        levels.append(
            {
                "level": level_of(stride),
                "stride": stride,
                "height": height,
                "width": width,
                "points": height * width,
                "lower": limits[i],
                "upper": limits[i + 1],
            }
        )
    points = sum(int(level["points"]) for level in levels)
    return Info(
        name=config.name,
        dialect=config.dialect,
        range_rule=config.assign.range_rule,
        backbone=config.model.backbone,
        classes=network.num_classes,
        size=size,
        parts=parts,
        levels=tuple(levels),
        points=points,
        outputs=points * (network.num_classes + 4 + 1),
        anchor_outputs=points * ANCHORS * (network.num_classes + 4),
        layers=tuple(_layers(network)) if layers else (),
    )


def _count_flops(network: FCOS, size: tuple[int, int]) -> dict[str, int]:
    from torch.utils.flop_counter import FlopCounterMode  # with all of triton: a tenth of the time of `fcos predict`

    operator = load_operators().deform_conv2d
    count = FlopCounterMode(display=False, custom_mapping={operator: _deformable})
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), count as counter:  # only shapes are computed
        network(torch.zeros(1, 3, *size))
    counts = counter.get_flop_counts()
    root = type(network).__name__
    return {part: sum(counts.get(f"{root}.{part}", {}).values()) for part in ("backbone", "fpn", "head")}


def _deformable(x: Any, weight: Any, *others: Any, out_shape: Any, **more: Any) -> int:
    """FLOPs of a deformable convolution from shapes, as those of a plain one; sampling is not counted."""
    result: int = 2 * out_shape[0] * math.prod(out_shape[2:]) * math.prod(weight)
    return result


def _layers(network: nn.Module) -> list[tuple[str, str, int]]:
    return [
        (name, type(module).__name__, sum(p.numel() for p in module.parameters()))
        for name, module in network.named_modules()
        if not list(module.children()) and any(True for _ in module.parameters())
    ]
