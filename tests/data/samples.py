"""Data sets written by hand: files, images of 100 x 80, and what was read of them."""

import json

import numpy as np
from PIL import Image


def put(root, files, images):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    for name in images:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 80), (10, 100, 200)).save(path)


def rows(dataset):
    """{image: [(class, x1, y1, x2, y2, ignored), ...]}"""
    return {
        r.path.name: [
            (dataset.classes.names[label], *np.round(box, 2).tolist(), bool(ignore))
            for box, label, ignore in zip(r.boxes, r.labels, r.ignore, strict=True)
        ]
        for r in dataset.records
    }


def region(x, y, w, h, label, **more):
    value = {"x": x, "y": y, "width": w, "height": h, "rotation": more.pop("rotation", 0), "rectanglelabels": [label]}
    return {"type": "rectanglelabels", "original_width": 100, "original_height": 80, "value": value, **more}
