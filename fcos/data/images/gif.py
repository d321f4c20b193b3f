"""What the blocks of a GIF file say: whether its first image is whole, since decoders are content once they have all
pixels, whether it has more than one, and whether it ends within one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

SIGNATURE = b"GIF8"
_IMAGE, _EXTENSION = 0x2C, 0x21


def is_whole(data: bytes) -> bool:
    """Whether the compressed pixels of a GIF's first image end with the block of length 0 that has to be there (GIF89a,
    sections 15 and 22)."""
    try:
        at = 13 + _table(data[10])
        while data[at] == _EXTENSION:
            at = _behind(data, at + 2)
        return data[at] == _IMAGE and _behind(data, at + 11 + _table(data[at + 9])) <= len(data)
    except IndexError:
        return False


def moves(file: BinaryIO) -> bool:
    """Whether a GIF has a second image; read up to there. No for what is no GIF."""
    images = (kind for kind, _ in _blocks(file) if kind == _IMAGE)
    return next(images, None) == next(images, None) == _IMAGE


def is_cut(file: BinaryIO) -> bool:
    """Whether a GIF ends within a block. No where it ends behind one, if without its end mark: some programs do so."""
    return not all(whole for _, whole in _blocks(file))


def _blocks(file: BinaryIO) -> Iterator[tuple[int, bool]]:
    """(kind, whether all of it is there) of every extension and image of a GIF; nothing for what is no GIF."""
    head = file.read(13)
    if len(head) < 13 or not head.startswith(SIGNATURE):
        return
    file.seek(_table(head[10]), 1)
    while (kind := file.read(1)) in (bytes([_EXTENSION]), bytes([_IMAGE])):
        rest = file.read(9 if kind[0] == _IMAGE else 1)
        if kind[0] == _IMAGE:
            file.seek(_table(rest[8]) + 1 if len(rest) == 9 else 0, 1)
        while (size := file.read(1)) not in (b"", b"\0"):
            file.seek(size[0], 1)
        yield kind[0], size == b"\0"


def ends_in_zeros(data: bytes) -> bool:
    """Whether a file ends in zeros that are no end of a GIF: behind its end mark they mean nothing, and one without it
    may still end in two of its own."""
    return data.endswith(b"\0\0\0") and not data.rstrip(b"\0").endswith(b"\0;")


def _table(flags: int) -> int:
    """Bytes of the table of colours that the flags of a header announce."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _behind(data: bytes, at: int) -> int:
    """The place behind the sub-blocks that begin there; IndexError where they do not end."""
    while data[at]:
        at += data[at] + 1
    return at + 1
