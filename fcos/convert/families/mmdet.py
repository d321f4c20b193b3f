"""mmdetection's FCOS (`mmdet/models/dense_heads/fcos_head.py`)."""

from __future__ import annotations

import re
from typing import Any

from ..backbones import same
from ..family import Family, Reading

_HEAD = "bbox_head."
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def _tower(ours: str, theirs: str) -> tuple[tuple[str, str], ...]:
    layer, other = f"{ours}.layers.{{i}}.", f"{_HEAD}{theirs}.{{i}}."
    return (
        (f"{layer}conv.offset.{{k}}", f"{other}conv.conv_offset.{{k}}"),
        (f"{layer}conv.{{k}}", f"{other}conv.{{k}}"),
        (f"{layer}norm.{{k}}", f"{other}gn.{{k}}"),
    )


def _settings(reading: Reading) -> tuple[str, dict[str, Any], list[str]]:
    model: dict[str, Any] = {"backbone_norm": "frozen"}  # its configs keep the statistics (norm_eval)
    reasons: list[str] = []
    improved = "head.classification.layers.0.conv.bias" in reading.state
    if improved:
        dialect = "mmdet"
        reasons.append("improved version: the tower convs have a bias")
    else:
        dialect = "mmdet-2019"
        reasons.append("first version (exp, centerness beside the classes): the tower convs have no bias")
    meta = reading.info.get("meta", {})
    text = next((meta[k] for k in ("cfg", "config") if isinstance(meta.get(k), str)), "")
    settings: dict[str, Any] = {"model": model}
    if text:
        stated, others, why = _from_config(text)
        model |= stated
        settings |= others
        reasons += why
    elif reading.backbone.startswith("hrnet"):
        model |= {"stride_in_1x1": False, "mean": _MEAN, "std": _STD}
        reasons.append(f"{reading.backbone}: BGR pixels divided by the standard deviation, as in its configs")
    elif not reading.backbone.startswith("resnet"):
        model |= {"stride_in_1x1": False, "bgr": False, "mean": _MEAN, "std": _STD}
        reasons.append(f"{reading.backbone}: pixels and strides of PyTorch's ImageNet models, as in its configs")
    if reading.backbone.startswith("hrnet"):
        model["stride_in_1x1"] = False
        settings["data"] = {"divisor": 64}
        reasons.append("HRFPN: images are padded to multiples of 64, where its pooled levels have whole cells")
    return dialect, settings, reasons


def _from_config(text: str) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """(model section, other sections, reasons) out of the training config that the file carries as text."""
    model = {**_pixels(text), **_head(text)}
    others = {"assign": _assign(text), "loss": _loss(text), "decode": _decode(text), "data": _data(text)}
    others = {section: values for section, values in others.items() if values}
    read = [*sorted(model), *(f"{section}.{key}" for section, values in others.items() for key in values)]
    return model, others, [f"{', '.join(read)} as in the config that the file carries"] if read else []


def _said(text: str, name: str) -> bool | None:
    """Whether the config says NAME=True or NAME=False, None where it says neither."""
    match = re.search(rf"{name}=(True|False)", text)
    return None if match is None else match[1] == "True"


def _pixels(text: str) -> dict[str, Any]:
    """How pixels come in: the order of colours, and what is taken away and divided by."""
    mean, std = (re.search(rf"\b{n}=\[([\d.,\s]+)\]", text) for n in ("mean", "std"))
    if not (mean and std):
        return {}
    bgr = not _said(text, "(?:bgr_to_rgb|to_rgb)")
    values = [tuple(float(v) for v in match[1].split(",") if v.strip()) for match in (mean, std)]
    step = -1 if bgr else 1
    return {"mean": values[0][::step], "std": values[1][::step], "bgr": bgr}


