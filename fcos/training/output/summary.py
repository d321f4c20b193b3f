"""What a run is about to do, in aligned lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch import nn

from ...config import Config
from ...data.dataset import Dataset
from ...data.tiles import empty_share
from ...system.machine import has_bf16, training_dtype
from ...system.terminal import plural
from ..run import RunContext

_CLASSES = 10  # lines of a split; labels.png and `fcos data info` have all


class Steps(NamedTuple):
    """Of the run in all, and of an epoch."""

    total: int
    per_epoch: int


def summary(
    config: Config, network: nn.Module, data: Mapping[str, Dataset], steps: Steps, context: RunContext
) -> list[tuple[str, str]]:
    """(word, what it is) of the model, the data, sizes, steps and place of a run."""
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    first, sizes = config.data.sides(0.0), config.data.sides()
    early = f" ({_range(first)} in the first {config.data.first_share:.0%})" if first != sizes else ""
    device = context.fabric.device
    emulated = config.train.precision == "bf16" and not has_bf16(device)
    slow = [("slow", "train.precision=bf16 is emulated on this CPU: fp32 is far faster")] if emulated else []
    where = f"{context.world} x {device.type}" if context.world > 1 else str(device)
    dtype = training_dtype(config.train.precision, device)
    epochs = f"{steps.total / steps.per_epoch:.3g}"
    return [
        ("model", f"{config.name}, {config.model.backbone} backbone, {trained / 1e6:.1f} M trainable parameters"),
        *[(k, brief(d)) for k, d in data.items()],
        *tiles(data["train"], config.data.tile),
        *([] if "val" in data else [("val", "none, so nothing is judged: --val DATA")]),
        ("pixels", f"shorter side {_range(sizes)} in training{early}, {config.data.size} after"),
        (
            "steps",
            f"{steps.total:,} of {plural(config.train.batch, 'image')} "
            f"({epochs} epoch{'' if epochs == '1' else 's'}), "
            f"{config.train.optimizer} lr {config.train.lr:g}, on {where} in {dtype}",
        ),
        *slow,
        *_idle(config, steps),
        ("folder", str(context.folder.path)),
    ]


def _idle(config: Config, steps: Steps) -> list[tuple[str, str]]:
    """What is set and has no effect in a run of so many steps."""
    rows, plain, epochs = [], config.data.plain_epochs, -(-steps.total // steps.per_epoch)
    if 0 < epochs <= plain and (config.data.mosaic or config.data.mixup or config.data.paste):
        rows.append(("mixing", f"never: data.plain_epochs={plain} are all the epochs; give fewer"))
    if config.train.patience and not config.train.eval_every:
        rows.append(("patience", "without effect, as nothing is judged before the end; give train.eval_every=1"))
    return rows


def brief(dataset: Dataset) -> str:
    """The summary of a data set with at most ten of its classes."""
    lines = dataset.summary().splitlines()
    classes = [i for i, line in enumerate(lines) if line.startswith("  ") and not line.startswith("  note")]
    if len(classes) > _CLASSES:
        spare = classes[_CLASSES:]
        lines[spare[0] : spare[-1] + 1] = [f"  and {plural(len(spare), 'class')} more"]
    return "\n".join(lines)


def tiles(train: Dataset, size: int) -> list[tuple[str, str]]:
    """A row about the tiles that are learned from, if so."""
    tile = np.array([r.window is not None for r in train.records])
    bare = tile & np.array([bool(r.ignore.all()) for r in train.records])
    if not tile.any():
        return []
    row = f"{plural(int(tile.sum()), 'tile')} of {size} pixels, {bare.sum():,} without objects"
    drawn = round(float(empty_share(train)[bare].sum()))
    return [("tiles", row + (f", {drawn:,} of which an epoch shows" if drawn < bare.sum() else ""))]


def _range(sizes: Sequence[int]) -> str:
    return str(sizes[0]) if min(sizes) == max(sizes) else f"{min(sizes)}-{max(sizes)}"
