"""The authors' own code (`tianzhi0549/FCOS`, on maskrcnn-benchmark)."""

from __future__ import annotations

import re
from typing import Any

from ..backbones import mobilenet_v2, same, sequential_towers
from ..family import Family, Reading


def _settings(reading: Reading) -> tuple[str, dict[str, Any], list[str]]:
    model: dict[str, Any] = {}
    if not reading.backbone.startswith("resnet"):
        model["stride_in_1x1"] = False
    if reading.backbone == "mobilenetv2_100":
        model["backbone_norm_eps"] = None
    # the first and the improved version have the same tensors
    deformable = any(".offset." in key for key in reading.state)
    if "imprv" in reading.file or deformable:
        dialect, why = (
            "original",
            "the file name says imprv" if not deformable else "DCNv2 came with the improved version",
        )
    elif reading.backbone == "mobilenetv2_100":
        dialect, why = "original-2019", "MobileNetV2 was trained with the first version's settings"
    elif re.search(r"fcos_(r|x|mnv2|bn|syncbn)_?", reading.file):
        dialect, why = "original-2019", "the file name is one of the first version's"
    else:
        dialect, why = "original", "the names do not show the version; for the first: --dialect original-2019"
    version = "improved version" if dialect == "original" else "first version (exp, centerness beside the classes)"
    return dialect, {"model": model}, [f"{version}: {why}"]


FAMILY = Family(
    name="original",
    about="the authors' code",
    dialects=("original", "original-2019"),
    settings=_settings,
    entry="model",
    rules=(
        ("fpn.lateral.{i}.{k}", "backbone.fpn.fpn_inner{i+2}.{k}"),
        ("fpn.output.{i}.{k}", "backbone.fpn.fpn_layer{i+2}.{k}"),
        ("fpn.extra.0.{k}", "backbone.fpn.top_blocks.p6.{k}"),
        ("fpn.extra.1.{k}", "backbone.fpn.top_blocks.p7.{k}"),
        *sequential_towers("head.classification", "rpn.head.cls_tower"),
        *sequential_towers("head.regression", "rpn.head.bbox_tower"),
        ("head.class_logits.{k}", "rpn.head.cls_logits.{k}"),
        ("head.box_distances.{k}", "rpn.head.bbox_pred.{k}"),
        ("head.centerness.{k}", "rpn.head.centerness.{k}"),
        ("head.scales.{i}", "rpn.head.scales.{i}.scale"),
        ("backbone.body.conv1.{k}", "backbone.body.stem.conv1.{k}"),
        ("backbone.body.bn1.{k}", "backbone.body.stem.bn1.{k}"),
        ("backbone.body.layer{s}.{i}.conv2.offset.{k}", "backbone.body.layer{s}.{i}.conv2.offset.{k}"),
        ("backbone.body.layer{s}.{i}.conv2.@{k}", "backbone.body.layer{s}.{i}.conv2.conv.{k}"),
        *mobilenet_v2("backbone.body."),
        *same("backbone.body."),
    ),
)
