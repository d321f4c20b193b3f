"""`fcos train`: train a detector, for some minutes or epochs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import FcosError
from . import complete
from .common import (
    DATA,
    Device,
    Format,
    ImagesIn,
    Labels,
    Settings,
    data_source,
    data_words,
    preset_option,
    sort_words,
    tell_unused,
    the_one,
)


def command(
    context: typer.Context,
    words: Annotated[list[str] | None, data_words()] = None,
    settings: Settings = None,
    data: Annotated[str | None, typer.Option("--data", "-d", help=DATA)] = None,
    val: Annotated[str | None, typer.Option("--val", help="Data set to judge by, if DATA has no val split.")] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            autocompletion=complete.splits,
            help="Splits to learn from, such as train,val. Then no images are kept for judging.",
        ),
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option(
            "--holdout",
            min=0.0,
            help="Share of the images kept for judging, if there is no val split: 0.1, or 0 for none.",
        ),
    ] = None,
    model: Annotated[str | None, preset_option("fcos-lite0; `fcos models` lists all")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes", help="How long everything may take. The program chooses the rest and prints its plan."
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            "--init",
            autocompletion=complete.starts,
            help="Start from this detector (name, run folder or file). backbone: from the backbone of the package's "
            "detector. none: from the backbone's ImageNet weights. Default: the package's detector or its backbone.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the run. Default: runs/NAME.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="YAML file with settings.")] = None,
    dialect: Annotated[
        str | None,
        typer.Option(
            "--dialect",
            autocompletion=complete.dialects,
            help="Follow another implementation: original, adelaidet, detectron2, mmdet or torchvision.",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", help="How often to go through the images (train.epochs).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out. Default: the latest in runs/.")
    ] = False,
    replay: Annotated[
        Path | None,
        typer.Option(
            "--replay", help="Repeat the step saved in nan-STEP.pt, and show which loss and layer are not finite."
        ),
    ] = None,
    device: Device = "auto",
    devices: Annotated[int, typer.Option("--devices", min=1, help="Processes on this machine, one for each GPU.")] = 1,
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Number of machines.")] = 1,
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            autocompletion=complete.engines,
            help="local, or ray: the processes are workers of Ray (fcos help scale).",
        ),
    ] = "local",
    address: Annotated[
        str | None, typer.Option("--address", help="With --engine ray, address of a running Ray, or auto.")
    ] = None,
    restarts: Annotated[
        int,
        typer.Option("--max-restarts", min=0, help="With --engine ray, how often a lost worker is replaced."),
    ] = 3,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Give equal bits in every run (train.deterministic=true).")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at faulty boxes instead of skipping them.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.")] = False,
    format: Format = None,
    images_in: ImagesIn = None,
    labels: Labels = None,
) -> None:
    """Train a detector. Everything about the run goes into one folder; open its report.html.

    \b
    fcos train my_images --minutes 15              # a first run
    fcos train my_images                           # the epochs of the preset
    fcos train my_images --holdout 0               # learn from all images
    fcos train my_images --epochs 5 data.size=256  # a short run with small images
    fcos train --resume --epochs 50                # continue, past the end
    fcos train --resume --minutes 15               # 15 minutes more
    fcos config fcos-lite0                         # every setting, explained
    """
    if replay is not None:
        tell_unused(context, "--replay", *(set(context.params) - {"replay", "device"}))
        from ..training.replay import replay as do_again

        typer.echo(do_again(replay, device).text())
        return
    from ..training.clock import Budget
    from ..training.program import train

    things, changes = sort_words(words, settings, context)
    named = the_one(things, data, "--data")
    changes += ["train.deterministic=true"] if deterministic else []
    source = data_source(named, format, images_in, labels) if named is not None else None
    options: dict[str, Any] = {
        "model": model,
        "settings": changes,
        "val": val,
        "split": split,
        "holdout": holdout,
        "epochs": epochs,
        "minutes": None if minutes is None else Budget.of_process(minutes),
        "init": init,
        "config": config,
        "dialect": dialect,
        "resume": resume,
        "device": device,
        "strict": strict,
        "quiet": quiet,
    }
    if engine == "local":
        if address is not None:
            raise FcosError("--address is for --engine ray")
        tell_unused(context, "training without --engine ray", "restarts")
        train(source, out=out, devices=devices, nodes=nodes, **options)
        return
    if engine != "ray":
        raise FcosError(f"there is no engine {engine!r}; choose from local, ray")
    if out is None:
        raise FcosError("--engine ray restarts a lost run from its folder, so it needs one: --out FOLDER")
    from ..scale.training import Cluster, train_on_ray

    cluster = Cluster(address, devices * nodes, worker_cores(), restarts)
    train_on_ray(source, out=out, cluster=cluster, **options)


def worker_cores() -> int:
    """The cores of each worker of Ray, OMP_NUM_THREADS or one, as with torchrun; FcosError where that is no number."""
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    if not threads.isdecimal() or int(threads) < 1:
        raise FcosError(f"OMP_NUM_THREADS={threads}: give the cores of each worker, such as 4")
    return int(threads)
