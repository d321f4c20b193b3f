"""What may be wrong with a data set, one function for each place to look: notes of the reader, images, boxes, classes,
and the locations that learn the boxes. All give `Finding`s, also of what is there 0 times."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from ..config import Config
from ..data.dataset import EXAMPLES, Note
from ..data.duplicates import Fingerprints, Twins, find_twins, fingerprint
from ..overlap import iou
from ..terminal import plural
from .scan import Scan

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


_ONE = {  # of what is counted, and what goes with it
    "pairs": "pair", "boxes": "box", "images": "image", "classes": "class", "label rows": "label row",
    "label files": "label file", "objects or files": "object or file", "objects": "object",
    "annotations": "annotation",
}  # fmt: skip
_WITH_ONE = (("that are ", "that is "), ("that show ", "that shows "), ("learn them", "learn it"),
             ("which teach ", "which teaches "), ("used as images", "used as an image"))  # fmt: skip
# what to do about the notes of the readers, by words of theirs
_DO = (
    ("cannot be read", "correct these files or delete them; they are left out"),
    ("cannot be used", "correct these lines or delete them; they are left out"),
    ("are missing", "put the files where they belong, name their folder with --images, or take them off the list"),
    ("partly outside", "nothing, they are cut; if there are many, see whether boxes and images belong together"),
    ("is not the one", "put back the images that the annotations were made for"),
    ("not listed", "add the class to the list, or delete these objects"),
)
_LARGER = "train at a larger input (data.size=...), or in tiles (fcos help tiles)"


@dataclass(frozen=True)
class Finding:
    """One thing found: how bad, what, how often, the first few places, in words and to look at, and what to do about
    it, empty where nothing is asked for; DATA stands there for the data set."""

    level: Literal["serious", "warning", "note"]
    what: str
    count: int
    examples: tuple[str, ...] = ()
    spots: tuple[Spot, ...] = ()
    do: str = ""

    @property
    def told(self) -> str:
        """`what`, as it is said beside the count."""
        text = self.what
        many = next((k for k in _ONE if re.match(rf"{k}\b", text)), None)
        if self.count != 1 or many is None:
            return text
        text = _ONE[many] + text[len(many) :]
        for several, one in _WITH_ONE:
            text = text.replace(several, one, 1)
        return text

    def places(self, most: int) -> list[str]:
        """The first of the examples, and how many more there are."""
        shown = list(self.examples[:most])
        left = self.count - len(shown)
        return [*shown, f"and {left:,} more"] if shown and left > 0 else shown

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without what is to be looked at."""
        told = {"level": self.level, "what": self.what, "count": self.count}
        return {**told, "examples": self.examples, "do": self.do}


def in_notes(split: str, dataset: Dataset) -> list[Finding]:
    """What the reader skipped or noticed. What it skipped is serious."""
    return [
        Finding(
            "serious" if note.level == "skipped" else note.level,
            f"{note.kind} ({split})",
            note.count,
            (note.example, *note.more) if note.example else (),
            _named_in((note.example, *note.more), dataset),
            _asked_by(note),
        )
        for note in dataset.notes
    ]


def _asked_by(note: Note) -> str:
    """What to do about a note."""
    otherwise = "correct them in the annotation file; they are left out" if note.level == "skipped" else ""
    return next((advice for words, advice in _DO if words in note.kind), otherwise)


def _named_in(examples: Sequence[str], dataset: Dataset) -> tuple[Spot, ...]:
    """The images that the examples of a note name, with all their boxes; none where they name none that is there."""
    best: dict[str, Record] = {}
    for record in dataset.records:
        if record.path is None or not record.file_name:
            continue
        for example in examples:
            if record.file_name in example and (
                example not in best or len(record.file_name) > len(best[example].file_name)
            ):
                best[example] = record
    named = {best[e].file_name: best[e] for e in examples if e in best}
    return tuple(_spot(r, range(len(r.boxes)), name) for name, r in named.items())[:SPOTS]


def _spot(record: Record, rows: Iterable[int], title: str) -> Spot:
    """Boxes `rows` of an image that has a file."""
    assert record.path is not None
    boxes = record.boxes[list(rows)].reshape(-1, 4).tolist()
    return Spot(Path(record.path), tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in boxes), title)


