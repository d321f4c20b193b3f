"""`fcos labels`: mistakes in the labels of a data set, and labels proposed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..system.stderr import say
from . import complete
from .common import (
    DATA,
    DEFAULT,
    MODEL,
    OF_DATA,
    Format,
    ImagesIn,
    Json,
    Labels,
    MaybeData,
    Model,
    data_source,
    tell_unused,
    the_one,
)

app = typer.Typer(help="Find mistakes in labels, correct them, propose new ones.", no_args_is_help=True)


@app.command()
def check(
    context: typer.Context,
    path: Annotated[Path | None, typer.Argument(metavar="DATA", help=DATA)] = None,
    data: MaybeData = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            autocompletion=complete.models,
            help=f"{MODEL[:-1]} that has not learned from these images.",
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option("--folds", min=2, max=20, help="Without --model: how many models to train. Default: 3."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            min=0.1,
            max=20160,
            help="Without --model: minutes for all their training. Default: by the size of the set.",
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", autocompletion=complete.splits, help="Only this split. Default: all.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the parts and of the planted errors.")] = 0,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many suspects to put on the page of --out.")] = 200,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HTML page for the review.")] = None,
    as_json: Json = False,
    format: Format = None,
    images_in: ImagesIn = None,
    labels: Labels = None,
) -> None:
    """Find labels that are probably wrong.

    They are missing, superfluous, of the wrong class, shifted or doubled.

    \b
    fcos labels check my_data --out review.html
    fcos labels check my_data --model runs/other --split test --out review.html
    """
    import json

    from ..errors import FcosError
    from ..labels.checking import check as run
    from ..labels.page import write_page
    from ..system.files import PAGE, check_suffix

    named = the_one([str(path)] if path is not None else [], data, "--data")
    if named is None:
        raise FcosError("give the data set to check: fcos labels check DATA")
    if out is not None:
        check_suffix(out, PAGE, "the page is one HTML file")
    if out is None:
        tell_unused(context, "a check without --out", "limit")
    if model is not None:
        tell_unused(context, "a check with --model", "folds", "minutes")
    source = data_source(named, format, images_in, labels)
    result = run(source, model=model, folds=folds, minutes=minutes, split=split, seed=seed)
    typer.echo(json.dumps(result.to_dict()) if as_json else result.text(page=str(out or ""), limit=limit if out else 0))
    if out is not None:
        write_page(out, result, limit)
        say(f"written to {out}: open it in a browser, decide with the keys, save decisions.json")


@app.command()
def apply(
    context: typer.Context,
    decisions: Annotated[Path, typer.Argument(help="The file that the review page saved.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the corrected copy.")],
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help=f"{DATA} Default: the folder that was checked.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", autocompletion=complete.formats, help="Format to write. Default: that of the data."),
    ] = None,
    format: Format = None,
    images_in: ImagesIn = None,
    labels: Labels = None,
) -> None:
    """Write a corrected copy of the data set. The original stays as it is.

    \b
    fcos labels apply decisions.json --out my_data_corrected
    """
    from ..labels.applying import apply as run

    if data is None:
        tell_unused(context, "a correction without --data", *OF_DATA)
    source = None if data is None else data_source(data, format, images_in, labels)
    typer.echo(run(decisions, data=source, to=to, out=out).text())


@app.command()
def propose(
    images: Annotated[list[str], typer.Argument(metavar="IMAGES", help="Images, folders, patterns.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            autocompletion=complete.among("label-studio", "cvat", "labelme", "coco", "yolo"),
            help="label-studio, cvat, labelme, coco, yolo.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder.")],
    model: Model = DEFAULT,
    score: Annotated[
        float | None, typer.Option("--score", min=0.0, max=1.0, help="Lowest score. Default: that of fcos predict.")
    ] = None,
    uncertain: Annotated[
        int | None, typer.Option("--uncertain", help="Only this many images: those worth labelling first.")
    ] = None,
) -> None:
    """Propose labels for images without any, with scores.

    They are for a labelling tool, where a person looks at them.

    \b
    fcos labels propose photos --model runs/mine --to label-studio --out tasks --uncertain 100
    """
    from ..labels.proposing import propose as run

    typer.echo(run(images, model=model, to=to, out=out, score=score, uncertain=uncertain).text())
