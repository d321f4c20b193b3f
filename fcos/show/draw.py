"""Images for people: boxes with name tags, truth beside prediction, contact sheets.

Images are uint8 [H,W,3] RGB arrays and are never altered in place. Line width and font follow the size
of the image, so that a 100-pixel thumbnail and a 6000-pixel scan look alike on a screen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from ..inference.sources import Source, load_source
from .axes import short_name
from .fonts import font_file

if TYPE_CHECKING:
    from ..detections import Detections

Pixels = NDArray[np.uint8]
Color = tuple[int, int, int]

# Seven hues by hand, then each next colour the farthest in OKLab from those before it, taking the least
# distance under normal sight, protanopia and deuteranopia (simulated with Machado's matrices).
PALETTE: tuple[Color, ...] = (
    (30, 150, 255),
    (255, 135, 0),
    (45, 210, 105),
    (255, 60, 165),
    (255, 210, 45),
    (0, 210, 240),
    (225, 45, 45),
    (150, 0, 195),
    (0, 135, 90),
    (105, 75, 255),
    (135, 240, 180),
    (255, 150, 195),
    (195, 30, 150),
    (150, 120, 210),
    (150, 165, 255),
    (0, 255, 120),
    (75, 165, 105),
    (120, 90, 180),
    (180, 45, 0),
    (210, 135, 210),
)
# P3 to P7, cold to warm.
LEVELS: tuple[Color, ...] = ((98, 72, 230), (0, 152, 240), (20, 190, 130), (240, 190, 40), (255, 110, 50))
GREY: Color = (150, 150, 150)
BACKGROUND: Color = (244, 244, 246)
INK: Color = (40, 42, 48)
_LETTERS = 1.4  # times as large in a cell of a sheet as in an image that is looked at alone


def label_color(label: int) -> Color:
    """RGB of a class; the palette repeats after 20 classes."""
    return PALETTE[int(label) % len(PALETTE)]


def level_color(level: int) -> Color:
    """RGB of a level of the feature pyramid, 0 the finest (P3)."""
    return LEVELS[int(level) % len(LEVELS)]


def level_in_plot(level: int) -> tuple[float, float, float]:
    """`level_color` as matplotlib wants it, 0..1."""
    red, green, blue = (c / 255 for c in level_color(level))
    return red, green, blue


@dataclass(frozen=True)
class Marks:
    """Boxes to draw: boxes [G,4] xyxy in pixels, each under a tag with its name, which is cut where it is long.

    `labels` [G] index `names`; a label without a name shows as its number, one with an empty name has no tag.
    `scores` [G] in 0..1 are added to the tags. `ignore` [G] bool marks crowd and difficult boxes: dashed and grey.
    `colors` holds one RGB a box in place of the class colours.
    """

    boxes: ArrayLike
    labels: ArrayLike
    names: Sequence[str] = ()
    scores: ArrayLike | None = None
    ignore: ArrayLike | None = None
    colors: Sequence[Color] | None = None


def draw_boxes(image: Pixels, marks: Marks, side: float | None = None) -> Pixels:
    """A copy of `image` uint8 [H,W,3] RGB with boxes. Those that are not finite or lie outside
    the image are left out. Lines and letters are those of a square image of `side` pixels, by itself of one as large.

    Raises ValueError when a shape does not fit.
    """
    pixels = np.array(image, order="C")  # the copy that is drawn on
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"image must be uint8 [H,W,3], not {pixels.dtype} {list(pixels.shape)}")
    names = marks.names
    xyxy = _numpy(marks.boxes).astype(np.float64).reshape(-1, 4)
    count = len(xyxy)
    for name in ("labels", "scores", "ignore", "colors"):
        value = getattr(marks, name)
        if value is not None and len(value) != count:
            raise ValueError(f"{count} boxes but {len(value)} {name}")
    label = _numpy(marks.labels).astype(np.int64).reshape(-1)
    dim = np.zeros(count, bool) if marks.ignore is None else _numpy(marks.ignore).astype(bool).reshape(-1)
    score = None if marks.scores is None else _numpy(marks.scores).astype(np.float64).reshape(-1)

    height, width = pixels.shape[:2]
    seen = np.isfinite(xyxy).all(1)
    xyxy[~seen] = 0
    xyxy = np.stack([xyxy[:, 0::2].min(1), xyxy[:, 1::2].min(1), xyxy[:, 0::2].max(1), xyxy[:, 1::2].max(1)], 1)
    seen &= (xyxy[:, 0] < width) & (xyxy[:, 1] < height) & (xyxy[:, 2] > 0) & (xyxy[:, 3] > 0)
    rows = np.flatnonzero(seen)
    if len(rows) == 0:
        return pixels

    tint = (
        [GREY if dim[i] else label_color(label[i]) for i in range(count)]
        if marks.colors is None
        else list(marks.colors)
    )
    scale = math.sqrt(height * width) if side is None else side
    by_score = rows if score is None else rows[np.argsort(-score[rows], kind="stable")]
    texts = {}
    for i in by_score:
        text = short_name(names[label[i]]) if 0 <= label[i] < len(names) else str(label[i])
        if text:
            texts[i] = text if score is None or dim[i] else f"{text} {score[i]:.2f}"
    tagged = max(1, len(texts))
    crowding = min(1.0, max(0.7, (12 / tagged) ** 0.25))
    # of hundreds of boxes, as in a large image, the tags together take a quarter of the image at most
    lettering = min(0.024 * crowding, math.sqrt(0.025 / tagged))
    line = max(1, round(0.0035 * scale * min(1.0, lettering / (0.7 * 0.024))))
    area = (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])
    by_area = rows[np.argsort(-area[rows], kind="stable")]  # small boxes come last, on top of large ones
    _draw_frames(pixels, xyxy[by_area], [tint[i] for i in by_area], dim[by_area], line)
    font_size = max(8.0, lettering * scale)
    return _draw_tags(pixels, xyxy[list(texts)], list(texts.values()), [tint[i] for i in texts], _Pen(line, font_size))


def draw_cell(image: Pixels, marks: Marks, cell: int = 320) -> Pixels:
    """`image` scaled to fit a square of `cell` pixels, as `sheet` does, and then its boxes: lines and letters are as
    large in every cell, whatever the size of its image."""
    scaled = _fit(image, cell)
    factor = np.tile(np.divide(scaled.shape[1::-1], image.shape[1::-1]), 2)
    boxes = _numpy(marks.boxes).astype(np.float64).reshape(-1, 4) * factor
    return draw_boxes(scaled, replace(marks, boxes=boxes), _LETTERS * cell)


def draw_detections(image: Source, detections: Detections, score: float = 0.0) -> Image.Image:
    """An image, whatever a detector takes (EXIF rotation applied as there), with its detections of at least `score`.
    On a smaller or larger copy of the image they lie where they belong.

    Raises ImageError for what cannot be read as an image.
    """
    shown = detections[detections.scores >= score].to("cpu")
    pixels, boxes = load_source(image), shown.boxes.detach().float().numpy()
    if shown.size is not None and tuple(shown.size) != pixels.shape[:2]:  # a smaller copy of the image
        boxes = boxes * np.array([pixels.shape[1] / shown.size[1], pixels.shape[0] / shown.size[0]] * 2, np.float32)
    marks = Marks(boxes, shown.labels.numpy(), shown.names, shown.scores.detach().float().numpy())
    return Image.fromarray(draw_boxes(pixels, marks))


def caption(file_name: str) -> str:
    """The title of an image in a sheet: its name, then its folder in brackets, which is cut first where it is long.

    >>> caption("images/train/IMG_1.jpg")
    'IMG_1.jpg (images/train)'
    """
    folder, _, name = file_name.rpartition("/")
    return f"{name} ({folder})" if folder else name


def sheet(
    images: Sequence[Pixels],
    columns: int | None = None,
    titles: Sequence[str] | None = None,
    cell: int = 320,
) -> Pixels:
    """A contact sheet uint8 [H,W,3]: images uint8 [h,w,3] of any sizes on a neutral ground.

    Each is scaled, its aspect kept, to fit a square of `cell` pixels, with its title underneath. Without
    `columns` the sheet comes out about 4:3. No image gives a blank sheet.
    """
    gap = max(4, cell // 32)
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"{len(images)} images but {len(titles)} titles")
    scaled = [_fit(image, cell) for image in images]
    if columns is None:
        aspect = float(np.median([s.shape[1] / s.shape[0] for s in scaled])) if scaled else 1.0
        columns = math.ceil(math.sqrt(len(scaled) * 4 / 3 / max(aspect, 0.25)))
    columns = max(1, min(columns, len(scaled) or 1))
    # a column is as wide as its widest image, a row as high as its highest: no lakes of background
    lines = [scaled[i : i + columns] for i in range(0, len(scaled), columns)]
    widths = [max((row[c].shape[1] for row in lines if c < len(row)), default=cell) for c in range(columns)]
    font = _font(max(10, round(cell / 22)), font_file("".join(titles or ())))
    below = round(font.size * 1.7) if titles is not None else 0
    heights = [max(s.shape[0] for s in row) + below for row in lines] or [cell]
    canvas = Image.new("RGB", (sum(widths) + gap * (columns + 1), sum(heights) + gap * (len(heights) + 1)), BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    y = gap
    for r, row in enumerate(lines):
        x = gap
        for c, scaled_image in enumerate(row):
            left = x + (widths[c] - scaled_image.shape[1]) // 2
            top = y + (heights[r] - below - scaled_image.shape[0]) // 2
            canvas.paste(Image.fromarray(scaled_image), (left, top))
            if titles is not None:
                text = _shorten(titles[r * columns + c], font, widths[c])
                middle = (x + widths[c] / 2, y + heights[r] - below / 2)
                pen.text(middle, text, fill=INK, font=font, anchor="mm")
            x += widths[c] + gap
        y += heights[r] + gap
    return np.array(canvas)


def with_legend(image: Pixels, entries: Sequence[tuple[str, Color]]) -> Pixels:
    """A picture under rows of tags: each colour, and what it stands for."""
    gap, size = 8, 16.0
    tags = [_tag(text, color, size, image.shape[1], image.shape[0]) for text, color in entries]
    spots, x, y, below = [], gap, gap, 0
    for tag in tags:
        if x > gap and x + tag.width + gap > image.shape[1]:
            x, y = gap, below + gap
        spots.append((x, y))
        x, below = x + tag.width + gap, y + tag.height
    canvas = Image.new("RGB", (image.shape[1], below + image.shape[0]), BACKGROUND)
    canvas.paste(Image.fromarray(image), (0, below))
    for tag, spot in zip(tags, spots, strict=True):
        canvas.paste(tag, spot, tag)
    return np.array(canvas)


def _numpy(value: Any) -> NDArray[Any]:
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _draw_frames(pixels: Pixels, boxes: NDArray[Any], colors: Sequence[Color], dashed: NDArray[Any], line: int) -> None:
    """Draw rectangles into `pixels`: a coloured line over a faint dark halo that parts it from any background."""
    height, width = pixels.shape[:2]
    frames = []
    for x1, y1, x2, y2 in boxes:
        side = min(x2 - x1, y2 - y1)
        # A thick line would bury a small box, so it gets a thinner one; its frame stays at least 3 lines wide.
        thin = int(max(math.ceil(line / 2), min(line, side / 6), 1))
        grow_x, grow_y = (max(0.0, (3 * thin - extent) / 2) for extent in (x2 - x1, y2 - y1))
        half = thin / 2
        # An edge on the border of the image moves inside by half a line; one beyond the border stays out.
        left, right = (_onto(x, width, half) for x in (x1 - grow_x, x2 + grow_x))
        top, bottom = (_onto(y, height, half) for y in (y1 - grow_y, y2 + grow_y))
        frames.append((left, top, right, bottom, thin))

    mask = np.zeros((height, width), np.uint8)
    for left, top, right, bottom, thin in frames:
        cv2.rectangle(mask, (left, top), (right, bottom), 255, thin + 2 * max(1, round(thin / 4)))
    shadow = mask > 0
    pixels[shadow] = (pixels[shadow] * (0.6 if line > 1 else 0.8)).astype(np.uint8)
    for (left, top, right, bottom, thin), color, dash in zip(frames, colors, dashed, strict=True):
        if not dash:
            cv2.rectangle(pixels, (left, top), (right, bottom), color, thin)
            continue
        for (ax, ay), (bx, by) in (
            ((left, top), (right, top)),
            ((right, top), (right, bottom)),
            ((right, bottom), (left, bottom)),
            ((left, bottom), (left, top)),
        ):
            length = math.hypot(bx - ax, by - ay)
            pieces = max(1, int(length // (7 * thin))) * 2 - 1  # odd: a dash at either end, so corners close
            for k in range(0, pieces, 2):
                f, g = k / pieces, (k + 1) / pieces
                start = (round(ax + (bx - ax) * f), round(ay + (by - ay) * f))
                stop = (round(ax + (bx - ax) * g), round(ay + (by - ay) * g))
                cv2.line(pixels, start, stop, color, thin)


def _onto(value: float, extent: int, half: float) -> int:
    """The pixel of an edge at `value`, kept half a line inside 0..extent if it is on the image at all."""
    if -1 <= value <= extent + 1:
        value = min(max(value, half), extent - half)
    return int(min(max(math.floor(value), -4 * half - 2), extent + 4 * half + 2))  # far-out boxes overflow cv2


class _Pen(NamedTuple):
    """Line width and font size, in pixels of the image."""

    line: int
    font: float


def _draw_tags(pixels: Pixels, boxes: NDArray[Any], texts: Sequence[str], colors: Sequence[Color], pen: _Pen) -> Pixels:
    """Name tags at the boxes, all inside the image, where they cover each other least; first ones matter most."""
    height, width = pixels.shape[:2]
    tiles: list[Image.Image] = []
    spots = np.zeros((len(texts), 4))
    for i, (text, color) in enumerate(zip(texts, colors, strict=True)):
        tile = _tag(text, color, pen.font, width, height)
        tiles.append(tile)
        x, y = _place(boxes[i], tile.size, spots[:i], (width, height), pen.line)
        spots[i] = (x, y, x + tile.width, y + tile.height)
    canvas = Image.fromarray(pixels)
    for tile, spot in reversed(list(zip(tiles, spots, strict=True))):  # the best last, on top
        canvas.paste(tile, (int(spot[0]), int(spot[1])), tile)
    return np.array(canvas)


def _place(
    box: NDArray[Any], size: tuple[int, int], taken: NDArray[Any], within: tuple[int, int], line: int
) -> tuple[int, int]:
    """Left and top of a tag of `size` (w, h) for `box` in an image of `within` (width, height): the spot around the
    box that covers least of `taken`."""
    (w, h), (width, height) = size, within
    half = math.ceil(line / 2)
    left, right = max(box[0], 0) - half, min(box[2], width) + half - w
    above, below = box[1] - h - half + 1, box[3] + half - 1
    inside_top, inside_bottom = max(box[1], 0) - half, min(box[3], height) + half - h
    options = [(left, above), (right, above), (left, below), (right, below)]
    if (box[2] - box[0]) > 1.5 * w and (box[3] - box[1]) > 2 * h:  # a tag inside a small box would hide the object
        options[1:1] = [(left, inside_top), (right, inside_top), (left, inside_bottom)]
    options += [(left - w, max(box[1], 0)), (right + w, max(box[1], 0))]
    best, cost = (0, 0), math.inf
    for rank, (x, y) in enumerate(options):
        x0, y0 = min(max(x, 0), width - w), min(max(y, 0), height - h)
        moved = abs(x - x0) + abs(y - y0)
        x0, y0 = round(x0), round(y0)
        cover = 0.0
        if len(taken):
            across = np.minimum(taken[:, 2], x0 + w) - np.maximum(taken[:, 0], x0)
            down = np.minimum(taken[:, 3], y0 + h) - np.maximum(taken[:, 1], y0)
            cover = float((across.clip(0) * down.clip(0)).sum()) / (w * h)
        price = 10 * cover + moved / h + 0.1 * rank
        if price < cost:
            best, cost = (x0, y0), price
    return best


@lru_cache(512)
def _tag(text: str, color: Color, font_size: float, width: int, height: int) -> Image.Image:
    """An RGBA name tag with rounded corners, no larger than the image it goes on."""
    color = (int(color[0]), int(color[1]), int(color[2]))
    size = font_size
    while True:
        font = _font(size, font_file(text))
        pad = max(2, round(size * 0.32))
        w, h = math.ceil(font.getlength(text)) + 2 * pad, round(size * 1.42)
        if (w <= width and h <= height) or size <= 7:
            break
        size = max(7.0, size * min(0.95, width / w))
    text = _shorten(text, font, max(1, width - 2 * pad))
    w, h = min(width, math.ceil(font.getlength(text)) + 2 * pad), min(height, h)
    fine = Image.new("L", (4 * w, 4 * h))  # four times finer, then reduced: PIL's own corners are jagged
    ImageDraw.Draw(fine).rounded_rectangle((0, 0, 4 * w - 1, 4 * h - 1), radius=h * 0.8, fill=255)
    tile = Image.new("RGBA", (w, h), (*color, 255))
    pen = ImageDraw.Draw(tile)
    pen.text((w / 2, h / 2), text, fill=_text_color(color), font=font, anchor="mm")
    tile.putalpha(fine.resize((w, h), Image.Resampling.BOX))
    return tile


def _text_color(color: Color) -> Color:
    """Near-black or white, whichever reads better on `color`."""
    linear = [(v / 255) ** 2.2 for v in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (16, 16, 20) if (luminance + 0.05) / 0.055 > 1.05 / (luminance + 0.05) else (255, 255, 255)


@lru_cache(64)
def _font(size: float, path: Path | None) -> Any:
    """A font file in a size, or else PIL's own font."""
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(str(path), size)


def _shorten(text: str, font: Any, width: float) -> str:
    """`text`, cut with an ellipsis where it is wider than `width` pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _fit(image: Pixels, cell: int) -> Pixels:
    """An image scaled to fit a square of `cell` pixels, aspect kept."""
    pixels = load_source(image)
    height, width = pixels.shape[:2]
    factor = cell / max(height, width)
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(pixels, size, interpolation=way), np.uint8)
