"""The images of the documentation: their map of centerness is the loss's target, and a model draws them."""

import numpy as np
import pytest
import torch
from PIL import Image
from scripted import CLASSES, TRUTH, detector
from tiny import tiny_config

from fcos.analysis.explain import explain
from fcos.errors import DataError
from fcos.inference.detector import Detector
from fcos.losses import centerness_target
from fcos.network import weights
from fcos.study.portraits import draw_architecture, feature_maps, portraits, target_map

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 84, 3), dtype=np.uint8)


def test_the_map_is_the_target_of_training():
    box = (10.0, 5.0, 50.0, 35.0)
    values = target_map(box, (48, 64))
    for x, y in ((10, 5), (30, 20), (49, 34), (17, 30)):
        sides = torch.tensor([[x + 0.5 - 10, y + 0.5 - 5, 50 - x - 0.5, 35 - y - 0.5]])
        assert values[y, x] == pytest.approx(float(centerness_target(sides)[0]), abs=1e-6)
    assert (values > 0).sum() == 40 * 30
    assert values.max() <= 1


def test_both_images_are_drawn(world, tmp_path):
    network = detector([((36, 36), TRUTH, 0, 0.9, 0.9)])
    images = [r.path for r in world((*TRUTH, 0, 0)).records]
    result = portraits(network, images, tmp_path)
    assert result.to_dict()["detection"]["label"] == "cat"
    for name in result.files:
        assert min(Image.open(tmp_path / name).size) > 300
    with pytest.raises(DataError, match=r"nothing scores 0\.5 or more in the 1 images"):
        portraits(detector([]), images, tmp_path)


def test_feature_maps_are_those_on_the_image(tmp_path):
    config = tiny_config()
    network = Detector(weights.build(config, 2).eval(), config, CLASSES)
    body, pyramid = feature_maps(network, IMAGE)
    assert [stride for stride, _, _ in pyramid] == [8, 16]
    assert [channels for _, channels, _ in pyramid] == [16, 16]
    assert [v.shape for _, _, v in pyramid] == [(8, 12), (4, 6)]  # 64 x 90 px of 64 x 96
    assert [stride for stride, _, _ in body] == [8, 16]
    draw_architecture(network, explain(network, IMAGE, 0.0), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 20_000
