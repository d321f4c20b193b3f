"""Label Studio: a JSON list of tasks, or its CSV, with boxes in per cent of the image.

Defined at https://labelstud.io/guide/export and https://labelstud.io/tags/rectanglelabels: x and y of the corner
before rotation, which is clockwise about that corner. What a model proposes is a prediction of the task:
https://labelstud.io/guide/predictions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from ...errors import DataError
from ...system.readers import read_json
from .. import kinds
from ..dataset import Dataset, Sources
from ..probe import Probe
from ..registry import Format, ReadOptions
from ..tree import Tree
from .common.pages import Box, Object, Page, Reading, listed_classes
from .common.values import NAN, bounds, dicts, mapping, number, size, turned, word
from .common.writing import Output, attribute, names_of, shares
from .csv import read_rows

_KINDS = ("rectanglelabels", "polygonlabels", "ellipselabels", "labels")
_OTHERS = ("brushlabels", "keypointlabels", "vectorlabels", "bitmasklabels")  # drawn things that are no boxes


def _sniff(probe: Probe) -> bool:
    if probe.suffix == ".csv":
        head = probe.lines[0].split(",") if probe.lines else []
        return {"annotation_id", "annotator"} <= {name.strip('" ') for name in head}
    first = probe.first()
    tasks = isinstance(first.get("data"), dict) and bool({"annotations", "completions", "predictions"} & set(first))
    return tasks or _is_short(first)


def _is_short(task: dict[str, Any]) -> bool:
    """Whether a task is one of the short export (JSON-MIN): what the tool says of an annotation, or its boxes, stand
    beside the image."""
    about = {"annotator", "annotation_id"} <= set(task) and "bbox" not in task
    return "data" not in task and (about or bool(_short(task)))


def _short(task: dict[str, Any]) -> list[dict[str, Any]]:
    """The values of a task of the short export, under whatever name the boxes have there."""
    for rows in task.values():
        if isinstance(rows, list) and rows and isinstance(rows[0], dict) and set(rows[0]) & {*_KINDS, *_OTHERS}:
            return dicts(rows)
    return []


def _sources(tree: Tree, files: list[Path], options: ReadOptions) -> Sources:
    return Reading("labelstudio", tree, files, _parse, options.strict, classes=listed_classes).sources()


def _parse(file: Path) -> list[Page]:
    pages = []
    tasks = _rows(file) if file.suffix.lower() == ".csv" else dicts(read_json(file, kind=DataError, nan=True))
    for number_of, task in enumerate(tasks, 1):
        name = _name(task)
        if not name:
            raise DataError(f"{file}: task {word(task.get('id')) or number_of} names no image")
        if _is_short(task):  # JSON-MIN: the values stand in the task itself
            pages.append(_page(name, [{"value": v, **v} for v in _short(task)]))
            continue
        given = dicts(task.get("annotations")) or dicts(task.get("completions"))
        kept = [a for a in given if a.get("was_cancelled") is not True]
        page = _page(name, dicts(kept[-1].get("result")) if kept else [])
        pages.append(page if kept else page._replace(left_out=kinds.UNFINISHED))
    return pages


def _rows(file: Path) -> list[dict[str, Any]]:
    """The tasks of a CSV export: those of the short export, with lists as JSON in a cell."""
    head, *rows = read_rows(file) or [[]]
    return [{key: _cell(text) for key, text in zip(head, row, strict=False)} for row in rows]


def _cell(text: str) -> Any:
    try:
        return json.loads(text) if text.startswith("[") else text
    except (ValueError, RecursionError):
        return text


def _name(task: dict[str, Any]) -> str:
    """The image of a task."""
    values = mapping(task.get("data")) or task
    texts = [values.get(key) for key in ("image", "img", "photo", "picture", "ocr", *values)]
    text = next((t for t in texts if isinstance(t, str) and "." in t), "")
    return unquote(text.partition("?d=")[2] or text.partition("?")[0])


def _page(name: str, results: list[dict[str, Any]]) -> Page:
    objects, problems = [], []
    frame = None
    for index, result in enumerate(results, 1):
        value = mapping(result.get("value"))
        names = next((value[k] for k in _KINDS if isinstance(value.get(k), list) and value[k]), None)
        frame = frame or size(result.get("original_height"), result.get("original_width"))
        if names is None:
            drawn = next((k for k in _OTHERS if value.get(k)), "")
            if drawn:
                problems.append(f"result {index} is of {drawn}; boxes, polygons and ellipses are read")
            continue  # else a choice, a text, a relation
        if number(result.get("image_rotation", 0)) not in (0.0,):
            problems.append(f"result {index} was drawn on an image turned in the tool")
            continue
        own = size(result.get("original_height"), result.get("original_width"))
        box = _box(value, own)
        if box is None:
            problems.append(f"result {index} is rotated, and the size of the image is not given")
            continue
        notes = mapping(result.get("meta")).get("text")
        ignore = isinstance(notes, list) and "ignore" in notes
        objects.append(Object(word(names[0]), box, ignore, where=f"result {index}"))
    return Page(name, frame, objects, shares=True, problems=problems, form="xywh")


def _box(value: dict[str, Any], frame: tuple[int, int] | None) -> Box | None:
    """Corners in shares of the image; None where a rotation needs the size."""
    if "points" in value:
        box = bounds(value["points"]) or (NAN, NAN, NAN, NAN)
        return box[0] / 100, box[1] / 100, box[2] / 100, box[3] / 100
    x, y = number(value.get("x")) / 100, number(value.get("y")) / 100
    if "radiusX" in value:
        rx, ry = number(value["radiusX"]) / 100, number(value.get("radiusY")) / 100
        box, pivot = (x - rx, y - ry, x + rx, y + ry), (x, y)
    else:
        box = (x, y, x + number(value.get("width")) / 100, y + number(value.get("height")) / 100)
        pivot = (x, y)
    degrees = number(value.get("rotation", 0))
    if not degrees or degrees != degrees:
        return box
    if frame is None:
        return None
    height, width = frame  # a rotation keeps lengths in pixels, not in per cent
    x1, y1, x2, y2 = turned(
        (box[0] * width, box[1] * height, box[2] * width, box[3] * height),
        degrees,
        (pivot[0] * width, pivot[1] * height),
    )
    return x1 / width, y1 / height, x2 / width, y2 / height


def _write(splits: Mapping[str, Dataset], output: Output) -> list[str]:
    output.labels()
    names = output.classes.names
    for split, dataset in splits.items():
        tasks: list[dict[str, Any]] = []
        for record, name in zip(dataset.records, names_of(dataset), strict=True):
            results = []
            scores = output.scores(record)
            for index, (box, label, ignore) in enumerate(output.rows(record), 1):
                x1, y1, x2, y2 = (100 * v for v in shares(box, record))
                value = {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1, "rotation": 0}
                result: dict[str, Any] = {
                    "id": f"r{index}",
                    "type": "rectanglelabels",
                    "from_name": "label",
                    "to_name": "image",
                    "original_width": record.size[1],
                    "original_height": record.size[0],
                    "image_rotation": 0,
                    "value": {k: round(v, 7) for k, v in value.items()} | {"rectanglelabels": [names[label]]},
                }
                if output.model:
                    result["score"] = scores[index - 1]
                results.append(result | {"meta": {"text": ["ignore"]}} if ignore else result)
            address = f"/data/local-files/?d={quote(f'images/{split}/{name}')}"
            task: dict[str, Any] = {"id": len(tasks) + 1, "data": {"image": address}}
            if output.model:  # the tool shows them as predictions, apart from annotations
                mean = round(sum(scores) / len(scores), 4) if scores else 0.0
                told = {"predictions": [{"model_version": output.model, "score": mean, "result": results}]}
            else:
                told = {"annotations": [{"result": results}]}
            tasks.append(task | told)
            output.image(record, f"images/{split}/{name}")
        output.json(f"{split}.json", tasks)
    labels = "".join(f"    <Label value={attribute(name)}/>\n" for name in names)
    output.text(
        "label_config.xml",
        '<View>\n  <Image name="image" value="$image"/>\n  <RectangleLabels name="label" toName="image">\n'
        f"{labels}  </RectangleLabels>\n</View>\n",
    )
    lines = ["Label Studio: image ids, class ids and areas are not kept; labels.txt holds the order of the classes"]
    ignored = sum(int(r.ignore.sum()) for d in splits.values() for r in d.records)
    note = [f"Label Studio: {ignored:,} crowd or difficult boxes carry the note 'ignore'"] if ignored else []
    return lines + note


FORMAT = Format("labelstudio", "Label Studio JSON", (".json", ".csv"), _sniff, _sources, _write)
