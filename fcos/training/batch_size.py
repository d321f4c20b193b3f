"""How many images fit into memory: `train.batch=auto`."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..assign import assign_batch
from ..config import Config
from ..losses import Assignment, fcos_loss
from ..network.model import FCOS
from ..points import check_points, make_points, padded
from ..presets import PRESETS
from ..system.terminal import plural
from ..types import Target
from .memory import CPU_SHARE, GPU_SHARE, free_bytes
from .step import in_layout_of, predictions

if TYPE_CHECKING:
    from lightning_fabric import Fabric

GPU_LIMIT = 64  # images per process; larger batches are rarely wanted and need another learning rate


def largest_batch(peak: Callable[[int], int | None], room: int, limit: int, tries: int = 32) -> int:
    """The most images 1..limit whose step needs at most `room` bytes; at least 1.

    `peak(n)`: bytes of a step of n images, None when it ran out of memory. It is asked for 1, 2, 4, ... at most
    `tries` times; between and beyond them memory is taken to grow by the same amount with each image.
    """
    known: list[tuple[int, int]] = []
    size, ceiling = 1, limit
    while size <= limit and len(known) < tries:
        used = peak(size)
        if used is None or used > room:
            ceiling = size - 1
            break
        known.append((size, used))
        size *= 2
    if len(known) < 2:
        return max(1, min(ceiling, len(known)))
    (n, used), (m, more) = known[-2:]
    each = (more - used) / (m - n)
    fits = m + int((room - more) / each) if each > 0 else ceiling
    return max(1, min(fits, ceiling))


def peak_bytes(step: Callable[[], object], device: torch.device) -> int | None:
    """Most memory that `step` held at one time beyond what was held before; None when there was not enough."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        try:
            step()
            torch.cuda.synchronize(device)
        except torch.OutOfMemoryError:
            return None
        finally:
            torch.cuda.empty_cache()
        return torch.cuda.max_memory_allocated(device) - before
    with _Tracker() as tracker:
        step()
    result: int | None = tracker.peak
    return result


class _Tracker(TorchDispatchMode):
    """Bytes of all storages made while it is entered and not yet freed; their peak."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(s) for s in self._storages((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for storage in self._storages(out):
            if id(storage) not in self.known and id(storage) not in given:
                self.known.add(id(storage))
                self.held += storage.nbytes()
                weakref.finalize(storage, self._freed, id(storage), storage.nbytes())
        self.peak = max(self.peak, self.held)
        return out

    def _freed(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.held -= size

    @staticmethod
    def _storages(tree: Any) -> list[torch.UntypedStorage]:
        return [t.untyped_storage() for t in tree_leaves(tree) if isinstance(t, torch.Tensor)]


def auto_batch(network: FCOS, config: Config, fabric: Fabric, images: int, here: int) -> tuple[int, str]:
    """`train.batch` for this machine, over the processes of `fabric`, and a line that says why. here: how many of
    them are on this machine.

    On a GPU the step grows until memory runs out; on the CPU, where larger batches are not faster, two sizes are
    measured and the preset's batch is the most. A data set of `images` gives at least 8 steps an epoch. The
    weights, the statistics of the network and its gradients stay as they were.
    """
    device, world = fabric.device, fabric.world_size
    parts = world * config.train.accumulate
    preset = PRESETS[config.name]().train.batch if config.name in PRESETS else 16
    most = GPU_LIMIT * world if device.type == "cuda" else preset
    limit = max(1, min(most, images // 8) // parts)
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    state = 4 * trainable * ((2 if config.train.optimizer == "adamw" else 1) + (world > 1))
    if device.type == "cuda":
        room, tries = int(GPU_SHARE * free_bytes(device)) - state, 32
    else:
        room, tries = int(CPU_SHARE * free_bytes(device) / here) - state, 2

    def peak(number: int) -> int | None:
        try:
            with fabric.autocast():
                return peak_bytes(lambda: made_up_step(network, config, device, number), device)
        finally:
            network.zero_grad(set_to_none=True)

    try:
        fits = largest_batch(peak, room, limit, tries)
    finally:
        for name, value in network.named_buffers():
            value.data.copy_(buffers[name])
    why = "the most that is sensible here" if fits == limit else f"what fits into {room / 1e9:.1f} GB"
    line = f"train.batch=auto: {plural(fits * parts, 'image')}, {why}; train.lr={config.train.lr:g} stays"
    return fits * parts, line + (f", the preset's for {plural(preset, 'image')}" if fits * parts != preset else "")


def made_up_step(network: FCOS, config: Config, device: torch.device, number: int) -> None:
    """Forward and backward of `number` made-up images of the largest size that training draws."""
    data = config.data
    side = data.largest_side()
    longer = max(side, round(data.max_size * side / data.size))
    height, width = padded((side, longer), data.divisor)
    points = make_points((height, width), config.model, config.assign, device)
    boxes = torch.tensor([[width * 0.1, height * 0.1, width * f, height * f] for f in (0.2, 0.4, 0.9)], device=device)
    labels = torch.arange(3, device=device) % network.num_classes
    targets = [Target(boxes, labels, torch.zeros(3, dtype=torch.bool, device=device))] * number
    images = torch.randint(0, 256, (number, 3, height, width), dtype=torch.uint8, device=device)
    images = in_layout_of(network, images)
    assigned = Assignment.of(points, targets, assign_batch(points, targets, config.assign))
    found = predictions(network.train(), images)
    check_points(found, assigned.index.shape[1], config)
    losses = fcos_loss(found, assigned, config.loss, config.model)
    losses.total().backward()
