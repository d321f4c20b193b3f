"""One picture from a file to uint8 RGB pixels, as a person sees it, and to another size.

JPEG goes through OpenCV, which is the fastest decoder at hand; everything else through Pillow. The EXIF
orientation is read here in both cases, so that sizes from headers and decoded pixels always agree.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ..config import ResizeRule
from ..errors import ImageError

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "webp", "gif", "bmp", "dib", "tif", "tiff"),
        *("ppm", "pgm", "pbm", "pnm", "jp2", "avif"),
    )
)
MAX_PIXELS = 250_000_000  # a small file can claim to be huge; Pillow's own limit for other formats is 179 million
HEADER_BYTES = 1 << 15
_ORIENTATION = 0x0112
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


class _Jpeg(NamedTuple):
    header: Header
    components: int
    scan: int  # offset of the compressed data


def read_image(source: str | Path | bytes) -> np.ndarray:
    """A picture as uint8 RGB [H,W,3], turned upright by its EXIF orientation.

    `source` is a path or the file's bytes. Grey becomes three equal channels, 16 bits become 8 by a fixed
    factor (never by the picture's own range, so that brightness keeps its meaning), transparency is laid
    over white as most viewers do, and of an animation the first frame is read.
    Raises ImageError for a file that is missing, empty, cut short, no picture, or over 250 megapixels.
    """
    name = "the picture" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else _read_bytes(source)
    if not data:
        raise ImageError(f"cannot read {name}: the file is empty")
    jpeg = _parse_jpeg(data)
    if jpeg is not None:
        _refuse_huge(name, jpeg.header.height, jpeg.header.width)
        # Four components (CMYK) go to Pillow, which knows Adobe's inversion. So does a file without an end
        # marker: OpenCV fills the missing part with grey, Pillow says whether anything is missing.
        if jpeg.components != 4 and data.rfind(b"\xff\xd9", jpeg.scan) >= 0:
            return _decode_jpeg(name, data, jpeg.header.orientation)
    return _decode_pillow(name, data)


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) as displayed, from the header alone; ImageError as for `read_image`."""
    return image_header(path).displayed


def image_header(source: str | Path | bytes) -> Header:
    """Size and orientation of a path or a file's bytes without decoding; about 30 microseconds for a JPEG.
    ImageError if unreadable."""
    path = "the picture" if isinstance(source, bytes) else source
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb", buffering=0) as file:
            data = file.read(HEADER_BYTES)
            jpeg = _parse_jpeg(data)
            if jpeg is None and data[:3] == b"\xff\xd8\xff":
                data += file.read()  # an embedded preview can push the size beyond the first block
                jpeg = _parse_jpeg(data)
            if jpeg is not None:
                return jpeg.header
    except OSError as error:
        raise ImageError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    if not data:
        raise ImageError(f"cannot read {path}: the file is empty")
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            orientation = _pillow_orientation(image)
            if image.format == "TIFF":  # Pillow may name the rotated size, the tags are as stored
                tags: Any = image.getexif()
                return Header(int(tags[257]), int(tags[256]), orientation)
            return Header(image.height, image.width, orientation)
    except Exception as error:
        raise ImageError(f"cannot read {path}: {_cause(error, data)}") from None


def resized_shape(size: tuple[int, int], short: int, longest: int, rounding: ResizeRule = "nearest") -> tuple[int, int]:
    """(height, width) after scaling by min(short / shorter side, longest / longer side); at least 1 pixel.

    'nearest' is computed in whole numbers, so a side that should be exactly `short` or `longest` is. The
    other rules repeat the arithmetic of the published implementations, see `fcos.config.DataConfig.round`.
    """
    low, high = min(size), max(size)
    if low < 1:
        raise ValueError(f"a picture cannot be {size[1]}x{size[0]} pixels")
    if rounding == "nearest":
        numerator, denominator = (short, low) if short * high <= longest * low else (longest, high)
        sides = [(2 * side * numerator + denominator) // (2 * denominator) for side in size]
    elif rounding == "short-exact":  # the original: the shorter side is a whole number first
        first = round(longest * low / high) if high / low * short > longest else short
        sides = [first if side == low else int(first * side / low) for side in size]
    elif rounding == "two-step":  # detectron2, AdelaiDet: scaled to `short`, then again to `longest`
        scaled = [float(short) if side == low else short / low * side for side in size]
        again = longest / max(scaled) if max(scaled) > longest else 1.0
        sides = [int(side * again + 0.5) for side in scaled]
    else:  # mmdetection rounds, torchvision cuts
        factor = min(short / low, longest / high)
        sides = [int(side * factor + (0.5 if rounding == "half-up" else 0.0)) for side in size]
    return max(1, sides[0]), max(1, sides[1])


def resize(image: np.ndarray, shape: tuple[int, int], resample: str = "auto") -> np.ndarray:
    """uint8 [H,W,3] -> uint8 of `shape` (height, width).

    'auto' averages the covered pixels when shrinking and interpolates when enlarging, 'linear' always
    interpolates (and so skips pixels when shrinking), 'pil' is Pillow's antialiased filter, several times
    slower. 'torch' is done in float by the detector; here it means 'linear'.
    """
    if image.shape[:2] == tuple(shape):
        return image
    height, width = shape
    if resample == "pil":
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    how = cv2.INTER_AREA if resample == "auto" and shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=how)


def turn_image(image: np.ndarray, orientation: int) -> np.ndarray:
    """Stored pixels -> displayed pixels for an EXIF orientation 1..8."""
    if orientation >= 5:
        image = cv2.transpose(image)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if flip is None else cv2.flip(image, flip)


def turn_boxes(boxes: np.ndarray, orientation: int, displayed: tuple[int, int]) -> np.ndarray:
    """Boxes [G,4] xyxy of the stored pixels -> of the displayed picture, whose (height, width) is given."""
    height, width = displayed
    if orientation >= 5:
        boxes = boxes[:, [1, 0, 3, 2]]
    x1, y1, x2, y2 = boxes.T
    if orientation in (2, 3, 6, 7):
        x1, x2 = width - x2, width - x1
    if orientation in (3, 4, 7, 8):
        y1, y2 = height - y2, height - y1
    return np.stack((x1, y1, x2, y2), axis=1)


# --------------------------------------------------------------------------- decoding


def _read_bytes(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None


def _decode_jpeg(name: str, data: bytes, orientation: int) -> np.ndarray:
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        return _decode_pillow(name, data)
    return turn_image(image, orientation)


def _decode_pillow(name: str, data: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            _refuse_huge(name, image.height, image.width)
            orientation = _pillow_orientation(image)
            image.load()
            if image.format == "TIFF":  # Pillow turns these while loading, and then drops the mark
                orientation = _pillow_orientation(image)
            return turn_image(_to_rgb(image), orientation)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"cannot read {name}: {_cause(error, data)}") from None


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image).astype(np.float32)
        if image.mode != "F":
            values /= 257  # 65535 -> 255
        elif values.size and values.max() <= 1:
            values *= 255  # floats of 0..1
        grey = np.clip(np.nan_to_num(values) + 0.5, 0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _pillow_orientation(image: Image.Image) -> int:
    # Pillow's getexif decodes the whole of a PNG that has none; the header is enough here.
    if image.format in ("JPEG", "PNG", "WEBP", "MPO", "AVIF") and "exif" not in image.info:
        return 1
    return _valid(image.getexif().get(_ORIENTATION))


def _valid(orientation: object) -> int:
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _refuse_huge(name: str, height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"cannot read {name}: {width}x{height} is over the limit of {MAX_PIXELS // 10**6} megapixels; "
            "cut it into tiles"
        )


def _cause(error: Exception, data: bytes) -> str:
    if isinstance(error, UnidentifiedImageError):
        if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
            return "HEIC is not supported; convert it to JPEG"
        return "not a picture in a known format (JPEG, PNG, WebP, GIF, TIFF, BMP)"
    if isinstance(error, Image.DecompressionBombError):
        return "the picture is over 179 megapixels; cut it into tiles"
    text = (str(error).splitlines() or [""])[0] or type(error).__name__
    return "the file is cut short" if "truncated" in text.lower() else f"{text[:1].lower()}{text[1:]}"


def _parse_jpeg(data: bytes) -> _Jpeg | None:
    """Walk the marker segments up to the compressed data; None when it is no JPEG or the walk runs out."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    at, size, components, orientation = 2, None, 0, 1
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
        elif marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = _exif_orientation(data[at + 4 : at + 2 + length])
        elif marker == 0xDA:
            if size is None or 0 in size:
                return None
            return _Jpeg(Header(size[0], size[1], orientation), components, at + 2 + length)
        at += 2 + length
    return None


def _exif_orientation(segment: bytes) -> int:
    exif = Image.Exif()
    try:
        exif.load(segment)
        return _valid(exif.get(_ORIENTATION))
    except Exception:  # a damaged EXIF block does not spoil the picture
        return 1
