"""fcos train"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..config import Config
    from ..data.dataset import Dataset


def command(
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as train.lr=0.001.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Data set: COCO JSON, YOLO or VOC; folder or file.")
    ] = None,
    val: Annotated[str | None, typer.Option("--val", help="Validation data, where --data has no val split.")] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Splits to learn from, such as train,val; then none is kept for judging."),
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option("--holdout", help="Share of the pictures kept for judging, such as 0.1, where there is no val."),
    ] = None,
    model: Annotated[str, typer.Option("--model", help="Preset; `fcos models` lists them.")] = "fcos-lite0",
    init: Annotated[
        str | None,
        typer.Option(
            "--init", help="Start from this detector (name, run folder, file); 'none': the body's weights only."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run folder; runs/NAME when left out.")] = None,
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
    a first run:           fcos train --data my_pictures
    no validation split:   fcos train --data my_pictures --holdout 0.1
    a short, small one:    fcos train --data my_pictures --epochs 5 data.size=256
    go on, past the end:   fcos train --resume --epochs 50
    settings, explained:   fcos config fcos-lite0
    """
    if replay is not None:
        from ..training.replay import replay as do_again

        typer.echo(do_again(replay, device).text())
        return
    import json

    from ..data.splits import draw_holdout, hold_out
    from ..errors import DataError, FcosError
    from ..files import check_folder
    from ..presets import resolve
    from ..training.folder import latest_folder, next_folder
    from ..training.loop import stored_config, train

    overrides = [*(settings or []), *([f"train.epochs={epochs}"] if epochs is not None else [])]
    overrides += ["train.deterministic=true"] if deterministic else []
    held: list[str] | None = None  # names of the pictures for judging
    if resume:
        folder = out or latest_folder(Path("runs"))
        settings_of_run: Config = stored_config(folder).override(*overrides, source="command line")
        try:
            sources = json.loads((folder / "environment.json").read_text())["sources"]
        except (OSError, ValueError, KeyError) as error:
            if data is None:
                raise FcosError(f"{folder} does not say what data it used; give it with --data") from error
            sources = {}
        if data is None:
            data, val, split = sources["data"], sources["val"], sources.get("split")
        held = sources.get("held_out") if val is None else None
        if holdout is not None:
            raise FcosError(f"--holdout was settled when the run in {folder} began; leave it out")
        resolved = settings_of_run
    else:
        resolved = resolve(model, overrides, dialect, config)
        if data is None:
            raise DataError("what should it learn? give the data set: fcos train --data FOLDER_OR_JSON")
        check_folder(out)
        folder = out or next_folder(Path("runs"), f"{resolved.name}-{Path(data).resolve().stem}")
    splits = training_data(data, val, split, resolved, strict)
    if holdout is not None or held is not None:
        if "val" in splits:
            raise DataError(f"--holdout is for data without a validation part; here that is {splits['val'].root}")
        held = held if held is not None else draw_holdout(splits["train"], holdout or 0.0, resolved.train.seed)
        splits["train"], splits["val"] = hold_out(splits["train"], held)
    train(
        resolved,
        splits,
        folder,
        init=init,
        resume=resume,
        device=device,
        devices=devices,
        nodes=nodes,
        quiet=quiet,
        sources={
            "data": str(Path(data).resolve()),
            "val": str(Path(val).resolve()) if val else None,
            "split": split,
            "held_out": held,
        },
    )


def training_data(data: str, val: str | None, split: str | None, config: Config, strict: bool) -> dict[str, Dataset]:
    """{"train": ..., "val": ...} of the paths given; a data set without splits is all training data."""
    from ..data.dataset import merge
    from ..data.open import open_dataset, open_splits
    from ..errors import DataError

    splits = open_splits(data, strict=strict, inclusive=config.data.inclusive_boxes)
    wanted = [s.strip() for s in split.split(",")] if split else [s for s in ("train", "trainval") if s in splits][:1]
    if not wanted and len(splits) == 1:
        wanted = list(splits)
    absent = [s for s in wanted if s not in splits]
    if absent or not wanted:
        missing = f"no split called {absent[0]}" if absent else "no split called train; choose one with --split"
        raise DataError(f"{data} has {missing}; it has {', '.join(splits)}")
    chosen = {"train": merge([splits[s] for s in wanted])}
    if val is not None:
        chosen["val"] = open_dataset(val, strict=strict, inclusive=config.data.inclusive_boxes)
    elif "val" in splits and "val" not in wanted and "trainval" not in wanted:
        chosen["val"] = splits["val"]
    return chosen
