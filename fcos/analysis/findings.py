"""What may be wrong with a data set, one function for each place to look: notes of the reader, boxes, classes, and
the locations that learn the boxes; of images see `image_findings.py`. All give `Finding`s, also of what is there 0
times."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ..config import Config
from ..data import kinds
from ..data.clean import same_boxes
from ..data.dataset import EXAMPLES
from ..data.kinds import Kind
from ..system.names import fold
from .scan import Scan

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..data.records import Record

SERIOUS_LOSS = 0.05
TINY = 0.5  # a side below this share of the finest stride
FEW = 20  # boxes of a class in the training split
SPOTS = 8  # places of a finding that are kept to look at


class Spot(NamedTuple):
    """A place to look at: an image file, the boxes (x1, y1, x2, y2 in its pixels) that are meant, none for all of it,
    what to call it, and other boxes that explain it."""

    path: Path
    boxes: tuple[tuple[float, float, float, float], ...]
    title: str
    others: tuple[tuple[float, float, float, float], ...] = ()


_LARGER = "train at a larger input (data.size=...), or in tiles (fcos help tiles)"
_NO_BOXES = Kind(
    "splits to train on that have no boxes",
    "split to train on that has no boxes",
    "label objects in it, or name the labels with --labels",
)
_GONE = (kinds.MISSING, kinds.MISSING_SIZE, kinds.UNREADABLE)  # of which no picture can be shown
ACROSS = Kind(
    "pairs of images that are in two splits",
    "pair of images that is in two splits",
    "delete one of each pair, best the one in val or test",
)
SHARED = Kind(
    "cases of one file in the lists of two splits",
    "case of one file in the lists of two splits",
    "take each off one of the two lists; or remove val from the data file, and training keeps a tenth of train back",
)
_TWICE = Kind(
    "boxes marked twice",
    "box marked twice",
    "delete one of the two, or write a copy without: fcos data convert --clean; fcos labels check DATA finds more",
)
_TORN = Kind(
    "boxes marked as two classes",
    "box marked as two classes",
    "keep the box with the right class; fcos labels check DATA helps to choose",
)
_RARE = Kind(
    f"classes with fewer than {FEW} boxes",
    f"class with fewer than {FEW} boxes",
    "add images of these classes, or expect them to be found badly",
)
_ALIKE = Kind(
    "groups of classes that differ in upper case, spaces or hyphens only",
    "group of classes that differ in upper case, spaces or hyphens only",
    "if they are one, write a copy that joins them: fcos data convert DATA OUT --to FORMAT --rename OLD=NEW",
)
_UNUSED = Kind(
    "classes without a box anywhere",
    "class without a box anywhere",
    "nothing, or take them off the list of classes",
)
_BACKGROUND = Kind(
    "images without boxes, which teach background",
    "image without boxes, which teaches background",
    "nothing if they show no object of your classes; else mark their objects",
)
_UNLEARNED = Kind("boxes without a location to learn them", "box without a location to learn it", _LARGER)
_OUTRANKED = Kind(
    "boxes whose locations all learn a smaller box",
    "box whose locations all learn a smaller box",
    "a larger input often helps (data.size=...)",
)


@dataclass(frozen=True)
class Finding:
    """One thing found: how bad, what, how often, and the first few places, in words and to look at."""

    level: Literal["serious", "warning", "note"]
    kind: Kind
    count: int
    examples: tuple[str, ...] = ()
    spots: tuple[Spot, ...] = ()

    @property
    def place(self) -> tuple[int, bool, int]:
        """For sorting: the worst comes first, there leaks between splits, which spoil every number, then what is there
        most often."""
        leak = self.kind in (SHARED, ACROSS)
        return ("serious", "warning", "note").index(self.level), not leak, -self.count

    @property
    def told(self) -> str:
        """What was found, as it is said beside the count."""
        return self.kind.told(self.count)

    def places(self, most: int) -> list[str]:
        """The first of the examples, and how many more there are."""
        shown = list(self.examples[:most])
        left = self.count - len(shown)
        return [*shown, f"and {left:,} more"] if shown and left > 0 else shown

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without what is to be looked at."""
        told = {"level": self.level, "what": self.kind.many, "count": self.count}
        return {**told, "examples": self.examples, "do": self.kind.do}


def in_notes(split: str, dataset: Dataset) -> list[Finding]:
    """What the reader skipped or noticed. What it skipped is serious."""
    return [
        Finding(
            "serious" if note.level == "skipped" else note.level,
            note.kind.at(split),
            note.count,
            (note.example, *note.more) if note.example else (),
            () if note.kind in _GONE else _named_in((note.example, *note.more), dataset),
        )
        for note in dataset.notes
    ]


def _named_in(examples: Sequence[str], dataset: Dataset) -> tuple[Spot, ...]:
    """The images that the examples of a note name, with all their boxes; none where they name none that is there."""
    best: dict[str, Record] = {}
    for record in dataset.records:
        if record.path is None or not record.file_name:
            continue
        for example in examples:
            longer = example not in best or len(record.file_name) > len(best[example].file_name)
            if longer and record.file_name in example and _names(example, record):
                best[example] = record
    named = {best[e].file_name: best[e] for e in examples if e in best}
    return tuple(_spot(r, range(len(r.boxes)), name) for name, r in named.items())[:SPOTS]


def _names(example: str, record: Record) -> bool:
    """Whether an example names the image: its name alone, or its whole path, and not the end or part of another's."""
    path, name = re.escape(str(record.path)), re.escape(record.file_name)
    return re.search(rf"(?:{path}|(?<![\w.\-/\\]){name})(?![\w\-/\\]|\.\w)", example) is not None


