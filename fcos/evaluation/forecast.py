"""What more time or more images would bring: AP as a power law of either, with its uncertainty.

AP(x) = a - b x^-c, the usual shape of learning curves (Hestness et al., 1712.00409). A handful of points does not fix
three numbers, so all that fit are kept, each by how well it fits, and an interval is read off what they say.
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
_CEILINGS = 60  # values of a
_RATES = np.linspace(0.1, 2.0, 39)  # of c


class Between(NamedTuple):
    """A value and the ends of its 90 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """Power laws drawn by how well they fit: `a`, `b`, `c` [N] each, AP and x as given to `fit`."""

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray

    def at(self, x: float) -> Between:
        """AP there."""
        return _between(self.a - self.b * x**-self.c)

    def gain(self, x: float, more: float, noise: float = 0.0) -> Between:
        """What going from `x` to `x + more` adds to AP; with `noise`, the scatter of a run, what is seen of it when two
        runs are compared."""
        added = self.b * (x**-self.c - (x + more) ** -self.c)
        value, low, high = _between(added)
        if noise > 0:
            seen = _between(added + np.random.default_rng(1).normal(0.0, noise * 2**0.5, len(added)))
            low, high = min(low, seen.low), max(high, seen.high)
        return Between(value, low, high)


def _between(values: np.ndarray) -> Between:
    low, middle, high = np.quantile(values, [(1 - _LEVEL) / 2, 0.5, (1 + _LEVEL) / 2]).tolist()
    return Between(middle, low, high)


def scatter(error: float) -> float:
    """The standard deviation of AP from run to run, where the choice of validation images alone gives `error` (that of
    the interval of `fcos eval --ci`): what training brings, and a part of what few images bring, since two runs are
    judged on the same ones."""
    return float(np.hypot(NOISE, SHARED * error)) if np.isfinite(error) else NOISE


def fit(x: Sequence[float], ap: Sequence[float], noise: float | Sequence[float] = NOISE) -> Curve:
    """The power laws through AP (0..1) at the values x > 0 of time or number of images.

    `noise`: standard deviation of each AP from run to run. All ceilings from the best AP seen to 1, all rates of 0.1 to
    2 and all rising curves count alike before the points are seen. ConfigError for fewer than three different x.
    """
    at, seen = np.asarray(x, np.float64), np.asarray(ap, np.float64)
    if len(np.unique(at)) < FEWEST or not (np.isfinite(seen).all() and (at > 0).all()):
        raise ConfigError(f"a curve needs {FEWEST} different amounts with their AP, not {len(np.unique(at))}")
    rng = np.random.default_rng(0)
    sure = 1 / np.broadcast_to(np.asarray(noise, np.float64), seen.shape) ** 2
    ceilings = np.linspace(max(0.0, float((seen - 2 / np.sqrt(sure)).max())), 1.0, _CEILINGS)
    a, c = (v.ravel() for v in np.meshgrid(ceilings, _RATES, indexing="ij"))
    scale = float(np.exp(np.log(at).mean()))  # b is then of the size of AP at every rate
    shape = (at / scale)[None] ** -c[:, None]  # [curves, points]
    short = a[:, None] - seen[None]
    weight = (sure * shape**2).sum(axis=1)
    b = (sure * shape * short).sum(axis=1) / weight  # least squares, at each a and c
    misfit = (sure * (short - b[:, None] * shape) ** 2).sum(axis=1)
    likely = -0.5 * misfit - 0.5 * np.log(weight)
    chance = np.exp(likely - likely.max())
    chosen = rng.choice(len(a), size=_DRAWS, p=chance / chance.sum())
    height = b[chosen] + rng.standard_normal(_DRAWS) / np.sqrt(weight[chosen])
    rising = np.maximum(height, 0.0)  # more never makes it worse, on average
    return Curve(a[chosen], rising * scale ** c[chosen], c[chosen])
