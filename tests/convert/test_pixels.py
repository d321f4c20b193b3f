"""Deviation and channel order inside the stem change nothing, borders included."""

import pytest
import torch

from fcos.cli import main
from fcos.convert.pixels import fold_pixels
from fcos.convert.translate import export_state
from fcos.network import weights
from fcos.presets import preset, with_dialect

TINY = {"backbone": "resnet18", "fpn_channels": 64, "head_channels": 64, "head_convs": 1, "stride_in_1x1": False}


def outputs(state, config, images):
    network = weights.build(config, 80)
    network.load_state_dict(state)
    with torch.inference_mode():
        return network.eval().double()(images)


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("dialect", ["detectron2", "torchvision"])
def test_pixels_in_the_weights_change_nothing(dialect, bgr):
    config = with_dialect(preset("fcos-r50"), dialect).override({"model": TINY})
    torch.manual_seed(0)
    state = weights.build(config, 80).state_dict()
    images = torch.randint(0, 256, (1, 3, 64, 96)).double()
    folded, changed = fold_pixels(state, config, bgr=bgr, std=(2.0, 3.0, 4.0))
    assert (changed.model.bgr, changed.model.std, changed.model.mean) == (bgr, (2.0, 3.0, 4.0), config.model.mean)
    for mine, other in zip(outputs(folded, changed, images), outputs(state, config, images), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_fold_on_the_command_line_both_ways(tmp_path, capsys):
    config = with_dialect(preset("fcos-r50"), "detectron2").override({"model": TINY})
    torch.manual_seed(0)
    state = weights.build(config, 80).state_dict()
    theirs, plain, out = tmp_path / "d2.pth", tmp_path / "rgb.safetensors", tmp_path / "back.pth"
    torch.save({"model": export_state(state, config, "detectron2")}, theirs)
    for words in ([theirs, plain, "--fold"], [plain, out, "--to", "detectron2", "--fold"]):
        with pytest.raises(SystemExit) as stop:
            main(["convert", *map(str, words)])
        assert not stop.value.code
    assert "pixels in BGR order, 0..255, mean [103.53, 116.28, 123.675], deviation [1.0, 1.0, 1.0]" in (
        capsys.readouterr().out
    )
    held, changed, _, _ = weights.read(plain)
    assert not changed.model.bgr
    key = "backbone.body.conv1.weight"
    assert torch.equal(held[key], state[key].flip(1))
    back = torch.load(out, weights_only=True)["model"]
    assert torch.equal(back["backbone.bottom_up.stem.conv1.weight"], state[key])
