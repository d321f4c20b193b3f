"""Large images in tiles: cut into overlapping windows, each detected like an image, and put together again.

Tiles of twice the side, four times, and so on up to the whole image go along, so that what is larger than a tile is
seen as well; that costs a third more. Three rules put the detections together, each for one class at a time:

1. A box that an inner edge of its tile cuts gives way to a whole one that looks the same through that tile.
2. Two boxes that facing inner edges cut become one, where each is what its tile shows of their union. Neighbours
   that merely touch do not: they end before the edge, or their union shows more of them than the tile does.
3. NMS, by the detector's own rule, takes what two windows saw whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..boxes import area, iou, nms
from ..config import Config
from ..data.dataset import Window
from ..data.image import resize
from ..data.tiles import OVERLAP, cut_windows
from ..errors import ConfigError
from ..types import Classes, Detections

Pixels = NDArray[np.uint8]
_SAME = 0.6  # IoU from which a box is what a tile shows of another
_EDGE = 0.01  # share of a tile's side within which a box counts as cut by the edge
_LEAST = 32  # pixels a tile's side must have


class Windows(Protocol):
    """An image that is read in parts: an array, or a file too large to be held."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""

    def read(self, window: Window) -> Pixels:
        """uint8 [h,w,3] RGB of a window."""

    def shrunk(self, shape: tuple[int, int]) -> Pixels:
        """uint8 [h,w,3] RGB of the whole image in (height, width), no larger than it is."""


class Looker(Protocol):
    """What looks at one tile: a Detector, or several looks put together."""

    @property
    def config(self) -> Config: ...

    @property
    def classes(self) -> Classes: ...

    def detect(
        self, images: Sequence[Pixels], names: Sequence[str | None], score: float = 0.0, batch: int = 1
    ) -> list[Detections]: ...


@dataclass(frozen=True)
class Held:
    """An image in memory, uint8 [H,W,3] RGB, as `Windows`."""

    image: Pixels

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.image.shape[:2]
        return height, width

    def read(self, window: Window) -> Pixels:
        return self.image[window.top : window.bottom, window.left : window.right]

    def shrunk(self, shape: tuple[int, int]) -> Pixels:
        return resize(self.image, shape)


@dataclass(frozen=True)
class Tiling:
    """How an image is cut. tile: side of a tile in pixels of the image; overlap: of two neighbours, as a share of the
    side, 0..0.9; whole: larger tiles and the whole image go along; batch: tiles in one pass of the network."""

    tile: int
    overlap: float = OVERLAP
    whole: bool = True
    batch: int = 4

    def __post_init__(self) -> None:
        if self.tile < _LEAST:
            raise ConfigError(f"--tile {self.tile} is too small; give at least {_LEAST} pixels, or auto")
        if not 0 <= self.overlap <= 0.9:
            raise ConfigError(f"--overlap {self.overlap:g} is no share of a tile; give 0 to 0.9, such as 0.2")


def parse_tile(text: str | int, detector: Looker, overlap: float = OVERLAP, batch: int = 4) -> Tiling:
    """The tiling of "auto" or a number of pixels. "auto" cuts tiles of the size of the images that the model learned
    from, so that objects come out as large as it knows them; where its file does not say, tiles of its input size."""
    if str(text) == "auto":
        side = detector.config.data.learned_side or detector.config.data.size
        return Tiling(max(side, _LEAST), overlap, batch=batch)
    try:
        return Tiling(int(text), overlap, batch=batch)
    except ValueError:
        raise ConfigError(f"--tile {text!r} is neither a number of pixels nor auto") from None


