"""The order of the suspects, learned on the user's own set: which of them look like the known errors in its copies.

A product of two scores (`suspicion`) does not know that this model never finds small bottles here, or takes cows for
horses. A small forest learns it from the facts of each suspect: known errors against the annotations as they are. Each
half of the images is ranked by the forest of the other half.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .boost import grow
from .inject import CLASS, DUPLICATE, MISSING
from .suspicion import Suspect

Item = tuple[int, Suspect]  # number of the record, and the suspect
_FEW = 30  # known errors below which nothing is learned


def rank(given: Sequence[Item], injected: Sequence[Item], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(scores of `given`, scores of `injected`), 0..1, of the suspects of one kind: the higher, the more suspicious.

    Where there are too few to learn from, their own scores.
    """
    own = [np.array([s.score for _, s in items], float) for items in (given, injected)]
    if len(injected) < _FEW or len(given) < _FEW or given[0][1].kind == DUPLICATE:
        return own[0], own[1]
    least = float(np.quantile(own[1], 0.02))
    half = [np.array([_coin(i, seed) for i, _ in items]) for items in (given, injected)]
    if not all(0 < h.sum() < len(h) for h in half):
        return own[0], own[1]
    # what is usual comes from the other half too: a suspect must not tell of itself
    tables = [_Table([s for (_, s), h in zip(given, half[0], strict=True) if h != side]) for side in (0, 1)]
    # what looks less suspicious than almost all known errors stays behind
    result = [0.01 * o for o in own]
    worth = [np.flatnonzero(o >= least) for o in own]
    half = [h[keep] for h, keep in zip(half, worth, strict=True)]
    rows = [
        np.array([tables[h].row(items[k][1]) for k, h in zip(keep.tolist(), hs.tolist(), strict=True)])
        for items, keep, hs in zip((given, injected), worth, half, strict=True)
    ]
    if not all(0 < h.sum() < len(h) for h in half):
        return own[0], own[1]
    for side in (0, 1):
        learn = [h != side for h in half]
        x = np.concatenate([r[keep] for r, keep in zip(rows, learn, strict=True)])
        y = np.repeat([0.0, 1.0], [int(keep.sum()) for keep in learn])
        # as many of the one as of the other, or the trees see only what is frequent
        weight = np.where(y == 1, np.sqrt((y == 0).sum() / (y == 1).sum()), 1.0)
        forest = grow(x, y, weight)
        for values, r, h, keep, o in zip(result, rows, half, worth, own, strict=True):
            mine = keep[h == side]
            plain = np.clip(o[mine], 1e-3, 1 - 1e-3)
            # together with their own scores, which grow where the leaves of a tree stay level
            values[mine] = 1 / (1 + np.exp(-forest.log_odds(r[h == side])) * (1 - plain) / plain)
    return result[0], result[1]


class _Table:
    """What is usual in this set: how far each class is believed, and how often one class is taken for another."""

    def __init__(self, given: Sequence[Suspect]) -> None:
        self.kind = given[0].kind
        self.number: dict[int, int] = {}
        self.sums: dict[int, float] = {}
        self.pairs: dict[tuple[int, int], float] = {}
        for s in given:
            label, value = self._usual(s)
            self.number[label] = self.number.get(label, 0) + 1
            self.sums[label] = self.sums.get(label, 0.0) + value
            pair = (s.given, s.label)
            self.pairs[pair] = self.pairs.get(pair, 0.0) + s.seen
        self.whole = sum(self.sums.values()) / max(len(given), 1)

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