def _head(text: str) -> dict[str, Any]:
    """Strides of the bottlenecks, how distances are said, where centerness lies."""
    settings: dict[str, Any] = {}
    if style := re.findall(r"style='(caffe|pytorch)'", text):
        settings["stride_in_1x1"] = style[-1] == "caffe"
    if (improved := _said(text, "norm_on_bbox")) is not None:
        settings |= {"normalize": improved, "regression": "relu" if improved else "exp"}
    if (beside := _said(text, "centerness_on_reg")) is not None:
        settings["centerness_on"] = "regression" if beside else "classification"
    return settings


def _assign(text: str) -> dict[str, Any]:
    if "center_sampling=True" in text:
        radius = re.search(r"center_sample_radius=([\d.]+)", text)
        return {"center_radius": float(radius[1]) if radius else 1.5}
    return {"center_radius": 0.0} if "center_sampling=False" in text else {}


def _loss(text: str) -> dict[str, Any]:
    loss = re.search(r"type='(GIoU|IoU|DIoU)Loss'", text)
    return {"box": loss[1].lower()} if loss else {}


def _decode(text: str) -> dict[str, Any]:
    limit = re.search(r"nms=dict\([^)]*iou_thr(?:eshold)?=([\d.]+)", text)
    least = re.search(r"\bscore_thr=([\d.]+)", text)
    pre, most = re.search(r"test_cfg=dict\(.*?nms_pre=(\d+)", text, re.S), re.search(r"\bmax_per_img=(\d+)", text)
    decode: dict[str, Any] = {k: float(m[1]) for k, m in (("nms_iou", limit), ("threshold", least)) if m}
    return decode | {k: int(m[1]) for k, m in (("topk", pre), ("max_detections", most)) if m}


def _data(text: str) -> dict[str, Any]:
    """The size of the images that are tested, by the test pipeline, or by all sizes that the file names where they are
    the same; nothing where nothing is sure."""
    pipeline = re.search(r"\btest_pipeline\s*=\s*\[(.*?)\n?\]\s*(?:\n|$)", text, re.S)
    named = re.findall(r"\b(?:img_)?scale=\(\s*(\d+),\s*(\d+),?\s*\)", pipeline[1] if pipeline else text)
    sizes = {tuple(sorted((int(a), int(b)))) for a, b in named}
    if len(sizes) != 1:
        return {}
    shorter, longer = sizes.pop()
    return {"size": shorter, "max_size": longer}


FAMILY = Family(
    name="mmdet",
    about="mmdetection",
    dialects=("mmdet", "mmdet-2019"),
    settings=_settings,
    entry="state_dict",
    scale_shape=(),
    counts=lambda config: True,
    rules=(
        ("fpn.lateral.{i}.{k}", "neck.lateral_convs.{i}.conv.{k}"),
        ("fpn.reduction.{k}", "neck.reduction_conv.conv.{k}"),
        ("fpn.extra.{i}.{k}", "neck.fpn_convs.{i+3}.conv.{k}"),  # in front: it leaves 0..2 to the next rule
        ("fpn.output.{i}.{k}", "neck.fpn_convs.{i}.conv.{k}"),
        *_tower("head.classification", "cls_convs"),
        *_tower("head.regression", "reg_convs"),
        ("head.class_logits.{k}", f"{_HEAD}conv_cls.{{k}}"),
        ("head.box_distances.{k}", f"{_HEAD}conv_reg.{{k}}"),
        ("head.centerness.{k}", f"{_HEAD}conv_centerness.{{k}}"),
        ("head.scales.{i}", f"{_HEAD}scales.{{i}}.scale"),
        ("backbone.body.layer{s}.{i}.conv2.offset.{k}", "backbone.layer{s}.{i}.conv2.conv_offset.{k}"),
        *same("backbone."),
    ),
    aliases=(
        # mmdetection 1 and the first 2.x
        (r"^bbox_head\.fcos_(cls|reg|centerness)\.", r"bbox_head.conv_\1."),
        (r"\.conv2_offset\.", ".conv2.conv_offset."),
        (r"^(bbox_head\.(?:cls|reg)_convs\.\d+)\.conv_offset\.", r"\1.conv.conv_offset."),
    ),
    spare=(("data_preprocessor.", "pixel mean and deviation, kept in the config"),),
)
