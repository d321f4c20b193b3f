"""Bodies of timm's families: which give FCOS its maps, and one line for those that cannot."""

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from fcos.config import Config, ModelConfig
from fcos.errors import ConfigError, ModelError
from fcos.network.backbones import Backbone, load_backbone_weights, match_state
from fcos.network.folding import fuse
from fcos.network.model import FCOS
from fcos.points import level_shapes, make_points

SMALL = {"backbone_weights": "none", "fpn_channels": 16, "head_channels": 16, "head_convs": 1}
SIZE = (96, 160)  # three and five cells at stride 32

# one of each family that is widely used; the rest of those that work are slow
QUICK = ("resnet18", "mobilenetv3_small_050", "convnext_atto", "swin_tiny_patch4_window7_224", "regnetx_002")
MORE = """
resnetv2_50 resnext26ts resnest14d res2net50_14w_8s seresnext26t_32x4d skresnet18 wide_resnet50_2 regnety_002
efficientnet_b0 efficientnetv2_rw_t tf_efficientnet_b0 tf_efficientnetv2_b0 mobilenetv2_050
mobilenetv4_conv_small_050 mobilenetv4_hybrid_medium convnextv2_atto swinv2_cr_tiny_224 swinv2_tiny_window8_256
swin_s3_tiny_224 pvt_v2_b0 hrnet_w18_small dla34 vgg11_bn densenet121 ghostnet_050 mobilevit_xxs
edgenext_xx_small fastvit_t8 repvit_m0_9 cspdarknet53 cspresnet50 darknet53 dm_nfnet_f0 eca_nfnet_l0 rexnet_100
mnasnet_small hardcorenas_a focalnet_tiny_srf davit_tiny poolformer_s12 xception41 selecsls42b hgnet_tiny
hgnetv2_b0 vovnet39a ese_vovnet19b_dw twins_svt_small tiny_vit_5m_224 efficientvit_b0 repghostnet_050 starnet_s1
inception_next_atto tresnet_m hieradet_small repvgg_a0 lcnet_050 tinynet_e mambaout_femto swiftformer_xs
nextvit_small rdnet_tiny caformer_s18 fasternet_t0 dpn48b
"""
# name -> what the line says
REFUSED = {
    "vit_tiny_patch16_224": r"has no feature map of stride 8; it has \[16, 16, 16\]",
    "levit_128s": r"has no feature map of stride 8; it has \[16, 32, 64\]",
    "maxvit_nano_rw_256": "takes images of one size only",
    "coatnet_nano_rw_224": "takes images of one size only",
    "efficientformer_l1": "takes images of one size only",
    "gcvit_xxtiny": "takes images of one size only",
    "mvitv2_tiny": "takes images up to one size only",
    "mobilevitv2_050": r"has maps of .* where \(11, 13\) are needed",
    "inception_v3": "has maps of .* where .* are needed",
    "resnet51": "timm has no model called 'resnet51'; did you mean resnet5",
}


def works(name):
    torch.manual_seed(0)
    model = ModelConfig(backbone=name, **SMALL)
    network = FCOS(model, 2).eval().double()  # weights that nobody trained make much of rounding
    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8)
    with torch.inference_mode():
        maps, found, alone = network.features(images), network(images), network(images[1:])
        fused = fuse(network, torch.float64)(images)
    assert [tuple(m.shape[-2:]) for m in maps] == level_shapes(SIZE, model.strides)[: len(maps)]
    assert found.logits.shape == (2, len(make_points(SIZE, model, Config().assign).xy), 2)
    # each image's result is its own: a mix-up of axes would mix them
    torch.testing.assert_close(found.logits[1:], alone.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.logits, fused.logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", QUICK)
def test_families(name):
    works(name)


def test_every_convolution_of_a_random_resnet_with_frozen_norms_learns():
    """timm begins the last norm of each residual branch at 0, and a frozen one would stay so."""
    torch.manual_seed(0)
    body = Backbone(ModelConfig(backbone="resnet18", **SMALL)).train()
    sum(maps.square().mean() for maps in body(torch.rand(1, 3, 64, 64))).backward()
    weights = [m.weight for m in body.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(weights) == 20
    assert all(w.grad is not None and w.grad.any() for w in weights)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE.split())
def test_more_families(name):
    works(name)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_body_is_one_line(name):
    with pytest.raises(ModelError, match=REFUSED[name]) as error:
        Backbone(ModelConfig(backbone=name, **SMALL))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "convnext_atto", "resnet18"])
