"""What the data say about how to learn from them: sizes, numbers, and whether up and down, left and right matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ...data.dataset import Dataset
from ...data.images.reading import read_image
from ...data.loading.augment import clip
from ...data.records import evenly
from ...data.tiles import empty_share, tiled
from ...errors import ImageError

_LOOKED = 100  # images that are looked at
_SIDE = 24  # pixels of a patch
_FEW = 8  # objects below which a class is not asked
_EVEN = 0.25  # share of the mean object's contrast that a mirror may change
_ODD, _SURE = 0.35, 4.0  # share, and standard deviations above chance, from which objects have a handedness


@dataclass(frozen=True)
class Facts:
    """images, objects, classes: numbers in the training split. side: median shorter side of the images, pixels.
    small, middle: the shorter side of the box that a tenth and half of the boxes fall below, as a share of the image's
    shorter side; large: the longer side that 95 of 100 fall below, likewise. upright: up and down differ. handed:
    objects are not their mirror images, as letters. judged: images of the validation split."""

    images: int
    objects: int
    classes: int
    side: int
    small: float
    middle: float
    large: float
    upright: bool
    handed: bool
    judged: int


def facts_of(data: dict[str, Dataset]) -> Facts:
    """The facts of a run's data; a few dozen images are read."""
    train = data["train"]
    sides = np.array([min(r.size) for r in train.records], float)
    seen = [clip(r.boxes[~r.ignore], r.size) for r in train.records]
    shares = [(boxes[:, 2:] - boxes[:, :2]) / max(min(r.size), 1) for boxes, r in zip(seen, train.records, strict=True)]
    share = np.concatenate(shares) if shares else np.zeros((0, 2))
    small, middle = (float(v) for v in np.quantile(share.min(axis=1), (0.1, 0.5))) if len(share) else (1.0, 1.0)
    large = float(np.quantile(share.max(axis=1), 0.95)) if len(share) else 1.0
    upright, handed = orientation(train)
    return Facts(
        len(train), len(share), len(train.classes), int(np.median(sides)), small, middle, large, upright, handed,
        len(data.get("val", ())),
    )  # fmt: skip


def through_tiles(facts: Facts, train: Dataset, tile: int) -> Facts:
    """The facts of a run that learns from tiles of so many pixels: `images` are those that an epoch shows."""
    return replace(facts, images=round(float(empty_share(tiled(train, tile)).sum()))) if tile else facts


def orientation(dataset: Dataset) -> tuple[bool, bool]:
    """(up and down differ, left and right differ), by the grey values of the objects of each class.

    A mirror changes a part of the mean object of a class. Where that is small for nine objects of ten, the mirror may
    be used: cells 0.07 to 0.13 of their contrast upside down, classes of VOC 0.5 to 0.9. That is asked of up and down.
    Left and right may always be exchanged but where it is large, and larger than chance makes it, for most objects:
    letters; what is seen from both sides is its own mirror image on average. The light of the scene is not asked:
    microscopes have their own.
    """
    objects = [group for group in _patches(dataset).values() if len(group) >= _FEW]
    known = sum(map(len, objects))
    symmetric = sum(len(group) for group in objects if _differs(group, 0)[1] < _EVEN)
    odd = sum(len(group) for group in objects if _handed(group))
    return symmetric < 0.9 * known or not known, odd > 0.5 * known


def _patches(dataset: Dataset) -> dict[int, list[np.ndarray]]:
    """By class, the objects of images drawn evenly from the set."""
    objects: dict[int, list[np.ndarray]] = {}
    for record in dataset.subset(evenly(len(dataset), _LOOKED)).records:
        try:
            grey = cv2.cvtColor(read_image(str(record.path)), cv2.COLOR_RGB2GRAY)
        except ImageError:
            continue
        for (x1, y1, x2, y2), label, ignored in zip(record.boxes, record.labels, record.ignore, strict=True):
            crop = grey[max(int(y1), 0) : int(np.ceil(y2)), max(int(x1), 0) : int(np.ceil(x2))]
            if not ignored and min(crop.shape) >= 6:
                objects.setdefault(int(label), []).append(_patch(crop))
    return objects


def _handed(patches: Sequence[np.ndarray]) -> bool:
    sure, share = _differs(patches, 1)
    return sure > _SURE and share > _ODD


def _patch(grey: np.ndarray) -> np.ndarray:
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float64)
    small -= small.mean()
    result: np.ndarray = small / max(float(small.std()), 1.0)
    return result


def _differs(patches: Sequence[np.ndarray], axis: int) -> tuple[float, float]:
    """(how many standard deviations the odd part of the mean patch is above that of patches mirrored at random, its
    share of the mean patch's contrast)."""
    odd = np.stack([(p - np.flip(p, axis)).ravel() / 2 for p in patches])
    size = float((odd.mean(axis=0) ** 2).mean())
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (200, len(odd)))
    chance = ((signs @ odd / len(odd)) ** 2).mean(axis=1)
    contrast = float((np.mean(patches, axis=0) ** 2).mean())
    return (size - float(chance.mean())) / max(float(chance.std()), 1e-12), (size / max(contrast, 1e-12)) ** 0.5
