"""What the blocks of a GIF file say: whether its first image is whole, since decoders are content once they have all
pixels, and whether it has more than one."""

from __future__ import annotations

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
    head = file.read(13)
    if len(head) < 13 or not head.startswith(SIGNATURE):
        return False
    file.seek(_table(head[10]), 1)
    images = 0
    while images < 2 and (kind := file.read(1)) in (bytes([_EXTENSION]), bytes([_IMAGE])):
        rest = file.read(9 if kind[0] == _IMAGE else 1)
        if kind[0] == _IMAGE:
            images += 1
            file.seek(_table(rest[8]) + 1 if len(rest) == 9 else 0, 1)
        while (size := file.read(1)) not in (b"", b"\0"):
            file.seek(size[0], 1)
    return images > 1


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
