"""What the blocks of a video file say: whether it is all there. OpenCV gives the length of the longest track for some,
in frames, and sound may go on when the picture has ended; of others it gives what it found, cut or not."""

from __future__ import annotations

import os
from typing import BinaryIO

from ..data.images import gif

_MATROSKA, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_FLV_HEAD = 11  # bytes of a tag before its data
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # its properties
_ASF_FLAGS = 88  # bytes from there to their flags
_PACKETS = ((188, 0), (192, 4))  # of MPEG-TS: bytes of a packet, and where its G is; the second kind is that of cameras
_PACK = b"\0\0\1\xba"  # begins a pack of an MPEG program stream
_TAIL = 1 << 20  # bytes at the end of a program stream that hold a pack


def is_cut(path: str | os.PathLike[str]) -> bool | None:
    """Whether a file ends before what stands in it does; None where it cannot tell, and for what is not there.

    Matroska and WebM (RFC 9559) and Flash video say where they are whole. ASF (WMV) and GIF say both. MPEG's streams
    have no end, and are cut where they end within a packet.
    """
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(-min(size, 188), os.SEEK_END)
        if not file.read().strip(b"\0"):
            return None  # what was to come was never written
        file.seek(0)
        head = file.read(200)
        file.seek(0)
        if head.startswith(_MATROSKA):
            return False if _matroska(file) else None
        if head.startswith(b"FLV"):
            return False if _flash(file) else None
        if head.startswith(gif.SIGNATURE):
            return gif.is_cut(file)
        if head.startswith(_ASF):
            return _asf(file, size)
        if head.startswith(_PACK):
            return _program(file, size)
        for packet, at in _PACKETS:
            if head[at : at + 1] == head[packet + at : packet + at + 1] == b"G":
                return _transport(file, size, packet, at)
    return None


def _matroska(file: BinaryIO) -> bool:
    """Whether the one segment ends in the file; no where it was never finished, and has no size."""
    file.seek(len(_MATROSKA))
    file.seek(_size(file), os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return False
    length = _size(file)
    end = file.tell() + length
    return length >= 0 and end <= file.seek(0, os.SEEK_END)


def _size(file: BinaryIO) -> int:
    """The size of an element: as many bytes follow the first as it has zeros in front; -1 for one that is unknown, or
    cut off."""
    first = file.read(1)
    more = 8 - first[0].bit_length() if first else 0
    rest = file.read(more)
    unknown = (1 << 7 * (more + 1)) - 1
    if not first or len(rest) < more:
        return -1
    value = int.from_bytes(first + rest, "big") & unknown
    return -1 if value == unknown else value


def _flash(file: BinaryIO) -> bool:
    """Whether the last tag ends where the file does: its length stands behind it."""
    end = file.seek(0, os.SEEK_END) - 4
    file.seek(max(0, end))
    length = int.from_bytes(file.read(4), "big")
    if not _FLV_HEAD <= length <= end:
        return False
    file.seek(end - length + 1)
    return int.from_bytes(file.read(3), "big") == length - _FLV_HEAD


def _asf(file: BinaryIO, size: int) -> bool | None:
    """By the size of the data object, behind the header; unknown for a recording of what was broadcast."""
    file.seek(len(_ASF))
    length = int.from_bytes(file.read(8), "little")
    file.seek(0)
    header = file.read(min(length, _TAIL))
    flags = header.find(_ASF_FILE) + _ASF_FLAGS
    file.seek(length)
    if _ASF_FILE not in header or header[flags : flags + 1] not in (b"\0", b"\2") or file.read(16) != _ASF_DATA:
        return None
    data = int.from_bytes(file.read(8), "little")
    return length + data > size if data else None


def _program(file: BinaryIO, size: int) -> bool:
    """Whether the last pack of an MPEG program stream ends within a packet."""
    file.seek(max(0, size - _TAIL))
    tail = file.read()
    at = tail.rfind(_PACK)
    if at < 0:
        return False
    second = tail[at + 4 : at + 5] >= b"\x40"  # MPEG-2, whose header tells what it is filled up with
    at += 14 + (tail[at + 13] & 7 if len(tail) > at + 13 else 0) if second else 12
    while at < len(tail):
        if tail[at : at + 3] != _PACK[:3] or tail[at + 3 : at + 4] <= _PACK[3:]:
            return False  # the end, what it is filled up with, or what nobody knows
        at += 6 + int.from_bytes(tail[at + 4 : at + 6], "big")
    return at > len(tail)


def _transport(file: BinaryIO, size: int, packet: int, at: int) -> bool | None:
    """Whether the last packet of an MPEG transport stream is short; unknown where it is none."""
    short = size % packet
    file.seek(size - short + at)
    return None if short and (short <= at or file.read(1) != b"G") else bool(short)
