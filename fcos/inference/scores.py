"""The lowest score shown of each class, as people write it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from ..detections import Detections
from ..errors import ConfigError, FcosError, did_you_mean
from ..system.names import UNKNOWN, find_class
from ..system.readers import TEXT_LIMIT, read_json
from ..system.terminal import some
from ..types import Classes

if TYPE_CHECKING:
    from .video import Frame

Scores: TypeAlias = "float | str | Mapping[str, float]"  # the lowest of all classes, or by class
_NEVER = 2.0  # a score that no detection has


def parse_scores(
    text: str | Mapping[str, object], classes: Classes, default: float = 0.5, called: str = "--score"
) -> Tensor:
    """The lowest score shown of each class [C], from "0.4", "person=0.5,dog=0.2", "0.4,person=0.5", the path of a JSON
    file {"person": 0.5}, or what such a file holds; classes that are not named have the bare number, else `default`.

    Raises FcosError for an unknown class, a score outside 0..1 and a file that cannot be read, which names the option
    as it is `called`.
    """
    named: Any
    if isinstance(text, Mapping):
        named = text
    elif text.lower().endswith(".json"):
        named = read_json(text, TEXT_LIMIT)
        if not isinstance(named, dict):
            raise FcosError(f'{called}: {text} must hold {{"class": score}}, not a {type(named).__name__}')
    else:
        named = {}
        for part in text.split(","):
            name, equals, value = part.rpartition("=")
            named[name.strip() if equals else ""] = value
    scores = {}
    for given, value in named.items():
        name = class_named(str(given), classes, called) if given else ""
        try:
            scores[name] = float(value)
        except (TypeError, ValueError):
            scores[name] = -1.0
        if not 0 <= scores[name] <= 1:
            of = f" of {name}" if name else ""
            forms = "0.4, person=0.5,dog=0.2 or FILE.json" if called == "--score" else "0.4 or person=0.5,dog=0.2"
            raise FcosError(f"{called}: {value!r}{of} is no score in 0..1; write {forms}")
    other = scores.get("", default)
    return torch.tensor([scores.get(name, other) for name in classes.names], dtype=torch.float32, device="cpu")


def lowest(score: Scores | None, classes: Classes, shown: float) -> float | Tensor:
    """The lowest score of all classes, 0..1, or of each [C], `shown` where none is given. FcosError for others."""
    if isinstance(score, str | Mapping):
        return parse_scores(score, classes, shown, "score")
    try:
        number = float(shown if score is None else score)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number <= 1:
        raise ConfigError(f"score={score!r}: give a number from 0 to 1")
    return number


def only(scores: Tensor, text: str, classes: Classes) -> Tensor:
    """`scores` [C] with one that no detection reaches for all classes but those that `text` names, "dog,cat". FcosError
    for a name that is no class, and for no name at all."""
    chosen = {class_named(name.strip(), classes, "--classes") for name in text.split(",") if name.strip()}
    if not chosen:
        raise FcosError(f"--classes {text!r} names none; write such as {','.join(classes.names[:2])}")
    return scores.masked_fill(
        scores.new_tensor([name not in chosen for name in classes.names], dtype=torch.bool), _NEVER
    )


def reached(detections: Detections, scores: Tensor) -> Detections:
    """Those that reach the score of their class, of `scores` [C]."""
    return detections[detections.scores >= scores.to(detections.scores)[detections.labels]]


def of_classes(frames: Iterable[Frame], scores: Tensor) -> Iterator[Frame]:
    """Frames with those of their detections that reach the score of their class, of `scores` [C]."""
    for frame in frames:
        seen = frame.detections
        yield frame if seen is None else replace(frame, detections=reached(seen, scores))


def class_named(name: str, classes: Classes, option: str) -> str:
    """The class of that name; upper case, spaces and the like do not matter. FcosError where there is none."""
    label = find_class(name, classes.names)
    if label == UNKNOWN:
        known = did_you_mean(name, classes.names, f"there are {some(classes.names, 10)}")
        raise FcosError(f"{option}: the model has no class {name!r}; {known}")
    return classes.names[label]
