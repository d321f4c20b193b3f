"""What a user has settled, by the full name of the setting, and the config that comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..changes import flat, load_yaml
from ..config import Config, describe
from ..data.dataset import Dataset
from ..data.loading.augment import clip
from ..data.tiles import tiled
from ..errors import ConfigError
from ..presets import PRESETS, preset, resolve
from .equal_command import shown

Settings = Mapping[str, object] | Sequence[str | dict[str, Any]]
"""{"train.lr": 0.001}, {"train": {"lr": 0.001}} or ["train.lr=0.001"]."""


def changes_of(settings: Settings) -> list[str | dict[str, Any]]:
    """What `Config.override` takes."""
    if isinstance(settings, str):
        raise ConfigError(f"settings={settings!r} is one text; give a mapping or a list, such as [{settings!r}]")
    changes: list[str | dict[str, Any]] = [dict(settings)] if isinstance(settings, Mapping) else list(settings)
    if not all(isinstance(change, str | Mapping) for change in changes):
        raise ConfigError(f'settings={settings!r}: give texts such as "train.lr=0.01", or mappings')
    return changes


def given_settings(settings: Settings, file: str | Path | None) -> dict[str, object]:
    """What a user has settled, by the full name of the setting; the YAML file first."""
    told: dict[str, object] = {}
    for change in [*([load_yaml(Path(file))] if file is not None else []), *changes_of(settings)]:
        if isinstance(change, str):
            key, _, value = change.partition("=")
            told[key.strip()] = value.strip()
        else:
            told |= flat(change)
    return told


def settled_by(model: str | Config | None, dialect: str | None) -> dict[str, object]:
    """The settings that a Config or a dialect has otherwise than the preset of its name: what a user has settled."""
    if not isinstance(model, Config) and dialect is None:
        return {}
    mine = without_learned(model, {}) if isinstance(model, Config) else resolve(model, dialect=dialect)
    usual = preset(mine.name) if mine.name in PRESETS else Config()
    values = {key: value for key, value, _ in describe(usual)}
    length = ("train.epochs", "train.iterations")  # the minutes stand for them
    return {key: value for key, value, _ in describe(mine) if value != values[key] and key not in length}


def config_of(model: str | Config | None, settings: Settings, dialect: str | None, file: str | Path | None) -> Config:
    """The config of a preset or a Config, under the settings; ConfigError where the words contradict each other."""
    if not isinstance(model, Config):
        return resolve(model, changes_of(settings), dialect, file)
    if dialect is not None or file is not None:
        raise ConfigError("a Config as model is complete; leave out dialect and config, or give the name of a preset")
    return model.override(*changes_of(settings), source="settings")


def told_sizes(usual: Config, config: Config, given: Mapping[str, object]) -> list[str]:
    """A line of what has followed a `data.size` that a user has given in place of the `usual` one."""
    keys = ("max_size", "train_sizes") if config.data.size != usual.data.size else ()
    sizes = {f"data.{key}": getattr(config.data, key) for key in keys if f"data.{key}" not in given}
    changed = {key: value for key, value in sizes.items() if value != getattr(usual.data, key.partition(".")[2])}
    return [f"sizes     {shown(changed)}, around the data.size that was given"] if changed else []


def without_learned(config: Config, given: Mapping[str, object]) -> Config:
    """The config without what belongs to the weights that it comes from, but for what is `given` by name: the
    calibration of scores and, where training has left its sizes in it, the lowest score shown."""
    decode = config.decode
    theirs = decode.calibrated or bool(config.data.learned_boxes)
    changes = {"calibrated": False, "calibration": (), "shown": None if theirs else decode.shown}
    kept = {name: getattr(decode, name) for name in changes if f"decode.{name}" in given}
    return config.override({"decode": changes | kept})


def with_learned_sizes(config: Config, dataset: Dataset) -> Config:
    """The config with the sizes of the boxes that are learned and of the images they are on, for `--tile auto`."""
    records = [r for r in tiled(dataset, config.data.tile).records if not r.ignore.all()]
    if not records:
        return config
    boxes = np.concatenate([clip(r.boxes[~r.ignore], r.size) for r in records])
    lengths = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    sides = np.repeat([min(r.size) for r in records], [int((~r.ignore).sum()) for r in records])
    small, middle, large = np.quantile(lengths, (0.05, 0.5, 0.95)).round(1).tolist()
    learned_side = int(np.sort(sides)[len(sides) // 2])
    return config.override({"data": {"learned_side": learned_side, "learned_boxes": (small, middle, large)}})
