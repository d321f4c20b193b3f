"""Trees of a few images for the tests of folders as people have them, and the check of what opens."""

import json

import numpy as np
from PIL import Image

from fcos.data.open import open_splits, split_names
from fcos.data.tree import DataSource

BOX = (10, 20, 40, 60)  # of every image, xyxy
SIZE = (100, 80)  # width, height


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (sum(map(ord, path.stem)) % 255, 120, 150)).save(path)


def xml(path, name="cat", box=BOX):
    path.parent.mkdir(parents=True, exist_ok=True)
    x1, y1, x2, y2 = box
    path.write_text(
        f"<annotation><filename>{path.stem}.jpg</filename><size><width>100</width><height>80</height></size><object>"
        f"<name>{name}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        "</bndbox></object></annotation>"
    )


def txt(path, label=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{label} 0.25 0.5 0.3 0.5\n")


def coco(path, names, more=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    x1, y1, x2, y2 = BOX
    rows = [
        {"id": k, "image_id": k, "category_id": 3, "bbox": [x1, y1, x2 - x1, y2 - y1]} for k in range(1, len(names) + 1)
    ]
    images = [{"id": k, "file_name": name, "width": 100, "height": 80} for k, name in enumerate(names, 1)]
    content = {"images": images, "annotations": rows, "categories": [{"id": 3, "name": "cat"}]}
    path.write_text(json.dumps((more or {}) | content))


def check(root, splits, kind, **options):
    """Every split has its images, each there with its one box."""
    source = DataSource(root, **options)
    got = open_splits(source, strict=True)
    assert {name: len(part) for name, part in got.items()} == splits
    for part in got.values():
        assert part.format == kind
        for record in part.records:
            assert record.path is not None
            assert record.path.is_file()
            np.testing.assert_allclose(record.boxes, [BOX], atol=1e-4)
            assert part.classes.names[record.labels[0]] in ("cat", "class0")
    assert split_names(source) == list(got)


def flat(root, kind, stems):
    """A set of images, in folders below images/ where their names have such, and their annotations."""
    for stem in stems:
        image(root / "images" / f"{stem}.jpg")
        if kind == "voc":
            xml(root / "annotations" / f"{stem}.xml")
        elif kind == "yolo":
            txt(root / "labels" / f"{stem}.txt")
    if kind == "coco":
        coco(root / "annotations.json", [f"{stem}.jpg" for stem in stems])


def parts_of(root):
    """Split -> the images, below images/, without suffix."""
    return {
        split: sorted(r.path.relative_to(root / "images").with_suffix("").as_posix() for r in part)
        for split, part in open_splits(root).items()
    }
