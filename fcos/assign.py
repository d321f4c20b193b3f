"""Which point learns which box (1904.01355 sections 3.1-3.2; center sampling: 2006.09214 section 3.1).

A point is a candidate for a box when it lies inside it, near its centre, and max(l, t, r, b) falls in the
range of the point's level. Among its candidates it learns the smallest box; equal areas go to the box that
comes first. `assign` states this plainly on all P x G pairs; `assign_batch` visits only the cells near each
box and gives the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .boxes import area, to_distances
from .config import AssignConfig
from .types import IGNORED, NEGATIVE, Grid, Points, Target


def candidates(points: Points, boxes: Tensor, cfg: AssignConfig) -> Tensor:
    """[P,G] bool: may the point learn the box? boxes [G,4]. (Best possible recall and ambiguity follow.)"""
    spots = _Spots(points.xy[:, None], points.stride[:, None], points.lower[:, None], points.upper[:, None])
    return _fits(spots, boxes[None], cfg)


def assign(points: Points, boxes: Tensor, cfg: AssignConfig) -> Tensor:
    """[P] int64: index of the smallest candidate box of each point, -1 for none. boxes [G,4]."""
    if len(boxes) == 0:
        return torch.full((len(points.xy),), NEGATIVE, dtype=torch.int64, device=points.xy.device)
    rank = smallest_first(boxes, cfg)
    cost = torch.where(candidates(points, boxes, cfg), rank[None], len(boxes))
    best, index = cost.min(dim=1)
    return torch.where(best < len(boxes), index, NEGATIVE)


def assign_batch(points: Points, targets: Sequence[Target], cfg: AssignConfig) -> Tensor:
    """[N,P] int64: for each image the index of the box each point learns, -1 for none, -2 for points that
    learn nothing because they lie in an ignore region (crowd, difficult)."""
    device, count = points.xy.device, len(points.xy)
    index = torch.full((len(targets), count), NEGATIVE, dtype=torch.int64, device=device)
    boxes = torch.cat([t.boxes for t in targets]) if targets else points.xy.new_zeros(0, 4)
    if len(boxes) == 0:
        return index
    sizes = [len(t.boxes) for t in targets]
    image = torch.repeat_interleave(torch.arange(len(targets)), torch.tensor(sizes)).to(device)
    within = torch.cat([torch.arange(n) for n in sizes]).to(device)
    ignore = torch.cat([t.ignore for t in targets])
    any_ignored = bool(ignore.any())
    if any_ignored:
        ignored_boxes, ignored_image = boxes[ignore], image[ignore]
        boxes, image, within = boxes[~ignore], image[~ignore], within[~ignore]

    if len(boxes):
        rank = smallest_first(boxes, cfg)
        # int32, since torch 2.11 has no least of int64 on Apple's GPUs
        smallest = rank.int()
        best = torch.full((len(targets) * count,), len(boxes), dtype=torch.int32, device=device)
        for level, grid in enumerate(points.grids):
            cell, fits = _near(points, level, grid, boxes, cfg)
            spot = torch.where(fits, image[:, None] * count + cell, 0)
            cost = torch.where(fits, smallest[:, None], len(boxes))
            best.scatter_reduce_(0, spot.flatten(), cost.flatten(), "amin")
        by_rank = torch.full((len(boxes) + 1,), NEGATIVE, dtype=torch.int64, device=device)
        by_rank[rank] = within
        index = by_rank[best.long()].view(len(targets), count)

    if any_ignored:
        inside = (to_distances(points.xy[None], ignored_boxes[:, None]).amin(dim=2) > 0).float()
        covered = inside.new_zeros(len(targets), count).index_add_(0, ignored_image, inside)
        index = torch.where((covered > 0) & (index == NEGATIVE), IGNORED, index)
    return index


def candidate_pairs(points: Points, boxes: Tensor, cfg: AssignConfig) -> tuple[Tensor, Tensor]:
    """(point [Q], box [Q]) of every pair that `candidates` allows, boxes [G,4]; needs memory for Q, not P x G."""
    spots, owners = [boxes.new_zeros(0, dtype=torch.int64)], [boxes.new_zeros(0, dtype=torch.int64)]
    longer = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1)
    for level, grid in enumerate(points.grids):
        lower, upper = float(points.lower[grid.start]), float(points.upper[grid.start])
        # max(l, t, r, b) of a point inside a box lies between half its longer side and all of it
        able = ((longer * 1.001 >= lower) & (longer * 0.499 <= upper)).nonzero()[:, 0]
        wide, high = _window(level, grid, cfg)
        for part in able.split(max(1, 2**21 // (wide * high))):
            cell, fits = _near(points, level, grid, boxes[part], cfg)
            row, column = fits.nonzero(as_tuple=True)
            spots.append(cell[row, column])
            owners.append(part[row])
    return torch.cat(spots), torch.cat(owners)


class _Spots(NamedTuple):
    """Points in a shape that broadcasts against that of the boxes: xy [...,2], the others [...]."""

    xy: Tensor
    stride: Tensor
    lower: Tensor
    upper: Tensor


def _fits(spots: _Spots, boxes: Tensor, cfg: AssignConfig) -> Tensor:
    """The rule itself, on broadcast shapes: boxes [...,4]."""
    xy, stride, lower, upper = spots
    distances = to_distances(xy, boxes)
    reach = distances.amax(dim=-1)
    if cfg.range_rule == "half-open":
        in_range = (reach > lower) & (reach <= upper)
    elif cfg.range_rule == "inclusive":
        in_range = (reach >= lower) & (reach <= upper)
    else:
        in_range = (reach > lower) & (reach < upper)
    fits = in_range & (distances.amin(dim=-1) > 0)
    if cfg.center_radius > 0:
        center = (boxes[..., :2] + boxes[..., 2:]) / 2
        radius = cfg.center_radius * stride
        if cfg.center_rule == "region":
            low = torch.maximum(center - radius[..., None], boxes[..., :2])
            high = torch.minimum(center + radius[..., None], boxes[..., 2:])
            fits &= torch.minimum(xy - low, high - xy).amin(dim=-1) > 0
        else:
            fits &= (xy - center).abs().amax(dim=-1) < radius
    return fits


def smallest_first(boxes: Tensor, cfg: AssignConfig) -> Tensor:
    """[G] int64: place of each box in the order of preference; the first is taken first."""
    if cfg.area_rule == "float32":  # torchvision, detectron2: ties areas up to 8 square pixels apart
        cost = -(1e8 - area(boxes, cfg.area_plus_one))
    elif cfg.area_rule == "rounded":
        cost = area(boxes, cfg.area_plus_one)
    else:  # products of float32 differences are exact in float64, which Apple's GPUs do not have
        wide = (boxes.cpu() if boxes.device.type == "mps" else boxes).double()
        cost = area(wide, cfg.area_plus_one)
    order = cost.argsort(stable=True)
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return rank.to(boxes.device)


def _near(points: Points, level: int, grid: Grid, boxes: Tensor, cfg: AssignConfig) -> tuple[Tensor, Tensor]:
    """Point numbers [G,K] of the cells of one level that may fit each box, and whether they do [G,K].

    K bounds the cells that the rule can reach: the centre region, or a box of at most twice the upper limit.
    """
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    lower, upper = points.lower[grid.start], points.upper[grid.start]
    wide, high = _window(level, grid, cfg)
    # the window is centred on the box centre and slides to stay inside the grid
    first_x = ((center[:, 0] - grid.x0) / grid.step_x - (wide - 1) / 2).round().clamp(0, grid.width - wide)
    first_y = ((center[:, 1] - grid.y0) / grid.step_y - (high - 1) / 2).round().clamp(0, grid.height - high)
    column = first_x.long()[:, None] + torch.arange(wide, device=boxes.device)
    row = first_y.long()[:, None] + torch.arange(high, device=boxes.device)
    cell = (grid.start + row[:, :, None] * grid.width + column[:, None, :]).flatten(1)
    spots = _Spots(points.xy[cell], points.stride[cell], lower, upper)
    return cell, _fits(spots, boxes[:, None], cfg)


def _window(level: int, grid: Grid, cfg: AssignConfig) -> tuple[int, int]:
    """(columns, rows) of the window of cells that `_near` visits around each box."""
    limit = (0.0, *cfg.ranges, float("inf"))[level + 1]
    reach = cfg.center_radius * grid.stride if cfg.center_radius > 0 else limit
    if reach == float("inf"):
        return grid.width, grid.height
    return min(grid.width, int(2 * reach / grid.step_x) + 3), min(grid.height, int(2 * reach / grid.step_y) + 3)
