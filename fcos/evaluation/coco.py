"""How good detections are: `evaluate(detections, dataset)` gives COCO's and VOC's numbers.

From detections to numbers: results.py makes one `Detections` per image, out of a file of anyone or with a detector;
`flatten` puts all boxes into arrays; hotcoco, or pycocotools where hotcoco is missing, matches and counts by COCO's
protocol (backends.py); metrics.py does VOC, curves and confusion; summary.py holds the numbers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data.classes import match_classes
from ..detections import Detections
from ..errors import DataError
from ..inference.dataset import predict_dataset
from ..system.terminal import plural
from .backends import Backend, Totals, coco_arrays
from .metrics import (
    IOU,
    SAME,
    Curves,
    Detected,
    Floats,
    Truth,
    all_curves,
    curves_by_class,
    match_coco,
    match_voc,
    overlaps,
    precision_recall,
    voc_ap,
)
from .operating_point import Cut, OperatingPoint, count
from .results import Listed, read_results
from .summary import ClassMetrics, Metrics

if TYPE_CHECKING:
    from ..data.dataset import Dataset

__all__ = [
    "ClassMetrics",
    "Metrics",
    "as_one_class",
    "count_at",
    "curves",
    "evaluate",
    "flatten",
    "match_classes",
    "predict_dataset",
    "read_results",
]

PROPOSALS = 1000  # the limit of AR@1000


def flatten(
    detections: Sequence[Detections], dataset: Dataset, *, class_agnostic: bool = False
) -> tuple[Detected, Truth]:
    """All boxes of a data set as arrays, images in the order of their ids, float64.

    detections[i] belongs to dataset.records[i]. Equal scores keep their order, as in pycocotools. Raises
    DataError for a box or score that is not finite, ValueError where lengths or labels do not fit.
    """
    if len(detections) != len(dataset.records):
        raise ValueError(f"{len(detections)} images' detections for {len(dataset.records)} images")
    order = np.argsort([record.id for record in dataset.records], kind="stable")
    records = [dataset.records[i] for i in order]
    ordered = [detections[i] for i in order]

    def column(arrays: list[Any], dtype: type, *tail: int) -> Any:
        return np.concatenate([np.zeros((0, *tail), dtype), *(np.asarray(a, dtype).reshape(-1, *tail) for a in arrays)])

    truth_image = np.repeat(np.arange(len(records)), [len(record.labels) for record in records])
    image = np.repeat(np.arange(len(records)), [len(d) for d in ordered])
    boxes = column([d.boxes.detach().cpu().numpy() for d in ordered], np.float64, 4)
    scores = column([d.scores.detach().cpu().numpy() for d in ordered], np.float64)
    labels = column([d.labels.detach().cpu().numpy() for d in ordered], np.int64)
    bad = ~(np.isfinite(boxes).all(axis=1) & np.isfinite(scores))
    if bad.any():
        first = records[int(image[bad][0])]
        raise DataError(f"{plural(int(bad.sum()), 'detection')} not in finite numbers, the first in {first.file_name}")
    truth_labels = column([r.labels for r in records], np.int64)
    if class_agnostic:
        labels, truth_labels = np.zeros_like(labels), np.zeros_like(truth_labels)
    elif len(labels) and not 0 <= labels.min() <= labels.max() < len(dataset.classes):
        raise ValueError(f"labels {labels.min()}..{labels.max()} do not fit {len(dataset.classes)} classes")
    rank = np.lexsort((-scores, image))  # stable
    extent = column([_extent_of(d) for d in ordered], np.float64, 2)
    sides = boxes[:, 2:] - boxes[:, :2]
    extent = np.where(np.abs(extent - sides) < 1e-6, extent, sides)  # boxes may have been changed since
    exact = column([r.exact() for r in records], np.float64, 4)
    truth = Truth(
        np.concatenate([exact[:, :2], exact[:, :2] + exact[:, 2:]], axis=1),
        truth_labels,
        truth_image,
        column([r.ignore for r in records], np.bool_),
        column([r.areas for r in records], np.float64),
        exact[:, 2:],
    )
    return Detected(boxes[rank], scores[rank], labels[rank], image, extent[rank]), truth


def as_one_class(detections: Sequence[Detections], dataset: Dataset) -> tuple[list[Detections], Dataset]:
    """Detections and data with all classes taken for one (proposals)."""
    return [replace(one, labels=torch.zeros_like(one.labels)) for one in detections], dataset.as_single_class()


def _extent_of(detections: Detections) -> Floats:
    """Width and height [D,2] float64: as the results file has them, else the difference of the corners."""
    if isinstance(detections, Listed) and len(detections.extent) == len(detections):
        return detections.extent
    boxes: Floats = detections.boxes.detach().cpu().numpy().astype(np.float64)
    return boxes[:, 2:] - boxes[:, :2]


def evaluate(
    detections: Sequence[Detections],
    dataset: Dataset,
    *,
    backend: Backend = "auto",
    max_detections: Sequence[int] = (1, 10, 100),
    class_agnostic: bool = False,
    voc_plus_one: bool = False,
    cut: Cut | None = None,
) -> Metrics:
    """Judge detections[i] against dataset.records[i]; labels are label numbers of the data set.

    `class_agnostic` takes all classes for one (proposals). `max_detections` limits the detections per class
    and image; AR@1000 comes in addition. `voc_plus_one` is for detections whose corners are VOC pixel
    numbers (1.., last pixel included): for the VOC numbers x1 and y1 of the truth count from 1 too, and a box
    is x2 - x1 + 1 wide, as in the VOC devkit. `cut`: where to count what is found, missed and wrong (`at_score`).
    Crowd and difficult boxes are neither rewarded nor punished. Equal scores keep their order. Raises DataError for
    detections that are not finite, MissingExtra without a backend.
    """
    started = time.perf_counter()
    names = ("object",) if class_agnostic else dataset.classes.names
    ids = (0,) if class_agnostic else dataset.classes.ids
    flat, truth = flatten(detections, dataset, class_agnostic=class_agnostic)
    limits = tuple(sorted({int(k) for k in max_detections}))
    if not limits or limits[0] < 1:
        raise ValueError(f"max_detections must be positive, not {tuple(max_detections)}")
    caps = tuple(sorted({*limits, PROPOSALS}))
    used, precision, recall = coco_arrays(flat, truth, Totals(len(dataset.records), len(names)), caps, backend)
    main = caps.index(limits[-1])

    pairs = overlaps(flat, truth, minimum=min(IOU, IOU if cut is None else cut.iou))
    status = match_coco(flat, truth, pairs, IOU)
    pooled = precision_recall(flat.scores, status, int((~truth.ignore).sum()))
    by_class = curves_by_class(flat, truth, status, len(names))
    first = np.array([1.0, 1.0, 0.0, 0.0]) if voc_plus_one else 0.0
    voc_truth = truth._replace(boxes=truth.boxes + first, extent=None)
    voc_pairs = overlaps(flat, voc_truth, minimum=0.5, crowd=False, plus_one=voc_plus_one)
    voc = curves_by_class(flat, truth, match_voc(flat, truth, voc_pairs), len(names))

    rows = []
    for k, (name, number) in enumerate(zip(names, ids, strict=True)):
        threshold, f1 = by_class[k].best()
        rows.append(
            ClassMetrics(
                name,
                int(number),
                by_class[k].objects,
                _mean(precision[:, :, k, 0, main]),
                _mean(precision[0, :, k, 0, main]),
                _mean(recall[:, k, 0, main]),
                voc_ap(voc[k]),
                voc_ap(voc[k], points=11),
                threshold,
                f1,
            )
        )
    threshold, f1 = pooled.best()
    return Metrics(
        ap=_mean(precision[..., 0, main]),
        ap50=_mean(precision[0, ..., 0, main]),
        ap75=_mean(precision[5, ..., 0, main]),
        ap_small=_mean(precision[..., 1, main]),
        ap_medium=_mean(precision[..., 2, main]),
        ap_large=_mean(precision[..., 3, main]),
        ar={cap: _mean(recall[..., 0, m]) for m, cap in enumerate(caps)},
        ar_small=_mean(recall[..., 1, main]),
        ar_medium=_mean(recall[..., 2, main]),
        ar_large=_mean(recall[..., 3, main]),
        voc_ap50=_mean(np.array([row.voc_ap50 for row in rows])),
        voc_ap50_11=_mean(np.array([row.voc_ap50_11 for row in rows])),
        threshold=threshold,
        f1=f1,
        classes=tuple(rows),
        images=len(dataset.records),
        objects=pooled.objects,
        ignored=int(truth.ignore.sum()),
        detections=len(flat.scores),
        max_detections=limits,
        class_agnostic=class_agnostic,
        backend=used,
        seconds=time.perf_counter() - started,
        split=dataset.split,
        at_score=None if cut is None else count(flat, truth, pairs, names, cut),
    )


def _mean(values: Floats) -> float:
    """Mean of what was counted; cocoapi marks what was not with -1."""
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else float("nan")


def curves(detections: Sequence[Detections], dataset: Dataset, *, ious: tuple[float, ...] = (0.5, 0.75, 0.9)) -> Curves:
    """Precision, recall and F1 by confidence, for each class and pooled, at each IoU of `ious`."""
    flat, truth = flatten(detections, dataset)
    return all_curves(flat, truth, overlaps(flat, truth, minimum=min(ious)), dataset.classes.names, ious)


def count_at(detections: Sequence[Detections], dataset: Dataset, cut: Cut = Cut()) -> OperatingPoint:
    """What detections[i] find of dataset.records[i], miss and get wrong at `cut`."""
    flat, truth = flatten(detections, dataset)
    return count(flat, truth, overlaps(flat, truth, minimum=min(cut.iou, SAME)), dataset.classes.names, cut)
