"""`fcos doctor`: what in a data set would spoil training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..system.stderr import say
from .common import (
    DEFAULT,
    Format,
    ImagesIn,
    Json,
    Labels,
    MaybeData,
    Model,
    Settings,
    data_source,
    data_words,
    sort_words,
    the_one,
)


def command(
    context: typer.Context,
    words: Annotated[list[str] | None, data_words("Data set, all its splits; then settings.")] = None,
    settings: Settings = None,
    data: MaybeData = None,
    model: Model = DEFAULT,
    size: Annotated[
        int | None, typer.Option("--size", min=32, help="Shorter side of the input in pixels. Default: the model's.")
    ] = None,
    budget: Annotated[
        float, typer.Option("--budget", min=0.05, help="How many times today's FLOPs the advised settings may cost.")
    ] = 1.5,
    images: Annotated[
        bool, typer.Option(" /--no-images", help="Look at boxes only and open no image.", show_default=False)
    ] = True,
    search: Annotated[bool, typer.Option(help="Search for better settings.")] = True,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the result as one HTML page.")] = None,
    as_json: Json = False,
    format: Format = None,
    images_in: ImagesIn = None,
    labels: Labels = None,
) -> None:
    """Check a data set before training. Exit code 1: something serious was found.

    \b
    fcos doctor my_data --model fcos-lite0 --out doctor.html
    """
    import json
    import shlex
    from dataclasses import replace

    from ..analysis.doctor import doctor
    from ..data.classes import as_seen
    from ..data.open import open_splits
    from ..errors import FcosError
    from ..system.environment import environment
    from ..system.files import PAGE, check_suffix
    from ..zoo.describe import settings_of

    things, overrides = sort_words(words, settings, context)
    if out is not None:
        check_suffix(out, PAGE, "the page is one HTML file")
    named = the_one(things, data, "--data")
    if named is None:
        raise FcosError("give the data set to check: fcos doctor DATA")
    config = settings_of(model, overrides)
    if size is not None:
        config = config.override({"data": {"size": size}})
    if config.data.tile:
        say(
            f"data.tile={config.data.tile}: the doctor looks at whole images, not at the tiles that a model learns from"
        )
    source = data_source(named, format, images_in, labels)
    splits = {name: as_seen(dataset, config.data) for name, dataset in open_splits(source).items()}
    other = None if model == DEFAULT else model
    given = {"--model": other, "--format": format, "--images": images_in, "--labels": labels}
    told = [str(word) for pair in given.items() if pair[1] is not None for word in pair] + overrides
    learn = [config.name if other is not None and word == other else word for word in told]  # train takes a preset
    found = doctor(splits, config, images=images, budget=budget if search else 0)
    diagnosis = replace(found, data=str(named), told=tuple(learn))
    if as_json:
        typer.echo(json.dumps({**diagnosis.to_dict(), "environment": environment(splits)}))
    else:
        typer.echo(diagnosis.text())
        if out is None:
            sized = [] if size is None else ["--size", str(size)]
            page = shlex.join(["fcos", "doctor", str(named), *told, *sized, "--out", "doctor.html"])
            typer.echo(f"\nthe places in pictures: {page}\nmore: fcos help doctor")
    if out is not None:
        from ..analysis.doctor_page import write_page

        write_page(out, diagnosis)
        typer.echo(f"written to {out}", err=True)
    raise typer.Exit(1 if diagnosis.serious else 0)
