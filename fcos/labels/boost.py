"""A small boosted forest: which of two kinds a row of numbers is, by many shallow trees (Friedman 2001).

The rankings have a handful of facts for each suspect and some thousand examples, so that the whole of it is a few
histograms in NumPy, and the package needs no other library for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

_BINS = 24
_TREES = 80
_RATE = 0.12
_SHRINK = 4.0  # weight of the pull of each leaf towards 0
_LEAST = 8.0  # weight of examples in a leaf


class _Tree(NamedTuple):
    """Two levels: where the first question sends a row, and the two behind it. feature [3], cut [3], leaf [4]."""

    feature: np.ndarray
    cut: np.ndarray
    leaf: np.ndarray


@dataclass(frozen=True)
class Forest:
    """edges [F,B]: where each feature is cut into bins; start: the log odds without any tree."""

    edges: np.ndarray
    start: float
    trees: tuple[_Tree, ...]

    def log_odds(self, rows: np.ndarray) -> np.ndarray:
        """Log odds [N] that rows [N,F] are of kind 1."""
        bins = _binned(rows, self.edges)
        total = np.full(len(rows), self.start)
        for tree in self.trees:
            total += tree.leaf[_place(bins, tree)]
        return total


def grow(rows: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> Forest:
    """Learn a forest from rows [N,F], labels [N] of 0 and 1, and weights [N]."""
    # bins as fine where the few are as where the many are
    parts = [np.linspace(0, 1, n + 1)[1:-1] for n in (_BINS // 2 + 1, _BINS // 2)]
    edges = np.stack(
        [np.sort(np.concatenate([np.quantile(c, parts[0]), np.quantile(c[labels == 1], parts[1])])) for c in rows.T]
    )
    bins = _binned(rows, edges)
    share = float(np.clip((weight * labels).sum() / weight.sum(), 1e-4, 1 - 1e-4))
    start = float(np.log(share / (1 - share)))
    total = np.full(len(rows), start)
    grown = []
    for _ in range(_TREES):
        chance = 1 / (1 + np.exp(-total))
        gradient, curvature = weight * (labels - chance), weight * chance * (1 - chance)
        tree = _grow(bins, gradient, curvature, weight)
        total += tree.leaf[_place(bins, tree)]
        grown.append(tree)
    return Forest(edges, start, tuple(grown))


def _grow(bins: np.ndarray, gradient: np.ndarray, curvature: np.ndarray, weight: np.ndarray) -> _Tree:
    feature, cut, leaf = np.zeros(3, int), np.full(3, _BINS), np.zeros(4)
    feature[0], cut[0] = _best(bins, gradient, curvature, weight)
    right = bins[:, feature[0]] > cut[0]
    for side, rows in enumerate((~right, right)):
        if rows.any():
            feature[1 + side], cut[1 + side] = _best(bins[rows], gradient[rows], curvature[rows], weight[rows])
            further = bins[rows][:, feature[1 + side]] > cut[1 + side]
            for end, part in enumerate((~further, further)):
                slope, bend = gradient[rows][part].sum(), curvature[rows][part].sum()
                leaf[2 * side + end] = _RATE * slope / (bend + _SHRINK)
    return _Tree(feature, cut, leaf)


def _best(bins: np.ndarray, gradient: np.ndarray, curvature: np.ndarray, weight: np.ndarray) -> tuple[int, int]:
    """(feature, bin) behind which to cut; the last bin, so that nothing is cut off, where no cut gains."""
    best, choice = 1e-9, (0, _BINS)
    whole = gradient.sum() ** 2 / (curvature.sum() + _SHRINK)
    for feature in range(bins.shape[1]):
        column = bins[:, feature]
        slope, bend, heavy = (
            np.cumsum(np.bincount(column, value, _BINS))[:-1] for value in (gradient, curvature, weight)
        )
        gain = slope**2 / (bend + _SHRINK) - whole
        gain += (gradient.sum() - slope) ** 2 / (curvature.sum() - bend + _SHRINK)
        gain[(heavy < _LEAST) | (weight.sum() - heavy < _LEAST)] = 0
        at = int(gain.argmax())
        if gain[at] > best:
            best, choice = float(gain[at]), (feature, at)
    return choice


def _binned(rows: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return np.stack([np.searchsorted(edge, column, side="left") for edge, column in zip(edges, rows.T, strict=True)], 1)


def _place(bins: np.ndarray, tree: _Tree) -> np.ndarray:
    right = (bins[:, tree.feature[0]] > tree.cut[0]).astype(int)
    numbers = np.arange(len(bins))
    further = bins[numbers, tree.feature[1 + right]] > tree.cut[1 + right]
    place: np.ndarray = 2 * right + further
    return place
