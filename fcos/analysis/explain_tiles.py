"""The story of every box of a tiled prediction: which tiles saw it, what gave way to it, what it silenced."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from ..data.records import Size, Window
from ..detections import Detections
from ..errors import ConfigError
from ..inference.detector import Detector
from ..inference.large import open_windows
from ..inference.sources import Source, load_source, name_of
from ..inference.stream import preview
from ..inference.tiles import Held, Looked, Tiling, Windows, kept, look, read_shape
from ..points import level_name
from ..show.draw import Marks, draw_boxes, level_color
from ..system.terminal import json_ready, plural, table
from .common import uncalibrated
from .explain import who_silenced

_SIDES = ("left", "top", "right", "bottom")


@dataclass(frozen=True)
class Sight:
    """What one tile saw. `tile` and `box`: xyxy in pixels of the image; `kind`: tile, larger tile or whole image;
    `cut`: sides of the box that an inner edge of the tile cuts; `level` such as P4, and `location` (x, y) in pixels of
    the image, of the place that fired."""

    tile: tuple[int, int, int, int]
    kind: str
    box: tuple[float, ...]
    score: float
    cut: tuple[str, ...]
    level: str
    location: tuple[float, float]


@dataclass(frozen=True)
class TileStory:
    """One detection: `seen`, the sights it is made of, several where pieces were joined; `gave_way`, pieces that it
    took in, which may have raised its score; `silenced`, what NMS dropped because of it. Best first."""

    label: str
    score: float
    box: tuple[float, ...]
    seen: tuple[Sight, ...]
    gave_way: tuple[Sight, ...] = field(repr=False)
    silenced: tuple[Sight, ...] = field(repr=False)


@dataclass(frozen=True)
class TiledExplanation:
    """An image, smaller where it is large, with its detections, in pixels of the whole, and their stories in the same
    order; `windows` is the number of tiles that were looked at, `rows` what all of them saw."""

    image: np.ndarray = field(repr=False)
    detections: Detections
    stories: tuple[TileStory, ...]
    windows: int
    rows: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        stories = [
            {"name": story.label}
            | {k: [vars(s) for s in v] if k in ("seen", "gave_way", "silenced") else v for k, v in vars(story).items()}
            for story in self.stories
        ]
        told: dict[str, Any] = json_ready(
            {"file": self.detections.source, "tiles": self.windows, "seen": self.rows, "detections": stories}
        )
        return told

    def text(self) -> str:
        """For a terminal."""
        lines = [f"{plural(self.windows, 'tile')} saw {plural(self.rows, 'box')}; {len(self.stories):,} are shown"]
        rows = []
        for number, story in enumerate(self.stories, 1):
            best = story.seen[0]
            left, top, right, bottom = best.tile
            where = f"{best.kind} ({left}, {top})-({right}, {bottom})"
            more = f" and {len(story.seen) - 1} more, joined" if len(story.seen) > 1 else ""
            place = f"({best.location[0]:.0f}, {best.location[1]:.0f})"
            counts = (len(story.gave_way), len(story.silenced))
            rows.append((number, story.label, f"{story.score:.3f}", where + more, best.level, place, *counts))
        if not rows:
            return "\n".join([*lines, "nothing was found"])
        head = ("", "class", "score", "seen by", "level", "location", "gave way", "NMS dropped")
        return "\n".join([*lines, table(head, rows, left=2)])

    def draw(self) -> np.ndarray:
        """The image with every box and, in its colour, the tiles that saw it: one colour for each size of tile."""
        height, width = self.detections.size or self.image.shape[:2]
        scale = np.array([self.image.shape[1] / width, self.image.shape[0] / height] * 2)
        sizes = sorted({_side(s.tile) for story in self.stories for s in story.seen})
        colors = [level_color(sizes.index(_side(story.seen[0].tile))) for story in self.stories]
        canvas = np.ascontiguousarray(self.image)
        thick = max(1, round(0.0015 * max(canvas.shape[:2])))
        for story, color in zip(self.stories, colors, strict=True):
            for sight in story.seen:
                left, top, right, bottom = (np.array(sight.tile) * scale).round().astype(int).tolist()
                cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), color, thick)
        names = [f"{i} {s.label}" for i, s in enumerate(self.stories, 1)]
        boxes = self.detections.boxes.numpy() * scale
        return draw_boxes(canvas, Marks(boxes, range(len(names)), names, self.detections.scores, colors=colors))


class _Places(NamedTuple):
    """What tells where a row came from."""

    looked: Looked
    image: Windows
    detector: Detector
    base: int
    grids: dict[int, tuple[np.ndarray, list[str]]]

    def sights(self, rows: list[int]) -> tuple[Sight, ...]:
        """Rows of the merge as sights, best first."""
        told = [self._sight(row) for row in rows]
        return tuple(sorted(told, key=lambda s: -s.score))

    def _sight(self, row: int) -> Sight:
        counts = [len(part) for part in self.looked.seen]
        ends = np.cumsum(counts)
        number = int(np.searchsorted(ends, row, side="right"))
        detections, window = self.looked.seen[number], self.looked.windows[number]
        inside = row - int(ends[number] - counts[number])
        xy, levels = self._grid(number)
        point = int(detections.points[inside])
        x, y = xy[point].tolist()
        cut = [side for side, is_cut in zip(_SIDES, self.looked.rows.cut[row].tolist(), strict=True) if is_cut]
        side = max(window.bottom - window.top, window.right - window.left)
        kind = (
            "whole image"
            if window == Window(0, 0, *self.image.size)
            else "tile"
            if side == self.base
            else "larger tile"
        )
        return Sight(
            (window.left, window.top, window.right, window.bottom),
            kind,
            tuple(detections.boxes[inside].tolist()),
            float(detections.scores[inside]),
            tuple(cut),
            levels[point],
            (x, y),
        )

    def _grid(self, number: int) -> tuple[np.ndarray, list[str]]:
        """Locations [P,2] of a window's input in pixels of the image, and the level of each."""
        if number not in self.grids:
            window = self.looked.windows[number]
            shape = read_shape(window, self.image.size, self.detector.config.data)
            tensor, size = self.detector.prepare(self.image.read(window, shape))
            points = self.detector.points(tensor.shape[-2:])
            factor = [(window.right - window.left) / size[1], (window.bottom - window.top) / size[0]]
            names = [level_name(grid.stride) for grid in points.grids]
            xy = points.xy.cpu().numpy() * factor + [window.left, window.top]
            self.grids[number] = xy, [names[k] for k in points.level.tolist()]
        return self.grids[number]


