"""fcos tune"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import DATA, Device, Format, Json, Labels, Pictures, Settings, data_source, say, sort_words, the_one


def command(
    words: Annotated[list[str] | None, typer.Argument(metavar="DATA|KEY=VALUE", help="Data set; settings.")] = None,
    settings: Settings = None,
    data: Annotated[str | None, typer.Option("--data", "-d", help=DATA)] = None,
    hours: Annotated[float | None, typer.Option("--hours", min=0.01, help="How long this command may take.")] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="Of a trial; left out: a 24th of the hours, 3 at least.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="How many the folder shall have; left out: as time allows.")
    ] = None,
    val: Annotated[str | None, typer.Option("--val", help="Validation data, where DATA has no val split.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Splits to learn from.")] = None,
    holdout: Annotated[
        float | None, typer.Option("--holdout", min=0.0, help="Share kept for judging where there is no val.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Preset, fcos-lite0 when left out.")] = None,
    init: Annotated[str | None, typer.Option("--init", help="Start from this detector, as of fcos train.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; runs/tune-NAME when left out.")] = None,
    device: Device = "auto",
    as_json: Json = False,
    format: Format = None,
    pictures: Pictures = None,
    labels: Labels = None,
) -> None:
    """Search for better settings by many short runs.

    For those who have a night: it is never needed for a good result.

    The same command again goes on in the same folder, after an end or a kill; run on a second GPU at the same time, it
    helps.

    \b
    the usual settings:        fcos tune my_data --hours 6
    a range, and a choice:     fcos tune my_data --hours 6 train.lr=1e-4..1e-2 'train.batch=4|8'
    with the second GPU:       fcos tune my_data --hours 6 --device cuda:1
    """
    import json

    from ..errors import FcosError
    from ..training.data import Source
    from ..training.tuning import Search, tune

    things, changes = sort_words(words, settings)
    named = the_one(things, data, "--data")
    if named is None:
        raise FcosError("search for what? give the data set: fcos tune DATA --hours 6")
    source = Source(data_source(named, format, pictures, labels), val, split, holdout, quiet=True)
    folder = out or Path("runs") / f"tune-{Path(named).resolve().stem}"
    search = Search(source, changes, model, init, hours, minutes, trials, device)
    result = tune(search, folder, say)
    typer.echo(json.dumps(result.to_dict()) if as_json else result.text())
