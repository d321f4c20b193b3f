"""What stands before the first step: processes and precision, memory, initial weights."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import REACH, Config
from ..errors import ConfigError, DeviceError
from ..network import weights
from ..network.backbones import RANDOM, load_backbone_weights
from ..network.folding import fold_frozen
from ..network.model import FCOS
from ..network.recompute import recompute
from ..system.machine import pick_device, training_dtype
from ..system.stderr import quieter
from ..system.terminal import plural
from ..system.threads import CUBLAS
from ..types import Classes
from ..zoo.find import find_weights
from ..zoo.models import known_models
from .distributed import launched
from .optimizer import Average

FABRIC = "lightning_fabric"  # its logger


def be_deterministic() -> None:
    """Let torch refuse operations whose result differs from run to run; cuBLAS needs its own word. `usual_torch` takes
    both back."""
    os.environ.setdefault(CUBLAS, ":4096:8")
    torch.use_deterministic_algorithms(True)


def make_fabric(config: Config, device: str, devices: int, nodes: int) -> Any:
    """lightning-fabric for the device, precision and number of processes asked for, or started by torchrun or srun.

    DeviceError when the machine does not have what is asked for.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    devices, nodes = launched(devices, nodes)
    where = pick_device(device)
    if devices * nodes > 1 and where.index is not None:
        raise DeviceError(f"--device {device} names one device; for {devices * nodes} processes give {where.type}")
    # DDP waits for the gradient of every weight, and HRNet has some that only a level of stride 4 would use.
    unused = config.model.backbone.startswith("hrnet")
    ddp = "ddp_find_unused_parameters_true" if unused else "ddp"
    try:
        with quieter(logging.WARNING, FABRIC):
            return Fabric(
                accelerator=where.type,
                devices=[where.index] if where.type == "cuda" and where.index is not None else devices,
                num_nodes=nodes,
                strategy=ddp if devices * nodes > 1 else "auto",
                precision="bf16-mixed" if training_dtype(config.train.precision, where) == "bf16" else "32-true",
            )
    except (MisconfigurationException, RuntimeError, ValueError) as error:
        line = " ".join(str(error).split())
        raise DeviceError(f"{devices} processes on {nodes} machines with {where.type}: {line}") from error


def untrained_score(config: Config) -> list[str]:
    """A line where nothing trains the centerness branch and the scores multiply by it all the same."""
    if config.loss.centerness_weight or config.decode.by_class:
        return []
    return [
        "loss.centerness_weight=0 leaves the centerness branch untrained, and scores use it; add decode.score=class"
    ]


def too_large_to_say(config: Config) -> list[str]:
    """Lines where levels learn larger distances, or images may hold larger boxes, than bins of distances can say."""
    if config.model.regression != "bins":
        return []
    lines = [
        f"model.regression=bins reaches {REACH * stride} px at stride {stride}, and assign.ranges wants up to "
        f"{limit:g} there; choose smaller ones"
        for stride, limit in zip(config.model.strides, config.assign.ranges, strict=False)
        if limit >= REACH * stride  # the mean of the bins comes near to the last one and no further
    ]
    most = 2 * REACH * config.model.strides[-1]  # from a location in the middle
    if config.data.max_size > most:
        lines.append(
            f"model.regression=bins finds no box of more than {most} px, and images have up to {config.data.max_size}; "
            "add a level to model.strides"
        )
    return lines


def wants_channels_last(network: FCOS, asked: bool | str, device: torch.device) -> bool:
    """`train.channels_last`, with "auto" decided: everywhere but for dense backbones on a CPU whose widest vectors are
    AVX2's.

    There the backward pass of a 3x3 convolution is slower in that layout, while depthwise ones gain from it
    (benchmarks/layout.py, docs/performance.md).
    """
    if asked != "auto":
        return bool(asked)
    if device.type != "cpu" or torch.backends.cpu.get_cpu_capability() != "AVX2":
        return True
    return network.backbone.depthwise


def make_ready(network: FCOS, config: Config, device: torch.device) -> Average | None:
    """Freeze, move and speed up a filled network as the settings want it; returns its moving average, if any."""
    network.backbone.train().freeze(config.train.freeze_stages)
    if wants_channels_last(network, config.train.channels_last, device):
        network.to(memory_format=torch.channels_last)
    network.to(device)
    average = Average(network, config.train.ema) if config.train.ema else None
    if config.model.backbone_norm == "frozen":
        fold_frozen(network.backbone.body)
    if config.train.checkpointing:
        recompute(network)
    return average