def test_maps_are_those_of_the_whole_network(name):
    """With the weights of the classifier, as they are published; timm itself gives the maps of its stages."""
    torch.manual_seed(0)
    whole = timm.create_model(name, pretrained=False).eval()
    backbone = Backbone(ModelConfig(backbone=name, **SMALL)).eval()
    backbone.body.load_state_dict(match_state(whole.state_dict(), backbone.body.state_dict(), name))
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        theirs = {tuple(m.shape): m for m in whole.forward_intermediates(images, intermediates_only=True)}
        for ours in backbone(images):
            torch.testing.assert_close(ours, theirs[tuple(ours.shape)], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", QUICK)
def test_timms_own_safetensors(name, tmp_path):
    """Whose names stand by alphabet, and are not quite those of the network for features."""
    whole = timm.create_model(name, pretrained=False).state_dict()
    save_file({k: v.contiguous() for k, v in whole.items()}, tmp_path / "model.safetensors")
    cfg = ModelConfig(backbone=name, **{**SMALL, "backbone_weights": str(tmp_path / "model.safetensors")})
    backbone = Backbone(cfg)
    load_backbone_weights(backbone, cfg)
    flat = {k.replace(".", "_"): v for k, v in whole.items()}
    for key, value in backbone.body.state_dict().items():
        assert torch.equal(value, flat[key.replace(".", "_")])


@pytest.mark.parametrize(
    ("theirs", "name"),
    [
        ("convnext_tiny", "convnext_tiny"),
        ("regnet_y_400mf", "regnety_004"),
        ("swin_t", "swin_tiny_patch4_window7_224"),
    ],
)
def test_torchvisions_names(theirs, name):
    """In any order; the maps are those of torchvision's own network."""
    torch.manual_seed(0)
    whole = getattr(torchvision.models, theirs)(weights=None).eval()
    backbone = Backbone(ModelConfig(backbone=name, **SMALL)).eval()
    state = dict(sorted(whole.state_dict().items()))
    backbone.body.load_state_dict(match_state(state, backbone.body.state_dict(), name))
    images, maps = torch.randn(1, 3, 224, 224), {}  # Swin cuts smaller images into other windows
    with torch.inference_mode():
        x = images if hasattr(whole, "features") else whole.stem(images)
        for layer in whole.features if hasattr(whole, "features") else whole.trunk_output:
            x = layer(x)
            shown = x.permute(0, 3, 1, 2) if theirs == "swin_t" else x
            maps[tuple(shown.shape)] = shown
        for ours in backbone(images):
            torch.testing.assert_close(ours, maps[tuple(ours.shape)], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strides", [(8, 16, 32, 64, 128), (8, 16, 32)])
def test_hrnets_pyramid_has_a_prediction_for_every_point(strides):
    """At divisor 32 five levels gave 535 predictions for 538 points."""
    half = max(32, strides[-1] // 2)
    assign = {"ranges": (64.0, 128.0, 256.0, 512.0)[: len(strides) - 1]}
    sections = {
        "model": {**SMALL, "backbone": "hrnet_w18_small", "neck": "hrfpn", "strides": strides},
        "assign": assign,
    }
    if half > 32:
        with pytest.raises(ConfigError, match=r"model\.neck=hrfpn needs data\.divisor=64 or a multiple, not 32"):
            Config().override(sections)
    config = Config().override(sections, {"data": {"divisor": half}})
    network = FCOS(config.model, 2).eval()
    size = (half, 3 * half)
    with torch.inference_mode():
        found = network(torch.zeros(1, 3, *size))
    assert found.logits.shape[1] == len(make_points(size, config.model, config.assign).xy)


def test_hrnets_pyramid_begins_at_stride_8():
    with pytest.raises(ConfigError, match="neck=hrfpn needs the strides 8, 16, 32"):
        Config().override({"model": {"neck": "hrfpn", "strides": (16, 32, 64)}, "assign": {"ranges": (64.0, 128.0)}})


def test_blocks_that_cannot_be_deformable_say_so():
    with pytest.raises(ModelError, match="needs blocks with a plain 3x3 convolution, which res2net50_26w_4s lacks"):
        Backbone(ModelConfig(backbone="res2net50_26w_4s", backbone_weights="none", deformable_stages=(4,)))