def detect_tiles(
    detector: Looker, image: Windows, tiling: Tiling, *, score: float = 0.0, name: str | None = None
) -> Detections:
    """Detections of a large image, in its pixels, at least `score`. One tile alone is plain detection, bit for bit.

    Locations (`points`) are -1: they would be those of a tile's own input.
    """
    windows = cut_windows(image.size, tiling.tile, tiling.overlap)
    if len(windows) == 1:
        return detector.detect([image.read(windows[0])], [name], score)[0]
    if tiling.whole:
        side = 2 * tiling.tile
        while side < max(image.size):  # what a tile cuts, a larger one may hold
            windows += cut_windows(image.size, side, tiling.overlap)
            side *= 2
    parts: list[Detections] = []
    for start in range(0, len(windows), max(1, tiling.batch)):
        part = windows[start : start + max(1, tiling.batch)]
        parts += detector.detect([image.read(w) for w in part], [None] * len(part), score, len(part))
    seen = [_shifted(part, window) for part, window in zip(parts, windows, strict=True)]
    if tiling.whole:
        seen.append(_whole(detector, image, score))
        windows = [*windows, Window(0, 0, *image.size)]
    return replace(join(seen, windows, image.size, detector), size=image.size, source=name)


def _shifted(part: Detections, window: Window) -> Detections:
    corner = torch.tensor([window.left, window.top] * 2, dtype=part.boxes.dtype)
    return replace(part, boxes=part.boxes + corner)


def _whole(detector: Looker, image: Windows, score: float) -> Detections:
    """Detections of the image at the size that the network takes, in pixels of the image."""
    data = detector.config.data
    height, width = image.size
    ratio = min(1.0, 2 * data.size / min(height, width), 2 * data.max_size / max(height, width))
    shape = (max(1, round(height * ratio)), max(1, round(width * ratio)))
    small = image.shrunk(shape)
    (seen,) = detector.detect([small], [None], score)
    back = torch.tensor([width / small.shape[1], height / small.shape[0]] * 2)
    return replace(seen, boxes=seen.boxes * back, size=image.size)


def join(seen: Sequence[Detections], windows: Sequence[Window], size: tuple[int, int], detector: Looker) -> Detections:
    """One image's detections from those of its windows, `seen[i]` in pixels of the image through `windows[i]`."""
    boxes = torch.cat([part.boxes for part in seen])
    scores = torch.cat([part.scores for part in seen])
    labels = torch.cat([part.labels for part in seen])
    frames = torch.cat(
        [
            torch.tensor([[w.left, w.top, w.right, w.bottom]] * len(part), dtype=boxes.dtype).reshape(-1, 4)
            for part, w in zip(seen, windows, strict=True)
        ]
    )
    edges = cut_sides(boxes, frames, size)
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    for label in labels.unique().tolist():
        rows = labels == label
        one, best = _join_class(boxes[rows], scores[rows], frames[rows], edges[rows])
        kept.append((one, best, torch.full((len(one),), label)))
    if not kept:
        return seen[0][:0]
    boxes, scores, labels = (torch.cat([row[i] for row in kept]) for i in range(3))
    decode = detector.config.decode
    many = decode.model_copy(update={"max_detections": decode.max_detections * len(windows)})
    keep, scores = nms(boxes, scores, labels.to(torch.int64), many)
    return Detections(
        boxes[keep], scores, labels[keep].to(torch.int64), torch.full((len(keep),), -1), names=detector.classes.names
    )


def cut_sides(boxes: Tensor, frames: Tensor, size: tuple[int, int]) -> Tensor:
    """[D,4] bool: which sides (left, top, right, bottom) of boxes [D,4] an inner edge of their frame [D,4] cuts.
    The edge of the image cuts nothing: there is no more of the object behind it."""
    margin = _EDGE * (frames[:, 2:] - frames[:, :2]).repeat(1, 2)
    inner = torch.stack((frames[:, 0] > 0, frames[:, 1] > 0, frames[:, 2] < size[1], frames[:, 3] < size[0]), dim=1)
    return inner & ((boxes - frames).abs() <= margin)


