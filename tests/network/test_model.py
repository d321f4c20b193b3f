"""The network: shapes, one prediction per point, weights shared by the levels, files."""

import copy
import math

import numpy as np
import pytest
import torch
from tiny import equal_states, tiny_config
from torch import nn
from torch.optim.swa_utils import AveragedModel

from fcos.config import ModelConfig
from fcos.errors import ConfigError, ModelError
from fcos.inference.detector import Detector
from fcos.network import weights
from fcos.network.backbones import Backbone, load_backbone_weights, match_state
from fcos.network.info import describe_network
from fcos.points import make_points
from fcos.presets import preset
from fcos.training.setup import too_large_to_say
from fcos.types import Classes
from fcos.zoo.find import load_network


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head_norm": "batch", "head_depthwise": True, "fpn_depthwise": True},
        {"head_norm": "none", "head_shared_convs": 2, "head_convs": 0},
        {"regression": "exp", "normalize": False, "centerness_on": "classification", "scale": False},
        {"strides": (4, 8, 16, 32, 64), "extra_from": "body"},
        {"head_deformable": True, "head_bias": False, "bgr": True},
        {"regression": "bins", "scale": False},
    ],
)
def test_one_prediction_for_each_point(size, changes):
    config = tiny_config(model={"strides": (8, 16, 32, 64, 128), **changes}, assign={"ranges": (64, 128, 256, 512)})
    network = weights.build(config, 3).eval()
    with torch.no_grad():
        out = network(torch.randint(0, 255, (2, 3, *size), dtype=torch.uint8))
    count = len(make_points(size, config.model, config.assign).xy)
    assert out.logits.shape == (2, count, 3)
    assert out.distances.shape == (2, count, 4)
    assert out.centerness.shape == (2, count)
    assert (out.distances >= 0).all()
    assert out.distances.dtype == torch.float32


def test_a_fresh_network_starts_at_the_prior():
    network = weights.build(tiny_config(), 3).eval()
    with torch.no_grad():
        out = network(torch.zeros(1, 3, 64, 64))
    assert torch.sigmoid(out.logits).mean().item() == pytest.approx(0.01, rel=0.2)
    assert (out.distances > 0).float().mean() > 0.9  # no dead regression at the start


def test_distances_as_the_mean_of_bins_by_hand():
    """Where one number of strides is certain it is the distance; 2 or 3, as likely, are 2.5; nothing known is 8."""
    head = weights.build(tiny_config(model={"regression": "bins"}), 3).head
    stride = head.cfg.strides[1]
    sides = ([3], [2, 3], [16], list(range(17)))
    with torch.no_grad():
        head.box_distances.weight.zero_()
        bias = head.box_distances.bias.view(4, 17).fill_(-40.0)
        for side, likely in enumerate(sides):
            bias[side, likely] = 40.0
        found = head.distances(torch.zeros(1, head.box_distances.in_channels, 2, 5), 1)
    assert found.shape == (1, 4, 2, 5)
    wanted = torch.tensor([3, 2.5, 16, 8]) * stride
    torch.testing.assert_close(found, wanted.view(1, 4, 1, 1).expand(1, 4, 2, 5))
    with pytest.raises(ConfigError, match="normalize=true"):
        tiny_config(model={"regression": "bins", "normalize": False})
    # what a level learns lies within its bins
    far = tiny_config(model={"regression": "bins"}, assign={"ranges": (128,)}, data={"size": 512, "max_size": 512})
    assert [
        "reaches 128 px at stride 8, and assign.ranges wants up to 128 there" in line for line in too_large_to_say(far)
    ] == [True]
    assert too_large_to_say(far.override("assign.ranges=120")) == []
    assert too_large_to_say(tiny_config(model={"regression": "bins"}, data={"size": 512, "max_size": 512})) == []
    (line,) = too_large_to_say(tiny_config(model={"regression": "bins"}, data={"size": 512, "max_size": 514}))
    assert "no box of more than 512 px, and images have up to 514" in line
    assert too_large_to_say(tiny_config(data={"size": 512, "max_size": 514})) == []


