"""From records to batches: read, resize, augment, pad. Which images a step sees, and how they are changed,
is a pure function of (seed, step), and of where a shortened run ends its mosaics; see `sampler.py`."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from ...config import Config, DataConfig
from ...errors import DataError, FcosError, ImageError
from ...system.threads import cpu_cores
from ...types import Batch, Target
from ..classes import as_learned
from ..dataset import Dataset
from ..images.reading import IN_A_ROW, resized_shape, unread
from ..records import Size
from . import augment
from .augment import Color, Sample
from .cache import Reader
from .sampler import IMAGE_STREAM, OTHER_STREAM, Sampler, Step, canvas

_PREFETCH = 2  # items that each worker prepares in advance
_GRACE = 10  # seconds that a worker lives on after SIGTERM
SMALLEST_SIDE = 1e-3  # pixels; thinner boxes teach nothing and divide by zero


# --------------------------------------------------------------------------- images


class _Failures:
    """Images that could not be read, with the reason; handed from worker processes to the caller."""

    def __init__(self) -> None:
        self.lines: dict[str, str] = {}

    def add(self, error: ImageError, path: object) -> None:
        self.lines[str(path)] = str(error)


def load_sample(dataset: Dataset, reader: Reader, index: int) -> Sample:
    """A record as a Sample with its boxes cut to the image; ImageError when it cannot be read."""
    record = dataset.records[index]
    image = reader.read(index)
    height, width = record.size
    boxes = augment.clip(record.boxes, record.size)
    if image.shape[:2] != (height, width):  # the cache keeps images smaller
        boxes = boxes * np.array([image.shape[1] / width, image.shape[0] / height] * 2, dtype=np.float32)
    return Sample(image, boxes, record.labels, record.ignore)


class TrainingImages(NamedTuple):
    """Where the images of training come from, and the settings that say how they are changed."""

    dataset: Dataset
    reader: Reader
    config: Config


def _load_or_other(source: TrainingImages, index: int, seed: list[int], failures: _Failures) -> Sample:
    """The record, or another that can be read, drawn by `seed` from the whole set: a blank image would teach that
    nothing is there, and files that went bad together lie side by side. Of an image that cannot be read no further tile
    is tried."""
    dataset, reader, _ = source
    failed: dict[Path | None, ImageError] = {}
    for at in _draws(index, len(dataset), seed):
        path = dataset.records[at].path
        if path in failed:
            continue
        try:
            return load_sample(dataset, reader, at)
        except ImageError as error:
            failures.add(error, path)
            failed[path] = error
        if len(failed) == IN_A_ROW:
            break
    raise unread(len(failed), next(reversed(failed.values())))


def _draws(first: int, count: int, seed: list[int]) -> Iterator[int]:
    """`first`, then all of `count` places in an order that `seed` draws."""
    yield first
    yield from map(int, np.random.default_rng(seed).permutation(count))


def train_sample(source: TrainingImages, step: Step, slot: int, failures: _Failures | None = None) -> Sample:
    """One image of a step, augmented. Its random numbers depend on (seed, epoch, position) alone, and those that choose
    an image in place of one that cannot be read."""
    failures = failures or _Failures()
    dataset, _, config = source
    data = config.data
    seed, at = config.train.seed, (step.epoch, step.positions[slot])
    rng = np.random.default_rng([seed, IMAGE_STREAM, *at])
    frame = augment.Frame(step.frames[slot], fill_color(config), data.resample)

    def load(index: int) -> Sample:
        return _load_or_other(source, index, [seed, OTHER_STREAM, *at, index], failures)

    def another() -> Sample:
        return load(int(rng.integers(len(dataset))))

    sample = load(step.records[slot])
    if not step.plain and data.paste and rng.random() < data.paste:  # no number is drawn in runs without
        sample = augment.paste(sample, another(), rng, frame, int(data.inclusive_boxes))
    if not step.plain and rng.random() < data.mosaic:
        sample = augment.mosaic([sample, another(), another(), another()], rng, frame)
    elif rng.random() < data.crop:
        sample = augment.jitter(sample, rng, frame, data.crop_scale)
    else:
        sample = _whole(sample, dataset.records[step.records[slot]].size, frame)
    sample = _flips(sample, rng, data)
    if data.color > 0:
        sample = sample._replace(image=augment.color(sample.image, rng, data.color))
    if not step.plain and rng.random() < data.mixup:
        second = another()
        second = augment.zoom(second, None, frame, augment.contain(second.size, frame.size))
        sample = augment.mixup(sample, _flips(second, rng, data), rng)
    return sample


def _whole(sample: Sample, expected: Size, frame: augment.Frame) -> Sample:
    # An image that stands in for an unreadable one has another shape than the plan foresaw.
    ratio = (sample.size[0] * expected[1]) / (sample.size[1] * expected[0])
    if abs(ratio - 1) < 0.02:
        return augment.fit(sample, frame.size, frame.resample)
    return augment.zoom(sample, None, frame, augment.contain(sample.size, frame.size))


def _flips(sample: Sample, rng: np.random.Generator, data: DataConfig) -> Sample:
    last = int(data.inclusive_boxes)
    if rng.random() < data.flip:
        sample = augment.flip(sample, last)
    if rng.random() < data.vertical_flip:
        sample = augment.vertical_flip(sample, last)
    return sample


def to_batch(samples: list[Sample], shape: Size, fill: Color, ids: list[int]) -> Batch:
    """Samples on a common canvas (height, width), padded at right and bottom with `fill`.

    The images [N,3,H,W] are a view of [N,H,W,3] memory (channels last), which convolutions prefer.
    """
    pixels = np.empty((len(samples), *shape, 3), dtype=np.uint8)
    targets = []
    for place, sample in zip(pixels, samples, strict=True):
        height, width = sample.size
        place[:height, :width] = sample.image
        place[height:] = fill
        place[:height, width:] = fill
        boxes = augment.clip(sample.boxes, sample.size)
        keep = ((boxes[:, 2:] - boxes[:, :2]) >= SMALLEST_SIDE).all(axis=1)
        targets.append(
            Target(
                torch.from_numpy(boxes[keep].astype(np.float32)),
                torch.from_numpy(sample.labels[keep]),
                torch.from_numpy(sample.ignore[keep]),
            )
        )
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return Batch(images, [sample.size for sample in samples], targets, ids)


def fill_color(config: Config) -> Color:
    """The pixel mean, rounded: padding that normalises to about zero."""
    red, green, blue = (round(v) for v in config.model.mean)
    return red, green, blue


# --------------------------------------------------------------------------- loaders


class _Plans:
    """The plans of the steps from `start` on. They are made here and not by the workers, as late as may be, so that
    `sampler.plain_from` may change on the way."""

    def __init__(self, sampler: Sampler, start: int) -> None:
        self.sampler, self.steps = sampler, range(start, sampler.total_steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Step]:
        for step in self.steps:
            self.sampler.reached = step + 1
            yield self.sampler.plan(step)


class _Steps(torch.utils.data.Dataset[Any]):
    """The plan of a step -> the batches of this process, whose `parts` are places in the step's batch. Errors travel as
    values, so that they stay one line."""

    def __init__(self, source: TrainingImages, parts: list[range]) -> None:
        self.source, self.parts = source, parts
        self.fill = fill_color(source.config)

    def __getitem__(self, plan: Step) -> tuple[list[Batch] | FcosError, dict[str, str]]:
        failures = _Failures()
        batches = []
        try:
            for slots in self.parts:
                samples = [train_sample(self.source, plan, slot, failures) for slot in slots]
                batches.append(to_batch(samples, plan.canvas, self.fill, [plan.records[slot] for slot in slots]))
        except FcosError as error:
            return error, failures.lines
        return batches, failures.lines


class _Groups(torch.utils.data.Dataset[Any]):
    """Group of record indices -> one batch as evaluation sees it; None when none of it can be read."""

    def __init__(self, dataset: Dataset, config: Config, groups: list[list[int]]) -> None:
        self.dataset, self.data, self.groups = dataset, config.data, groups
        self.reader, self.fill = Reader(dataset), fill_color(config)

    def __getitem__(self, at: int) -> tuple[Batch | FcosError | None, dict[str, str]]:
        failures = _Failures()
        samples, ids = [], []
        for index in self.groups[at]:
            record = self.dataset.records[index]
            try:
                sample = load_sample(self.dataset, self.reader, index)
            except ImageError as error:
                failures.add(error, record.path)
                continue
            shape = resized_shape(record.size, self.data.size, self.data.max_size, self.data.round)
            samples.append(augment.fit(sample, shape, self.data.resample))
            ids.append(index)
        if not samples:
            return None, failures.lines
        shape = canvas(tuple(s.size for s in samples), self.data.divisor)
        return to_batch(samples, shape, self.fill, ids), failures.lines


class Loader:
    """Iterates batches in order. `skipped`: path -> reason for every image that could not be read."""

    def __init__(self, source: Any, keys: range | _Plans, workers: int, item_bytes: int) -> None:
        self.source, self.keys = source, keys
        self.workers = count_workers(workers, item_bytes)
        self.skipped: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Generator[Any, None, None]:
        loader = DataLoader(
            self.source,
            batch_size=None,
            sampler=self.keys,
            num_workers=self.workers,
            prefetch_factor=_PREFETCH if self.workers else None,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # leaves the global random state alone
        )
        for item, failures in loader:
            for path, reason in failures.items():
                if path not in self.skipped:
                    warnings.warn(f"skipped: {reason}", stacklevel=2)
                    self.skipped[path] = reason
            if isinstance(item, FcosError):
                raise item
            if item is not None:
                yield item


def train_loader(
    dataset: Dataset, config: Config, *, sampler: Sampler | None = None, start_step: int = 0, quiet: bool = False
) -> Loader:
    """Steps start_step.. to the end of training; each item is the list of this process's batches, one for
    each accumulation step. The images are uint8 [N,3,H,W]; boxes are in the resized frame, cut to it.

    sampler: says what each step sees; left out: the one of `config`, for a single process. quiet: no bar while
    images are decoded into memory. An image that cannot be read is replaced by another and warned about once.
    Boxes of a file are taken as `data.inclusive_boxes` has them (`as_learned`).
    Raises ConfigError and DataError as `Sampler`, ImageError when twenty images drawn in a row cannot be read.
    """
    if all(record.path is None for record in dataset.records) and len(dataset):
        raise DataError(f"{dataset.root}: there are annotations but no images to train on")
    dataset = as_learned(dataset, config.data)
    sampler = sampler or Sampler(dataset, config.data, config.train)
    reader = Reader(dataset, config.data, quiet)
    side = config.data.largest_side()
    item_bytes = 3 * config.train.batch // sampler.world * side * round(config.data.max_size * side / config.data.size)
    parts = [sampler.slots(part) for part in range(config.train.accumulate)]
    steps = _Steps(TrainingImages(dataset, reader, config), parts)
    return Loader(steps, _Plans(sampler, start_step), config.data.workers, item_bytes)


def eval_batches(dataset: Dataset, config: Config, batch: int = 1, *, rank: int = 0, world: int = 1) -> Loader:
    """Every image once, unchanged but for its size. `ids` are record indices, `sizes` (height, width)
    after resizing and before padding. Images of like shape come together when `batch` > 1. An image that
    cannot be read is left out, warned about and listed in `.skipped`."""
    if all(record.path is None for record in dataset.records) and len(dataset):
        raise DataError(f"{dataset.root}: there are annotations but no images to look at")
    order = list(range(len(dataset)))
    if batch > 1:
        order.sort(key=lambda i: (dataset.records[i].size[0] / dataset.records[i].size[1], i))
    groups = [order[at : at + batch] for at in range(0, len(order), batch)]
    item_bytes = 3 * batch * config.data.size * config.data.max_size
    return Loader(_Groups(dataset, config, groups), range(rank, len(groups), world), config.data.workers, item_bytes)


GUARD = (
    "a process that loads images runs your script again, from its beginning: call fcos.train below "
    '`if __name__ == "__main__":`, or with data.workers=0 (if the script is so already, memory ran out: give more)'
)


def end_if_begun_again() -> None:
    """End this process where it was begun to load images, and runs the script of its user again meanwhile, as it does
    where processes are not forked. Whoever waits for it tells why."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(1)


