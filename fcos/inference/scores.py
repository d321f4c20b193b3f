"""The lowest score shown of each class, as people write it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import FcosError, did_you_mean
from ..system.readers import TEXT_LIMIT, read_json
from ..system.terminal import some
from ..types import Classes


def parse_scores(text: str, classes: Classes, default: float = 0.5) -> Tensor:
    """The lowest score shown of each class [C], from "0.4", "person=0.5,dog=0.2", "0.4,person=0.5" or the
    path of a JSON file {"person": 0.5}; classes that are not named have the bare number, else `default`.

    Raises FcosError for an unknown class, a score outside 0..1 and a file that cannot be read.
    """
    if text.lower().endswith(".json"):
        named = read_json(text, TEXT_LIMIT)
        if not isinstance(named, dict):
            raise FcosError(f'--score: {text} must hold {{"class": score}}, not a {type(named).__name__}')
    else:
        named = {}
        for part in text.split(","):
            name, equals, value = part.rpartition("=")
            named[name.strip() if equals else ""] = value
    scores = {}
    for name, value in named.items():
        if name and name not in classes.names:
            known = did_you_mean(name, classes.names, f"there are {some(classes.names, 10)}")
            raise FcosError(f"--score: the model has no class {name!r}; {known}")
        try:
            scores[name] = float(value)
        except (TypeError, ValueError):
            scores[name] = -1.0
        if not 0 <= scores[name] <= 1:
            of = f" of {name}" if name else ""
            raise FcosError(f"--score: {value!r}{of} is no score in 0..1; write 0.4, person=0.5,dog=0.2 or FILE.json")
    other = scores.get("", default)
    return torch.tensor([scores.get(name, other) for name in classes.names], dtype=torch.float32)
