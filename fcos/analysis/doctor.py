"""Is this data set fit to train FCOS on, and at what input size? Asked before training, in minutes.

Serious, so that `fcos doctor` exits with 1: images that cannot be read or are missing, boxes that had to
be skipped, images of one split that stand in another as well, a class of another split that the training
split never shows, and more than `SERIOUS_LOSS` of the boxes without a location to learn them. All else is a
warning or a note.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ..config import Config
from ..data.duplicates import Fingerprints, Twins, find_twins, fingerprint
from ..terminal import percent, plain, plural, table
from .scan import Scan, class_pairs, scan
from .search import NEAR, Option, measure_rates, search

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..data.records import Record

SERIOUS_LOSS = 0.05
SAME_BOX = 0.9  # IoU of two boxes of one image that are one object marked twice
TINY = 0.5  # a side below this share of the finest stride
FEW = 20  # boxes of a class in the training split
SPOTS = 8  # places of a finding that are kept to look at


class Spot(NamedTuple):
    """A place to look at: an image file, the boxes (x1, y1, x2, y2 in its pixels) that are meant, none for all of it,
    and what to call it."""

    path: Path
    boxes: tuple[tuple[float, float, float, float], ...]
    title: str


@dataclass(frozen=True)
class Finding:
    """One thing found: how bad, what, how often, and the first few places, in words and to look at."""

    level: Literal["serious", "warning", "note"]
    what: str
    count: int
    examples: tuple[str, ...] = ()
    spots: tuple[Spot, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without what is to be looked at."""
        return {"level": self.level, "what": self.what, "count": self.count, "examples": self.examples}


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
    """What `diagnose` found. `counts` [C] boxes of each class by split; `together` [C,C] images that show
    both classes; `scan` of the split that trains; `pairs` as in `AmbiguityStudy`. `today` and `best` are
    settings judged on a part of the images, `tried` all that the search looked at."""

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
        result: dict[str, Any] = plain(
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

    def verdict(self) -> str:
        """Whether one can train on the data as it is, and what to mend first."""
        counts = {level: [f for f in self.findings if f.level == level] for level in ("serious", "warning")}
        if counts["serious"]:
            first = "; ".join(f.what for f in counts["serious"][:3])
            return f"fix {plural(len(counts['serious']), 'serious problem')} before training: {first}"
        if counts["warning"]:
            return f"ready to train; {plural(len(counts['warning']), 'thing')} worth a look first"
        return "ready to train"

    def text(self) -> str:
        """For a terminal."""
        lines = [f"{self.data}: {self.verdict()}", ""]
        lines.append(
            table(("split", "images", "boxes"), [(k, f"{p:,}", f"{b:,}") for k, (p, b) in self.splits.items()])
        )
        lines.append("")
        for finding in self.findings:
            where = f": {'; '.join(finding.examples[:2])}" if finding.examples else ""
            lines.append(f"{finding.level:<8} {finding.count:>6,}  {finding.what}{where}")
        if not self.findings:
            lines.append("no problems found")
        n, boxes = self.numbers(), self.scan.boxes
        lines += [
            "",
            f"at input {self.size[0]}/{self.size[1]}, the {self.trained_on} split, {plural(boxes, 'box')}:",
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
            lines += ["", _advice(self.today, self.best)]
        return "\n".join(lines)


def _advice(today: Option, best: Option) -> str:
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
    return f"these settings {line(today)}\n{kind} settings {line(best)}\n  {told}\n  {best.config_lines()}"


def diagnose(
    splits: Mapping[str, Dataset], config: Config, *, images: bool = True, budget: float = 1.5, tune: bool = True
) -> Diagnosis:
    """Examine all splits; the locations are those of the split that trains ('train', 'trainval', else the first).

    `images`: read every image (unreadable, twice, in two splits). `tune`: search better settings that
    cost at most `budget` times what `config` costs.
    """
    trained_on = next((k for k in ("train", "trainval") if k in splits), next(iter(splits)))
    main = splits[trained_on]
    findings: list[Finding] = []
    for name, dataset in splits.items():
        findings += _notes(name, dataset)
    if images:
        findings += _images(splits)
    for name, dataset in splits.items():
        findings += _boxes(name, dataset)
    findings += _classes(splits, trained_on)
    seen = scan(main, config)
    findings += _locations(main, seen, config)
    today = best = None
    tried: tuple[Option, ...] = ()
    if tune and seen.boxes:
        today, best, tried = search(main, config, measure_rates(config, len(main.classes)), budget)
    order = {"serious": 0, "warning": 1, "note": 2}
    return Diagnosis(
        data=str(main.root),
        splits={k: (len(d), sum(len(r.boxes) for r in d.records)) for k, d in splits.items()},
        trained_on=trained_on,
        classes=main.classes.names,
        counts={k: tuple(d.counts().tolist()) for k, d in splits.items()},
        together=_together(main),
        size=(config.data.size, config.data.max_size),
        scan=seen,
        levels=_levels(seen, config),
        pairs=class_pairs(seen, main.classes.names),
        findings=tuple(sorted((f for f in findings if f.count), key=lambda f: order[f.level])),
        today=today,
        best=best,
        tried=tried,
    )


def _notes(split: str, dataset: Dataset) -> list[Finding]:
    """What the reader skipped or noticed. What it skipped is serious."""
    return [
        Finding(
            "serious" if note.level == "skipped" else note.level,
            f"{note.kind} ({split})",
            note.count,
            (note.example,) if note.example else (),
            _named_in(note.example, dataset),
        )
        for note in dataset.notes
    ]


def _named_in(example: str, dataset: Dataset) -> tuple[Spot, ...]:
    """The image that the example of a note names, with all its boxes; none where it names no image that is there."""
    named = [r for r in dataset.records if r.path is not None and r.file_name and r.file_name in example]
    best = max(named, key=lambda r: len(r.file_name), default=None)
    return () if best is None else (_spot(best, range(len(best.boxes)), best.file_name),)


def _spot(record: Record, rows: Iterable[int], title: str) -> Spot:
    """Boxes `rows` of an image that has a file."""
    assert record.path is not None
    boxes = record.boxes[list(rows)].reshape(-1, 4).tolist()
    return Spot(Path(record.path), tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in boxes), title)


def _images(splits: Mapping[str, Dataset]) -> list[Finding]:
    owners: list[tuple[str, Record]] = [(k, r) for k, d in splits.items() for r in d.records]
    absent = [f"{k}: {r.file_name}" for k, r in owners if r.path is None]
    present = [(k, r.path) for k, r in owners if r.path is not None]
    findings = []
    if absent:
        known = "note" if not present else "serious"  # a pack of boxes alone is no broken data set
        findings.append(Finding(known, "images without a file", len(absent), tuple(absent[:5])))  # type: ignore[arg-type]
    prints: Fingerprints = fingerprint([p for _, p in present])
    broken = [e for e in prints.error if e]
    findings.append(Finding("serious", "images that cannot be read", len(broken), tuple(broken[:5])))
    pairs = [t for t in find_twins(prints) if present[t.first][1] != present[t.second][1]]
    across = [t for t in pairs if present[t.first][0] != present[t.second][0]]
    within = [t for t in pairs if present[t.first][0] == present[t.second][0]]

    def places(twins: list[Twins]) -> tuple[str, ...]:
        return tuple(
            " = ".join(f"{present[i][0]}/{Path(present[i][1]).name}" for i in (t.first, t.second)) for t in twins[:5]
        )

    def spots(twins: list[Twins]) -> tuple[Spot, ...]:
        pairs = []
        for t in twins[: SPOTS // 2]:
            (split, first), (other, second) = present[t.first], present[t.second]
            how = "same file" if t.same_file else f"{plural(t.bits, 'bit')} apart"
            pairs += [Spot(Path(first), (), f"{split}/{Path(first).name}")]
            pairs += [Spot(Path(second), (), f"{other}/{Path(second).name} ({how})")]
        return tuple(pairs)

    two, one = "pairs of images that are in two splits", "pairs of images that show the same, in one split"
    findings.append(Finding("serious", two, len(across), places(across), spots(across)))
    findings.append(Finding("warning", one, len(within), places(within), spots(within)))
    return findings


def _boxes(split: str, dataset: Dataset) -> list[Finding]:
    twice: list[str] = []
    torn: list[str] = []
    spots: dict[bool, list[Spot]] = {True: [], False: []}
    for record in dataset.records:
        for i, j in same_boxes(record):
            line = f"{record.file_name}: {dataset.classes.names[record.labels[i]]}"
            same = bool(record.labels[i] == record.labels[j])
            if record.path is not None and len(spots[same]) < SPOTS:
                spots[same].append(_spot(record, (i, j), record.file_name))
            if record.labels[i] == record.labels[j]:
                twice.append(line)
            else:
                torn.append(f"{line} / {dataset.classes.names[record.labels[j]]}")
    return [
        Finding("warning", f"boxes marked twice ({split})", len(twice), tuple(twice[:5]), tuple(spots[True])),
        Finding("warning", f"boxes marked as two classes ({split})", len(torn), tuple(torn[:5]), tuple(spots[False])),
    ]


def same_boxes(record: Record, least: float = SAME_BOX) -> list[tuple[int, int]]:
    """Pairs i < j of an image's boxes with IoU > `least`, ignored boxes left out."""
    rows = np.flatnonzero(~record.ignore)
    b = record.boxes[rows].astype(np.float64)
    inside = (np.minimum(b[:, None, 2:], b[None, :, 2:]) - np.maximum(b[:, None, :2], b[None, :, :2])).clip(0).prod(2)
    area = (b[:, 2:] - b[:, :2]).prod(1)
    i, j = np.nonzero(np.triu(inside > least * (area[:, None] + area[None] - inside), 1))
    return list(zip(rows[i].tolist(), rows[j].tolist(), strict=True))


def _classes(splits: Mapping[str, Dataset], trained_on: str) -> list[Finding]:
    names = splits[trained_on].classes.names
    here = dict(zip(names, splits[trained_on].counts().tolist(), strict=True))
    never = {
        name: split
        for split, dataset in splits.items()
        if split != trained_on
        for name, count in zip(dataset.classes.names, dataset.counts().tolist(), strict=True)
        if count and not here.get(name)
    }
    rare = [f"{n}: {c}" for n, c in sorted(here.items(), key=lambda kv: kv[1]) if 0 < c < FEW]
    unused = [n for n, c in here.items() if c == 0 and n not in never]
    unseen = tuple(f"{name} ({split})" for name, split in never.items())
    bare = [r for r in splits[trained_on].records if len(r.boxes) == 0]
    few = _of_classes(splits[trained_on], [line.rpartition(":")[0] for line in rare])
    only = tuple(s for split in dict.fromkeys(never.values())
                 for s in _of_classes(splits[split], [n for n, where in never.items() if where == split]))  # fmt: skip
    empty = tuple(_spot(r, (), r.file_name) for r in bare if r.path is not None)[:SPOTS]
    return [
        Finding("serious", f"classes that {trained_on} never shows", len(never), unseen, only[:SPOTS]),
        Finding("warning", f"classes with fewer than {FEW} boxes ({trained_on})", len(rare), tuple(rare[:5]), few),
        Finding("note", "classes without a box anywhere", len(unused), tuple(unused[:5])),
        Finding("note", f"images without boxes, which teach background ({trained_on})", len(bare), (), empty),
    ]


def _of_classes(dataset: Dataset, names: Sequence[str]) -> tuple[Spot, ...]:
    """One box of each of the classes, where its image has a file."""
    spots = []
    for name in names[:SPOTS]:
        label = dataset.classes.names.index(name)
        for record in dataset.records:
            rows = np.flatnonzero((record.labels == label) & ~record.ignore)
            if len(rows) and record.path is not None:
                spots.append(_spot(record, rows[:1].tolist(), f"{name}: {record.file_name}"))
                break
    return tuple(spots)


def _locations(dataset: Dataset, seen: Scan, config: Config) -> list[Finding]:
    finest = config.model.strides[0]
    tiny = seen.size.min(axis=1) < TINY * finest if seen.boxes else np.zeros(0, bool)

    def places(mask: np.ndarray) -> tuple[str, ...]:
        rows = np.flatnonzero(mask)[:5]
        return tuple(
            f"{dataset.records[seen.image[k]].file_name}: {dataset.classes.names[seen.label[k]]} "
            f"{seen.size[k, 0]:.0f}x{seen.size[k, 1]:.0f} px"
            for k in rows
        )

    def spots(mask: np.ndarray) -> tuple[Spot, ...]:
        rows = [k for k in np.flatnonzero(mask) if dataset.records[seen.image[k]].path is not None][:SPOTS]
        return tuple(
            _spot(dataset.records[seen.image[k]], [int(seen.row[k])],
                  f"{dataset.classes.names[seen.label[k]]}, {seen.size[k, 0]:.0f}x{seen.size[k, 1]:.0f} px")
            for k in rows
        )  # fmt: skip

    bad = seen.boxes > 0 and seen.no_location.mean() > SERIOUS_LOSS
    kinds: tuple[tuple[Literal["serious", "warning"], str, np.ndarray], ...] = (
        ("serious" if bad else "warning", "boxes without a location to learn them", seen.no_location),
        ("warning", "boxes whose locations all learn a smaller box", seen.outranked),
        ("warning", f"boxes with a side below {TINY * finest:g} px at this input size", tiny),
    )
    return [Finding(level, what, int(mask.sum()), places(mask), spots(mask)) for level, what, mask in kinds]


def _levels(seen: Scan, config: Config) -> tuple[Level, ...]:
    limits = (0.0, *config.assign.ranges, float("inf"))
    main = np.where(seen.recalled, seen.learned.argmax(axis=1), -1)
    rows = []
    for i, stride in enumerate(config.model.strides):
        counts = int((main == i).sum()), int(seen.learned[:, i].sum())
        rows.append(Level(f"P{stride.bit_length() - 1}", stride, limits[i], limits[i + 1], *counts))
    return tuple(rows)


def _together(dataset: Dataset) -> np.ndarray:
    """[C,C] images that show both classes; on the diagonal images that show the class."""
    shows = np.zeros((len(dataset), len(dataset.classes)), np.int64)
    for i, record in enumerate(dataset.records):
        shows[i, record.labels[~record.ignore]] = 1
    return shows.T @ shows
