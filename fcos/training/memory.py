"""What training takes of the memory, and what is free."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

import torch

from ..config import Config, TrainConfig
from ..points import padded
from ..presets import PRESETS
from ..system.machine import free_memory, training_dtype
from .lanes import AUTO

# Bytes that a step in fp32 holds for each pixel of its padded images, with the backbone's norms folded and its first
# stages frozen, as the presets have them; bf16 holds that share. And for each class at each location, where the loss
# computes in fp32 in any case: the classes of LVIS take as much again as all else. (training)
PIXEL_BYTES = {"fcos-lite0": 610, "fcos-lite1": 770, "fcos-lite2": 835, "fcos-r50": 1215}
_BF16 = 0.5
_CLASS_BYTES = 24
# Of the free memory, for a step: a process on a CPU comes to 3 to 4.5 times what its steps hold (training). A GPU where
# the step was tried, and one where it was not (judgement).
CPU_SHARE, GPU_SHARE, UNTRIED_GPU_SHARE = 0.22, 0.85, 0.7


def keep_memory() -> None:
    """Ask glibc to keep the large blocks of a step for the next one; giving them back to the system and
    faulting them in again costs time on a CPU. Harmless elsewhere."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 2**31 - 1)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def free_bytes(device: torch.device) -> int:
    """Memory that training may take on `device`, what this process holds without use included."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # of runs before, which `keep_memory` kept
    return max(free_memory(), 0)


def step_bytes(config: Config, device: torch.device, classes: int, world: int = 1) -> float:
    """About what a training step of one of `world` processes holds at most, with images as wide as the settings allow;
    0 where nobody measured it: another network, other frozen stages, activations computed again, torch.compile."""
    data, train = config.data, config.train
    known = PRESETS[config.name]() if config.name in PIXEL_BYTES else None
    if known is None or known.model != config.model or known.train.freeze_stages != train.freeze_stages:
        return 0.0
    if train.checkpointing or train.compile:
        return 0.0
    side = data.largest_side()
    height, width = padded((side, max(side, round(data.max_size * side / data.size))), data.divisor)
    share = _BF16 if training_dtype(train.precision, device) == "bf16" else 1.0
    lanes = (train.lanes or (1 if config.name == "fcos-r50" else AUTO)) if device.type == "cpu" and world == 1 else 1
    locations = sum(-(-height // stride) * -(-width // stride) for stride in config.model.strides)
    image = PIXEL_BYTES[config.name] * height * width * share + _CLASS_BYTES * classes * locations
    return image * _at_once(train, min(lanes, torch.get_num_threads()), world)


def _at_once(train: TrainConfig, lanes: int, world: int) -> int:
    """Images of which activations are held at one time: the lanes compute pieces of different parts side by side."""
    batch = train.batch // world
    part = -(-batch // train.accumulate)
    return min(batch, lanes * -(-part // lanes))


def training_bytes(config: Config, device: torch.device, classes: int, world: int = 1) -> float:
    """What a process comes to beyond what it had before its first step; 0 where that is not known."""
    return step_bytes(config, device, classes, world) / (UNTRIED_GPU_SHARE if device.type == "cuda" else CPU_SHARE)


def shortage(config: Config, device: torch.device, classes: int, world: int = 1, here: int = 1) -> list[str]:
    """A line to tell before the first step where a CPU's memory may not be enough for the `here` of `world` processes
    that this machine has: the system ends a process then, without a word."""
    need = here * training_bytes(config, device, classes, world)
    free = free_bytes(device) if need and device.type == "cpu" else need
    if need <= free:
        return []
    batch, now = config.train.batch // world, config.train.accumulate
    more = [n for n in range(now + 1, batch + 1) if batch % n == 0]
    cut = ((n, config.override(f"train.accumulate={n}")) for n in more)
    parts = [(n, here * training_bytes(one, device, classes, world)) for n, one in cut]
    least = min(parts, key=lambda one: one[1], default=(now, need))
    number, takes = next((one for one in parts if one[1] <= free), least)
    advice = f"train.accumulate={number} takes {takes / 1e9:.1f} and learns the same"
    if takes > free:
        smaller = "a smaller data.size or model, or train.checkpointing=true, takes less"
        advice = f"{advice}; {smaller}" if takes < need else smaller
    return [f"memory    training may take {need / 1e9:.1f} GB and {free / 1e9:.1f} are free; {advice}"]
