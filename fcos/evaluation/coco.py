"""How good detections are: `evaluate(detections, dataset)` gives COCO's and VOC's numbers.

From detections to numbers: `fcos.results` makes one `Detections` per image, out of a file of anyone or
with a detector; `flatten` puts all boxes into arrays; hotcoco, or pycocotools where hotcoco is missing,
matches and counts by COCO's protocol; `fcos.metrics` does VOC, curves and confusion.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.classes import match_classes
from ..errors import DataError
from ..inference.dataset import predict_dataset
from ..terminal import html_table, plural, table
from ..types import Detections
from .metrics import (
    Backend,
    Curves,
    Detected,
    Floats,
    Ints,
    Totals,
    Truth,
    all_curves,
    coco_arrays,
    confusion,
    curves_by_class,
    match_coco,
    match_voc,
    overlaps,
    precision_recall,
    voc_ap,
)
from .results import Listed, read_results

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from .uncertainty import Interval

__all__ = [
    "ClassMetrics",
    "Metrics",
    "confusion_matrix",
    "curves",
    "evaluate",
    "flatten",
    "match_classes",
    "predict_dataset",
    "read_results",
]

_CLASSES = 10  # rows of the short table
_NAME = 32  # letters of a class's name in it
PROPOSALS = 1000  # the limit of AR@1000


@dataclass(frozen=True)
class ClassMetrics:
    """One class: its name and id in the data, the objects to find, and the numbers, 0..1, nan where there
    is no object. `ar` allows the largest of `Metrics.max_detections` per image; `threshold` is the score
    with the best F1 at IoU 0.5, `f1` that F1."""

    name: str
    id: int
    objects: int
    ap: float
    ap50: float
    ar: float
    voc_ap50: float
    voc_ap50_11: float
    threshold: float
    f1: float


@dataclass(frozen=True, repr=False)
class Metrics:
    """The numbers of an evaluation, all 0..1, nan where nothing could be counted.

    AP is the mean over IoU 0.50:0.05:0.95 and over the classes that have objects. Small is below 32 x 32
    pixels of annotated area, large above 96 x 96. `ar[k]` allows k detections per class and image; all
    other COCO numbers allow the largest of `max_detections`. `voc_ap50` is the mean of the all-point VOC
    AP, `voc_ap50_11` of the 11-point one. `threshold` is the score with the best F1 over all classes
    pooled, at IoU 0.5, and `f1` that F1. `intervals` are the 95 % intervals of AP, AP50 and AP75, where they were
    asked for. Printed, it is a short table; `table()` has all of it.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar: dict[int, float]
    ar_small: float
    ar_medium: float
    ar_large: float
    voc_ap50: float
    voc_ap50_11: float
    threshold: float
    f1: float
    classes: tuple[ClassMetrics, ...]
    images: int
    objects: int
    ignored: int
    detections: int
    max_detections: tuple[int, ...]
    class_agnostic: bool
    backend: str
    seconds: float
    intervals: Mapping[str, Interval] | None = None

    def __repr__(self) -> str:
        """A short table: the numbers that people compare, and the classes, the weakest first."""
        lines = [f"{self._main()}", self._by_size(), self._counted()]
        if hint := self.hint():
            lines.append(hint)
        head, rows, left = self._weakest()
        lines += ["", table(head, rows)] if rows else []
        lines += [f"({plural(left, 'class')} with a higher AP: .classes, .table())"] if left else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from html import escape

        head, rows, left = self._weakest()
        text = [self._main(), self._by_size(), self._counted(), self.hint()]
        text += [f"{plural(left, 'class')} with a higher AP: .classes"] if left else []
        lines = "<br>".join(escape(line) for line in text if line)
        return f"<p>{lines}</p>{html_table(head, rows) if rows else ''}"

    def hint(self) -> str:
        """What to look at where nothing was right; nothing otherwise."""
        if not self.objects:
            return "there are no objects to find in these images, so nothing can be judged"
        if not self.detections:
            return "the model found nothing at any score: was it trained long enough, and on such images?"
        if self.ap50 == 0:
            return (
                "no detection is right: too short a training, or other classes, images or boxes than it learned; "
                "fcos explain says what became of each object, fcos doctor what is wrong with the data"
            )
        return ""

    def _main(self) -> str:
        parts = []
        for name, value in {"AP": self.ap, "AP50": self.ap50, "AP75": self.ap75}.items():
            around = (self.intervals or {}).get(name)
            parts.append(
                f"{name} {_short(value)}"
                + (
                    f" [{around.low:.3f}, {around.high:.3f}]"
                    if around is not None and not math.isnan(around.low)
                    else ""
                )
            )
        return "  ".join(parts)

    def _by_size(self) -> str:
        sizes = {"small": self.ap_small, "medium": self.ap_medium, "large": self.ap_large}
        return "  ".join(f"{k} {_short(v)}" for k, v in sizes.items())

    def _counted(self) -> str:
        ignored = f" (and {self.ignored:,} ignored)" if self.ignored else ""
        counts = ((self.images, "image"), (self.objects, "object"), (self.detections, "detection"))
        images, objects, detections = (plural(n, what) for n, what in counts)
        return f"{images}, {objects}{ignored}, {detections}"

    def _weakest(self) -> tuple[tuple[str, ...], list[tuple[str, ...]], int]:
        """Head and rows of the classes with objects, the lowest AP first, and how many more there are."""
        rows = sorted((c for c in self.classes if c.objects), key=lambda c: c.ap)
        cells: list[tuple[str, ...]] = [
            (c.name[:_NAME], f"{c.objects:,}", _short(c.ap), _short(c.ap50)) for c in rows[:_CLASSES]
        ]
        return ("class", "objects", "AP", "AP50"), cells, max(0, len(rows) - _CLASSES)

    def numbers(self) -> dict[str, float]:
        """The headline numbers by their usual names, in the usual order."""
        return {
            "AP": self.ap,
            "AP50": self.ap50,
            "AP75": self.ap75,
            "AP_small": self.ap_small,
            "AP_medium": self.ap_medium,
            "AP_large": self.ap_large,
            **{f"AR@{k}": self.ar[k] for k in sorted(self.ar) if k in self.max_detections},
            "AR_small": self.ar_small,
            "AR_medium": self.ar_medium,
            "AR_large": self.ar_large,
            **{f"AR@{k}": self.ar[k] for k in sorted(self.ar) if k not in self.max_detections},
            "VOC_AP50": self.voc_ap50,
            "VOC_AP50_11point": self.voc_ap50_11,
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; None stands where nothing could be counted."""
        limit = max(self.max_detections)
        return {
            **{name: _plain(value) for name, value in self.numbers().items()},
            "best_F1": _plain(self.f1),
            "best_F1_score": _plain(self.threshold),
            "per_class": [
                {
                    "name": row.name,
                    "id": row.id,
                    "objects": row.objects,
                    "AP": _plain(row.ap),
                    "AP50": _plain(row.ap50),
                    f"AR@{limit}": _plain(row.ar),
                    "VOC_AP50": _plain(row.voc_ap50),
                    "VOC_AP50_11point": _plain(row.voc_ap50_11),
                    "best_F1": _plain(row.f1),
                    "best_F1_score": _plain(row.threshold),
                }
                for row in self.classes
            ],
            "images": self.images,
            "objects": self.objects,
            "ignored": self.ignored,
            "detections": self.detections,
            "class_agnostic": self.class_agnostic,
            "backend": self.backend,
            "seconds": round(self.seconds, 3),
        }

    def table(self, width: int = 100) -> str:
        """The numbers as text: the headline numbers aligned, then one row per class."""
        from rich.console import Console
        from rich.table import Table as Columns

        limit = max(self.max_detections)
        names = list(self.numbers())
        longest = max(map(len, names))
        lines = [f"{name:<{longest}}  {_show(value)}" for name, value in self.numbers().items()]
        lines.append(f"{'best F1':<{longest}}  {_show(self.f1)}  at score {_show(self.threshold)} (IoU 0.5)")
        lines.append(f"{self._counted()}, {self.seconds:.2f} s with {self.backend}")
        lines += [self.hint()] if self.hint() else []
        columns = Columns(box=None, pad_edge=False, header_style="")
        columns.add_column("class", overflow="fold")
        for title in ("id", "objects", "AP", "AP50", f"AR@{limit}", "VOC AP50", "11-point", "F1", "at score"):
            columns.add_column(title, justify="right", no_wrap=True)
        for row in self.classes:
            values = (row.ap, row.ap50, row.ar, row.voc_ap50, row.voc_ap50_11, row.f1, row.threshold)
            columns.add_row(row.name, str(row.id), str(row.objects), *map(_show, values))
        text = io.StringIO()
        Console(file=text, width=width, color_system=None, markup=False, highlight=False).print(columns)
        rows = [line.rstrip() for line in text.getvalue().splitlines()]
        return "\n".join([*lines, "", *rows])


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _short(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _show(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


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
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(dataset.classes):
        raise ValueError(f"labels {labels.min()}..{labels.max()} do not fit {len(dataset.classes)} classes")
    rank = np.lexsort((-scores, image))  # stable
    extent = column([_extent_of(d) for d in ordered], np.float64, 2)
    sides = boxes[:, 2:] - boxes[:, :2]
    extent = np.where(np.abs(extent - sides) < 1e-6, extent, sides)  # boxes may have been changed since
    exact = column([r.exact() for r in records], np.float64, 4)
    truth_labels = column([r.labels for r in records], np.int64)
    if class_agnostic:
        labels, truth_labels = np.zeros_like(labels), np.zeros_like(truth_labels)
    truth = Truth(
        np.concatenate([exact[:, :2], exact[:, :2] + exact[:, 2:]], axis=1),
        truth_labels,
        truth_image,
        column([r.ignore for r in records], np.bool_),
        column([r.areas for r in records], np.float64),
        exact[:, 2:],
    )
    return Detected(boxes[rank], scores[rank], labels[rank], image, extent[rank]), truth


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
) -> Metrics:
    """Judge detections[i] against dataset.records[i]; labels are label numbers of the data set.

    `class_agnostic` takes all classes for one (proposals). `max_detections` limits the detections per class
    and image; AR@1000 comes in addition. `voc_plus_one` is for detections whose corners are VOC pixel
    numbers (1.., last pixel included): for the VOC numbers x1 and y1 of the truth count from 1 too, and a box
    is x2 - x1 + 1 wide, as in the VOC devkit. Crowd and difficult boxes are neither rewarded nor punished. Equal scores
    keep their order. Raises DataError for detections that are not finite, MissingExtra without a backend.
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

    pairs = overlaps(flat, truth, minimum=0.5)
    status = match_coco(flat, truth, pairs, 0.5)
    pooled = precision_recall(flat.scores, status, int((~truth.ignore).sum()))
    curves = curves_by_class(flat, truth, status, len(names))
    first = np.array([1.0, 1.0, 0.0, 0.0]) if voc_plus_one else 0.0
    voc_truth = truth._replace(boxes=truth.boxes + first, extent=None)
    voc_pairs = overlaps(flat, voc_truth, minimum=0.5, crowd=False, plus_one=voc_plus_one)
    voc = curves_by_class(flat, truth, match_voc(flat, truth, voc_pairs), len(names))

    rows = []
    for k, (name, number) in enumerate(zip(names, ids, strict=True)):
        threshold, f1 = curves[k].best()
        rows.append(
            ClassMetrics(
                name,
                int(number),
                curves[k].objects,
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
    )


def _mean(values: Floats) -> float:
    """Mean of what was counted; cocoapi marks what was not with -1."""
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else float("nan")


def curves(detections: Sequence[Detections], dataset: Dataset, *, ious: tuple[float, ...] = (0.5, 0.75, 0.9)) -> Curves:
    """Precision, recall and F1 by confidence, for each class and pooled, at each IoU of `ious`."""
    flat, truth = flatten(detections, dataset)
    return all_curves(flat, truth, overlaps(flat, truth, minimum=min(ious)), dataset.classes.names, ious)


def confusion_matrix(detections: Sequence[Detections], dataset: Dataset, *, score: float, iou: float = 0.5) -> Ints:
    """[C+1, C+1] counts, rows truth, columns prediction, the last is background; see `metrics.confusion`."""
    flat, truth = flatten(detections, dataset)
    pairs = overlaps(flat, truth, minimum=iou)
    return confusion(flat, truth, pairs, len(dataset.classes), score=score)
