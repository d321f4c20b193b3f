"""What the blocks of a video file say: whether it is all there. OpenCV gives the length of the longest track for some,
in frames, and sound may go on when the picture has ended."""

from __future__ import annotations

import os
from typing import BinaryIO

_MATROSKA, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_FLV_HEAD = 11  # bytes of a tag before its data
_PACKET = 188  # bytes of a packet of MPEG-TS, which begins with a G


def is_whole(path: str | os.PathLike[str]) -> bool:
    """Whether a file is all there by what stands in it, as far as its container can say: Matroska and WebM (RFC 9559),
    Flash video, and MPEG's streams, which have no end. False for every other file, and for what is not there."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        head = file.read(_PACKET + 1)
        file.seek(-min(len(head), _PACKET), os.SEEK_END)
        end = file.read()
        if not end.strip(b"\0"):
            return False  # what was to come was never written
        if head.startswith(_MATROSKA):
            return _matroska(file)
        if head.startswith(b"FLV"):
            return _flash(file)
        return head.startswith(b"\0\0\1\xba") or (head[:1] == head[_PACKET:] == end[:1] == b"G")


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
