"""What `fcos eval` does once all is settled: detections of models or of a file, two of them compared, files written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from ..errors import FcosError
from ..system.stderr import say
from .common import check_overlap, tell_tiles

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..detections import Detections
    from ..evaluation.uncertainty import Comparison, Draws
    from ..inference.composite import Looks
    from ..inference.load import Placing
    from ..inference.stream import Batching


class On(NamedTuple):
    """What is judged on: the data set, and the path that is told of it, a run's folder where the images are its own."""

    path: Path
    dataset: Dataset


class How(NamedTuple):
    """How models look at the images; 0 in `batching` is what is best here."""

    context: typer.Context
    looks: Looks
    batching: Batching
    placing: Placing
    overrides: Sequence[str]
    allow_missing: bool


class Judged(NamedTuple):
    """What was found, the data set as the model sees it, and the tiles that it looked at, None for whole images."""

    detections: list[Detections]
    dataset: Dataset
    tile: int | str | None = None


def judge_models(names: list[str], on: On, how: How) -> Judged:
    """What models find together."""
    from ..evaluation.program import detect
    from ..export.registry import format_of
    from ..inference.composite import OWN, Composite
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
    check_overlap(how.context, how.context.params["tile"], detector.config.data.tile)
    if how.looks.tile == OWN:
        tell_tiles(names[0], used)
    tiles = int(str(used)) if str(used).isdecimal() else used
    say(f"{plural(len(on.dataset), 'image')} of {on.dataset.root}, split {on.dataset.split}")
    return Judged(*detect(detector, on.dataset, batching.batch, allow_missing=how.allow_missing), tiles)


def read_file(path: str | Path, on: On, *, alone: bool) -> Judged:
    """The detections of a results file; `alone`: with a note where the weak ones seem to be missing."""
    from ..evaluation.program import cut_note
    from ..evaluation.results import read_results

    found = read_results(path, on.dataset)
    if alone and (note := cut_note(found, on.dataset)):
        say(note)
    return Judged(found, on.dataset)


def compare_two(names: tuple[str, str], on: On, how: How, draws: Draws, class_agnostic: bool) -> tuple[Comparison, str]:
    """(two models or results files beside each other, the split that both were judged on)"""
    from ..evaluation.program import is_results
    from ..evaluation.uncertainty import compare_detections

    first, second = (read_file(n, on, alone=False) if is_results(n) else judge_models([n], on, how) for n in names)
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


def write_files(
    folder: Path, result: dict[str, Any], seen: list[Detections], dataset: Dataset, score: float | None
) -> list[Path]:
    """The files of an evaluation."""
    import json

    from ..evaluation.coco import as_one_class
    from ..evaluation.results import write_results
    from ..show.judged import draw_evaluation
    from ..system.environment import METRICS_FILE
    from ..system.files import write_whole
    from ..system.terminal import plural

    odd = sum(int(((d.scores < 0) | (d.scores > 1)).sum()) for d in seen)
    if odd:
        say(f"{plural(odd, 'score')} outside 0..1, which no probability is: left out of reliability.png")
    drawn = as_one_class(seen, dataset) if result["class_agnostic"] else (seen, dataset)
    return [
        write_whole(folder / METRICS_FILE, json.dumps(result, indent=2) + "\n"),
        write_whole(folder / "detections.json", lambda p: write_results(p, seen, dataset)),
        *draw_evaluation(folder, *drawn, score),
    ]
