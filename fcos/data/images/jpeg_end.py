"""Is a JPEG whole that decodes without complaint? One that was cut short and given an end marker afterwards is not."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image

from ...errors import ImageWarning
from .jpeg import Jpeg, first_bits

ZEROS = bytes(64)  # an end that no compressed data has
_JPEG = ("JPEG",)  # Pillow's name; those of several images, MPO, come under it
_FILLER = bytes((219 + 37 * k) % 251 for k in range(512))  # begins with ones: a decoder itself puts zeros there
# where a decoder waits for a restart marker, it takes nothing up to one
_FILLER += b"".join(bytes((0xFF, 0xD0 + k)) + _FILLER[:40] for k in range(8))


def tell_of_cut(name: str, data: bytes, jpeg: Jpeg, image: np.ndarray | None) -> None:
    """Warn of a JPEG whose end marker was patched on; `image`: what OpenCV made of it, where it did.

    Where the only scan was cut, the rest is filled with one colour. Then other bytes in front of that marker change it,
    while behind a whole scan nothing reads them. Where one of several was cut, or late ones are gone, the whole image
    is there, but coarse.
    """
    if not jpeg.restarts:
        warnings.warn(f"{name}: a part of the image is missing between its restart markers", ImageWarning, 4)
    elif data.endswith(ZEROS, jpeg.scan, jpeg.end) and (jpeg.details or _is_filled(data, jpeg)):
        warnings.warn(f"{name}: the image ends in zeros, so its end may be missing", ImageWarning, 4)
    elif not jpeg.whole:
        warnings.warn(f"{name}: scans at the end of the file are missing, so details are too", ImageWarning, 4)
    elif jpeg.scans > 1 and _reads_on(data, jpeg.end, image):
        warnings.warn(f"{name}: the end of the last scan is missing, and details with it", ImageWarning, 4)
    elif jpeg.scans == 1 and (image is None or _ends_flat(image)) and _reads_on(data, jpeg.end, image):
        warnings.warn(f"{name}: the end of the image is missing, and one colour fills it", ImageWarning, 4)


def _ends_flat(image: np.ndarray) -> bool:
    """Whether the last block of a decoded JPEG may be of one brightness; its colours mix with those beside it."""
    height, width = image.shape[:2]
    block = image[(height - 1) // 8 * 8 :, (width - 1) // 8 * 8 :]
    return bool(np.ptp(block @ np.array([0.299, 0.587, 0.114])) < 8)


def _is_filled(data: bytes, jpeg: Jpeg) -> bool:
    """Whether the zeros at the end of the last scan are too few or too many for the image. Those of an image that is
    flat there are as many as it takes: others in place of the last ones change it. (Not so where that scan sends
    details: a run of blocks without any is one code, and the code for one such block alone is not of zeros.)"""
    start = first_bits(data, jpeg)
    other = data[start : start + 24]
    if _reads_on(data, jpeg.end):
        return True
    return other.count(0) < 12 and not _differs(data, data[: jpeg.end - 8] + other + data[jpeg.end :])


def _reads_on(data: bytes, end: int, image: np.ndarray | None = None) -> bool:
    """Whether a JPEG, decoded to `image` where that is known, changes with other bytes in front of the marker at `end`.
    (By Pillow: OpenCV would complain of them on stderr.)"""
    return _differs(data, data[:end] + _FILLER + data[end:], image)


def _differs(data: bytes, changed: bytes, image: np.ndarray | None = None) -> bool:
    """Whether two JPEGs differ in their pixels; those of the first are `image` where they are known."""
    try:
        with (
            Image.open(io.BytesIO(data), formats=_JPEG) as one,
            Image.open(io.BytesIO(changed), formats=_JPEG) as other,
        ):
            if image is not None and np.array_equal(image, np.asarray(other.convert("RGB"))):
                return False  # the usual case, without decoding both
            return one.tobytes() != other.tobytes()
    except Exception:
        return True
