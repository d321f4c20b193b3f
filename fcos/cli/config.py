"""`fcos config`: every setting of a preset, with its meaning."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import typer

from . import complete
from .common import MaybeModel, Settings, model_words, sort_words, the_one


def command(
    context: typer.Context,
    words: Annotated[list[str] | None, model_words()] = None,
    settings: Settings = None,
    model: MaybeModel = None,
    dialect: Annotated[
        str | None,
        typer.Option(
            "--dialect", autocompletion=complete.dialects, help="Follow another implementation, such as detectron2."
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="YAML file with settings.")] = None,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print YAML, ready for --config.")] = False,
) -> None:
    """Show every setting of a model, its value and its meaning.

    \b
    fcos config fcos-lite0
    fcos config runs/mine --yaml > mine.yaml
    """
    from ..config import describe
    from ..presets import PRESETS, resolve, with_dialect, with_file
    from ..zoo.describe import read_settings

    things, overrides = sort_words(words, settings, context)
    named = the_one(things, model, "--model")
    if named is None or named in PRESETS:
        resolved = resolve(named, overrides, dialect, config)
    else:
        resolved = read_settings(named)[0]
        resolved = with_dialect(resolved, dialect) if dialect else resolved
        resolved = with_file(resolved, config, overrides)
    if as_yaml:
        typer.echo(resolved.dump(), nl=False)
        return
    rows = [(key, _short(value), about) for key, value, about in describe(resolved)]
    width, value_width = max(len(r[0]) for r in rows), min(28, max(len(r[1]) for r in rows))
    section = ""
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() or "COLUMNS" in os.environ else 1 << 16
    for key, value, about in rows:
        head = key.partition(".")[0] if "." in key else ""
        if head != section:
            typer.echo("")
            section = head
        line = f"{key:<{width}}  {value:<{value_width}}  "
        room = columns - len(line)
        if room >= len(about):
            typer.echo(f"{line}{about}")
        else:  # below: a narrow third column is hard to read
            typer.echo(
                line.rstrip()
                + "\n"
                + textwrap.fill(about, max(columns - 1, 20), initial_indent="    ", subsequent_indent="    ")
            )


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value) or "-"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
