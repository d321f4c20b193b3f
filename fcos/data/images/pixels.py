"""Decoded pixels of any kind as uint8 RGB: grey, palettes, transparency, 16 bits, floats."""

from __future__ import annotations

import warnings

import numpy as np
from PIL import Image

from ...errors import DarkImage, ImageError, ImageWarning

_STRIP = 1 << 22  # pixels that are converted at a time
_BITS = (8, 10, 12, 14)  # of cameras; as numbers of 16 bits they come to levels of at most 1, 4, 16, 64


def image_to_rgb(name: str, image: Image.Image) -> np.ndarray:
    """A decoded image of any mode as uint8 [H,W,3], strip by strip: a large one is never held in memory three times.
    ImageError, with `name`, where it has no pixels or they are not in a range that is known."""
    width, height = image.size
    if 0 in image.size:
        raise ImageError(f"cannot read {name}: it has no pixels ({width}x{height})")
    rows = max(1, _STRIP // width)
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
        values = np.asarray(image)
        pixels = _grey_to_rgb(name, values)
        pixels[values == image.info.get("transparency", -1)] = 255  # the grey that a PNG names, on white
        return pixels
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        straight = image.convert("LA") if image.mode == "La" else image  # Pillow has no step from La to RGBA
        return _over_white(np.asarray(straight.convert("RGBA")))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _over_white(rgba: np.ndarray) -> np.ndarray:
    """uint8 [H,W,4] laid on white, as Pillow does it."""
    if (rgba[..., 3] == 255).all():
        return np.ascontiguousarray(rgba[..., :3])
    image = Image.fromarray(np.ascontiguousarray(rgba))
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def array_to_rgb(array: np.ndarray) -> np.ndarray:
    """[H,W], [H,W,1], [H,W,3] or [H,W,4] of uint8, uint16 or floats in 0..1 -> uint8 [H,W,3]; ImageError for others."""
    array = np.asarray(array)  # a np.matrix has two dimensions for ever
    if array.ndim == 2:
        array = array[..., None]
    known = array.dtype.str[1:] in ("u1", "u2") or array.dtype.kind == "f"  # of either byte order
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not known or 0 in array.shape:
        raise ImageError(
            f"an image must be [H,W,3] uint8 (or uint16, or float in 0..1), not {array.shape} {array.dtype}"
        )
    if array.dtype != np.uint8:
        deep = array.dtype.kind == "u"
        array = _levels("the image", array, most=1.0)
        if deep:
            tell_dark("the image", array[..., :3])
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    return _over_white(array) if array.shape[2] == 4 else np.ascontiguousarray(array)


def tell_dark(name: str, pixels: np.ndarray) -> None:
    """Warn of uint8 pixels of an image of 16 bits that are all so dark that fewer bits may be meant."""
    highest = int(pixels.max())
    bits = next((bits for bits in _BITS if 0 < highest <= 1 << bits - 8), None)
    if bits is not None:
        warnings.warn(DarkImage(name, bits), stacklevel=2)


def _grey_to_rgb(name: str, values: np.ndarray) -> np.ndarray:
    return np.repeat(_levels(name, values)[..., None], 3, axis=2)


def _levels(name: str, values: np.ndarray, most: float = 255.0) -> np.ndarray:
    """Numbers of more than 8 bits as uint8: 0..65535 for whole numbers, 0..1 for floats, or 0..255 where `most` says
    so and one of them is above 2. A few that are not finite are taken for black or white, with a warning."""
    if values.dtype.kind != "f":
        if values.dtype.str[1:] != "u2" and values.size and (int(values.min()) < 0 or int(values.max()) > 65535):
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
