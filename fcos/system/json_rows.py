"""A long list in a JSON file, some of its objects at a time: the boxes of a large data set."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

from ..errors import FcosError
from .readers import JSON_LIMIT, MB, json_bytes, parse_json

T = TypeVar("T")
Rows = list[dict[str, Any]]
_PIECE = 16 * MB
_BETWEEN = re.compile(rb"\}\s*(,)\s*\{")  # two objects of a list, perhaps
_END = re.compile(rb"\}(\s*)\]\s*(?:,\s*\"|\}\s*\Z)")  # the last object of one, perhaps
_TRIES = 8  # places to try; each that is none costs the parsing of a piece


def read_json_rows(
    path: str | Path, key: str, take: Callable[[Rows], T], kind: type[FcosError] = FcosError, *, nan: bool = False
) -> tuple[Any, list[T]]:
    """As `read_json`, but the objects of the list `key` of the outermost object go to `take`, some at a time. Returns
    the value, in which that list is empty, and what `take` gave for each part, in order. All objects of a large file
    are never in memory at once: they take several times the room of the file.

    `kind` where the list holds anything but objects. `take` has no side effects: it may see a part again.
    """
    data = json_bytes(path, JSON_LIMIT, kind)
    parted = _by_pieces(data, key, take, kind, nan) if len(data) > _PIECE else None
    if parted is not None:
        return parted
    value = parse_json(data, str(path), kind, nan=nan)
    del data
    if not isinstance(value, dict) or key not in value:
        return value, []
    if not _are_objects(value[key]):
        raise kind(f"{path}: {key!r} must be a list of objects")
    rows: Rows = value[key]
    value[key] = []
    return value, [take(rows)]


def _by_pieces(
    data: bytes, key: str, take: Callable[[Rows], T], kind: type[FcosError], nan: bool
) -> tuple[Any, list[T]] | None:
    """As `read_json_rows`; None where the list cannot be parted so, for whatever reason.

    Where one object of the list ends and the next begins only a parser knows, for the same signs may stand in a text
    or deeper inside. But it need not be known: texts that each parse as a list, put together, parse as one list. So any
    place will do with which the parser agrees.
    """

    def parsed(piece: bytes) -> Any:
        try:
            return parse_json(piece, "", kind, nan=nan)
        except kind:
            return None

    def part(start: int) -> tuple[Rows, int, bool] | None:
        """The next objects, where they end, and whether others follow."""
        ends = (m.end(1) for m in islice(_END.finditer(data, start, start + 2 * _PIECE), _TRIES))
        betweens = (m.start(1) for m in islice(_BETWEEN.finditer(data, start + _PIECE), _TRIES))
        for place, more in chain(((e, False) for e in ends), ((b, True) for b in betweens)):
            rows = parsed(b"[" + data[start:place] + b"]")
            if rows and _are_objects(rows):
                return rows, place, more
        return None

    begin = re.compile(rb'"%s"\s*:\s*\[' % re.escape(key.encode())).search(data)
    if begin is None:
        return None
    taken: list[T] = []
    at, more = begin.end(), True
    while more:
        found = part(at)
        if found is None:
            return None
        rows, place, more = found
        try:
            taken.append(take(rows))
        except kind:
            return None
        del rows, found
        at = place + 1
    # What is left must be JSON with a list at this very place.
    mark = token_hex(16)
    value = parsed(data[: begin.end()] + f'"{mark}"'.encode() + data[place:])
    if not isinstance(value, dict) or value.get(key) != [mark]:
        return None
    value[key] = []
    return value, taken


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and set(map(type, value)) <= {dict}
