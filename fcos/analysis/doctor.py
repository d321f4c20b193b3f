"""Is this data set fit to train FCOS on, and at what input size? Asked before training, in minutes.

Serious, so that `fcos doctor` exits with 1: images that cannot be read or are missing, boxes that had to
be skipped, images of one split that stand in another as well, a class of another split that the training
split never shows, and more than `SERIOUS_LOSS` of the boxes without a location to learn them. All else is a
warning or a note (findings.py).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..changes import as_words
from ..config import Config
from ..data.classes import as_learned, as_seen
from ..data.clean import marked_once
from ..data.dataset import Dataset
from ..data.open import open_splits
from ..data.splits import TAUGHT, default_split
from ..data.tree import DataSource
from ..errors import ConfigError, one_line
from ..points import level_name
from ..presets import DEFAULT
from ..system.door import door
from ..system.terminal import json_ready, percent, plural, table
from ..zoo.describe import settings_of
from .findings import Finding, in_boxes, in_classes, in_locations, in_notes, same_splits
from .image_findings import NO_FILE, in_images
from .scan import Scan, class_pairs, scan
from .search import NEAR, SEARCHED, Option, measure_rates, search

_SHOWN = 5  # places of a finding in a terminal
_IMAGES = 4096  # whose classes are counted together at once


@dataclass(frozen=True)
class Level:
    """One level of the pyramid: boxes that learn most of their locations there, share of the positives."""

    name: str
    stride: int
    lower: float
    upper: float
    boxes: int
    positives: int


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found. `counts` [C] boxes of each of `classes`, those of the split that trains, by split;
    `together` [C,C] images that show both classes; `scan` of the split that trains, without the
    second of boxes marked twice; `pairs` as in `AmbiguityStudy`.
    `today` and `best` are settings judged on a part of the images, `tried` all that the search looked at. `told`: words
    of the command line that name the model and its settings and say how to read the data."""

    data: str
    splits: dict[str, tuple[int, int]]
    trained_on: str
    classes: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    together: np.ndarray = field(repr=False)
    size: tuple[int, int]
    scan: Scan = field(repr=False)
    levels: tuple[Level, ...]
    pairs: tuple[tuple[str, str, int], ...]
    findings: tuple[Finding, ...]
    today: Option | None
    best: Option | None
    tried: tuple[Option, ...] = field(repr=False)
    told: tuple[str, ...] = ()

    @property
    def serious(self) -> bool:
        """Is there anything to mend before training?"""
        return any(f.level == "serious" for f in self.findings)

    def numbers(self) -> dict[str, Any]:
        """What only FCOS can say at this input size."""
        s = self.scan
        same, different = s.ambiguity
        images = max(len(s.positives), 1)
        return {
            "best_possible_recall": s.recall,
            "boxes_without_location": int(s.no_location.sum()),
            "boxes_outranked": int(s.outranked.sum()),
            "ambiguous_share": same,
            "ambiguous_different_share": different,
            "positives_per_image": float(s.positives.sum() / images),
            "locations_per_image": float(s.points.sum() / images),
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        result: dict[str, Any] = json_ready(
            {
                "data": self.data,
                "splits": {k: {"images": p, "boxes": b} for k, (p, b) in self.splits.items()},
                "trained_on": self.trained_on,
                "serious": self.serious,
                "findings": [f.to_dict() for f in self.findings],
                "classes": self.classes,
                "boxes_per_class": self.counts,
                "images_with_both": self.together,
                "size": self.size,
                **self.numbers(),
                "levels": [vars(level) for level in self.levels],
                "ambiguous_pairs": self.pairs,
                "settings_now": None if self.today is None else vars(self.today),
                "settings_best": None if self.best is None else vars(self.best),
                "settings_best_lines": None if self.best is None else self.best.config_lines(),
                "settings_tried": [vars(o) for o in self.tried],
            }
        )
        return result

    def counted(self) -> str:
        """How many boxes the locations are counted for, and why not for all."""
        _, boxes = self.splits[self.trained_on]
        if self.scan.boxes == boxes:
            return plural(boxes, "box")
        rest = "the rest are crowd, difficult, marked twice or left out by the dialect"
        return f"{self.scan.boxes:,} of {plural(boxes, 'box')} ({rest})"

    def searched(self) -> str:
        """The images that the settings were judged on; empty where that are all."""
        images, _ = self.splits[self.trained_on]
        return f"on {SEARCHED:,} of the {images:,} images" if images > SEARCHED else ""

    def advice(self, finding: Finding) -> str:
        """What to do about a finding in this data."""
        return finding.kind.do.replace("DATA", shlex.quote(self.data))

    def command(self) -> str:
        """The command that trains with the best settings; empty where none were searched."""
        return "" if self.best is None else self.best.command(self.data, self.told)

    def verdict(self) -> str:
        """Whether one can train on the data as it is, and what to mend first."""
        counts = {level: [f for f in self.findings if f.level == level] for level in ("serious", "warning")}
        if counts["serious"]:
            first = "; ".join(f"{f.count:,} {f.told}" if f.count > 1 else f.told for f in counts["serious"][:3])
            return f"fix {plural(len(counts['serious']), 'serious problem')} before training: {first}"
        alone = any(f.level == "note" and f.kind == NO_FILE and f.count for f in self.findings)
        ready = "only boxes were checked, as there are no images to train on" if alone else "ready to train"
        if counts["warning"]:
            return f"{ready}; {plural(len(counts['warning']), 'thing')} worth a look first"
        return ready

    def text(self) -> str:
        """For a terminal."""
        lines = [f"{self.data}: {self.verdict()}", ""]
        lines.append(
            table(("split", "images", "boxes"), [(k, f"{p:,}", f"{b:,}") for k, (p, b) in self.splits.items()])
        )
        lines.append("")
        for finding in self.findings:
            lines.append(f"{finding.level:<8} {finding.count:>6,}  {finding.told}")
            lines += [f"{'':17}{place}" for place in map(one_line, finding.places(_SHOWN))]
            lines += [f"{'':17}what to do: {self.advice(finding)}"] if finding.kind.do else []
        if not self.findings:
            lines.append("no problems found")
        n = self.numbers()
        lines += [
            "",
            f"at input {self.size[0]}/{self.size[1]}, the {self.trained_on} split, {self.counted()}:",
            f"  best possible recall         {percent(n['best_possible_recall'])} %",
            f"  boxes without a location     {n['boxes_without_location']:,}",
            f"  boxes hidden by smaller ones {n['boxes_outranked']:,}",
            f"  ambiguous locations          {percent(n['ambiguous_share'])} % of positives, "
            f"{percent(n['ambiguous_different_share'])} % between classes",
            f"  positives an image          {n['positives_per_image']:.0f} of {n['locations_per_image']:,.0f}",
            "",
            table(
                ("level", "stride", "learns px", "boxes", "positives"),
                [
                    (v.name, v.stride, f"{v.lower:g}-{v.upper:g}", f"{v.boxes:,}", f"{v.positives:,}")
                    for v in self.levels
                ],
            ),
        ]
        if self.pairs:
            lines += [
                "",
                "ambiguous locations (in several boxes), by class:",
                table(("kept by", "lost by", "locations"), [(a, b, f"{c:,}") for a, b, c in self.pairs[:5]], 2),
            ]
        if self.today is not None and self.best is not None:
            lines += ["", *([f"{self.searched()}:"] if self.searched() else [])]
            lines.append(_advice(self.today, self.best, self.command()))
        return "\n".join(lines)


def _advice(today: Option, best: Option, command: str) -> str:
    def line(o: Option) -> str:
        return (
            f"lose {percent(o.lost)} % of the boxes' locations to other boxes; recall {percent(o.recall)} %, "
            f"{o.points:,.0f} locations and {o.gflop:.2f} GFLOP an image"
        )

    if best == today:
        return f"these settings {line(today)}\nno other settings within this budget lose less"
    gain, price = today.lost - best.lost, best.gflop / today.gflop - 1
    kind = "better" if gain > NEAR else "cheaper"
    loss = f"{percent(abs(gain))} points {'less' if gain > 0 else 'more'} lost"
    cost = f"for {abs(price):.0%} {'more' if price > 0 else 'fewer'} FLOPs" if abs(price) >= 0.005 else "at no cost"
    told = f"{loss} {cost}"
    return f"these settings {line(today)}\n{kind} settings {line(best)}\n  {told}\n  {command}"


@door
def doctor(
    data: str | Path | DataSource | Dataset | Mapping[str, Dataset],
    model: str | Path | Config = DEFAULT,
    *,
    settings: Sequence[str] | Mapping[str, Any] | str = (),
    images: bool = True,
    budget: float = 1.5,
) -> Diagnosis:
    """Check a data set before training, as `fcos doctor` does (docs/doctor.md), all its splits.

    `data` is a path, a DataSource, a Dataset, or Datasets by the name of their split. `model`, the name of a preset, a
    run folder or file, or a Config, says what the network can learn, at its own input size unless `settings`, such as
    "data.size=512", say another. `images`: look at every image, not only at the boxes. `budget`: search for better
    settings that cost at most so many times the FLOPs of today's; 0: search for none.

    Returns a Diagnosis: `serious`, whether something has to be mended first; `findings`; `text()`, what the command
    prints; `to_dict()`, the same for JSON. Raises DataError where the data cannot be opened, ConfigError for a
    setting that is not there.

    >>> found = fcos.doctor("my_data", images=False, budget=0)
    >>> found.serious, found.verdict().partition(":")[0]
    (False, 'ready to train')
    """
    if not budget >= 0:
        raise ConfigError(f"budget={budget!r}: give how many times today's FLOPs the settings may cost, such as 1.5")
    words = as_words(settings)
    config = model.override(*words) if isinstance(model, Config) else settings_of(str(model), words)
    if isinstance(data, Dataset):
        splits: Mapping[str, Dataset] = {data.split: data}
    else:
        splits = data if isinstance(data, Mapping) else open_splits(data)
    seen = {name: as_seen(dataset, config.data) for name, dataset in splits.items()}
    return diagnose(seen, config, images=images, budget=budget, tune=budget > 0)


def diagnose(
    splits: Mapping[str, Dataset], config: Config, *, images: bool = True, budget: float = 1.5, tune: bool = True
) -> Diagnosis:
    """Examine all splits; the locations are those of the split that trains ('train', 'trainval', else the first).

    `images`: read every image (unreadable, twice, in two splits). `tune`: search better settings that
    cost at most `budget` times what `config` costs.
    """
    trained_on = default_split(list(splits), TAUGHT) or next(iter(splits))
    main = splits[trained_on]
    findings: list[Finding] = []
    parts = same_splits(splits)
    for name, dataset in parts.items():
        findings += in_notes(name, dataset)
    if images:
        findings += in_images(splits)
    for name, dataset in parts.items():
        findings += in_boxes(name, dataset)
    findings += in_classes(splits, trained_on)
    taught = as_learned(main, config.data)
    # what the dialect leaves out is no fault of the files
    left_out = tuple(replace(note, level="warning") for note in taught.notes[len(main.notes) :])
    findings += in_notes(trained_on, replace(taught, notes=left_out))
    learned = marked_once(taught, any_class=True)  # no input size parts boxes that lie on each other
    seen = scan(learned, config)
    findings += in_locations(learned, seen, config)
    today = best = None
    tried: tuple[Option, ...] = ()
    if tune and seen.boxes:
        today, best, tried = search(learned, config, measure_rates(config, len(main.classes)), budget)
    return Diagnosis(
        data=str(main.root),
        splits={k: (len(d), sum(len(r.boxes) for r in d.records)) for k, d in splits.items()},
        trained_on=trained_on,
        classes=main.classes.names,
        counts={k: _counts(d, main.classes.names) for k, d in splits.items()},
        together=_together(main),
        size=(config.data.size, config.data.max_size),
        scan=seen,
        levels=_levels(seen, config),
        pairs=class_pairs(seen, main.classes.names),
        findings=tuple(sorted((f for f in findings if f.count), key=lambda f: f.place)),
        today=today,
        best=best,
        tried=tried,
    )


def _counts(dataset: Dataset, names: Sequence[str]) -> tuple[int, ...]:
    """The boxes of each of the classes `names`: a split may have them in another order, and others beside."""
    own = dict(zip(dataset.classes.names, dataset.counts().tolist(), strict=True))
    return tuple(own.get(name, 0) for name in names)


def _levels(seen: Scan, config: Config) -> tuple[Level, ...]:
    limits = (0.0, *config.assign.ranges, float("inf"))
    main = np.where(seen.recalled, seen.learned.argmax(axis=1), -1)
    rows = []
    for i, stride in enumerate(config.model.strides):
        counts = int((main == i).sum()), int(seen.learned[:, i].sum())
        rows.append(Level(level_name(stride), stride, limits[i], limits[i + 1], *counts))
    return tuple(rows)


def _together(dataset: Dataset) -> np.ndarray:
    """[C,C] images that show both classes; on the diagonal images that show the class."""
    together = np.zeros((len(dataset.classes),) * 2, np.int64)
    for start in range(0, len(dataset), _IMAGES):
        records = dataset.records[start : start + _IMAGES]
        shows = np.zeros((len(records), len(dataset.classes)), np.float32)  # whose products numpy leaves to BLAS
        for i, record in enumerate(records):
            shows[i, record.labels[~record.ignore]] = 1
        together += (shows.T @ shows).astype(np.int64)
    return together
