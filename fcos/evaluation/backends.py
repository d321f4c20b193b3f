"""COCO's precision and recall, by hotcoco or pycocotools. Letters as in metrics.py."""

from __future__ import annotations

import contextlib
import io
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import numpy as np

from ..errors import require
from .metrics import Detected, Floats, Truth, extent

Backend = Literal["auto", "hotcoco", "pycocotools"]


class Totals(NamedTuple):
    """How many images and classes a data set has, those without a box included."""

    images: int
    classes: int


def coco_arrays(
    detections: Detected, truth: Truth, totals: Totals, caps: tuple[int, ...], backend: Backend
) -> tuple[str, Floats, Floats]:
    """(backend used, precision [10,101,C,4,M], recall [10,C,4,M]) by COCO's protocol, -1 where a class has
    no object. The axes: IoU, recall, class, size (all, small, medium, large), `caps` detections."""
    if backend == "auto":
        backend = "hotcoco" if find_spec("hotcoco") else "pycocotools"
    if backend not in ("hotcoco", "pycocotools"):
        raise ValueError(f"backend must be 'auto', 'hotcoco' or 'pycocotools', not {backend!r}")
    images, classes = totals
    if images == 0 or classes == 0:
        return backend, -np.ones((10, 101, classes, 4, len(caps))), -np.ones((10, classes, 4, len(caps)))
    run = _hotcoco if backend == "hotcoco" else _pycocotools
    precision, recall = run(detections, truth, images, classes, list(caps))
    return backend, precision, recall


def _xywh(side: Detected | Truth) -> Floats:
    """Boxes [.,4] as COCO has them: x, y, width, height."""
    return np.concatenate([side.boxes[:, :2], extent(side)], axis=1)


# Both backends see images 1.. and classes 1..: gaps, negative or huge ids of the file cannot matter, and
# no annotation has id 0, which cocoapi takes for "not matched".


def _hotcoco(detections: Detected, truth: Truth, images: int, classes: int, caps: list[int]) -> tuple[Floats, Floats]:
    import hotcoco

    rows = [{"id": i, "width": 1, "height": 1} for i in range(1, images + 1)]
    categories = [{"id": k, "name": str(k)} for k in range(1, classes + 1)]
    gt = hotcoco.COCO.from_arrays(
        rows,
        categories,
        truth.image + 1,
        truth.labels + 1,
        _xywh(truth),
        area=truth.areas,
        iscrowd=truth.ignore,
    )
    dt = gt.load_res(
        np.column_stack([detections.image + 1, _xywh(detections), detections.scores, detections.labels + 1])
    )
    job = hotcoco.COCOeval(gt, dt, "bbox")
    job.params.max_dets = caps
    job.evaluate()
    job.accumulate()
    result: Any = job.eval
    return np.asarray(result["precision"]), np.asarray(result["recall"])


def _pycocotools(
    detections: Detected, truth: Truth, images: int, classes: int, caps: list[int]
) -> tuple[Floats, Floats]:
    require("pycocotools", "test")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def rows(side: Detected | Truth, areas: Floats, extra: dict[str, Any]) -> list[dict[str, Any]]:
        columns = (side.image + 1, side.labels + 1, _xywh(side), areas, *extra.values())
        keys = ("image_id", "category_id", "bbox", "area", *extra)
        lists = zip(*(c.tolist() for c in columns), strict=True)
        return [{"id": i, **dict(zip(keys, row, strict=True))} for i, row in enumerate(lists, 1)]

    def dataset(annotations: list[dict[str, Any]]) -> Any:
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(1, images + 1)],
            "categories": [{"id": k} for k in range(1, classes + 1)],
            "annotations": annotations,
        }
        coco.createIndex()
        return coco

    areas = np.prod(extent(detections), axis=1)
    extra = {"score": detections.scores, "iscrowd": np.zeros(len(areas), np.int64)}
    with contextlib.redirect_stdout(io.StringIO()):  # cocoapi reports its progress with print
        gt = dataset(rows(truth, truth.areas, {"iscrowd": truth.ignore.astype(int)}))
        dt = dataset(rows(detections, areas, extra))
        job = COCOeval(gt, dt, "bbox")
        job.params.maxDets = caps
        job.evaluate()
        job.accumulate()
    result: Any = job.eval
    return result["precision"], result["recall"]
