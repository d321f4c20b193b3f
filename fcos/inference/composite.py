"""A detector that looks at an image in several ways: in tiles, mirrored and scaled, through several models.

It stands wherever a Detector does: folders, data sets, evaluation and video see no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..config import Config, DecodeConfig
from ..data.records import Window
from ..detections import Detections
from ..errors import DataError
from ..export.runtime import EndToEndRuntime
from ..system.machine import Placement
from ..types import Classes
from .tiles import Held, Pixels, Windows, detect_tiles, parse_tile
from .views import PLAIN, Fusion, View, detect_views, first_labels

if TYPE_CHECKING:
    from .detector import Detector


OWN = "own"  # as a tile: that of the model's file, which `data.tile` kept in training; else the whole image


def tile_of(word: str | int | None) -> str | int | None:
    """The `tile` of a `Looks` as people write it: None for OWN, "none" or 0 for the whole image."""
    return OWN if word is None else None if str(word) in ("none", "0") else word


@dataclass(frozen=True)
class Looks:
    """How to look: tile ("auto", a number of pixels, OWN, None: the whole image), overlap of tiles as a share, views of
    each tile or image, and how the boxes of several views or models are put together: "wbf" or "nms"."""

    tile: int | str | None = None
    overlap: float = 0.2
    views: tuple[View, ...] = (PLAIN,)
    fusion: Fusion = "wbf"

    @property
    def plain(self) -> bool:
        """Whether this is what a detector does by itself."""
        return self.tile is None and self.views == (PLAIN,)


@dataclass(frozen=True, eq=False)
class Composite:
    """Several looks as one detector. The first of `detectors` gives the classes and the settings of decoding; with one
    detector and plain looks the detections are its own, bit for bit."""

    detectors: tuple[Detector, ...]
    looks: Looks = Looks()

    @property
    def config(self) -> Config:
        return self.detectors[0].config

    @property
    def classes(self) -> Classes:
        return self.detectors[0].classes

    @property
    def placement(self) -> Placement:
        return self.detectors[0].placement

    @property
    def running(self) -> Placement:
        """Where and how the first of them computes now."""
        return self.detectors[0].running

    @property
    def shown(self) -> float:
        """The lowest score shown where none is asked for."""
        return self.detectors[0].shown

    @property
    def device(self) -> torch.device:
        return self.placement.device

    @property
    def _whole(self) -> Detector | Composite:
        """What looks at one tile: the same without tiles."""
        looks = replace(self.looks, tile=None)
        return self.detectors[0] if len(self.detectors) == 1 and looks.plain else replace(self, looks=looks)

    def detect(
        self, images: Iterable[Pixels | Windows], names: Sequence[str | None], score: float = 0.0, batch: int = 1
    ) -> list[Detections]:
        """Detections of decoded images [H,W,3] uint8 RGB, or of files that are read in windows, in their pixels."""
        # `map` holds no image while the next is read
        return list(map(partial(self._detect, score=score, batch=batch), images, names))

    def _detect(self, image: Pixels | Windows, name: str | None, *, score: float, batch: int) -> Detections:
        windows: Windows = Held(image) if isinstance(image, np.ndarray) else image
        if self.looks.tile is not None:
            tiling = parse_tile(self.looks.tile, self.detectors[0].config.data, self.looks.overlap, max(batch, 4))
            return detect_tiles(self._whole, windows, tiling, score=score, name=name)
        pixels = windows.image if isinstance(windows, Held) else windows.read(Window(0, 0, *windows.size))
        seen = detect_views(self.detectors, pixels, self.looks.views, self.looks.fusion)
        return _named(seen[seen.scores >= score], name)


def _named(seen: Detections, name: str | None) -> Detections:
    return replace(seen, source=name)


def _scored_as(detectors: Sequence[Detector], place: int) -> Detector:
    """The detector at `place` with scores of the first one's kind: a mean of 0.5, the root of a product, and of 0.25,
    the product, is no score of anything."""
    detector, wanted = detectors[place], detectors[0].config.decode
    own, where = detector.config.decode, f"model {place + 1} of {len(detectors)}"
    told = {"score": wanted.score, "power": wanted.power} if _rule(own) != _rule(wanted) else {}
    if told and isinstance(detector.network, EndToEndRuntime):
        raise DataError(
            f"{where} has decode.score={own.score} in its graph, and the first model {wanted.score}; scores of models "
            "that look together must be of one kind: export it without --nms"
        )
    if told and not detector.config.loss.centerness_weight and not wanted.by_class:
        raise DataError(
            f"{where} has a centerness branch that nothing has trained, and the first model scores by it "
            f"(decode.score={wanted.score}); set decode.score=class for all"
        )
    if wanted.calibrated and (told or not own.calibration):
        raise DataError(
            f"{where} has no probabilities of decode.score={wanted.score}, as the first model gives them; leave "
            "--calibrated out, or set decode.calibrated=false"
        )
    if wanted.calibrated != own.calibrated:
        told["calibrated"] = wanted.calibrated
    return detector.replace(config=detector.config.override({"decode": told})) if told else detector


def _rule(decode: DecodeConfig) -> tuple[str, float]:
    return decode.score, decode.power if decode.score == "power" else 0.0


def compose(detectors: Sequence[Detector], looks: Looks) -> Detector | Composite:
    """The one detector by itself where nothing more is asked for, else all looks as one: by the first one's classes,
    and its kind of score. Raises DataError as `first_labels` does, and for scores that cannot be of that kind."""
    first_labels(detectors)
    detectors = [detectors[0], *(_scored_as(detectors, place) for place in range(1, len(detectors)))]
    if looks.tile == OWN:
        looks = replace(looks, tile=detectors[0].config.data.tile or None)
    return detectors[0] if len(detectors) == 1 and looks.plain else Composite(tuple(detectors), looks)
