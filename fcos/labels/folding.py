"""Models that have not learned from the images they judge: a data set parted into folds, a model trained for each."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from ..data.dataset import Dataset
from ..data.duplicates import alike
from ..data.holdout import parted, units_of
from ..data.splits import name_of
from ..errors import DataError
from ..inference.detector import Detector
from ..presets import DEFAULT, resolve
from ..system.files import scratch
from ..system.stderr import say
from ..system.terminal import clock, plural
from ..training.planning.rules import rate_for
from ..training.program import train
from ..training.setup import known_classes

MODEL = DEFAULT
_EPOCHS = 12  # enough from the package's detector; a budget may make it less
_PROBE = 4  # steps that are timed, of which the first does not count
_LONGEST = 60.0  # minutes that are taken without being asked for


@dataclass(frozen=True)
class Judge:
    """A detector and the numbers of the records that it has not learned from."""

    detector: Detector
    records: Sequence[int]


def folds_of(dataset: Dataset, count: int, seed: int = 0, *, quiet: bool = False) -> list[list[int]]:
    """Split the records into `count` folds, given by their numbers: each in one fold, near-duplicates together, folds
    of about equal size. The same names and seed give the same folds, in whatever order the records are. A group that
    would fill more than a fold, as the frames of a film, is split, and a line on stderr says so.

    Raises DataError for less than two folds, and for fewer images than folds.
    """
    if count < 2:
        raise DataError(f"--folds {count}: give 2 or more; each part is judged by a model that has learned the others")
    names = [name_of(record) for record in dataset.records]
    if len(set(names)) < count:
        raise DataError(f"{dataset.root}: {plural(len(dataset), 'image')} cannot be split into {count} folds")
    twins = alike([record.path for record in dataset.records], quiet=quiet)
    units = units_of(dataset, twins, count)
    units.sort(key=lambda u: (-len(u), hashlib.sha256(f"{seed}/{min(u)}".encode()).digest()))
    folds: list[set[str]] = [set() for _ in range(count)]
    for members in units:  # the large ones first, each into the smallest fold
        min(folds, key=len).update(members)
    line = parted(dataset, twins, *folds, so="mistakes that they share may not be seen")
    if line and not quiet:
        say(line)
    return [[i for i, name in enumerate(names) if name in fold] for fold in folds]


def out_of_fold(
    dataset: Dataset, folds: int, minutes: float | None, *, seed: int = 0, quiet: bool
) -> tuple[list[Judge], str]:
    """Train a judge for each fold on the others: (the judges, who they are in words). A few steps are timed first, so
    that all fits into `minutes`; the time it will take is said before it begins."""
    parts = folds_of(dataset, folds, seed, quiet=quiet)
    with scratch("labels-") as folder:
        rests = [_rest(dataset, part) for part in parts]
        began = time.perf_counter()
        steps_each, seconds = _probe(rests[0], folder / "probe", seed)
        wanted = _EPOCHS * steps_each
        left = (_LONGEST if minutes is None else minutes) * 60 - (time.perf_counter() - began)
        allowed = max(left, 0) / folds / max(seconds, 1e-6)
        steps = max(1, min(wanted, int(allowed)))
        epochs = steps / steps_each
        told = f"{folds} models of {MODEL}, each trained on the other parts of the data for {epochs:.1f} epochs"
        if not quiet:
            limit = "" if steps == wanted else "; more --minutes make a better check"
            say(f"{told}: about {clock(folds * steps * seconds)}{limit}")
        judges = []
        for number, (part, rest) in enumerate(zip(parts, rests, strict=True), 1):
            detector = _learn(rest, folder / f"fold{number}", seed, steps)
            judges.append(Judge(detector, part))
            if not quiet:
                say(f"model {number} of {folds} is trained")
    return judges, told


def _rest(dataset: Dataset, part: Sequence[int]) -> Dataset:
    """The data set without the records of `part`: what their judge learns from. DataError if no boxes are left."""
    held = set(part)
    rest = dataset.subset([i for i in range(len(dataset)) if i not in held])
    if not any((~r.ignore).any() for r in rest.records):
        raise DataError(f"{dataset.root}: without one of the folds there are no boxes to learn from; use fewer --folds")
    # ids may stand in two splits
    return replace(rest, split="train", records=tuple(replace(r, id=k) for k, r in enumerate(rest.records, 1)))


def _probe(dataset: Dataset, folder: Path, seed: int) -> tuple[int, float]:
    """Time a few steps of training: (steps of an epoch, seconds of a step)."""
    times: list[float] = []
    _learn(dataset, folder, seed, _PROBE, times)
    spans = sorted(b - a for a, b in pairwise(times))
    batch = resolve(MODEL).train.batch
    return max(1, -(-len(dataset) // batch)), spans[len(spans) // 2]


def _learn(dataset: Dataset, folder: Path, seed: int, steps: int, times: list[float] | None = None) -> Detector:
    ticks = [] if times is None else times
    config = resolve(MODEL)
    known = known_classes(config, dataset.classes, None)
    gentle = rate_for(config.train.lr, len(known), len(dataset.classes))
    result = train(
        {"train": dataset},
        model=MODEL,
        out=folder,
        holdout=0,
        quiet=True,
        settings={
            "train.iterations": steps,
            "train.lr": config.train.lr if gentle is None else float(gentle.value),
            "train.seed": seed,
            "train.plots": False,
            "train.eval_every": 0,
            "train.save_every": 10**6,
        },
        on_step=lambda step, report: ticks.append(time.perf_counter()),
    )
    return result.detector
