"""What to start from: the bundled detector or its backbone, by what a linear classifier sees."""

import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from tiny import make_shapes, tiny_config

from fcos.data.open import open_dataset
from fcos.demo.digits import NAMES, make_scene
from fcos.errors import ConfigError
from fcos.network import weights
from fcos.presets import preset
from fcos.training.setup import bundled, initialise
from fcos.training.starting import BACKBONE, Start, _classifier, better_start, log_losses, start_for
from fcos.types import Classes


def test_the_classifier_is_at_its_minimum():
    """Multinomial logistic regression with 10/2 of the squared weights: the gradient is nothing there."""
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(3, (200,), generator=generator)
    features = torch.randn(200, 5, generator=generator) + label[:, None]
    features = torch.nn.functional.pad(features, (0, 1), value=1.0).double()
    layer = _classifier(features, label, 3)
    off = torch.softmax(features @ layer, 1) - torch.nn.functional.one_hot(label, 3)
    gradient = features.T @ off + 10 * torch.nn.functional.pad(layer[:-1], (0, 0, 0, 1))
    assert gradient.abs().max() < 0.05


def test_log_losses_of_what_was_not_learned():
    """Features that say the class: near nothing. Noise: not under log 2, since no image judges itself."""
    generator = torch.Generator().manual_seed(1)
    label, image = torch.arange(400) % 2, torch.arange(400) // 20
    noise = torch.randn(400, 30, generator=generator)
    telling = noise.clone()
    telling[:, 3] += 8 * label
    assert log_losses(telling, label, image).mean() < 0.15
    assert math.log(2) - 0.02 < float(log_losses(noise, label, image).mean()) < 1.2


def test_a_difference_counts_by_its_standard_error_over_images():
    """Three images with gains 1, 1, 4 of one location each: mean 2, standard error sqrt(1 + 1 + 4) / 3 = 0.82. The
    same gains as twelve locations of three images are no surer than three."""
    gains = torch.tensor([1.0, 1.0, 4.0])
    image = torch.arange(3)
    assert better_start(gains, torch.zeros(3), image).init == BACKBONE  # 2 > 2 * 0.82
    assert better_start(gains - 0.5, torch.zeros(3), image).init is None  # 1.5 < 2 * 0.82
    assert better_start(gains.repeat(4) - 0.5, torch.zeros(12), image.repeat(4)).init is None
    assert better_start(torch.zeros(3), gains, image).init is None
    assert "2.00" in better_start(gains, torch.zeros(3), image).reason


def test_the_backbone_alone():
    """`--init backbone`: the backbone is the detector's, the rest as fresh as it was; other presets have none."""
    config, classes = preset("fcos-lite0"), Classes(("disc", "square"))
    network = weights.build(config, 2)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    (line,) = initialise(network, config, classes, BACKBONE)
    theirs, *_ = weights.read(bundled(config))
    for name, value in network.state_dict().items():
        assert torch.equal(value, (theirs if name.startswith("backbone.") else before)[name].to(value.dtype)), name
    assert "kept (backbone), fresh: fpn, head" in line
    own = config.override({"model": {"backbone_weights": "mine.pth"}})
    with pytest.raises(ConfigError, match=r"--init fcos-lite0 and model\.backbone_weights=mine\.pth both say"):
        initialise(network, own, classes, "fcos-lite0")
    with pytest.raises(ConfigError, match="--init backbone: the package has no detector tiny"):
        initialise(weights.build(tiny_config(), 2), tiny_config(), classes, BACKBONE)


def test_nothing_is_asked_where_nothing_can_be_gained(tmp_path):
    """A start that the user names; a preset without a detector; classes that the detector knows; too few objects."""
    data = open_dataset(make_shapes(tmp_path, {"train": 6}))
    config = preset("fcos-lite0")
    assert start_for(config, data, "none", "cpu") == Start("none", "")
    assert start_for(tiny_config(), data, None, "cpu") == Start(None, "")
    assert start_for(config, replace(data, classes=Classes(("disc", "Potted plant"))), None, "cpu") == Start(None, "")
    small = config.override({"data": {"size": 64, "max_size": 96}})
    assert start_for(small, data, None, "cpu") == Start(None, "")


@pytest.mark.slow
def test_small_digits_start_from_the_backbone(tmp_path):
    """Images full of digits of 17 to 51 pixels, for which the whole detector is a bad start (AP 0.21 against 0.47)."""
    images, boxes = [], []
    for number in range(12):
        rng = np.random.default_rng(number)
        canvas = np.zeros((480, 672, 3), np.uint8)
        for top, left in np.ndindex(5, 7):
            scene = make_scene(rng, "train", (96, 96))
            canvas[96 * top : 96 * top + 96, 96 * left : 96 * left + 96] = scene.image
            for (x1, y1, x2, y2), label in zip(scene.boxes.tolist(), scene.labels.tolist(), strict=True):
                bbox = [x1 + 96 * left, y1 + 96 * top, x2 - x1, y2 - y1]
                boxes.append({"id": len(boxes), "image_id": number, "category_id": label + 1, "bbox": bbox})
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), canvas[..., ::-1])
        images.append({"id": number, "file_name": f"{number}.jpg", "height": 480, "width": 672})
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)]
    content = {"images": images, "annotations": boxes, "categories": categories}
    (tmp_path / "a.json").write_text(json.dumps(content))
    config = preset("fcos-lite0").override({"data": {"size": 512, "max_size": 853}})
    assert start_for(config, open_dataset(tmp_path), None, "cpu").init == BACKBONE
