"""Head outputs of a data set, computed once, from which any decoding is a matter of seconds.

Kept are all pairs of location and class above `least`, and, so that oracles have something to mend, the true
class of every location that learns a box. Of these, what lies below what is kept of all others counts only where an
oracle lifts it: the truth must not choose who is detected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..analysis.common import label_mapping, on_cpu, with_files
from ..analysis.raw import Raw
from ..assign import assign
from ..boxes import iou, nms, to_corners
from ..config import Config, DecodeConfig
from ..data.images.reading import read_image
from ..decode import Candidates, admit, finish, least_class_probability, trim
from ..detections import Detections
from ..errors import ImageError
from ..inference.detector import Detector
from ..system.progress import track
from ..system.stderr import say

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..data.records import Record

LEAST = 0.01  # class probability
_MOST = 20000  # pairs of one image


@dataclass(frozen=True)
class Cached:
    """K pairs of location and class of one image, in pixels of the network input.

    boxes [K,4] unclipped, distances [K,4] l, t, r, b, probability [K] of the class, centerness [K], labels
    [K] of the data set, spot [K] number of the location, level [K]. owner [K]: row of the true box that the
    location learns (whole box, smallest wins), -1 for none. truth [G,4], truth_labels [G]: without ignored
    boxes. size: (height, width) without padding; a box times ratio [4] plus shift [4] is in
    pixels of the image. floor: the least probability of which all pairs are here.
    """

    boxes: Tensor
    distances: Tensor
    probability: Tensor
    centerness: Tensor
    labels: Tensor
    spot: Tensor
    level: Tensor
    owner: Tensor
    xy: Tensor
    truth: Tensor
    truth_labels: Tensor
    size: tuple[int, int]
    ratio: Tensor
    shift: Tensor
    floor: float


def cache(detector: Detector, dataset: Dataset, least: float | None = None) -> list[Cached]:
    """One forward pass over every image; pairs with a class probability above `least` are kept: a hundredth, or what
    the detector's own decoding takes where that is less. An image that cannot be read counts as one in which nothing
    is found, and a line says so. DataError where an image has no file."""
    records = with_files(dataset).records
    mapping = label_mapping(detector.classes, dataset.classes)
    if least is None:
        least = min(LEAST, least_class_probability(detector.config.decode))
    return [_image(detector, r, mapping, least) for r in track(records, len(dataset), "one pass")]


def _image(detector: Detector, record: Record, mapping: Tensor, least: float) -> Cached:
    try:
        raw = Raw(detector, read_image(str(record.path)))
    except ImageError as error:
        say(f"counted as an image without detections: {error}")
        return _unread(record)
    keep = torch.from_numpy(~record.ignore)
    truth = raw.seen(torch.from_numpy(record.boxes))[keep]
    truth_labels = torch.from_numpy(record.labels)[keep]
    probability = raw.predictions.logits.sigmoid().cpu()
    centerness = raw.predictions.centerness.sigmoid().cpu()
    distances = raw.predictions.distances.cpu()
    points = on_cpu(raw.points)
    whole = detector.config.assign.model_copy(update={"center_radius": 0.0})
    owner = assign(points, truth, whole)

    wanted = probability > least
    if int(wanted.sum()) > _MOST:
        wanted &= probability >= probability.flatten().topk(_MOST).values[-1]
    floor = float(probability[wanted].min()) if wanted.any() else least
    to_model = torch.full((int(max(mapping.max(), truth_labels.max() if len(truth_labels) else 0)) + 1,), -1)
    known = mapping >= 0
    to_model[mapping[known]] = known.nonzero()[:, 0]
    positive = (owner >= 0).nonzero()[:, 0]
    own_class = to_model[truth_labels[owner[positive]]] if len(positive) else positive
    wanted[positive[own_class >= 0], own_class[own_class >= 0]] = True
    wanted &= known[None]
    spot, labels = wanted.nonzero(as_tuple=True)
    xy = points.xy[spot]
    return Cached(
        boxes=to_corners(xy, distances[spot]),
        distances=distances[spot],
        probability=probability[spot, labels],
        centerness=centerness[spot],
        labels=mapping[labels],
        spot=spot,
        level=points.level[spot],
        owner=owner[spot],
        xy=xy,
        truth=truth,
        truth_labels=truth_labels,
        size=raw.size,
        ratio=raw.ratio,
        shift=raw.shift,
        floor=floor,
    )


def _unread(record: Record) -> Cached:
    """No candidates, and the truth as it is."""
    none, numbers = torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    keep = torch.from_numpy(~record.ignore)
    return Cached(
        boxes=torch.zeros(0, 4),
        distances=torch.zeros(0, 4),
        probability=none,
        centerness=none,
        labels=numbers,
        spot=numbers,
        level=numbers,
        owner=numbers,
        xy=torch.zeros(0, 2),
        truth=torch.from_numpy(record.boxes)[keep],
        truth_labels=torch.from_numpy(record.labels)[keep],
        size=record.size,
        ratio=torch.ones(4),
        shift=torch.zeros(4),
        floor=0.0,
    )


def redecode(c: Cached, cfg: DecodeConfig, keep: Tensor | None = None) -> Detections:
    """The detections of one image under other decoding settings, in pixels of the image.

    Equal to `fcos.decode` while cfg.threshold is not below the cache's `least`. keep [K] bool: candidates that stay
    whatever NMS says (the NMS oracle); all others then go through NMS among themselves.
    """
    ends = torch.arange(1, int(c.level.max()) + 2 if len(c.level) else 2)
    probability = torch.where(c.probability >= c.floor, c.probability, 0.0)
    rows, scores = admit(probability, c.centerness, c.level, ends, cfg)
    safe = torch.zeros(len(rows), dtype=torch.bool) if keep is None else keep[rows]
    fixed = Candidates(c.boxes[rows[safe]], scores[safe], c.labels[rows[safe]], c.spot[rows[safe]])
    rest = Candidates(c.boxes[rows[~safe]], scores[~safe], c.labels[rows[~safe]], c.spot[rows[~safe]])
    fixed, rest = trim(fixed, c.size, cfg), trim(rest, c.size, cfg)
    kept, final = nms(rest.boxes, rest.scores, rest.labels, cfg)
    if keep is not None:
        rest = Candidates(*(torch.cat((a, b[kept])) for a, b in zip(fixed, rest, strict=True)))
        kept = rest.scores.argsort(descending=True, stable=True)[: cfg.max_detections]
        final = rest.scores[kept]
    detections, _ = finish(rest, kept, final, c.size, cfg)
    return replace(detections, boxes=detections.boxes * c.ratio + c.shift, size=None)


def redecode_all(cached: Sequence[Cached], config: Config, **changes: object) -> list[Detections]:
    """Every image under config.decode with `changes`."""
    cfg = config.decode.model_copy(update=changes)
    return [redecode(c, cfg) for c in cached]


def limit_by_class(config: Config) -> Config:
    """The config with its limit of candidates as one of the class probability alone, so that it lets the same through
    whatever the score is made of; as it is where it is one already."""
    least = least_class_probability(config.decode)
    return config.override({"decode": {"threshold_on": "class", "threshold": least}})


def own_iou(c: Cached) -> Tensor:
    """[K] highest IoU of each candidate with a true box of its class, 0 where there is none."""
    if not len(c.truth) or not len(c.boxes):
        return torch.zeros(len(c.boxes))
    return (iou(c.boxes, c.truth) * (c.labels[:, None] == c.truth_labels[None])).amax(dim=1)
