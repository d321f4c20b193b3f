"""The network that a set of tensors belongs to, read off our names and their shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import ModelError
from ..system.terminal import plural

_RESNETS: dict[
    tuple[tuple[int, ...], int, int], str
] = {  # blocks a stage, width of the first 3x3 conv, its channels a group
    ((3, 4, 6, 3), 64, 64): "resnet50",
    ((3, 4, 23, 3), 64, 64): "resnet101",
    ((3, 8, 36, 3), 64, 64): "resnet152",
    ((3, 4, 6, 3), 128, 4): "resnext50_32x4d",
    ((3, 4, 23, 3), 128, 4): "resnext101_32x4d",
    ((3, 4, 23, 3), 256, 8): "resnext101_32x8d",
    ((3, 4, 23, 3), 256, 4): "resnext101_64x4d",
    ((3, 4, 6, 3), 128, 128): "wide_resnet50_2",
    ((3, 4, 23, 3), 128, 128): "wide_resnet101_2",
}
_BASIC: dict[tuple[int, ...], str] = {(2, 2, 2, 2): "resnet18", (3, 4, 6, 3): "resnet34"}
WITHOUT_BOTTLENECKS = tuple(_BASIC.values())
_RANGES = (64.0, 128.0, 256.0, 512.0)


def backbone_of(state: Mapping[str, Tensor]) -> str:
    """timm's name of the backbone whose tensors these are; ModelError when it is none of the known ones."""
    prefix = "backbone.body."
    if prefix + "layer1.0.conv1.weight" in state and prefix + "stage4.0.branches.0.0.conv1.weight" not in state:
        blocks = tuple(_count(state, rf"{re.escape(prefix)}layer{s}\.(\d+)\.") for s in (1, 2, 3, 4))
        second = state[prefix + "layer1.0.conv2.weight"]
        basic = prefix + "layer1.0.conv3.weight" not in state
        name = _BASIC.get(blocks) if basic else _RESNETS.get((blocks, second.shape[0], second.shape[1]))
        if name is None:
            raise ModelError(
                f"a ResNet with {blocks} blocks and 3x3 convs of shape {tuple(second.shape)} is not known here"
            )
        return name
    if prefix + "stage4.0.branches.0.0.conv1.weight" in state:
        return f"hrnet_w{state[prefix + 'stage4.0.branches.0.0.conv1.weight'].shape[0]}"
    if prefix + "base_layer.0.weight" in state and prefix + "level5.root.conv.weight" in state:
        return "dla34"
    if prefix + "conv_stem.weight" in state and prefix + "blocks.6.0.conv_pwl.weight" in state:
        return "mobilenetv2_100"
    names = sorted(k for k in state if k.startswith(prefix))[:3]
    raise ModelError(
        f"the backbone of this checkpoint is not known here; its tensors begin {', '.join(names) or 'nowhere'}"
    )


def model_settings(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Any], int, list[str]]:
    """(model section, assign section, number of classes, reasons) that the tensors imply."""
    for needed in ("head.class_logits.weight", "head.box_distances.weight", "head.centerness.weight"):
        if needed not in state:
            raise ModelError(f"this is not a complete FCOS: {needed} has no counterpart in the file")
    backbone = backbone_of(state)
    classes, width = state["head.class_logits.weight"].shape[:2]
    towers = {
        name: _count(state, rf"head\.{name}\.layers\.(\d+)\.") for name in ("shared", "classification", "regression")
    }
    if towers["classification"] != towers["regression"]:
        raise ModelError(
            f"towers of {towers['classification']} and {towers['regression']} convs: both must have as many here"
        )
    first = next((f"head.{n}.layers.0." for n in ("shared", "classification") if towers[n]), None)
    norm, bias = "group", True
    if first:
        batch, group = f"{first}norm.0.weight" in state, f"{first}norm.weight" in state
        norm = "batch" if batch else "group" if group else "none"
        bias = f"{first}conv.bias" in state
    if "fpn.output.0.weight" not in state:
        raise ModelError("this is not a complete FCOS: fpn.output.0.weight has no counterpart in the file")
    width_of_fpn = state["fpn.output.0.weight"].shape[0]
    outputs = _count(state, r"fpn\.output\.(\d+)\.")
    levels = outputs + _count(state, r"fpn\.extra\.(\d+)\.")
    deformable = _deformable_stages(state)
    last = f"head.classification.layers.{towers['classification'] - 1}.conv.offset.weight"
    counted = any(k.startswith("backbone.") and k.endswith("num_batches_tracked") for k in state)
    model = {
        "backbone": backbone,
        "backbone_weights": "none",
        "backbone_norm": "batch" if counted else "frozen",
        "deformable_stages": deformable,
        "strides": tuple(8 * 2**i for i in range(levels)),
        "fpn_channels": width_of_fpn,
        "head_channels": width,
        "head_convs": towers["classification"],
        "head_shared_convs": towers["shared"],
        "head_norm": norm,
        "head_bias": bias,
        "head_deformable": last in state,
        "scale": "head.scales" in state,
        "extra_from": "body" if _inputs(state, "fpn.extra.0.weight") not in (0, width_of_fpn) else "fpn",
        "neck": "hrfpn" if "fpn.reduction.weight" in state else "fpn",
    }
    reasons = [
        f"backbone {backbone}" + (f" with DCNv2 in stages {', '.join(map(str, deformable))}" if deformable else ""),
        f"{plural(levels, 'level')} of {model['fpn_channels']} channels, {plural(classes, 'class')}",
        f"towers of {towers['classification']} convs"
        + (f" behind {towers['shared']} shared ones" if towers["shared"] else "")
        + (", the last one DCNv2" if model["head_deformable"] else "")
        + {"group": ", GroupNorm", "batch": ", BatchNorm a level", "none": ", no norm"}[norm]
        + ("" if bias else ", no bias"),
    ]
    return model, {"ranges": _RANGES[: levels - 1]}, classes, reasons


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max((int(m[1]) for k in state if (m := re.match(pattern, k))), default=-1)


def _inputs(state: Mapping[str, Tensor], name: str) -> int:
    return state[name].shape[1] if name in state else 0


def _deformable_stages(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    stages: list[int] = []
    for stage in (1, 2, 3, 4):
        blocks = _count(state, rf"backbone\.body\.layer{stage}\.(\d+)\.")
        offsets = [state.get(f"backbone.body.layer{stage}.{i}.conv2.offset.weight") for i in range(blocks)]
        held = [o for o in offsets if o is not None]
        if not held:
            continue
        if len(held) != blocks:
            raise ModelError(
                f"stage {stage} has deformable convs in {len(held)} of {blocks} blocks; all or none can be read"
            )
        if held[0].shape[0] != 27:
            raise ModelError(
                f"offsets of {held[0].shape[0]} channels: only DCNv2 with one group (27 channels) can be read"
            )
        stages.append(stage)
    return tuple(stages)
