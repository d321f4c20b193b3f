"""Head outputs of a data set, computed once, from which any decoding is a matter of seconds.

Kept are all pairs of location and class above `least`, and, so that oracles have something to mend, the true
class of every location that learns a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..analysis.common import label_mapping, on_cpu, with_files
from ..analysis.explain import Raw
from ..assign import assign
from ..boxes import clip, nms
from ..config import Config, DecodeConfig
from ..data.image import read_image
from ..decode import score
from ..inference.detector import Detector
from ..terminal import track
from ..types import Detections

if TYPE_CHECKING:
    from ..data.dataset import Dataset, Record

LEAST = 0.01  # class probability
_MOST = 20000  # pairs of one picture


@dataclass(frozen=True)
class Candidates:
    """K pairs of location and class of one picture, in pixels of the network input.

    boxes [K,4] unclipped, distances [K,4] l, t, r, b, probability [K] of the class, centerness [K], labels
    [K] of the data set, spot [K] number of the location, level [K]. owner [K]: row of the true box that the
    location learns (whole box, smallest wins), -1 for none. truth [G,4], truth_labels [G]: without ignored
    boxes. size: (height, width) without padding; ratio [4]: to pixels of the picture.
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


def cache(detector: Detector, dataset: Dataset, least: float = LEAST) -> list[Candidates]:
    """One forward pass over every picture; pairs with a class probability above `least` are kept. DataError
    where a picture has no file."""
    records = with_files(dataset).records
    mapping = label_mapping(detector.classes, dataset.classes)
    return [_image(detector, r, mapping, least) for r in track(records, len(dataset), "one pass")]


def _image(detector: Detector, record: Record, mapping: Tensor, least: float) -> Candidates:
    raw = Raw(detector, read_image(str(record.path)))
    keep = torch.from_numpy(~record.ignore)
    truth = (torch.from_numpy(record.boxes) / raw.ratio)[keep]
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
    to_model = torch.full((int(max(mapping.max(), truth_labels.max() if len(truth_labels) else 0)) + 1,), -1)
    known = mapping >= 0
    to_model[mapping[known]] = known.nonzero()[:, 0]
    positive = (owner >= 0).nonzero()[:, 0]
    own_class = to_model[truth_labels[owner[positive]]] if len(positive) else positive
    wanted[positive[own_class >= 0], own_class[own_class >= 0]] = True
    wanted &= known[None]
    spot, labels = wanted.nonzero(as_tuple=True)
    xy, reach = points.xy[spot], distances[spot]
    return Candidates(
        boxes=torch.cat((xy - reach[:, :2], xy + reach[:, 2:]), dim=1),
        distances=reach,
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
    )


def redecode(c: Candidates, cfg: DecodeConfig, keep: Tensor | None = None) -> Detections:
    """The detections of one picture under other decoding settings, in pixels of the picture.

    Equal to `fcos.decode` while cfg.threshold is not below the cache's `least`. keep [K] bool: candidates that stay
    whatever NMS says (the NMS oracle); all others then go through NMS among themselves.
    """
    scores = score(c.probability, c.centerness, cfg)
    passed = (c.probability if cfg.threshold_on == "class" else scores) > cfg.threshold
    rank = scores if cfg.topk_by == "score" else c.probability
    rows = []
    for level in c.level.unique().tolist():
        chosen = (passed & (c.level == level)).nonzero()[:, 0]
        if len(chosen) > cfg.topk:
            chosen = chosen[rank[chosen].topk(cfg.topk).indices]
        rows.append(chosen)
    order = torch.cat(rows) if rows else torch.zeros(0, dtype=torch.int64)
    boxes = c.boxes[order]
    if cfg.clip == "before":
        boxes = clip(boxes, c.size, cfg.clip_margin)
    if keep is None:
        kept, final = nms(boxes, scores[order], c.labels[order], cfg)
    else:
        safe = keep[order]
        rest = (~safe).nonzero()[:, 0]
        survivors, _ = nms(boxes[rest], scores[order][rest], c.labels[order][rest], cfg)
        kept = torch.cat((safe.nonzero()[:, 0], rest[survivors]))
        kept = kept[scores[order][kept].argsort(descending=True, stable=True)][: cfg.max_detections]
        final = scores[order][kept]
    boxes = boxes[kept]
    if cfg.clip == "after":
        boxes = clip(boxes, c.size, cfg.clip_margin)
    picked = order[kept]
    return Detections(boxes * c.ratio, final, c.labels[picked], c.spot[picked])


def redecode_all(cached: Sequence[Candidates], config: Config, **changes: object) -> list[Detections]:
    """Every picture under config.decode with `changes`."""
    cfg = config.decode.model_copy(update=changes)
    return [redecode(c, cfg) for c in cached]
