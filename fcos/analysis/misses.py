"""Why an object was missed: the first stage between grid and answer that lost it.

An object is found when a final detection of its class with at least `score` takes it by COCO's rule at IoU
0.5. For a missed one the stages are asked in order:
- unknown class: the model does not know the object's class, so it can never find it;
- no location: no location may learn it at this input size (too small, or between the points);
- outranked: locations may, but in the truth of this image all of them learn smaller boxes;
- suppressed: the network gave its class with IoU >= 0.5 and enough score, but NMS or a limit on the number of
  detections dropped it, or the detection went to another object;
- wrong class: the same with another class only;
- box too poor: its class had enough score, but every such box has an IoU of 0.1 to 0.5;
- below threshold: nothing with enough score was there.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..boxes import iou
from ..data.images.reading import read_image
from ..detections import Detections
from ..errors import DataError, ImageError
from ..evaluation.metrics import match_image
from ..inference.detector import Detector
from ..inference.tiles import Held, Tiling
from ..show.draw import Marks, caption, draw_cell, sheet, with_legend
from ..system.progress import track
from ..system.stderr import say
from ..system.terminal import json_ready, percent, plural, table
from ..types import Target
from .common import known_labels, label_mapping, uncalibrated, with_files
from .raw import raw_parts
from .seen import Seen, see
from .tide import Tide, tide

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..data.records import Record

UNKNOWN = "unknown class"
STAGES = (UNKNOWN, "no location", "outranked", "suppressed", "wrong class", "box too poor", "below threshold")
_COLORS = dict(
    zip(
        STAGES,
        ((0, 0, 0), (120, 120, 120), (150, 0, 195), (255, 135, 0), (225, 45, 45), (255, 210, 45), (30, 150, 255)),
        strict=True,
    )
)
_FOUND = (170, 175, 185)  # of boxes that were found
NEAR, FAR = 0.5, 0.1
_GALLERY = 6


@dataclass(frozen=True)
class Miss:
    """One missed object: image (id and file), class, box xyxy in pixels of the image, the stage that lost
    it; the best IoU that a box of enough score had with it, whatever its class, and the highest score of its
    own class among boxes with IoU >= 0.5, before any threshold."""

    image: int
    file: str
    label: str
    box: tuple[float, ...]
    stage: str
    best_iou: float
    best_score: float


@dataclass(frozen=True)
class MissStudy:
    """Missed objects of a data set and TIDE's account of the errors."""

    data: str
    score: float
    objects: int
    misses: tuple[Miss, ...]
    by_class: dict[str, dict[str, int]]
    tide: Tide
    detections: tuple[Detections, ...] = field(repr=False)

    def counts(self) -> dict[str, int]:
        """Missed objects of each stage."""
        counted = Counter(m.stage for m in self.misses)
        return {stage: counted[stage] for stage in STAGES}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return json_ready(
            {
                "data": self.data,
                "score": self.score,
                "objects": self.objects,
                "found": self.objects - len(self.misses),
                "stages": self.counts(),
                "by_class": self.by_class,
                "tide": self.tide.to_dict(),
                "misses": [vars(m) for m in self.misses],
            }
        )

    def text(self) -> str:
        """For a terminal."""
        hits = self.objects - len(self.misses)
        total = max(self.objects, 1)
        rows = [("none: found", f"{hits:,}", percent(hits / total, 1))]
        stages = {k: n for k, n in self.counts().items() if n or k != UNKNOWN}
        rows += [(k, f"{n:,}", percent(n / total, 1)) for k, n in stages.items()]
        lines = [
            f"{self.data}: {plural(self.objects, 'object')}",
            f"found: a detection of its class, of score {self.score:g} or more, overlaps it by IoU 0.5",
            table(("stage that lost it", "objects", "%"), rows),
        ]
        worst = sorted(self.by_class.items(), key=lambda kv: -sum(kv[1].values()))[:8]
        if worst:
            lines += ["", table(("class", *stages), [(k, *(v[s] for s in stages)) for k, v in worst])]
        tide = ["", "TIDE: what each kind of error costs, counted on detections of any score:", self.tide.text()]
        return "\n".join([*lines, *tide, "", "what each stage means, and what helps: fcos help explain"])


