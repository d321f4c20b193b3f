"""Any image as pixels: paths, bytes, PIL images, arrays, tensors; and the images behind folders and globs."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from torch import Tensor

from ..data.images.reading import SUFFIXES, UNREAD, load_image, tell_unread
from ..errors import DataError, or_near, without_password
from ..system import remote
from ..system.walk import files_below, folders_below

if TYPE_CHECKING:
    from PIL.Image import Image

PIXELS_AHEAD = 178_000_000  # of the images that are held decoded at once; one larger image is held alone
Source: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | np.ndarray | Tensor | Image"


def load_source(source: Source) -> np.ndarray:
    """Any source as [H,W,3] uint8 RGB, see `fcos.data.images.reading.load_image`; ImageError where it cannot be one."""
    return load_image(source)


def name_of(source: Source) -> str | None:
    """The path or address of a source that has one; an address without its password."""
    if not isinstance(source, str | os.PathLike):
        return None
    name = remote.url_of(source)
    return without_password(name) if "://" in name else name


def _matching(pattern: str) -> set[Path]:
    """Files that a glob means. `**` is walked here: Python's own follows links in a circle until names get too long."""
    before, deep, behind = pattern.partition("**")
    if not deep or (before and not before.endswith("/")) or (behind and not behind.startswith("/")):
        return {Path(m) for m in glob.glob(pattern)}
    behind = behind.lstrip("/") or "*"
    paths: set[Path] = set()
    for place in glob.glob(before) if glob.has_magic(before) else [before or "."]:
        for folder in folders_below(Path(place)):
            inner = os.path.join(glob.escape(os.fspath(folder)), behind)
            paths |= _matching(inner) if "**" not in behind else {Path(m) for m in glob.glob(inner)}
    return paths


def expanded(sources: Sequence[str]) -> list[str]:
    """What a command line names, each pattern as the files that it means; one that means none stays as it is."""
    named: list[str] = []
    for source in sources:
        place = os.path.expanduser(source)
        pattern = "://" not in source and glob.has_magic(source) and not os.path.lexists(place)
        meant = sorted(map(os.fspath, _matching(place))) if pattern else []
        named += [m for m in meant if not os.path.isdir(m)] or [source]
    return named


def images_below(folder: Path, out: Path | None = None) -> Iterator[Path]:
    """The images in a folder, deeply, as they come, but those in `out`, where that lies in it."""
    if remote.is_remote(folder):
        inside = None if out is None or not remote.is_remote(out) else remote.url_of(out).rstrip("/") + "/"
        for url in remote.below(folder, DataError):
            if Path(url).suffix.lower() in SUFFIXES and (inside is None or not url.startswith(inside)):
                yield Path(url)
        return
    own = out.resolve() if out is not None and folder.resolve() in out.resolve().parents else None
    unread = []
    for path in files_below(folder):
        suffix = path.suffix.lower()
        # a link that leads nowhere is told when it is read
        here = path.is_file() or (path.is_symlink() and not path.exists())
        if suffix in SUFFIXES and here and (own is None or own not in path.resolve().parents):
            yield path
        elif suffix in UNREAD:
            unread.append(path)
    tell_unread(folder, unread)


def find_images(sources: Sequence[str], stdin: Iterable[str] | None = None, out: Path | None = None) -> list[Path]:
    """Images behind paths, folders (searched deeply), globs, and "-" (paths on standard input).

    Order is kept and doubles are dropped. What lies in `out`, a folder inside the one that is searched, was
    written by an earlier run and is left out. Raises DataError for a source that leads nowhere.
    """
    paths: dict[Path, None] = {}
    for source in sources:
        if source == "-":
            lines = (line.rstrip("\n") for line in (stdin if stdin is not None else sys.stdin))
            paths.update((Path(line), None) for line in lines if line.strip())  # odd ones are reported when read
            continue
        if not source.strip():
            raise DataError("an empty name was given for an image or folder; for this folder write .")
        path = Path(os.path.expanduser(source))
        if remote.is_remote(source) and remote.is_file(source):
            paths[path] = None
        elif os.path.isdir(path) or remote.is_remote(source):
            inside = sorted(images_below(path, out))
            if not inside and remote.is_remote(source) and path.suffix.lower() in SUFFIXES:
                inside = [path]  # no folder; why it is not there is told when it is read
            if not inside:
                raise DataError(f"{source} holds no images ({', '.join(sorted(SUFFIXES)[:4])} ...)")
            paths.update((p, None) for p in inside)
        elif os.path.lexists(path):
            paths[path] = None
        elif glob.has_magic(source):
            matches = sorted(_matching(os.path.expanduser(source)))
            if not matches:
                raise DataError(f"no file matches {source}")
            paths.update((m, None) for m in matches if not m.is_dir())
        else:
            raise DataError(f"there is no image or folder {source}{or_near(path)}")
    return list(paths)


def find_sequence(source: str | os.PathLike[str]) -> list[Path]:
    """The images of a sequence, by the numbers in their names (2 before 10): those of a folder (searched deeply), of a
    glob, or of a name such as img%06d.jpg. Empty for what is none of these; DataError for a folder without images."""
    place = os.path.expanduser(source)
    if "://" in place or (os.path.lexists(place) and not os.path.isdir(place)):
        return []
    number = re.search(r"%(0?\d*)d(?!.*[/\\])", place)
    if os.path.isdir(place):
        found = find_images([place])
    elif number:
        before, behind = place[: number.start()], place[number.end() :]
        name = re.compile(re.escape(os.path.basename(before)) + r"\d+" + re.escape(behind))
        found = [m for m in _matching(f"{glob.escape(before)}*{glob.escape(behind)}") if name.fullmatch(m.name)]
    else:
        found = list(_matching(place)) if glob.has_magic(place) else []
    return sorted((m for m in found if m.suffix.lower() in SUFFIXES), key=_by_number)


def _by_number(path: Path) -> list[tuple[str, int]]:
    parts = re.split(r"(\d+)", os.fspath(path))
    return [(text, int(number or 0)) for text, number in zip(parts[::2], [*parts[1::2], ""], strict=True)]
