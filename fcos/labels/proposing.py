"""`fcos.labels.propose`: boxes for images without labels, and which of the images to label first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..boxes import nms
from ..config import DecodeConfig
from ..data.dataset import Dataset
from ..data.images.reading import read_image
from ..data.records import Record
from ..data.write import SCORED, check_new, convert
from ..decode import calibrated
from ..errors import DataError, ImageError
from ..inference.detector import Detector
from ..inference.load import load
from ..inference.sources import find_images
from ..system.door import door
from ..system.files import text_name
from ..system.progress import Bar
from ..system.terminal import plural
from .evidence import Evidence, gather

TOOLS = {"label-studio": "labelstudio"} | {name: name for name in SCORED if name != "labelstudio"}
_SEEN = 0.1  # score below which a peak is no object that one could be unsure of


@dataclass(frozen=True)
class Proposed:
    """What was written: the folder, its images in order, the number of boxes, what the format cannot hold, and the
    images that could not be read."""

    out: Path
    images: tuple[Path, ...] = field(repr=False)
    boxes: int
    lost: tuple[str, ...]
    unread: tuple[str, ...] = ()

    def text(self) -> str:
        """For a terminal."""
        lines = [*(f"left out: {line}" for line in self.unread), *self.lost]
        done = f"wrote {plural(self.boxes, 'box')} on {plural(len(self.images), 'image')} to {self.out}"
        return "\n".join([*lines, done])


@door
def propose(
    images: str | Path | Sequence[str | Path],
    *,
    model: str | Path | Detector = "fcos-lite0",
    to: str,
    out: str | Path,
    score: float | None = None,
    uncertain: int | None = None,
) -> Proposed:
    """Write the boxes that a model proposes for images, as a start for a labelling tool.

    Args:
        images: files, folders or globs.
        model: a Detector, or the name, run folder or file of one.
        to: label-studio, cvat, labelme, coco or yolo.
        out: a new or empty folder.
        score: the lowest score that is proposed; left out: that of `fcos predict`.
        uncertain: only so many images, those worth labelling first, in that order (`select`).

    Score and source stand beside each box where the format can hold them, so that nobody takes a proposal for the
    truth.

    Raises:
        DataError: an unknown format, a folder that holds something, or no image that can be read.
        ModelError: no such model.
    """
    if to not in TOOLS:
        raise DataError(f"proposals cannot be written as {to!r}; choose from {', '.join(TOOLS)}")
    if uncertain is not None and uncertain < 1:
        raise DataError(f"--uncertain {uncertain}: give the number of images to label, 1 or more")
    check_new(Path(out))  # before hours of looking
    detector = model if isinstance(model, Detector) else load(model, runtime="own")
    named = [images] if isinstance(images, str | Path) else list(images)
    looks, unread = looks_at(detector, find_images([str(n) for n in named]))
    if not looks:
        raise DataError(f"none of the {plural(len(unread), 'image')} can be read: {unread[0]}")
    order = range(len(looks)) if uncertain is None else select(looks, uncertain)
    least = detector.shown if score is None else score
    decode = detector.config.decode
    chosen = [looks[i] for i in order]
    records = []
    for number, look in enumerate(chosen, 1):
        evidence = _predicted(look.evidence, decode)
        records.append(_record(number, replace(look, evidence=evidence), evidence.peak_scores >= least))
    dataset = Dataset(tuple(records), detector.classes, "proposed", "all", Path(str(named[0])))
    source = detector.config.name if isinstance(model, Detector) else str(model)
    lost = convert({"all": dataset}, out, TOOLS[to], model=source)
    boxes = sum(len(r.boxes) for r in records)
    return Proposed(Path(out), tuple(look.path for look in chosen), boxes, tuple(lost), tuple(unread))


@dataclass(frozen=True)
class Look:
    """One image: its file, (height, width), the peaks that the model sees, and features [F] of its backbone."""

    path: Path
    size: tuple[int, int]
    evidence: Evidence = field(repr=False)
    features: np.ndarray = field(repr=False)


def select(looks: Sequence[Look], count: int) -> list[int]:
    """The numbers of `count` images worth labelling, the best first.

    An image counts for the objects that the model is unsure of, those of classes that it seldom sees for more; and it
    is taken the sooner, the farther its features lie from all images that are taken already.
    """
    if not looks:
        return []
    classes = looks[0].evidence.scores.shape[1]
    seen = np.zeros(classes)
    for look in looks:
        np.add.at(seen, look.evidence.peak_labels, look.evidence.peak_scores)
    rare = 1 / np.sqrt(seen + 1)
    rare = rare / rare.mean() if classes else rare
    worth = np.array([_worth(look.evidence, rare) for look in looks])
    features = np.stack([look.features for look in looks])
    features = features - features.mean(axis=0)
    features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    far = np.ones(len(looks))
    order: list[int] = []
    while len(order) < min(count, len(looks)):
        value = (0.05 + worth) * far
        value[order] = -1
        best = int(value.argmax())
        order.append(best)
        far = np.minimum(far, np.linalg.norm(features - features[best], axis=1) / 2)
    return order


def _worth(evidence: Evidence, rare: np.ndarray) -> float:
    """How much an image can teach: more with each object that the model is unsure of, but less than twice with two."""
    scores = evidence.peak_scores
    unsure = np.where(scores > _SEEN, 1 - np.abs(2 * scores - 1), 0) * rare[evidence.peak_labels]
    return float(np.log1p(unsure.sum()))


def looks_at(detector: Detector, paths: Sequence[Path]) -> tuple[list[Look], list[str]]:
    """(what is seen in each image, why others could not be read)."""
    count = len(detector.classes)
    mapping = torch.arange(count)
    looks, unread = [], []
    with _Features(detector) as features, Bar("looking", len(paths), "images") as bar:
        for path in paths:
            try:
                pixels = read_image(str(path))
            except ImageError as error:
                unread.append(str(error))
                continue
            finally:
                bar.advance()
            evidence = gather(detector, pixels, mapping, count)
            taken = features.take(evidence)
            looks.append(Look(path, (pixels.shape[0], pixels.shape[1]), _peaks_alone(evidence), taken))
    return looks, unread


def _peaks_alone(evidence: Evidence) -> Evidence:
    """The evidence without its locations: they take a megabyte an image, and every image is kept to the end."""
    return replace(evidence, boxes=evidence.boxes[:0].copy(), scores=evidence.scores[:0].copy())


class _Features:
    """The mean of the deepest map of the backbone, caught while the network computes; where the network is an exported
    file, which shows nothing of its inside, the mean scores of the classes."""

    def __init__(self, detector: Detector) -> None:
        self.backbone = getattr(detector.network, "backbone", None)
        self.hook: torch.utils.hooks.RemovableHandle | None = None
        self.last: np.ndarray | None = None

    def __enter__(self) -> _Features:
        if isinstance(self.backbone, nn.Module):
            self.hook = self.backbone.register_forward_hook(self._catch)
        return self

    def __exit__(self, *_: object) -> None:
        if self.hook is not None:
            self.hook.remove()

    def _catch(self, module: nn.Module, inputs: object, outputs: Tensor | Sequence[Tensor]) -> None:
        deepest = outputs if isinstance(outputs, Tensor) else list(outputs)[-1]
        self.last = deepest[0].float().mean(dim=(-2, -1)).cpu().numpy()

    def take(self, evidence: Evidence) -> np.ndarray:
        """The features [F] of the image that was looked at last, whose evidence is given."""
        if self.last is not None:
            return self.last
        total: np.ndarray = evidence.scores.sum(axis=0) / max(len(evidence.scores), 1)
        return total


def _predicted(evidence: Evidence, decode: DecodeConfig) -> Evidence:
    """The peaks that the detector's own NMS leaves, with the scores that it shows; of what overlaps by more than 0.6
    `gather` has left the best already, whatever that NMS is."""
    boxes, scores, labels = map(torch.from_numpy, (evidence.peaks, evidence.peak_scores, evidence.peak_labels))
    kept, scores = nms(boxes, scores, labels, decode.model_copy(update={"max_detections": max(len(boxes), 1)}))
    if decode.calibrated and decode.calibration:
        scores = calibrated(scores, labels[kept], decode)
    left = kept.numpy()
    peaks, peak_labels, votes = evidence.peaks[left], evidence.peak_labels[left], evidence.votes[left]
    return replace(evidence, peaks=peaks, peak_labels=peak_labels, peak_scores=scores.numpy(), votes=votes)


def _record(number: int, look: Look, keep: np.ndarray) -> Record:
    """The peaks [D] bool that are proposed; no file needs more than thousandths of a pixel."""
    e = look.evidence
    corners = e.peaks[keep].astype(np.float64).round(3)
    sides = corners[:, 2:] - corners[:, :2]
    return Record(
        *(number, look.path, look.size, corners.astype(np.float32), e.peak_labels[keep].astype(np.int64)),
        ignore=np.zeros(len(corners), bool),
        areas=sides.prod(axis=1).round(3),
        file_name=text_name(look.path.name),
        xywh=np.concatenate([corners[:, :2], sides.round(3)], axis=1),
        scores=e.peak_scores[keep],
    )
