"""`fcos eval`: judge a model, or a results file of anyone, on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..evaluate import Metrics
    from ..types import Detections


def command(
    settings: list[str] = typer.Argument(None, metavar="[KEY=VALUE]...", help="Settings, such as decode.nms_iou=0.5"),
    data: Path = typer.Option(..., "--data", "-d", help="Data set with the truth: COCO, YOLO or VOC."),
    model: str = typer.Option(None, "--model", "-m", help="Model name, run folder or weights file."),
    detections: Path = typer.Option(None, "--detections", help="COCO results file (.json, .json.gz) to judge."),
    split: str = typer.Option(None, "--split", help="Split; left out: test, else val, else the only one."),
    out: Path = typer.Option(None, "--out", "-o", help="Folder for metrics.json, detections.json and plots."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
    batch: int = typer.Option(8, "--batch", min=1, help="Pictures per forward pass."),
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda, cuda:1, mps."),
    score: float = typer.Option(
        None, "--score", min=0, max=1, help="Score threshold of the confusion matrix; left out: that of the best F1."
    ),
    class_agnostic: bool = typer.Option(False, "--class-agnostic", help="All classes are one (proposals)."),
    voc_plus_one: bool = typer.Option(
        False, "--voc-plus-one", help="VOC numbers by the devkit's pixels, x2 - x1 + 1 wide, for detections in them."
    ),
    allow_missing: bool = typer.Option(
        False, "--allow-missing", help="Go on when the data has classes that the model does not know."
    ),
) -> None:
    """COCO and VOC numbers of a model or of a results file."""
    import json

    from ..errors import FcosError
    from ..evaluate import evaluate, predict_dataset, read_results

    if (model is None) == (detections is None):
        raise FcosError("give either --model or --detections, the thing to judge")
    if detections is not None and settings:
        raise FcosError(f"{settings[0]!r} is a setting of a model; with --detections there is none")
    if out is not None and out.exists() and not out.is_dir():
        raise FcosError(f"--out {out} is a file; name a folder")
    dataset = _choose(data, split)
    if detections is not None:
        found = read_results(detections, dataset)
    else:
        from ..detector import load

        detector = load(model, device=device, overrides=settings or [])
        wanted = detector.config.data
        if wanted.classes:
            dataset = dataset.with_classes(wanted.classes)
        if wanted.single_class:
            dataset = dataset.as_single_class(detector.classes.names[0])
        _say(f"{len(dataset.records)} pictures of {data}, split {dataset.split}")
        found = predict_dataset(detector, dataset, batch, allow_missing=allow_missing)
    metrics = evaluate(found, dataset, class_agnostic=class_agnostic, voc_plus_one=voc_plus_one)
    result = {
        "data": str(data),
        "split": dataset.split,
        "model": model,
        "detections_file": str(detections) if detections is not None else None,
        **metrics.to_dict(),
    }
    if out is not None:
        _write(out, json.dumps(result, indent=2), metrics, found, dataset, score)
    if as_json:
        typer.echo(json.dumps(result))
        return
    typer.echo(f"{model or detections} on {data}, split {dataset.split}\n")
    typer.echo(metrics.table())
    if out is not None:
        typer.echo(f"\nwritten to {out}: metrics.json, detections.json, pr.png, f1.png, confusion.png")


def _say(line: str) -> None:
    typer.echo(f"fcos: {line}", err=True)


def _choose(path: Path, split: str | None) -> Dataset:
    """The split asked for, else test, val, or the only one there is."""
    from ..data.dataset import _sources, open_dataset

    if split is None:
        names = _sources(path, False, False)  # lists the splits; reading a large train split would take long
        split = next((name for name in ("test", "val") if name in names), None)
    dataset = open_dataset(path, split)
    for note in dataset.notes:
        _say(f"note: {note}")
    return dataset


def _write(
    folder: Path, text: str, metrics: Metrics, found: list[Detections], dataset: Dataset, score: float | None
) -> None:
    from .. import plots
    from ..errors import FcosError
    from ..evaluate import confusion_matrix, curves
    from ..results import write_results

    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(text + "\n")
        write_results(folder / "detections.json", found, dataset)
        lines = curves(found, dataset)
        plots.pr_curve(lines, folder / "pr.png")
        plots.f1_curve(lines, folder / "f1.png")
        if score is None:
            score = next(iter(lines.pooled.values())).best()[0]
            score = score if score == score else 0.5  # nothing was found: any threshold shows that
        matrix = confusion_matrix(found, dataset, score=score)
        plots.confusion_matrix(matrix, dataset.classes.names, folder / "confusion.png", score=score)
    except OSError as error:
        raise FcosError(f"cannot write to {folder}: {error.strerror or error}") from error
