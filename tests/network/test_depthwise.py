"""The gradients of 5x5 and of strided depthwise convolutions are torch's own; elsewhere nothing is changed."""

import pytest
import torch
import torch.nn.functional as F

from fcos.network import depthwise, weights
from fcos.network.depthwise import Grid, convolve, pays
from fcos.presets import preset
from fcos.training.setup import make_ready


@pytest.fixture
def always(monkeypatch):
    """In any type of numbers, so that sums can be compared to many digits."""
    monkeypatch.setattr(depthwise, "pays", lambda *_: True)
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self)


def gradients(way, x, weight, bias, layout):
    """(of x, of the weight, the output) for the same gradient of the output."""
    x = x.clone().contiguous(memory_format=layout).requires_grad_()
    weight = weight.clone().requires_grad_()
    out = way(x, weight, bias)
    out.backward(torch.cos(torch.arange(out.numel()).reshape(out.shape)).to(out.dtype))
    return x.grad, weight.grad, out.detach()


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("height", "width", "stride", "padding"),
    [(9, 12, 1, 2), (5, 5, 1, 2), (1, 3, 1, 2), (11, 8, 2, 0), (10, 7, 2, 2), (6, 6, 3, 1)],
)
@pytest.mark.parametrize("kernel", [3, 4, 5])
def test_it_is_torchs_gradient(always, kernel, height, width, stride, padding, layout):
    generator = torch.Generator().manual_seed(3)
    shapes = ((2, 6, height, width), (6, 1, kernel, kernel), (6,))
    given = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    theirs = gradients(lambda a, b, c: F.conv2d(a, b, c, stride, padding, 1, 6), *given, layout)
    ours = gradients(lambda a, b, c: convolve(a, b, c, Grid(stride, padding, 6)), *given, layout)
    for a, b in zip(theirs, ours, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kernel", [4, 5, 7])
def test_numbers_by_finite_differences(always, kernel):
    x = torch.randn(1, 2, 6, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: convolve(a, b, None, Grid(1, 2, 2)), (x, weight))


def test_under_autocast_the_sums_are_those_of_bf16():
    x, weight = torch.randn(2, 8, 10, 10), torch.randn(8, 1, 5, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = convolve(x, weight, None, Grid(1, 2, 8))
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    exact = weight.detach().clone().requires_grad_()
    F.conv2d(x, exact, None, 1, 2, 1, 8).square().sum().backward()
    assert weight.grad.dtype == torch.float32
    assert (weight.grad - exact.grad).abs().max() < 0.02 * exact.grad.abs().max()


@pytest.mark.parametrize("kernel", [3, 5])
def test_the_gradient_of_a_strided_input_is_that_of_float32_rounded(kernel):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(2, 8, 11, 11, generator=generator).bfloat16().requires_grad_()
    weight = torch.randn(8, 1, kernel, kernel, generator=generator).bfloat16()
    out = convolve(x, weight, None, Grid(2, 1, 8))
    given = torch.randn(out.shape, generator=generator).bfloat16()
    out.backward(given)
    exact = x.detach().float().requires_grad_()
    F.conv2d(exact, weight.float(), None, 2, 1, 1, 8).backward(given.float())
    torch.testing.assert_close(x.grad, exact.grad.bfloat16(), rtol=0.01, atol=1e-6)


def test_only_where_it_pays():
    x, plain, strided = torch.randn(1, 4, 8, 8), Grid(1, 2, 4), Grid(2, 2, 4)
    learned, small = torch.randn(4, 1, 5, 5, requires_grad=True), torch.randn(4, 1, 3, 3, requires_grad=True)
    assert not pays(x, learned, None, plain)  # float32
    with torch.autocast("cpu", torch.bfloat16):
        assert pays(x, learned, None, plain)
        assert not pays(x, learned.detach(), None, plain)
        assert not pays(x, learned, torch.zeros(4, requires_grad=True), plain)
        assert not pays(x, small, None, plain)
        assert not pays(x, small, None, strided)  # nobody asks for the gradient of x
        assert pays(x.requires_grad_(), small.detach(), None, strided)
        assert not pays(x, small, None, plain)
        assert not pays(x, torch.randn(4, 4, 5, 5, requires_grad=True), None, Grid(1, 2, 1))
        with torch.no_grad():
            assert not pays(x, learned, None, plain)
            assert torch.equal(convolve(x, learned, None, plain), F.conv2d(x, learned, None, 1, 2, 1, 4))


def test_a_whole_network_has_the_gradient_of_torch_under_autocast(monkeypatch):
    """Also that the folded backbone of a preset comes here at all."""
    config = preset("fcos-lite0").override({"model": {"backbone_weights": "none"}})
    torch.manual_seed(0)
    network = weights.build(config, 3)
    make_ready(network, config, torch.device("cpu"))
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    found, taken = [], []
    windows = pays
    for ours in (False, True):
        monkeypatch.setattr(depthwise, "pays", lambda *a, ours=ours: ours and windows(*a) and not taken.append(1))
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            network.train()(images).logits.float().square().sum().backward()
        found.append({k: p.grad.clone() for k, p in network.named_parameters() if p.grad is not None})
    assert len(taken) == 10  # two of stage 3, one of stage 4 (strided), three of stage 5, four of stage 6
    assert found[0].keys() == found[1].keys()
    for key, theirs in found[0].items():
        assert (found[1][key] - theirs).norm() <= 0.05 * theirs.norm() + 1e-6, key
