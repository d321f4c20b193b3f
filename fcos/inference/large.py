"""Images too large to hold: TIFF and the like, read in windows through rasterio (extra: tiff)."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from ..data.images.reading import MAX_PIXELS, image_size, read_image
from ..data.records import Size, Window
from ..errors import ImageError, first_line, require
from ..system.readers import open_file
from ..system.terminal import plural
from .tiles import Held, Pixels, Windows

# GDAL knows a file by its content, and among its other formats are those that name more files, and addresses to fetch.
_DRIVERS = {".tif": "GTiff", ".tiff": "GTiff", ".jp2": "JP2OpenJPEG"}
_HELD = 50_000_000  # pixels up to which an image is simply read
_MAX_SIDE = 1_000_000
_BITS, _PHOTOMETRIC, _ORIENTATION = 258, 262, 274  # the tags
_COLOURS = {5: "CMYK", 8: "CIELab", 9: "ICCLab", 10: "ITULab"}  # of _PHOTOMETRIC
_ANY = 1 << 50  # bytes: it is read in parts


class Raster:
    """A file that rasterio reads in parts, as `Windows`: 8 or 16 bits, grey, RGB or more bands of which three count."""

    def __init__(self, path: Path) -> None:
        rasterio = require("rasterio", "tiff")
        self.path = path
        open_file(path, _ANY, ImageError).close()  # no pipe, and a file of this machine
        # most images lie on no map; `catch_warnings` would not do: threads undo it for each other
        warnings.filterwarnings("ignore", "Dataset has no geotransform", rasterio.errors.NotGeoreferencedWarning)
        try:
            with rasterio.Env():  # without one GDAL writes what it thinks of a file to stderr
                self._file = rasterio.open(path.absolute(), driver=_DRIVERS.get(path.suffix.lower(), "GTiff"))
        except Exception as error:  # rasterio's own errors are no OSError
            reason = first_line(error)
            raise ImageError(f"cannot read {path}: {reason}") from None
        kind = self._file.dtypes[0]
        if kind not in ("uint8", "uint16"):
            raise ImageError(f"cannot read {path} in tiles: its pixels are {kind}; write it with 8 or 16 bits")
        if max(self.size) > _MAX_SIDE:
            raise ImageError(f"cannot read {path}: a side is over the limit of {_MAX_SIDE:,} pixels")
        tags = _tags(path)
        # white is 0; of 16 bits `read_image` leaves it so
        self._negative = tags.get(_PHOTOMETRIC) == 0 and kind == "uint8"
        if odd := _odd(tags, [band.name for band in self._file.colorinterp]):
            raise ImageError(
                f"cannot read {path} in tiles: {odd}; write it as plain RGB of 8 or 16 bits, upright, or leave tiles "
                "out (--tile none)"
            )
        self._deep = kind == "uint16"
        self._bands = (1, 2, 3) if self._file.count >= 3 else (1, 1, 1)

    @property
    def size(self) -> tuple[int, int]:
        return int(self._file.height), int(self._file.width)

    def read(self, window: Window, shape: Size | None = None) -> Pixels:
        rasterio = require("rasterio", "tiff")
        height, width = window.bottom - window.top, window.right - window.left
        part = rasterio.windows.Window(window.left, window.top, width, height)
        if shape is None:
            return self._pixels(self._read(window=part))
        bands = len(set(self._bands))
        average = require("rasterio.enums", "tiff").Resampling.average
        return self._pixels(self._read(window=part, out_shape=(bands, *shape), resampling=average))

    def _read(self, **options: Any) -> np.ndarray:
        try:
            with require("rasterio", "tiff").Env():
                bands: np.ndarray = self._file.read(sorted(set(self._bands)), **options)
        except Exception as error:
            raise ImageError(f"cannot read {self.path}: {first_line(error)}") from None
        return bands

    def _pixels(self, bands: np.ndarray) -> Pixels:
        if len(bands) == 1:
            bands = np.repeat(bands, 3, axis=0)
        image = np.moveaxis(bands, 0, 2)
        if self._deep:
            image = (image.astype(np.uint32) + 128) // 257
        if self._negative:
            image = 255 - image
        return np.ascontiguousarray(image.astype(np.uint8))


def open_windows(path: str | Path) -> Windows:
    """An image that can be read in windows: from the file where it is large and of a kind that allows it, else from
    memory. ImageError where it can be neither."""
    path = Path(path)
    if path.suffix.lower() in _DRIVERS:
        height, width = _size(path)
        if height * width > _HELD:
            return Raster(path)
    return Held(read_image(path))


def _odd(tags: Mapping[int, Any], bands: Sequence[str]) -> str:
    """Why the pixels of a file are not those that rasterio gives, "" where they are; `bands`: what GDAL takes them for,
    which for CMYK and CIELab is wrong."""
    bits = tags.get(_BITS, (1,))[0] if len(tags) else 8  # a TIFF that says none has one
    if tags.get(_PHOTOMETRIC) in _COLOURS:
        return f"its pixels are {_COLOURS[tags[_PHOTOMETRIC]]}"
    if bits not in (8, 16):
        return f"its pixels have {plural(bits, 'bit')}"
    if "palette" in bands or "alpha" in bands:
        return f"its pixels are {'numbers of a palette' if 'palette' in bands else 'transparent'}"
    return "" if tags.get(_ORIENTATION, 1) in (0, 1) else "it is to be turned (EXIF orientation)"


def _tags(path: Path) -> Mapping[int, Any]:
    """What a TIFF says of itself by number, of which rasterio does not tell all; nothing of another file."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if start[2:4] in (b"+\0", b"\0+"):  # BigTIFF
                start += file.read(8)
            tags = ImageFileDirectory_v2(start)
            file.seek(tags.next)
            tags.load(file)
            return tags
    except (OSError, SyntaxError, struct.error):
        return {}


def _size(path: Path) -> Sequence[int]:
    try:
        return image_size(path)
    except ImageError:  # over the limit of what is read whole, or no TIFF of Pillow's
        return (MAX_PIXELS, 1)
