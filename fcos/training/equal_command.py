"""The command that trains the same again, without a clock."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import Config
from ..system.readers import read_text
from .data import NamedData


def data_words(source: NamedData, model: str | Config, options: Mapping[str, object]) -> list[str]:
    """The words of an equal command in front of its settings. `options`: others, by name; None is left out."""
    stored = source.stored()
    words = [stored["data"] or "DATA", "--model", model.name if isinstance(model, Config) else model]
    named = {"val": stored["val"], "split": source.split, "holdout": source.holdout, "format": stored.get("format"),
             "images": stored.get("images"), "labels": stored.get("labels"), **options}  # fmt: skip
    return words + [word for key, value in named.items() if value is not None for word in (f"--{key}", str(value))]


def command(data: Sequence[str], settings: Mapping[str, Any]) -> str:
    """The command: `data` are the words before the settings."""
    return shlex.join(["fcos", "train", *data, *_words(settings)])


def with_steps(file: Path, steps: int) -> str:
    """The command in a file with another number of steps."""
    return re.sub(r"train\.iterations=\d+", f"train.iterations={steps}", read_text(file).strip())


def shown(settings: Mapping[str, Any]) -> str:
    """Settings as a command line has them."""
    return " ".join(_words(settings))


def _words(settings: Mapping[str, Any]) -> list[str]:
    def show(value: object) -> str:
        if value is None or isinstance(value, bool):
            return "null" if value is None else str(value).lower()
        return str(list(value)).replace(" ", "") if isinstance(value, list | tuple) else str(value)

    return [f"{key}={show(value)}" for key, value in settings.items()]