def in_images(splits: Mapping[str, Dataset]) -> list[Finding]:
    """Images that are not there, cannot be read, or are there twice."""
    owners: list[tuple[str, Record]] = [(k, r) for k, d in splits.items() for r in d.records]
    absent = [f"{k}: {r.file_name}" for k, r in owners if r.path is None]
    present = [(k, r.path) for k, r in owners if r.path is not None]
    findings = []
    if absent:
        known = "note" if not present else "serious"  # a pack of boxes alone is no broken data set
        do = "put the files where they belong, or name their folder with --images"
        findings.append(Finding(known, "images without a file", len(absent), tuple(absent[:EXAMPLES]), (), do))  # type: ignore[arg-type]
    prints: Fingerprints = fingerprint([p for _, p in present])
    broken = [e for e in prints.error if e]
    do = "replace these files or delete them; they are left out"
    findings.append(Finding("serious", "images that cannot be read", len(broken), tuple(broken[:EXAMPLES]), (), do))
    pairs = [t for t in find_twins(prints) if present[t.first][1] != present[t.second][1]]
    across = [t for t in pairs if present[t.first][0] != present[t.second][0]]
    within = [t for t in pairs if present[t.first][0] == present[t.second][0]]

    def places(twins: list[Twins]) -> tuple[str, ...]:
        return tuple(
            " = ".join(f"{present[i][0]}/{Path(present[i][1]).name}" for i in (t.first, t.second))
            for t in twins[:EXAMPLES]
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
    do = "delete one of each pair, best the one in val or test"
    findings.append(Finding("serious", two, len(across), places(across), spots(across), do))
    do = "delete one of each pair, unless you want both"
    findings.append(Finding("warning", one, len(within), places(within), spots(within), do))
    return findings


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
            if record.labels[i] == record.labels[j]:
                twice.append(line)
            else:
                torn.append(f"{line} / {dataset.classes.names[record.labels[j]]}")
    return [
        Finding(
            "warning",
            f"boxes marked twice ({split})",
            len(twice),
            tuple(twice[:EXAMPLES]),
            tuple(spots[True]),
            "delete one of the two boxes; fcos labels check DATA finds more of this kind",
        ),
        Finding(
            "warning",
            f"boxes marked as two classes ({split})",
            len(torn),
            tuple(torn[:EXAMPLES]),
            tuple(spots[False]),
            "keep the box with the right class; fcos labels check DATA helps to choose",
        ),
    ]


def same_boxes(record: Record, least: float = SAME_BOX) -> list[tuple[int, int]]:
    """Pairs i < j of an image's boxes with IoU > `least`, ignored boxes left out."""
    rows = np.flatnonzero(~record.ignore)
    b = record.boxes[rows].astype(np.float64)
    i, j = np.nonzero(np.triu(iou(b[:, None], b[None]) > least, 1))
    return list(zip(rows[i].tolist(), rows[j].tolist(), strict=True))


def in_classes(splits: Mapping[str, Dataset], trained_on: str) -> list[Finding]:
    """Classes with few boxes, none, or none in the split that trains; images without boxes."""
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
        Finding(
            "serious",
            f"classes that {trained_on} never shows",
            len(never),
            unseen,
            only[:SPOTS],
            "move images of these classes into the training split, or leave them out: data.classes=[...]",
        ),
        Finding(
            "warning",
            f"classes with fewer than {FEW} boxes ({trained_on})",
            len(rare),
            tuple(rare[:EXAMPLES]),
            few,
            "add images of these classes, or expect them to be found badly",
        ),
        Finding(
            "note",
            "classes without a box anywhere",
            len(unused),
            tuple(unused[:EXAMPLES]),
            (),
            "nothing, or take them off the list of classes",
        ),
        Finding(
            "note",
            f"images without boxes, which teach background ({trained_on})",
            len(bare),
            (),
            empty,
            "nothing if they show no object of your classes; else mark their objects",
        ),
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
        rows = [k for k in np.flatnonzero(mask) if dataset.records[seen.image[k]].path is not None][:SPOTS]
        return tuple(
            _spot(dataset.records[seen.image[k]], [int(seen.row[k])],
                  f"{dataset.classes.names[seen.label[k]]}, {seen.size[k, 0]:.0f}x{seen.size[k, 1]:.0f} px")
            for k in rows
        )  # fmt: skip

    bad = seen.boxes > 0 and seen.no_location.mean() > SERIOUS_LOSS
    often = "a larger input often helps (data.size=...)"
    kinds: tuple[tuple[Literal["serious", "warning"], str, np.ndarray, str], ...] = (
        ("serious" if bad else "warning", "boxes without a location to learn them", seen.no_location, _LARGER),
        ("warning", "boxes whose locations all learn a smaller box", seen.outranked, often),
        ("warning", f"boxes with a side below {TINY * finest:g} px at this input size", tiny, _LARGER),
    )
    return [Finding(level, what, int(mask.sum()), places(mask), spots(mask), do) for level, what, mask, do in kinds]
