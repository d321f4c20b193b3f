"""Which images a training step sees, at which size: a pure function of (seed, step).

Nothing is remembered from step to step, so resuming needs only the step number (and `plain_from`, where a run was
shortened), and no split over processes or accumulation steps changes the data.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...config import DataConfig, TrainConfig
from ...errors import ConfigError, DataError
from ...points import padded
from ..dataset import Dataset
from ..images.reading import resized_shape
from ..records import Size
from ..tiles import empty_share

ORDER_STREAM, SIZE_STREAM, IMAGE_STREAM, OTHER_STREAM = 1, 2, 3, 4  # keep the random numbers of each purpose apart


class Step(NamedTuple):
    """What one optimiser step sees, over all processes and parts."""

    epoch: int
    records: tuple[int, ...]  # indices into the data set, train.batch of them
    positions: tuple[int, ...]  # of each image in its epoch: the seed of its augmentation
    frames: tuple[Size, ...]  # (height, width) of each image after resizing
    canvas: Size  # of the padded batch
    plain: bool  # mosaic, mixup and paste are off


class Sampler:
    """The order of images. `plan(step)` depends on nothing but the arguments given here, the step and `plain_from`,
    the step at which mosaic, mixup and paste end: `data.plain_epochs` before the end.

    Raises ConfigError when the batch cannot be split evenly over processes and accumulation steps, and
    DataError for a data set without images.
    """

    def __init__(self, dataset: Dataset, data: DataConfig, train: TrainConfig, rank: int = 0, world: int = 1) -> None:
        if train.batch < 1:
            raise ConfigError("train.batch=auto is settled when a training run starts; give a number here")
        parts = world * train.accumulate
        if train.batch % parts:
            raise ConfigError(
                f"train.batch={train.batch} cannot be split over {world} processes x train.accumulate="
                f"{train.accumulate}; make it a multiple of {parts}"
            )
        if not len(dataset):
            raise DataError(f"{dataset.root}: there are no images to train on")
        self.data, self.train, self.rank, self.world = data, train, rank, world
        self.sizes = dataset.packed.table.sizes
        self.lying = self.sizes[:, 1] >= self.sizes[:, 0]
        self.repeats = _repeat_factors(dataset, train.balance)
        self.count = round(float(self.repeats.sum()))
        self.steps_per_epoch = -(-self.count // train.batch)
        self.total_steps = train.iterations or train.epochs * self.steps_per_epoch
        self.plain_from = self._plain_start(self.total_steps)
        self.reached = 0  # the step after the last that a loader planned
        self._orders: dict[int, np.ndarray] = {}

    def plan(self, step: int) -> Step:
        """What step `step` (0 is the first) sees over all processes: records, sizes, and whether mosaics are over."""
        epoch, index = divmod(step, self.steps_per_epoch)
        batch = self.train.batch
        records = self._order(epoch)[index * batch : (index + 1) * batch]
        short, longest = self._side(step)
        frames = tuple(
            resized_shape((height, width), short, longest, self.data.round)
            for height, width in self.sizes[records].tolist()
        )
        return Step(
            epoch,
            tuple(int(r) for r in records),
            tuple(range(index * batch, (index + 1) * batch)),
            frames,
            canvas(frames, self.data.divisor),
            step >= self.plain_from,
        )

    def earlier_plain(self, total: int) -> int:
        """The new `plain_from` of a run that is cut to `total` steps: `plain_epochs` before its end, but not before the
        second step that the loaders have yet to plan; the first they may be planning right now."""
        return min(self.plain_from, max(self._plain_start(total), self.reached + 1))

    def _plain_start(self, total: int) -> int:
        return max(0, -(-total // self.steps_per_epoch) - self.data.plain_epochs) * self.steps_per_epoch

    def slots(self, part: int) -> range:
        """Places in the step's batch that belong to accumulation step `part` of this process."""
        size = self.train.batch // (self.world * self.train.accumulate)
        first = (part * self.world + self.rank) * size
        return range(first, first + size)

    def _side(self, step: int) -> tuple[int, int]:
        sizes = self.data.sides(step / self.total_steps)
        short = sizes[int(np.random.default_rng([self.train.seed, SIZE_STREAM, step]).integers(len(sizes)))]
        return short, max(short, round(self.data.max_size * short / self.data.size))

    def _order(self, epoch: int) -> np.ndarray:
        """Record indices of an epoch, [steps_per_epoch * batch]; remembered, as it is asked for every step."""
        if epoch not in self._orders:
            self._orders = {e: o for e, o in self._orders.items() if abs(e - epoch) < 2}
            self._orders[epoch] = self._draw_order(epoch)
        return self._orders[epoch]

    def _draw_order(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.train.seed, ORDER_STREAM, epoch])
        batch = self.train.batch
        picked = _systematic(self.repeats, self.count, rng)
        missing = self.steps_per_epoch * batch - len(picked)
        rng.shuffle(picked)
        picked = np.concatenate((picked, np.resize(picked, missing)))
        # Lying and standing images apart, so that little of a batch is padding; the rest makes one mixed batch.
        lying = picked[self.lying[picked]]
        standing = picked[~self.lying[picked]]
        split = len(lying) // batch * batch, len(standing) // batch * batch
        rest = np.concatenate((lying[split[0] :], standing[split[1] :]))
        batches = np.concatenate((lying[: split[0]], standing[: split[1]], rest)).reshape(-1, batch)
        return batches[rng.permutation(len(batches))].reshape(-1)


def canvas(frames: tuple[Size, ...], divisor: int) -> Size:
    """The smallest multiple of `divisor` that holds all frames."""
    height, width = (max(side) for side in zip(*frames, strict=True))
    return padded((height, width), divisor)


def _systematic(repeats: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` indices, each floor(r) or ceil(r) times, in expectation its factor."""
    order = rng.permutation(len(repeats))
    if count == len(repeats):
        return order
    edges = np.concatenate(([0.0], np.cumsum(repeats[order])))
    edges[-1] = count  # exact, whatever the sum rounded to
    marks = np.arange(count) + rng.random()
    return order[np.minimum(np.searchsorted(edges, marks, side="right") - 1, len(order) - 1)]


def _repeat_factors(dataset: Dataset, threshold: float) -> np.ndarray:
    """How often each image counts in an epoch. Tiles without an object count less (`empty_share`); with a threshold
    above 0 repeat-factor sampling (LVIS, 1908.03195, section 3.3): max(1, sqrt(t / f)) times, f the share of images
    that show its rarest class."""
    factors = empty_share(dataset)
    if threshold > 0:
        factors = factors * _rarity(dataset, threshold)
    total = factors.sum()
    result: np.ndarray = factors * (np.ceil(total - 1e-9) / total)
    return result


def _rarity(dataset: Dataset, threshold: float) -> np.ndarray:
    shown = [np.unique(record.labels[~record.ignore]) for record in dataset.records]
    share = np.bincount(np.concatenate(shown), minlength=len(dataset.classes)) / len(dataset)
    by_class = np.maximum(1.0, np.sqrt(threshold / np.maximum(share, 1e-12)))
    return np.array([by_class[labels].max(initial=1.0) for labels in shown])
