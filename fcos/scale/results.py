"""COCO results from the rows of a job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from ..data.ids import images_file
from ..data.open import Numbers
from ..errors import DataError
from ..inference.writers import ResultIds
from ..system.files import whole, whole_set, write_whole
from .job import read_job


class Written(NamedTuple):
    """Images whose detections were written, images that could not be read, detections; those left out since the data
    set lacks their class; whether the rows hold only what reached a score."""

    images: int
    failed: int
    detections: int
    foreign: int
    limited: bool


def write_coco(folder: Path, target: Path, numbers: Numbers | None = None) -> Written:
    """Write the detections of a job as COCO results, and the list of images with their ids beside them, as `fcos
    predict --coco` does; `numbers`: those of a data set. Images that could not be read are left
    out. DataError where there is no job, or it is not done."""
    job = read_job(folder)
    if job is None:
        raise DataError(f"{folder} holds no job of fcos predict --engine: there is no job.json")
    paths = [Path(row["path"]) for row in job.rows() if not row["error"]]
    ids = ResultIds(paths, job.classes, numbers)
    images, detections, foreign = [], 0, 0
    with whole_set():
        with whole(target) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write("[")
            for id, row in zip(ids.images, (row for row in job.rows() if not row["error"]), strict=True):
                entry = {"id": id, "file_name": row["path"], "width": row["width"], "height": row["height"]}
                images.append(entry)
                for (x1, y1, x2, y2), label, score in zip(row["boxes"], row["labels"], row["scores"], strict=True):
                    if not 0 <= label < len(job.classes):
                        raise DataError(
                            f"{folder}: a row of {row['path']} has the class {label}, of {len(job.classes)}"
                        )
                    category = ids.categories[label]
                    if category is None:
                        foreign += 1
                        continue
                    box = [x1, y1, x2 - x1, y2 - y1]
                    one = {"image_id": id, "category_id": category, "bbox": box, "score": score}
                    file.write(f"{',' if detections else ''}\n{json.dumps(one)}")
                    detections += 1
            file.write("]\n")
        write_whole(images_file(target), ids.beside(images))
    limited = str(job.settings.get("score")) not in ("0", "0.0")
    return Written(len(paths), job.images - len(paths), detections, foreign, limited)