def initialise(network: FCOS, config: Config, classes: Classes, init: str | None) -> list[str]:
    """Fill a fresh network; one line per thing done. See `train` for `init`."""
    path = bundled(config)
    if init == "backbone" and path is None:
        raise ConfigError(f"--init backbone: the package has no detector {config.name} with this backbone; give none")
    if init == "none" or (init is None and path is None):
        return [_of_backbone(network, config)]
    name = config.name if init is None or init == "backbone" else init
    state, settings, theirs, _ = weights.read(find_weights(name))
    other_backbone = settings.model.backbone != config.model.backbone
    if init is not None and not other_backbone and config.model.backbone_weights not in ("auto", "none"):
        raise ConfigError(
            f"--init {init} and model.backbone_weights={config.model.backbone_weights} both say what to start from; "
            "leave one out"
        )
    done: list[str] = []
    shared: list[str] = []
    if other_backbone:  # with tensors of the same name and shape
        done.append(_of_backbone(network, config))
        state = {k: v for k, v in state.items() if not k.startswith("backbone.")}
    if init == "backbone":
        state = {k: v for k, v in state.items() if k.startswith("backbone.")}
    elif theirs.names != classes.names:  # the same number of other classes is no reason to keep their layer
        state, shared = _with_shared_classes(network, state, theirs, classes)
    kept, fresh = weights.transfer(network, state)
    if not kept:
        raise ConfigError(f"--init {name}: none of its weights fit this network")
    if other_backbone:  # which has a line of its own
        fresh = [k for k in fresh if not k.startswith("backbone.")]
    kept_and_fresh = f"{plural(len(kept), 'tensor')} kept ({_layers(kept, fresh)}), fresh: {_layers(fresh, kept)}"
    done.append(f"weights from {name}: {kept_and_fresh}")
    if shared:
        more = f" and {len(shared) - 8} more" if len(shared) > 8 else ""
        done.append(f"it knows {len(shared)} of the {len(classes)} classes already: {', '.join(shared[:8])}{more}")
    return done


def _of_backbone(network: FCOS, config: Config) -> str:
    """Fill the backbone alone; the line says what keeps a random one from learning."""
    line, stages = load_backbone_weights(network.backbone, config.model), config.train.freeze_stages
    if line != RANDOM:
        return line
    better = []
    if stages:
        line += f", and train.freeze_stages={stages} keeps {plural(stages, 'stage')} so"
        better.append("train.freeze_stages=0")
    if network.backbone.frozen_norm:
        line += ", with norms that do not learn"
        better.append("model.backbone_norm=batch")
    return line + (f"; give {' '.join(better)}" if better else "")


# COCO's names beside VOC's, for the same objects.
_SAME_CLASS = {"airplane": "aeroplane", "motorcycle": "motorbike", "couch": "sofa", "tv": "tvmonitor"}


def _same_class(name: str) -> str:
    """What two names of one class share: "Potted plant" and "pottedplant", "airplane" and "aeroplane"."""
    plain = "".join(c for c in name.casefold() if c.isalnum())
    return _SAME_CLASS.get(plain, plain)


def _with_shared_classes(
    network: FCOS, state: dict[str, Tensor], theirs: Classes, classes: Classes
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights with a class layer for these classes: a row of the other detector's where it has a class of the same
    name, else the network's fresh row. Also the names that were found; without any the layer is left out."""
    state = dict(state)
    rows = {_same_class(name): row for row, name in enumerate(theirs.names)}
    pairs = [(mine, rows[key]) for mine, name in enumerate(classes.names) if (key := _same_class(name)) in rows]
    for name, fresh in network.head.class_logits.state_dict(prefix="head.class_logits.").items():
        other = state.pop(name, None)
        if other is not None and pairs and other.shape[1:] == fresh.shape[1:]:
            fresh = fresh.clone()
            for mine, row in pairs:
                fresh[mine] = other[row].to(fresh.dtype)
            state[name] = fresh
    return state, [classes.names[mine] for mine, _ in pairs]


def _layers(names: Sequence[str], others: Sequence[str]) -> str:
    """Tensors by the largest part of the network that holds none of the others: "backbone, fpn, head.scales"."""
    parts: dict[str, None] = {}
    for name in names:
        path = name.split(".")
        whole = [".".join(path[:n]) for n in range(1, len(path) + 1)]
        parts[next(w for w in whole if w == name or not any(f"{o}.".startswith(f"{w}.") for o in others))] = None
    return ", ".join(list(parts)[:12]) + (f" and {len(parts) - 12} more" if len(parts) > 12 else "") or "nothing"


def known_classes(config: Config, classes: Classes, init: str | None) -> list[str]:
    """The classes that the detector which a run with this `init` (see `train`) begins from knows by their names."""
    if init in ("none", "backbone") or (init is None and bundled(config) is None):
        return []
    theirs = set(map(_same_class, weights.header(find_weights(init or config.name))[1].names))
    return [name for name in classes.names if _same_class(name) in theirs]


def bundled(config: Config) -> Path | None:
    """The detector of this name in the package, where its backbone is the config's and no other weights were asked
    for."""
    entry = known_models().get(config.name)
    path = None if entry is None else entry.bundled()
    if path is None or config.model.backbone_weights != "auto":
        return None
    return path if weights.header(path)[0].model.backbone == config.model.backbone else None
