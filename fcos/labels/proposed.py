"""Proposals in the formats of labelling tools: each box with its score and with who proposed it, where that can be."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.dataset import Dataset, Record
from ..data.write import check_names, convert
from ..data.writing import Output, attribute, disk_error, names_of, shares, short
from ..errors import DataError


@dataclass(frozen=True)
class Proposals:
    """Boxes in `dataset`, with the score of each ([G] for each record) and the model that they come from."""

    dataset: Dataset
    scores: tuple[np.ndarray, ...]
    source: str

    def images(self) -> Iterator[tuple[Record, str, list[tuple[tuple[float, float, float, float], str, float]]]]:
        """(record, name of its file, (corners, class name, score) of its boxes)."""
        names = self.dataset.classes.names
        for record, name, scores in zip(self.dataset.records, names_of(self.dataset), self.scores, strict=True):
            rows = zip(record.boxes.tolist(), record.labels.tolist(), scores.tolist(), strict=True)
            yield record, name, [(tuple(box), names[label], round(score, 4)) for box, label, score in rows]


def write(to: str, proposals: Proposals, out: Path) -> list[str]:
    """Write them to the new folder `out`; the lines that say what is lost. DataError where the folder is not empty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is there already; name a new or empty folder")
    check_names(proposals.dataset.classes)
    try:
        out.mkdir(parents=True, exist_ok=True)
        return WRITERS[to](proposals, Output(out, proposals.dataset.classes))
    except OSError as error:
        raise disk_error(error, out) from None


def _label_studio(proposals: Proposals, output: Output) -> list[str]:
    """Predictions of a task, which the tool shows as such: https://labelstud.io/guide/predictions"""
    tasks: list[dict[str, Any]] = []
    for record, name, rows in proposals.images():
        results = []
        for index, (box, label, score) in enumerate(rows, 1):
            x1, y1, x2, y2 = (100 * v for v in shares(box, record))
            value = {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1, "rotation": 0}
            results.append(
                {
                    "id": f"p{index}",
                    "type": "rectanglelabels",
                    "from_name": "label",
                    "to_name": "image",
                    "original_width": record.size[1],
                    "original_height": record.size[0],
                    "image_rotation": 0,
                    "score": score,
                    "value": {k: round(v, 7) for k, v in value.items()} | {"rectanglelabels": [label]},
                }
            )
        mean = round(sum(s for *_, s in rows) / len(rows), 4) if rows else 0.0
        prediction = {"model_version": proposals.source, "score": mean, "result": results}
        data = {"image": f"/data/local-files/?d=images/{name}"}
        tasks.append({"id": len(tasks) + 1, "data": data, "predictions": [prediction]})
        output.image(record, f"images/{name}")
    output.json("tasks.json", tasks)
    labels = "".join(f"    <Label value={attribute(name)}/>\n" for name in output.classes.names)
    output.text(
        "label_config.xml",
        '<View>\n  <Image name="image" value="$image"/>\n  <RectangleLabels name="label" toName="image">\n'
        f"{labels}  </RectangleLabels>\n</View>\n",
    )
    return []


def _cvat(proposals: Proposals, output: Output) -> list[str]:
    """CVAT for images 1.1: source "auto" and the score as an attribute of the box."""
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations>", "  <version>1.1</version>"]
    for number, (record, name, rows) in enumerate(proposals.images()):
        height, width = record.size
        lines.append(f'  <image id="{number}" name={attribute(name)} width="{width}" height="{height}">')
        for box, label, score in rows:
            corners = " ".join(f'{k}="{short(v)}"' for k, v in zip(("xtl", "ytl", "xbr", "ybr"), box, strict=True))
            lines.append(f'    <box label={attribute(label)} source="auto" occluded="0" {corners} z_order="0">')
            lines.append(f'      <attribute name="score">{score}</attribute>')
            lines.append("    </box>")
        lines.append("  </image>")
        output.image(record, f"images/{name}")
    output.text("annotations.xml", "\n".join([*lines, "</annotations>", ""]))
    return [f"CVAT: the name of the model ({proposals.source}) is not kept; source is auto"]


def _labelme(proposals: Proposals, output: Output) -> list[str]:
    """The score and the model in the description of a shape, which the tool shows, and a flag."""
    for record, name, rows in proposals.images():
        shapes = [
            {
                "label": label,
                "points": [[short(x1), short(y1)], [short(x2), short(y2)]],
                "group_id": None,
                "description": f"proposed by {proposals.source}, score {score}",
                "shape_type": "rectangle",
                "flags": {"proposed": True},
            }
            for (x1, y1, x2, y2), label, score in rows
        ]
        content = {
            "version": "5.5.0",
            "flags": {"proposed": True},
            "shapes": shapes,
            "imagePath": name.rpartition("/")[2],
            "imageData": None,
            "imageHeight": record.size[0],
            "imageWidth": record.size[1],
        }
        output.json(f"{os.path.splitext(name)[0]}.json", content)
        output.image(record, name)
    output.labels()
    return []


def _coco(proposals: Proposals, output: Output) -> list[str]:
    """Annotations with two fields more: score and source."""
    classes = output.classes
    ids = dict(zip(classes.names, classes.ids, strict=True))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record, name, rows in proposals.images():
        images.append({"id": record.id, "file_name": name, "width": record.size[1], "height": record.size[0]})
        for (x1, y1, x2, y2), label, score in rows:
            box = [short(v) for v in (x1, y1, x2 - x1, y2 - y1)]
            row = {"id": len(annotations) + 1, "image_id": record.id, "category_id": ids[label], "bbox": box}
            area = short((x2 - x1) * (y2 - y1))
            annotations.append({**row, "area": area, "iscrowd": 0, "score": score, "source": proposals.source})
        output.image(record, f"images/{name}")
    categories = [{"id": id, "name": name} for name, id in ids.items()]
    info = {"description": f"proposals of {proposals.source}, not looked at by a person"}
    content = {"info": info, "images": images, "annotations": annotations, "categories": categories}
    output.json("proposals.json", content)
    return []


def _yolo(proposals: Proposals, output: Output) -> list[str]:
    """Label files, which can hold no score; scores.csv beside them does."""
    lost = convert({"all": proposals.dataset}, output.target, "yolo")
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("image", "row", "class", "score", "source"))
    for _, name, rows in proposals.images():
        table.writerows((name, k, label, score, proposals.source) for k, (_, label, score) in enumerate(rows, 1))
    output.text("scores.csv", text.getvalue())
    return [*lost, "YOLO: label files hold no score and no source, so they look like the truth; scores.csv has both"]


WRITERS: dict[str, Callable[[Proposals, Output], list[str]]] = {
    "label-studio": _label_studio,
    "cvat": _cvat,
    "labelme": _labelme,
    "coco": _coco,
    "yolo": _yolo,
}
