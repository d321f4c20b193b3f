"""What a family of checkpoints is, and how its tensors come in and go out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..config import Config
from ..errors import ModelError
from ..network.model import FCOS
from .rules import SCALES, Rule, deformable_weights, join_scales, split_scales, to_ours, to_theirs

_COUNT = "num_batches_tracked"


@dataclass(frozen=True)
class Reading:
    """What is known of a checkpoint when its dialect is chosen: our names and shapes, and the file's words."""

    state: Mapping[str, Tensor]
    info: Mapping[str, Any]
    backbone: str
    levels: int

    @property
    def file(self) -> str:
        return str(self.info.get("file", "")).lower()


@dataclass(frozen=True)
class Family:
    """One published code base.

    rules: names, ours and theirs. dialects: those its checkpoints may follow, the usual one first.
    settings(reading) -> (dialect, settings beyond dialect and shapes, reasons). counts(config): does its
    file hold BatchNorm's num_batches_tracked? spare: their names (prefixes) that have no place in our model, with
    the reason. aliases: patterns of older spellings -> today's.
    """

    name: str
    about: str
    rules: tuple[Rule, ...]
    dialects: tuple[str, ...]
    settings: Callable[[Reading], tuple[str, dict[str, Any], list[str]]]
    entry: str | None = None
    scale_shape: tuple[int, ...] = (1,)
    counts: Callable[[Config], bool] = field(default=lambda config: config.model.backbone_norm == "batch")
    spare: tuple[tuple[str, str], ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()

    def claims(self, state: Mapping[str, Tensor]) -> str | None:
        """The tensor that only this family has, where it is there: the convolution that gives the classes."""
        mark = to_theirs("head.class_logits.weight", self.rules)
        return next((key for key in state if self.modern(key) == mark), None)

    def modern(self, key: str) -> str:
        """Their name as of today."""
        for old, new in self.aliases:
            key = re.sub(old, new, key)
        return key

    def translate(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str], list[str]]:
        """(our names -> tensors, unknown names, "name (reason)" of tensors that our model does not hold)."""
        ours: dict[str, Tensor] = {}
        unknown: list[str] = []
        spare: list[str] = []
        for original, tensor in state.items():
            key = self.modern(original)
            reason = next((why for prefix, why in self.spare if key.startswith(prefix)), None)
            name = to_ours(key, self.rules) if reason is None else None
            if reason is not None:
                spare.append(f"{original} ({reason})")
            elif name is None or name in ours:
                unknown.append(original)
            else:
                ours[name] = tensor
        return join_scales(ours), unknown, spare

    def spell(self, state: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
        """Our tensors under their names and in their shapes; ModelError lists what they have no name for."""
        state = split_scales(state)
        deformable = deformable_weights(state)
        counts = self.counts(config)
        theirs: dict[str, Tensor] = {}
        homeless: list[str] = []
        for key, tensor in state.items():
            if key.endswith(_COUNT) and not counts and ".norm." not in key:
                continue
            name = to_theirs(key, self.rules, key in deformable)
            if name is None or name in theirs:
                homeless.append(key)
            else:
                theirs[name] = tensor.reshape(self.scale_shape) if key.startswith(f"{SCALES}.") else tensor
        if homeless:
            raise ModelError(
                f"{self.name} has no place for {len(homeless)} of {len(state)} tensors "
                f"({', '.join(homeless[:4])}{' ...' if len(homeless) > 4 else ''}); "
                f"its models differ in shape from {config.name} ({config.model.backbone})"
            )
        return theirs


def fit(
    state: Mapping[str, Tensor], config: Config, num_classes: int, unknown: list[str], source: str
) -> dict[str, Tensor]:
    """`state` in the order and types of the network that `config` describes; float16 stays, at half the size.

    Counters of BatchNorm that the file lacks start at 0. ModelError lists both sides where they differ.
    """
    with torch.device("meta"):
        wanted = FCOS(config.model, num_classes).state_dict()
    missing = [k for k in wanted if k not in state and not k.endswith(_COUNT)]
    left = unknown + [k for k in state if k not in wanted]
    shapes = [
        f"{k} {tuple(state[k].shape)} instead of {tuple(wanted[k].shape)}"
        for k in wanted
        if k in state and state[k].shape != wanted[k].shape
    ]
    if missing or left or shapes:
        sides = [
            side(missing, "missing in the file"),
            side(left, "of the file fit nothing"),
            side(shapes, "have another shape"),
        ]
        raise ModelError(
            f"{source} does not fit {config.model.backbone} with {num_classes} classes: "
            + "; ".join(filter(None, sides))
        )
    return {
        k: _typed(state[k], v.dtype) if k in state else v.new_zeros(v.shape, device="cpu") for k, v in wanted.items()
    }


def _typed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == torch.float16 and dtype.is_floating_point else tensor.to(dtype)


def side(names: list[str], what: str) -> str:
    """One side of a comparison, for a message: how many names there are and the first six; nothing for none."""
    shown = ", ".join(names[:6]) + (" ..." if len(names) > 6 else "")
    return f"{len(names)} {what} ({shown})" if names else ""
