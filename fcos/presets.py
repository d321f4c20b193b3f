"""Presets (networks by name) and dialects (conventions of published implementations), as plain values.

`resolve` puts the sources of a config in order: preset < dialect < YAML file < `key=value` overrides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from .changes import load_yaml
from .config import Config, DataConfig, ModelConfig, TrainConfig
from .errors import ConfigError, did_you_mean

# --------------------------------------------------------------------------- presets, by name


def fcos_r50() -> Config:
    """The improved version (2006.09214): centerness on the regression tower, center sampling, GIoU."""
    return Config(data=DataConfig(train_sizes=tuple(range(640, 801, 32))))


def fcos_r50_2019() -> Config:
    """The first paper (1904.01355): exp, centerness on the classification tower, -log IoU, whole boxes."""
    return Config(name="fcos-r50-2019").override(
        {
            "model": {"centerness_on": "classification", "regression": "exp", "normalize": False},
            "assign": {"center_radius": 0.0},
            "loss": {"box": "iou"},
        }
    )


def fcos_r50_rt() -> Config:
    """`fcos-r50` with a lighter head and FPN: one tower of four convolutions with BatchNorm, depthwise FPN.

    1.45 times as fast on a CPU; no loss in equal steps on VOC2007 with two small backbones (docs/performance.md).
    """
    return fcos_r50().override(
        {
            "name": "fcos-r50-rt",
            "model": {"head_shared_convs": 4, "head_convs": 0, "head_norm": "batch", "fpn_depthwise": True},
        }
    )


def _like_r50(name: str, backbone: str) -> Callable[[], Config]:
    def made() -> Config:
        return fcos_r50().override({"name": name, "model": {"backbone": backbone}})

    made.__doc__ = f"`fcos-r50` with the backbone {backbone}."
    return made


def _lite(level: int, size: int, channels: int, depthwise: bool = False) -> Callable[[], Config]:
    def made() -> Config:
        return Config(
            name=f"fcos-lite{level}",
            model=ModelConfig(
                backbone=f"tf_efficientnet_lite{level}",
                mean=(127.5, 127.5, 127.5),
                std=(127.5, 127.5, 127.5),
                fpn_channels=channels,
                head_channels=channels,
                head_convs=2,
                head_depthwise=depthwise,
            ),
            data=DataConfig(
                size=size,
                max_size=size * 5 // 3,
                train_sizes=tuple(range(size - 64, size + 65, 32)),
                color=0.5,
            ),
            train=TrainConfig(
                epochs=30,
                batch=8,
                optimizer="adamw",
                lr=1e-3,
                weight_decay=0.05,
                decay_norm=False,
                schedule="cosine",
                warmup=200,
                clip=10.0,
                ema=0.998,
                freeze_stages=2,
                linear_probe=100,
            ),
        )

    made.__doc__ = f"For CPUs, phones and browsers: EfficientNet-Lite{level} backbone, light FPN and towers."
    return made


DEFAULT = "fcos-lite0"
PRESETS: dict[str, Callable[[], Config]] = {
    "fcos-lite0": _lite(0, 320, 96, depthwise=True),
    "fcos-lite1": _lite(1, 416, 96, depthwise=True),
    "fcos-lite2": _lite(2, 512, 96, depthwise=True),
    "fcos-r50": fcos_r50,
    "fcos-r50-2019": fcos_r50_2019,
    "fcos-r50-rt": fcos_r50_rt,
    "fcos-r101": _like_r50("fcos-r101", "resnet101"),
    "fcos-x101-32x8d": _like_r50("fcos-x101-32x8d", "resnext101_32x8d"),
    "fcos-x101-64x4d": _like_r50("fcos-x101-64x4d", "resnext101_64x4d"),
    "fcos-hrnet-w32": _like_r50("fcos-hrnet-w32", "hrnet_w32"),
}


def preset(name: str) -> Config:
    """The config of a preset name; ConfigError with the nearest name when there is none.

    >>> fcos.preset("fcos-r50")
    Config(fcos-r50: resnet50, 800 px)
    """
    if name not in PRESETS:
        hint = did_you_mean(name, PRESETS, f"presets: {', '.join(PRESETS)}")
        if Path(name).exists():
            hint = f"a preset is wanted; to start training from this model: --init {name}"
        raise ConfigError(f"there is no model called {name!r}; {hint}")
    return PRESETS[name]()


# --------------------------------------------------------------------------- dialects, by name
# What each published implementation does differently; docs/dialects.md explains every line.

_CAFFE = {"stride_in_1x1": True, "std": (1.0, 1.0, 1.0), "bgr": True}
_CAFFE_MEAN = (122.7717, 115.9465, 102.9801)
_MEAN = (123.675, 116.28, 103.53)
_REGION = {"range_rule": "inclusive", "center_rule": "region", "area_rule": "rounded"}
_ORIGINAL_MODEL = {**_CAFFE, "mean": _CAFFE_MEAN, "backbone_norm_eps": 0.0}
_FROZEN = {"freeze_stages": 2}  # the stem and layer1, in all five
_DETECTRON2_TRAIN = {**_FROZEN, "decay_norm": "biases"}
_ORIGINAL_TRAIN = {
    **_FROZEN,
    "bias_lr": 2.0,
    "bias_decay": False,
    "bias_of_norms": True,
    "warmup_rule": "constant",
    "warmup_start": 1 / 3,
    "warmup": 500,
}
_ORIGINAL_DATA = {"resample": "pil", "round": "short-exact", "padding": "exact", "inclusive_boxes": True}
_MMDET_DECODE = {"topk_by": "class", "score": "product", "drop_empty": True, "nms_rule": "mmcv"}
_ADELAIDET: dict[str, Any] = {
    "model": {**_CAFFE, "mean": _MEAN},
    "assign": _REGION,
    "loss": {"iou_plus_one": True},
    "decode": {"clip": "after"},
    "data": {"resample": "pil", "round": "two-step", "padding": "exact"},
    "train": _DETECTRON2_TRAIN,
}

DIALECTS: dict[str, dict[str, Any]] = {
    "fcos": {},
    "original": {
        "model": _ORIGINAL_MODEL,
        "assign": {**_REGION, "area_plus_one": True},
        "loss": {"iou_plus_one": True},
        "decode": {"clip_margin": 1, "nms_plus_one": True},
        "data": _ORIGINAL_DATA,
        "train": _ORIGINAL_TRAIN,
    },
    "original-2019": {
        "model": {
            **_ORIGINAL_MODEL,
            "centerness_on": "classification",
            "regression": "exp",
            "normalize": False,
        },
        "assign": {**_REGION, "area_plus_one": True, "center_radius": 0.0},
        "loss": {"box": "iou", "iou_plus_one": True},
        "decode": {"clip_margin": 1, "nms_plus_one": True},
        "data": _ORIGINAL_DATA,
        "train": _ORIGINAL_TRAIN,
    },
    "adelaidet": _ADELAIDET,
    "adelaidet-iou": {**_ADELAIDET, "loss": {"iou_plus_one": True, "quality": "iou", "box_weights": "none"}},
    "detectron2": {
        "model": {**_CAFFE, "mean": _MEAN, "scale": False},
        "assign": {"range_rule": "strict", "area_rule": "float32"},
        "loss": {"box_weights": "none", "normalizer": "moving-average", "normalizer_scope": "process"},
        "decode": {"threshold": 0.2, "threshold_on": "score", "clip": "after"},
        "data": {"resample": "pil", "round": "two-step", "padding": "exact"},
        "train": _DETECTRON2_TRAIN,
    },
    "mmdet": {
        "model": {**_CAFFE, "mean": _MEAN},
        "assign": _REGION,
        "decode": _MMDET_DECODE,
        "data": {"resample": "linear", "round": "half-up", "padding": "exact"},
        "train": {**_FROZEN, "bias_lr": 2.0, "bias_decay": False, "warmup_start": 1 / 3, "warmup": 500},
    },
    "mmdet-2019": {
        "model": {
            **_CAFFE,
            "mean": _CAFFE_MEAN,
            "centerness_on": "classification",
            "regression": "exp",
            "normalize": False,
            "head_bias": False,
        },
        "assign": {**_REGION, "center_radius": 0.0},
        "loss": {"box": "iou"},
        "decode": {**_MMDET_DECODE, "nms_iou": 0.5},
        "data": {"resample": "linear", "round": "half-up", "padding": "exact"},
        "train": {
            **_FROZEN,
            "bias_lr": 2.0,
            "bias_decay": False,
            "warmup_rule": "constant",
            "warmup_start": 1 / 3,
            "warmup": 500,
            "clip": 35.0,
        },
    },
    "torchvision": {
        "model": {"scale": False, "point_offset": 0.0, "point_spacing": "grid"},
        "assign": {"range_rule": "strict", "area_rule": "float32"},
        "loss": {"box_weights": "none", "normalizer_scope": "process"},
        "decode": {"threshold": 0.2, "threshold_on": "score"},
        "data": {"resample": "torch", "round": "floor", "padding": "exact"},
        "train": _FROZEN,
    },
}


def with_dialect(config: Config, name: str) -> Config:
    """`config` under the conventions of a published implementation; ConfigError for an unknown name."""
    if name not in DIALECTS:
        hint = did_you_mean(name, DIALECTS, f"dialects: {', '.join(DIALECTS)}")
        raise ConfigError(f"there is no dialect called {name!r}; {hint}")
    return config.override(DIALECTS[name], {"dialect": name}, source=f"dialect {name}")


def named_in(settings: Mapping[str, object]) -> str | None:
    """The preset whose name stands in the content of a YAML file, if one does."""
    name = settings.get("name")
    return name if isinstance(name, str) and name in PRESETS else None


def with_file(config: Config, file: str | Path | None, overrides: Iterable[str | dict[str, Any]]) -> Config:
    """The config under the settings of a YAML file, if any, and `overrides`, which win. Another `data.size` among these
    takes the sizes of a file along that has a data.size itself, and leaves those of one that has none. ConfigError that
    names the file where it is at fault."""
    told = load_yaml(file) if file else {}
    filed = config.override(told, source=str(file))
    given = {*told, *(f"data.{key}" for key in told.get("data") or {})}
    own = () if "data.size" in given else ("max_size", "train_sizes")
    kept = {f"data.{key}": getattr(filed.data, key) for key in own if f"data.{key}" in given}
    return filed.override(kept, *overrides)


def resolve(
    name: str | None,
    overrides: Iterable[str | dict[str, Any]] = (),
    dialect: str | None = None,
    file: str | Path | None = None,
) -> Config:
    """preset < dialect < YAML file < `key=value` overrides. Without a `name` it is the preset that the file names, else
    `DEFAULT`. ConfigError for a file with the settings of another preset or dialect than is asked for."""
    told = load_yaml(file) if file else {}
    theirs = named_in(told)
    if theirs is not None and name not in (None, theirs):
        raise ConfigError(f"{file} has the settings of {theirs}, not of {name}; give --model {theirs}, or another file")
    if dialect and told.get("dialect") not in (None, dialect):
        raise ConfigError(f"{file} has the settings of dialect {told['dialect']}; leave out --dialect {dialect}")
    config = preset(name or theirs or DEFAULT)
    config = with_dialect(config, dialect) if dialect else config
    return with_file(config, file, overrides)
