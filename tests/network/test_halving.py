"""Narrow maps in bfloat16: torch's own may hold what was in memory before, here no numbers or far too large ones."""

import pytest
import torch
from torch import nn

from fcos.network import weights
from fcos.network.folding import fold_frozen
from fcos.network.halving import Halving, avoid_faulty_code
from fcos.presets import preset


def spoil(count):
    """Memory that is freed at once and that the next tensors of such sizes get."""
    for value in (torch.nan, 3e4):
        kept = [torch.full((count * k,), value, dtype=kind) for k in (1, 2) for kind in (torch.float, torch.bfloat16)]
        del kept


def near(got, wanted):
    return (got.float() - wanted).norm() <= 0.02 * wanted.norm()


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("groups", [1, 64])
@pytest.mark.parametrize("images", [1, 8])
@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("height", [1, 2, 5])
def test_output_and_gradients_are_whole(height, width, images, groups, channels_last):
    torch.manual_seed(2)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    conv = Halving(64, 64, 3, stride=2, padding=1, groups=groups).to(memory_format=layout)
    x = torch.randn(images, 64, height, width).contiguous(memory_format=layout).requires_grad_()
    wanted = torch.nn.functional.conv2d(x, conv.weight, conv.bias, 2, 1, 1, groups)
    factors = torch.randn_like(wanted)
    gradients = torch.autograd.grad((wanted * factors).sum(), (x, conv.weight))
    for _ in range(3):
        spoil(images * 64 * 9 * 64)
        with torch.autocast("cpu", torch.bfloat16):
            out = conv(x)
        assert out.shape == wanted.shape
        assert near(out, wanted)
        spoil(64 * 9 * 64)
        for got, true in zip(
            torch.autograd.grad((out.float() * factors).sum(), (x, conv.weight)), gradients, strict=True
        ):
            assert near(got, true)
        with torch.no_grad():
            spoil(images * 64 * 9 * 64)
            assert near(conv.bfloat16()(x.bfloat16()), wanted)
            conv.float()


@pytest.mark.parametrize("name", ["fcos-lite0", "fcos-r50"])
def test_a_network_of_narrow_images_is_whole(name):
    """32 pixels wide: the backbone's last stage is one column, and so are all levels above it."""
    torch.manual_seed(2)
    config = preset(name).override({"model": {"backbone_weights": "none"}})
    network = weights.build(config, 3).eval()
    fold_frozen(network.backbone.body)
    images = torch.randint(0, 255, (4, 3, 160, 32), dtype=torch.uint8)
    with torch.no_grad():
        wanted = network.fpn(network.backbone(network.normalize(images)))
        for _ in range(2):
            spoil(images.numel())
            with torch.autocast("cpu", torch.bfloat16):
                got = network.fpn(network.backbone(network.normalize(images)))
            for level, (a, b) in enumerate(zip(got, wanted, strict=True)):
                assert (a.float() - b).norm() <= 0.1 * b.norm(), level


def test_only_such_convolutions_are_replaced():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1, stride=2),
        nn.Conv2d(4, 4, 3, stride=2), nn.Conv2d(4, 4, 7, stride=2, padding=3),
        nn.Conv2d(4, 4, 3, stride=2, dilation=2, padding=1),
    )  # fmt: skip
    names = list(network.state_dict())
    avoid_faulty_code(network)
    assert [isinstance(m, Halving) for m in network] == [True, False, False, False, True, False]
    assert list(network.state_dict()) == names


def test_other_numbers_take_the_plain_way(monkeypatch):
    monkeypatch.setattr("fcos.network.halving.F.pad", lambda *_: pytest.fail("padded"))
    conv = Halving(4, 4, 3, stride=2, padding=1)
    assert conv(torch.randn(2, 4, 3, 1)).shape == (2, 4, 2, 1)
    assert conv.bfloat16()(torch.randn(2, 4, 3, 3).bfloat16()).shape == (2, 4, 2, 2)
