"""Any image to uint8 RGB pixels, as a person sees it, and to another size.

JPEG goes through OpenCV, which is the fastest decoder at hand; everything else through Pillow, and of its formats
only those named here: others start programs. The EXIF orientation is read here in both cases, so that sizes from
headers and decoded pixels always agree. Size and pixels are judged by the header, before anything is decoded.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ...config import ResizeRule
from ...errors import ImageError, ImageWarning, first_line
from ...system import tars
from ...system.readers import MB, open_file, raised_pixels, read_bytes, to_raise
from ...system.terminal import plural
from . import gif, png, tiff
from .jpeg import ORIENTATION, Header, Jpeg, parse_jpeg, valid_orientation, with_scans
from .jpeg_end import ZEROS, tell_of_cut
from .pixels import array_to_rgb, image_to_rgb, tell_dark

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "webp", "gif", "bmp", "dib", "tif", "tiff"),
        *("ppm", "pgm", "pbm", "pnm", "jp2", "avif"),
    )
)
# Images that a folder may hold and that are not read, so they are told of: of telephones, raw ones of cameras, of
# medicine, of film and drawing programs.
UNREAD = frozenset(
    f".{name}"
    for name in (
        *("heic", "heif", "jxl", "tga", "psd", "exr", "hdr", "dcm", "dicom", "pcx"),
        *("dng", "cr2", "cr3", "nef", "arw", "raf", "orf", "rw2"),
    )
)
# Pillow's names. Its other formats are rare, and EPS among them starts Ghostscript.
# (A JPEG of several images, MPO, comes under JPEG.)
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "DIB", "WEBP", "TIFF", "JPEG2000", "AVIF")
IMAGE_LIMIT = 1024 * MB  # bytes of a file
MAX_SCANS = 100  # of a progressive JPEG, each of which costs as much as the whole image; cameras write about 10
_ENDS_IN_ZEROS = "the file ends in zeros, so the end of the image may be missing"
HEADER_BYTES = 1 << 15
IN_A_ROW = 20  # images that cannot be read: it is not they that are broken, their disk has gone away


# A small file can claim to be huge. 178,956,970 is Pillow's own limit.
MAX_PIXELS = raised_pixels(2 * (Image.MAX_IMAGE_PIXELS or 89_478_485))
if Image.MAX_IMAGE_PIXELS is not None and 2 * Image.MAX_IMAGE_PIXELS < MAX_PIXELS:
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2 + 1
# below the limit that is an error; at the end, where a program with a filter of its own is not overruled
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, append=True)


def tell_unread(folder: str | Path, paths: Sequence[str | Path]) -> None:
    """Tell of the files below a folder, if any, that are images of `UNREAD` formats."""
    if paths:
        kinds = ", ".join(sorted({os.path.splitext(p)[1].lower() for p in paths}))
        files = f"{plural(len(paths), 'file')} in {folder} left out (first: {min(str(p) for p in paths)})"
        warnings.warn(f"{files}: {kinds} images are not read; convert to JPEG or PNG", ImageWarning, 3)


def unread(count: int, last: ImageError) -> ImageError:
    """The error for `count` images in a row that cannot be read."""
    return last if count == 1 else ImageError(f"{plural(count, 'image')} in a row cannot be read, the last: {last}")


def is_there(path: str) -> bool:
    """Whether there is a file of an image, or a tar file with it; there is none where its disk went away."""
    return os.access(path, os.R_OK) or tars.split(path) is not None


def load_image(source: Any) -> np.ndarray:
    """Any source as uint8 RGB [H,W,3], the same pixels whichever way the image comes: a path, the bytes of a file, a
    PIL image, an array [H,W], [H,W,1], [H,W,3] or [H,W,4], or a tensor of these shapes or [1|3|4,H,W].

    Arrays and tensors are uint8, uint16 (0..65535) or float in 0..1; RGB order. A PIL image is turned upright by the
    EXIF orientation that it carries. The rest is as `read_image` says. Raises ImageError for what is no image.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return read_image(bytes(source))
    if isinstance(source, str | os.PathLike):
        return read_image(Path(source))
    if isinstance(source, Image.Image):
        return _from_pillow("the image", source, b"")
    if hasattr(source, "detach") and hasattr(source, "cpu"):  # a tensor; torch is not needed to know one
        tensor = source.detach().cpu()
        first, last = (tensor.shape[0], tensor.shape[2]) if tensor.ndim == 3 else (0, 0)
        if first in (1, 3) or (first == 4 and last not in (1, 3, 4)):
            tensor = tensor.permute(1, 2, 0)
        source = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if isinstance(source, np.ndarray) and source.ndim == 4:
        raise ImageError(f"{list(source.shape)} are {len(source)} images; give them one by one, as a list: [*images]")
    if not isinstance(source, np.ndarray):
        advice = "a path, PIL image or array"
        if hasattr(source, "read"):  # a file that is open
            advice = "the bytes that its read() gives"
        elif isinstance(source, Iterable):  # a generator of paths, say
            advice = "its images as a list, [*images]"
        raise ImageError(f"cannot take a {type(source).__name__} for an image; give {advice}")
    return array_to_rgb(source)


