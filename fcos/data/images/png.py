"""What the chunks of a PNG file say of its being whole; decoders are content once they have all rows."""

from __future__ import annotations

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def is_whole(data: bytes) -> bool:
    """Whether the compressed pixels of a PNG's bytes have their checksums and the end chunk is there (PNG, section 5).

    Zeros in place of a missing end can be pixels to a decoder, but not to the checksum.
    """
    at, view = len(SIGNATURE), memoryview(data)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data):
            return False
        if kind == b"IEND":
            return True
        if kind == b"IDAT" and zlib.crc32(view[at + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            return False
        at = end + 4
    return False
