"""YAML of strangers as plain values: the core schema of YAML 1.2 with limits, read and written.

The text comes through `readers.read_text`; PyYAML's parser makes events of it, and none of its constructors runs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..errors import FcosError, first_line
from .readers import DEPTH, MB, read_text

YAML_LIMIT = 16 * MB
NODES = 1_000_000  # values of a file, those of aliases counted each time they stand
_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)\Z")
_HEX = re.compile(r"0(x[0-9a-fA-F]+|o[0-7]+)\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_SPECIAL = re.compile(r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z")


def read_yaml(path: str | Path, kind: type[FcosError] = FcosError, *, as_written: Sequence[str] = ()) -> Any:
    """The value in a YAML file, as `parse_yaml` has it."""
    return parse_yaml(read_text(path, YAML_LIMIT, kind), str(path), kind, as_written=as_written)


def parse_yaml(text: str, source: str, kind: type[FcosError] = FcosError, *, as_written: Sequence[str] = ()) -> Any:
    """YAML as text, numbers, true, false, null, lists and mappings, and nothing else (the core schema of YAML 1.2).

    So a date stays text, `no` is no truth value, 1e-4 is a number and 010 is text. Keys must be text or numbers and
    stand once. Scalars below the top-level keys `as_written` stay text: a class may be called 1.10 or null.
    Tags of other types, aliases that grow beyond a million values, more than 100 levels and numbers that are not
    finite are refused.
    """
    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    builder = _Builder(as_written)
    try:
        for event in yaml.parse(text, Loader=loader):
            builder.take(event)
    except yaml.YAMLError as error:
        reason = getattr(error, "problem", None) or first_line(error)
        if "nesting depth" in reason:
            reason = f"it is nested deeper than {DEPTH} levels"
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise kind(f"{source} is not YAML: {reason}{where}") from None
    except ValueError as error:
        raise kind(f"{source} cannot be read: {error}") from None
    except (MemoryError, RecursionError):
        raise kind(f"{source} cannot be read: it is too large or too deep") from None
    return builder.value


class _Dumper(yaml.SafeDumper):
    """Puts in quotes also what is a number in YAML 1.2 but none in 1.1, such as the text 1e5, and line ends that are
    part of a name."""


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    ends = any(end in text for end in "\x85\u2028\u2029")
    return dumper.represent_scalar(f"{_TAG}str", text, style='"' if ends else None)


_Dumper.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+.0123456789"))
_Dumper.add_representer(str, _quoted)
_Dumper.add_implicit_resolver(f"{_TAG}int", _HEX, ["0"])


def dump_yaml(value: Any) -> str:
    """Texts, numbers, lists and mappings as YAML that `parse_yaml` reads back as they were."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True)
    return text


class _Open:
    """A list or mapping that is being read."""

    def __init__(self, value: list[Any] | dict[Any, Any], anchor: str | None, before: int) -> None:
        self.value, self.anchor, self.before = value, anchor, before
        self.key: Any = _Open
        self.merged: dict[Any, Any] = {}


class _Merge:
    """Stands for the key `<<`."""


class _Builder:
    """Values from the events of the parser, without recursion, counted."""

    def __init__(self, as_written: Sequence[str]) -> None:
        self.value: Any = None
        self._as_written = as_written
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._nodes = self._documents = 0

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise _at(event, "it holds more than one document")
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise _at(event, f"the alias *{event.anchor} has nothing to stand for")
            value, count = self._anchors[event.anchor]
            self._grow(event, count)
            self._add(event, value)
        elif isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
            self._grow(event, 1)
            if event.anchor:
                self._anchors[event.anchor] = (value, 1)
            self._add(event, value)
        elif isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            listed = isinstance(event, yaml.SequenceStartEvent)
            if event.tag not in (None, "!", _TAG + ("seq" if listed else "map")):
                raise _at(event, f"the type {_short(event.tag)} is not read; lists and mappings are")
            if len(self._open) >= DEPTH:
                raise _at(event, f"it is nested deeper than {DEPTH} levels")
            if self._open and isinstance(self._open[-1].value, dict) and self._open[-1].key is _Open:
                raise _at(event, "a key must be a text or a number")
            self._grow(event, 1)
            self._open.append(_Open([] if listed else {}, event.anchor, self._nodes))
        elif isinstance(event, yaml.SequenceEndEvent | yaml.MappingEndEvent):
            done = self._open.pop()
            if done.merged and isinstance(done.value, dict):
                own = dict(done.value)
                done.value.clear()
                done.value.update(done.merged | own)
            if done.anchor:
                self._anchors[done.anchor] = (done.value, self._nodes - done.before + 1)
            self._add(event, done.value)

    def _grow(self, event: yaml.Event, count: int) -> None:
        self._nodes += count
        if self._nodes > NODES:
            raise _at(event, f"it holds more than {NODES:,} values")

    def _add(self, event: yaml.Event, value: Any) -> None:
        if not self._open:
            self.value = value
            return
        top = self._open[-1]
        if isinstance(top.value, list):
            top.value.append(value)
        elif top.key is _Open:
            if value is not _Merge and not isinstance(value, str | int | float):
                raise _at(event, "a key must be a text or a number")
            if value in top.value:
                raise _at(event, f"the key {_short(value)!r} appears twice")
            top.key = value
        else:
            if top.key is _Merge:
                for part in value if isinstance(value, list) else [value]:
                    if not isinstance(part, dict):
                        raise _at(event, "<< takes a mapping")
                    top.merged.update({k: v for k, v in part.items() if k not in top.merged})
            else:
                top.value[top.key] = value
            top.key = _Open

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        text, tag = event.value, event.tag
        awaits_key = bool(self._open) and isinstance(self._open[-1].value, dict) and self._open[-1].key is _Open
        if tag is None and event.implicit[0]:  # plain, without a tag
            if awaits_key and text == "<<":
                return _Merge
            written = self._open and self._open[0].key in self._as_written and not awaits_key
            return text if written else self._plain(event, text)
        if tag in (None, "!", _TAG + "str"):
            return text
        value = self._plain(event, text)
        kinds: dict[str, Callable[[Any], bool]] = {
            "int": lambda v: type(v) is int,
            "float": lambda v: type(v) in (int, float),
            "bool": lambda v: type(v) is bool,
            "null": lambda v: v is None,
        }
        name = tag.removeprefix(_TAG)
        if name not in kinds:
            raise _at(event, f"the type {_short(tag)} is not read; texts and numbers are")
        if not kinds[name](value):
            raise _at(event, f"{_short(text)!r} is no {name}")
        return float(value) if name == "float" else value

    def _plain(self, event: yaml.Event, text: str) -> Any:
        if text in ("", "~", "null", "Null", "NULL"):
            return None
        if text in ("true", "True", "TRUE"):
            return True
        if text in ("false", "False", "FALSE"):
            return False
        if _SPECIAL.match(text):
            raise _at(event, f"{text} is no finite number")
        if _INT.match(text):
            if len(text) > 300:
                raise _at(event, "a number is too large")
            return int(text)
        if _HEX.match(text):
            if len(text) > 300:
                raise _at(event, "a number is too large")
            return int(text, 0)
        if _FLOAT.match(text):
            value = float(text)
            if math.isinf(value):
                raise _at(event, f"{_short(text)} is too large for a number")
            return value
        return text


def _at(event: yaml.Event, reason: str) -> ValueError:
    mark = event.start_mark
    return ValueError(f"{reason} (line {mark.line + 1})" if mark else reason)


def _short(value: object) -> object:
    return value[:37] + "..." if isinstance(value, str) and len(value) > 40 else value
