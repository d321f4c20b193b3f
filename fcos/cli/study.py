"""`fcos study`: the paper's tables, and others, as commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..study.registry import STUDIES
from . import complete
from .common import (
    Device,
    Format,
    ImagesIn,
    Json,
    Labels,
    MaybeData,
    MaybeModel,
    Settings,
    Split,
    Trust,
    data_source,
    data_words,
    refuse,
    sort_words,
    tell_unused,
    the_one,
)

_WORK = ("minutes", "epochs", "methods", "baseline")  # what a study is to do, not how


def command(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", autocompletion=complete.among(*STUDIES), help="One of the studies above.")
    ],
    words: Annotated[list[str] | None, data_words()] = None,
    settings: Settings = None,
    data: MaybeData = None,
    model: MaybeModel = None,
    split: Split = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Only this many images; 0: all.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the numbers and plots.")] = None,
    as_json: Json = False,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="ablation, versus: runs of each row, by seeds from train.seed on.")
    ] = 1,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="versus: minutes of training for each run, instead of epochs.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="versus: epochs of each run.")] = None,
    methods: Annotated[
        str, typer.Option("--methods", help="versus: only these rows, such as fcos,retinanet,rpn.")
    ] = "",
    baseline: Annotated[
        list[Path] | None,
        typer.Option(
            "--baseline", help="proposals: weights of torchvision's Faster R-CNN or RetinaNet to compare with."
        ),
    ] = None,
    step: Annotated[
        float | None, typer.Option("--step", help="scaling: seconds of a step on one GPU. Default: those of the run.")
    ] = None,
    network: Annotated[float, typer.Option("--network", help="scaling: Gbit/s between machines.")] = 100.0,
    inside: Annotated[float, typer.Option("--inside", help="scaling: Gbit/s between the GPUs of a machine.")] = 2400.0,
    machine: Annotated[int, typer.Option("--gpus-per-machine", min=1, help="scaling: GPUs of a machine.")] = 8,
    loading: Annotated[
        float | None, typer.Option("--loading", help="scaling: images a second that a machine decodes.")
    ] = None,
    device: Device = "auto",
    trust: Trust = False,
    format: Format = None,
    images_in: ImagesIn = None,
    labels: Labels = None,
) -> None:
    """Repeat the paper's studies, its numbers beside yours.

    \b
    fcos study recall my_data
    fcos study nms my_data --model runs/mine --out studies

    \b
    %s
    """
    import json

    from ..errors import FcosError, did_you_mean
    from ..inference.load import Placing
    from ..study.asked import Asked
    from ..system.environment import environment
    from ..system.files import check_folder

    if name not in STUDIES:
        hint = did_you_mean(name, STUDIES, f"choose from {', '.join(STUDIES)}")
        raise FcosError(f"there is no study {name!r}; {hint}")
    study = STUDIES[name]
    things, overrides = sort_words(words, settings, context)
    named = the_one(things, data, "--data")
    source = data_source(named, format, images_in, labels) if named is not None else None
    if "data" in study.needs and source is None:
        raise FcosError(f"the study {name} needs --data DATA")
    if "model" in study.needs and model is None:
        raise FcosError(f"the study {name} needs --model MODEL")
    for option in dict.fromkeys(option for s in STUDIES.values() for option in s.options):
        if option not in study.options:
            having = [other for other, s in STUDIES.items() if option in s.options]
            told = f", unlike {' and '.join(having)}," if len(having) < 3 else ""
            (refuse if option in _WORK else tell_unused)(context, f"the study {name}{told}", option)
    check_folder(out)  # before hours of computing
    own = {
        "minutes": minutes, "epochs": epochs, "methods": methods, "baseline": baseline or [],
        "step": step, "network": network, "inside": inside, "machine": machine, "loading": loading,
    }  # fmt: skip
    placing = Placing(device=device, runtime="own", trust=trust)
    mine = {option: value for option, value in own.items() if option in study.options}
    dataset, result = study.run(Asked(source, model, overrides, split, limit, out, seeds, placing, mine))
    report = {"study": name, **result.to_dict(), "environment": environment({} if dataset is None else {name: dataset})}
    try:
        typer.echo(json.dumps(report) if as_json else result.text())
    finally:  # where one of the two finds no room, the other keeps what was computed
        if out is not None:
            _write(out, name, json.dumps(report, indent=1), result)


_LIST = "\n    ".join(f"{name:<12}{study.about}" for name, study in STUDIES.items())
command.__doc__ = (command.__doc__ or "").replace("%s", _LIST)


def _write(folder: Path, name: str, text: str, result: Any) -> None:
    from ..system.files import whole_set, write_whole

    with whole_set():
        write_whole(folder / f"{name}.json", text + "\n")
        write_whole(folder / f"{name}.txt", result.text() + "\n")
        if hasattr(result, "plot"):
            write_whole(folder / f"{name}.png", result.plot)
