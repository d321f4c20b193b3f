"""Folding frozen BatchNorm changes neither outputs nor gradients."""

import copy

import pytest
import torch
from torch import nn

from fcos import zoo
from fcos.folding import find_pairs, fold_frozen
from fcos.presets import preset


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18"])
def test_folded_body_is_the_same_function(name):
    torch.manual_seed(0)
    plain = zoo.build(preset("fcos-lite0").override({"model": {"backbone": name}}), 2).double().train().backbone
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
    assert fold_frozen(body) == 0


def test_a_norm_behind_something_else_is_no_pair():
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)).eval().requires_grad_(False)
    assert find_pairs(body) == []
