"""From suspicion to the chance of being wrong, by known errors put into a copy of the user's own set.

For each kind there are scores of injected errors, whose density f1 is thereby known, and scores of the annotations as
they are, whose density g = e f1 + (1 - e) f0 mixes the real errors, a share e that nobody knows, with what is right.
The chance that something of score s is wrong is e f1(s) / g(s): the share of injected errors is not the share of real
ones, and only the ratio f1/g carries over.

Two assumptions, which the page repeats: real errors score as the injected ones do; and what is right gets rarer with
the score at least as fast at the end as before, log f0/f1 = a - b h, in h = log(s / (1 - s)), with a slope that may be
two or four times as steep among the last. Then g/f1 has a floor where real errors are all that is left, and e is the
height of that floor. (Efron's empirical null has the same thought.) Without the second assumption e could be anything
from 0 to the lowest value of g/f1, the estimate of PU learning, which is kept as `most`. (That the slope stays the same
promised 35 of the first 50 of VOC2007 with 5 % of known errors, where 49 were wrong.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

_EDGE = 1e-3
_SHARES = 25
_DRAWS = 1000
_BLOCK = 10_000  # scores that are looked up together: there is a number for each at every share
_RIGHT = 0.8  # and of the annotations as they are, at most
_END = 0.2  # of the injected errors lie below what is fitted
_KNEE = 0.2  # of the injected errors, beyond which the right ones may fall faster
_BENDS = (0.0, 1.0, 3.0)  # each as likely beforehand: by how much faster
_TEMPER = 0.8  # of the likelihood: it knows nothing of the noise in the shapes; by simulation 90 % then hold 90 %


@dataclass(frozen=True)
class Curve:
    """The chance of being wrong by score, for one kind.

    share [E] and weight [E]: shares of real errors among the things of this kind, and how much the data speak for
    each, summing to 1; a [E] and b [E] of the right ones at each share, which fall 1 + bend [E] times as fast beyond
    `knee`. found: the part of injected errors that gets a score at all. most: the highest share that the scores allow,
    whatever the right ones do. measured: False where there was too little to learn from, so that all this is a guess.
    """

    share: np.ndarray
    weight: np.ndarray
    a: np.ndarray
    b: np.ndarray
    found: float
    most: float
    bend: np.ndarray
    knee: float
    measured: bool = True

    def chance(self, score: np.ndarray) -> np.ndarray:
        """The chance of being wrong [E,S], at each share, of things with scores [S]."""
        h = _logit(score)
        h = h + self.bend[:, None] * np.maximum(h - self.knee, 0)
        clean = (1 - self.share)[:, None] * np.exp(np.clip(self.a[:, None] - self.b[:, None] * h, -50, 50))
        wrong = np.broadcast_to(self.share[:, None], clean.shape)
        chance: np.ndarray = wrong / np.maximum(wrong + clean, 1e-12)
        return chance

    def mean(self, score: np.ndarray) -> np.ndarray:
        """The chance of being wrong [S] of things with scores [S], the mean over the shares."""
        blocks = np.split(score, range(_BLOCK, len(score), _BLOCK))
        return np.concatenate([self.weight @ self.chance(block) for block in blocks])

    def rate(self) -> tuple[float, float, float]:
        """The share of real errors among things of this kind that get a score: mean, and the 90 % interval."""
        order = np.argsort(self.share, kind="stable")
        total = np.cumsum(self.weight[order])
        low, high = (float(self.share[order[np.searchsorted(total, q).clip(0, len(total) - 1)]]) for q in (0.05, 0.95))
        return float(self.share @ self.weight), low, high


def fit(injected: np.ndarray, given: np.ndarray, tried: int) -> Curve:
    """The curve of a kind. injected: scores of injected errors of `tried` that were put in; given: scores of the
    annotations as they are."""
    injected, given = np.asarray(injected, float), np.asarray(given, float)
    found = len(injected) / max(tried, 1)
    if len(injected) < 5 or len(given) < 5:  # too little to learn from: a guess
        shares, nothing = np.linspace(0, 0.1, _SHARES), np.zeros(_SHARES)
        return Curve(
            shares, np.full(_SHARES, 1 / _SHARES), nothing, nothing + 1, found, 0.1, nothing, 0.0, measured=False
        )
    x = _logit(np.concatenate([injected, given]))
    y = np.concatenate([np.ones(len(injected)), np.zeros(len(given))])
    # each injected copy is one more look at the same errors: they weigh as the given ones do, no more
    weight = np.where(y == 1, min(1.0, len(given) / len(injected)), 1.0)
    offset = np.log((weight * y).sum() / (weight * (1 - y)).sum())
    # only the end of the list is fitted, far from it what is right may behave as it will; but with enough of that
    end = x >= min(np.quantile(x[: len(injected)], _END), np.quantile(x[len(injected) :], _RIGHT))
    x, y, weight = x[end], y[end], weight[end]
    knee = float(np.quantile(x[y == 1], _KNEE))
    most = _floor(injected, given)
    shares = np.tile(np.linspace(0, most, _SHARES), len(_BENDS))
    bends = np.repeat(_BENDS, _SHARES)
    rows = np.zeros((len(shares), 3))  # log likelihood, a, b
    for row, (share, bend) in enumerate(zip(shares.tolist(), bends.tolist(), strict=True)):
        bent = x + bend * np.maximum(x - knee, 0)
        start = rows[row - 1, 1:] if row else np.zeros(2)
        found_at, value = _maximise(_Items(bent, y, weight, offset), share, start)
        rows[row] = value, *found_at
    likelihood = np.exp(_TEMPER * (rows[:, 0] - rows[:, 0].max()))
    return Curve(shares, likelihood / likelihood.sum(), rows[:, 1], rows[:, 2], found, most, bends, knee)


class _Items(NamedTuple):
    """x [I]: h of the score; y [I]: 1 for injected ones; weight [I]; offset: log odds of being injected."""

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray
    offset: float


def _maximise(items: _Items, share: float, start: np.ndarray) -> tuple[np.ndarray, float]:
    """((a, b), log likelihood) at one share of real errors: that an item is injected has the odds
    exp(offset) / (share + (1 - share) exp(a - b x)). By Newton's steps with a curvature that is always positive."""
    x, y, weight, offset = items
    parameters = start.copy()

    def value(p: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        clean = (1 - share) * np.exp(np.clip(p[0] - p[1] * x, -40, 40))
        log_odds = offset - np.log(share + clean + 1e-12)
        chance = 1 / (1 + np.exp(-log_odds))
        likelihood = (weight * np.where(y == 1, np.log(chance + 1e-12), np.log(1 - chance + 1e-12))).sum()
        likelihood -= 0.5 * 1e-3 * (p @ p)
        slope = clean / (share + clean + 1e-12)
        d_log_odds = np.stack([-slope, slope * x])  # by a, by b
        gradient = d_log_odds @ (weight * (y - chance)) - 1e-3 * p
        curvature = (d_log_odds * (weight * chance * (1 - chance))) @ d_log_odds.T + 1e-3 * np.eye(2)
        return float(likelihood), gradient, curvature

    best, gradient, curvature = value(parameters)
    for _ in range(60):
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-4:
            trial = parameters + size * step
            trial[1] = max(trial[1], 0.0)  # a higher score is never less suspicious
            new, new_gradient, new_curvature = value(trial)
            if new >= best:
                break
            size /= 2
        else:
            break
        gain = new - best
        parameters, best, gradient, curvature = trial, new, new_gradient, new_curvature
        if gain < 1e-7:
            break
    return parameters, best


def _floor(injected: np.ndarray, given: np.ndarray) -> float:
    """The highest share of errors that leaves no score with fewer things than errors: the lowest ratio of the tails,
    with the upper end of what the counts allow."""
    cuts = np.quantile(injected, np.linspace(0, 0.9, 19))
    injected_tail = np.array([(injected >= c).mean() for c in cuts])
    counts = np.array([(given >= c).sum() for c in cuts], float)
    upper = (counts + 2.6 * np.sqrt(counts + 1)) / len(given)
    return float(np.clip((upper / injected_tail).min(), 0, 1))


def expected(chances: list[np.ndarray], weights: list[np.ndarray], seed: int = 0) -> tuple[float, int, int]:
    """(mean, low, high): how many of things are wrong, with the 90 % interval. For each of the kinds the chances [E,S]
    of its S things at each share, and the weights [E] of the shares. Where the second assumption fails, it fails for
    all kinds in the same direction, since one model judges them: so a draw takes the same quantile of each."""
    rng = np.random.default_rng(seed)
    counts = np.zeros(_DRAWS, int)
    luck = rng.random(_DRAWS)
    mean = 0.0
    for chance, weight in zip(chances, weights, strict=True):
        if not chance.shape[1]:
            continue
        order = np.argsort(chance.sum(axis=1), kind="stable")
        mean += float((weight @ chance).sum())
        which = order[np.searchsorted(np.cumsum(weight[order]), luck).clip(0, len(order) - 1)]
        counts += (rng.random((_DRAWS, chance.shape[1])) < chance[which]).sum(axis=1)
    return mean, int(np.quantile(counts, 0.05)), int(np.quantile(counts, 0.95))


def _logit(score: np.ndarray) -> np.ndarray:
    clipped = np.clip(np.asarray(score, float), _EDGE, 1 - _EDGE)
    odds: np.ndarray = np.log(clipped / (1 - clipped))
    return odds
