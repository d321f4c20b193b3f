"""fcos train"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DATA] [KEY=VALUE]...", help="Data set, and settings such as train.lr=0.001."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="Data set: COCO JSON, YOLO or VOC; folder or file.")
    ] = None,
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
    init: Annotated[
        str | None,
        typer.Option(
            "--init", help="Start from this detector (name, run folder, file); 'none': the body's weights only."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Run folder; runs/NAME when left out.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")] = None,
    dialect: Annotated[
        str | None, typer.Option("--dialect", help="Conventions of a published implementation, such as detectron2.")
    ] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="Setting KEY=VALUE; may be repeated.")] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Short for train.epochs.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out (default: the latest in runs/).")
    ] = False,
    replay: Annotated[
        Path | None,
        typer.Option("--replay", help="Do the step in this nan-STEP.pt again: which loss and layer are not finite."),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    devices: Annotated[int, typer.Option("--devices", min=1, help="Processes on this machine.")] = 1,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Machines.")] = 1,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Short for train.deterministic=true: the same bits in every run.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse data with faulty boxes instead of skipping them.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No output but errors.")] = False,
) -> None:
    """Train a detector. Everything about the run goes into one folder; open its report.html.

    \b
    a first run:           fcos train my_images
    learn from all of it:  fcos train my_images --holdout 0
    a short, small one:    fcos train my_images --epochs 5 data.size=256
    go on, past the end:   fcos train --resume --epochs 50
    settings, explained:   fcos config fcos-lite0
    """
    if replay is not None:
        from ..training.replay import replay as do_again

        typer.echo(do_again(replay, device).text())
        return
    from ..errors import DataError
    from ..training.program import train

    named = [w for w in words or () if "=" not in w or Path(w).exists()]
    if data is not None:
        named.append(data)
    if len(named) > 1:
        raise DataError(f"give one data set, not {', '.join(named)}; settings are words such as train.lr=0.001")
    settings = [w for w in words or () if w not in named] + list(changes or ())
    settings += [f"train.epochs={epochs}"] if epochs is not None else []
    settings += ["train.deterministic=true"] if deterministic else []
    train(
        named[0] if named else None,
        model=model,
        out=out,
        settings=settings,
        val=val,
        split=split,
        holdout=holdout,
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
