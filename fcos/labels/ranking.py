"""The order of the suspects, learned on the user's own set: which of them look like the known errors in its copies.

A product of two scores (`suspicion`) does not know that this model never finds small bottles here, or takes cows for
horses. A small forest learns it from the facts of each suspect: known errors against the annotations as they are. Each
half of the images is ranked by the forest of the other half.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .boost import Forest, grow
from .inject import CLASS, DUPLICATE, MISSING
from .suspicion import Pile, Suspect

_FEW = 30  # known errors below which nothing is learned


def rank(given: Pile, injected: Pile, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(scores of `given`, scores of `injected`), 0..1, of the suspects of one kind: the higher, the more suspicious.

    Where there are too few to learn from, their own scores.
    """
    groups = right, wrong = _Group(given, seed), _Group(injected, seed)
    if min(len(given), len(injected)) < _FEW or given.kind == DUPLICATE:
        return right.own, wrong.own
    if not all(_both(group.half) for group in groups):
        return right.own, wrong.own
    # what is usual comes from the other half too: a suspect must not tell of itself
    tables = [
        _Table(given.kind, (s for (_, s), half in zip(given, right.half, strict=True) if half != side))
        for side in (0, 1)
    ]
    # what looks less suspicious than almost all known errors stays behind
    least = float(np.quantile(wrong.own, 0.02))
    for group in groups:
        group.choose(least, tables)
    if not all(_both(group.side) for group in groups):
        return right.own, wrong.own
    for side in (0, 1):
        facts = [group.rows[group.side != side] for group in groups]
        y = np.repeat([0.0, 1.0], [len(rows) for rows in facts])
        # as many of the one as of the other, or the trees see only what is frequent
        weight = np.where(y == 1, np.sqrt((y == 0).sum() / (y == 1).sum()), 1.0)
        forest = grow(np.concatenate(facts), y, weight)
        for group in groups:
            group.judge(forest, side)
    return right.scores, wrong.scores


class _Group:
    """N suspects of one kind: the annotations as they are, or the known errors. own [N]: their own scores; half [N]: 0
    or 1, by their image; scores [N]: what they are ranked by. Of them M are worth learning from: chosen [M] their
    numbers, side [M] their halves, rows [M,F] their facts."""

    def __init__(self, items: Pile, seed: int) -> None:
        self.items = items
        self.own = np.array([s.score for _, s in items], float)
        self.half = np.array([_coin(i, seed) for i, _ in items])
        self.scores = 0.01 * self.own

    def choose(self, least: float, tables: list[_Table]) -> None:
        """Choose those whose own score is `least` or more; the table of its half adds to the facts of each."""
        self.chosen = np.flatnonzero(self.own >= least)
        self.side = self.half[self.chosen]
        pairs = zip(self.chosen.tolist(), self.side.tolist(), strict=True)
        self.rows = np.array([tables[side].row(self.items[k][1]) for k, side in pairs])

    def judge(self, forest: Forest, side: int) -> None:
        """Score the chosen ones of one half by the forest of the other."""
        mine = self.chosen[self.side == side]
        own = np.clip(self.own[mine], 1e-3, 1 - 1e-3)
        # together with their own scores, which grow where the leaves of a tree stay level
        self.scores[mine] = 1 / (1 + np.exp(-forest.log_odds(self.rows[self.side == side])) * (1 - own) / own)


def _both(half: np.ndarray) -> bool:
    """Whether both halves, 0 and 1, occur."""
    return bool(0 < half.sum() < len(half))


class _Table:
    """What is usual in this set: how far each class is believed, and how often one class is taken for another."""

    def __init__(self, kind: str, given: Iterable[Suspect]) -> None:
        self.kind = kind
        self.number: dict[int, int] = {}
        self.sums: dict[int, float] = {}
        self.pairs: dict[tuple[int, int], float] = {}
        for s in given:
            label, value = self._usual(s)
            self.number[label] = self.number.get(label, 0) + 1
            self.sums[label] = self.sums.get(label, 0.0) + value
            pair = (s.given, s.label)
            self.pairs[pair] = self.pairs.get(pair, 0.0) + s.seen
        self.whole = sum(self.sums.values()) / max(sum(self.number.values()), 1)

    def _usual(self, s: Suspect) -> tuple[int, float]:
        """(class, how far an annotation bears out what the model says, or the model an annotation)."""
        if self.kind == MISSING:
            return s.label, s.seen * (s.score < 0.2 * s.seen)
        return s.given, s.own

    def row(self, s: Suspect) -> list[float]:
        """The facts of a suspect, and what is usual for its class."""
        label, _ = self._usual(s)
        number = self.number.get(label, 0) + 5
        usual = (self.sums.get(label, 0.0) + 5 * self.whole) / number
        row = [s.score, s.seen, s.own, s.overlap, usual, *s.facts]
        return [*row, self.pairs.get((s.given, s.label), 0.0) / number] if self.kind == CLASS else row


def _coin(number: int, seed: int) -> int:
    """0 or 1 for an image, the same each time."""
    return int(np.random.default_rng((seed, number)).integers(2))
