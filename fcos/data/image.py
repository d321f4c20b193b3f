"""Any image to uint8 RGB pixels, as a person sees it, and to another size.

JPEG goes through OpenCV, which is the fastest decoder at hand; everything else through Pillow, and of its formats
only those named here: others start programs. The EXIF orientation is read here in both cases, so that sizes from
headers and decoded pixels always agree. Size and pixels are judged by the header, before anything is decoded.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ..config import ResizeRule
from ..errors import ImageError, ImageWarning
from ..readers import MB, open_file, read_bytes
from . import gif, png
from .jpeg import ORIENTATION, Header, Jpeg, count_scans, first_bits, parse_jpeg, valid_orientation

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "webp", "gif", "bmp", "dib", "tif", "tiff"),
        *("ppm", "pgm", "pbm", "pnm", "jp2", "avif"),
    )
)
# Pillow's names. Its other formats are rare, and EPS among them starts Ghostscript.
# (A JPEG of several images, MPO, comes under JPEG.)
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "DIB", "WEBP", "TIFF", "JPEG2000", "AVIF")
IMAGE_LIMIT = 1024 * MB  # bytes of a file
MAX_SCANS = 100  # of a progressive JPEG, each of which costs as much as the whole image; cameras write about 10
_ZEROS = bytes(64)
_ENDS_IN_ZEROS = "the file ends in zeros, so the end of the image may be missing"
STRIP = 1 << 22  # pixels that are converted at a time
HEADER_BYTES = 1 << 15


def _max_pixels() -> int:
    """178,956,970, Pillow's own limit, or FCOS_MAX_MEGAPIXELS million where that is higher."""
    asked = os.environ.get("FCOS_MAX_MEGAPIXELS", "")
    own = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)
    return max(own, int(asked) * 1_000_000) if asked.isascii() and asked.isdigit() else own


MAX_PIXELS = _max_pixels()  # a small file can claim to be huge
if Image.MAX_IMAGE_PIXELS is not None and 2 * Image.MAX_IMAGE_PIXELS < MAX_PIXELS:
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2 + 1
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # below the limit that is an error


def load_image(source: Any) -> np.ndarray:
    """Any source as uint8 RGB [H,W,3], the same pixels whichever way the image comes: a path, the bytes of a file, a
    PIL image, an array [H,W], [H,W,1], [H,W,3] or [H,W,4], or a tensor of these shapes or [1|3|4,H,W].

    Arrays and tensors are uint8, uint16 (0..65535) or float in 0..1; RGB order. A PIL image is turned upright by the
    EXIF orientation that it carries. The rest is as `read_image` says. Raises ImageError for what is no image.
    """
    if isinstance(source, bytes):
        return read_image(source)
    if isinstance(source, str | os.PathLike):
        return read_image(Path(source))
    if isinstance(source, Image.Image):
        return _from_pillow("the image", source, b"")
    if hasattr(source, "detach"):  # a tensor; torch is not needed to know one
        tensor = source.detach().cpu()
        first, last = (tensor.shape[0], tensor.shape[2]) if tensor.ndim == 3 else (0, 0)
        if first in (1, 3) or (first == 4 and last not in (1, 3, 4)):
            tensor = tensor.permute(1, 2, 0)
        source = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if not isinstance(source, np.ndarray):
        raise ImageError(f"cannot take a {type(source).__name__} for an image; give a path, PIL image or array")
    return _from_array(source)


