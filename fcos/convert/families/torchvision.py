"""torchvision's `fcos_resnet50_fpn` and its relatives: `torchvision.models.detection.FCOS`."""

from __future__ import annotations

from typing import Any

from ..backbones import same, sequential_towers
from ..family import Family, Reading


def _settings(reading: Reading) -> tuple[str, dict[str, Any], list[str]]:
    return "torchvision", {}, []


FAMILY = Family(
    name="torchvision",
    about="torchvision",
    dialects=("torchvision",),
    settings=_settings,
    rules=(
        ("fpn.lateral.{i}.{k}", "backbone.fpn.inner_blocks.{i}.0.{k}"),
        ("fpn.output.{i}.{k}", "backbone.fpn.layer_blocks.{i}.0.{k}"),
        ("fpn.extra.0.{k}", "backbone.fpn.extra_blocks.p6.{k}"),
        ("fpn.extra.1.{k}", "backbone.fpn.extra_blocks.p7.{k}"),
        *sequential_towers("head.classification", "head.classification_head.conv"),
        *sequential_towers("head.regression", "head.regression_head.conv"),
        ("head.class_logits.{k}", "head.classification_head.cls_logits.{k}"),
        ("head.box_distances.{k}", "head.regression_head.bbox_reg.{k}"),
        ("head.centerness.{k}", "head.regression_head.bbox_ctrness.{k}"),
        *same("backbone.body."),
    ),
    # before torchvision 0.13 the FPN's convolutions stood without a Sequential around them
    aliases=((r"(inner|layer)_blocks\.(\d)\.(weight|bias)$", r"\1_blocks.\2.0.\3"),),
)
