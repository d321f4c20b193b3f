"""Boxes, scores and labels of other programs, as the tensors that `Detections` hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Numbers: TypeAlias = "Tensor | npt.ArrayLike"
_ROUNDING = 1e-4  # of scores beyond 0..1, as other programs add and divide


def as_corners(boxes: Any) -> Any:
    """Boxes as x1, y1, x2, y2 where they say their form, as torchvision's `BoundingBoxes` do; all others as they are.
    ValueError for those that are turned."""
    form = getattr(getattr(boxes, "format", None), "value", None)
    if form is None:
        return boxes
    if form not in ("XYXY", "XYWH", "CXCYWH"):
        raise ValueError(f"boxes are in the form {form}; give x1, y1, x2, y2")
    from torchvision.ops import box_convert

    return box_convert(boxes.as_subclass(Tensor), form.lower(), "xyxy")


def numbered(labels: Any, names: Sequence[str]) -> tuple[Any, Sequence[str]]:
    """(labels as numbers, names): labels that are names themselves count in `names`, or, where there are none, in all
    that occur, in order. ValueError for one that `names` lacks."""
    if isinstance(labels, Tensor):
        return labels, names
    values = np.asarray(labels)
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values.tolist()):  # as pandas has them
        values = values.astype(str)
    if values.dtype.kind != "U":
        return values, names
    names = names or tuple(sorted(set(values.tolist())))
    known = {name: k for k, name in enumerate(names)}
    unknown = next((name for name in values.tolist() if name not in known), None)
    if unknown is not None:
        raise ValueError(f"the label {unknown!r} is none of the names {', '.join(names)}")
    return np.array([known[name] for name in values.tolist()], dtype=np.int64), names


def as_field(name: str, given: Any, kind: torch.dtype) -> Tensor:
    """Numbers of another program as a tensor of the field `name`; ValueError where they cannot be that."""
    try:
        value = given if isinstance(given, Tensor) else torch.from_numpy(np.array(given, dtype=np.float64))
        len(value)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} must be a list of {'boxes' if name == 'boxes' else 'numbers'}, not {given!r:.80}"
        ) from None
    taken = value.to(kind)
    if not kind.is_floating_point:
        wrong, must = taken != value if value.is_floating_point() else taken != taken, "whole numbers"
    elif value is given and value.is_floating_point():  # such as those of a network in half precision
        return taken
    elif name == "scores":
        wrong, must = ~((taken >= -_ROUNDING) & (taken <= 1 + _ROUNDING)), "0..1"
        taken = taken.clamp(0, 1)
    else:
        wrong, must = ~torch.isfinite(taken), "finite numbers"
    if bool(wrong.any()):
        raise ValueError(f"{name} must be {must}, not {value[wrong][0].item()}")
    if name == "boxes" and not len(taken):
        return taken.reshape(-1, 4)
    if name == "boxes" and taken.shape[1:] == (4,) and bool((turned := taken[:, 2:] < taken[:, :2] - 1).any()):
        odd = taken[turned.any(dim=1)][0].tolist()
        raise ValueError(f"boxes are x1, y1, x2, y2, and of {odd} x2 or y2 is the smaller; is this width and height?")
    return taken
