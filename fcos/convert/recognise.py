"""Which code base wrote a checkpoint, told by its names and shapes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..errors import ModelError
from .adelaidet import FAMILY as ADELAIDET
from .detectron2 import FAMILY as DETECTRON2
from .family import Family
from .mmdet import FAMILY as MMDET
from .original import FAMILY as ORIGINAL
from .torchvision import FAMILY as TORCHVISION

FAMILIES: dict[str, Family] = {f.name: f for f in (TORCHVISION, DETECTRON2, ADELAIDET, ORIGINAL, MMDET)}


def recognise(state: Mapping[str, Tensor]) -> tuple[Family, list[str]]:
    """(family, reasons) of a checkpoint's tensors; ModelError when no family, or more than one, claims them."""
    known = {name: family.translate(state) for name, family in FAMILIES.items()}
    marked = [f for f in FAMILIES.values() if "head.class_logits.weight" in known[f.name][0]]
    if len(marked) != 1:
        first = ", ".join(sorted(state)[:4])
        what = (
            f"{' and '.join(f.name for f in marked)} all claim it"
            if marked
            else "it has no FCOS head of a known family"
        )
        raise ModelError(f"cannot recognise this checkpoint: {what}; its tensors begin {first}")
    family = marked[0]
    unknown = known[family.name][1]
    reasons = [f"{family.about}: the classes come from {_theirs(state, family)}"]
    if unknown:
        reasons.append(f"{len(unknown)} of {len(state)} names are not {family.about}'s")
    return family, reasons


def _theirs(state: Mapping[str, Tensor], family: Family) -> str:
    return next(k for k in state if "head.class_logits.weight" in family.translate({k: state[k]})[0])
