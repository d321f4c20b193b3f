"""Annotated images drawn for a sheet, as they are and as training sees them."""

from __future__ import annotations

import numpy as np

from ..config import Config
from ..data.classes import as_learned, as_seen
from ..data.dataset import Dataset
from ..data.loading.augment import Sample
from ..data.loading.cache import Reader
from ..data.loading.loader import TrainingImages, load_sample, train_sample
from ..data.loading.sampler import Sampler
from ..data.tiles import tiled
from ..errors import ImageError
from ..system.stderr import say
from .draw import Marks, caption, draw_cell

Titled = tuple[np.ndarray, str]  # an image [H,W,3] uint8 with its boxes, and its title


def plain(dataset: Dataset, count: int, seed: int) -> list[Titled]:
    """`count` images, or as many as there are, drawn at random. One that cannot be read is told and left out;
    ImageError where none can."""
    reader = Reader(dataset)
    cells: list[Titled] = []
    for index in np.random.default_rng(seed).permutation(len(dataset)).tolist():
        if len(cells) == count:
            break
        try:
            cells.append(_titled(load_sample(dataset, reader, index), dataset, index))
        except ImageError as error:
            say(f"skipped: {error}")
    if not cells:
        raise ImageError(f"no image of {dataset.root} can be read")
    return cells


def augmented(dataset: Dataset, config: Config, count: int) -> list[Titled]:
    """The first `count` images that training with these settings sees; a mosaic has the title of its first image."""
    dataset = tiled(as_learned(as_seen(dataset, config.data), config.data), config.data.tile)
    sampler, source = Sampler(dataset, config.data, config.train), TrainingImages(dataset, Reader(dataset), config)
    cells: list[Titled] = []
    for step in range(-(-count // config.train.batch)):
        plan = sampler.plan(step)
        for slot in range(min(config.train.batch, count - len(cells))):
            cells.append(_titled(train_sample(source, plan, slot), dataset, plan.records[slot]))
    return cells


def _titled(sample: Sample, dataset: Dataset, index: int) -> Titled:
    marks = Marks(sample.boxes, sample.labels, dataset.classes.names, ignore=sample.ignore)
    return draw_cell(sample.image, marks), caption(dataset.records[index].file_name)
