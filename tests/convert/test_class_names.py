"""Class names of converted models against a COCO file: the ids of the results are those of the data set."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fcos.config import Config
from fcos.convert.names import COCO_80, COCO_91, class_names
from fcos.data.classes import match_classes
from fcos.data.open import open_dataset
from fcos.detections import Detections
from fcos.errors import DataError
from fcos.inference.dataset import Progress, predict_dataset
from fcos.system.machine import Placement
from fcos.types import Classes


@pytest.fixture(scope="module")
def categories(shared_data):
    """COCO's own list: [{"id": 1..90 with gaps, "name"}], 80 of them."""
    return json.loads((shared_data / "coco_val2017_60" / "instances_val.json").read_text())["categories"]


def coco(folder, categories):
    """A data set of one image with the categories of COCO, in another order than by id."""
    (folder / "images").mkdir()
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(folder / "images" / "a.png")
    truth = {
        "images": [{"id": 7, "file_name": "a.png", "width": 60, "height": 40}],
        "categories": categories[::-1],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 90, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}],
    }
    (folder / "instances_val.json").write_text(json.dumps(truth))
    return open_dataset(folder, "val")


def fires_once_for_each_output(classes):
    """A stand-in for a detector: every output of the network finds one box, output k at x = k."""
    count = len(classes)
    boxes = torch.tensor([[k, 0, k + 1, 1] for k in range(count)], dtype=torch.float32)
    found = Detections(boxes, torch.linspace(1, 0.1, count), torch.arange(count), torch.zeros(count, dtype=torch.int64))

    def detect(images, names, score, batch):
        assert score == 0
        return [found for _ in images]

    return SimpleNamespace(classes=classes, config=Config(), placement=Placement(), network=None, detect=detect)


@pytest.mark.parametrize("family", ["torchvision", "detectron2", "adelaidet", "original", "mmdet"])
def test_every_output_gets_the_id_that_coco_gives_its_class(tmp_path, categories, family):
    count = 91 if family == "torchvision" else 80
    dataset = coco(tmp_path, categories)
    said = []
    detector = fires_once_for_each_output(class_names(count, family))
    (found,) = predict_dataset(detector, dataset, progress=Progress(said.append))
    ids = {int(row["bbox"][0]): row["category_id"] for row in found.to_coco(7, dataset.classes.ids)}
    used = sorted(c["id"] for c in categories)
    if count == 91:  # torchvision: the output's number is the id; what COCO does not use is dropped
        assert ids == {i: i for i in used}
        (line,) = said
        assert line.startswith("11 classes of the model left out, not in the data")
        assert line.count("N/A") == 1
    else:  # the others number the 80 used ids in their order
        assert ids == dict(enumerate(used))
        assert not said


def test_names_are_cocos(categories):
    assert dict(zip(COCO_80.ids, COCO_80.names, strict=True)) == {c["id"]: c["name"] for c in categories}
    assert all(COCO_91.names[c["id"]] == c["name"] for c in categories)


def test_wrong_class_sets_give_one_line_with_the_fix():
    data = Classes(("cat", "aeroplane"))
    with pytest.raises(
        DataError, match=r"does not know 1 of the data's 2 classes: 'aeroplane'.*--allow-missing"
    ) as one:
        match_classes(COCO_91, data)
    assert "is 'aeroplane' the model's 'airplane'?" in str(one.value)
    with pytest.raises(DataError, match="does not know 2 of the data's 2") as two:
        match_classes(COCO_80, Classes(("RBC", "WBC")))
    assert "missing" not in str(two.value)  # nothing would be left to judge
    with pytest.raises(DataError, match=r"converted without names; fcos convert \.\.\. --names FILE"):
        match_classes(class_names(2, "mmdet"), data)
    assert all("\n" not in str(error.value) for error in (one, two))
