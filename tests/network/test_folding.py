"""Folding frozen BatchNorm changes neither outputs nor gradients."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fcos.network import weights
from fcos.network.folding import find_pairs, fold_frozen, folded, fuse
from fcos.presets import preset, with_dialect


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18"])
def test_folded_body_is_the_same_function(name):
    torch.manual_seed(0)
    plain = weights.build(preset("fcos-lite0").override({"model": {"backbone": name}}), 2).double().train().backbone
    norms = [m for m in plain.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 2.0)
    folded = copy.deepcopy(plain)
    assert fold_frozen(folded.body) == len(norms)
    assert not any(m.training for m in folded.modules() if isinstance(m, nn.BatchNorm2d))
    assert folded.training

    image = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    a, b = plain(image), folded(image)
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-9)
    sum(x.square().mean() for x in a).backward()
    sum(x.square().mean() for x in b).backward()
    for (key, p), q in zip(plain.named_parameters(), folded.parameters(), strict=True):
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-7, atol=1e-12, msg=key)
    assert plain.state_dict().keys() == folded.state_dict().keys()


def test_a_norm_that_trains_is_left_alone():
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    assert len(find_pairs(body)) == 1
    assert fold_frozen(body.eval()) == 0  # its weights do
    assert fold_frozen(body.train().requires_grad_(False)) == 0  # its statistics do
    assert fold_frozen(body.eval()) == 1


def test_the_bias_of_a_convolution_is_scaled_too():
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval()
    for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(value, 0.5, 2.0)
    image = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(F.conv2d(image, *folded(conv, norm)), norm(conv(image)), rtol=1e-5, atol=1e-5)


def test_a_norm_behind_something_else_is_no_pair():
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)).eval().requires_grad_(False)
    assert find_pairs(body) == []


def shaken(config, classes=3):
    """A network in float64 whose BatchNorms do something."""
    torch.manual_seed(0)
    network = weights.build(config, classes).double().eval()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.1)
            norm.running_mean.normal_(std=0.1)
            norm.running_var.uniform_(0.5, 2.0)
    return network


@pytest.mark.parametrize(
    ("body", "dialect", "model", "left"),
    [
        ("tf_efficientnet_lite0", "fcos", {}, 0),  # norms that carry an activation, TensorFlow's padding
        ("resnet18", "original", {"bgr": True, "stride_in_1x1": False}, 0),
        ("test_resnet", "torchvision", {"head_norm": "none"}, 0),
        ("plain", "mmdet", {"stride_in_1x1": False, "head_norm": "batch", "head_depthwise": True}, 0),
        ("plain", "fcos", {"head_norm": "batch", "head_shared_convs": 1, "head_deformable": True}, 0),
    ],
)
def test_fused_network_gives_the_same(body, dialect, model, left):
    config = preset("fcos-lite0")
    config = with_dialect(config, dialect) if dialect != "fcos" else config
    small = {"fpn_channels": 16, "head_channels": 16, "head_convs": 1}
    network = shaken(config.override({"model": {"backbone": body, "backbone_weights": "none", **small, **model}}))
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    fused = fuse(network, torch.float64)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in fused.modules()) == left
    with torch.inference_mode():
        for a, b in zip(network(images), fused(images), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        half = fuse(network.float(), torch.bfloat16)(images)
    with torch.inference_mode():
        for a, b in zip(fused(images), fuse(fused, torch.float64)(images), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)  # as an export of a loaded detector does
    assert half.distances.dtype == torch.float32
    assert half.logits.dtype == torch.bfloat16
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.modules())  # the original stays as it was


class Branching(nn.Module):
    """The convolution's output is also needed without the norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(x)
        return self.norm(x) + x


def test_a_convolution_with_two_readers_is_no_pair():
    assert find_pairs(Branching()) == []
