"""Files inside tar files, read where they lie: `photos.tar/a.jpg` is the member a.jpg of photos.tar.

Each tar file is gone through once for the places of its members; a read is then a seek. Only plain tar files: a packed
one cannot be entered in the middle.
"""

from __future__ import annotations

import os
import posixpath
import stat
import tarfile
from functools import cache
from pathlib import Path, PurePath
from typing import NamedTuple

from ..errors import FcosError, first_line

_BLOCK = 512


class Member(NamedTuple):
    """Where a file lies inside a tar file, in bytes."""

    offset: int
    size: int


def split(path: str | Path) -> tuple[Path, str] | None:
    """(the tar file, the name inside) of a path that leads into one; None for any other."""
    path = Path(path)
    for above in path.parents:
        if above.suffix.lower() == ".tar" and above.is_file():
            return above, path.relative_to(above).as_posix()
    return None


def members(tar: Path, kind: type[FcosError] = FcosError) -> dict[str, Member]:
    """The files in a tar file by name, in order; of a name that appears twice, the last. No name leads out of the tar
    file. `kind` with one line for what is no plain tar file, or is damaged or cut short."""
    try:
        status = tar.stat()
        if not stat.S_ISREG(status.st_mode):  # the opening of a pipe would wait
            raise ValueError("it is no regular file")
        return _members(tar, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise kind(f"cannot read {tar}: {(error.strerror or str(error)).lower()}") from None
    except (tarfile.TarError, ValueError) as error:
        raise kind(f"cannot read {tar}: it is no plain tar file, or damaged ({first_line(error)})") from None


def read(tar: Path, name: str, limit: int, kind: type[FcosError] = FcosError) -> bytes:
    """One file of a tar file; `kind` where it is not there or has more than `limit` bytes."""
    place = members(tar, kind).get(name)
    if place is None:
        raise kind(f"cannot read {tar / name}: there is no such file in the tar file")
    if place.size > limit:
        raise kind(f"cannot read {tar / name}: its {place.size / 1e6:.1f} MB are over the limit of {limit >> 20} MB")
    try:
        with tar.open("rb") as file:
            file.seek(place.offset)
            data = file.read(place.size)
    except OSError as error:
        raise kind(f"cannot read {tar / name}: {(error.strerror or str(error)).lower()}") from None
    if len(data) < place.size:
        raise kind(f"cannot read {tar / name}: the tar file is cut short")
    return data


def _inside(name: str) -> str:
    """A member's name as a path that stays in the tar file: without a leading slash and steps upwards (on Windows
    without a drive, too), as tar unpacks it; empty where nothing is left."""
    if os.name == "nt":
        path = PurePath(name)
        name = path.as_posix()[len(path.drive) :]
    return posixpath.normpath(f"/{name}").lstrip("/")


@cache
def _members(tar: Path, size: int, changed: int) -> dict[str, Member]:
    places: dict[str, Member] = {}
    with tarfile.open(tar, "r:") as archive:
        for member in archive:
            if member.isreg() and not member.sparse and (name := _inside(member.name)):
                places[name] = Member(member.offset_data, member.size)
        end = archive.offset
    with tar.open("rb") as file:
        file.seek(end)
        rest = file.read(_BLOCK)
    # A reader stops at what is no header, without a word; a whole file has blocks of zeros there.
    last = max(places.values(), default=Member(0, 0))
    if last.offset + last.size > size or not rest or rest.strip(b"\0"):
        raise ValueError(f"it is cut short or spoiled behind its first {len(places):,} files")
    return places
