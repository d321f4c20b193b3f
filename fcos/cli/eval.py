"""`fcos eval`: judge a model, or a results file of anyone, on a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..errors import FcosError
from . import complete
from .common import (
    OF_DATA,
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
    refuse,
    runtime_option,
    sort_words,
    tell_unused,
    the_one,
)
from .eval_run import (
    Asked,
    How,
    Wanted,
    compare_two,
    judge,
    open_asked,
    tell,
    tell_comparison,
    tell_tracks,
)

# what means nothing for detections that are there already
_OF_MODEL = (
    "batch", "device", "runtime", "dtype", "threads", "lanes", "trust", "tile", "overlap", "tta", "allow_missing",
)  # fmt: skip


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
            help="Count what is found, missed and wrong from this score on. Default: that of the best F1.",
        ),
    ] = None,
    iou: Annotated[
        float | None,
        typer.Option("--iou", min=0.01, max=1, help="IoU from which a detection is right there. Default: 0.5."),
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
    from ..evaluation.metrics import IOU
    from ..evaluation.operating_point import Cut
    from ..evaluation.uncertainty import Draws
    from ..inference.composite import Looks, tile_of
    from ..inference.load import Placing
    from ..inference.stream import Batching
    from ..inference.views import parse_views

    things, overrides = sort_words(words, settings, context)
    named = the_one(things, data, "--data")
    if mot is not None:
        _check_tracks(context, alone=not (named or model or detections or compare))
        tell_tracks(*mot, as_json)
        return
    asked = what_to_judge(named, model, detections, compare)
    _check(context, asked, overrides)
    on = open_asked(asked, split, None if asked.own else data_source(asked.place, format, images_in, labels))
    placing = Placing(runtime=runtime, dtype=dtype, threads=threads, device=device, trust=trust)
    looks = Looks(tile_of(tile), overlap, parse_views(tta))
    how = How(context, looks, Batching(batch, lanes), placing, overrides, allow_missing)
    draws = Draws(resamples, seed)
    if compare is not None:
        comparison, seen_split = compare_two(compare, on, how, draws, class_agnostic)
        tell_comparison(comparison, compare, {"data": str(on.path), "split": seen_split}, out, as_json)
        return
    cut, by_class = Cut(score, IOU if iou is None else iou), not (score is None and iou is None)
    wanted = Wanted(class_agnostic, voc_plus_one, draws if ci else None, precision, cut, by_class)
    tell(judge(asked, on, how, wanted), on, out, as_json)


def what_to_judge(
    named: str | None, models: list[str] | None, detections: Path | None, compare: tuple[str, str] | None
) -> Asked:
    """What a command line asks for, with what it leaves out: a run that is `named` alone, or of which no data set is
    named, is judged by its own images."""
    from ..data.runs import run_of

    place, own = named, False
    if named is not None and not models and detections is None and run_of(named) is not None:
        own = True
        models = None if compare else [named]
    elif named is None:
        place, own = (models[0] if models else next(filter(run_of, compare or ()), None)), True
    return Asked(place or "", own, tuple(models or ()), detections, compare)


def _check(context: typer.Context, asked: Asked, overrides: Sequence[str]) -> None:
    """Refuse a command line that does not say what to judge on which data; tell of options that mean nothing beside the
    others."""
    from ..data.runs import missing
    from ..evaluation.program import is_results
    from ..system.files import check_folder

    place, models, given = asked.place, asked.models, context.params
    if file := next(filter(is_results, models), None):
        raise FcosError(f"{file} is a file of detections, not a model; give it with --detections")
    if place and not asked.ways:
        what = f"say what to measure on {place}: --model MODEL, --detections FILE or --compare A B"
        raise FcosError(missing(place) or what)
    if not place and not models:
        raise FcosError("give the data set to judge on: fcos eval DATA --model MODEL (a run folder needs none)")
    if asked.ways != 1:
        raise FcosError("give one of --model, --detections and --compare")
    if asked.no_model:
        if overrides:
            raise FcosError(f"{overrides[0]!r} is a setting of a model, and there is none beside a file of detections")
        tell_unused(context, "a file of detections", *_OF_MODEL)
    if not given["ci"] and asked.compare is None:
        tell_unused(context, "a run without --ci and --compare", "resamples", "seed")
    if asked.compare is not None:
        refuse(context, "--compare", "iou", "precision")
        tell_unused(context, "--compare", "voc_plus_one", "score", "ci")
    check_folder(given["out"])
    if given["class_agnostic"] and given["precision"] is not None:
        raise FcosError("--precision finds a score for each class; --class-agnostic has only one class: leave one out")
    if asked.own:
        tell_unused(context, "a run without a data set", *OF_DATA)


def _check_tracks(context: typer.Context, alone: bool) -> None:
    """Refuse something else to judge beside --mot, unless it is `alone`; tell of options that mean nothing there."""
    if not alone:
        raise FcosError(
            "--mot compares two MOTChallenge files; leave out the data set, --model, --detections and --compare"
        )
    tell_unused(context, "--mot", *(name for name in context.params if name not in ("mot", "as_json")))