def test_bins_learn_at_every_distance():
    """A relu at zero learns nothing; a mean of bins has a gradient everywhere."""
    head = weights.build(tiny_config(model={"regression": "bins"}), 3).head
    for strides in (0.0, 0.4, 15.9):
        with torch.no_grad():
            steps = torch.arange(17.0)
            head.box_distances.weight.zero_()
            head.box_distances.bias.copy_((-((steps - strides) ** 2)).repeat(4))
        head.zero_grad()
        head.distances(torch.zeros(1, head.box_distances.in_channels, 1, 1), 0).sum().backward()
        assert head.box_distances.bias.grad.abs().max() > 0.01, strides


def test_uint8_and_float_images_are_the_same():
    network = weights.build(tiny_config(), 3).eval()
    image = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        a, b = network(image), network(image.float())
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_bgr_is_the_same_network_with_its_stem_turned():
    a = weights.build(tiny_config(), 2).eval()
    b = weights.build(tiny_config(model={"bgr": True}), 2).eval()
    state = a.state_dict()
    key = next(k for k, v in state.items() if v.ndim == 4 and v.shape[1] == 3)
    b.load_state_dict({**state, key: state[key].flip(1)})
    image = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        for x, y in zip(a(image), b(image), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


def test_distances_stay_float32_under_autocast():
    network = weights.build(tiny_config(), 2).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        out = network(torch.zeros(1, 3, 64, 64))
    assert out.distances.dtype == torch.float32


def test_freezing_stages_and_norms():
    network = weights.build(preset("fcos-lite0"), 2)
    network.backbone.freeze(2)
    network.train()
    free = [n for n, p in network.backbone.body.named_parameters() if p.requires_grad]
    assert free[0].startswith("blocks.2.")
    assert not any("bn" in n for n in free)
    assert not any(m.training for m in network.backbone.modules() if isinstance(m, nn.BatchNorm2d))
    everything = weights.build(preset("fcos-lite0").override("model.backbone_norm=batch"), 2).train()
    assert all(m.training for m in everything.backbone.modules() if isinstance(m, nn.BatchNorm2d))


def test_files_bring_back_the_same_detector(tmp_path):
    config, classes = tiny_config(), Classes(("disc", "square"), (2, 7))
    network = weights.build(config, 2)
    path = weights.save(tmp_path / "a model.safetensors", network.state_dict(), config, classes, about={"AP": 0.5})
    loaded, stored, known = load_network(path)
    assert equal_states(loaded.state_dict(), network.state_dict())
    assert (stored, known) == (config, classes)
    half = weights.save(tmp_path / "half.safetensors", weights.halved(network.state_dict()), config, classes)
    assert half.stat().st_size < 0.6 * path.stat().st_size
    assert load_network(half, ["decode.nms_iou=0.4"])[1].decode.nms_iou == 0.4


def _parts_compiled(network):
    network.backbone = torch.compile(network.backbone)
    return network


@pytest.mark.parametrize(
    "around",
    [torch.compile, nn.DataParallel, AveragedModel, _parts_compiled, lambda n: nn.DataParallel(torch.compile(n))],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_state_of_a_network_that_something_is_around_is_saved_as_its_own(tmp_path, around, dtype):
    config, classes = tiny_config(), Classes(("disc", "square"))
    network = weights.build(config, 2)
    path = weights.save(
        tmp_path / "m.safetensors", around(copy.deepcopy(network).to(dtype)).state_dict(), config, classes
    )
    assert equal_states(load_network(path)[0].state_dict(), network.state_dict())


def test_weights_of_another_network_are_not_saved(tmp_path):
    with pytest.raises(ModelError, match=r"'conv1.weight' is no tensor of an fcos network"):
        weights.save(tmp_path / "m.safetensors", {"conv1.weight": torch.zeros(2)}, tiny_config(), Classes(("disc",)))
    assert not (tmp_path / "m.safetensors").exists()


def test_a_file_of_a_later_version_says_so(tmp_path):
    config, state = tiny_config(), weights.build(tiny_config(), 1).state_dict()
    for version, later in (("99.10.0", True), ("1.0.0", False), ("", False), ("none", False), (None, False)):
        path = weights.save(tmp_path / "m.safetensors", state, config, Classes(("a",)), {"fcos": version})
        content = path.read_bytes().replace(b"nms_rule", b"nms_role")  # a setting that nobody knows
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"unknown setting decode\.nms_role") as told:
            weights.read(path)
        assert (f"fcos {version} wrote this file" in str(told.value)) == later, version


def test_files_that_are_no_model(tmp_path):
    config, classes = tiny_config(), Classes(("a",))
    whole = weights.save(tmp_path / "m.safetensors", weights.build(config, 1).state_dict(), config, classes)
    half = tmp_path / "half.safetensors"
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    text = tmp_path / "text.safetensors"
    text.write_text("hello")
    foreign = tmp_path / "foreign.safetensors"
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(2)}, foreign)
    for name, words in (
        (half, "not a whole safetensors file"),
        (text, "not a whole safetensors file"),
        (foreign, "no fcos config"),
        (tmp_path / "none.safetensors", "there is no model file"),
        (tmp_path, "holds neither best"),
        ("fcos-lite9", "did you mean fcos-lite"),
    ):
        with pytest.raises(ModelError, match=words) as error:
            load_network(name)
        assert "\n" not in str(error.value)
    with pytest.raises(ModelError, match=r"do not fit these weights"):
        load_network(whole, ["model.head_convs=3"])


