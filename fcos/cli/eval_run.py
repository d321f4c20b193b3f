"""What `fcos eval` does once all is settled: detections of models or of a file, two of them compared, what is told and
written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from ..errors import FcosError
from ..system.stderr import say
from .common import open_own, open_to_judge, tell_looks

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..data.tree import DataSource
    from ..detections import Detections
    from ..evaluation.coco import Metrics
    from ..evaluation.operating_point import Cut
    from ..evaluation.uncertainty import Comparison, Draws
    from ..inference.composite import Looks
    from ..inference.load import Placing
    from ..inference.stream import Batching


class Asked(NamedTuple):
    """What to judge on the data set `place`, or, `own`, on the images that the run `place` was judged by: models
    together, a file of detections, or two of either beside each other. `place` is "" where none is named."""

    place: str
    own: bool
    models: tuple[str, ...]
    detections: Path | None
    compare: tuple[str, str] | None

    @property
    def ways(self) -> int:
        """How many of the three are asked for."""
        return bool(self.models) + (self.detections is not None) + (self.compare is not None)

    @property
    def no_model(self) -> bool:
        """Whether there are only detections, in files."""
        from ..evaluation.program import is_results

        return self.detections is not None or (self.compare is not None and all(map(is_results, self.compare)))


class On(NamedTuple):
    """What is judged on: the data set; the path that is told of it, a run's folder where the images are its own; and in
    words which images they are."""

    path: Path
    dataset: Dataset
    words: str


class How(NamedTuple):
    """How models look at the images; 0 in `batching` is what is best here."""

    context: typer.Context
    looks: Looks
    batching: Batching
    placing: Placing
    overrides: Sequence[str]
    allow_missing: bool


class Wanted(NamedTuple):
    """What is counted, and what is told besides: intervals from these draws, the scores that keep a precision, and what
    is found and wrong at `cut`, of each class too where `by_class`."""

    class_agnostic: bool
    voc_plus_one: bool
    intervals: Draws | None
    precision: float | None
    cut: Cut
    by_class: bool


class Judged(NamedTuple):
    """What was found, the data set as the model sees it, and the tiles that it looked at, None for whole images."""

    detections: list[Detections]
    dataset: Dataset
    tile: int | str | None = None


class Evaluation(NamedTuple):
    """What was judged, the numbers, the paragraphs below their table, and all as metrics.json has it."""

    judged: Judged
    metrics: Metrics
    more: list[str]
    result: dict[str, Any]


def open_asked(asked: Asked, split: str | None, source: DataSource | None) -> On:
    """Open the data set `source`, or, without it, what the run was judged by; tells of models that learned from these
    images."""
    from ..evaluation.program import tell_learned

    if source is None:
        path, dataset = open_own(asked.place, split)
        words = f"{dataset.root}, split {dataset.split}"
        words += ", the images that the run was judged by" if split is None else ""
    else:
        path, dataset = Path(asked.place), open_to_judge(source, split, pixels=not asked.no_model)
        words = f"{path}, split {dataset.split}"
    tell_learned(asked.compare or asked.models, dataset, own=asked.own and split is None)
    return On(path, dataset, words)


def judge(asked: Asked, on: On, how: How, wanted: Wanted) -> Evaluation:
    """Judge models together, or a file of detections."""
    from dataclasses import replace

    from ..evaluation.coco import curves, evaluate
    from ..evaluation.program import tell_cut
    from ..evaluation.uncertainty import intervals, method

    if asked.detections is None:
        judged = judge_models(asked.models, on, how)
    else:
        judged = read_file(asked.detections, on)
        tell_cut(asked.detections, judged.detections, judged.dataset)
    seen, dataset, used = judged
    agnostic, more, result = wanted.class_agnostic, list[str](), dict[str, Any]()
    metrics = evaluate(seen, dataset, class_agnostic=agnostic, voc_plus_one=wanted.voc_plus_one, cut=wanted.cut)
    more += [str(metrics.at_score)] if wanted.by_class else []
    if wanted.intervals is not None:
        around = intervals(seen, dataset, wanted.intervals, class_agnostic=agnostic)
        metrics = replace(metrics, intervals=around)
        rows = [f"{name:<4}  {interval}" for name, interval in around.items()]
        more.append("\n".join([method(len(dataset), *wanted.intervals), *rows]))
    if wanted.precision is not None:
        from ..evaluation.calibration import score_option, threshold_table, thresholds

        scores = thresholds(curves(seen, dataset), wanted.precision)
        result["scores_for_precision"] = {"precision": wanted.precision, "scores": score_option(scores)}
        more.append(threshold_table(scores, wanted.precision))
    tta = how.context.params["tta"]
    result = {
        "data": str(on.path),
        "split": dataset.split,
        "model": " + ".join(asked.models) or None,
        **({"tile": used, "overlap": how.looks.overlap} if used else {}),
        **({"tta": tta} if tta else {}),
        "detections_file": str(asked.detections) if asked.detections is not None else None,
        **metrics.to_dict(),
        **result,
    }
    return Evaluation(judged, metrics, more, result)


def tell(evaluation: Evaluation, on: On, out: Path | None, as_json: bool) -> None:
    """Write the files to `out`, and print."""
    import json

    result = evaluation.result
    files = [] if out is None else write_files(out, evaluation)
    if as_json:
        typer.echo(json.dumps(result))
        return
    typer.echo(f"{result['model'] or result['detections_file']} on {on.words}\n")
    typer.echo("\n\n".join([evaluation.metrics.table(), *evaluation.more]))
    if out is not None:
        typer.echo(f"\nwritten to {out}: {', '.join(sorted(file.name for file in files))}")


def judge_models(names: Sequence[str], on: On, how: How) -> Judged:
    """What models find together."""
    from ..evaluation.program import detect
    from ..export.registry import format_of
    from ..inference.composite import Composite
    from ..inference.load import Placing, load_together
    from ..inference.stream import pick_batching
    from ..system.terminal import plural

    asked = how.placing
    batching = pick_batching(len(on.dataset), how.batching, asked["threads"], asked["device"])
    kept = asked["runtime"] == "auto" and not any(map(format_of, names))  # the numbers of a model are those of fp32
    dtype = asked["dtype"] or ("fp32" if kept else None)
    placing = Placing(**asked | {"runtime": asked["runtime"] or "own", "dtype": dtype, "lanes": batching.lanes})
    detector = load_together(names, how.looks, overrides=how.overrides, **placing)
    used = detector.looks.tile if isinstance(detector, Composite) else None
    tell_looks(how.context, how.context.params["tile"], names[0], detector.config.data.tile)
    tiles = int(str(used)) if str(used).isdecimal() else used
    say(f"{plural(len(on.dataset), 'image')} of {on.dataset.root}, split {on.dataset.split}")
    return Judged(*detect(detector, on.dataset, batching.batch, allow_missing=how.allow_missing), tiles)


def read_file(path: str | Path, on: On) -> Judged:
    """The detections of a results file."""
    from ..evaluation.results import read_results

    return Judged(read_results(path, on.dataset), on.dataset)


def compare_two(names: tuple[str, str], on: On, how: How, draws: Draws, class_agnostic: bool) -> tuple[Comparison, str]:
    """(two models or results files beside each other, the split that both were judged on)"""
    from ..evaluation.program import is_results
    from ..evaluation.uncertainty import compare_detections

    first, second = (read_file(n, on) if is_results(n) else judge_models([n], on, how) for n in names)
    if first.dataset.classes != second.dataset.classes:
        raise FcosError(f"{names[0]} and {names[1]} judge different classes of {on.path}")
    seen = (first.detections, second.detections)
    return compare_detections(*seen, first.dataset, draws, class_agnostic=class_agnostic), first.dataset.split


def tell_comparison(
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


def write_files(folder: Path, evaluation: Evaluation) -> list[Path]:
    """The files of an evaluation, all or none."""
    import json

    from ..evaluation.coco import as_one_class
    from ..evaluation.results import write_results
    from ..show.judged import draw_evaluation
    from ..system.environment import METRICS_FILE
    from ..system.files import whole_set, write_whole
    from ..system.terminal import plural

    result, (seen, dataset, _) = evaluation.result, evaluation.judged
    odd = sum(int(((d.scores < 0) | (d.scores > 1)).sum()) for d in seen)
    if odd:
        say(f"{plural(odd, 'score')} outside 0..1, which no probability is: left out of reliability.png")
    drawn = as_one_class(seen, dataset) if result["class_agnostic"] else (seen, dataset)
    with whole_set():
        files = [
            write_whole(folder / METRICS_FILE, json.dumps(result, indent=2) + "\n"),
            write_whole(folder / "detections.json", lambda p: write_results(p, seen, dataset)),
            *draw_evaluation(folder, *drawn, evaluation.metrics.at_score),
        ]
        if "scores_for_precision" in result:
            text = json.dumps(result["scores_for_precision"]["scores"], indent=1) + "\n"
            files.append(write_whole(folder / "scores.json", text))
    return files


def tell_tracks(truth: Path, result: Path, as_json: bool) -> None:
    """Print HOTA, IDF1 and MOTA of one file of tracks against another."""
    import json

    from ..evaluation.mot import judge_mot

    metrics = judge_mot(truth, result)
    typer.echo(json.dumps(metrics.to_dict()) if as_json else metrics.text())
