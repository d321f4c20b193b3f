"""What a check comes to: findings in words, the promise, and what it assumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.tree import DataSource
from ..system.terminal import data_name, json_ready, percent, plural, table
from .calibrate import Curve, expected
from .inject import CLASS, DUPLICATE, MISSING, ROUNDS, SHIFTED, SPURIOUS
from .suspicion import Suspect

_BLIND = 0.5  # share of the annotated boxes that a judge has to see
TITLES = {
    MISSING: "missing box",
    CLASS: "wrong class",
    SHIFTED: "shifted or loose box",
    SPURIOUS: "box too many",
    DUPLICATE: "two boxes for one object",
}


@dataclass(frozen=True)
class Finding:
    """A suspect of a data set. image: number of the record; split and file: where it is; chance 0..1 of being wrong;
    words: the reason for a person; fix: what the prediction would make of it."""

    image: int
    split: str
    file: str
    suspect: Suspect
    chance: float
    words: str
    fix: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        s = self.suspect
        told = {"kind": s.kind, "chance": self.chance, "split": self.split, "file": self.file, "row": s.row}
        told |= {"box": s.box, "label": s.label, "words": self.words, "fix": self.fix}
        result: dict[str, Any] = json_ready(told)
        return result


@dataclass(frozen=True)
class Check:
    """What was found, most likely wrong first; no annotation stands there twice.

    data: the images that were judged, all splits together; source: where they are; judge: by whom. rates: for each kind
    the share of boxes that are wrong so: mean, and the 90 % interval; none where the data are too few to tell. curves:
    of each kind that was planted, see `calibrate`. unread: images that could not be read. seen: the share of the
    annotated boxes at which the judge sees their class; one that sees few accuses what it cannot see. planted: known
    errors of each kind, in all copies; unknown: boxes of each class that the judge does not know, so that nobody judged
    them.
    """

    data: Dataset = field(repr=False)
    source: DataSource
    judge: str
    findings: tuple[Finding, ...] = field(repr=False)
    rates: Mapping[str, tuple[float, float, float]]
    curves: Mapping[str, Curve] = field(repr=False)
    unread: tuple[str, ...] = ()
    seen: float = 1.0
    planted: Mapping[str, int] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)

    def promise(self, first: int = 50) -> tuple[int, float, int, int]:
        """(n, about, low, high): of the first n findings, about so many are wrong, with the 90 % interval."""
        top = self.findings[:first]
        kinds = [[f.suspect.score for f in top if f.suspect.kind == kind] for kind in self.curves]
        curves = list(self.curves.values())
        chances = [c.chance(np.array(scores)) for c, scores in zip(curves, kinds, strict=True)]
        return len(top), *expected(chances, [c.weight for c in curves])

    def sentence(self, first: int = 50) -> str:
        """The promise in words."""
        n, about, low, high = self.promise(first)
        if not n:
            return "Nothing is suspicious enough to be listed."
        told = f"Of the first {n} suspects about {about:.0f} are wrong ({low} to {high})."
        guessed = [f for f in self.findings[:n] if not self.curves[f.suspect.kind].measured]
        if not guessed:
            return told
        of = "all" if len(guessed) == n else f"{len(guessed)} of them"
        return f"{told} For {of} that is a guess: the data are too few to tell."

    def assumes(self) -> list[str]:
        """What the promise stands on, line by line."""
        blind = f"The model sees {percent(self.seen, 0)} % of the annotated boxes."
        return [
            blind,
            self._planted(),
            "Assumed: real errors get the scores of these planted ones. Real errors are often milder; then the "
            "estimate is too low.",
            "Assumed: the higher the score, the faster right annotations get rare. If the model has a weakness of its "
            "own (a kind of object that it never finds), this is not so, and the estimate is too high.",
            "Your decisions correct the estimate: after each, the chances of the others of its kind are scaled by what "
            "you found.",
        ]

    def _planted(self) -> str:
        """What the chances come from."""
        if not self.planted:
            return "No known errors could be planted in this data set, so all chances are guesses."
        counts = ", ".join(f"{TITLES[kind]} {count:,}" for kind, count in self.planted.items())
        told = (
            f"The chances come from this data set: known errors were planted in {ROUNDS} copies of its annotations "
            f"({counts}), and scored by the same model."
        )
        guessed = [TITLES[kind] for kind, curve in self.curves.items() if not curve.measured]
        return f"{told} The data are too few for {', '.join(guessed)}: these chances are guesses." if guessed else told

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the promise, the rates and the findings."""
        n, about, low, high = self.promise()
        boxes = sum(int((~r.ignore).sum()) for r in self.data.records)
        result: dict[str, Any] = json_ready(
            {
                "data": str(self.source),
                "judge": self.judge,
                "images": len(self.data),
                "boxes": boxes,
                "promise": {"first": n, "wrong": about, "low": low, "high": high},
                "rates": {k: _rate(self.rates.get(k)) for k in self.curves},
                "found": {k: c.found for k, c in self.curves.items()},
                "assumes": self.assumes(),
                "planted": self.planted,
                "unknown": self.unknown,
                "unread": list(self.unread),
                "seen": self.seen,
                "findings": [f.to_dict() for f in self.findings],
            }
        )
        return result

    def text(self, first: int = 20, page: str = "", limit: int = 0) -> str:
        """For a terminal, with the `first` findings; `page`: the review page that shows the first `limit` of them."""
        boxes = sum(int((~r.ignore).sum()) for r in self.data.records)
        head = f"{data_name(str(self.source))}: {plural(len(self.data), 'image')}, {plural(boxes, 'box')}"
        lines = [f"{head}; compared with {self.judge}"]
        if self.seen < _BLIND:
            lines.append(
                f"The model sees only {percent(self.seen, 0)} % of the annotated boxes, so do not trust this list: "
                "give a better --model, or more --minutes."
            )
        lines += [self.sentence(), "", self._kinds()]
        if self.findings:
            lines += ["", self._listed(self.findings[:first])]
        if (rest := len(self.findings) - first) > 0:
            there = f"{rest:,} more {'is' if rest == 1 else 'are'} not shown here"
            lines += ["", f"{there}: {self._where(page, limit)}"]
        lines += [self._unchecked()] if self.unknown else []
        lines += [f"not read: {line}" for line in self.unread[:5]]
        return "\n".join(lines)

    def _kinds(self) -> str:
        """A table with a row for each kind of error."""
        rows = []
        for kind, curve in self.curves.items():
            listed = [f for f in self.findings if f.suspect.kind == kind]
            rate = self.rates.get(kind)
            share = "-" if rate is None else "{} ({} to {})".format(*(percent(v, 1) for v in rate))
            rows.append((TITLES[kind], len(listed), share, percent(curve.found, 0)))
        return table(("kind", "listed", "estimated errors, % of boxes", "planted errors seen, %"), rows)

    def _listed(self, findings: Sequence[Finding]) -> str:
        """A table with a row for each finding."""
        rows = [
            (self._percent(f), TITLES[f.suspect.kind], f.file, " ".join(f"{v:.0f}" for v in f.suspect.box), f.words)
            for f in findings
        ]
        return table(("wrong, %", "kind", "image", "box", "why"), rows, left=5)

    def _where(self, page: str, limit: int) -> str:
        """Where to see all findings; see `text`."""
        every = f"with --out {page or 'review.html'} --limit {len(self.findings)} or --json"
        if not page:
            return f"see them {every}"
        some = f"the first {limit:,} of all are in {page}, all {every}"
        return f"see them in {page}" if limit >= len(self.findings) else some

    def _unchecked(self) -> str:
        """The classes that nobody judged."""
        classes = ", ".join(f"{name} ({plural(count, 'box')})" for name, count in list(self.unknown.items())[:20])
        more = f" and {plural(len(self.unknown) - 20, 'class')} more" if len(self.unknown) > 20 else ""
        those = "it" if len(self.unknown) == 1 else "them"
        return f"not checked: {classes}{more}: the model does not know {those}"

    def _percent(self, finding: Finding) -> str:
        """The chance of being wrong, - where it is a guess."""
        return f"{100 * finding.chance:.0f}" if self.curves[finding.suspect.kind].measured else "-"


