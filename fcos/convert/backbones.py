"""Names inside the backbone: ours are timm's."""

from __future__ import annotations

from .rules import Rule

_MOBILENET = (1, 2, 3, 4, 3, 3, 1)  # blocks a stage


def same(theirs: str) -> tuple[Rule, ...]:
    """Backbones whose names are timm's behind a prefix: torchvision's and mmdetection's ResNets, HRNet, DLA."""
    return (("backbone.body.{rest}", theirs + "{rest}"),)


def detectron2_resnet(theirs: str) -> tuple[Rule, ...]:
    """`res2`..`res5` with the norm inside the convolution; DCNv2 as `conv2_offset`."""
    rules: list[Rule] = [
        ("backbone.body.conv1.{k}", f"{theirs}stem.conv1.{{k}}"),
        ("backbone.body.bn1.{k}", f"{theirs}stem.conv1.norm.{{k}}"),
    ]
    for stage in (1, 2, 3, 4):
        ours, block = f"backbone.body.layer{stage}.{{i}}.", f"{theirs}res{stage + 1}.{{i}}."
        rules += [
            (f"{ours}conv2.offset.{{k}}", f"{block}conv2_offset.{{k}}"),
            (f"{ours}conv{{n}}.{{k}}", f"{block}conv{{n}}.{{k}}"),
            (f"{ours}bn{{n}}.{{k}}", f"{block}conv{{n}}.norm.{{k}}"),
            (f"{ours}downsample.0.{{k}}", f"{block}shortcut.{{k}}"),
            (f"{ours}downsample.1.{{k}}", f"{block}shortcut.norm.{{k}}"),
        ]
    return tuple(rules)


def mobilenet_v2(theirs: str) -> tuple[Rule, ...]:
    """`features.N`: the numbered list of Ji Lin's MobileNetV2, which the original and AdelaiDet use."""
    rules: list[Rule] = [
        ("backbone.body.conv_stem.{k}", f"{theirs}features.0.0.{{k}}"),
        ("backbone.body.bn1.{k}", f"{theirs}features.0.1.{{k}}"),
    ]
    number = 0
    for stage, blocks in enumerate(_MOBILENET):
        for block in range(blocks):
            number += 1
            convs = ("conv_dw", "conv_pw") if stage == 0 else ("conv_pw", "conv_dw", "conv_pwl")
            for i, conv in enumerate(convs):
                ours, other = f"backbone.body.blocks.{stage}.{block}.", f"{theirs}features.{number}.conv."
                rules += [
                    (f"{ours}{conv}.{{k}}", f"{other}{3 * i}.{{k}}"),
                    (f"{ours}bn{i + 1}.{{k}}", f"{other}{3 * i + 1}.{{k}}"),
                ]
    return tuple(rules)


def sequential_towers(ours: str, theirs: str) -> tuple[Rule, ...]:
    """A tower as nn.Sequential(conv, norm, ReLU, conv, ...)."""
    layer = f"{ours}.layers.{{i}}."
    return (
        (f"{layer}conv.offset.{{k}}", f"{theirs}.{{i*3}}.offset.{{k}}"),
        (f"{layer}conv.@{{k}}", f"{theirs}.{{i*3}}.conv.{{k}}"),
        (f"{layer}conv.{{k}}", f"{theirs}.{{i*3}}.{{k}}"),
        (f"{layer}norm.{{n}}.{{k}}", f"{theirs}.{{i*3+1}}.{{n}}.{{k}}"),
        (f"{layer}norm.{{k}}", f"{theirs}.{{i*3+1}}.{{k}}"),
    )
