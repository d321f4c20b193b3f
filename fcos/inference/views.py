"""Several looks at one image: mirrored, larger and smaller (test-time augmentation), or through several detectors.

The boxes of all views are put together by weighted boxes fusion (Solovyev et al., arXiv 1910.13302): boxes of one
class that overlap become their mean, weighted by score, and what only few views saw loses score. NMS, the other way,
keeps the best of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..boxes import nms
from ..data.classes import match_classes
from ..detections import Detections
from ..errors import ConfigError, DataError
from ..overlap import iou
from ..system.terminal import some

if TYPE_CHECKING:
    from .detector import Detector

Pixels = NDArray[np.uint8]
Fusion = Literal["wbf", "nms"]
_FUSE_IOU = 0.55  # of 1910.13302: boxes of one object in different views
_SCALES = (0.25, 4.0)


@dataclass(frozen=True)
class View:
    """One look: mirrored or not, at `scale` times the usual input size."""

    mirrored: bool = False
    scale: float = 1.0


PLAIN = View()


def parse_views(text: str) -> tuple[View, ...]:
    """The views of "flip,0.8,1.2": the plain one, and each scale; with "flip" all of them mirrored too.

    ConfigError for anything else.
    """
    if not isinstance(text, str):
        raise ConfigError(f"--tta {text!r}: write flip, scales, or both: flip,0.8,1.2")
    flip, scales = False, [1.0]
    for word in (part.strip() for part in text.split(",")):
        if word in ("flip", ""):
            flip = flip or word == "flip"
            continue
        try:
            scale = float(word)
        except ValueError:
            raise ConfigError(f"--tta {text!r}: {word!r} is neither flip nor a scale; write flip,0.8,1.2") from None
        if not _SCALES[0] <= scale <= _SCALES[1]:
            raise ConfigError(f"--tta {text!r}: a scale lies in {_SCALES[0]:g} to {_SCALES[1]:g}, not {word}")
        if scale not in scales:
            scales.append(scale)
    return tuple(View(mirrored, scale) for scale in scales for mirrored in ((False, True) if flip else (False,)))


def through(detector: Detector, image: Pixels, view: View) -> Detections:
    """Detections of uint8 [H,W,3] RGB through a view, in pixels of the image."""
    if view.scale != 1.0:
        detector = at_scale(detector, view.scale)
    seen = detector.detect([np.ascontiguousarray(image[:, ::-1]) if view.mirrored else image], [None])[0]
    return mirror(seen, image.shape[1]) if view.mirrored else seen


def mirror(seen: Detections, width: int) -> Detections:
    """Detections of an image that was mirrored, in pixels of the one that was not."""
    x1, y1, x2, y2 = seen.boxes.unbind(dim=1)
    return replace(seen, boxes=torch.stack((width - x2, y1, width - x1, y2), dim=1))


def at_scale(detector: Detector, scale: float) -> Detector:
    """The same network at `scale` times the input size; ConfigError where the size is fixed."""
    if detector.size is not None:
        raise ConfigError(f"this model takes images of {detector.size[1]}x{detector.size[0]} only, no scales")
    data = detector.config.data
    sides = {"size": max(32, round(data.size * scale)), "max_size": max(32, round(data.max_size * scale))}
    return detector.replace(config=detector.config.override({"data": sides}))


def detect_views(detectors: Sequence[Detector], image: Pixels, views: Sequence[View], fusion: Fusion) -> Detections:
    """Detections of an image through every view of every detector, in its pixels, labels of the first detector.

    One detector with the plain view alone gives its own detections. Raises DataError as `first_labels` does.
    """
    first = detectors[0]
    if len(detectors) == 1 and tuple(views) == (PLAIN,):
        return first.detect([image], [None])[0]
    seen: list[Detections] = []
    for detector, labels in zip(detectors, first_labels(detectors), strict=True):
        for view in views:
            part = through(detector, image, view)
            part = part[labels[part.labels] >= 0]
            seen.append(replace(part, labels=labels[part.labels]))
    return fuse(seen, first, fusion)


def first_labels(detectors: Sequence[Detector]) -> list[Tensor]:
    """For each detector the label in the first one of each of its classes [C], -1 for a class that the first lacks,
    whose boxes count as nothing. DataError for a detector that lacks a class of the first."""
    first = detectors[0].classes
    matched = [torch.arange(len(first), device="cpu")]
    for place, detector in enumerate(detectors[1:], 2):
        labels = match_classes(detector.classes, first, allow_missing=True)
        if lacking := [first.names[label] for label in sorted({*range(len(first))} - {*labels.tolist()})]:
            raise DataError(
                f"model {place} of {len(detectors)} does not know {some(lacking)}, which the first knows; models that "
                f"look together need its classes (model {place} knows {some(detector.classes.names)})"
            )
        matched.append(torch.from_numpy(labels))
    return matched


def fuse(seen: Sequence[Detections], detector: Detector, fusion: Fusion = "wbf") -> Detections:
    """One image's detections from those of several views of it, best first. Locations (`points`) are -1."""
    decode = detector.config.decode
    boxes = torch.cat([part.boxes for part in seen])
    scores = torch.cat([part.scores for part in seen])
    labels = torch.cat([part.labels for part in seen])
    if fusion == "nms":
        keep, scores = nms(boxes, scores, labels, decode)
        boxes, labels = boxes[keep], labels[keep]
    else:
        fused = fuse_boxes([(p.boxes.numpy(), p.scores.numpy(), p.labels.numpy()) for p in seen], _FUSE_IOU)
        boxes, scores, labels = (torch.from_numpy(part) for part in fused)
        boxes, scores = boxes.float(), scores.float()
        if decode.nms == "agnostic":  # fusing looks at one class at a time
            keep, scores = nms(boxes, scores, labels, decode)
            boxes, labels = boxes[keep], labels[keep]
        boxes, scores, labels = (part[: decode.max_detections] for part in (boxes, scores, labels))
    return Detections(
        boxes,
        scores,
        labels,
        torch.full((len(boxes),), -1, device="cpu"),
        names=detector.classes.names,
        ids=detector.classes.ids,
        size=seen[0].size,
        source=seen[0].source,
    )


