"""RetinaNet's anchors and which true boxes they may learn (Lin et al., arXiv 1708.02002, section 4).

Only for comparison: FCOS has no anchors. Nine anchors stand on every location of P3-P7: areas (4 * stride)^2
times 1, 2^(2/3), 2^(4/3), height : width 1/2, 1, 2. An anchor learns the box it overlaps most, if IoU >= 0.5.
A "low-quality match" also gives every box the anchors that overlap it most; such an anchor still learns the
box that *it* overlaps most, which may be another one (as in Detectron and maskrcnn-benchmark).

Those programs round the sides of the three shapes at the size of the stride to whole pixels and multiply
afterwards, as Faster R-CNN's code did (stride 16: 23 x 12, 16 x 16, 11 x 22): `rounded`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..boxes import iou
from ..types import Grid, Points

SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
RATIOS = (0.5, 1.0, 2.0)  # height : width
SIZE = 4  # of the smallest anchor's side, in strides
POSITIVE, LOW = 0.5, 0.4
_PAIRS = 2**21


class Matched(NamedTuple):
    """Which boxes [G] bool at least one anchor learns: without low-quality matches, with those of IoU >= 0.4,
    with all."""

    none: Tensor
    some: Tensor
    all: Tensor


def anchor_shapes(stride: int, rounded: bool = False) -> Tensor:
    """(width, height) [9,2] in pixels of the anchors on a level."""
    shapes = [(stride * r**-0.5, stride * r**0.5) for r in RATIOS]
    if rounded:
        shapes = [(round(w), round(round(w) * r)) for (w, _), r in zip(shapes, RATIOS, strict=True)]
    return torch.tensor([(SIZE * s * w, SIZE * s * h) for s in SCALES for w, h in shapes])


def grid_anchors(grid: Grid, rounded: bool) -> Tensor:
    """All anchors [cells * 9, 4] xyxy of a level, cell by cell, centred on its points."""
    x = grid.x0 + torch.arange(grid.width) * grid.step_x
    y = grid.y0 + torch.arange(grid.height) * grid.step_y
    centers = torch.stack((x.repeat(grid.height), y.repeat_interleave(grid.width)), dim=1)
    half = anchor_shapes(grid.stride, rounded) / 2
    return torch.cat((centers[:, None] - half, centers[:, None] + half), dim=2).flatten(0, 1)


def match(points: Points, boxes: Tensor, image: Tensor, rounded: bool = False) -> Matched:
    """The rule for the boxes [G,4] of several images that share their points; image [G] rising.

    Pairs with IoU >= 0.4 are found near each box; the few boxes without one are compared with all anchors.
    """
    anchors = torch.cat([grid_anchors(g, rounded) for g in points.grids])
    anchor, box, value = _close_pairs(points, boxes, rounded)
    place = image[box] * len(anchors) + anchor
    keys, place = place.unique(return_inverse=True)

    # what each anchor overlaps most; of equal IoU the first box
    top = torch.zeros(len(keys)).scatter_reduce_(0, place, value, "amax")
    first = torch.full((len(keys),), len(boxes), dtype=torch.int64)
    tied = value == top[place]
    first.scatter_reduce_(0, place[tied], box[tied], "amin")
    none = torch.zeros(len(boxes), dtype=torch.bool)
    none[first[top >= POSITIVE]] = True

    highest = torch.zeros(len(boxes)).scatter_reduce_(0, box, value, "amax")
    some = none.clone()
    some[first[place[value == highest[box]]]] = True

    every = some.clone()
    starts = torch.searchsorted(image, torch.arange(int(image.max()) + 2 if len(image) else 1))
    poor = (highest < LOW).nonzero()[:, 0]
    for part in poor.split(max(1, _PAIRS // len(anchors))):
        overlap = iou(boxes[part], anchors)
        row, which = (overlap == overlap.amax(dim=1, keepdim=True)).nonzero(as_tuple=True)
        for k, b in enumerate(part.tolist()):
            begin, end = starts[image[b]], starts[image[b] + 1]
            choice = iou(anchors[which[row == k]], boxes[begin:end]).argmax(dim=1)
            every[begin + choice] = True
    return Matched(none, some, every)


def _close_pairs(points: Points, boxes: Tensor, rounded: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(anchor [Q], box [Q], IoU [Q]) of all pairs with IoU >= 0.4.

    IoU >= t asks that the overlap along each axis is at least t of the longer side, so an anchor as wide as
    w has its centre within (w + box) / 2 - t * max(w, box) <= w * (1 / t - 1) / 2 of the box's.
    """
    near: list[tuple[Tensor, Tensor, Tensor]] = []
    sides, center = boxes[:, 2:] - boxes[:, :2], (boxes[:, :2] + boxes[:, 2:]) / 2
    start = 0
    for grid in points.grids:
        for k, (w, h) in enumerate(anchor_shapes(grid.stride, rounded).tolist()):
            ratio = sides / torch.tensor((w, h))
            product = ratio.clamp(max=1.0).prod(dim=1)  # IoU of the two, one in the other's middle
            best = product / (1 + ratio.prod(dim=1) - product)
            able = (best >= LOW - 1e-3).nonzero()[:, 0]
            reach = (1 / LOW - 1) / 2
            wide = min(grid.width, int(2 * reach * w / grid.step_x) + 3)
            high = min(grid.height, int(2 * reach * h / grid.step_y) + 3)
            for part in able.split(max(1, _PAIRS // (wide * high))):
                x, column = _window(center[part, 0], grid.x0, grid.step_x, grid.width, wide)
                y, row = _window(center[part, 1], grid.y0, grid.step_y, grid.height, high)
                b = boxes[part]
                # separable: the overlap along x of every column, along y of every row
                across = torch.minimum(x + w / 2, b[:, 2:3]) - torch.maximum(x - w / 2, b[:, 0:1])
                down = torch.minimum(y + h / 2, b[:, 3:4]) - torch.maximum(y - h / 2, b[:, 1:2])
                inside = down.clamp(min=0)[:, :, None] * across.clamp(min=0)[:, None, :]
                # a first, loose sieve; the IoU that decides is the one of `fcos.boxes` below
                union = (sides[part].prod(dim=1) + w * h)[:, None, None] - inside
                n, r, c = (inside >= (LOW - 1e-3) * union).nonzero(as_tuple=True)
                cell = row[n, r] * grid.width + column[n, c]
                near.append((start + cell * len(SCALES) * len(RATIOS) + k, part[n], cell))
        start += grid.cells * len(SCALES) * len(RATIOS)
    anchor = torch.cat([f[0] for f in near])
    box = torch.cat([f[1] for f in near])
    value = _paired_iou(torch.cat([grid_anchors(g, rounded) for g in points.grids])[anchor], boxes[box])
    keep = value >= LOW
    return anchor[keep], box[keep], value[keep]


def _window(center: Tensor, origin: float, step: float, cells: int, wide: int) -> tuple[Tensor, Tensor]:
    """Coordinates and indices [G,wide] of the cells around each centre [G], inside the grid."""
    first = ((center - origin) / step - (wide - 1) / 2).round().clamp(0, cells - wide).long()
    index = first[:, None] + torch.arange(wide)
    return origin + index * step, index


def _paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU [Q] of a [Q,4] and b [Q,4], computed as `iou` does, so that equal pairs give equal numbers."""
    inside = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(dim=1)
    area_a, area_b = ((s[:, 2] - s[:, 0]) * (s[:, 3] - s[:, 1]) for s in (a, b))
    return inside / (area_a + area_b - inside)