def test_body_weights_by_name_by_order_and_not_at_all():
    wanted = {"a.weight": torch.zeros(4, 3), "b.weight": torch.zeros(5), "b.num_batches_tracked": torch.tensor(0)}
    by_name = {"b.weight": torch.ones(5), "a.weight": torch.ones(4, 3), "head": torch.ones(9)}
    other = {"stem.weight": torch.ones(4, 3), "norm.weight": torch.ones(5), "fc": torch.ones(7)}
    for state in (by_name, other):
        got = match_state(state, wanted, "file")
        assert got["a.weight"].sum() == 12
        assert got["b.weight"].sum() == 5
    with pytest.raises(ModelError, match=r"file does not fit: 2 of 3 .*a\.weight.*left over.*x\.0"):
        match_state({"x.0": torch.ones(4, 4), "x.1": torch.ones(5)}, wanted, "file")


def test_other_names_are_no_order_where_they_stand_by_alphabet():
    """As safetensors lists them: all four of a norm have one shape, so shapes cannot tell them apart."""
    kinds = ("weight", "bias", "running_mean", "running_var")
    wanted = {f"{layer}.{kind}": torch.zeros(8) for layer in ("bn2", "bn10") for kind in kinds}
    theirs = {f"layers.{k}.{kind}": torch.rand(8) for k in (2, 10) for kind in kinds}
    got = match_state(theirs, wanted, "file")
    assert all(torch.equal(got[a], theirs[b]) for a, b in zip(wanted, theirs, strict=True))
    with pytest.raises(ModelError, match="file does not fit: 8 of 8"):
        match_state(dict(sorted(theirs.items())), wanted, "file")
    turned = {f"layers.{k}.{kind}": torch.rand(8) for k in (2, 10) for kind in reversed(kinds)}
    with pytest.raises(ModelError, match="file does not fit: 8 of 8"):
        match_state(turned, wanted, "file")


