"""What more time or more images would bring: a learning curve of AP over either, with its uncertainty.

With t = (x / largest x measured)^-c, AP is a (1 - m t), a power law of what is missing from the ceiling a, the usual
shape of learning curves (Hestness et al., 1712.00409); or a / (1 + t m / (1 - m)), the same near the ceiling, where far
from it AP itself grows by a power law: a run that has hardly begun may gain more from the next minutes than from the
last ones. A handful of points does not fix three numbers and a shape, so all that fit are kept, each by how well it
fits, and an interval is read off what they say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import ConfigError

FEWEST = 3  # points that a curve is drawn through
NOISE = 0.01  # AP: what two runs of the same settings differ by, from other seeds alone (docs/measurements/bccd.md)
SHARED = 0.75  # of the error that few images bring, what differs between two runs judged on the same ones (likewise)
_LEVEL = 0.9  # of the intervals
_DRAWS = 20_000
_CEILINGS = 12  # values of a, for each m, c and shape
_MISSING = (np.arange(200) + 0.5) / 200  # of m
_RATES = np.linspace(0.1, 3.0, 59)  # of c


class Between(NamedTuple):
    """A value and the ends of its 90 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """Learning curves drawn by how well they fit: ceilings `a`, shares `m` of them that are missing at x = `last`,
    rates `c`, and which begin at nothing, `late` [N] each; AP and x as given to `fit`."""

    a: np.ndarray
    m: np.ndarray
    c: np.ndarray
    late: np.ndarray
    last: float

    def at(self, x: float) -> Between:
        """AP at `x`, by all curves together."""
        return _between(self.all_at(x))

    def gain(self, x: float, more: float, noise: float = 0.0) -> Between:
        """What going from `x` to `x + more` adds to AP. With `noise`, the scatter of a run, the interval holds what a
        comparison of two runs would show."""
        added = self.all_at(x + more) - self.all_at(x)
        value, low, high = _between(added)
        if noise > 0:
            seen = _between(added + np.random.default_rng(1).normal(0.0, noise * 2**0.5, len(added)))
            low, high = min(low, seen.low), max(high, seen.high)
        return Between(value, low, high)

    def all_at(self, x: float) -> np.ndarray:
        """AP at `x` by each curve, [N]."""
        t = (x / self.last) ** -self.c
        values: np.ndarray = self.a * np.where(self.late, 1 / (1 + t * self.m / (1 - self.m)), 1 - self.m * t)
        return values


def _between(values: np.ndarray) -> Between:
    low, middle, high = np.quantile(values, [(1 - _LEVEL) / 2, 0.5, (1 + _LEVEL) / 2]).tolist()
    return Between(middle, low, high)


def scatter(error: float) -> float:
    """The standard deviation of AP from run to run, where the choice of validation images alone gives `error` (that of
    the interval of `fcos eval --ci`): what training brings, and a part of what few images bring, since two runs are
    judged on the same ones."""
    return float(np.hypot(NOISE, SHARED * error)) if np.isfinite(error) else NOISE


def fit(x: Sequence[float], ap: Sequence[float], noise: float | Sequence[float] = NOISE) -> Curve:
    """Fit curves through AP (0..1) at the values x > 0 of time or number of images.

    `noise`: standard deviation of each AP from run to run. All ceilings from two of these below the best AP seen to 1,
    all shares that may be missing, all rates of 0.1 to 3 and both shapes count alike before the points are seen.
    ConfigError for fewer than three different x.
    """
    at, seen = np.asarray(x, np.float64), np.asarray(ap, np.float64)
    if len(np.unique(at)) < FEWEST or not (np.isfinite(seen).all() and (at > 0).all()):
        raise ConfigError(f"a curve needs {FEWEST} different amounts with their AP, not {len(np.unique(at))}")
    deviation = np.broadcast_to(np.asarray(noise, np.float64), seen.shape)
    lowest = max(0.01, float((seen - 2 * deviation).max()))
    m, c, late = np.meshgrid(_MISSING, _RATES, [False, True], indexing="ij", sparse=True)
    shapes = Curve(np.ones(1), m, c, late, float(at.max()))
    # AP is a product with the ceiling: the best one has a formula, and the others fall off around it as a normal curve
    square, product = np.full(1, 1e-12), np.zeros(1)
    for amount, found, error in zip(at, seen, deviation, strict=True):
        shape = shapes.all_at(amount) / error
        square, product = square + shape**2, product + shape * (found / error)
    best, spread = product / square, square**-0.5
    low, high = np.clip(best - 4 * spread, lowest, 1.0), np.clip(best + 4 * spread, lowest, 1.0)
    wide = high - low + 1e-9  # where none is likely, the nearest that can be
    a = low[..., None] + wide[..., None] * (np.arange(_CEILINGS) + 0.5) / _CEILINGS
    likely = (product**2 / square)[..., None] / 2 - ((a - best[..., None]) / spread[..., None]) ** 2 / 2
    chance = np.exp(likely - likely.max()) * wide[..., None]
    rng = np.random.default_rng(0)
    which = np.unravel_index(rng.choice(chance.size, size=_DRAWS, p=chance.ravel() / chance.sum()), chance.shape)
    between = (rng.random(_DRAWS) - 0.5) / _CEILINGS * wide[which[:3]]
    return Curve(a[which] + between, _MISSING[which[0]], _RATES[which[1]], which[2] == 1, shapes.last)
