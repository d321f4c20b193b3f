"""The EfficientNet-Lite bodies against timm's, and a start that needs neither timm nor torchvision's Python."""

import subprocess
import sys

import pytest
import timm
import torch
import torchvision
from tiny import tiny_config

from fcos import boxes
from fcos.config import DecodeConfig, ModelConfig
from fcos.errors import ModelError
from fcos.network.backbones import Backbone
from fcos.network.lite import SCALES, LiteBackbone
from fcos.system.files import ASSETS


@pytest.mark.parametrize("name", sorted(SCALES))
def test_keys_and_maps_are_timm_s(name):
    theirs = timm.create_model(name, features_only=True, out_indices=(1, 2, 3, 4)).eval()
    ours = LiteBackbone(name, [4, 8, 16, 32]).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ours.channels == theirs.feature_info.channels()
    for module in theirs.modules():  # statistics that a mistake would show in
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.normal_(module.running_mean, std=0.1)
    ours.load_state_dict(theirs.state_dict())
    for height, width in ((64, 96), (65, 97), (33, 34), (1, 1)):
        x = torch.randn(1, 3, height, width)
        with torch.no_grad():
            assert all(torch.equal(a, b) for a, b in zip(ours(x), theirs(x), strict=True))


def test_gradients_are_timm_s():
    torch.manual_seed(0)
    theirs = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3, 4)).train()
    ours = LiteBackbone("tf_efficientnet_lite0", [8, 16, 32]).train()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    for body in (ours, theirs):
        sum(m.square().mean() for m in body(x)).backward()
    for (key, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=lambda m, key=key: f"{key}: {m}")


def test_only_stages_that_are_asked_for():
    assert len(LiteBackbone("tf_efficientnet_lite0", [8]).blocks) == 3
    backbone = Backbone(tiny_config(model={"backbone": "tf_efficientnet_lite1"}).model)
    backbone.freeze(2)
    fixed = {
        k.split(".")[1] for k, p in backbone.body.named_parameters() if k.startswith("blocks") and not p.requires_grad
    }
    assert {"0", "1"} <= fixed
    with pytest.raises(ModelError, match="needs an HRNet backbone"):
        Backbone(ModelConfig(backbone="tf_efficientnet_lite0", neck="hrfpn"))


def test_random_weights_keep_the_size_of_what_goes_through():
    torch.manual_seed(0)
    with torch.no_grad():
        last = LiteBackbone("tf_efficientnet_lite0", [32]).train()(torch.randn(4, 3, 96, 96))[0]
    assert 0.3 < last.std() < 3


@pytest.mark.parametrize("rule", ["class", "agnostic"])
@pytest.mark.parametrize("count", [0, 1, 7, 400, 1500])
def test_nms_is_torchvision_s(rule, count):
    generator = torch.Generator().manual_seed(count)
    corner = torch.rand(count, 2, generator=generator) * 300
    given = torch.cat((corner, corner + torch.rand(count, 2, generator=generator) * 80), dim=1)
    scores, labels = torch.rand(count, generator=generator), torch.randint(0, 5, (count,), generator=generator)
    keep, kept = boxes.nms(given, scores, labels, DecodeConfig(nms=rule, max_detections=count or 1))
    groups = labels if rule == "class" else torch.zeros_like(labels)
    theirs = torchvision.ops.batched_nms(given, scores, groups, 0.6)
    assert torch.equal(keep, theirs)
    assert torch.equal(kept, scores[theirs])
    torch.testing.assert_close(boxes.iou(given[:50], given), torchvision.ops.box_iou(given[:50], given))


def test_the_first_box_waits_for_torch_alone(tmp_path):
    """timm and torchvision's Python take longer than everything else at the start (docs/performance.md); nor does who
    opens a kept graph wait for them."""
    program = (
        "import sys; from fcos.cli import main\n"
        "try: main(['predict', 'PHOTO', '--out', 'OUT'])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "from fcos.export.formats import onnx, openvino\n"
        "slow = {'timm', 'torchvision', 'torch._dynamo', 'matplotlib', 'onnx'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    photo = str(ASSETS / "photos" / "astronaut.jpg")
    program = program.replace("PHOTO", photo).replace("OUT", str(tmp_path))
    subprocess.run([sys.executable, "-c", program], check=True)
