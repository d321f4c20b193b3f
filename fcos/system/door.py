"""What the public functions of Python pass: torch as they need it, whatever the caller has set, and errors in the words
of Python, not of a command line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

from ..errors import DataError, FcosError
from .threads import usual_torch

P = ParamSpec("P")
T = TypeVar("T")

_FLAGS = {"allow_missing", "deterministic", "nms", "resume", "strict", "trust"}  # options that take no value
_OF_SOURCE = {"format", "images", "labels"}  # what a DataSource says of a data set
_COMMAND = re.compile(r"(?<![\w./\\-])(?:fcos|docker|tritonserver|torchrun|SLURM)(?= )[^;,)]*")
# An option, and behind it a value: a word in capitals, a text in quotes, what is no word, such as a number or a path,
# or what stands at the end of a clause.
_OPTION = re.compile(
    r"(?<![\w-])--(?!ntasks)(?P<name>[a-z][a-z-]+)(?![\w=-])"
    r"(?: (?P<value>[A-Z]{2,}\b|'[^']*'|[^\s,;:)]*[\d/_.-][^\s,;:)]*|[^\s,;:)]+(?=[:,;)]|$)))?"
)
_NO_VALUE = {"it", "out"}  # words of ours behind an option, at the end of a clause


class _Caller:
    """command: whether a command line is at work, whose errors name its options."""

    command = False


@contextmanager
def at_command_line() -> Iterator[None]:
    """Errors are told in the words of the command line inside."""
    before, _Caller.command = _Caller.command, True
    try:
        yield
    finally:
        _Caller.command = before


@contextmanager
def in_python() -> Iterator[None]:
    """An FcosError that leaves names parameters of Python where it named options of a command line; but for a command
    line it stays as it is."""
    try:
        yield
    except FcosError as error:
        if not _Caller.command:
            error.args = (as_python(str(error), of_data=isinstance(error, DataError)), *error.args[1:])
        raise


def door(function: Callable[P, T]) -> Callable[P, T]:
    """The public `function`, with `usual_torch` and `in_python` around it."""

    @wraps(function)
    def inside(*args: P.args, **options: P.kwargs) -> T:
        with in_python(), usual_torch():
            return function(*args, **options)

    return inside


def as_python(text: str, of_data: bool = False) -> str:
    """A message with the parameters of Python in place of options; whole commands in it stay. of_data: it is about a
    data set, of which a `DataSource` says the format and the folders.

    >>> as_python("--holdout 1.5 is no share; give others with --val, or see fcos train --holdout")
    'holdout=1.5 is no share; give others with val=, or see fcos train --holdout'
    """

    def told(found: re.Match[str]) -> str:
        name, value = found["name"].replace("-", "_"), found["value"] or ""
        behind = f" {value}" if value and (value in _NO_VALUE or name in _FLAGS) else ""
        given = f"{name}={'True' if name in _FLAGS else '' if behind else value}"
        return (f"DataSource({given}{'' if value else '...'})" if of_data and name in _OF_SOURCE else given) + behind

    parts, end = [], 0
    for command in _COMMAND.finditer(text):
        parts += [_OPTION.sub(told, text[end : command.start()]), command[0]]
        end = command.end()
    return "".join([*parts, _OPTION.sub(told, text[end:])])
