"""What a run learns from and what it is judged by, from what the user names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..config import Config
from ..data.classes import as_learned, as_seen, match_classes
from ..data.dataset import Dataset, merge
from ..data.duplicates import alike
from ..data.holdout import called_now, draw_holdout, hold_out, parted
from ..data.open import open_splits, open_validation
from ..data.splits import ORDER, WORDS, name_of, taught_splits, val_is_learned
from ..data.tree import DataSource
from ..errors import DataError, did_you_mean
from ..network.header import check_storable
from ..system.terminal import plural

HOLDOUT = 0.1  # of the training images, where there is nothing else to judge by
_COMPARED = 5000  # images that are searched for near-duplicates; more would take minutes


@dataclass(frozen=True)
class NamedData:
    """What the user names. `data`: a path, a Dataset, or Datasets by the name of their split; `val`: another path or
    Dataset to judge by; `split`: names of splits to learn from, with commas; `holdout`: share of the training images
    kept for judging, 0 for none, None for a tenth where there is no val; `strict`: refuse faulty boxes; `quiet`: show
    no progress."""

    data: str | Path | DataSource | Dataset | Mapping[str, Dataset]
    val: str | Path | Dataset | None = None
    split: str | None = None
    holdout: float | None = None
    strict: bool = False
    quiet: bool = False

    def stored(self) -> dict[str, Any]:
        """What environment.json keeps, so that a resume finds the data again; None for what was no path."""
        told: dict[str, Any] = {"data": None, "val": None, "split": self.split}
        if isinstance(self.data, str | Path | DataSource):
            named = DataSource.of(self.data)
            places = {"data": named.path, "images": named.images, "labels": named.labels}
            told |= {key: None if path is None else str(path.resolve()) for key, path in places.items()}
            told["format"] = named.format
        elif isinstance(self.data, Dataset):
            told["root"] = str(self.data.root.resolve())
        if isinstance(self.val, str | Path):
            told["val"] = str(Path(self.val).resolve())
        elif self.val is not None:
            told["judged_by"] = "a Dataset"  # which nothing here leads to
        return told


@dataclass(frozen=True)
class Chosen:
    """The data of a run, "train" and mostly "val", under the classes that the settings want; the names of the images
    held out of the training split, if so; and lines to tell."""

    data: dict[str, Dataset]
    held_out: list[str] | None = None
    lines: list[str] = field(default_factory=list)


def choose(source: NamedData, config: Config, held: Sequence[str] | None = None, resumed: bool = False) -> Chosen:
    """Open the data of a run; `held` are the images that it held out when it began, `resumed` whether it has begun.

    "train" has the boxes that are learned (`as_learned`), "val" those of the file. `test` is never chosen, neither to
    learn from nor to judge by, unless it is the only split or named. Raises DataError with what to do.
    """
    chosen = _parts(source, config, held, resumed)
    chosen.data["train"] = as_learned(chosen.data["train"], config.data)
    return chosen


def _parts(source: NamedData, config: Config, held: Sequence[str] | None, resumed: bool) -> Chosen:
    """Both, with the boxes of the file."""
    splits = _open(source)
    name = source.data if isinstance(source.data, str | Path | DataSource) else "the data"
    wanted = taught_splits(splits, source.split, name)
    _check_used(splits, wanted)
    data = {"train": as_seen(merge([splits[s] for s in wanted]), config.data)}
    learned = val_is_learned(splits, wanted)
    val, lines = _judging(source, None if learned else splits.get("val"), config)
    if val is not None:
        data["val"] = val
        if source.holdout:
            raise DataError(f"--holdout is for data without a validation part; here that is {val.root}")
        if held is not None:  # they were not learned from so far, and what judges may be changed back
            there = {name_of(r) for r in data["train"].records}
            data["train"] = hold_out(data["train"], there.intersection(called_now(data["train"], held)))[0]
        return Chosen(data, None if held is None else list(held), [*lines, *_learned_too(data["train"], val)])
    if held is not None:
        data["train"], data["val"] = hold_out(data["train"], held)
        return Chosen(data, list(held))
    if source.holdout == 0 or resumed:
        return Chosen(data, lines=lines)
    if learned and source.holdout is None:
        return Chosen(data, lines=["val is learned from, so nothing is kept for judging; --holdout 0.1 keeps a tenth"])
    chosen = _held_out(data["train"], source, config.train.seed)
    return replace(chosen, lines=[*lines, *chosen.lines])


def _judging(source: NamedData, own: Dataset | None, config: Config) -> tuple[Dataset | None, list[str]]:
    """(what judges: that which the user names, else the data's `own` validation split where it has objects; lines)."""
    if source.val is None:
        if own is None:
            return None, []
        val = as_seen(own, config.data)
        if len(own) and not val.counts().sum():
            return None, ["the val split has no objects, so it says nothing of AP: it is left out"]
        return val, []
    given, others = source.val, tuple[str, ...]()
    if not isinstance(given, Dataset):
        given, others = open_validation(given, strict=source.strict)
    lines = []
    if len(others) > 1:
        lines.append(f"{source.val} has the splits {', '.join(others)}: {given.split} judges")
    val = as_seen(given, config.data)
    if len(given) and not val.counts().sum():
        raise DataError(f"{given.root}: the {given.split} split has no objects to judge by; give others with --val")
    return val, lines


def _learned_too(train: Dataset, val: Dataset) -> list[str]:
    """A line where images are learned from and judged by."""
    learned = {os.path.abspath(r.path) for r in train.records if r.path is not None}
    both = [r.file_name for r in val.records if r.path is not None and os.path.abspath(r.path) in learned]
    if not both:
        return []
    count = f"{len(both):,} of the {plural(len(val), 'image')} to judge by"
    return [f"{count} are learned from too, such as {both[0]}: AP will be too high; fcos doctor lists them"]


def _held_out(dataset: Dataset, source: NamedData, seed: int) -> Chosen:
    share, compared = source.holdout, len(dataset) <= _COMPARED
    twins = alike([r.path for r in dataset.records], quiet=source.quiet) if compared else []
    try:
        names = draw_holdout(dataset, HOLDOUT if share is None else share, seed, twins)
    except DataError as error:
        if share is not None:
            raise
        return Chosen({"train": dataset}, lines=[f"nothing is kept for judging: {error}"])
    train, val = hold_out(dataset, names)
    how = "by class" + (", near-duplicates together" if compared else "")
    kept = f"{plural(len(val), 'image')} of {len(dataset):,} held out for judging, {how}"
    line = kept if share is not None else f"no val split: {kept}; --holdout 0 learns from all"
    return Chosen({"train": train, "val": val}, names, [line, *filter(None, [parted(dataset, twins, names)])])


def _open(source: NamedData) -> dict[str, Dataset]:
    if isinstance(source.data, Dataset):
        return {"train": source.data}
    if not isinstance(source.data, Mapping):
        return open_splits(source.data, strict=source.strict)
    named = [part.strip() for part in (source.split or "").split(",")]
    splits: dict[str, Dataset] = {}
    for key, dataset in source.data.items():
        if not isinstance(dataset, Dataset):
            raise DataError(f"{key!r} is a {type(dataset).__name__}; give a Dataset: fcos.open_dataset(...)")
        split = key if key in named else WORDS.get(str(key).lower(), key)
        if split in splits:
            raise DataError(f"two of {', '.join(map(repr, source.data))} mean {split}; give one")
        splits[split] = dataset
    return splits


def _check_used(splits: Mapping[str, Dataset], wanted: Sequence[str]) -> None:
    """DataError for a name that a person has given to a Dataset and that nothing uses; a data set may have such."""
    for name, dataset in splits.items():
        if name not in WORDS and name not in wanted and dataset.split != name:
            hint = did_you_mean(name, ORDER, f"choose from {', '.join(ORDER)}, or name it with split")
            raise DataError(f"nothing uses the data called {name!r}; {hint}")


def check_data(data: Mapping[str, Dataset]) -> None:
    """DataError where a run with `data` would end in an error after hours: no boxes, no image files, other classes."""
    if not isinstance(data, Mapping) or not isinstance(data.get("train"), Dataset):
        raise DataError(
            'the data of a run is a mapping with Datasets, {"train": ..., "val": ...}, and val may be left out'
        )
    train, val = data["train"], data.get("val")
    if not len(train) or not train.counts().sum():
        faults = [note for note in train.notes if note.level == "skipped"]
        why = f"; {faults[0]}" if faults else ""
        raise DataError(f"{train.root}: no boxes to learn from in the {train.split} split{why}")
    for dataset in data.values():
        absent = [r.file_name for r in dataset.records if r.path is None]
        if absent:
            raise DataError(
                f"{dataset.root}: the {dataset.split} split names {plural(len(absent), 'image')} without a file, such "
                f"as {absent[0]}; put the images where the annotations say"
            )
    check_storable(train.classes, train.root)
    if val is not None:
        if not len(val):
            raise DataError(f"{val.root}: the {val.split} split has no images to judge by; give others with --val DATA")
        match_classes(train.classes, val.classes, allow_missing=True)
