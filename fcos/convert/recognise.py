"""Which code base wrote a checkpoint, told by its names and shapes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..errors import ModelError
from .families.adelaidet import FAMILY as ADELAIDET
from .families.detectron2 import FAMILY as DETECTRON2
from .families.mmdet import FAMILY as MMDET
from .families.original import FAMILY as ORIGINAL
from .families.torchvision import FAMILY as TORCHVISION
from .family import Family

FAMILIES: dict[str, Family] = {f.name: f for f in (TORCHVISION, DETECTRON2, ADELAIDET, ORIGINAL, MMDET)}


def recognise(state: Mapping[str, Tensor]) -> tuple[Family, list[str]]:
    """(family, reasons) of a checkpoint's tensors; ModelError when no family, or more than one, claims them."""
    if "head.class_logits.weight" in state and "head.box_distances.weight" in state:
        raise ModelError("this is a model of this package already; to write it for another code base add --to")
    claims = [(f, key) for f in FAMILIES.values() if (key := f.claims(state))]
    if len(claims) != 1:
        first = ", ".join(sorted(state)[:4])
        claim = " and ".join(f.name for f, _ in claims) + " all claim it"
        what = claim if claims else "it has no FCOS head of a known family"
        raise ModelError(f"{what}; its tensors begin {first}")
    family, key = claims[0]
    return family, [f"{family.about}: its classes come from {key}"]
