"""Changes to settings, as people write them: `train.lr=0.01`, nested or dotted names, YAML files, other names."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from .errors import ConfigError, nearest
from .system.core_yaml import parse_yaml, read_yaml

SYNONYMS = {  # what other programs call them; "" for what is no setting here, and like none
    "learning_rate": "train.lr",
    "base_lr": "train.lr",
    "clip_grad_norm": "train.clip",
    "batch_size": "train.batch",
    "num_epochs": "train.epochs",
    "imgsz": "data.size",
    "image_size": "data.size",
    "input_size": "data.size",
    "num_workers": "data.workers",
    "amp": "train.precision",
    "iou": "decode.nms_iou",
    "nms_thresh": "decode.nms_iou",
    "resolution": "data.size",
    "multi_scale": "data.train_sizes",
    "scale": "data.crop_scale",
    **dict.fromkeys(("hsv_h", "hsv_s", "hsv_v"), "data.color"),
    "max_det": "decode.max_detections",
    "class_weights": "train.balance",
    "cos_lr": "train.schedule",
    "warmup_epochs": "train.warmup",
    "early_stopping_patience": "train.patience",
    "grad_accum_steps": "train.accumulate",
    **dict.fromkeys(("num_classes", "nc", "channels", "grayscale", "fraction", "resume", "nbs"), ""),
    **dict.fromkeys(("rotation", "degrees", "translate", "erasing"), ""),
}


def parse_assignment(text: str) -> dict[str, Any]:
    """`"train.lr=0.01"` -> {"train": {"lr": 0.01}}. Values are read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{text!r} is not a setting; write section.key=value, such as train.lr=0.01")
    if key.strip() == "dialect":
        raise ConfigError(f"{text!r} is no setting but a whole set of them; give --dialect {value.strip() or 'NAME'}")
    where = f"the value of {key.strip()}, {value!r},"
    parsed: Any = parse_yaml(value, where, ConfigError) if value.strip() else ""
    if isinstance(parsed, str) and "," in parsed:
        parsed = parse_yaml(f"[{parsed}]", where, ConfigError)
    return nest(key.strip(), parsed)


def nest(key: str, value: Any) -> dict[str, Any]:
    """{"train": {"lr": value}} of "train.lr"; `value` stays as it is, a section as a dict."""
    *path, last = str(key).split(".")
    nested: dict[str, Any] = {last: dict(value) if isinstance(value, Mapping) else value}
    for part in reversed(path):
        nested = {part: nested}
    return nested


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """{"train.lr": value} of {"train": {"lr": value}}, in order; names that have their section already stay."""
    values: dict[str, Any] = {}
    for key, value in settings.items():
        values |= {f"{key}.{name}": one for name, one in value.items()} if isinstance(value, Mapping) else {key: value}
    return values


def as_words(settings: object) -> tuple[str, ...]:
    """Settings as "section.key=value" each: of one such text, of {"decode.nms_iou": 0.5} or {"decode": {...}}, or of
    several of these; ConfigError for anything else."""
    if isinstance(settings, str):
        return (settings,)
    if isinstance(settings, Mapping):
        return tuple(f"{key}={json.dumps(value, default=str)}" for key, value in flat(settings).items())
    if not isinstance(settings, Sequence):
        raise ConfigError(f'settings are texts, as in ["decode.nms_iou=0.5"], or a mapping, not {settings!r}')
    return tuple(word for one in settings for word in as_words(one))


def load_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file of settings as nested dicts; ConfigError when it is missing or not a mapping."""
    data = read_yaml(path, kind=ConfigError)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold sections such as 'train:', not a {type(data).__name__}")
    return data


def merge(settings: dict[str, Any], changes: Mapping[str, Any], source: str) -> None:
    """Put `changes` into `settings`, both of sections, in place; ConfigError for a name that `settings` lacks, with the
    nearest that it has, and for a section where a value belongs or the other way round."""
    _merge(settings, changes, source, "", list(flat(settings)))


def _merge(data: dict[str, Any], changes: Mapping[str, Any], source: str, prefix: str, known: Sequence[str]) -> None:
    for key, value in changes.items():
        if key not in data:
            near = nearest_setting(prefix + str(key), known)
            advice = f"did you mean {near}?" if near else "`fcos config` lists all settings"
            raise ConfigError(f"{source}: unknown setting {prefix}{key}; {advice}")
        if isinstance(data[key], dict):
            if not isinstance(value, dict):
                raise ConfigError(f"{source}: {prefix}{key} is a section; write {prefix}{key}.NAME=value")
            _merge(data[key], value, source, f"{prefix}{key}.", known)
        elif isinstance(value, dict):
            raise ConfigError(
                f"{source}: {prefix}{key} is a single value, it has no {prefix}{key}.{next(iter(value), 'NAME')}"
            )
        else:
            data[key] = value


def follow(settings: dict[str, Any], before: Mapping[str, Any], chosen: Collection[str]) -> None:
    """Set in `settings`, in place, what follows from others that differ in `before`, but for the names `chosen`: the
    limit of the longer side and the sizes to learn at follow data.size, and what was fitted to one kind of score,
    decode.shown and decode.calibration, goes with it."""
    decode, old = settings["decode"], before["decode"]
    other = decode["score"] != old["score"] or (decode["score"] == "power" and decode["power"] != old["power"])
    if "decode.shown" not in chosen and (other or decode["calibrated"] != old["calibrated"]):
        decode["shown"] = None
    if "decode.calibration" not in chosen and other:
        decode["calibration"] = ()
    sizes = _sizes(before["data"], settings["data"]["size"])
    settings["data"] |= {key: value for key, value in sizes.items() if f"data.{key}" not in chosen}


def _sizes(before: Mapping[str, Any], size: object) -> dict[str, Any]:
    """What follows another `size`, as a person gave it: the limit of the longer side, in the proportion that there was
    (533 of 320 are 5 to 3, rounded down), and the sizes to learn at: three in place of several, itself in place of one.
    """
    try:
        side = int(float(str(size)))
    except (ValueError, OverflowError):  # what is no size is refused with the other settings
        return {}
    if side < 1 or side == before["size"]:
        return {}
    longer = int(side * Fraction(before["max_size"], before["size"]).limit_denominator(16))
    several = len(before["train_sizes"]) > 1
    sides = before["train_sizes"] and ((max(32, side - 32), side, side + 32) if several else (side,))
    return {"max_size": longer, "train_sizes": sides}


def nearest_setting(key: str, known: Sequence[str]) -> str | None:
    """The one of `known` that `key`, with or without its section, is most likely meant to be: "train.lr" for "lrr".
    None where there is none."""
    tail = key.rpartition(".")[2]
    by_tail = {k.rpartition(".")[2]: k for k in known}
    word = tail.lower().replace("-", "_")
    if word in SYNONYMS and not ("." in key and tail in by_tail):  # model.scale is meant by modell.scale
        return SYNONYMS[word] or None
    if slip := nearest(key, known, cutoff=0.8) or nearest(tail, by_tail, cutoff=0.8):
        return by_tail.get(slip[0], slip[0])
    if meant := nearest(tail, SYNONYMS, cutoff=0.75):
        return SYNONYMS[meant[0]] or None
    close = nearest(tail, by_tail)
    return by_tail[close[0]] if close else None
