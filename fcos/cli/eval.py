"""`fcos eval`: judge a model, or a results file of anyone, on a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ..errors import FcosError
from ..system.stderr import say
from . import complete
from .common import (
    Device,
    Format,
    ImagesIn,
    Json,
    Labels,
    MaybeData,
    Models,
    Overlap,
    Settings,
    Split,
    Threads,
    Tile,
    Trust,
    Views,
    check_overlap,
    data_source,
    dtype_option,
    open_own,
    open_to_judge,
    refuse,
    runtime_option,
    sort_words,
    tell_tiles,
    the_one,
)

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..evaluation.uncertainty import Comparison
    from ..inference.composite import Composite
    from ..inference.detector import Detector
    from ..types import Detections


# what means nothing for detections that are there already
_OF_MODEL = (
    "batch", "device", "runtime", "dtype", "threads", "lanes", "trust", "tile", "overlap", "tta", "allow_missing",
)  # fmt: skip


class _Asked(NamedTuple):
    """What to judge: models together, a file of detections, or two of either beside each other."""

    models: list[str] | None
    detections: Path | None
    compare: tuple[str, str] | None


class _Judged(NamedTuple):
    """What was found, the data set as the model sees it, and the tiles that it looked at, None for whole images."""

    detections: list[Detections]
    dataset: Dataset
    tile: int | str | None = None


def command(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DATA|KEY=VALUE",
            autocompletion=complete.path_or_setting,
            help="Data set with labels; then settings.",
        ),
    ] = None,
    settings: Settings = None,
    data: MaybeData = None,
    model: Models = None,
    detections: Annotated[
        Path | None,
        typer.Option("--detections", help="Judge this COCO results file (.json, .json.gz) instead of a model."),
    ] = None,
    split: Split = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for metrics.json, detections.json and plots.")
    ] = None,
    as_json: Json = False,
    batch: Annotated[int, typer.Option("--batch", min=0, help="Images in one forward pass; 0: chosen for you.")] = 0,
    device: Device = "auto",
    runtime: Annotated[str | None, runtime_option("; auto: make the fastest first. Default: torch.")] = None,
    score: Annotated[
        float | None,
        typer.Option(
            "--score",
            min=0,
            max=1,
            help="Score threshold of the confusion matrix of --out. Default: that of the best F1.",
        ),
    ] = None,
    class_agnostic: Annotated[
        bool, typer.Option("--class-agnostic", help="Treat all classes as one (proposals).")
    ] = False,
    voc_plus_one: Annotated[
        bool,
        typer.Option(
            "--voc-plus-one", help="The detections are in VOC pixels (x2 - x1 + 1 wide); compute VOC's numbers so."
        ),
    ] = False,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Continue if the data has classes that the model does not know.")
    ] = False,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--compare",
            metavar="A B",
            autocompletion=complete.models,
            help="Compare two models or results files, with intervals of the difference.",
        ),
    ] = None,
    ci: Annotated[
        bool, typer.Option("--ci", help="Add 95 % intervals: how much AP would change on other images.")
    ] = False,
    resamples: Annotated[
        int,
        typer.Option(
            "--resamples",
            min=10,
            max=100_000,
            help="How many random halves of the images the intervals are computed from.",
        ),
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of these halves.")] = 0,
    precision: Annotated[
        float | None,
        typer.Option(
            "--precision", min=0, max=1, help="Find the lowest score of each class that keeps this precision (IoU 0.5)."
        ),
    ] = None,
    dtype: Annotated[
        str | None, dtype_option("fp32, bf16, fp16; auto: the fastest that passed its check. Default: fp32.")
    ] = None,
    threads: Threads = 0,
    lanes: Annotated[
        int, typer.Option("--lanes", min=0, help="Batches computed side by side on a CPU; 0: chosen for you.")
    ] = 0,
    trust: Trust = False,
    tile: Tile = None,
    overlap: Overlap = 0.2,
    tta: Views = "",
    mot: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--mot",
            metavar="TRUTH RESULT",
            help="Judge tracks: two MOTChallenge files, truth first. Gives HOTA, IDF1, MOTA.",
        ),
    ] = None,
    format: Format = None,
    images_in: ImagesIn = None,
    labels: Labels = None,
) -> None:
    """Measure how good a model or a results file is, or compare two.

    \b
    fcos eval my_data --model runs/mine
    fcos eval runs/mine              # on the images that training kept back
    fcos eval my_data --detections results.json
    fcos eval my_data --compare runs/one runs/two
    """
    import json
    from dataclasses import replace

    from ..data.runs import run_of
    from ..evaluation.coco import curves, evaluate, read_results
    from ..evaluation.program import cut_note, is_results, learned_note
    from ..export.registry import format_of
    from ..inference.composite import OWN, Composite, Looks, tile_of
    from ..inference.load import load_together
    from ..inference.stream import Pace, pick_pace
    from ..inference.views import parse_views
    from ..system.files import check_folder, whole_set, write_whole

    things, overrides = sort_words(words, settings, context)
    named = the_one(things, data, "--data")
    asked = _Asked(model, detections, compare)
    if mot is not None:
        if named or any(asked):
            raise FcosError(
                "--mot compares two MOTChallenge files; leave out the data set, --model, --detections and --compare"
            )
        refuse(context, "--mot", *(name for name in context.params if name not in ("mot", "as_json")))
        _tracks(*mot, as_json)
        return
    own: str | None = None  # the run whose images are judged, where no data set is named
    if named is not None and not model and detections is None and run_of(named) is not None:
        own, named = named, None
        asked = asked if compare else _Asked([own], None, None)
    elif named is None:
        own = model[0] if model else next(filter(run_of, compare or ()), None)
    models = asked.models or []
    _check(context, named if own is None else own, asked, overrides)
    check_folder(out)
    if class_agnostic and precision is not None:
        raise FcosError("--precision finds a score for each class; --class-agnostic has only one class: leave one out")
    if named is not None:
        data = Path(named)
        looked_at = detections is None and not (compare is not None and all(map(is_results, compare)))
        dataset = open_to_judge(data_source(data, format, images_in, labels), split, pixels=looked_at)
        for note in filter(None, (learned_note(name, dataset) for name in models or compare or ())):
            say(note)
    else:
        refuse(context, "a run without a data set", "format", "images_in", "labels")
        assert own is not None
        data, dataset = open_own(own, split)
        for note in filter(None, (learned_note(name, dataset) for name in compare or ([data] if split else ()))):
            say(note)
    looks = Looks(tile_of(tile), overlap, parse_views(tta))

    def judge(names: list[str]) -> _Judged:
        pace = pick_pace(len(dataset), Pace(batch, lanes), threads, device)
        kept = runtime == "auto" and not any(map(format_of, names))  # the numbers of a model are those of fp32
        detector = load_together(
            names,
            looks,
            runtime=runtime or "own",
            dtype=dtype or ("fp32" if kept else None),
            threads=threads,
            lanes=pace.lanes,
            device=device,
            trust=trust,
            overrides=overrides,
        )
        used = detector.looks.tile if isinstance(detector, Composite) else None
        check_overlap(context, tile, detector.config.data.tile)
        if looks.tile == OWN:
            tell_tiles(names[0], used)
        tiles = int(str(used)) if str(used).isdecimal() else used
        return _Judged(*_detect(detector, dataset, pace.batch, allow_missing), tiles)

    def read(path: str | Path) -> _Judged:
        found = read_results(path, dataset)
        if compare is None and (note := cut_note(found)):
            say(note)
        return _Judged(found, dataset)

    if compare is not None:
        first, second = (read(thing) if is_results(thing) else judge([thing]) for thing in compare)
        if first.dataset.classes != second.dataset.classes:
            raise FcosError(f"{compare[0]} and {compare[1]} judge different classes of {data}")
        from ..evaluation.uncertainty import Draws, compare_detections

        comparison = compare_detections(
            first.detections,
            second.detections,
            first.dataset,
            Draws(resamples, seed),
            class_agnostic=class_agnostic,
        )
        where = {"data": str(data), "split": first.dataset.split}
        _tell_comparison(comparison, compare, where, out, as_json)
        return
    seen, dataset, used = read(detections) if detections is not None else judge(models)
    metrics = evaluate(seen, dataset, class_agnostic=class_agnostic, voc_plus_one=voc_plus_one)
    more: list[str] = []
    if ci:
        from ..evaluation.uncertainty import Draws, intervals, method

        around = intervals(seen, dataset, Draws(resamples, seed), class_agnostic=class_agnostic)
        metrics = replace(metrics, intervals=around)
        more += [method(len(dataset), resamples, seed), *(f"{k:<4}  {v}" for k, v in around.items())]
    result = {
        "data": str(data),
        "split": dataset.split,
        "model": " + ".join(models) if models else None,
        **({"tile": used, "overlap": overlap} if used else {}),
        **({"tta": tta} if tta else {}),
        "detections_file": str(detections) if detections is not None else None,
        **metrics.to_dict(),
    }
    if precision is not None:
        from ..evaluation.calibration import score_option, threshold_table, thresholds

        rows = thresholds(curves(seen, dataset), precision)
        result["scores_for_precision"] = {"precision": precision, "scores": score_option(rows)}
        more += [*([""] if more else []), threshold_table(rows, precision)]
    if out is not None:
        with whole_set():
            files = _write(out, result, seen, dataset, score)
            if "scores_for_precision" in result:
                text = json.dumps(result["scores_for_precision"]["scores"], indent=1) + "\n"
                files.append(write_whole(out / "scores.json", text))
    if as_json:
        typer.echo(json.dumps(result))
        return
    own_images = ", the images that the run was judged by" if named is None and split is None else ""
    on = f"{dataset.root if named is None else data}, split {dataset.split}{own_images}"
    typer.echo(f"{result['model'] or detections} on {on}\n")
    typer.echo("\n".join([metrics.table(), *([""] if more else []), *more]))
    if out is not None:
        typer.echo(f"\nwritten to {out}: {', '.join(sorted(file.name for file in files))}")


def _check(context: typer.Context, named: str | None, asked: _Asked, overrides: Sequence[str]) -> None:
    """Refuse a command line that does not say what to judge on which data, or has an option that means nothing beside
    the others. `named`: the data set, None for that of a run."""
    from ..data.runs import missing
    from ..evaluation.program import is_results

    models, detections, compare = asked
    if file := next(filter(is_results, models or ()), None):
        raise FcosError(f"{file} is a file of detections, not a model; give it with --detections")
    if named is not None and not any(asked):
        what = f"say what to measure on {named}: --model MODEL, --detections FILE or --compare A B"
        raise FcosError(missing(named) or what)
    if named is None and not models:
        raise FcosError("give the data set to judge on: fcos eval DATA --model MODEL (a run folder needs none)")
    if bool(models) + (detections is not None) + (compare is not None) != 1:
        raise FcosError("give one of --model, --detections and --compare")
    if detections is not None or (compare is not None and all(map(is_results, compare))):
        if overrides:
            raise FcosError(f"{overrides[0]!r} is a setting of a model, and there is none beside a file of detections")
        refuse(context, "a file of detections", *_OF_MODEL)
    if not context.params["ci"] and compare is None:
        refuse(context, "a run without --ci and --compare", "resamples", "seed")
    if compare is not None:
        refuse(context, "--compare", "voc_plus_one", "score", "ci", "precision")
    if context.params["out"] is None:
        refuse(context, "a run without --out", "score")


def _detect(
    detector: Detector | Composite, dataset: Dataset, batch: int, allow_missing: bool
) -> tuple[list[Detections], Dataset]:
    """What a model finds, and the data set under the model's choice of classes."""
    from ..evaluation.program import detect
    from ..system.terminal import plural

    say(f"{plural(len(dataset), 'image')} of {dataset.root}, split {dataset.split}")
    return detect(detector, dataset, batch, allow_missing=allow_missing)