def _rate(rate: tuple[float, float, float] | None) -> dict[str, float] | None:
    return None if rate is None else dict(zip(("mean", "low", "high"), rate, strict=True))


def in_words(suspect: Suspect, dataset: Dataset, labels: np.ndarray, boxes: np.ndarray) -> tuple[str, str]:
    """(the reason, what the fix does) for a person."""
    names, s = dataset.classes.names, suspect
    seen = names[s.label]
    if s.kind == MISSING:
        return f"The model sees {seen} here (score {s.seen:.2f}), and no annotation explains it.", f"Add a box: {seen}"
    mine = names[int(labels[s.row])]
    if s.kind == CLASS:
        weak = "nothing of" if s.own < 0.05 else "less of" if round(s.own, 2) < round(s.seen, 2) else "also"
        return (
            f"Annotated as {mine}. The model sees {seen} in this place ({s.seen:.2f}) and {weak} {mine} ({s.own:.2f}).",
            f"Call it {seen}",
        )
    if s.kind == SHIFTED:
        how = _how(boxes[s.row], np.array(s.box))
        return (
            f"The model's box of this {mine} (score {s.seen:.2f}) overlaps the annotated one by an IoU of "
            f"{s.overlap:.2f} only: the annotated box {how}.",
            "Use the predicted box",
        )
    if s.kind == SPURIOUS:
        return (
            f"The model sees no {mine} at this box: the best score is {s.own:.2f}, that of any class {s.seen:.2f}.",
            "Remove the box",
        )
    other = names[int(labels[s.other])]
    pair = f"Two {mine} boxes" if other == mine else f"Boxes of {mine} and {other}"
    return f"{pair} overlap by an IoU of {s.overlap:.2f}, and the model sees one object there.", "Remove this box"


def _how(given: np.ndarray, seen: np.ndarray) -> str:
    """How an annotated box differs from the predicted one."""
    areas = [float(np.prod(np.maximum(b[2:] - b[:2], 1e-6))) for b in (given, seen)]
    if areas[0] > 1.35 * areas[1]:
        return f"is too large ({areas[0] / areas[1]:.1f} times the area)"
    if areas[1] > 1.35 * areas[0]:
        return f"is too small ({areas[0] / areas[1]:.1f} times the area)"
    return "lies beside it"
