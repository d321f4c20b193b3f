"""fcos train"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import DATA, Device, Format, Labels, Pictures, Settings, data_source, sort_words, the_one


def command(
    words: Annotated[list[str] | None, typer.Argument(metavar="DATA|KEY=VALUE", help="Data set; settings.")] = None,
    settings: Settings = None,
    data: Annotated[str | None, typer.Option("--data", "-d", help=DATA)] = None,
    val: Annotated[str | None, typer.Option("--val", help="Validation data, where DATA has no val split.")] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Splits to learn from, such as train,val; then none is kept for judging."),
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option(
            "--holdout", min=0.0, help="Share of the images kept for judging where there is no val: 0.1, or 0 for none."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Preset, fcos-lite0 when left out; `fcos models` lists them.")
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", help="How long all of it may take; the program plans the rest, and tells the plan."),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            "--init", help="Start from this detector (name, run folder, file); 'none': the backbone's weights only."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; runs/NAME when left out.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")] = None,
    dialect: Annotated[
        str | None, typer.Option("--dialect", help="Conventions of a published implementation, such as detectron2.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Short for train.epochs.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out (default: the latest in runs/).")
    ] = False,
    replay: Annotated[
        Path | None,
        typer.Option("--replay", help="Do the step in this nan-STEP.pt again: which loss and layer are not finite."),
    ] = None,
    device: Device = "auto",
    devices: Annotated[int, typer.Option("--devices", min=1, help="Processes on this machine.")] = 1,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Machines.")] = 1,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Short for train.deterministic=true: the same bits in every run.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse data with faulty boxes instead of skipping them.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No output but errors.")] = False,
    format: Format = None,
    pictures: Pictures = None,
    labels: Labels = None,
) -> None:
    """Train a detector. Everything about the run goes into one folder; open its report.html.

    \b
    a first run:           fcos train my_images --minutes 15
    epochs of the preset:  fcos train my_images
    learn from all of it:  fcos train my_images --holdout 0
    a short, small one:    fcos train my_images --epochs 5 data.size=256
    go on, past the end:   fcos train --resume --epochs 50
    settings, explained:   fcos config fcos-lite0
    """
    if replay is not None:
        from ..training.replay import replay as do_again

        typer.echo(do_again(replay, device).text())
        return
    from ..training.clock import Budget
    from ..training.program import train

    things, changes = sort_words(words, settings)
    named = the_one(things, data, "--data")
    changes += [f"train.epochs={epochs}"] if epochs is not None else []
    changes += ["train.deterministic=true"] if deterministic else []
    train(
        data_source(named, format, pictures, labels) if named is not None else None,
        model=model,
        out=out,
        settings=changes,
        val=val,
        split=split,
        holdout=holdout,
        minutes=None if minutes is None else Budget.of_process(minutes),
        init=init,
        config=config,
        dialect=dialect,
        resume=resume,
        device=device,
        devices=devices,
        nodes=nodes,
        strict=strict,
        quiet=quiet,
    )