def explain_tiles(detector: Detector, source: Source, tiling: Tiling, score: float | None = None) -> TiledExplanation:
    """Why `detector` finds what it finds in the tiles of one image; detections below `score` are left out (None: what
    `fcos predict` leaves out). ConfigError for an image that is one tile: that is the story of `explain`."""
    detector = uncalibrated(detector)
    score = detector.shown if score is None else score
    image = open_windows(Path(source)) if isinstance(source, str | Path) else Held(load_source(source))
    if len(tiling.windows(image.size)) == 1:
        height, width = image.size
        raise ConfigError(f"--tile {tiling.tile}: the image of {width}x{height} is one tile; leave --tile out")
    looked = look(detector, image, tiling)
    merged = looked.merged
    final, chosen = kept(looked, detector)
    cfg = detector.config.decode
    boxes, labels = torch.from_numpy(merged.boxes), torch.from_numpy(merged.labels)
    silencer = who_silenced(boxes, labels, torch.from_numpy(chosen), cfg).numpy()
    shown = final.scores >= score
    final, chosen = final[shown], chosen[shown.numpy()]
    places = _Places(looked, image, detector, tiling.tile, {})
    stories = []
    for number, box, value in zip(chosen.tolist(), final.boxes.tolist(), final.scores.tolist(), strict=True):
        losers = [row for k in np.flatnonzero(silencer == number).tolist() for row in merged.members[k]]
        gone = np.flatnonzero(merged.owner == number).tolist()
        label = detector.classes.names[int(merged.labels[number])]
        seen = places.sights(list(merged.members[number]))
        stories.append(TileStory(label, value, tuple(box), seen, places.sights(gone), places.sights(losers)))
    size: Size = image.size
    detections = Detections(final.boxes, final.scores, final.labels, final.points, final.names, size, name_of(source))
    return TiledExplanation(preview(image), detections, tuple(stories), len(looked.windows), sum(map(len, looked.seen)))


def _side(tile: tuple[int, int, int, int]) -> int:
    return max(tile[2] - tile[0], tile[3] - tile[1])
