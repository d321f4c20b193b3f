"""Data sets that datumaro 1.13.12 wrote (https://github.com/open-edge-platform/datumaro, `Dataset.export`, run in an
environment of its own on the three images below): its files as they are, read by ours."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcos.data.open import open_splits

WRITTEN = json.loads((Path(__file__).parents[1] / "golden" / "datumaro.json").read_text())
SIZES = {"im0": (100, 80), "im1": (60, 90), "im2": (100, 80)}
DOG, CAT, BUS = ("dog", 10, 20, 40, 60), ("cat", 5.5, 6.25, 25.5, 36.75), ("bus", 12, 8, 52, 58)
GIVEN = {"im0": [BUS, CAT, DOG], "im1": [CAT, DOG], "im2": [DOG]}
READ_AS = {
    "coco_instances": "coco",
    "voc_detection": "voc",
    "kitti_detection": "kitti",
    "open_images": "openimages",
    "label_me": "labelmexml",
}
NO_LIST = ("kitti_detection", "label_me")  # of the classes: they come in the order of their names


@pytest.mark.parametrize("name", list(WRITTEN))
def test_what_datumaro_writes_is_read(name, tmp_path):
    for place, content in WRITTEN[name].items():
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            Image.new("RGB", SIZES[path.stem], (10, 100, 200)).save(path)
        else:
            path.write_text(content)
    splits = open_splits(tmp_path, strict=True)
    assert list(splits) == ["train"]
    dataset = splits["train"]
    assert dataset.format == READ_AS.get(name, name)
    names = ("bus", "cat", "dog") if name in NO_LIST else ("dog", "cat", "bus")  # without the background of CVAT's list
    assert dataset.classes.names == names
    assert {r.path.stem for r in dataset.records} == set(GIVEN)
    # VOC's corners begin at 1, as its own files do; datumaro writes and reads them from 0
    shift = [1, 1, 0, 0] if name == "voc_detection" else [0, 0, 0, 0]
    for record in dataset.records:
        rows = [(dataset.classes.names[k], *b) for k, b in zip(record.labels, record.boxes.tolist(), strict=True)]
        assert [row[0] for row in sorted(rows)] == [row[0] for row in GIVEN[record.path.stem]]
        boxes = np.array([row[1:] for row in sorted(rows)])
        np.testing.assert_allclose(boxes + shift, [row[1:] for row in GIVEN[record.path.stem]], atol=0.01)
