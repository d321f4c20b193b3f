"""What the blocks of a GIF file say: whether its first image is whole, since decoders are content once they have all
pixels, and whether it has more than one."""

from __future__ import annotations

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


def moves(data: bytes) -> bool:
    """Whether a GIF has a second image."""
    images, at = 0, 13
    try:
        at += _table(data[10])
        while images < 2 and data[at] in (_EXTENSION, _IMAGE):
            is_image = data[at] == _IMAGE
            images += is_image
            at = _behind(data, at + 11 + _table(data[at + 9]) if is_image else at + 2)
    except IndexError:
        pass
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