def _join_class(boxes: Tensor, scores: Tensor, frames: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """(boxes, scores) of one class after rules 1 and 2."""
    whole = ~edges.any(dim=1)
    pieces = (~whole).nonzero().flatten().tolist()
    left = [i for i in pieces if not _is_part(boxes[i], frames[i], boxes[whole])]
    joined, used = _join_pieces(left, boxes, scores, edges, frames)
    alone = [i for i in left if i not in used]
    # a joined box is a whole one: what is left of its pieces in other tiles gives way to it
    if len(joined):
        unions = torch.stack([box for box, _ in joined])
        alone = [i for i in alone if not _is_part(boxes[i], frames[i], unions)]
        more = torch.stack([score for _, score in joined])
        return torch.cat((boxes[whole], boxes[alone], unions)), torch.cat((scores[whole], scores[alone], more))
    return torch.cat((boxes[whole], boxes[alone])), torch.cat((scores[whole], scores[alone]))


def _is_part(box: Tensor, frame: Tensor, whole: Tensor) -> bool:
    """Whether `box` [4] is what `frame` [4] shows of one of the boxes `whole` [W,4]."""
    if not len(whole):
        return False
    shown = _through(whole, frame)
    return bool((iou(box[None], shown) >= _SAME).any())


def _through(boxes: Tensor, frame: Tensor) -> Tensor:
    """Boxes [...,4] cut to a frame [4]; what lies outside becomes empty at its edge."""
    low = torch.minimum(torch.maximum(boxes[..., :2], frame[:2]), frame[2:])
    high = torch.minimum(torch.maximum(boxes[..., 2:], frame[:2]), frame[2:])
    return torch.cat((low, high), dim=-1)


def _join_pieces(
    pieces: Sequence[int], boxes: Tensor, scores: Tensor, edges: Tensor, frames: Tensor
) -> tuple[list[tuple[Tensor, Tensor]], set[int]]:
    """(joined boxes with scores, the pieces they were made of). A box may go on through several tiles."""
    groups = {i: {i} for i in pieces}
    for a, b in _facing(pieces, boxes, edges):
        if groups[a] is groups[b]:
            continue
        members = groups[a] | groups[b]
        if _fit_together(sorted(members), boxes, frames):
            for i in members:
                groups[i] = members
    joined, used = [], set()
    for members in {id(g): g for g in groups.values() if len(g) > 1}.values():
        rows = sorted(members)
        used |= members
        weights = area(boxes[rows]).clamp(min=1e-6)  # a sliver at the edge must not pull the score of the rest down
        joined.append((_union(boxes[rows]), (scores[rows] * weights).sum() / weights.sum()))
    return joined, used


def _facing(pieces: Sequence[int], boxes: Tensor, edges: Tensor) -> Iterator[tuple[int, int]]:
    """Pairs of pieces of which one is cut at the side where the other is cut at the opposite one, and that meet; those
    that meet most come first."""
    pairs = []
    for k, a in enumerate(pieces):
        for b in pieces[k + 1 :]:
            faces = (edges[a, :2] & edges[b, 2:]) | (edges[a, 2:] & edges[b, :2])
            low, high = torch.maximum(boxes[a, :2], boxes[b, :2]), torch.minimum(boxes[a, 2:], boxes[b, 2:])
            if bool(faces.any()) and bool((high >= low).all()):
                pairs.append((float(iou(boxes[a][None], boxes[b][None])), a, b))
    yield from ((a, b) for _, a, b in sorted(pairs, reverse=True))


def _fit_together(rows: Sequence[int], boxes: Tensor, frames: Tensor) -> bool:
    """Whether each of the boxes is what its frame shows of the union of all."""
    union = _union(boxes[list(rows)])
    return all(float(iou(boxes[i][None], _through(union, frames[i])[None])) >= _SAME for i in rows)


def _union(boxes: Tensor) -> Tensor:
    return torch.cat((boxes[:, :2].amin(dim=0), boxes[:, 2:].amax(dim=0)))
