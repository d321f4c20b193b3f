"""AdelaiDet's FCOS and FCOS-RT (`adet/modeling/fcos`)."""

from __future__ import annotations

from typing import Any

from ..backbones import detectron2_resnet, mobilenet_v2, same, sequential_towers
from ..family import Family, Reading
from .detectron2 import FPN, SPARE, pixels

_HEAD = "proposal_generator.fcos_head."


def _settings(reading: Reading) -> tuple[str, dict[str, Any], list[str]]:
    model, reasons = pixels(reading)
    settings: dict[str, Any] = {"model": model}
    dialect = "adelaidet"
    if "iou" in reading.file:
        dialect = "adelaidet-iou"
        reasons.append("IoU in place of centerness, because the file name says iou")
    else:
        reasons.append("the names do not show whether it learned centerness or IoU; for IoU: --dialect adelaidet-iou")
    if reading.levels == 3:
        settings["data"] = {"size": 512, "max_size": 736, "train_sizes": tuple(range(256, 609, 32))}
        reasons.append("three levels: FCOS-RT, 512 px")
    return dialect, settings, reasons


FAMILY = Family(
    name="adelaidet",
    about="AdelaiDet",
    dialects=("adelaidet", "adelaidet-iou"),
    settings=_settings,
    entry="model",
    rules=(
        *FPN,
        *sequential_towers("head.shared", f"{_HEAD}share_tower"),
        *sequential_towers("head.classification", f"{_HEAD}cls_tower"),
        *sequential_towers("head.regression", f"{_HEAD}bbox_tower"),
        ("head.class_logits.{k}", f"{_HEAD}cls_logits.{{k}}"),
        ("head.box_distances.{k}", f"{_HEAD}bbox_pred.{{k}}"),
        ("head.centerness.{k}", f"{_HEAD}ctrness.{{k}}"),
        ("head.scales.{i}", f"{_HEAD}scales.{{i}}.scale"),
        *detectron2_resnet("backbone.bottom_up."),
        *mobilenet_v2("backbone.bottom_up."),
        *same("backbone.bottom_up."),  # DLA
    ),
    spare=(
        *SPARE,
        ("backbone.bottom_up.level3.project.", "DLA computes it and uses it nowhere"),
        ("backbone.bottom_up.level4.project.", "DLA computes it and uses it nowhere"),
    ),
)
