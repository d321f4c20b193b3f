"""fcos doctor"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as data.size=640")
    ] = None,
    data: Annotated[Path, typer.Option("--data", "-d", help="Data set: COCO, YOLO or VOC; all splits.")] = ...,  # type: ignore[assignment]
    model: Annotated[str, typer.Option("--model", "-m", help="Preset, run folder or file.")] = "fcos-lite0",
    size: Annotated[
        int | None, typer.Option("--size", min=32, help="Shorter side of the input; else the model's.")
    ] = None,
    budget: Annotated[float, typer.Option("--budget", min=0.05, help="FLOPs allowed, in multiples of today's.")] = 1.5,
    images: Annotated[bool, typer.Option(help="Read every picture.")] = True,
    search: Annotated[bool, typer.Option(help="Search better settings.")] = True,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write one HTML page.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> None:
    """Examine a data set before training. Exit code 1: something serious was found.

    Example: fcos doctor --data data/cells --model fcos-lite0 --out cells.html
    """
    import json

    from ..analysis.doctor import diagnose
    from ..data.classes import as_seen
    from ..data.open import open_splits
    from ..environment import environment
    from ..presets import PRESETS, resolve

    if model in PRESETS:
        config = resolve(model, settings or [])
    else:
        from ..zoo.describe import read_settings

        config = read_settings(model)[0].override(*(settings or []), source="command line")
    if size is not None:
        longest = round(size * config.data.max_size / config.data.size)
        config = config.override({"data": {"size": size, "max_size": longest}})
    splits = {name: as_seen(dataset, config.data) for name, dataset in open_splits(data).items()}
    diagnosis = diagnose(splits, config, images=images, budget=budget, tune=search)
    if as_json:
        typer.echo(json.dumps({**diagnosis.to_dict(), "environment": environment(splits)}))
    else:
        typer.echo(diagnosis.text())
    if out is not None:
        from ..analysis.doctor_page import write_page

        write_page(out, diagnosis)
        typer.echo(f"written to {out}", err=True)
    raise typer.Exit(1 if diagnosis.serious else 0)
