"""The values that travel between the parts of a detector.

Letters used in every shape: N images, P points over all levels, L levels, G boxes of one image,
C classes, D detections, H and W pixels. Boxes are xyxy in absolute pixels, float32, and the width is
x2 - x1. Labels are 0..C-1. A point that learns no box has index -1, one inside an ignore region -2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import ConfigError, FcosError
from .system.terminal import some

NEGATIVE = -1  # the point learns "no object"
IGNORED = -2  # the point is left out of the classification loss


@dataclass(frozen=True)
class Classes:
    """Class names in label order, with the ids of the file they came from.

    `names[k]` and `ids[k]` belong to label k. Ids may have gaps (COCO: 1..90 for 80 classes).
    """

    names: tuple[str, ...]
    ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.ids:
            object.__setattr__(self, "ids", tuple(range(len(self.names))))
        if len(self.ids) != len(self.names):
            raise ValueError(f"{len(self.names)} class names but {len(self.ids)} class ids")

    def __len__(self) -> int:
        return len(self.names)


def class_names(given: object, error: type[FcosError] = ConfigError) -> tuple[str, ...]:
    """The names of classes that a person gives: one, several, or by their numbers from 0; `error` for others."""
    if isinstance(given, str):
        return (given,)
    if isinstance(given, Classes):
        return given.names
    if isinstance(given, Mapping):
        if set(given) != set(range(len(given))):
            raise error(f"classes has the numbers {some([*given])}; number them 0, 1, ... or give a list of names")
        given = [given[k] for k in range(len(given))]
    if not isinstance(given, Iterable):
        raise error(f"classes is a {type(given).__name__}; give a list of names")
    names = tuple(given)
    odd = next((name for name in names if not isinstance(name, str)), None)
    if odd is not None:
        raise error(f"classes holds {odd!r}; give names")
    return tuple(map(str, names))


@dataclass(frozen=True)
class Target:
    """What one image teaches: boxes [G,4] float32 xyxy, labels [G] int64, ignore [G] bool.

    `ignore` marks crowd and difficult boxes: points inside them are neither positive nor negative.
    """

    boxes: Tensor
    labels: Tensor
    ignore: Tensor

    @staticmethod
    def empty() -> Target:
        """The target of an image without objects."""
        return Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Target:
        """On another device; `non_blocking` only from pinned memory, where the program need not wait for the copy."""
        return Target(*(x.to(device, non_blocking=non_blocking) for x in (self.boxes, self.labels, self.ignore)))

    def pin_memory(self) -> Target:
        """In memory from which a GPU copies without waiting."""
        return Target(self.boxes.pin_memory(), self.labels.pin_memory(), self.ignore.pin_memory())

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass(frozen=True)
class Batch:
    """Images [N,3,H,W] uint8 RGB, padded at right and bottom; sizes: (height, width) before padding."""

    images: Tensor
    sizes: list[tuple[int, int]]
    targets: list[Target]
    ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.sizes) == len(self.targets):
            counts = f"{len(self.images)} images, {len(self.sizes)} sizes and {len(self.targets)} targets"
            raise ValueError(f"a batch has one size and one target for each image, not {counts}")

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """On another device; `non_blocking` only from pinned memory, where the program need not wait for the copy."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=non_blocking),
            targets=[t.to(device, non_blocking) for t in self.targets],
        )

    def pin_memory(self) -> Batch:
        """In memory from which a GPU copies without waiting."""
        return replace(self, images=self.images.pin_memory(), targets=[t.pin_memory() for t in self.targets])

    def padded_with(self, color: Sequence[float]) -> Tensor:
        """The images as float32, with padding of exactly this colour [3] in place of whole grey levels."""
        images = self.images.float()
        fill = images.new_tensor(color).view(3, 1, 1)
        for image, (height, width) in zip(images, self.sizes, strict=True):
            image[:, height:] = fill
            image[:, :height, width:] = fill
        return images

    def split(self, parts: int) -> list[Batch]:
        """In order, at most so many batches of one image and more, on the same memory."""
        count = max(1, min(parts, len(self)))
        edges = [len(self) * i // count for i in range(count + 1)]
        return [Batch(self.images[a:b], self.sizes[a:b], self.targets[a:b], self.ids[a:b]) for a, b in pairwise(edges)]

    def __len__(self) -> int:
        return len(self.images)


class Grid(NamedTuple):
    """One level's regular grid of points: number `start` is at (x0, y0), then row by row."""

    start: int
    height: int
    width: int
    stride: int
    x0: float
    y0: float
    step_x: float
    step_y: float

    @property
    def cells(self) -> int:
        """Number of points of the level: height x width."""
        return self.height * self.width


class Points(NamedTuple):
    """Where the network looks: xy [P,2] pixels, stride [P], the range of box sizes each point learns
    (lower, upper [P] pixels), level [P] int64, and the grids the points were made of."""

    xy: Tensor
    stride: Tensor
    lower: Tensor
    upper: Tensor
    level: Tensor
    grids: tuple[Grid, ...]


class Predictions(NamedTuple):
    """What the network says: logits [N,P,C]; distances [N,P,4] l, t, r, b in pixels, >= 0;
    centerness [N,P] logit."""

    logits: Tensor
    distances: Tensor
    centerness: Tensor


class Losses(NamedTuple):
    """The three terms of the loss, scalars."""

    classification: Tensor
    box: Tensor
    centerness: Tensor

    def total(self) -> Tensor:
        """The sum of the three, a scalar: what a training step minimises."""
        return self.classification + self.box + self.centerness


Network = Callable[[Tensor], Predictions]  # the seam between the detector and any runtime
