"""Detections as JSON, drawn images, and the story of each box."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ..analysis.explain import Explanation, explain
from ..analysis.raw import own_tiling
from ..detections import Detections
from ..errors import FcosError
from ..inference.composite import tile_of
from ..inference.detector import Detector
from ..inference.scores import only, parse_scores, reached
from ..inference.tiles import parse_tile
from ..show.draw import draw_detections
from ..types import Classes
from .engine import Outcome, Pixels, Task
from .options import Refused

_LEAST_TILE = 128  # smaller ones would only cost time
_MOST_TILES = 400  # of one image, all sizes together: seconds of a lane


@dataclass(frozen=True)
class Wanted:
    """Which detections a request wants: the least score of each class [C], and at most how many. `names`: of the
    classes."""

    scores: torch.Tensor
    most: int | None = None
    names: tuple[str, ...] = ()

    @property
    def least(self) -> float:
        return float(self.scores.min()) if len(self.scores) else 0.0

    def of(self, detections: Detections) -> Detections:
        """Those, best first. Refused (503) where the model was loaded anew meanwhile and has other classes."""
        if tuple(detections.names) != self.names:
            raise Refused(503, "the model was loaded anew meanwhile, with other classes; ask again", 1)
        return reached(detections, self.scores)[: self.most]


def wanted(classes: Classes, shown: float, score: str | None, names: str | None, most: int | None) -> Wanted:
    """`score` as in `fcos predict` (0.4, or person=0.4,dog=0.5; None: `shown`), `names` separated by commas (None:
    all). Refused (400) for what the model does not have."""
    if score is not None and score.lower().endswith(".json"):
        raise Refused(400, "score: a number, or numbers by class such as person=0.4,dog=0.5")
    try:
        scores = parse_scores(str(shown) if score is None else score, classes, shown, "score")
        scores = scores if names is None else only(scores, names, classes)
    except FcosError as error:
        raise Refused(400, str(error).removeprefix("--")) from None
    return Wanted(scores, most, tuple(classes.names))


def rows(detections: Detections) -> list[dict[str, Any]]:
    """Each detection under the names that `Detections.to_dict` has; every digit is kept."""
    columns = (detections.labels.tolist(), detections.scores.tolist(), detections.boxes.tolist())
    return [
        {"name": detections.name(i), "label": detections.name(i), "class": label, "score": score, "box": box}
        for i, (label, score, box) in enumerate(zip(*columns, strict=True))
    ]


def result(name: str | None, outcome: Outcome, kept: Detections) -> dict[str, Any]:
    """One image of an answer."""
    height, width = outcome.size
    seconds = {part: round(value, 6) for part, value in outcome.seconds.items()}
    return {"name": name, "width": width, "height": height, "detections": rows(kept), "seconds": seconds}


def failed(name: str | None, error: Exception) -> tuple[int, dict[str, Any]]:
    """(status, what the answer says in place of one image's detections). Only errors that are meant for people are
    told; anything else is a fault of the server and says no more than that."""
    if isinstance(error, Refused):
        return error.status, {"name": name, "error": str(error)}
    if isinstance(error, FcosError):
        return 400, {"name": name, "error": str(error)}
    return 500, {"name": name, "error": "the server failed; its log says why"}


def drawn(data: bytes, kept: Detections) -> bytes:
    """An image's file with the boxes on it, a JPEG file. It is decoded once more, since no pixels are kept for it."""
    stream = io.BytesIO()
    draw_detections(data, kept, score=0.0).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def explainer(score: float, maps: bool) -> Task:
    """The task of an engine that tells why each box is there; see `fcos.explain`. Refused (400) for an image that the
    model looks at in several tiles, whose boxes are not those of the image as a whole."""

    def task(detector: Detector, image: Pixels) -> dict[str, Any]:
        tiling = own_tiling(detector)
        height, width = image.shape[:2]
        if tiling and tiling.count((height, width)) > 1:
            raise Refused(
                400,
                f"explain: this model looks at this image in tiles of {tiling.tile} px, and the server explains whole "
                f"images alone; run fcos explain IMAGE --tile {tiling.tile}",
            )
        story = explain(detector, image, score)
        return story_of(story, detector.classes, maps)

    return task


def tiler(score: float, tile: str) -> Task:
    """The task of an engine that looks tile by tile, or at the whole image (none). Refused (400) for another `tile`
    than these two, auto and pixels from 128."""
    if tile not in ("auto", "none") and not (tile.isdecimal() and len(tile) < 6 and int(tile) >= _LEAST_TILE):
        raise Refused(400, f"tile: write auto, none, or the side of a tile in pixels, {_LEAST_TILE} or more")

    return partial(_in_tiles, score, tile_of(tile))


def as_learned(detector: Detector, score: float) -> Task | None:
    """The task of an engine where nothing is asked: None for whole images, as most models learned."""
    side = detector.config.data.tile
    return partial(_in_tiles, score, side) if side else None


def _in_tiles(score: float, tile: int | str | None, detector: Detector, image: Pixels) -> Detections:
    height, width = image.shape[:2]
    tiling = None if tile is None else parse_tile(tile, detector.config.data)
    if tiling is not None and (count := tiling.count((height, width))) > _MOST_TILES:
        advice = "send a smaller image, or ask for larger tiles or tile=none"
        raise Refused(413, f"{width}x{height} pixels make {count:,} tiles of {tiling.tile} and more; {advice}")
    return detector(image, score=score, tile=tile)


def story_of(story: Explanation, classes: Classes, maps: bool) -> dict[str, Any]:
    """The stories as JSON; with `maps` each level's highest class probability and centerness as grey PNG files,
    and the (width, height) in the image that these cover from its upper left corner on."""
    number = {name: k for k, name in enumerate(classes.names)}
    boxes = [
        {
            "class": number[told["label"]],
            **told,
            "silenced": [{"class": number[s["label"]], **s} for s in told["silenced"]],
        }
        for told in story.to_dict()["detections"]
    ]
    answer: dict[str, Any] = {"detections": boxes}
    if maps:
        answer["maps"] = [
            {"level": level, "extent": extent, "class": _png(best), "centerness": _png(centre)}
            for (level, best, centre), extent in zip(story.maps, story.extents, strict=True)
        ]
    return answer


def _png(values: NDArray[np.float32]) -> str:
    """Values 0..1 [h,w] as a data URL of a grey image."""
    data = cv2.imencode(".png", np.rint(values * 255).astype(np.uint8))[1].tobytes()
    return "data:image/png;base64," + base64.b64encode(data).decode()


def to_json(value: Mapping[str, Any]) -> bytes:
    """Numbers that are no numbers become an error here and not at the client."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
