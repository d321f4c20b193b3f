"""What any model is made of, by name or file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import Config
from ..export.open import read_about
from ..export.registry import format_of
from ..network import weights
from ..network.info import Info, describe_network, parse_size
from ..presets import PRESETS, resolve
from ..types import Classes
from .card import recipe
from .find import find_weights, load_network
from .models import known_models


def describe_model(
    model: str,
    overrides: Sequence[str],
    size: str | None,
    classes: int | None,
    layers: bool,
) -> Info:
    """Info of a preset, run folder or model file, at `size` ("HxW") or the config's, for `classes`; left out: those of
    its weights, 80 where it has none."""
    its: dict[str, Any] = {}  # of weights
    if model in PRESETS and (classes is not None or known_models()[model].path() is None):
        config, known = resolve(model, overrides), 80
    elif format_of(model) is not None:  # the same network, without its weights
        config, names = read_settings(model)
        config, known = config.override(*overrides), len(names)
        its = {"names": names.names, "shown": config.decode.lowest_shown}
    else:
        network, config, names = load_network(model, overrides)
        known, path = len(names), find_weights(model)
        about = {**weights.header(path)[2], **recipe(path.parent)}
        its = {"names": names.names, "shown": config.decode.lowest_shown, "about": about}
        if classes in (None, known):
            return replace(describe_network(network, config, parse_size(size, config), layers), **its)
    network = weights.build(config, known if classes is None else classes).eval()
    info = describe_network(network, config, parse_size(size, config), layers)
    return replace(info, **its) if classes in (None, known) else info


def settings_of(model: str, overrides: Sequence[str]) -> Config:
    """The settings of a preset or of a model, a run folder or a file, with changes to them."""
    if model in PRESETS:
        return resolve(model, overrides)
    return read_settings(model)[0].override(*overrides)


def read_settings(name: str | Path) -> tuple[Config, Classes]:
    """(config, classes) of a model name, run folder or file, a checkpoint or an exported one."""
    path = find_weights(name)
    if format_of(path) is not None:
        about = read_about(path)
        return about.config, about.classes
    return weights.header(path)[:2]
