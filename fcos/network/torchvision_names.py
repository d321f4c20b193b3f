"""Names of torchvision's ConvNeXt, RegNet and Swin, whose order of layers is another, in timm's words.

Its ResNets, DenseNets and VGGs are named as timm's are, and its MobileNets and EfficientNets have the same order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# What stands where in torchvision's name -> the name in timm; {k}: the k-th number, {k/2}: half of it, {k+1}: the next.
_RULES = (
    # ConvNeXt: the parts of a stage and of the steps between two have turns
    (r"features\.0\.([01])\.", "stem.{0}."),
    (r"features\.(\d*[13579])\.(\d+)\.block\.0\.", "stages.{0/2}.blocks.{1}.conv_dw."),
    (r"features\.(\d*[13579])\.(\d+)\.block\.2\.", "stages.{0/2}.blocks.{1}.norm."),
    (r"features\.(\d*[13579])\.(\d+)\.block\.3\.", "stages.{0/2}.blocks.{1}.mlp.fc1."),
    (r"features\.(\d*[13579])\.(\d+)\.block\.5\.", "stages.{0/2}.blocks.{1}.mlp.fc2."),
    (r"features\.(\d*[13579])\.(\d+)\.layer_scale$", "stages.{0/2}.blocks.{1}.gamma"),
    (r"features\.(\d*[2468])\.([01])\.", "stages.{0/2}.downsample.{1}."),
    # Swin
    (r"features\.0\.0\.", "patch_embed.proj."),
    (r"features\.0\.2\.", "patch_embed.norm."),
    (r"features\.(\d*[13579])\.(\d+)\.mlp\.0\.", "layers.{0/2}.blocks.{1}.mlp.fc1."),
    (r"features\.(\d*[13579])\.(\d+)\.mlp\.3\.", "layers.{0/2}.blocks.{1}.mlp.fc2."),
    (r"features\.(\d*[13579])\.(\d+)\.", "layers.{0/2}.blocks.{1}."),
    (r"features\.(\d*[2468])\.", "layers.{0/2}.downsample."),
    # RegNet
    (r"stem\.0\.", "stem.conv."),
    (r"stem\.1\.", "stem.bn."),
    *(
        (rf"trunk_output\.block(\d)\.block\d-(\d+)\.{theirs}\.", "s{0}.b{1+1}." + ours)
        for theirs, ours in (
            (r"proj\.0", "downsample.conv."),
            (r"proj\.1", "downsample.bn."),
            (r"f\.a\.0", "conv1.conv."),
            (r"f\.a\.1", "conv1.bn."),
            (r"f\.b\.0", "conv2.conv."),
            (r"f\.b\.1", "conv2.bn."),
            (r"f\.se", "se."),
            (r"f\.c\.0", "conv3.conv."),
            (r"f\.c\.1", "conv3.bn."),
        )
    ),
)


def timm_names(name: str) -> Iterator[str]:
    """What torchvision's `name` may mean in timm, by each rule that it fits."""
    for pattern, ours in _RULES:
        if found := re.match(pattern, name):
            for k, number in enumerate(map(int, found.groups())):
                for word, value in ((f"{k}", number), (f"{k}/2", number // 2), (f"{k}+1", number + 1)):
                    ours = ours.replace(f"{{{word}}}", str(value))
            yield ours + name[found.end() :]