def read_image(source: str | Path | bytes, name: str | None = None) -> np.ndarray:
    """An image as uint8 RGB [H,W,3], turned upright by its EXIF orientation.

    `source` is a path or the file's bytes, `name` what errors and warnings call it in place of its path.

    Grey becomes three equal channels, 16 bits become 8 by a fixed factor (never by the image's own range, so that
    brightness keeps its meaning), transparency is laid over white as most viewers do, and of an animation the first
    frame is read.
    Raises ImageError for a file that is missing, empty, cut short, no image, over 179 megapixels or 1 GB (the
    variables FCOS_MAX_MEGAPIXELS and FCOS_MAX_MB raise these limits). Warns (ImageWarning) of an image whose end is
    missing although the file looks whole, of floats that are not finite, and once of 16 bits that use 14 or fewer.
    """
    name = name or ("the image" if isinstance(source, bytes) else str(source))
    data = source if isinstance(source, bytes) else read_bytes(source, IMAGE_LIMIT, ImageError)
    if not data:
        raise ImageError(f"cannot read {name}: the file is empty")
    jpeg = parse_jpeg(data)
    if jpeg is not None:
        _refuse_huge(name, jpeg.header.height, jpeg.header.width)
        scans = data.count(b"\xff\xda")
        if scans > MAX_SCANS:
            raise ImageError(f"cannot read {name}: it has {scans} scans, and at most {MAX_SCANS} are decoded")
        jpeg = with_scans(data, jpeg)
        # Four components (CMYK) go to Pillow, which knows Adobe's inversion. So does a file without an end
        # marker: OpenCV fills the missing part with grey, Pillow says whether anything is missing.
        if jpeg.end >= 0:
            return _decode_jpeg(name, data, jpeg)
    image = _decode_pillow(name, data)
    is_gif = data.startswith(gif.SIGNATURE)
    packed = jpeg is not None or data[:4] == b"RIFF" or data[4:8] == b"ftyp"
    if gif.ends_in_zeros(data) if is_gif else packed and data.endswith(ZEROS):
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
            # an embedded preview can push the size beyond the first block
            while jpeg is None and data[:3] == b"\xff\xd8\xff" and (more := file.read(len(data))):
                data += more
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
        tell_of_cut(name, data, jpeg, None)
        return image
    tell_of_cut(name, data, jpeg, image)
    return turn_image(image, jpeg.header.orientation)


def _opencv(data: bytes) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None


def _decode_pillow(name: str, data: bytes) -> np.ndarray:
    with _in_a_line(name, data), _open(io.BytesIO(data)) as image:
        return _from_pillow(name, image, data)


@contextmanager
def _in_a_line(name: str, data: bytes) -> Iterator[None]:
    """Whatever a decoder raises within it becomes an ImageError."""
    try:
        yield
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
    with _in_a_line(name, data):
        _refuse_huge(name, image.height, image.width)
        orientation = _pillow_orientation(image)
        stored = str(getattr(image, "tile", [])[:1])  # how the file holds its pixels: forgotten once they are loaded
        image.load()
        if image.format == "TIFF":  # Pillow turns these while loading, and then drops the mark
            orientation = _pillow_orientation(image)
            image = tiff.shown(image)
            if image.info.get("compression") == "jpeg" and data.endswith(ZEROS):  # its tables may lie at the end
                warnings.warn(f"{name}: {_ENDS_IN_ZEROS}", ImageWarning, 4)
        if "I;12" in stored:  # Pillow leaves these 0..4095
            return turn_image(image_to_rgb(name, image.point(lambda value: value * 16)), orientation)
        pixels = image_to_rgb(name, image)
        if ";16" in stored or image.mode.startswith("I"):
            tell_dark(name, pixels)
        return turn_image(pixels, orientation)


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
        raise ImageError(f"cannot read {name}: {width}x{height} is {_over_the_limit()}")


def _over_the_limit() -> str:
    advice = f"cut it into tiles, or {to_raise('FCOS_MAX_MEGAPIXELS')} if there is memory for it"
    return f"over the limit of {MAX_PIXELS // 10**6} megapixels; {advice}"


def _cause(error: Exception, data: bytes) -> str:
    if isinstance(error, UnidentifiedImageError):
        if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
            return "HEIC is not supported; convert it to JPEG"
        if told := tiff.why_unknown(data):
            return told
        return "not an image in a known format (JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF, JPEG 2000)"
    if isinstance(error, Image.DecompressionBombError):
        return f"the image is {_over_the_limit()}"
    text = first_line(error)
    return "the file is cut short" if "truncated" in text.lower() else f"{text[:1].lower()}{text[1:]}"
