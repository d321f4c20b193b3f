"""The sides of the resized image, under the rule of each published implementation."""

import random

import pytest
import torch
from torchvision.models.detection.transform import _resize_image_and_masks

from fcos.data.images.reading import resized_shape


def test_floor_equals_torchvision_on_many_sizes():
    draw = random.Random(0)
    for _ in range(200):
        size = draw.randint(20, 2500), draw.randint(20, 2500)
        short, longest = draw.choice([(800, 1333), (640, 1333), (320, 533), (512, 853)])
        theirs = _resize_image_and_masks(torch.empty(1, *size, device="meta"), short, longest)[0].shape[-2:]
        assert resized_shape(size, short, longest, "floor") == tuple(theirs), size


def test_two_step_equals_detectron2():
    draw = random.Random(1)
    for _ in range(1000):
        h, w = draw.randint(20, 2500), draw.randint(20, 2500)
        scale = 800.0 / min(h, w)
        sides = [800.0, scale * w] if h < w else [scale * h, 800.0]
        if max(sides) > 1333:
            scale = 1333.0 / max(sides)
            sides = [side * scale for side in sides]
        assert resized_shape((h, w), 800, 1333, "two-step") == tuple(int(side + 0.5) for side in sides), (h, w)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1066)), ((427, 640), (800, 1199)), ((333, 640), (694, 1333)), ((640, 333), (1333, 694))],
)
def test_short_exact_is_the_rule_of_the_original(size, expected):
    assert resized_shape(size, 800, 1333, "short-exact") == expected


def test_half_up_is_the_rule_of_mmdetection():
    assert resized_shape((480, 640), 800, 1333, "half-up") == (800, 1067)
    assert resized_shape((333, 640), 800, 1333, "half-up") == (694, 1333)
