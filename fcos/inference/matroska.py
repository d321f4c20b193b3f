"""Frames with their times as a Matroska stream of raw pixels (RFC 9559), which an encoder reads from a pipe.

Plain raw video has one rate for all frames; phones and cameras have not.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_UNIT = 1000  # nanoseconds of a tick
_UNKNOWN = b"\x01" + 7 * b"\xff"  # the size of what is still being written


def header(width: int, height: int, rate: float) -> bytes:
    """What comes before the first frame of width x height pixels; rate: frames a second, usually."""
    pixels = _element(0xB0, _number(width)) + _element(0xBA, _number(height)) + _element(0x2EB524, b"RGB\x18")
    track = (
        _element(0xD7, _number(1))
        + _element(0x73C5, _number(1))
        + _element(0x83, _number(1))
        + _element(0x23E383, _number(round(1e9 / rate)))
        + _element(0x86, b"V_UNCOMPRESSED")
        + _element(0xE0, pixels)
    )
    kind = _element(0x4282, b"matroska") + _element(0x4287, _number(4)) + _element(0x4285, _number(2))
    info = _element(0x2AD7B1, _number(_UNIT)) + _element(0x4D80, b"fcos") + _element(0x5741, b"fcos")
    segment = _element(0x1549A966, info) + _element(0x1654AE6B, _element(0xAE, track))
    return _element(0x1A45DFA3, kind) + _number(0x18538067) + _UNKNOWN + segment


def frame(image: NDArray[np.uint8], time: float) -> Iterator[bytes | memoryview]:
    """One frame [H,W,3] RGB at `time` seconds, in parts: its pixels are not copied."""
    pixels = np.ascontiguousarray(image)
    stamp = _element(0xE7, _number(round(max(0.0, time) * 1e9 / _UNIT)))
    block = b"\x81\x00\x00\x80"  # track 1, at the time of the cluster, a key frame
    size = len(block) + pixels.nbytes
    start = stamp + _number(0xA3) + _size(size) + block
    yield _number(0x1F43B675) + _size(len(start) + pixels.nbytes) + start
    yield pixels.data.cast("B")


def _number(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")


def _size(length: int) -> bytes:
    return b"\x01" + length.to_bytes(7, "big")


def _element(name: int, content: bytes) -> bytes:
    return _number(name) + _size(len(content)) + content
