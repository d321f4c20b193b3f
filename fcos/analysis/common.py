"""What the studies share: boxes as the network sees them, tables for a terminal, a progress bar."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..config import DataConfig
from ..data.image import resized_shape
from ..errors import DataError
from ..evaluation.results import match_classes
from ..types import Classes, Points

if TYPE_CHECKING:
    from ..data.dataset import Dataset

T = TypeVar("T")


def label_mapping(model: Classes, data: Classes) -> Tensor:
    """For each class of the model its label in the data, -1 for none [C]; DataError where no class fits."""
    mapping = match_classes(model, data, allow_missing=True)
    if (mapping < 0).all():
        match_classes(model, data)  # raises, and names both sides
    return torch.from_numpy(mapping)


def with_files(dataset: Dataset) -> Dataset:
    """The data set as it is; DataError where a picture has no file."""
    absent = next((r for r in dataset.records if r.path is None), None)
    if absent is not None:
        raise DataError(f"{dataset.root}: there is no picture file for {absent.file_name}")
    return dataset


class Scene(NamedTuple):
    """The boxes of one picture in pixels of the network input: number of the record, boxes [G,4] xyxy,
    labels [G], ignore [G] (crowd and difficult)."""

    record: int
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray


def scenes_by_size(dataset: Dataset, data: DataConfig) -> dict[tuple[int, int], list[Scene]]:
    """Every picture's boxes at the input size of `data`, by the padded (height, width) of the input."""
    groups: dict[tuple[int, int], list[Scene]] = {}
    for index, record in enumerate(dataset.records):
        height, width = resized_shape(record.size, data.size, data.max_size, data.round)
        ratio = np.array([width / record.size[1], height / record.size[0]] * 2, np.float32)
        padded = tuple(-(-side // data.divisor) * data.divisor for side in (height, width))
        groups.setdefault(padded, []).append(  # type: ignore[arg-type]
            Scene(index, record.boxes * ratio, record.labels, record.ignore)
        )
    return groups


def stack(scenes: Sequence[Scene]) -> tuple[Tensor, Tensor, Tensor]:
    """(boxes [G,4], labels [G], image [G]) of several scenes, ignored boxes left out; image counts from 0."""
    boxes = [s.boxes[~s.ignore] for s in scenes]
    image = np.repeat(np.arange(len(scenes)), [len(b) for b in boxes])
    labels = np.concatenate([s.labels[~s.ignore] for s in scenes]).astype(np.int64)
    return torch.from_numpy(np.concatenate(boxes).astype(np.float32)), torch.from_numpy(labels), torch.from_numpy(image)


def on_cpu(points: Points) -> Points:
    """The same points in main memory."""
    xy, stride, lower, upper, level, grids = points
    return Points(xy.cpu(), stride.cpu(), lower.cpu(), upper.cpu(), level.cpu(), grids)


def track(items: Iterable[T], total: int, label: str, weight: Any = None) -> Iterator[T]:
    """`items` with a bar on stderr; nothing is shown where stderr is no terminal. weight(item): its share."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True)
    ) as bar:
        task = bar.add_task(label, total=total)
        for item in items:
            yield item
            bar.advance(task, 1 if weight is None else weight(item))


def table(head: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> str:
    """Aligned columns; the first `left` of them flush left, numbers flush right."""
    cells = [[str(c) for c in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def data_name(root: str) -> str:
    """A short name of a data set: the folder, also where `root` is a file in it."""
    path = Path(root)
    return path.parent.name if path.suffix else path.name


def percent(value: float | None, digits: int = 2) -> str:
    """0.984 -> '98.40'; '-' where there is nothing."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def plain(value: Any) -> Any:
    """JSON-ready: numpy numbers and arrays become Python's, NaN becomes None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
