"""What a JPEG file says of itself: its size, its EXIF orientation, its scans; nothing is decoded (T.81)."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

ORIENTATION = 0x0112  # the tag of EXIF
_EOI, _SOS, _DRI = 0xD9, 0xDA, 0xDD  # markers: end of image, start of scan, restart interval
_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))


class Header(NamedTuple):
    """Size of the stored pixels and the EXIF orientation, 1..8; from 5 on, width and height change places."""

    height: int
    width: int
    orientation: int

    @property
    def displayed(self) -> tuple[int, int]:
        """(height, width) after the rotation."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


class Jpeg(NamedTuple):
    """What the segments in front of the compressed data say, and after `with_scans` what its scans are."""

    header: Header
    components: int
    scan: int  # offset of the first scan
    progressive: bool
    scans: int = 1
    whole: bool = True  # whether its scans send every coefficient down to the last bit
    end: int = -1  # offset of the end marker; behind it another image may follow
    sampling: tuple[tuple[int, int, int], ...] = ()  # (id, horizontal, vertical) of each component
    interval: int = 0  # blocks between two restart markers; 0: there are none
    restarts: bool = True  # whether every scan has all its restart markers
    details: bool = False  # whether the last scan sends details (AC) of the first component alone, the brightness


def parse_jpeg(data: bytes) -> Jpeg | None:
    """Walk the marker segments up to the compressed data; None when it is no JPEG or the walk runs out."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    at, size, components, orientation, progressive = 2, None, 0, 1, False
    sampling: tuple[tuple[int, int, int], ...] = ()
    interval = 0
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a segment
            at += 2
            continue
        length = struct.unpack_from(">H", data, at + 2)[0]
        if marker in _FRAMES and at + 10 <= len(data):
            size, components = struct.unpack_from(">HH", data, at + 5), data[at + 9]
            progressive = marker in (0xC2, 0xC6, 0xCA, 0xCE)
            table = data[at + 10 : min(at + 10 + 3 * components, len(data))]
            sampling = tuple(
                (id, both >> 4 or 1, both & 15 or 1) for id, both in zip(table[::3], table[1::3], strict=False)
            )
        elif marker == _DRI and at + 6 <= len(data):
            interval = struct.unpack_from(">H", data, at + 4)[0]
        elif marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = _exif_orientation(data[at + 4 : at + 2 + length])
        elif marker == _SOS:
            if size is None or 0 in size:
                return None
            header = Header(size[0], size[1], orientation)
            return Jpeg(header, components, at, progressive, sampling=sampling, interval=interval)
        at += 2 + length
    return None


_SEGMENT = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # among compressed data
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")


def with_scans(data: bytes, jpeg: Jpeg) -> Jpeg:
    """`jpeg` with what its scans say. A progressive image sends each coefficient first without its last bits and those
    later (T.81, G.1.1.1); `whole` is whether all bits arrived. From the restart interval follows how many restart
    markers each scan must have."""
    scans = list(_scans(data, jpeg))
    missing: dict[int, list[int]] = {}  # component -> bits still to come of each of 64 coefficients
    for scan in scans:
        for component in scan.components:
            left = missing.setdefault(component, [1] * 64)
            left[scan.first : scan.last + 1] = [scan.bits] * len(left[scan.first : scan.last + 1])
    brightness = bytes(jpeg.sampling[0][:1]) if jpeg.sampling else None
    return jpeg._replace(
        scans=len(scans),
        whole=len(missing) >= jpeg.components and not any(map(any, missing.values())),
        end=scans[-1].end if scans else -1,
        restarts=all(scan.restarts for scan in scans),
        details=bool(scans) and scans[-1].first > 0 and scans[-1].components == brightness,
    )


class _Scan(NamedTuple):
    """components: their ids. first, last: its coefficients, of 64. bits: how many of each are still to come after it.
    restarts: whether it has all its restart markers. end: offset of the next scan or of the end marker, -1: none."""

    components: bytes
    first: int
    last: int
    bits: int
    restarts: bool
    end: int


def _scans(data: bytes, jpeg: Jpeg) -> Iterator[_Scan]:
    at, interval = jpeg.scan, jpeg.interval
    while at + 5 <= len(data):
        begin = at + 2 + struct.unpack_from(">H", data, at + 2)[0]
        components = data[at + 5 : min(at + 5 + 2 * data[at + 4], begin) : 2]
        first, last, bits = data[begin - 3 : begin] if jpeg.progressive and begin <= len(data) else (0, 63, 0)
        found = _SEGMENT.search(data, begin)
        restarts = True
        if interval:
            stop = found.start() if found else len(data)
            needed = -(-_blocks(jpeg, components) // interval) - 1
            restarts = sum(1 for _ in _RESTART.finditer(data, begin, stop)) >= needed
        at, interval = _behind_tables(data, found.start() if found else -1, interval)
        yield _Scan(components, first, last, bits & 15, restarts, at)
        if at < 0 or data[at + 1] != _SOS:
            return


def _behind_tables(data: bytes, at: int, interval: int) -> tuple[int, int]:
    """Walk from the marker at `at` over the tables between two scans: (offset of the next scan or of the end marker, -1
    for none; the restart interval by then)."""
    while at >= 0 and data[at + 1] not in (_SOS, _EOI) and at + 4 <= len(data):
        if data[at + 1] == _DRI and at + 6 <= len(data):
            interval = struct.unpack_from(">H", data, at + 4)[0]
        found = _SEGMENT.search(data, at + 2 + struct.unpack_from(">H", data, at + 2)[0])
        at = found.start() if found else -1
    return at, interval


def first_bits(data: bytes, jpeg: Jpeg) -> int:
    """The offset of the compressed data of the first scan."""
    begin: int = jpeg.scan + 2 + struct.unpack_from(">H", data, jpeg.scan + 2)[0]
    return begin


def _blocks(jpeg: Jpeg, components: bytes) -> int:
    """How many units a scan of these components has: blocks of 8x8 of one, else groups of blocks (T.81, A.2)."""
    header, sampling = jpeg.header, {id: (wide, high) for id, wide, high in jpeg.sampling}
    most = [max((sides[axis] for sides in sampling.values()), default=1) for axis in (0, 1)]
    wide, high = sampling.get(components[0], (1, 1)) if len(components) == 1 else most
    across, down = -(-header.width * wide // most[0]), -(-header.height * high // most[1])  # pixels of the component
    if len(components) == 1:
        return -(-across // 8) * -(-down // 8)
    return -(-header.width // (8 * most[0])) * -(-header.height // (8 * most[1]))


def _exif_orientation(segment: bytes) -> int:
    exif = Image.Exif()
    try:
        exif.load(segment)
        return valid_orientation(exif.get(ORIENTATION))
    except Exception:  # a damaged EXIF block does not spoil the image
        return 1


def valid_orientation(orientation: object) -> int:
    """1..8; 1 for anything else."""
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