@contextmanager
def one_line_for_lost_loaders(advice: str = "") -> Iterator[None]:
    """Inside, the end of a loader process that something killed is FcosError. torch raises it wherever the program is,
    by a signal. advice: to end the line with."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        if "exited unexpectedly" in str(error) and multiprocessing.get_start_method() != "fork":
            raise FcosError(GUARD) from error
        raise FcosError(
            "a process that loads images was killed, mostly because memory ran out; use less with data.workers=0 or a "
            "smaller data.size, or give more (of shared memory: docker run --shm-size=2g)" + (advice and f"; {advice}")
        ) from error


def count_workers(wanted: int, item_bytes: int) -> int:
    """Loader processes: as wanted, or by the number of CPU cores; 0 where shared memory is too small, and in a process
    that may have none."""
    cores = cpu_cores()
    workers = wanted if wanted >= 0 else min(4, cores) if cores > 2 else cores - 1
    if workers and multiprocessing.current_process().daemon:  # of Celery, or of a multiprocessing.Pool
        warnings.warn("a daemonic process may not start loader processes; it loads images itself", stacklevel=3)
        return 0
    if workers and os.path.isdir("/dev/shm"):
        room = os.statvfs("/dev/shm")
        if room.f_bavail * room.f_frsize < (_PREFETCH + 1) * workers * item_bytes:
            warnings.warn(
                f"/dev/shm is too small for {workers} loader processes (docker: --shm-size=2g); loading in one process",
                stacklevel=3,
            )
            return 0
    return workers


def _start_worker(_: int) -> None:
    # Signals reach a whole process group. The training process decides when to stop and may need its batch for
    # that, so a worker lets Ctrl-C pass, and lives on for a while after the SIGTERM of torchrun or SLURM, or the end of
    # a terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda *_: signal.alarm(_GRACE))
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