def miss_study(
    detector: Detector,
    dataset: Dataset,
    score: float | None = None,
    image: int | None = None,
    tiling: Tiling | None = None,
) -> MissStudy:
    """Explain every missed object of a data set, or of the image whose id is `image`; one forward pass a
    image, or one for each of its tiles by `tiling`. Missed is what no detection of at least `score` takes (None: what
    `fcos predict` shows). Crowd and difficult objects are left out, as are those of an image that cannot be read.
    Raises DataError for an id that is not there or an image that is missing, ImageError where that one cannot be
    read."""
    detector = uncalibrated(detector)
    score = detector.shown if score is None else score
    records = [r for r in dataset.records if image is None or r.id == image]
    if not records:
        which = "no images" if image is None else f"no image with the id {image}"
        raise DataError(f"{dataset.root} has {which} in the split {dataset.split}")
    dataset = with_files(replace(dataset, records=tuple(records)))
    mapping = label_mapping(detector.classes, dataset.classes)
    names, known = dataset.classes.names, known_labels(mapping, dataset.classes)
    misses: list[Miss] = []
    final: list[Detections] = []
    unread: set[int] = set()
    for record in track(records, len(records), "explaining"):
        try:
            parts = list(raw_parts(detector, Held(read_image(str(record.path))), tiling))
        except ImageError as error:
            if image is not None:
                raise
            say(f"{error}; its objects are left out")
            final.append(Detections.empty())
            unread.add(record.id)
            continue
        seen = see(detector, parts, record, mapping)
        stages = stages_of(seen, score, known)
        for k, (stage, overlap, best) in stages.items():
            box = tuple(record.boxes[k].tolist())
            misses.append(Miss(record.id, record.file_name, names[record.labels[k]], box, stage, overlap, best))
        final.append(replace(seen.final, names=names, size=record.size))
    by_class: dict[str, dict[str, int]] = {}
    for miss in misses:
        by_class.setdefault(miss.label, dict.fromkeys(STAGES, 0))[miss.stage] += 1
    looked_at = [(record, found) for record, found in zip(records, final, strict=True) if record.id not in unread]
    objects = sum(int(_solid(record).sum()) for record, _ in looked_at)
    costs = tide([found for _, found in looked_at], replace(dataset, records=tuple(record for record, _ in looked_at)))
    return MissStudy(str(dataset.root), score, objects, tuple(misses), by_class, costs, tuple(final))


def _solid(record: Record) -> np.ndarray:
    return ~record.ignore


def stages_of(seen: Seen, score: float, known: np.ndarray) -> dict[int, tuple[str, float, float]]:
    """{row of each object that no detection of at least `score` takes: (stage, best IoU of a box with enough score,
    best score of its class)}; known [C] bool: classes that the model knows."""
    target, shown = seen.target, seen.detections[seen.detections.scores >= score]
    taken = _taken(shown, target)
    boxes, scores, classes = seen.strong
    result = {}
    for row, lost in seen.before.items():
        if taken[row]:
            continue
        overlap = iou(target.boxes[row][None], boxes)[0] if len(boxes) else boxes.new_zeros(0)
        mine, enough = classes == target.labels[row], scores >= score
        if not known[target.labels[row]]:
            stage = UNKNOWN
        elif lost:
            stage = lost
        elif (mine & enough & (overlap >= NEAR)).any():
            stage = "suppressed"
        elif (enough & (overlap >= NEAR)).any():
            stage = "wrong class"
        elif (mine & enough & (overlap >= FAR)).any():
            stage = "box too poor"
        else:
            stage = "below threshold"
        fitting = scores[mine & (overlap >= NEAR)]
        result[row] = (
            stage,
            float(overlap[enough].max()) if enough.any() else 0.0,
            float(fitting.max()) if len(fitting) else 0.0,
        )
    return result


def _taken(shown: Detections, target: Target) -> np.ndarray:
    """[G] bool: a detection takes the object by COCO's rule at IoU 0.5."""
    detections = (shown.boxes.numpy(), shown.scores.numpy(), shown.labels.numpy())
    match = match_image(detections, (target.boxes.numpy(), target.labels.numpy(), target.ignore.numpy()), NEAR)
    return np.isin(np.arange(len(target)), match)


def gallery(study: MissStudy, dataset: Dataset, cell: int = 420) -> np.ndarray:
    """The images with most missed objects: what was missed, coloured by the stage that lost it, and grey what was
    found. The classes are named where there are several."""
    alone = len(dataset.classes) == 1
    by_image: dict[int, list[Miss]] = {}
    for miss in study.misses:
        by_image.setdefault(miss.image, []).append(miss)
    worst = sorted(by_image, key=lambda i: (-len(by_image[i]), i))[:_GALLERY]
    records = {r.id: r for r in dataset.records}
    detections = dict(zip((r.id for r in dataset.records), study.detections, strict=False))
    images, titles = [], []
    for number in worst:
        record, rows = records[number], by_image[number]
        try:
            pixels = read_image(str(record.path))
        except ImageError:
            continue
        boxes = [list(m.box) for m in rows]
        if number in detections:
            found = detections[number]
            boxes += found.boxes[found.scores >= study.score].tolist()
        rest = len(boxes) - len(rows)
        texts = ["" if alone else m.label for m in rows] + [""] * rest
        colors = [_COLORS[m.stage] for m in rows] + [_FOUND] * rest
        images.append(draw_cell(pixels, Marks(boxes, range(len(boxes)), texts, colors=colors), cell))
        titles.append(f"{len(rows)} of {int(_solid(record).sum())} missed: {caption(record.file_name)}")
    lost = [(f"lost: {stage}", _COLORS[stage]) for stage, count in study.counts().items() if count]
    return with_legend(sheet(images, titles=titles, cell=cell), [*lost, ("found", _FOUND)])
