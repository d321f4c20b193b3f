"""fcos study"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    open_to_judge,
    refuse,
    settings_of,
    sort_words,
    the_one,
)

if TYPE_CHECKING:
    from ..config import Config
    from ..data.dataset import Dataset
    from ..data.tree import DataSource
    from ..inference.detector import Detector
    from ..inference.load import Placing

# name -> (what it needs, what it tells)
STUDIES = {
    "recall": ("data", "best possible recall, beside RetinaNet's anchors (table 1)"),
    "ambiguity": ("data", "locations that lie in several boxes (table 2)"),
    "outputs": ("", "output variables, beside nine anchors a location"),
    "centerness": ("data model", "AP without, with computed, with predicted centerness (table 4)"),
    "nms": ("data model", "AP by NMS threshold and score rule; the best setting"),
    "proposals": ("data model", "AR@100 and AR@1000 of class-agnostic proposals (table 6)"),
    "oracle": ("data model", "AP with one output at a time replaced by the truth"),
    "ablation": ("data", "trains the paper's improvements one by one; takes hours"),
    "versus": ("data", "trains FCOS, RetinaNet and an RPN (tables 3 and 6); takes hours"),
    "scaling": ("model", "estimates training on 1 to 64 GPUs from a measured step"),
    "figures": ("model", "draws centerness.png and architecture.png"),
}


_WITH_DATA = tuple(set(STUDIES) - {"outputs", "ablation"})
_ONLY = {  # options that mean nothing to the other studies
    "split": _WITH_DATA,
    "limit": _WITH_DATA,
    "seeds": ("ablation", "versus"),
    **dict.fromkeys(("minutes", "epochs", "methods"), ("versus",)),
    "baseline": ("proposals",),
    **dict.fromkeys(("step", "network", "inside", "machine", "loading"), ("scaling",)),
}


def command(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", autocompletion=complete.among(*STUDIES), help="One of the studies above.")
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA|KEY=VALUE", autocompletion=complete.path_or_setting, help="Data set; then settings."
        ),
    ] = None,
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
    from ..system.environment import environment
    from ..system.files import check_folder

    if name not in STUDIES:
        hint = did_you_mean(name, STUDIES, f"choose from {', '.join(STUDIES)}")
        raise FcosError(f"there is no study {name!r}; {hint}")
    needs = STUDIES[name][0]
    things, overrides = sort_words(words, settings)
    named = the_one(things, data, "--data")
    source = data_source(named, format, images_in, labels) if named is not None else None
    if "data" in needs and source is None:
        raise FcosError(f"the study {name} needs --data DATA")
    if "model" in needs and model is None:
        raise FcosError(f"the study {name} needs --model MODEL")
    for option, studies in _ONLY.items():
        if name not in studies:
            other = f", unlike {' and '.join(studies)}," if len(studies) < 3 else ""
            refuse(context, f"the study {name}{other}", option)
    if minutes is not None and (epochs is not None or not 0 < minutes <= 60 * 24 * 14):
        raise FcosError("--minutes is a time for each run, above 0, instead of --epochs, such as --minutes 10")
    if minutes is not None and (both := _names(overrides) & {"train.epochs", "train.iterations"}):
        raise FcosError(f"{min(both)} and --minutes both say how long to train; leave one out")
    check_folder(out)  # before hours of computing
    dataset: Dataset | None
    if name == "ablation":
        assert source is not None
        dataset, result = _ablation(source, overrides, model, out or Path("runs/ablation"), seeds, device)
    elif name == "versus":
        assert source is not None
        overrides += [f"train.epochs={epochs}", "train.iterations=0"] if epochs is not None else []
        out = out or Path("runs/versus")
        config = _config(model or "fcos-lite0", overrides)
        only = [word.strip() for word in methods.split(",") if word.strip()]
        plan = {
            "config": config,
            "out": out,
            "seeds": _seeds(config, seeds),
            "only": only,
            "minutes": minutes,
            "device": device,
        }
        dataset, result = _versus(source, split, limit, plan)
    elif name == "scaling":
        assert model is not None
        dataset = _open(source, split or "train", limit) if source is not None else None
        given = {"step": step, "network": network, "inside": inside, "machine": machine, "loading": loading}
        result = _scaling(model, overrides, dataset, given)
    else:
        dataset = _open(source, split, limit) if source is not None else None
        result = _run(
            name, overrides, dataset, model, Placing(device=device, runtime="own", trust=trust), baseline or [], out
        )
    report = {"study": name, **result.to_dict(), "environment": environment({} if dataset is None else {name: dataset})}
    try:
        typer.echo(json.dumps(report) if as_json else result.text())
    finally:  # where one of the two finds no room, the other keeps what was computed
        if out is not None:
            _write(out, name, json.dumps(report, indent=1), result)


_LIST = "\n    ".join(f"{name:<12}{about}" for name, (_, about) in STUDIES.items())
command.__doc__ = (command.__doc__ or "").replace("%s", _LIST)


def _open(data: DataSource, split: str | None, limit: int) -> Dataset:
    dataset = open_to_judge(data, split)
    return dataset.subset(range(min(limit, len(dataset)))) if limit else dataset


def _run(
    name: str,
    settings: list[str],
    dataset: Any,
    model: str | None,
    placing: Placing,
    baselines: list[Path],
    out: Path | None,
) -> Any:
    if name == "outputs":
        from ..study.outputs import outputs_study

        return outputs_study(_config(model, settings))
    if name == "recall":
        from ..study.recall import recall_study

        return recall_study(dataset, _config(model, settings))
    if name == "ambiguity":
        return _ambiguity(settings, dataset, model, placing)
    assert model is not None
    from ..study import paper
    from ..study.cached import cache

    detector = _detector(model, settings, placing)
    if name == "figures":
        from ..analysis.common import with_files
        from ..demo.digits import photographs
        from ..study.portraits import portraits

        images = photographs()
        if dataset is not None:
            images = [r.path for r in with_files(dataset).records if r.path is not None]
        return portraits(detector, images, out or Path("figures"))
    if name == "proposals":
        from ..inference.proposals import proposer
        from ..study.baselines import baseline_proposals, load_baseline

        loaded = {path.name: load_baseline(path, detector.config.data) for path in baselines}
        detector, dataset = proposer(detector), dataset.as_single_class()
        others = {f"{b.name} ({file})": baseline_proposals(b, dataset) for file, b in loaded.items()}
        return paper.proposals_study(cache(detector, dataset, 0.0), dataset, detector.config, others)
    study = getattr(paper, f"{name}_study")
    return study(cache(detector, dataset), dataset, detector.config)


def _ablation(
    data: DataSource, settings: list[str], model: str | None, out: Path, seeds: int, device: str
) -> tuple[Dataset, Any]:
    from ..data.open import open_splits
    from ..errors import DataError
    from ..study.ablation import ablation_study

    splits = open_splits(data)
    missing = [k for k in ("train", "val") if k not in splits]
    if missing:
        raise DataError(f"{data} has no {missing[0]} split (it has {', '.join(splits)}), which the ablation needs")
    config = _config(model or "fcos-lite0", settings)
    return splits["val"], ablation_study(splits, config, out, _seeds(config, seeds), device)


def _names(settings: list[str]) -> set[str]:
    """Of the settings that a command line gives."""
    return {word.partition("=")[0].strip() for word in settings}


def _seeds(config: Config, count: int) -> range:
    """As many, from `train.seed` on: machines can share a study."""
    first = config.train.seed
    return range(first, first + count)


def _versus(data: DataSource, split: str | None, limit: int, plan: dict[str, Any]) -> tuple[Dataset, Any]:
    """Learned from is train, or trainval; judged by `split`, else val, else test."""
    from ..data.open import open_splits
    from ..data.splits import taught_splits
    from ..errors import DataError
    from ..study.versus import Plan, versus_study

    splits = open_splits(data)
    (taught,) = taught_splits(splits, None, data)
    judged = split or next((k for k in ("val", "test") if k in splits), "val")
    if judged == split == taught:
        raise DataError(
            f"--split {split} is what is learned from; name another to judge by (it has {', '.join(splits)})"
        )
    if judged not in splits or judged == taught:
        fix = "" if split else "; to keep a part for that: fcos data split"
        raise DataError(f"{data} has no {judged} split to judge by beside {taught} (it has {', '.join(splits)}){fix}")
    dataset = splits[judged]
    dataset = dataset.subset(range(min(limit, len(dataset)))) if limit else dataset
    return dataset, versus_study({"train": splits[taught], "val": dataset}, Plan(**plan))


def _scaling(model: str, settings: list[str], dataset: Dataset | None, given: dict[str, Any]) -> Any:
    from ..errors import FcosError
    from ..network import weights
    from ..study.scaling import Cluster, measured_step, scaling_study
    from ..zoo.describe import read_settings
    from ..zoo.models import known_models

    bad = [key for key, value in given.items() if value is not None and not 1e-6 <= value <= 1e6]
    if bad:
        option = "gpus-per-machine" if bad[0] == "machine" else bad[0]
        raise FcosError(f"--{option} {given[bad[0]]}: give a number from 0.000001 to 1,000,000")
    config = _config(model, settings)
    bare = model in known_models() and known_models()[model].path() is None
    classes = len(dataset.classes) if dataset is not None else 80 if bare else len(read_settings(model)[1])
    if not config.train.batch:
        raise FcosError("the images of a step are not known; give them with --set train.batch=16")
    source = "as given"
    if given["step"] is None:
        if not Path(model).is_dir():
            raise FcosError(f"{model} is no run, so the time of a step is not known; give it with --step SECONDS")
        given |= {"step": measured_step(Path(model), config.train.batch)}
        source = f"median of {Path(model) / 'metrics.csv'}, waiting for data left out"
    network = weights.build(config, classes)
    size = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
    images = config.train.iterations * config.train.batch
    if not images and dataset is not None:
        images = config.train.epochs * len(dataset)
    return scaling_study(Cluster(images=config.train.batch, gradients=size, total=images, **given), source)


def _config(model: str | None, settings: list[str]) -> Config:
    """The settings of a model, of fcos-r50 where none is named."""
    return settings_of(model or "fcos-r50", settings)


def _detector(model: str, settings: list[str], placing: Placing) -> Detector:
    from ..inference.load import load

    return load(model, overrides=settings, **placing)


def _ambiguity(settings: list[str], dataset: Dataset, model: str | None, placing: Placing) -> Any:
    from dataclasses import replace

    from ..inference.dataset import predict_dataset
    from ..study.ambiguity import ambiguity_study, ambiguous_detections
    from ..study.recall import sampling
    from ..zoo.models import known_models

    bare = model in known_models() and known_models()[model].path() is None  # a preset without weights detects nothing
    if model is None or bare or all(r.path is None for r in dataset.records):
        return ambiguity_study(dataset, _config(model, settings))
    detector = _detector(model, settings, placing)
    detections = predict_dataset(detector, dataset, allow_missing=True)
    config = detector.config
    whole = ambiguous_detections(detections, dataset, sampling(config, 0.0))
    shares = whole, ambiguous_detections(detections, dataset, config)
    return replace(ambiguity_study(dataset, config), detections=shares)


def _write(folder: Path, name: str, text: str, result: Any) -> None:
    from ..system.files import whole_set, write_whole

    with whole_set():
        write_whole(folder / f"{name}.json", text + "\n")
        write_whole(folder / f"{name}.txt", result.text() + "\n")
        if hasattr(result, "plot"):
            write_whole(folder / f"{name}.png", result.plot)
