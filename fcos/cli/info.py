"""fcos info"""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    model: Annotated[str, typer.Argument(help="Preset name, run folder or model file.")] = "fcos-lite0",
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to apply.")] = None,
    size: Annotated[
        str | None, typer.Option("--size", help="Input as HxW or one number; data.size when left out.")
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option("--classes", min=1, help="Number of classes; those of the weights, or 80, when left out."),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="List every layer.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Parameters, FLOPs by part, output variables and levels of a model."""
    import json

    from ..zoo.describe import describe_model

    report = describe_model(model, settings or [], size, classes, layers)
    typer.echo(json.dumps(report.to_dict()) if as_json else report.text())
