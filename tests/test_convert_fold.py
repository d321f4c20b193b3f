"""Mean, deviation and channel order inside the stem change nothing, borders included."""

import pytest
import torch

from fcos.convert.fold import fold_normalization
from fcos.model import FCOS
from fcos.presets import preset


@pytest.mark.parametrize(("bgr", "std"), [(False, (58.395, 57.12, 57.375)), (True, (1.0, 1.0, 1.0))])
@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv2_100"])
def test_folding_changes_nothing(backbone, bgr, std):
    config = preset("fcos-r50").override(
        {
            "model": {
                "backbone": backbone,
                "bgr": bgr,
                "std": std,
                "fpn_channels": 64,
                "head_channels": 64,
                "head_convs": 1,
            }
        }
    )
    torch.manual_seed(0)
    model = FCOS(config.model, 3).eval().double()
    images = torch.randint(0, 256, (1, 3, 64, 96)).double()
    folded = fold_normalization(model)
    with torch.inference_mode():
        assert torch.equal(folded.normalize(images), images)
        for mine, other in zip(folded(images), model(images), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