Rows = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]


def fuse_boxes(
    views: Sequence[Rows], limit_iou: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Weighted boxes fusion of (boxes [D,4], scores [D], labels [D]) of each view: the same of all, best first.

    Boxes in order of score: each joins the fused box of its class that it overlaps most, from `limit_iou` on, or begins
    a new one. A fused box is the mean by score; its score is the mean, times the share of views that saw it.

    A fused box takes one box of each view, the best: what NMS left of weaker neighbours in a view would pull the score
    and the corners of a sure object down, and it stays a box of its own. (The paper's rule takes all.) So one view
    comes back as it is.
    """
    boxes = np.concatenate([v[0].reshape(-1, 4) for v in views]).astype(np.float64)
    scores = np.concatenate([v[1] for v in views]).astype(np.float64)
    labels = np.concatenate([v[2] for v in views]).astype(np.int64)
    origin = np.repeat(np.arange(len(views)), [len(v[1]) for v in views])
    all_boxes, all_scores, all_labels = [], [], []
    for label in np.unique(labels).tolist():
        rows = np.flatnonzero(labels == label)
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        fused = np.zeros((len(rows), 4))
        sums, used = np.zeros((len(rows), 4)), 0
        totals, holds = np.zeros(len(rows)), np.zeros((len(rows), len(views)), bool)
        for row in rows.tolist():
            overlap = np.where(holds[:used, origin[row]], 0.0, iou(boxes[row], fused[:used]))
            best = int(overlap.argmax()) if used else -1
            if best < 0 or overlap[best] <= limit_iou:
                best, used = used, used + 1
            sums[best] += scores[row] * boxes[row]
            totals[best] += scores[row]
            holds[best, origin[row]] = True
            fused[best] = sums[best] / totals[best] if totals[best] > 0 else boxes[row]
        all_boxes.append(fused[:used])
        all_scores.append(totals[:used] / len(views))
        all_labels.append(np.full(used, label, np.int64))
    if not all_boxes:
        return np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)
    joined, means, kinds = np.concatenate(all_boxes), np.concatenate(all_scores), np.concatenate(all_labels)
    order = np.argsort(-means, kind="stable")
    return joined[order], means[order], kinds[order]
