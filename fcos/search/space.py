"""What a search may change: ranges and choices of settings, as words of the command line or by default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..changes import parse_assignment
from ..config import Config, describe
from ..errors import ConfigError
from ..training.planning.rules import SIZES

Value = str | float | int


@dataclass(frozen=True)
class Range:
    """From `low` to `high`; `whole`: whole numbers only. Ranges of ten times and more are drawn by their logarithm."""

    low: float
    high: float
    whole: bool = False

    @property
    def log(self) -> bool:
        """Whether the logarithm is drawn evenly."""
        return self.low > 0 and self.high >= 10 * self.low

    def nearest(self, value: float) -> Value:
        """The value of the range next to `value`."""
        inside = min(max(value, self.low), self.high)
        return round(inside) if self.whole else inside

    def __str__(self) -> str:
        return f"{self.low:.0f}..{self.high:.0f}" if self.whole else f"{float(self.low)!r}..{float(self.high)!r}"


@dataclass(frozen=True)
class OneOf:
    """Several values, written as in a setting."""

    values: tuple[str, ...]

    def __str__(self) -> str:
        return "|".join(self.values)


_WHOLE = {key for key, value, _ in describe(Config()) if isinstance(value, int) and not isinstance(value, bool)}

Space = dict[str, Range | OneOf]


class Draws(Protocol):
    """What Optuna calls a trial, as far as a space needs it."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...
    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...
    def suggest_categorical(self, name: str, choices: Sequence[str]) -> str: ...


def sort_ranges(words: Sequence[str]) -> tuple[Space, list[str]]:
    """(what KEY=LOW..HIGH and KEY=A|B|C say may change, the settings that stay); ConfigError for half a range."""
    space: Space = {}
    fixed = []
    for word in words:
        key, _, text = word.partition("=")
        named = _parse(key.strip(), text.strip())
        if named is None:
            fixed.append(word)
        else:
            space[key.strip()] = named
    return space, fixed


def _parse(key: str, text: str) -> Range | OneOf | None:
    if "|" in text:
        values = tuple(dict.fromkeys(v.strip() for v in text.split("|")))
        if len(values) < 2 or not all(values):
            raise ConfigError(f"{key}={text}: give two values or more, such as {key}='A|B'")
        return OneOf(values)
    low, dots, high = text.partition("..")
    numbers = [_number(low), _number(high)] if dots else []
    if not dots or numbers == [None, None]:
        return None
    first, last = numbers
    if first is None or last is None or not first < last:
        raise ConfigError(f"{key}={text}: a range is LOW..HIGH, two numbers, such as train.lr=1e-4..1e-2")
    if key in _WHOLE and not (first.is_integer() and last.is_integer()):
        raise ConfigError(f"{key}={text}: {key} is a whole number; give whole numbers")
    return Range(first, last, whole=key in _WHOLE)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) <= 1e12 else None  # neither infinite nor nan


def usual(config: Config, given: Mapping[str, object]) -> Space:
    """What is worth a search where nobody says: around the values of `config`, a plan's, without the settings that are
    `given`. Which settings and how far is judgement."""
    train, data = config.train, config.data
    sizes = sorted({data.size, *[s for s in SIZES if data.size / 1.7 < s < data.size * 1.7]})
    batches = sorted({max(1, train.batch // 2), train.batch, 2 * train.batch})
    missing = 1 - (train.ema or 0.998)
    averages = [train.ema, *(1 - missing * factor for factor in (0.3, 3.0))]
    space: Space = {
        "train.lr": Range(train.lr / 5, train.lr * 5),
        "train.backbone_lr": Range(min(0.1, train.backbone_lr or 0.1), max(1.0, train.backbone_lr)),
        "train.weight_decay": Range(max(train.weight_decay, 1e-6) / 10, max(train.weight_decay, 1e-6) * 5),
        "train.batch": OneOf(tuple(map(str, batches))),
        "train.ema": OneOf(tuple(f"{v:.4g}" for v in sorted(averages) if v >= 0)),
        "data.size": OneOf(tuple(map(str, sizes))),
        "data.crop": Range(0.0, 0.7),
        "data.color": Range(0.0, 1.0),
        "data.mosaic": Range(0.0, 0.5),
    }
    return {key: what for key, what in space.items() if key not in given and not (key == "data.size" and _sized(given))}


def _sized(given: Mapping[str, object]) -> bool:
    return "data.train_sizes" in given or "data.max_size" in given


def start(space: Space, config: Config) -> dict[str, Value]:
    """The values of `config`, or what of the space is nearest."""
    now = {key: value for key, value, _ in describe(config)}
    values: dict[str, Value] = {}
    for key, what in space.items():
        if isinstance(what, Range):
            known = now.get(key)
            values[key] = what.nearest(float(known) if isinstance(known, int | float) else what.low)
        else:
            same = [text for text in what.values if _value(key, text) == now.get(key)]
            values[key] = (same or what.values)[0]
    return values


def _value(key: str, text: str) -> object:
    value: object = parse_assignment(f"{key}={text}")
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else value
    return tuple(value) if isinstance(value, list) else value


def draw(space: Space, trial: Draws) -> dict[str, Value]:
    """A value for each setting of the space."""
    values: dict[str, Value] = {}
    for key, what in space.items():
        if isinstance(what, OneOf):
            values[key] = trial.suggest_categorical(key, what.values)
        elif what.whole:
            values[key] = trial.suggest_int(key, int(what.low), int(what.high), log=what.log)
        else:
            values[key] = trial.suggest_float(key, what.low, what.high, log=what.log)
    return values


def words(values: Mapping[str, Value]) -> list[str]:
    """KEY=VALUE, numbers with four digits: more decide nothing, and a person may read them."""
    return [f"{key}={_short(value)}" for key, value in values.items()]


def _short(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def ends(space: Space) -> list[list[str]]:
    """Settings that a config must be able to have, were the space all right: each end and choice, alone."""
    tried: list[Value] = []
    out = []
    for key, what in space.items():
        if isinstance(what, OneOf):
            tried = list(what.values)
        else:
            tried = [round(what.low), round(what.high)] if what.whole else [what.low, what.high]
        out += [words({key: value}) for value in tried]
    return out