def _spot(record: Record, rows: Iterable[int], title: str) -> Spot:
    """Boxes `rows` of an image that has a file."""
    assert record.path is not None
    boxes = record.boxes[list(rows)].reshape(-1, 4).tolist()
    return Spot(Path(record.path), tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in boxes), title)


def in_boxes(split: str, dataset: Dataset) -> list[Finding]:
    """Objects that are marked twice, as one class or as two."""
    twice: list[str] = []
    torn: list[str] = []
    spots: dict[bool, list[Spot]] = {True: [], False: []}
    for record in dataset.records:
        for i, j in same_boxes(record):
            line = f"{record.file_name}: {dataset.classes.names[record.labels[i]]}"
            same = bool(record.labels[i] == record.labels[j])
            if record.path is not None and len(spots[same]) < SPOTS:
                spots[same].append(_spot(record, (i, j), record.file_name))
            if same:
                twice.append(line)
            else:
                torn.append(f"{line} / {dataset.classes.names[record.labels[j]]}")
    return [
        Finding("warning", _TWICE.at(split), len(twice), tuple(twice[:EXAMPLES]), tuple(spots[True])),
        Finding("warning", _TORN.at(split), len(torn), tuple(torn[:EXAMPLES]), tuple(spots[False])),
    ]


def same_splits(splits: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """The splits, those that have the same images, boxes and notes as one, by all their names."""
    names: list[list[str]] = []
    for name, dataset in splits.items():
        for group in names:
            other = splits[group[0]]
            if other.packed == dataset.packed and other.notes == dataset.notes and other.classes == dataset.classes:
                group.append(name)
                break
        else:
            names.append([name])
    return {", ".join(group): splits[group[0]] for group in names}


def in_classes(splits: Mapping[str, Dataset], trained_on: str) -> list[Finding]:
    """Classes with few boxes, none, or none in the split that trains, or of one name; images without boxes."""
    names = splits[trained_on].classes.names
    folded: dict[str, dict[str, None]] = {}
    for dataset in splits.values():
        for name in dataset.classes.names:
            folded.setdefault(fold(name), {})[name] = None
    alike = [", ".join(group) for group in folded.values() if len(group) > 1]
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
    unshown = Kind(
        f"classes that {trained_on} never shows",
        f"class that {trained_on} never shows",
        "move images of these classes into the training split, or leave them out: data.classes=[...]",
    )
    return [
        Finding("serious", _NO_BOXES, 0 if any(here.values()) else 1, (trained_on,)),
        Finding("serious", unshown, len(never), unseen, only[:SPOTS]),
        Finding("warning", _ALIKE, len(alike), tuple(alike[:EXAMPLES])),
        Finding("warning", _RARE.at(trained_on), len(rare), tuple(rare[:EXAMPLES]), few),
        Finding("note", _UNUSED, len(unused), tuple(unused[:EXAMPLES])),
        Finding("note", _BACKGROUND.at(trained_on), len(bare), (), empty),
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


def _takers(seen: Scan, record: Record, k: int) -> list[int]:
    """Rows of the smaller boxes that lie on the k-th box and so may learn its locations."""
    x1, y1, x2, y2 = record.boxes[seen.row[k]]
    area = seen.size.prod(axis=1)
    near = [int(seen.row[i]) for i in np.flatnonzero(seen.image == seen.image[k]) if area[i] < area[k]]
    return [r for r in near for a, b, c, d in [record.boxes[r]] if min(c, x2) > max(a, x1) and min(d, y2) > max(b, y1)]


def in_locations(dataset: Dataset, seen: Scan, config: Config) -> list[Finding]:
    """Boxes that no location learns, and boxes that are tiny at this input size."""
    finest = config.model.strides[0]
    tiny = seen.size.min(axis=1) < TINY * finest if seen.boxes else np.zeros(0, bool)

    def places(mask: np.ndarray) -> tuple[str, ...]:
        rows = np.flatnonzero(mask)[:EXAMPLES]
        return tuple(
            f"{dataset.records[seen.image[k]].file_name}: {dataset.classes.names[seen.label[k]]} "
            f"{seen.size[k, 0]:.0f}x{seen.size[k, 1]:.0f} px"
            for k in rows
        )

    def spots(mask: np.ndarray) -> tuple[Spot, ...]:
        rows = [int(k) for k in np.flatnonzero(mask) if dataset.records[seen.image[k]].path is not None][:SPOTS]
        shown = []
        for k in rows:
            record = dataset.records[seen.image[k]]
            size = f"{seen.size[k, 0]:.0f}x{seen.size[k, 1]:.0f} px"
            title = f"{record.file_name}: {dataset.classes.names[seen.label[k]]}, {size}"
            takers = _spot(record, _takers(seen, record, k), "").boxes if seen.outranked[k] else ()
            shown.append(_spot(record, [int(seen.row[k])], title)._replace(others=takers))
        return tuple(shown)

    # where boxes are not what they are read as, no input size helps
    cause = next((note.kind.do for note in dataset.notes if note.kind in kinds.MISREAD), "")
    bad = seen.boxes > 0 and seen.no_location.mean() > SERIOUS_LOSS
    small = f"with a side below {TINY * finest:g} px at this input size"
    found: tuple[tuple[Literal["serious", "warning"], Kind, np.ndarray], ...] = (
        ("serious" if bad else "warning", _UNLEARNED, seen.no_location),
        ("warning", _OUTRANKED, seen.outranked),
        ("warning", Kind(f"boxes {small}", f"box {small}", _LARGER), tiny),
    )
    return [
        Finding(level, kind._replace(do=cause or kind.do), int(mask.sum()), places(mask), spots(mask))
        for level, kind, mask in found
    ]
