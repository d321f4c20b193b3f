"""`fcos tune`: search for better settings by many short runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..system.stderr import say
from . import complete
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
    hours: Annotated[
        float | None, typer.Option("--hours", min=0.01, max=8760, help="How long this command may take.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="Time of one trial. Default: a 24th of the hours, 3 at least.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="How many trials. Default: as many as the time allows.")
    ] = None,
    val: Annotated[str | None, typer.Option("--val", help="Data set to judge by, if DATA has no val split.")] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", autocompletion=complete.splits, help="Splits to learn from, such as train,val."),
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option("--holdout", min=0.0, help="Share of the images kept for judging, if there is no val split."),
    ] = None,
    model: Annotated[str | None, preset_option("as fcos train --minutes chooses")] = None,
    init: Annotated[
        str | None,
        typer.Option("--init", autocompletion=complete.starts, help="Start from this detector, as in fcos train."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the search. Default: runs/tune-NAME.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
    format: Format = None,
    images_in: ImagesIn = None,
    labels: Labels = None,
) -> None:
    """Search for better settings by many short runs.

    It takes hours and is never needed for a good result: fcos train --minutes starts from settings that were chosen
    before. The same command again continues the search in the same folder. A second process on that folder helps.

    \b
    fcos tune my_data --hours 6                        # the usual settings
    fcos tune my_data --hours 6 train.lr=1e-4..1e-2    # a range of one setting
    fcos tune my_data --hours 6 'train.batch=4|8'      # a choice
    fcos tune my_data --hours 6 --device cuda:1        # beside it, on the second GPU
    """
    import json

    from ..errors import FcosError
    from ..search.tuning import Search, tune
    from ..training.data import NamedData

    things, changes = sort_words(words, settings, context)
    named = the_one(things, data, "--data")
    if named is None:
        raise FcosError("give the data set to learn from: fcos tune DATA --hours 6")
    source = NamedData(data_source(named, format, images_in, labels), val, split, holdout, quiet=True)
    folder = out or Path("runs") / f"tune-{Path(named).resolve().stem}"
    search = Search(source, changes, model, init, hours, minutes, trials, device)
    result = tune(search, folder, say)
    typer.echo(json.dumps(result.to_dict()) if as_json else result.text())
