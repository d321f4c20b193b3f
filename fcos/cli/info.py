"""`fcos info`: parameters, FLOPs and memory of a network; what a model file holds."""

from __future__ import annotations

from typing import Annotated

import typer

from .common import DEFAULT, Json, MaybeModel, Settings, model_words, sort_words, the_one


def command(
    context: typer.Context,
    words: Annotated[list[str] | None, model_words()] = None,
    settings: Settings = None,
    model: MaybeModel = None,
    size: Annotated[str | None, typer.Option("--size", help="Input as HxW or one number. Default: data.size.")] = None,
    classes: Annotated[
        int | None,
        typer.Option(
            "--classes", min=1, max=100_000, help="Number of classes. Default: those of the weights, else 80."
        ),
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="List every layer.")] = False,
    as_json: Json = False,
) -> None:
    """Show the parameters, FLOPs and outputs of a model.

    \b
    fcos info runs/mine
    fcos info fcos-r50 --size 800x1066 data.divisor=64
    """
    import json

    from ..zoo.describe import describe_model

    things, overrides = sort_words(words, settings, context)
    report = describe_model(the_one(things, model, "--model") or DEFAULT, overrides, size, classes, layers)
    typer.echo(json.dumps(report.to_dict()) if as_json else report.text())
