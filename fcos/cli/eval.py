"""`fcos eval`: judge a model, or a results file of anyone, on a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

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
    data_source,
    data_words,
    dtype_option,
    open_own,
    open_to_judge,
    refuse,
    runtime_option,
    sort_words,
    the_one,
)
from .eval_run import How, On, compare_two, judge_models, read_file, tell_comparison, write_files

if TYPE_CHECKING:
    from ..data.tree import DataSource


# what means nothing for detections that are there already
_OF_MODEL = (
    "batch", "device", "runtime", "dtype", "threads", "lanes", "trust", "tile", "overlap", "tta", "allow_missing",
)  # fmt: skip


class _Asked(NamedTuple):
    """What to judge: models together, a file of detections, or two of either beside each other."""

    models: list[str] | None
    detections: Path | None
    compare: tuple[str, str] | None

    @property
    def no_model(self) -> bool:
        """Whether there are only detections, in files."""
        from ..evaluation.program import is_results

        return self.detections is not None or (self.compare is not None and all(map(is_results, self.compare)))


def command(
    context: typer.Context,
    words: Annotated[list[str] | None, data_words("Data set with labels; then settings.")] = None,
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
    from ..evaluation.coco import curves, evaluate
    from ..evaluation.uncertainty import Draws, intervals, method
    from ..inference.composite import Looks, tile_of
    from ..inference.load import Placing
    from ..inference.stream import Batching
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
    place, own = named, False  # what to judge on: a data set, or a run whose own images are judged
    if named is not None and not model and detections is None and run_of(named) is not None:
        own = True
        asked = asked if compare else _Asked([named], None, None)
    elif named is None:
        place, own = (model[0] if model else next(filter(run_of, compare or ()), None)), True
    _check(context, place, asked, overrides)
    assert place is not None
    check_folder(out)
    if class_agnostic and precision is not None:
        raise FcosError("--precision finds a score for each class; --class-agnostic has only one class: leave one out")
    if own:
        refuse(context, "a run without a data set", "format", "images_in", "labels")
    source = None if own else data_source(Path(place), format, images_in, labels)
    on = _data_to_judge(place, source, split, asked)
    placing = Placing(runtime=runtime, dtype=dtype, threads=threads, device=device, trust=trust)
    looks = Looks(tile_of(tile), overlap, parse_views(tta))
    how = How(context, looks, Batching(batch, lanes), placing, overrides, allow_missing)
    draws = Draws(resamples, seed)
    if compare is not None:
        comparison, seen_split = compare_two(compare, on, how, draws, class_agnostic)
        tell_comparison(comparison, compare, {"data": str(on.path), "split": seen_split}, out, as_json)
        return
    models = asked.models or []
    seen, dataset, used = judge_models(models, on, how) if detections is None else read_file(detections, on, alone=True)
    metrics = evaluate(seen, dataset, class_agnostic=class_agnostic, voc_plus_one=voc_plus_one)
    more: list[str] = []
    if ci:
        around = intervals(seen, dataset, draws, class_agnostic=class_agnostic)
        metrics = replace(metrics, intervals=around)
        more += [method(len(dataset), resamples, seed), *(f"{k:<4}  {v}" for k, v in around.items())]
    result = {
        "data": str(on.path),
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
            files = write_files(out, result, seen, dataset, score)
            if "scores_for_precision" in result:
                text = json.dumps(result["scores_for_precision"]["scores"], indent=1) + "\n"
                files.append(write_whole(out / "scores.json", text))
    if as_json:
        typer.echo(json.dumps(result))
        return
    own_images = ", the images that the run was judged by" if own and split is None else ""
    where = f"{dataset.root if own else on.path}, split {dataset.split}{own_images}"
    typer.echo(f"{result['model'] or detections} on {where}\n")
    typer.echo("\n".join([metrics.table(), *([""] if more else []), *more]))
    if out is not None:
        typer.echo(f"\nwritten to {out}: {', '.join(sorted(file.name for file in files))}")


def _check(context: typer.Context, place: str | None, asked: _Asked, overrides: Sequence[str]) -> None:
    """Refuse a command line that does not say what to judge on which data, or has an option that means nothing beside
    the others. `place`: the data set, or the run whose images are judged."""
    from ..data.runs import missing
    from ..evaluation.program import is_results

    models, detections, compare = asked
    if file := next(filter(is_results, models or ()), None):
        raise FcosError(f"{file} is a file of detections, not a model; give it with --detections")
    if place is not None and not any(asked):
        what = f"say what to measure on {place}: --model MODEL, --detections FILE or --compare A B"
        raise FcosError(missing(place) or what)
    if place is None and not models:
        raise FcosError("give the data set to judge on: fcos eval DATA --model MODEL (a run folder needs none)")
    if bool(models) + (detections is not None) + (compare is not None) != 1:
        raise FcosError("give one of --model, --detections and --compare")
    if asked.no_model:
        if overrides:
            raise FcosError(f"{overrides[0]!r} is a setting of a model, and there is none beside a file of detections")
        refuse(context, "a file of detections", *_OF_MODEL)
    if not context.params["ci"] and compare is None:
        refuse(context, "a run without --ci and --compare", "resamples", "seed")
    if compare is not None:
        refuse(context, "--compare", "voc_plus_one", "score", "ci", "precision")
    if context.params["out"] is None:
        refuse(context, "a run without --out", "score")


def _data_to_judge(place: str, source: Path | DataSource | None, split: str | None, asked: _Asked) -> On:
    """Open the data set `source`, called `place`, or, without it, what the run `place` was judged by; tells of models
    that learned from these images."""
    from ..evaluation.program import learned_note

    models: Sequence[str | Path]
    if source is None:
        path, dataset = open_own(place, split)
        models = asked.compare or ([path] if split else ())
    else:
        path, dataset = Path(place), open_to_judge(source, split, pixels=not asked.no_model)
        models = asked.models or asked.compare or ()
    for note in filter(None, (learned_note(name, dataset) for name in models)):
        say(note)
    return On(path, dataset)


def _tracks(truth: Path, result: Path, as_json: bool) -> None:
    """HOTA, IDF1 and MOTA of one file of tracks against another."""
    import json

    from ..evaluation.mot import judge_mot

    metrics = judge_mot(truth, result)
    typer.echo(json.dumps(metrics.to_dict()) if as_json else metrics.text())
