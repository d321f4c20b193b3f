"""What TAB offers behind an option or a verb. Somebody waits for each TAB, so nothing here imports torch or opens data.

Where none of the names fits the word, nothing is offered, and the shell completes files by itself, as it does for a
data set or an image. Where one fits, files are offered beside the names that a word may be instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Literal, get_args, get_origin

import typer

# The modules that know these import torch or OpenCV; a test holds them equal.
RUNTIMES = ("torch", "compile", "onnx", "openvino", "tensorrt", "auto")
DTYPES = ("fp32", "bf16", "fp16", "int8")
EXPORTS = ("onnx", "openvino", "tensorrt", "torchscript", "executorch", "coreml", "litert", "html", "triton")
FORMATS = (
    *("coco", "yolo", "voc", "labelstudio", "labelme", "labelmexml", "cvat", "ndjson", "huggingface"),
    *("parquet", "webdataset", "openimages", "csv", "createml", "kitti", "mot", "supervisely", "via"),
)

_PLAIN = re.compile(r"[\w./+@%-]+")  # names that no shell has to quote
_ENTRIES = 2000  # of a folder, for one TAB


def among(*words: str) -> Callable[[str], list[str]]:
    """Those of `words` that begin like the word on the command line."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


runtimes = among(*RUNTIMES)
dtypes = among(*DTYPES)
exports = among(*EXPORTS)
formats = among(*FORMATS)
devices = among("auto", "cpu", "cuda", "mps")
engines = among("local", "ray")


def splits(incomplete: str) -> list[str]:
    """The usual splits, also in a list with commas."""
    before = incomplete[: incomplete.rfind(",") + 1]
    return among(*(before + name for name in ("train", "val", "test") if name not in before.split(",")))(incomplete)


def presets(incomplete: str) -> list[str]:
    from ..presets import PRESETS

    return among(*PRESETS)(incomplete)


def dialects(incomplete: str) -> list[str]:
    from ..presets import DIALECTS

    return among(*DIALECTS)(incomplete)


def models(incomplete: str) -> list[str]:
    """Names of `fcos models`, and files."""
    return _or_files(_models(), incomplete)


def starts(incomplete: str) -> list[str]:
    """What --init takes: a model, or one of two words."""
    return _or_files((*_models(), "backbone", "none"), incomplete)


def settings(ctx: typer.Context, incomplete: str) -> list[str]:
    """KEY=VALUE: sections, then the settings in one, then the values where there are few."""
    if (key := _before_equals()) is not None:
        return among(*_values(key))(incomplete)
    key, equals, _ = incomplete.partition("=")
    if equals:
        return among(*(f"{key}={value}" for value in _values(key)))(incomplete)
    fitting = [key for key in _fields() if key.startswith(incomplete)]
    sections = dict.fromkeys(key[: key.index(".") + 1] for key in fitting)
    if len(sections) > 1:
        return list(sections)
    if len(fitting) != 1:
        return [f"{key}=" for key in fitting]
    # A single word would get a blank behind its "=", so there are two at least.
    return [f"{fitting[0]}={value}" for value in _values(fitting[0]) or ["", _example(ctx, fitting[0])]]


def path_or_setting(ctx: typer.Context, incomplete: str) -> list[str]:
    """A data set or an image, which the shell completes, or KEY=VALUE. Files come first until there is a dot."""
    if _before_equals() is not None:
        return settings(ctx, incomplete)
    if "." not in incomplete and (not incomplete or _files(incomplete)):
        return []
    return _or_files(settings(ctx, incomplete), incomplete)


def model_or_setting(ctx: typer.Context, incomplete: str) -> list[str]:
    if _before_equals() is not None:
        return settings(ctx, incomplete)
    return _or_files((*_models(), *(settings(ctx, incomplete) if incomplete else ())), incomplete)


def _models() -> list[str]:
    from ..zoo.models import known_models

    return list(known_models())


def _fields() -> dict[str, Any]:
    """The type of every setting of a section, by its key."""
    from ..config import Config, Section

    parts = {name: part.annotation for name, part in Config.model_fields.items()}
    return {
        f"{name}.{key}": field.annotation
        for name, part in parts.items()
        if isinstance(part, type) and issubclass(part, Section)
        for key, field in part.model_fields.items()
    }


def _values(key: str) -> list[str]:
    """The values of a setting that is a choice, else none."""
    return list(dict.fromkeys(_choices(_fields().get(key))))


def _choices(kind: object) -> list[str]:
    if kind is bool:
        return ["true", "false"]
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    return [value for part in get_args(kind) for value in _choices(part)]


def _example(ctx: typer.Context, key: str) -> str:
    """The value that `key` has in the preset of the command line, where it is one plain word."""
    from ..presets import DEFAULT, PRESETS, preset

    named = ctx.params.get("model")
    section, _, name = key.partition(".")
    chosen = preset(named if isinstance(named, str) and named in PRESETS else DEFAULT)
    value = str(getattr(getattr(chosen, section), name))
    return value if _PLAIN.fullmatch(value) and value != "None" else "VALUE"


def _before_equals() -> str | None:
    """The setting whose value is completed, where the shell is bash: for it an "=" is a word of its own."""
    words = os.environ.get("COMP_WORDS", "").split()
    at = os.environ.get("COMP_CWORD", "")
    before = words[: int(at) + 1] if at.isdecimal() else []
    equals = next((i for i in (len(before) - 1, len(before) - 2) if i > 0 and before[i] == "="), None)
    return before[equals - 1] if equals is not None else None


def _or_files(names: Iterable[str], incomplete: str) -> list[str]:
    fitting = [name for name in names if name.startswith(incomplete)]
    return [*fitting, *filter(_PLAIN.fullmatch, _files(incomplete))] if fitting else []


def _files(incomplete: str) -> list[str]:
    """Files and folders, those with a slash behind, that begin like the word."""
    folder, start = os.path.split(incomplete)
    try:
        with os.scandir(folder or ".") as entries:
            found = [
                os.path.join(folder, entry.name) + ("/" if entry.is_dir() else "")
                for entry in islice(entries, _ENTRIES)
                if entry.name.startswith(start) and (start or not entry.name.startswith("."))
            ]
    except (OSError, ValueError):
        return []
    return sorted(found)
