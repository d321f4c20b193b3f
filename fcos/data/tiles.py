"""Where the tiles of a large image lie, and a data set as its tiles: what each shows of the boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .dataset import Dataset
from .loading.augment import cut_boxes
from .records import Record, Size, Window

OVERLAP = 0.2  # of two neighbours, as a share of the side


def cut_windows(size: Size, side: int, overlap: float = OVERLAP) -> list[Window]:
    """The tiles of `side` pixels of an image of (height, width), row by row; the last of a row or column shifts inward,
    so that all are whole. An image no larger than a tile is one. overlap: of two neighbours, a share of the side,
    0..0.9."""
    return [
        Window(top, left, min(top + side, size[0]), min(left + side, size[1]))
        for top in _starts(size[0], side, overlap)
        for left in _starts(size[1], side, overlap)
    ]


def count_windows(size: Size, side: int, overlap: float) -> int:
    """How many `cut_windows` gives."""
    step = max(1, round(side * (1 - overlap)))
    down, across = (1 if length <= side else -(-(length - side) // step) + 1 for length in size)
    return down * across


def _starts(length: int, side: int, overlap: float) -> list[int]:
    if length <= side:
        return [0]
    step = max(1, round(side * (1 - overlap)))
    count = -(-(length - side) // step) + 1
    return [min(i * step, length - side) for i in range(count)]


def tiled(dataset: Dataset, side: int) -> Dataset:
    """The data set with each image as its tiles of `side` pixels; as it is where `side` is 0. What is a tile already
    stays.

    A tile shows the boxes that reach into it, cut to it. One of which less than `augment.KEEP` is left becomes a region
    to ignore, as in every crop. Images no larger than a tile stay whole.
    """
    if not side:
        return dataset
    return replace(dataset, records=tuple(tile for record in dataset.records for tile in _tiles(record, side)))


def _tiles(record: Record, side: int) -> list[Record]:
    windows = cut_windows(record.size, side)
    if record.window is not None or len(windows) == 1:
        return [record]
    tiles = []
    for window in windows:
        boxes, keep, ignore = cut_boxes(record.boxes, record.ignore, window)
        sides = (boxes[keep, 2:] - boxes[keep, :2]).astype(np.float64)
        tiles.append(
            replace(
                record,
                size=(window.bottom - window.top, window.right - window.left),
                boxes=boxes[keep],
                labels=record.labels[keep],
                ignore=ignore[keep],
                areas=sides.prod(axis=1),
                xywh=None,
                window=window,
                whole=record.size,
            )
        )
    return tiles


def empty_share(dataset: Dataset) -> np.ndarray:
    """How often each record counts in an epoch [N]: 1, but tiles without an object together no more than those with
    one. Most tiles of a large image show nothing; all of them would drown what there is to learn."""
    shares = np.ones(len(dataset))
    table = dataset.packed.table
    taught = np.bincount(dataset.packed.owner[~table.ignore], minlength=len(dataset))
    bare, tile = taught == 0, table.windows[:, 2] >= 0
    empty, full = bare & tile, ~bare & tile
    if empty.any() and full.any():
        shares[empty] = min(1.0, full.sum() / empty.sum())
    return shares
