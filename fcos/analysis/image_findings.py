"""What may be wrong with the image files of a data set: not there, unreadable, damaged, or there twice."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..data import kinds
from ..data.dataset import EXAMPLES
from ..data.duplicates import Fingerprints, Twins, find_twins, fingerprint
from ..data.kinds import Kind
from ..data.splits import NESTED
from ..errors import DarkImage, ImageWarning
from ..system.terminal import plural
from .findings import ACROSS, SHARED, SPOTS, Finding, Spot

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..data.records import Record

NO_FILE = Kind(
    "images without a file",
    "image without a file",
    "put the files where they belong, or name their folder with --images",
)
_WITHIN = Kind(
    "pairs of images that show the same, in one split",
    "pair of images that shows the same, in one split",
    "delete one of each pair, unless you want both",
)


def in_images(splits: Mapping[str, Dataset]) -> list[Finding]:
    """Images that are not there, cannot be read, are damaged, or are there twice. Each file counts once, however many
    splits it is in."""
    owners: list[tuple[str, Record]] = [(k, r) for k, d in splits.items() for r in d.records]
    absent = [f"{k}: {r.file_name}" for k, r in owners if r.path is None]
    present = [(k, r.path) for k, r in owners if r.path is not None]
    findings = []
    if absent:
        known = "note" if not present else "serious"  # a pack of boxes alone is no broken data set
        findings.append(Finding(known, NO_FILE, len(absent), tuple(absent[:EXAMPLES])))  # type: ignore[arg-type]
    files = list(dict.fromkeys(path for _, path in present))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ImageWarning)
        prints = fingerprint(files)
    broken = [e for e in prints.error if e]
    findings.append(Finding("serious", kinds.UNREADABLE, len(broken), tuple(broken[:EXAMPLES])))
    findings += [_damaged(told, files), _dark(told)]
    names, number = list(splits), {path: k for k, path in enumerate(files)}
    there = np.zeros((len(names), len(files)), bool)
    for split, path in present:
        there[names.index(split), number[path]] = True
    nested = np.array([{a, b} in NESTED for a in names for b in names], bool).reshape(len(names), len(names))
    shared, across, within = _twins(prints, there, nested)

    def places(twins: _Nearest) -> tuple[str, ...]:
        return tuple(" = ".join(title for title, _ in ends(t)) for t in twins.pairs)

    def ends(pair: _Pair) -> list[tuple[str, Path]]:
        paths = (Path(files[number]) for number in (pair.first, pair.second))
        return [(f"{names[split]}/{path.name}", path) for split, path in zip(pair.splits, paths, strict=True)]

    def spots(twins: _Nearest) -> tuple[Spot, ...]:
        shown = []
        for t in twins.pairs[: SPOTS // 2]:
            (one, first), (other, second) = ends(t)
            how = "same file" if not t.other_file else f"{plural(t.bits, 'bit')} apart"
            shown += [Spot(first, (), one), Spot(second, (), f"{other} ({how})")]
        return tuple(shown)

    findings.append(Finding("serious", SHARED, shared.count, places(shared), spots(shared)))
    findings.append(Finding("serious", ACROSS, across.count, places(across), spots(across)))
    findings.append(Finding("warning", _WITHIN, within.count, places(within), spots(within)))
    return findings


def _damaged(told: Sequence[warnings.WarningMessage], paths: Sequence[Path]) -> Finding:
    """Images of which their decoding warned, with the name in front; what else was warned of is passed on."""
    texts = sorted(
        {str(w.message) for w in told if issubclass(w.category, ImageWarning) and w.category is not DarkImage}
    )
    for w in told:
        if not issubclass(w.category, ImageWarning):
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
    shown = [next((p for p in paths if text.startswith(f"{p}: ")), None) for text in texts[:SPOTS]]
    spots = tuple(Spot(Path(p), (), Path(p).name) for p in shown if p is not None)
    return Finding("warning", kinds.DAMAGED, len(texts), tuple(texts[:EXAMPLES]), spots)


def _dark(told: Sequence[warnings.WarningMessage]) -> Finding:
    """Images of 16 bits that use fewer."""
    names = sorted({w.message.name for w in told if isinstance(w.message, DarkImage)})
    spots = tuple(Spot(Path(name), (), Path(name).name) for name in names[:SPOTS])
    return Finding("warning", kinds.DARK, len(names), tuple(names[:EXAMPLES]), spots)


class _Pair(NamedTuple):
    """Two images that are one, by number, and the numbers of their splits; the nearest pair comes first."""

    other_file: bool
    bits: int
    first: int
    second: int
    splits: tuple[int, int]


@dataclass
class _Nearest:
    """How many pairs there are, and the nearest of them."""

    count: int = 0
    pairs: list[_Pair] = field(default_factory=list)

    def add(self, twins: Twins, first: np.ndarray, second: np.ndarray) -> None:
        """The pairs whose first is in one of the splits `first` [S,Q], and the second in one of `second` [S,Q]; of
        several it is the first that is told."""
        rows = np.flatnonzero(first.any(axis=0) & second.any(axis=0))
        self.count += len(rows)
        nearest = np.argsort((~twins.same_file[rows] * 64 + twins.bits[rows]).astype(np.uint8), kind="stable")
        for k in rows[nearest[:EXAMPLES]].tolist():
            same, bits = bool(twins.same_file[k]), int(twins.bits[k])
            splits = int(first[:, k].argmax()), int(second[:, k].argmax())
            self.pairs.append(_Pair(not same, bits, int(twins.first[k]), int(twins.second[k]), splits))
        self.pairs = sorted(self.pairs)[:EXAMPLES]


def _twins(prints: Fingerprints, there: np.ndarray, nested: np.ndarray) -> tuple[_Nearest, _Nearest, _Nearest]:
    """Files that are in two splits, for each two; pairs of files that show the same, each in a split that lacks the
    other; pairs in one split. Each pair counts once, however many splits share the two. `there` [S,F]: which split has
    which file; `nested` [S,S]: whether one split is a part of the other, so that files of both are no fault."""
    shared, across, within = _Nearest(), _Nearest(), _Nearest()
    readable = np.flatnonzero([not error for error in prints.error])
    for a, b in np.argwhere(np.triu(~nested, 1)):
        both = readable[there[a, readable] & there[b, readable]]
        twins = Twins(both, both, np.ones(len(both), bool), np.zeros(len(both), np.uint8))
        split = np.arange(len(there))[:, None]
        shared.add(twins, np.tile(split == a, len(both)), np.tile(split == b, len(both)))
    for twins in find_twins(prints):
        first, second = there[:, twins.first], there[:, twins.second]
        across.add(twins, first & ~second, second & ~first)
        within.add(twins, first & second, first & second)
    return shared, across, within
