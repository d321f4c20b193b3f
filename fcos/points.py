"""Where the grid looks: one point per cell of every feature level (1904.01355, section 3.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from .config import AssignConfig, Config, ModelConfig
from .errors import ModelError
from .types import Grid, Points, Predictions


def padded(size: tuple[int, int], divisor: int) -> tuple[int, int]:
    """The smallest (height, width) that holds `size` and is a multiple of `divisor`."""
    return -(-size[0] // divisor) * divisor, -(-size[1] // divisor) * divisor


def level_shapes(size: tuple[int, int], strides: tuple[int, ...]) -> list[tuple[int, int]]:
    """(height, width) of every level for an image of (height, width); convolutions round up."""
    return [(-(-size[0] // s), -(-size[1] // s)) for s in strides]


def level_of(stride: int) -> int:
    """The number of a level, as papers count the levels of pyramids: 4 of stride 16."""
    return stride.bit_length() - 1


def level_name(stride: int) -> str:
    """P4 of stride 16."""
    return f"P{level_of(stride)}"


def make_points(
    size: tuple[int, int], model: ModelConfig, assign: AssignConfig, device: torch.device | str = "cpu"
) -> Points:
    """All points of an image padded to `size` = (height, width): P = sum of the level's cells, row by row.

    A point lies at (index + point_offset) * spacing. The spacing is the stride, or, as torchvision has it,
    image size // grid size, which differs from the stride where the size is no multiple of it.
    """
    height, width = size
    limits = (0.0, *assign.ranges, float("inf"))
    grids: list[Grid] = []
    xy: list[Tensor] = []
    start = 0
    for stride, (rows, columns) in zip(model.strides, level_shapes(size, model.strides), strict=True):
        by_stride = model.point_spacing == "stride"
        step_x = float(stride if by_stride else width // columns)
        step_y = float(stride if by_stride else height // rows)
        x0, y0 = model.point_offset * step_x, model.point_offset * step_y
        grids.append(Grid(start, rows, columns, stride, x0, y0, step_x, step_y))
        x = torch.arange(columns, dtype=torch.float32, device=device) * step_x + x0
        y = torch.arange(rows, dtype=torch.float32, device=device) * step_y + y0
        xy.append(torch.stack((x.repeat(rows), y.repeat_interleave(columns)), dim=1))
        start += rows * columns

    def per_point(values: list[float] | tuple[float, ...]) -> Tensor:
        pieces = [torch.full((g.cells,), v, device=device) for g, v in zip(grids, values, strict=True)]
        return torch.cat(pieces)

    return Points(
        xy=torch.cat(xy),
        stride=per_point([float(g.stride) for g in grids]),
        lower=per_point(limits[:-1]),
        upper=per_point(limits[1:]),
        level=per_point([float(i) for i in range(len(grids))]).long(),
        grids=tuple(grids),
    )


def check_points(predictions: Predictions, wanted: int, config: Config) -> None:
    """ModelError where a backbone has maps of another size than the `wanted` locations are laid out for, as some have
    of images whose sides are no multiple of 32."""
    given = predictions.logits.shape[1]
    if given != wanted:
        raise ModelError(
            f"{config.model.backbone} has {given:,} locations where there should be {wanted:,}: data.divisor="
            f"{config.data.divisor} does not suit it; give data.divisor=32"
        )
