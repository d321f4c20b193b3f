"""Proposals of torchvision's detectors, from state dicts with random weights, against torchvision itself."""

import numpy as np
import pytest
import torch
from matching import assert_same_detections
from torchvision.models import detection

from fcos.config import DataConfig
from fcos.errors import ModelError
from fcos.study.baselines import _retinanet, load_baseline, recognise

DATA = DataConfig(size=96, max_size=160)
IMAGE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def build(name, classes=2, **options):
    torch.manual_seed(0)
    model = getattr(detection, name)(
        weights=None, weights_backbone=None, num_classes=classes, min_size=DATA.size, max_size=DATA.max_size, **options
    )  # fmt: skip
    return model.eval()


@pytest.mark.parametrize(
    "name",
    [
        "fasterrcnn_resnet50_fpn",
        "fasterrcnn_resnet50_fpn_v2",
        "fasterrcnn_mobilenet_v3_large_fpn",
        "retinanet_resnet50_fpn",
        "retinanet_resnet50_fpn_v2",
        "fcos_resnet50_fpn",
    ],
)
def test_a_state_dict_tells_its_builder(name):
    with torch.device("meta"):
        state = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=3).state_dict()
    assert recognise(state) == (None if name.startswith("fcos") else name)


def test_the_rpn_of_a_file_proposes_what_torchvisions_does(tmp_path):
    model = build("fasterrcnn_mobilenet_v3_large_fpn", rpn_score_thresh=0.0, rpn_post_nms_top_n_test=40)
    torch.save(model.state_dict(), tmp_path / "rpn.pth")
    boxes, scores = load_baseline(tmp_path / "rpn.pth", DATA, most=40).propose(IMAGE)
    with torch.inference_mode():
        images, _ = model.transform([torch.from_numpy(IMAGE).permute(2, 0, 1) / 255])
        expected = model.rpn(images, model.backbone(images.tensors))[0][0]
    assert images.image_sizes[0] == (96, 144)
    assert len(boxes) == len(expected) > 5
    torch.testing.assert_close(boxes, expected / 1.6, atol=1e-3, rtol=0)
    assert (scores[:-1] > scores[1:]).all()
    assert scores[0] == 1


def test_retinanet_with_one_class_is_torchvisions_own():
    model = build("retinanet_resnet50_fpn", classes=1, score_thresh=0.0, detections_per_img=20)
    torch.nn.init.normal_(model.head.classification_head.cls_logits.weight, std=0.02)
    with torch.inference_mode():
        expected = model([torch.from_numpy(IMAGE).permute(2, 0, 1) / 255])[0]
    boxes, scores = _retinanet(model, IMAGE, 20)
    assert len(scores) == 20
    ours = {"boxes": boxes, "scores": scores, "labels": torch.zeros(20)}
    assert_same_detections(ours, {**expected, "labels": torch.zeros(20)}, box=1e-2, score=1e-5)


def test_other_files_are_one_line(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    half = {"rpn.head.cls_logits.bias": torch.zeros(15), "roi_heads.box_predictor.cls_score.bias": torch.zeros(2),
            "backbone.body.0.0.weight": torch.zeros(16, 3, 3, 3)}  # fmt: skip
    torch.save(half, tmp_path / "half.pth")
    for name, message in (("a.pth", "no state dict of torchvision"), ("half.pth", "missing"), ("gone.pth", "no check")):
        with pytest.raises(ModelError, match=message) as caught:
            load_baseline(tmp_path / name, DATA)
        assert "\n" not in str(caught.value)
