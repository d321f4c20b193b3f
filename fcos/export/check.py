"""Is the export good? Its detections beside torch's on real images, and AP before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..boxes import iou
from ..data.images.reading import read_image
from ..decode import solid
from ..detections import Detections

if TYPE_CHECKING:
    from ..inference.detector import Detector

SURE = 0.3  # score from which a detection has to be there under low precision
# largest differences of scores, of boxes as a share of the image's longer side, and share of lost detections
LIMITS = {"fp32": (1e-4, 1e-4, 0.005), "bf16": (0.1, 0.1, 0.05), "fp16": (0.05, 0.05, 0.05), "int8": (1.0, 1.0, 0.2)}
# the same for a number format that nobody asked for, and the detections of at least SURE that it has to be seen on
UNASKED = {"fp32": LIMITS["fp32"], "bf16": (0.05, 0.02, 0.0)}
ENOUGH = 20
MAX_AP50_LOSS = 1.0  # points, for every dtype


@dataclass(frozen=True)
class Report:
    """Differences between two detectors on the same images.

    `score` and `box` are the largest over detections of the same class at the same location, `box` in
    pixels and `share` as a share of the image's longer side. `lost` are detections of the reference
    (`judged` of them: those with an area, under low precision of at least `SURE`) without one of their class at IoU
    0.5 in the other. AP and AP50 are of the model as it is and of the other; where that takes images of one size
    only, `sized` is the AP50 of the model at that size.
    """

    images: int
    detections: int
    matched: int
    score: float
    box: float
    share: float
    lost: int
    judged: int
    ap50: tuple[float, float] | None = None  # before and after, 0..1
    ap: tuple[float, float] | None = None
    sized: float | None = None

    @staticmethod
    def nothing() -> Report:
        """The report of an export that could not be run: no image was compared."""
        return Report(0, 0, 0, 0.0, 0.0, 0.0, 0, 0)


def bundled_images() -> list[np.ndarray]:
    """The package's photos [H,W,3], each as it is and as a tall part of odd size, and a strip of one."""
    folder = Path(str(resources.files("fcos") / "assets" / "photos"))
    photos = [read_image(path) for path in sorted(folder.glob("*.jpg"))]
    strip = photos[0][: photos[0].shape[0] // 4]
    return [*photos, strip, *(np.ascontiguousarray(p[:, p.shape[1] // 4 : p.shape[1] * 3 // 4 + 1]) for p in photos)]


def compare(reference: Detector, other: Detector, images: Sequence[np.ndarray] | None = None) -> Report:
    """`other` beside `reference` on decoded images, or on the package's; both take the same input size."""
    images = bundled_images() if images is None else images
    reference = like(reference, other)
    names = [None] * len(images)
    expected, actual = reference.detect(images, names), other.detect(images, names)
    from .runtime import EndToEndRuntime

    if not any(map(len, expected)) and not isinstance(other.network, EndToEndRuntime):
        # nothing is sure enough: compare what comes nearest to it
        reference, other = (like(d, other, threshold=0.0) for d in (reference, other))
        expected, actual = reference.detect(images, names), other.detect(images, names)
    return measure(expected, actual, 0.0 if other.placement.dtype == "fp32" else SURE)


def measure(expected: Sequence[Detections], actual: Sequence[Detections], sure: float = 0.0) -> Report:
    """The differences of actual[i] from expected[i]; see Report."""
    matched, judged, lost = 0, 0, 0
    score = box = share = 0.0
    for a, b in zip(expected, actual, strict=True):
        spots = {key: i for i, key in enumerate(zip(b.points.tolist(), b.labels.tolist(), strict=True))}
        pairs = [
            (i, spots[key])
            for i, key in enumerate(zip(a.points.tolist(), a.labels.tolist(), strict=True))
            if key in spots
        ]
        if pairs:
            left, right = (torch.tensor(side) for side in zip(*pairs, strict=True))
            matched += len(pairs)
            score = max(score, _largest(a.scores[left] - b.scores[right]))
            shift = _largest(a.boxes[left] - b.boxes[right])
            box, share = max(box, shift), max(share, shift / max(a.size or (1, 1)))
        wanted = a[(a.scores >= sure) & solid(a.boxes)]  # what has no area has no IoU, not even with itself
        judged += len(wanted)
        if len(wanted):
            near = (iou(wanted.boxes, b.boxes) >= 0.5) & (wanted.labels[:, None] == b.labels)
            lost += int((~near.any(dim=1)).sum())
    return Report(len(expected), sum(map(len, expected)), matched, score, box, share, lost, judged)


def _largest(difference: torch.Tensor) -> float:
    """The largest magnitude; infinite where a value is not a number."""
    return float(difference.abs().nan_to_num(nan=torch.inf).max())


def like(detector: Detector, other: Detector, threshold: float | None = None) -> Detector:
    """`detector` with the input size of `other`."""
    config = detector.config
    if threshold is not None:
        config = config.override({"decode": {"threshold": threshold}})
    return detector.replace(config=config, size=other.size)


def doubts(report: Report, dtype: str) -> list[str]:
    """Why a graph in fp32 or bf16 is not used unless it is asked for, one line each; empty when nothing speaks against
    it. Stricter than `verdict`."""
    few = dtype != "fp32" and report.judged < ENOUGH
    seen = f"only {report.judged} detections of at least {SURE:g} in the images; {ENOUGH} would tell"
    return [*verdict(report, dtype, UNASKED[dtype]), *([seen] if few else [])]


def verdict(report: Report, dtype: str, limits: tuple[float, float, float] | None = None) -> list[str]:
    """What is wrong with an export, one line each; empty when it is good. `limits`: other than those of the dtype."""
    score, share, lost = limits or LIMITS[dtype]
    wrong = []
    if not report.detections:
        wrong.append("nothing was detected in the images, so nothing was checked; give --data with its objects")
    if report.score > score:
        wrong.append(f"scores differ by up to {report.score:.2g}; {dtype} allows {score:g}")
    if report.share > share:
        wrong.append(f"boxes differ by up to {report.box:.2g} px, {report.share:.2g} of a side; {dtype}: {share:g}")
    if report.lost > lost * report.judged:
        wrong.append(f"{report.lost} of {report.judged} detections are gone; {dtype} allows {lost:.1%}")
    if dtype == "fp32" and report.matched < 0.95 * report.detections:
        wrong.append(f"only {report.matched} of {report.detections} detections come from the same location")
    if report.ap50 is not None:
        before, after = report.ap50
        before = before if report.sized is None else report.sized  # what a fixed size costs is told, and no fault
        if before - after > MAX_AP50_LOSS / 100:
            wrong.append(f"AP50 falls by {100 * (before - after):.2f} points; at most {MAX_AP50_LOSS:g} is good")
    return wrong
