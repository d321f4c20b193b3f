"""How often the 95 % intervals of `fcos eval --ci` and `--compare` hold the truth, on made-up data sets.

python benchmarks/intervals.py [--images 50 200 1000] [--sets 400] [--halves 200] [--classes 5]

A made-up image has some difficulty, objects of classes of unequal frequency, and false alarms; an object is found or
not, with an overlap and a score that go with its ease. Two detectors see the same images. The truth is AP on 60,000
images of the same kind and, apart from that, the mean AP over sets of the size at hand, which is higher: with few
objects, the highest precision from a recall on is flattered. The share of the sets whose interval holds it should be
95 %.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from common import print_heading

from fcos.evaluation.metrics import Floats, Ints
from fcos.evaluation.uncertainty import (
    IOUS,
    NAMES,
    Interval,
    Matches,
    average_precision,
    differences,
    draw,
    judge,
    share_intervals,
)

BETTER = 0.15  # the second detector's lead, in the units of an object's ease


def _chance(value: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-value)))


def data_set(rng: np.random.Generator, images: int, share: Floats) -> tuple[tuple[Matches, ...], tuple[Matches, ...]]:
    """What two detectors found in the same `images`; share [C]: of each class among the objects."""
    classes = len(share)
    hard = rng.normal(size=images)
    owner = np.repeat(np.arange(images), rng.poisson(3, images))
    label = rng.choice(classes, len(owner), p=share)
    own = rng.normal(size=len(owner)) - 0.7 * hard[owner] + np.linspace(-0.7, 0.7, classes)[label]
    sides = []
    for lead in (0.0, BETTER):
        ease = own + 0.4 * rng.normal(size=len(own)) + lead
        overlap = _chance(0.9 + 0.55 * ease + 0.6 * rng.normal(size=len(own)))
        score = _chance(ease + 0.6 * rng.normal(size=len(own)))
        false = np.repeat(np.arange(images), rng.poisson(2 * np.exp(0.4 * hard)))
        kind = rng.choice(classes, len(false))
        score = np.concatenate([score, _chance(-1.5 + 0.9 * rng.normal(size=len(false)))])
        image, kinds = np.concatenate([owner, false]), np.concatenate([label, kind])
        right = np.concatenate([overlap >= IOUS[:, None], np.zeros((len(IOUS), len(false)), bool)], axis=1)
        found = np.concatenate([ease > -0.6, np.ones(len(false), bool)])
        sides.append(tuple(_of_class(k, found, kinds, image, right, score, owner[label == k], images)
                           for k in range(classes)))  # fmt: skip
    return sides[0], sides[1]


def _of_class(
    k: int, found: np.ndarray, kinds: Ints, image: Ints, right: np.ndarray, score: Floats, owner: Ints, images: int
) -> Matches:
    rows = np.flatnonzero(found & (kinds == k))
    rows = rows[np.argsort(-score[rows], kind="stable")]
    return Matches(image[rows], right[:, rows].astype(np.int64), np.bincount(owner, minlength=images))


def values(matches: Sequence[Matches], images: int) -> Floats:
    """AP, AP50, AP75."""
    by_iou = average_precision(matches, np.ones((1, images), np.int64))[0]
    return np.array([by_iou.mean(), by_iou[0], by_iou[5]])


class Coverage(NamedTuple):
    """Shares of the sets whose interval holds the truth of all images, the mean over sets of this size, and the value
    itself; and the mean width: each [6], AP, AP50, AP75 of one detector and of the difference of two."""

    truth: Floats
    mean: Floats
    own: Floats
    width: Floats


def truths(share: Floats, images: int = 20_000, rounds: int = 3) -> Floats:
    """[6] numbers of all images of the kind."""
    rng = np.random.default_rng(10**6)
    sums = np.zeros(6)
    for _ in range(rounds):
        a, b = (values(side, images) for side in data_set(rng, images, share))
        sums += np.concatenate([a, b - a])
    return sums / rounds


def coverage(images: int, sets: int, halves: int, share: Floats, truth: Floats, seed: int = 0) -> Coverage:
    """Made-up data sets, one after the other, and their intervals."""
    rng = np.random.default_rng(seed)
    rows: list[list[Interval]] = []
    for number in range(sets):
        plan = draw(images, halves, number)
        a, b = (judge(side, plan) for side in data_set(rng, images, share))
        rows.append([*share_intervals(a, plan).values(), *differences(a, b, plan)[0].values()])
    own, low, high = (np.array([[getattr(i, key) for i in row] for row in rows]) for key in ("value", "low", "high"))

    def held(value: Floats) -> Floats:
        return np.asarray(((low <= value) & (value <= high)).mean(axis=0))

    return Coverage(held(truth), held(own.mean(axis=0)), held(own), (high - low).mean(axis=0))


def shares(classes: int) -> Floats:
    """Classes from common to rare: each a step rarer than the one before, the rarest a tenth of the first."""
    weights = np.geomspace(10, 1, classes)
    return np.asarray(weights / weights.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--short", action="store_true", help="few small sets: shows only that it runs")
    for name, value in (("sets", 400), ("halves", 200), ("classes", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    if options.short:
        options.images, options.sets, options.halves = [20], 5, 20
    share = shares(options.classes)
    truth = truths(share)
    print_heading()
    print(f"{options.classes} classes, {options.sets} sets, {options.halves} halves; truth {truth.round(4).tolist()}")
    columns = (*NAMES, *(f"d{name}" for name in NAMES))
    print(f"{'images':>6}  {'share that holds':<22}" + "".join(f"{c:>8}" for c in columns))
    for images in options.images:
        held = coverage(images, options.sets, options.halves, share, truth)
        for what, row in (("AP of all images", held.truth), ("mean AP at this size", held.mean), ("own AP", held.own)):
            print(f"{images:>6}  {what:<22}" + "".join(f"{v:>8.3f}" for v in row))
        print(f"{images:>6}  {'(mean width)':<22}" + "".join(f"{v:>8.3f}" for v in held.width), flush=True)


if __name__ == "__main__":
    main()
