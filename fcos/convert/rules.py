"""Tables of tensor names that read both ways.

A rule is a pair of templates, ours and theirs. `{k}` stands for the last part of a name (weight, bias,
running_mean, ...), `{rest}` for anything, any other letter for a whole number; `{i*3+1}` is that number
times 3 plus 1. The first rule that fits a name translates it.

In our names the weight of a deformable convolution is marked with `@` while it is translated
("conv2.@weight"), because some families spell it apart from a plain convolution's. A table that does not
mention the mark treats both alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from torch import Tensor

Rule = tuple[str, str]  # (our template, their template)

_FIELD = re.compile(r"\{(\w+)(?:\*(\d+))?(?:\+(\d+))?\}")
SCALES = "head.scales"  # ours is one tensor [L]; every family has a tensor a level


def to_ours(key: str, rules: Sequence[Rule]) -> str | None:
    """Our name of one of their tensors; None when no rule fits."""
    for ours, theirs in rules:
        fields = _match(theirs, key)
        if fields is not None:
            return _fill(ours, fields).replace("@", "")
    return None


def to_theirs(key: str, rules: Sequence[Rule], deformable: bool = False) -> str | None:
    """Their name of one of our tensors; None when no rule fits."""
    head, _, last = key.rpartition(".")
    for name in (f"{head}.@{last}", key) if deformable else (key,):
        for ours, theirs in rules:
            fields = _match(ours, name)
            if fields is not None:
                return _fill(theirs, fields)
    return None


def deformable_weights(keys: Iterable[str]) -> set[str]:
    """Our names of the weights and biases that sit beside an `offset` convolution."""
    keys = set(keys)
    owners = {k.removesuffix("offset.weight") for k in keys if k.endswith(".offset.weight")}
    return {owner + last for owner in owners for last in ("weight", "bias") if owner + last in keys}


def split_scales(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`head.scales` [L] becomes `head.scales.0`, ... each []."""
    flat = {k: v for k, v in state.items() if k != SCALES}
    if SCALES in state:
        flat.update({f"{SCALES}.{i}": value for i, value in enumerate(state[SCALES])})
    return flat


def join_scales(flat: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The reverse of `split_scales`; the parts may be [] or [1]."""
    import torch

    parts = sorted((k for k in flat if k.startswith(f"{SCALES}.")), key=lambda k: int(k.rpartition(".")[2]))
    state = {k: v for k, v in flat.items() if k not in parts}
    if parts:
        state[SCALES] = torch.stack([flat[k].reshape(()) for k in parts])
    return state


@cache
def _pattern(template: str) -> tuple[re.Pattern[str], tuple[tuple[str, int, int], ...]]:
    fields: list[tuple[str, int, int]] = []
    text, at = "", 0
    for match in _FIELD.finditer(template):
        name = match[1]
        fields.append((name, int(match[2] or 1), int(match[3] or 0)))
        what = {"k": r"[a-z_]+", "rest": r"[^@]+"}.get(name, r"\d+")
        text += re.escape(template[at : match.start()]) + f"({what})"
        at = match.end()
    return re.compile(text + re.escape(template[at:])), tuple(fields)


def _match(template: str, key: str) -> dict[str, str] | None:
    pattern, fields = _pattern(template)
    match = pattern.fullmatch(key)
    if not match:
        return None
    values: dict[str, str] = {}
    for (name, factor, plus), text in zip(fields, match.groups(), strict=True):
        if name not in ("k", "rest"):
            number, left = divmod(int(text) - plus, factor)
            if left or number < 0:
                return None
            text = str(number)
        values[name] = text
    return values


def _fill(template: str, values: Mapping[str, str]) -> str:
    def put(match: re.Match[str]) -> str:
        text = values[match[1]]
        if match[2] or match[3]:
            return str(int(text) * int(match[2] or 1) + int(match[3] or 0))
        return text

    return _FIELD.sub(put, template)
