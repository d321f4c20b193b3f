"""The demo's data: scenes of real handwritten digits over photographs and textures, made on the spot.

The digits are 1,797 samples of the UCI set (8×8, ten classes), the grounds bundled CC0 or public-domain
images and procedural colour fields; see assets/ATTRIBUTION.md. Train, val and test draw on disjoint
digit samples, and one seed always gives the same scenes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ConfigError

ASSETS = Path(__file__).parents[1] / "assets"
NAMES = tuple("0123456789")
SPLITS = ("train", "val", "test")
GLYPH = 96  # side in pixels of the enlarged digits that scenes are cut from
EMPTY = 0.05  # share of scenes without a digit
DARKER = 0.55  # the grounds are darkened to this share, so that chalk stands out
MOST = 5  # digits in a scene
SMALLEST, LARGEST = 44, 128  # longer side of a digit's ink in pixels, for a scene of 256
LEGIBLE = 12  # no digit is shorter in pixels, however small the scene
HIDDEN = 0.5  # share of a digit's ink that later digits may cover at most
INK = 0.49  # level of ink, 0..1, that is the outline of a stroke
CONTRAST = 80  # least difference in luma between a digit and the ground under it


class Scene(NamedTuple):
    """image uint8 [H,W,3] RGB; boxes float32 [G,4] xyxy, tight around the visible ink; labels int64 [G];
    owner int16 [H,W]: which digit, 0..G-1, a pixel shows, -1 the ground; samples int64 [G]: which digits
    of the source were used."""

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    owner: NDArray[np.int16]
    samples: NDArray[np.int64]


def photographs() -> list[Path]:
    """The bundled CC0 and public-domain photographs (JPEG, 450-560 pixels), in order of name."""
    return sorted((ASSETS / "photos").glob("*.jpg"))


@lru_cache(1)
def load_digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The source: images uint8 [1797,8,8] with ink 0..16, labels uint8 [1797]."""
    with np.load(ASSETS / "digits.npz", allow_pickle=False) as file:
        return file["images"], file["labels"]


@lru_cache(3)
def split_samples(split: str) -> NDArray[np.int64]:
    """Numbers of the digits that belong to train (70 %), val (15 %) or test (15 %), every class alike.

    Disjoint by sample; one writer's digits may occur in several splits (the source does not name writers).
    """
    if split not in SPLITS:
        raise ConfigError(f"no split {split!r} of the digits; there are {', '.join(SPLITS)}")
    labels = load_digits()[1]
    rank = np.zeros(len(labels), np.int64)
    for digit in range(10):
        mine = labels == digit
        rank[mine] = np.arange(mine.sum())
    part = np.digitize(rank % 20, [14, 17])
    return np.flatnonzero(part == SPLITS.index(split))


def make_scene(rng: np.random.Generator, split: str, size: tuple[int, int]) -> Scene:
    """One scene of `size` (height, width) with 0 to 5 digits of `split`.

    Digits are 44..128 pixels long (log scale) where the scene's shorter side is 256, and
    in proportion otherwise; turned and sheared mildly; in chalk of any colour.
    They may overlap a little, but none has more than half of its ink covered.
    """
    height, width = size
    image = _linear(_ground(rng, height, width), DARKER, np.zeros(3))
    owner = np.full((height, width), -1, np.int16)
    samples: list[int] = []
    ink: list[int] = []  # pixels of each digit before later ones covered it,
    shown: list[int] = []  # and what is left of them
    count = 0 if rng.random() < EMPTY else int(rng.integers(1, MOST + 1))
    pool = split_samples(split)
    unit = min(height, width) / 256
    # the largest first: a small digit always finds a gap, and lies on top where it overlaps
    lengths = np.maximum(np.sort(_lengths(rng, count))[::-1] * unit, LEGIBLE)
    for length in lengths:
        sample = int(rng.choice(pool))
        alpha = _glyph(rng, sample, float(length))
        high, wide = alpha.shape
        if high > height or wide > width:
            continue
        mask = alpha >= 0.5
        for _ in range(20):
            top, left = int(rng.integers(0, height - high + 1)), int(rng.integers(0, width - wide + 1))
            window = (slice(top, top + high), slice(left, left + wide))
            under = owner[window]
            if rng.random() < 0.97 and (under >= 0).any():
                continue  # most digits keep their whole box to themselves
            covered = np.bincount(under[mask] + 1, minlength=len(samples) + 1)[1:]
            if any(v - c < (1 - HIDDEN) * whole for v, c, whole in zip(shown, covered, ink, strict=True)):
                continue
            shown = [v - int(c) for v, c in zip(shown, covered, strict=True)]
            _paint(rng, image[window], alpha, under >= 0)
            under[mask] = len(samples)
            samples.append(sample)
            ink.append(int(mask.sum()))
            shown.append(ink[-1])
            break
    labels = load_digits()[1][samples].astype(np.int64) if samples else np.zeros(0, np.int64)
    return Scene(image, _boxes(owner, len(samples)), labels, owner, np.array(samples, np.int64))