def _tell_comparison(
    comparison: Comparison, names: tuple[str, str], where: dict[str, str], out: Path | None, as_json: bool
) -> None:
    """Write comparison.json to `out`, and print. `where`: the data and its split."""
    import json

    from ..system.files import write_whole

    result = {**where, "A": names[0], "B": names[1], **comparison.to_dict()}
    if out is not None:
        write_whole(out / "comparison.json", json.dumps(result, indent=2) + "\n")
    if as_json:
        typer.echo(json.dumps(result))
        return
    on = f"{where['data']}, split {where['split']}"
    typer.echo(f"A: {names[0]}\nB: {names[1]}\non {on}\n\n{comparison.text()}")
    if out is not None:
        typer.echo(f"\nwritten to {out}: comparison.json")


def _write(
    folder: Path, result: dict[str, Any], seen: list[Detections], dataset: Dataset, score: float | None
) -> list[Path]:
    """The files of an evaluation."""
    import json

    from ..evaluation.coco import as_one_class
    from ..evaluation.results import write_results
    from ..show.judged import draw_evaluation
    from ..system.files import write_whole
    from ..system.terminal import plural

    odd = sum(int(((d.scores < 0) | (d.scores > 1)).sum()) for d in seen)
    if odd:
        say(f"{plural(odd, 'score')} outside 0..1, which no probability is: left out of reliability.png")
    drawn = as_one_class(seen, dataset) if result["class_agnostic"] else (seen, dataset)
    return [
        write_whole(folder / "metrics.json", json.dumps(result, indent=2) + "\n"),
        write_whole(folder / "detections.json", lambda p: write_results(p, seen, dataset)),
        *draw_evaluation(folder, *drawn, score),
    ]


def _tracks(truth: Path, result: Path, as_json: bool) -> None:
    """HOTA, IDF1 and MOTA of one file of tracks against another."""
    import json

    from ..evaluation.mot import judge_mot

    metrics = judge_mot(truth, result)
    typer.echo(json.dumps(metrics.to_dict()) if as_json else metrics.text())
