"""Data sets and detections made by hand, for whatever judges them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from fcos.data.dataset import Dataset
from fcos.data.records import Record
from fcos.detections import Detections
from fcos.types import Classes


def record(id, boxes=(), labels=(), ignore=None, areas=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    own = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return Record(
        id,
        Path(f"{id}.jpg"),
        (480, 640),
        boxes,
        np.array(labels, np.int64),
        np.zeros(len(boxes), bool) if ignore is None else np.array(ignore, bool),
        own if areas is None else np.array(areas, np.float32),
        f"{id}.jpg",
    )


def dataset(*records, names=("a", "b"), ids=()):
    return Dataset(tuple(records), Classes(tuple(names), tuple(ids)), "coco", "test", Path("data"))


def found(boxes=(), scores=(), labels=()):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    points = torch.full((len(boxes),), -1)
    return Detections(boxes, torch.tensor(scores, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64), points)


@st.composite
def scenes(draw):
    """Random truth and detections near it: crowd, ties of score and IoU, empty images, gaps in ids."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images, classes = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    per_truth, per_found = draw(st.sampled_from([0, 3, 8])), draw(st.sampled_from([0, 5, 15]))
    grid = draw(st.sampled_from([0.0, 5.0]))  # on a grid IoUs tie
    decimals = draw(st.sampled_from([1, 6]))  # with one decimal scores tie
    ids = rng.choice(10**6, images, replace=False)
    records, results = [], []
    for id in ids.tolist():
        count = int(rng.integers(0, per_truth + 1))
        corner = rng.uniform(0, 100, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(1, 150, (count, 2))], axis=1)
        boxes = np.round(boxes / grid) * grid if grid else boxes
        labels = rng.integers(0, classes, count)
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) * rng.uniform(0.5, 1, count)
        records.append(record(id, boxes, labels, rng.random(count) < 0.2, areas))
        count_found = int(rng.integers(0, per_found + 1))
        if count:
            pick = rng.integers(0, count, count_found)
            near, near_labels = boxes[pick], labels[pick]
        else:
            near, near_labels = np.tile([10.0, 10, 60, 60], (count_found, 1)), np.zeros(count_found, int)
        near = near + (rng.integers(-1, 2, near.shape) * grid if grid else rng.normal(0, 5, near.shape))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2])
        wrong = rng.random(count_found) < 0.15
        labels_found = np.where(wrong, rng.integers(0, classes, count_found), near_labels)
        scores = rng.random(count_found).round(decimals)
        results.append(found(near.tolist(), scores.tolist(), labels_found.tolist()))
    names = tuple(f"class {k}" for k in range(classes))
    return dataset(*records, names=names, ids=tuple(sorted(rng.choice(90, classes, replace=False).tolist()))), results


def cli(*arguments):
    """fcos eval, without the other verbs."""
    import typer

    from fcos.cli.eval import command

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    app([str(a) for a in arguments], standalone_mode=False)


@pytest.fixture
def coco_folder(tmp_path):
    truth = {
        "images": [{"id": 5, "file_name": "x.jpg", "width": 64, "height": 64}],
        "categories": [{"id": 9, "name": "cell"}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 9, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0}],
    }
    for split in ("train", "val", "test"):
        (tmp_path / f"instances_{split}.json").write_text(json.dumps(truth))
    rows = [{"image_id": 5, "category_id": 9, "bbox": [0, 0, 10, 10], "score": 0.75}]
    (tmp_path / "found.json").write_text(json.dumps(rows))
    return tmp_path
