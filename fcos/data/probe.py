"""The beginning of one file, looked at in the ways that formats recognise themselves by."""

from __future__ import annotations

import json
import os
import re
import stat
import zlib
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

_HEAD = 1 << 16
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".7z", ".rar")


class Probe:
    """The beginning of a file, looked at in the ways that formats recognise themselves by."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.suffix = suffix_of(path.name)

    @cached_property
    def text(self) -> str:
        """The first 64 KB, unpacked where it is gzip; '' for what cannot be read."""
        data = _head(self.path)
        if data[:2] == b"\x1f\x8b":
            try:
                data = zlib.decompressobj(31).decompress(data, _HEAD)
            except zlib.error:
                return ""
        for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
            if data.startswith(mark):
                return data.decode(encoding, "replace")
        return data.decode("utf-8", "replace")

    @cached_property
    def lines(self) -> list[str]:
        """The first lines that are whole and not empty, at most 50."""
        lines = self.text.split("\n")
        whole = lines if len(self.text) < _HEAD - 4 else lines[:-1]
        return [line.strip("\r ") for line in whole[:200] if line.strip()][:50]

    @cached_property
    def json(self) -> Any:
        """What the first 64 KB of a JSON file hold, as far as they go; None where it is no JSON."""
        text = self.text.lstrip()
        return peek_json(text) if text[:1] in ("{", "[") else None

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The first lines as JSON objects (JSON lines); empty where one of them is none."""
        rows = []
        for line in self.lines[:3]:
            value = peek_json(line) if line.startswith("{") else None
            if not isinstance(value, dict):
                return []
            rows.append(value)
        return rows

    @cached_property
    def root(self) -> str:
        """The name of the root of an XML file, '' where it is no XML."""
        text, at = self.text, 0
        while True:  # step by step: one pattern for all of it would try every way to part a row of comments
            at += len(text[at:]) - len(text[at:].lstrip())
            for start, end in (("<?", "?>"), ("<!--", "-->"), ("<!DOCTYPE", ">")):
                if text.startswith(start, at):
                    inside = text.find("[", at, text.find(">", at)) if start == "<!DOCTYPE" else -1
                    stop = text.find(end, text.find("]", inside) if inside >= 0 else at + len(start))
                    if stop < 0:
                        return ""
                    at = stop + len(end)
                    break
            else:
                match = re.compile(r"<([A-Za-z_][\w.-]*)").match(text, at)
                return match[1] if match else ""

    def first(self, key: str | None = None) -> dict[str, Any]:
        """The first object of a JSON list: of the file, or of the list under `key`; {} where there is none."""
        value = self.json if key is None else self.json.get(key) if isinstance(self.json, dict) else None
        return value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else {}


def _head(path: Path) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(handle, "rb") as file:
            return file.read(_HEAD) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
    except (OSError, ValueError):
        return b""


_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|"|[{}\[\]:,]|[^\s{}\[\]:,"]++', re.DOTALL)


def peek_json(text: str) -> Any:
    """The value that JSON text begins, as far as it goes: a text that is cut off gives what stood before the cut."""
    top: list[Any] = []
    stack: list[Any] = [top]
    keys: list[str | None] = [None]
    for match in islice(_TOKEN.finditer(text), 20000):
        token, place = match[0], stack[-1]
        if token == '"':  # a text that is cut off
            break
        if token in ("}", "]"):
            if len(stack) == 1:
                break
            stack.pop()
            keys.pop()
        elif token == ",":
            keys[-1] = None
        elif token != ":":
            value: Any = {} if token == "{" else [] if token == "[" else _scalar(token)
            if not isinstance(place, dict):
                place.append(value)
            elif keys[-1] is None:
                keys[-1] = value if isinstance(value, str) else str(token)
                continue
            else:
                place[keys[-1]] = value
            if token in ("{", "["):
                stack.append(value)
                keys.append(None)
        if len(stack) > 60:
            break
    return top[0] if top else None


def _scalar(token: str) -> Any:
    try:
        return json.loads(token) if len(token) < 4000 else token[1:4000]
    except (ValueError, RecursionError):
        return token


def suffix_of(name: str) -> str:
    """'.json', '.json.gz', ...: lower case, with the packing."""
    lower = name.lower()
    return next((s for s in (*ARCHIVES, ".json.gz") if lower.endswith(s)), os.path.splitext(lower)[1])


def stem_of(path: Path) -> str:
    """The name of a file without its suffix; 'a.json.gz' -> 'a'."""
    return path.name[: len(path.name) - len(suffix_of(path.name))] if suffix_of(path.name) else path.name
