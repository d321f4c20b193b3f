"""What a TIFF says of its bands: of remote sensing they are often more than the colours that people see."""

from __future__ import annotations

import struct
from io import BytesIO

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

_BITS, _PHOTOMETRIC, _BANDS = 258, 262, 277  # the tags
_MAP = {33550, 33922, 34264, 34735, 42112}  # tags of GeoTIFF and GDAL
_STARTS = (b"II*\0", b"MM\0*")


def why_unknown(data: bytes) -> str:
    """What is unusual in a TIFF that Pillow does not know, and how to write it otherwise; "" where that cannot be
    said, or `data` is no TIFF."""
    if not data.startswith(_STARTS):
        return ""
    try:
        file = BytesIO(data)
        tags = ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
        bands, bits = int(tags.get(_BANDS, 1)), tags.get(_BITS, (1,))[0]
    except (OSError, SyntaxError, struct.error, TypeError, ValueError):
        return ""
    colours = "" if tags.get(_PHOTOMETRIC) == 2 else ", not marked as RGB"
    if bands < 3 or bits not in (8, 16):
        return f"a TIFF with {bands} x {bits} bits{colours}; save it as plain grey or RGB of 8 or 16 bits"
    how = "gdal_translate -b 1 -b 2 -b 3 -co PHOTOMETRIC=RGB IN.tif OUT.tif writes the first three"
    return f"a TIFF with {bands} bands of {bits} bits{colours}; RGB has three: {how}"


def shown(image: Image.Image) -> Image.Image:
    """A TIFF as it is seen. GDAL marks the fourth band as transparency, whatever it holds: in a map, one of which less
    than half is 0 or 255, as near infrared is, is left out."""
    if image.mode != "RGBA" or not _MAP.intersection(getattr(image, "tag_v2", ())):
        return image
    counts = image.getchannel("A").histogram()
    return image if 2 * (counts[0] + counts[255]) >= sum(counts) else image.convert("RGB")
