"""The story of every box in an image: the location that fired, what it said, and what it silenced."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..boxes import as_compared, iou, nms
from ..config import DecodeConfig
from ..decode import Candidates, finish, select, trim
from ..detections import Detections, as_png
from ..inference.detector import Detector
from ..inference.load import load
from ..inference.scores import Scores, lowest
from ..inference.sources import Source, load_source, name_of
from ..points import level_name
from ..show.draw import Marks, draw_boxes, level_color, sheet
from ..system.door import door
from ..system.terminal import json_ready, table
from .common import uncalibrated
from .raw import Raw


@dataclass(frozen=True)
class Story:
    """One detection. `location`: (x, y) in pixels of the image; `level` such as P4; `probability` of the
    class, `centerness` and `score` 0..1; `distances` l, t, r, b in pixels of the image; `silenced`: boxes
    that NMS dropped because of this one, as (box, label, score, location), best first."""

    label: str
    score: float
    probability: float
    centerness: float
    level: str
    location: tuple[float, float]
    distances: tuple[float, float, float, float]
    box: tuple[float, float, float, float]
    silenced: tuple[dict[str, Any], ...] = field(repr=False)


@dataclass(frozen=True, repr=False)
class Explanation:
    """An image [H,W,3] with its detections and their stories, in the same order, and for each level its
    name and the maps [h,w] of the highest class probability and of the centerness. `extents`: the (width, height)
    that the maps of each level cover, from the image's upper left corner on and in its pixels; their last cells may
    reach beyond the image. `peaks`: the class that is surest anywhere on each level."""

    image: np.ndarray
    detections: Detections
    stories: tuple[Story, ...]
    levels: tuple[int, ...]
    maps: tuple[tuple[str, np.ndarray, np.ndarray], ...]
    extents: tuple[tuple[float, float], ...]
    peaks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return self.text()

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        return as_png(Image.fromarray(self.draw()))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the maps."""
        detections = [
            {"name": s.label, **vars(s), "silenced": [{"name": row["label"], **row} for row in s.silenced]}
            for s in self.stories
        ]
        result: dict[str, Any] = json_ready({"file": self.detections.source, "detections": detections})
        return result

    def text(self) -> str:
        """For a terminal."""
        rows = []
        for number, s in enumerate(self.stories, 1):
            place = f"{s.level} {s.location[0]:.0f},{s.location[1]:.0f}"
            sides = " ".join(f"{v:.0f}" for v in s.distances)
            numbers = (f"{s.score:.3f}", f"{s.probability:.3f}", f"{s.centerness:.3f}")
            rows.append((number, s.label, *numbers, place, sides, len(s.silenced)))
        head = ("", "class", "score", "prob", "center", "at", "l t r b, px", "NMS")
        if not rows:
            return "nothing was found"
        return (
            f"{table(head, rows, left=2)}\n"
            "score: from prob (class probability) and center (centerness) at the location\n"
            "that made the box; at: that location, its level and x,y in px; l t r b: from\n"
            "there to the sides of the box; NMS: weaker boxes of the same object, dropped"
        )

    def draw(self) -> np.ndarray:
        """The image with every box, its location and the lines to its sides, coloured by level."""
        colors = [level_color(k) for k in self.levels]
        names = [f"{i} {s.label}" for i, s in enumerate(self.stories, 1)]
        boxes, scores = self.detections.boxes, self.detections.scores
        canvas = draw_boxes(self.image, Marks(boxes, range(len(names)), names, scores, colors=colors))
        unit = max(2, round(0.004 * (canvas.shape[0] * canvas.shape[1]) ** 0.5))
        for story, color in zip(self.stories, colors, strict=True):
            x, y = (round(v) for v in story.location)
            left, top, right, bottom = (round(v) for v in story.distances)
            for end in ((x - left, y), (x + right, y), (x, y - top), (x, y + bottom)):
                cv2.line(canvas, (x, y), end, color, max(1, unit // 3), cv2.LINE_AA)
            cv2.circle(canvas, (x, y), 2 * unit, (255, 255, 255), -1, cv2.LINE_AA)
            cv2.circle(canvas, (x, y), round(1.5 * unit), color, -1, cv2.LINE_AA)
        return canvas

    def draw_maps(self, cell: int = 300) -> np.ndarray:
        """A sheet: above the highest class probability of each level, below its centerness, over the image. Titles say
        the highest value, and its class; at the bottom is the scale of the colours."""
        images, titles = [], []
        levels = [f"{name}, stride {1 << int(name[1:])}" for name, _, _ in self.maps]
        peaks = [f" ({name})" for name in self.peaks] or [""] * len(levels)
        for level, peak, (_, classes, _), extent in zip(levels, peaks, self.maps, self.extents, strict=True):
            images.append(_over(self.image, classes, extent))
            titles.append(f"{level}: class, up to {classes.max():.2f}{peak}")
        for level, (_, _, centerness), extent in zip(levels, self.maps, self.extents, strict=True):
            images.append(_over(self.image, centerness, extent))
            titles.append(f"{level}: centerness, up to {centerness.max():.2f}")
        maps = sheet(images, columns=len(self.maps), titles=titles, cell=cell)
        return np.concatenate([maps, _scale(maps.shape[1], cell)])


@door
def explain(detector: Detector | str | Path, source: Source, score: Scores | None = None) -> Explanation:
    """Say why a detector finds what it finds in one image: which locations fired, and what NMS removed.

    Args:
        detector: a Detector, or the name, run folder or file of one.
        source: an image, as of a call of the Detector.
        score: leave out detections below it, as of a call; None: what `fcos predict` leaves out.

    Scores are the network's own, class x centerness, also where the detector calibrates them.

    Raises:
        ImageError: a source that cannot be read as an image. ModelError: no such model.
        ConfigError, FcosError: a `score`, as of a call of the Detector.

    >>> story = fcos.explain(fcos.load("fcos-lite0", device="cpu"), "photo.jpg").stories[0]
    >>> story.label, story.level, story.score > 0.5
    ('cat', 'P5', True)
    """
    if not isinstance(detector, Detector):
        detector = load(detector, runtime="own")
    detector = uncalibrated(detector)
    least = lowest(score, detector.classes, detector.shown)
    image = load_source(source)
    raw = Raw(detector, image)
    cfg, points = detector.config.decode, raw.points
    candidates = Candidates(*(v.cpu() for v in trim(select(raw.predictions, points, cfg), raw.size, cfg)))
    boxes, scores, labels, spot = candidates
    every = cfg.model_copy(update={"max_detections": max(len(boxes), 1)})
    kept, kept_scores = nms(boxes, scores, labels, every)
    silencer = who_silenced(boxes, labels, kept, cfg)
    kept, kept_scores = kept[: cfg.max_detections], kept_scores[: cfg.max_detections]
    final, shown = finish(candidates, kept, kept_scores, raw.size, cfg)
    chosen = final.scores >= (least[final.labels] if isinstance(least, Tensor) else least)
    final, shown = final[chosen], shown[chosen]
    xy, level = points.xy.cpu(), points.level.cpu()
    names, scale = detector.classes.names, raw.ratio

    def rows(chosen: Tensor) -> tuple[dict[str, Any], ...]:
        silenced, _ = finish(candidates, chosen, scores[chosen], raw.size, cfg)
        columns = (raw.placed(silenced.boxes), silenced.labels, silenced.scores, xy[silenced.points] * scale[:2])
        return tuple(
            {"box": box, "label": names[label], "score": confidence, "location": place}
            for box, label, confidence, place in zip(*(c.tolist() for c in columns), strict=True)
        )

    stories = []
    for i, box, final_score in zip(shown.tolist(), final.boxes, final.scores.tolist(), strict=True):
        p = int(spot[i])
        losers = (silencer == i).nonzero()[:, 0]
        losers = losers[scores[losers].argsort(descending=True, stable=True)]
        x, y = (xy[p] * scale[:2]).tolist()
        stories.append(
            Story(
                names[int(labels[i])],
                final_score,
                float(raw.predictions.logits[p, labels[i]].sigmoid()),
                float(raw.predictions.centerness[p].sigmoid()),
                level_name(points.grids[int(level[p])].stride),
                (x, y),
                tuple((raw.predictions.distances[p].cpu() * scale).tolist()),
                tuple(raw.placed(box).tolist()),
                rows(losers),
            )
        )
    height, width = image.shape[:2]
    detections = Detections(
        raw.placed(final.boxes), final.scores, final.labels, final.points, names, (height, width), name_of(source)
    )
    levels = tuple(level[spot[shown]].tolist())
    maps, best, extents = _maps(raw)
    return Explanation(image, detections, tuple(stories), levels, maps, extents, tuple(names[k] for k in best))


def who_silenced(boxes: Tensor, labels: Tensor, kept: Tensor, cfg: DecodeConfig) -> Tensor:
    """[K] for each candidate the kept one that NMS dropped it for, -1 for kept ones (and under soft-NMS).

    boxes [K,4], labels [K]; kept [D] indices, best first. A candidate falls to the first kept box of its
    class (of any class when agnostic) that overlaps it by more than `cfg.nms_iou`, as NMS measures it.
    """
    silencer = torch.full((len(boxes),), -1, dtype=torch.int64)
    if cfg.nms not in ("class", "agnostic"):
        return silencer
    boxes = as_compared(boxes, cfg)
    waiting = torch.ones(len(boxes), dtype=torch.bool)
    waiting[kept] = False
    for k in kept.tolist():
        if not waiting.any():
            break
        rows = waiting.nonzero()[:, 0]
        hit = iou(boxes[k][None], boxes[rows])[0] > cfg.nms_iou
        if cfg.nms == "class":
            hit &= labels[rows] == labels[k]
        silencer[rows[hit]] = k
        waiting[rows[hit]] = False
    return silencer


Maps = tuple[tuple[str, np.ndarray, np.ndarray], ...]  # of each level: its name, class probability, centerness


def _maps(raw: Raw) -> tuple[Maps, list[int], tuple[tuple[float, float], ...]]:
    """The maps of each level, the surest class on each, and the (width, height) in the image that they cover."""
    highest, label = raw.predictions.logits.max(dim=1)
    best, labels = highest.sigmoid().cpu().numpy(), label.cpu().numpy()
    centerness = raw.predictions.centerness.sigmoid().cpu().numpy()
    result, surest, extents = [], [], []
    across, down = raw.ratio[:2].tolist()
    for grid in raw.points.grids:
        part = slice(grid.start, grid.start + grid.cells)
        # the cells that lie on the image, not on the padding
        rows, columns = (max(1, -(-side // grid.stride)) for side in raw.size)
        cut = (slice(0, min(rows, grid.height)), slice(0, min(columns, grid.width)))
        shape = (grid.height, grid.width)
        name = level_name(grid.stride)
        result.append((name, best[part].reshape(shape)[cut], centerness[part].reshape(shape)[cut]))
        surest.append(int(labels[part].reshape(shape)[cut].flat[result[-1][1].argmax()]))
        rows, columns = result[-1][1].shape
        extents.append((columns * grid.step_x * across, rows * grid.step_y * down))
    return tuple(result), surest, tuple(extents)


def _over(image: np.ndarray, values: np.ndarray, extent: tuple[float, float]) -> np.ndarray:
    """A map 0..1 in viridis over the greyed image, cell by cell: the map covers `extent`, and is cut at the image."""
    height, width = image.shape[:2]
    shrink = min(1.0, 640 / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    grey = cv2.cvtColor(cv2.resize(image, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    heat = cv2.applyColorMap((values.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    places = [  # of each pixel that is drawn, its row and its column in the map
        np.minimum((np.arange(drawn) + 0.5) * (whole / drawn / covered * cells), cells - 1).astype(int)
        for drawn, whole, covered, cells in zip(size[::-1], (height, width), extent[::-1], values.shape, strict=True)
    ]
    heat = heat[np.ix_(*places)][..., ::-1]
    return (0.35 * grey[..., None] + 0.65 * heat).astype(np.uint8)


def _scale(width: int, cell: int) -> np.ndarray:
    """A strip [h,width,3] with the colours from 0 to 1."""
    ramp = np.tile(np.linspace(0, 255, cell).astype(np.uint8), (max(1, cell // 20), 1))
    colors = cv2.applyColorMap(ramp, cv2.COLORMAP_VIRIDIS)[..., ::-1].astype(np.uint8)
    key = sheet([colors], titles=["colours: 0 (dark) to 1 (yellow)"], cell=cell)[:, :width]
    return np.pad(key, ((0, 0), (0, width - key.shape[1]), (0, 0)), "edge")