def read_image(source: str | Path | bytes) -> np.ndarray:
    """An image as uint8 RGB [H,W,3], turned upright by its EXIF orientation.

    `source` is a path or the file's bytes. Grey becomes three equal channels, 16 bits become 8 by a fixed
    factor (never by the image's own range, so that brightness keeps its meaning), transparency is laid
    over white as most viewers do, and of an animation the first frame is read.
    Raises ImageError for a file that is missing, empty, cut short, no image, over 179 megapixels or 1 GB (the
    variables FCOS_MAX_MEGAPIXELS and FCOS_MAX_MB raise these limits). Warns (ImageWarning) of an image whose end is
    missing although the file looks whole, and of floats that are not finite.
    """
    name = "the image" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else read_bytes(source, IMAGE_LIMIT, ImageError)
    if not data:
        raise ImageError(f"cannot read {name}: the file is empty")
    jpeg = parse_jpeg(data)
    if jpeg is not None:
        _refuse_huge(name, jpeg.header.height, jpeg.header.width)
        scans = data.count(b"\xff\xda")
        if scans > MAX_SCANS:
            raise ImageError(f"cannot read {name}: it has {scans} scans, and at most {MAX_SCANS} are decoded")
        jpeg = count_scans(data, jpeg)
        # Four components (CMYK) go to Pillow, which knows Adobe's inversion. So does a file without an end
        # marker: OpenCV fills the missing part with grey, Pillow says whether anything is missing.
        if jpeg.end >= 0:
            return _decode_jpeg(name, data, jpeg)
    image = _decode_pillow(name, data)
    is_gif = data.startswith(gif.SIGNATURE)
    packed = jpeg is not None or data[:4] == b"RIFF" or data[4:8] == b"ftyp"
    if gif.ends_in_zeros(data) if is_gif else packed and data.endswith(_ZEROS):
        # compressed data is never so; a download that broke off is, and these decoders take zeros for data
        warnings.warn(f"{name}: {_ENDS_IN_ZEROS}", ImageWarning, 2)
    elif data.startswith(png.SIGNATURE) and not png.is_whole(data):
        warnings.warn(f"{name}: the PNG is damaged, so a part of the image may be missing", ImageWarning, 2)
    elif is_gif and not gif.is_whole(data):
        warnings.warn(f"{name}: the GIF breaks off, so a part of the image may be missing", ImageWarning, 2)
    return image


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) as displayed, from the header alone; ImageError as for `read_image`."""
    return image_header(path).displayed


def image_header(source: str | Path | bytes) -> Header:
    """Size and orientation of a path or a file's bytes without decoding; about 30 microseconds for a JPEG.
    ImageError if unreadable."""
    path = "the image" if isinstance(source, bytes) else source
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else open_file(source, IMAGE_LIMIT, ImageError) as file:
            data = file.read(HEADER_BYTES)
            jpeg = parse_jpeg(data)
            if jpeg is None and data[:3] == b"\xff\xd8\xff":
                data += file.read()  # an embedded preview can push the size beyond the first block
                jpeg = parse_jpeg(data)
            if jpeg is not None:
                return jpeg.header
    except OSError as error:
        raise ImageError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    if not data:
        raise ImageError(f"cannot read {path}: the file is empty")
    try:
        with (
            io.BytesIO(source) if isinstance(source, bytes) else open_file(source, IMAGE_LIMIT, ImageError) as file,
            _open(file) as image,
        ):
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
        raise ValueError(f"an image cannot be {size[1]}x{size[0]} pixels")
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
    """Boxes [G,4] xyxy of the stored pixels -> of the displayed image, whose (height, width) is given."""
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


def _decode_jpeg(name: str, data: bytes, jpeg: Jpeg) -> np.ndarray:
    image = _opencv(data) if jpeg.components != 4 else None
    if image is None:
        image = _decode_pillow(name, data)
        _tell_of_cut(name, data, jpeg, None)
        return image
    _tell_of_cut(name, data, jpeg, image)
    return turn_image(image, jpeg.header.orientation)


def _tell_of_cut(name: str, data: bytes, jpeg: Jpeg, image: np.ndarray | None) -> None:
    """Warn of a JPEG whose end marker was patched on; `image`: what OpenCV made of it, where it did.

    Where the only scan was cut, the rest is filled with one colour. Then other bytes in front of that marker change it,
    while behind a whole scan nothing reads them. Where one of several was cut, or late ones are gone, the whole image
    is there, but coarse.
    """
    if not jpeg.restarts:
        warnings.warn(f"{name}: a part of the image is missing between its restart markers", ImageWarning, 4)
    elif jpeg.scans == 1 and data.endswith(_ZEROS, jpeg.scan, jpeg.end) and _is_filled(data, jpeg):
        warnings.warn(f"{name}: the image ends in zeros, so its end may be missing", ImageWarning, 4)
    elif not jpeg.whole:
        warnings.warn(f"{name}: scans at the end of the file are missing, so details are too", ImageWarning, 4)
    elif jpeg.scans > 1 and _reads_on(data, jpeg.end, image):
        warnings.warn(f"{name}: the end of the last scan is missing, and details with it", ImageWarning, 4)
    elif jpeg.scans == 1 and (image is None or _ends_flat(image)) and _reads_on(data, jpeg.end):
        warnings.warn(f"{name}: the end of the image is missing, and one colour fills it", ImageWarning, 4)


def _ends_flat(image: np.ndarray) -> bool:
    """Whether the last block of a decoded JPEG may be of one brightness; its colours mix with those beside it."""
    height, width = image.shape[:2]
    block = image[(height - 1) // 8 * 8 :, (width - 1) // 8 * 8 :]
    return bool(np.ptp(block @ np.array([0.299, 0.587, 0.114])) < 8)


def _is_filled(data: bytes, jpeg: Jpeg) -> bool:
    """Whether the zeros at the end of the only scan are too few or too many for the image. Those of an image that is
    flat there are as many as it takes: others in place of the last ones change it."""
    start = first_bits(data, jpeg)
    other = data[start : start + 24]
    if _reads_on(data, jpeg.end):
        return True
    return other.count(0) < 12 and not _differs(data, data[: jpeg.end - 8] + other + data[jpeg.end :])


_FILLER = bytes((219 + 37 * k) % 251 for k in range(512))  # begins with ones: a decoder itself puts zeros there
# where a decoder waits for a restart marker, it takes nothing up to one
_FILLER += b"".join(bytes((0xFF, 0xD0 + k)) + _FILLER[:40] for k in range(8))


def _reads_on(data: bytes, end: int, image: np.ndarray | None = None) -> bool:
    """Whether a JPEG, decoded to `image` where that is known, changes with other bytes in front of the marker at `end`.
    (By Pillow: OpenCV would complain of them on stderr.)"""
    return _differs(data, data[:end] + _FILLER + data[end:], image)


def _differs(data: bytes, changed: bytes, image: np.ndarray | None = None) -> bool:
    """Whether two JPEGs differ in their pixels; those of the first are `image` where they are known."""
    try:
        with _open(io.BytesIO(data)) as one, _open(io.BytesIO(changed)) as other:
            if image is not None and np.array_equal(image, np.asarray(other.convert("RGB"))):
                return False  # the usual case, without decoding both
            return one.tobytes() != other.tobytes()
    except Exception:
        return True


def _opencv(data: bytes) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None


def _decode_pillow(name: str, data: bytes) -> np.ndarray:
    try:
        with _open(io.BytesIO(data)) as image:
            return _from_pillow(name, image, data)
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(f"cannot read {name}: it does not fit into memory") from None
    except Exception as error:
        raise ImageError(f"cannot read {name}: {_cause(error, data)}") from None


def _open(file: IO[bytes]) -> Image.Image:
    try:
        return Image.open(file, formats=FORMATS)
    except KeyError:  # a format that this Pillow does not know, tried last
        raise UnidentifiedImageError from None


def _from_pillow(name: str, image: Image.Image, data: bytes) -> np.ndarray:
    try:
        _refuse_huge(name, image.height, image.width)
        orientation = _pillow_orientation(image)
        image.load()
        if image.format == "TIFF":  # Pillow turns these while loading, and then drops the mark
            orientation = _pillow_orientation(image)
            if image.info.get("compression") == "jpeg" and data.endswith(_ZEROS):  # its tables may lie at the end
                warnings.warn(f"{name}: {_ENDS_IN_ZEROS}", ImageWarning, 4)
        return turn_image(_to_rgb(name, image), orientation)
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(f"cannot read {name}: it does not fit into memory") from None
    except Exception as error:
        raise ImageError(f"cannot read {name}: {_cause(error, data)}") from None


def _to_rgb(name: str, image: Image.Image) -> np.ndarray:
    """A decoded image as RGB, strip by strip: a large one is never held in memory three times."""
    width, height = image.size
    if 0 in image.size:
        raise ImageError(f"cannot read {name}: it has no pixels ({width}x{height})")
    rows = max(1, STRIP // width)
    if image.mode == "F" or (image.mode.startswith("I") and image.mode != "I;16"):
        return _grey_to_rgb(name, np.asarray(image))
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        strip = image if rows >= height else image.crop((0, top, width, min(height, top + rows)))
        strip.info = image.info
        pixels[top : top + rows] = _strip_to_rgb(name, strip)
    return pixels


def _strip_to_rgb(name: str, image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):
        return _grey_to_rgb(name, np.asarray(image))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _over_white(np.asarray(image.convert("RGBA")))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _over_white(rgba: np.ndarray) -> np.ndarray:
    """uint8 [H,W,4] laid on white, as Pillow does it."""
    if (rgba[..., 3] == 255).all():
        return np.ascontiguousarray(rgba[..., :3])
    image = Image.fromarray(np.ascontiguousarray(rgba))
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        array = array[..., None]
    known = array.dtype in (np.uint8, np.uint16) or array.dtype.kind == "f"
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not known or 0 in array.shape:
        raise ImageError(
            f"an image must be [H,W,3] uint8 (or uint16, or float in 0..1), not {array.shape} {array.dtype}"
        )
    if array.dtype != np.uint8:
        array = _levels("the image", array, most=1.0)
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    return _over_white(array) if array.shape[2] == 4 else np.ascontiguousarray(array)


def _grey_to_rgb(name: str, values: np.ndarray) -> np.ndarray:
    return np.repeat(_levels(name, values)[..., None], 3, axis=2)


def _levels(name: str, values: np.ndarray, most: float = 255.0) -> np.ndarray:
    """Numbers of more than 8 bits as uint8: 0..65535 for whole numbers, 0..1 for floats, or 0..255 where `most` says
    so and one of them is above 2. A few that are not finite are taken for black or white, with a warning."""
    if values.dtype.kind != "f":
        if values.dtype != np.uint16 and values.size and (int(values.min()) < 0 or int(values.max()) > 65535):
            raise ImageError(f"cannot read {name}: its values lie in {values.min()}..{values.max()}, not in 0..65535")
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    values = values.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        bad = int(values.size - finite.sum())
        if 2 * bad > values.size:
            raise ImageError(f"cannot read {name}: {bad:,} of its {values.size:,} values are not finite")
        warnings.warn(f"{name}: {bad:,} values are not finite; they are drawn black or white", ImageWarning, 4)
    low, high = float(values[finite].min()), float(values[finite].max())
    if low < -0.1 * max(1.0, high) or high > max(2.0, most * 1.01):
        wanted = "0..1" if most == 1 else "0..1 or 0..255"
        raise ImageError(f"cannot read {name}: its floats lie in {low:g}..{high:g}, not in {wanted}")
    values = np.nan_to_num(values, nan=0.0, posinf=high, neginf=low)
    return np.clip(values * (255 if high <= 2 else 1) + 0.5, 0, 255).astype(np.uint8)


def _pillow_orientation(image: Image.Image) -> int:
    # Pillow's getexif decodes the whole of a PNG that has none; the header is enough here.
    if image.format in ("JPEG", "PNG", "WEBP", "MPO", "AVIF") and "exif" not in image.info:
        return 1
    try:
        return valid_orientation(image.getexif().get(ORIENTATION))
    except Exception:  # a damaged EXIF block does not spoil the image
        return 1


def _refuse_huge(name: str, height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise ImageError(
            f"cannot read {name}: {width}x{height} is over the limit of {MAX_PIXELS // 10**6} megapixels; "
            "cut it into tiles, or set FCOS_MAX_MEGAPIXELS if there is memory for it"
        )


def _cause(error: Exception, data: bytes) -> str:
    if isinstance(error, UnidentifiedImageError):
        if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
            return "HEIC is not supported; convert it to JPEG"
        return "not an image in a known format (JPEG, PNG, WebP, GIF, TIFF, BMP)"
    if isinstance(error, Image.DecompressionBombError):
        limit = f"the image is over the limit of {MAX_PIXELS // 10**6} megapixels"
        return f"{limit}; cut it into tiles, or set FCOS_MAX_MEGAPIXELS if there is memory for it"
    text = (str(error).splitlines() or [""])[0] or type(error).__name__
    return "the file is cut short" if "truncated" in text.lower() else f"{text[:1].lower()}{text[1:]}"