def test_deformable_stages_start_from_the_weights_of_plain_ones(tmp_path):
    """The offsets, which no classifier has, start at zero; the rest is as in a plain backbone."""
    asked = ModelConfig(backbone="resnet26", backbone_weights="none")
    plain = Backbone(asked)
    torch.save(plain.body.state_dict(), tmp_path / "plain.pth")
    cfg = asked.model_copy(update={"deformable_stages": (4,), "backbone_weights": str(tmp_path / "plain.pth")})
    bent = Backbone(cfg)
    assert "plain.pth" in load_backbone_weights(bent, cfg)
    state = bent.body.state_dict()
    assert all(torch.equal(state[k], v) for k, v in plain.body.state_dict().items())
    offsets = [v for k, v in state.items() if ".offset." in k]
    assert offsets
    assert not any(v.any() for v in offsets)


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
def test_backbone_weights_are_read_as_checkpoints_are(tmp_path, suffix):
    """One reader: detectron2's pickles of arrays too, and advice that is safe to follow."""
    import pickle

    from safetensors.torch import save_file

    cfg = tiny_config().model
    state = Backbone(cfg).body.state_dict()
    path = tmp_path / f"body{suffix}"
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps({"model": {k: v.numpy() for k, v in state.items()}}))
    else:
        (save_file if suffix == ".safetensors" else torch.save)(state, path)
    backbone = Backbone(cfg)
    load_backbone_weights(backbone, cfg.model_copy(update={"backbone_weights": str(path)}))
    assert equal_states(backbone.body.state_dict(), state)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ModelError) as error:
        load_backbone_weights(backbone, cfg.model_copy(update={"backbone_weights": str(path)}))
    assert str(path) in str(error.value)
    assert "weights_only" not in str(error.value)


def test_a_padding_that_does_not_suit_the_backbone_is_one_line(tmp_path):
    """convnext takes whole patches only: at sides that are no multiple of 32 its maps have fewer cells."""
    config = tiny_config(model={"backbone": "test_convnext", "strides": (8, 16)}, data={"divisor": 4, "max_size": 68})
    detector = Detector(weights.build(config, 2).eval(), config, Classes(("a", "b")))
    assert detector(np.zeros((64, 64, 3), np.uint8), score=0) is not None
    with pytest.raises(ModelError, match=r"test_convnext has \d+ locations where there should be \d+.*data.divisor=32"):
        detector(np.zeros((64, 68, 3), np.uint8))


def test_transfer_keeps_what_fits():
    a, b = weights.build(tiny_config(), 2), weights.build(tiny_config(), 5)
    kept, fresh = weights.transfer(b, a.state_dict())
    assert sorted(fresh) == ["head.class_logits.bias", "head.class_logits.weight"]
    assert len(kept) == len(b.state_dict()) - 2
    assert torch.equal(b.head.box_distances.weight, a.head.box_distances.weight)


def test_flops_and_outputs_by_hand():
    config = tiny_config()
    info = describe_network(weights.build(config, 2).eval(), config, (64, 96))
    points = 8 * 12 + 4 * 6
    assert info.points == points
    assert info.outputs == points * 7
    assert info.anchor_outputs == points * 9 * 6
    head = 2 * points * 9 * 16 * (2 * 16 + 2 + 4 + 1)  # two towers of one conv, three output convs
    assert next(p.flops for p in info.parts if p.name == "head") == head
    assert math.isclose(info.levels[1]["lower"], 16.0)


@pytest.mark.parametrize("width", [8, 32])
def test_narrow_towers_learn_and_see_a_level_of_one_cell(width):
    """GroupNorm has groups of one channel there, so of one number in an image of its own."""
    config = tiny_config(
        model={"strides": (8, 16, 32, 64, 128), "head_channels": width}, assign={"ranges": (64, 128, 256, 512)}
    )
    network = weights.build(config, 2).train()
    out = network(torch.randint(0, 255, (1, 3, 128, 128), dtype=torch.uint8))
    (out.logits.sum() + out.distances.sum()).backward()
    grads = [p.grad for p in network.head.parameters() if p.grad is not None]
    assert out.logits.isfinite().all()
    assert grads
    assert all(grad.isfinite().all() for grad in grads)
