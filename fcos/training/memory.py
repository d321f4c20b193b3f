"""What a training step takes of the memory, and what there is for it."""

from __future__ import annotations

import torch

from ..config import Config
from ..machine import free_memory, training_dtype
from ..presets import PRESETS

# Of the free memory; the rest is for fragments, the loader and evaluation. On a CPU a process keeps 2 to 3 times what
# its steps hold, since the shapes change from step to step (docs/measurements/training.md).
GPU_SHARE, CPU_SHARE = 0.85, 0.4
_UNSEEN = 0.7  # of a GPU's, for a step that was not tried there (judgement)
# Bytes that a step in fp32 holds for each pixel of its padded images, and what bf16 has of them (the same page)
PIXEL_BYTES = {"fcos-lite0": 850, "fcos-lite1": 1090, "fcos-lite2": 1190, "fcos-r50": 2110}
_HALVED = 0.55


def step_bytes(model: str, batch: int, side: int, longest: int) -> float:
    """The most that a step in fp32 takes of the preset `model` with images of `side` x `longest` pixels; 0 for one that
    was not measured."""
    return PIXEL_BYTES.get(model, 0) * batch * side * longest


def free_bytes(device: torch.device) -> int:
    """Memory that a step may use on `device`, this process's own cache included."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free_memory()


def step_room(device: torch.device, precision: str) -> float:
    """The bytes that a step may take there, as many as it would in fp32. precision: `train.precision`."""
    share = _UNSEEN if device.type == "cuda" else CPU_SHARE
    return share * free_bytes(device) / (_HALVED if training_dtype(precision, device) == "bf16" else 1.0)


def shortage(config: Config, device: torch.device, processes: int = 1) -> list[str]:
    """A line to tell before the first step where a CPU's memory may not be enough for it: the system ends the process
    then, without a word. Only for networks that were measured."""
    data, train = config.data, config.train
    known = PRESETS.get(config.name)
    if device.type != "cpu" or known is None or known().model != config.model or train.checkpointing:
        return []
    images = train.batch // (train.accumulate * processes)
    side = data.largest_side()
    need = step_bytes(config.name, images, side, round(data.max_size * side / data.size))
    room = step_room(device, train.precision) / processes
    if need <= room or images < 2:
        return []
    parts = next(n for n in range(2, images + 1) if images % n == 0 and (need / n <= room or n == images))
    told = (
        f"training may take {need / room * free_bytes(device) / 1e9:.0f} GB and {free_bytes(device) / 1e9:.0f} are free"
    )
    return [f"memory    {told}; train.accumulate={parts * train.accumulate} takes less and learns the same"]
