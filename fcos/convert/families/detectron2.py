"""detectron2's own FCOS (`detectron2/modeling/meta_arch/fcos.py`)."""

from __future__ import annotations

from typing import Any

from ..backbones import detectron2_resnet, sequential_towers
from ..family import Family, Reading

# what detectron2 and AdelaiDet share
RESNEXT_STD = (58.395, 57.12, 57.375)
FPN = (
    ("fpn.lateral.{i}.{k}", "backbone.fpn_lateral{i+3}.{k}"),
    ("fpn.output.{i}.{k}", "backbone.fpn_output{i+3}.{k}"),
    ("fpn.extra.0.{k}", "backbone.top_block.p6.{k}"),
    ("fpn.extra.1.{k}", "backbone.top_block.p7.{k}"),
)
SPARE = (
    ("pixel_mean", "pixel mean, kept in the config"),
    ("pixel_std", "pixel standard deviation, kept in the config"),
)


def pixels(reading: Reading) -> tuple[dict[str, Any], list[str]]:
    """Settings of the backbone's pixels and strides: MSRA's ResNets stride in the 1x1, ResNeXt does not."""
    mean, std = reading.info.get("pixel_mean"), reading.info.get("pixel_std")
    settings: dict[str, Any] = {}
    reasons = []
    if not reading.backbone.startswith("resnet"):
        settings["stride_in_1x1"] = False
    if reading.backbone == "resnext101_32x8d":
        settings["std"] = RESNEXT_STD
        reasons.append("ResNeXt 32x8d: pixels divided by the standard deviation, as in its configs")
    if mean is not None and std is not None:  # stored in BGR order
        settings |= {"mean": tuple(mean[::-1]), "std": tuple(std[::-1])}
        reasons.append("pixel mean and deviation as the file holds them")
    return settings, reasons


def _settings(reading: Reading) -> tuple[str, dict[str, Any], list[str]]:
    model, reasons = pixels(reading)
    return "detectron2", {"model": model}, reasons


FAMILY = Family(
    name="detectron2",
    about="detectron2",
    dialects=("detectron2",),
    settings=_settings,
    entry="model",
    rules=(
        *FPN,
        *sequential_towers("head.classification", "head.cls_subnet"),
        *sequential_towers("head.regression", "head.bbox_subnet"),
        ("head.class_logits.{k}", "head.cls_score.{k}"),
        ("head.box_distances.{k}", "head.bbox_pred.{k}"),
        ("head.centerness.{k}", "head.ctrness.{k}"),
        *detectron2_resnet("backbone.bottom_up."),
    ),
    spare=(*SPARE, ("anchor_generator.", "positions of points, computed here")),
)
