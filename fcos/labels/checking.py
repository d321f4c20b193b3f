"""`fcos.labels.check`: the annotations of a data set by how likely each is wrong, and how many of the first are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..analysis.common import known_labels, label_mapping, with_files
from ..data.dataset import Dataset, merge
from ..data.images.reading import read_image
from ..data.open import open_splits
from ..data.runs import learned_from, run_of
from ..data.splits import meant_split
from ..data.tree import DataSource
from ..errors import ConfigError, DataError, ImageError
from ..inference.detector import Detector
from ..inference.load import fastest, load
from ..overlap import pairwise_iou
from ..system.door import door
from ..system.progress import Bar
from ..system.stderr import say
from ..system.terminal import plural
from .calibrate import Curve, fit
from .evidence import Evidence, gather
from .folding import Judge, out_of_fold
from .inject import DUPLICATE, KINDS, MISSING, ROUNDS, SHARE, SPURIOUS, Spoiled, spoil
from .ranking import rank
from .report import Check, Finding, in_words
from .suspicion import Pile, Sought, Suspect, suspects

_SEEN = 0.2  # score of its class from which an annotated box counts as seen
_FEW = round(1 / SHARE)  # boxes below which the copies show the same few errors again and again
_LEAST = 0.02  # chance of being wrong below which nothing is listed


def open_all(data: str | Path | DataSource | Dataset, split: str | None = None) -> tuple[Dataset, list[str]]:
    """(all splits as one, the name of the split of each record); DataError for a split that is not there."""
    if isinstance(data, Dataset):
        if split is not None:
            raise ConfigError("split is of a path; the data set that was given is one split already")
        return with_files(data), [data.split] * len(data)
    splits = open_splits(data)
    if split is not None:
        known = meant_split(split, splits)
        if known is None:
            raise DataError(f"{data} has no split {split!r}; there are: {', '.join(splits)}")
        splits = {known: splits[known]}
    whole = merge(list(splits.values()))
    return with_files(whole), [name for name, part in splits.items() for _ in part.records]


def judge_all(dataset: Dataset, splits: Sequence[str], judges: Sequence[Judge], *, seed: int, quiet: bool) -> Check:
    """Judge every record by the judge that has not learned from it, and calibrate by spoiled copies. DataError if no
    image can be read."""
    mappings = [label_mapping(judge.detector.classes, dataset.classes) for judge in judges]
    # the folds know all classes, a model that was named perhaps not
    known = np.all([known_labels(mapping, dataset.classes) for mapping in mappings], axis=0)
    if not any(known[r.labels[~r.ignore]].any() for r in dataset.records):
        raise DataError(f"{dataset.root} has no boxes of a class that the model knows; give another --model")
    scores = Scores(dataset, seed, known=known)
    unread = []
    with Bar("looking", sum(len(j.records) for j in judges), "images", quiet=quiet) as bar:
        for judge, mapping in zip(judges, mappings, strict=True):
            for index in judge.records:
                record = dataset.records[index]
                try:
                    pixels = read_image(str(record.path))
                except ImageError as error:
                    unread.append(str(error))
                    continue
                finally:
                    bar.advance()
                scores.add(index, gather(judge.detector, pixels, mapping, len(dataset.classes)))
    if not scores.images:
        raise DataError(f"{dataset.root}: none of the {plural(len(unread), 'image')} can be read: {unread[0]}")
    curves, learned = scores.ranked()
    findings = [replace(f, split=splits[f.image]) for f in _listed(dataset, scores.given, learned, curves)]
    rates = {}
    for kind, curve in curves.items():
        things = len(learned[kind]) / max(scores.boxes, 1) / max(curve.found, 0.05)
        if curve.measured:
            mean, low, high = (min(v * things, 1.0) for v in curve.rate())
            rates[kind] = (mean, low, high)
    looked = [s.own >= _SEEN for _, s in scores.given[SPURIOUS]]
    seen = sum(looked) / max(len(looked), 1)
    return Check(
        *(dataset, DataSource(dataset.root), "", tuple(findings), rates, curves, tuple(unread), seen),
        planted={kind: count for kind, count in scores.tried.items() if count},
        unknown=_count_boxes(dataset, np.flatnonzero(~known)),
    )


def _count_boxes(dataset: Dataset, labels: np.ndarray) -> dict[str, int]:
    """How many boxes are to be judged of each of these classes, by name; classes without any are left out."""
    solid = np.concatenate([r.labels[~r.ignore] for r in dataset.records])
    counts = np.bincount(solid, minlength=len(dataset.classes))
    return {dataset.classes.names[k]: int(counts[k]) for k in labels.tolist() if counts[k]}


class Scores:
    """The suspects of the set as it is, and the scores of errors that were put into copies of it; known [C] bool: the
    classes that are judged, all by default. images and boxes: how many were, so far."""

    def __init__(self, dataset: Dataset, seed: int = 0, *, known: np.ndarray | None = None) -> None:
        self.dataset = dataset
        self.known = np.ones(len(dataset.classes), bool) if known is None else known
        self.copies = [spoil(dataset, SHARE, 1000 * seed + k, known=self.known) for k in range(ROUNDS)]
        self.images = self.boxes = 0
        self.given = {kind: Pile(kind) for kind in KINDS}
        self.injected = {kind: Pile(kind) for kind in KINDS}
        self.tried = dict.fromkeys(KINDS, 0)

    def add(self, index: int, evidence: Evidence) -> None:
        """Judge the annotations of one image, true and spoiled, by its evidence."""
        record = self.dataset.records[index]
        self.images += 1
        self.boxes += int((~record.ignore & self.known[record.labels]).sum())
        for suspect in suspects(evidence, record):
            self.given[suspect.kind].append(index, suspect)
        for copy in self.copies:
            spoiled = copy[index]
            if not len(spoiled.lost) and not any(spoiled.kinds):
                continue
            for kind in KINDS:
                self.tried[kind] += len(spoiled.lost) if kind == MISSING else spoiled.kinds.count(kind)
            sought = Sought(np.array([bool(k) for k in spoiled.kinds], bool), spoiled.lost, spoiled.lost_labels)
            for suspect in caught(suspects(evidence, spoiled.record, sought), spoiled):
                self.injected[suspect.kind].append(index, suspect)

    def ranked(self) -> tuple[dict[str, Curve], dict[str, np.ndarray]]:
        """For each kind that could be tried: the curve, and the learned scores [S] of the suspects that are `given`."""
        curves, learned = {}, {}
        for kind in KINDS:
            if not self.tried[kind]:
                continue
            scores, injected = rank(self.given[kind], self.injected[kind])
            curve = fit(injected, scores, self.tried[kind])
            curves[kind] = replace(curve, measured=curve.measured and self.boxes >= _FEW)
            learned[kind] = scores
        return curves, learned


def caught(found: Sequence[Suspect], spoiled: Spoiled) -> Iterator[Suspect]:
    """The suspects that are injected errors of their kind, one for each error at most: the most suspicious."""
    taken: set[tuple[str, int]] = set()
    for suspect in sorted(found, key=lambda s: -s.score):
        error = error_of(suspect, spoiled)
        if error is not None and (suspect.kind, error) not in taken:
            taken.add((suspect.kind, error))
            yield suspect


def error_of(suspect: Suspect, spoiled: Spoiled) -> int | None:
    """The injected error that a suspect is: the row of the box, or the number of the lost one; None where it is none
    of that kind."""
    if suspect.kind != MISSING:
        rows = [suspect.row, suspect.other] if suspect.kind == DUPLICATE else [suspect.row]
        return next((row for row in rows if row >= 0 and spoiled.kinds[row] == suspect.kind), None)
    if not len(spoiled.lost):
        return None
    overlap = pairwise_iou(np.array([suspect.box]), spoiled.lost)[0] * (spoiled.lost_labels == suspect.label)
    best = int(overlap.argmax())
    return best if overlap[best] >= 0.5 else None


def _listed(
    dataset: Dataset, given: Mapping[str, Pile], learned: Mapping[str, np.ndarray], curves: Mapping[str, Curve]
) -> list[Finding]:
    """The findings, most likely wrong first, each annotation under its likeliest kind alone. learned: the scores that
    the suspects which are `given` are ranked by."""
    rows: list[tuple[float, int, Suspect]] = []
    for kind, curve in curves.items():
        chances = curve.mean(learned[kind])
        for number in np.flatnonzero(chances >= _LEAST).tolist():
            index, suspect = given[kind][number]
            rows.append((float(chances[number]), index, replace(suspect, score=float(learned[kind][number]))))
    rows.sort(key=lambda r: (-r[0], -r[2].score, r[1], r[2].row))
    taken: set[tuple[int, int]] = set()
    findings = []
    for chance, index, suspect in rows:
        key = (index, suspect.row)
        if suspect.row >= 0 and key in taken:
            continue
        taken.add(key)
        record = dataset.records[index]
        words, fix = in_words(suspect, dataset, record.labels, record.boxes)
        findings.append(Finding(index, "", record.file_name, suspect, chance, words, fix))
    return findings


@door
def check(
    data: str | Path | DataSource | Dataset,
    *,
    model: str | Path | Detector | None = None,
    folds: int | None = None,
    minutes: float | None = None,
    split: str | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> Check:
    """Find annotations that are wrong: missing, too many, of a wrong class, shifted, doubled.

    Args:
        data: a data set with labels, or the path of one.
        model: a Detector, or the name or path of one, that has not learned from these images. Left out: models are
            trained from the package's detector, each judges the part of the data that it has not learned from.
        folds: how many models are trained, 3. Near-duplicates stay in one fold, unless they are too many for one, which
            is said.
        minutes: for all their training; left out: by the size of the set, an hour at most.
        split: only this split of a path; left out: all.
        seed: of the folds, and of the known errors that are put into copies of the annotations, from which the order
            and the promise come.
        quiet: no progress bar and no lines on stderr.

    Boxes of classes that the model does not know are not judged.

    Raises:
        DataError: data that cannot be judged. ModelError: no such model. ConfigError: a `seed` below 0, `minutes` below
            0.1, or an option that means nothing beside the others: `folds` and `minutes` beside a model, `split` beside
            a Dataset.

    >>> result = fcos.labels.check("my_data", model="fcos-lite0", quiet=True)
    >>> result.promise(50)[0] <= 50
    True
    """
    if seed < 0:
        raise ConfigError(f"seed={seed}: give 0 or more")
    if minutes is not None and minutes < 0.1:
        raise ConfigError(f"minutes={minutes}: give 0.1 or more")
    if model is not None and (folds, minutes) != (None, None):
        raise ConfigError("folds and minutes are of models that are trained here; leave them or the model out")
    dataset, splits = open_all(data, split)
    if not any((~r.ignore).any() for r in dataset.records):
        raise DataError(f"{dataset.root} has no boxes to check")
    if model is None:
        judges, told = out_of_fold(dataset, 3 if folds is None else folds, minutes, seed=seed, quiet=quiet)
    else:
        if not quiet and not isinstance(model, Detector):
            _warn_of_learned(model, dataset, splits)
        judges, told = [Judge(_detector(model, dataset), range(len(dataset)))], _called(model)
    result = replace(judge_all(dataset, splits, judges, seed=seed, quiet=quiet), judge=told)
    return result if isinstance(data, Dataset) else replace(result, source=DataSource.of(data))


def _detector(model: str | Path | Detector, dataset: Dataset) -> Detector:
    """The model on the fastest runtime here; DataError where it knows no class of the data."""
    if isinstance(model, Detector):
        return model
    label_mapping(load(model, runtime="own").classes, dataset.classes)
    return load(model, runtime=fastest(), dtype="fp32")


def _called(model: str | Path | Detector) -> str:
    return model.config.name if isinstance(model, Detector) else str(model)


def _warn_of_learned(model: str | Path, dataset: Dataset, splits: Sequence[str]) -> None:
    """Say on stderr that a run has learned from images that it is to judge; `splits`: the split of each record."""
    folder = run_of(model)
    if folder is None:
        return
    names = np.array(splits)
    parts = {name: dataset.subset(np.flatnonzero(names == name)) for name in dict.fromkeys(splits)}
    learned = {name: learned_from(folder, replace(part, split=name)) for name, part in parts.items()}
    if sum(learned.values()):
        others = [name for name, count in learned.items() if not count]
        other = f"check the split {others[0]} with --split" if others else "give images that it has not seen"
        say(
            f"note: {model} has learned from {plural(sum(learned.values()), 'image')} of these, so it would agree with "
            f"mistakes in their labels; {other}, or leave --model out"
        )
