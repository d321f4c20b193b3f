"""`fcos forecast`: what more time and more images would bring."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import (
    DATA,
    Device,
    Format,
    ImagesIn,
    Json,
    Labels,
    Settings,
    data_source,
    data_words,
    preset_option,
    sort_words,
    the_one,
)


def command(
    context: typer.Context,
    words: Annotated[list[str] | None, data_words()] = None,
    settings: Settings = None,
    data: Annotated[str | None, typer.Option("--data", "-d", help=DATA)] = None,
    minutes: Annotated[
        float, typer.Option("--minutes", max=20160, help="Time for the forecast itself, 6.5 or more.")
    ] = 10.0,
    more_minutes: Annotated[
        float, typer.Option("--more-minutes", min=0.1, max=20160, help="Estimate what so many more minutes bring.")
    ] = 15,
    more_images: Annotated[
        int, typer.Option("--more-images", min=1, max=10**9, help="Estimate what so many more images bring.")
    ] = 200,
    model: Annotated[str | None, preset_option("as fcos train --minutes chooses")] = None,
    holdout: Annotated[
        float | None,
        typer.Option("--holdout", min=0.0, help="Share of the images kept for judging, if there is no val split."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the runs and the plot. Default: runs/forecast-NAME.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
    format: Format = None,
    images_in: ImagesIn = None,
    labels: Labels = None,
) -> None:
    """Estimate what more time and images would bring. It makes five short runs.

    The same command again goes on where it was stopped.

    \b
    fcos forecast my_data --minutes 20
    """
    import json

    from ..errors import FcosError
    from ..presets import resolve
    from ..training.data import NamedData, choose
    from ..training.forecast import forecast, unfinished
    from ..training.output.folder import next_folder

    things, changes = sort_words(words, settings, context)
    named = the_one(things, data, "--data")
    if named is None:
        raise FcosError("give the data set: fcos forecast DATA")
    source = NamedData(data_source(named, format, images_in, labels), holdout=holdout)
    chosen = choose(source, resolve(model, changes))
    options = {"model": model, "settings": changes, "device": device}
    folder = out or next_folder(
        Path("runs"),
        f"forecast-{Path(named).resolve().stem}",
        lambda path: unfinished(chosen.data, path, minutes, options),
    )
    result = forecast(chosen.data, folder, minutes, (more_minutes, more_images), **options)
    if as_json:
        typer.echo(json.dumps(result.to_dict()))
        return
    typer.echo(f"{result.text()}\ncurves: {folder / 'forecast.png'}")