def make_scenes(
    folder: str | PathLike[str], count: int, split: str, seed: int = 0, size: tuple[int, int] = (256, 256)
) -> Path:
    """Write `count` scenes as images/<split>/*.jpg and COCO JSON; returns annotations/instances_<split>.json.

    Scene number i depends on (seed, split, i) only, so a longer run begins with the scenes of a shorter one.
    Raises ConfigError for an unknown split or a size or count out of range.
    """
    if count < 0 or min(size) < 32:
        raise ConfigError(f"scenes need a count >= 0 and sides >= 32 pixels, not {count} of {size[1]}x{size[0]}")
    part = SPLITS.index(split) if split in SPLITS else len(split_samples(split))  # the latter raises
    target = Path(folder, "images", split)
    target.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for i in range(count):
        scene = make_scene(np.random.default_rng([seed, part, i]), split, size)
        name = f"{split}_{i:05d}.jpg"
        _, encoded = cv2.imencode(".jpg", scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 93])
        (target / name).write_bytes(encoded.tobytes())
        images.append({"id": i + 1, "file_name": name, "height": size[0], "width": size[1], "license": 1})
        for (x1, y1, x2, y2), label in zip(scene.boxes.tolist(), scene.labels.tolist(), strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": label + 1,  # 1..10: COCO ids start at 1
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    content = {
        "info": {"description": f"fcos digits, {split}", "seed": seed, "count": count},
        "licenses": [{"id": 1, "name": "CC BY 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"}],
        "categories": [{"id": k + 1, "name": name, "supercategory": "digit"} for k, name in enumerate(NAMES)],
        "images": images,
        "annotations": annotations,
    }
    path = Path(folder, "annotations", f"instances_{split}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def digits_dataset(folder: str | PathLike[str], counts: Mapping[str, int], size: tuple[int, int] = (256, 256)) -> Path:
    """Write a whole data set of digit scenes (COCO layout), `counts` of each split, and return its folder; a split of 0
    is left out."""
    for split, count in counts.items():
        if count:
            make_scenes(folder, count, split, size=size)
    return Path(folder)


def _lengths(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Lengths of digits in SMALLEST..LARGEST: log scale, the middle likelier than the ends."""
    position = (rng.random(count) + rng.random(count)) / 2
    return SMALLEST * (LARGEST / SMALLEST) ** position


@lru_cache(2048)
def _enlarged(sample: int, side: int) -> NDArray[np.float32]:
    """A digit as ink 0..1 [side,side], smooth, with room around it."""
    pixels = np.pad(load_digits()[0][sample].astype(np.float32) / 16, 1)
    large = cv2.resize(pixels, (GLYPH, GLYPH), interpolation=cv2.INTER_CUBIC)
    large = cv2.GaussianBlur(large, (0, 0), GLYPH / 32)  # melts the steps between the source's pixels
    large = large + 0.7 * (large - cv2.GaussianBlur(large, (0, 0), GLYPH / 9))  # opens the loops that 8 pixels close
    return np.asarray(cv2.resize(large, (side, side), interpolation=cv2.INTER_AREA), np.float32)


def _glyph(rng: np.random.Generator, sample: int, length: float) -> NDArray[np.float32]:
    """A digit turned, sheared and scaled: opacity 0..1, cut to its ink, the longer side `length` pixels."""
    side = GLYPH if length > 40 else 40
    source = _enlarged(sample, side)
    angle, shear = np.deg2rad(rng.normal(0, 7)), rng.normal(0, 0.1)
    stretch = np.exp(rng.normal(0, 0.08))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shape = turn @ np.array([[stretch, shear], [0, 1 / stretch]])
    # extent of the ink after the turn, to scale by
    ys, xs = np.nonzero(source > INK)
    spread = shape @ np.stack([xs, ys]).astype(np.float64)
    low, high = spread.min(1), spread.max(1)
    scale = length / float((high - low).max() + 1)
    wide, tall = (int(v) for v in np.ceil((high - low + 1) * scale) + 6)
    matrix = np.concatenate([shape * scale, (3 - low * scale)[:, None]], 1)
    ink = cv2.warpAffine(source, matrix, (wide, tall), flags=cv2.INTER_LINEAR)
    # A steep ramp about the outline makes a clean pen stroke; small digits need it softer not to look jagged.
    steep = np.clip(length / 9, 2.5, 10)
    alpha = np.clip((ink - INK) * steep + 0.5, 0, 1).astype(np.float32)
    ys, xs = np.nonzero(alpha > 0)
    result: NDArray[np.float32] = alpha[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    return result


def _luma(color: NDArray[Any]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = color @ np.array([0.299, 0.587, 0.114])
    return result


def _vivid(rng: np.random.Generator, luma: float) -> NDArray[np.float64]:
    """A random hue as RGB [3] in 0..255 with this luma, as saturated as the luma allows."""
    hue = rng.random() * 6
    color = np.clip(np.abs((hue - np.array([0, 2, 4])) % 6 - 3) - 1, 0, 1) * 255
    color = 255 - (255 - color) * rng.uniform(0.7, 1)
    own = float(_luma(color))
    if own > luma:
        color = color * luma / own
    else:
        color = color + (255 - color) * (luma - own) / (255 - own)
    return np.asarray(color, np.float64)


def _paint(
    rng: np.random.Generator, window: NDArray[np.uint8], alpha: NDArray[np.float32], other: NDArray[np.bool_]
) -> None:
    """Lay a digit of a random colour, which stands out from what lies under it, into `window` [h,w,3];
    `other` [h,w] marks the pixels of digits already there."""
    mask = alpha >= 0.5
    lumas = np.arange(150.0, 250.0, 4.0)  # chalk: digits are always lighter than the ground
    # the ground and a digit partly covered are looked at apart: their mean would be neither's colour
    parts = [part for part in (window[mask & ~other], window[mask & other]) if len(part)]
    distance = np.min([abs(lumas - float(_luma(part.mean(0)))) for part in parts], 0)
    clear = lumas[distance >= CONTRAST]
    color = _vivid(rng, float(rng.choice(clear) if len(clear) else lumas[distance.argmax()]))
    shade = np.linspace(1.06, 0.94, len(alpha), dtype=np.float32)[:, None, None]  # a little light from above
    cover = alpha[..., None]
    window[:] = np.clip(window * (1 - cover) + color.astype(np.float32) * shade * cover + 0.5, 0, 255).astype(np.uint8)


def _boxes(owner: NDArray[np.int16], count: int) -> NDArray[np.float32]:
    """Tight boxes [count,4] of the pixels that each digit owns; x2, y2 are the far edges of the last pixels."""
    boxes = np.zeros((count, 4), np.float32)
    for k in range(count):
        mine = owner == k
        xs, ys = np.flatnonzero(mine.any(0)), np.flatnonzero(mine.any(1))
        boxes[k] = xs[0], ys[0], xs[-1] + 1, ys[-1] + 1
    return boxes


@lru_cache(1)
def _images() -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
    """Photographs [H,W,3] RGB and grey textures [H,W]."""
    photos = [np.array(Image.open(path).convert("RGB")) for path in photographs()]
    return photos, [np.array(Image.open(path).convert("L")) for path in sorted((ASSETS / "textures").glob("*.jpg"))]


def _ground(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """A background uint8 [H,W,3]: mostly a photograph's part, else a tinted texture or a colour field."""
    photos, textures = _images()
    kind = rng.random()
    if kind < 0.6:
        ground = _crop(rng, photos[rng.integers(len(photos))], height, width)
        # softened and paler, as if out of focus: the digits are the subject
        blurred = cv2.GaussianBlur(ground, (0, 0), rng.uniform(0.5, 1.6) * min(height, width) / 256)
        mean, keep = ground.mean((0, 1)), rng.uniform(0.5, 0.85)
        shift = mean * rng.uniform(0.6, 1.2) * rng.uniform(0.85, 1.15, 3) - mean * keep
        return _linear(np.asarray(blurred, np.uint8), keep, shift)
    ground = _field(rng, height, width)
    if kind < 0.85:
        grain, depth = _crop(rng, textures[rng.integers(len(textures))], height, width), rng.uniform(30, 70)
    else:
        grain, depth = rng.integers(0, 256, (height, width), dtype=np.uint8), rng.uniform(0, 10)
    light = cv2.cvtColor(grain, cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(ground, 1, light, depth / 128, -depth * float(grain.mean()) / 128), np.uint8)


def _linear(image: NDArray[np.uint8], gain: float, shift: NDArray[np.float64]) -> NDArray[np.uint8]:
    """image * gain + shift a channel, through a table (a tenth of the time of float arithmetic)."""
    table = np.clip(np.arange(256)[:, None] * gain + shift + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table[None]), np.uint8)


def _crop(rng: np.random.Generator, image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """A random part of an image, often mirrored, scaled to [height,width]."""
    high, wide = image.shape[:2]
    factor = min(high / height, wide / width) * rng.uniform(0.4, 1)
    h, w = int(height * factor), int(width * factor)
    top, left = int(rng.integers(0, high - h + 1)), int(rng.integers(0, wide - w + 1))
    part = image[top : top + h, left : left + w]
    part = part[:, ::-1] if rng.random() < 0.5 else part
    return np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _field(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """A soft, muted field of related colours uint8 [H,W,3]."""
    base = rng.uniform(45, 210) + rng.normal(0, 22, 3)
    rows, columns = rng.integers(2, 5, 2)
    grid = np.clip(base + rng.normal(0, 20, (rows, columns, 1)) + rng.normal(0, 9, (rows, columns, 3)), 0, 255)
    return np.asarray(cv2.resize(grid.astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
