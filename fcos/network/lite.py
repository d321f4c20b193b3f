"""EfficientNet-Lite backbones, as a table and two blocks.

timm has these networks too, and their keys here are timm's. They are written down once more because the models in the
package stand on them: importing timm brings torchvision and with it torch.compile's machinery, which takes longer
than everything else between `fcos predict` and the first box (docs/measurements/speed.md).
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

# name -> how much wider and deeper than Lite0 (EfficientNet, arXiv 1905.11946; Lite: no squeeze-and-excitation, ReLU6)
SCALES = {
    "tf_efficientnet_lite0": (1.0, 1.0),
    "tf_efficientnet_lite1": (1.0, 1.1),
    "tf_efficientnet_lite2": (1.1, 1.2),
    "tf_efficientnet_lite3": (1.2, 1.4),
    "tf_efficientnet_lite4": (1.4, 1.8),
}
STEM = 32  # not scaled in Lite
REDUCTIONS = {2: 0, 4: 1, 8: 2, 16: 4, 32: 6}  # stride -> the last stage that has it


class Stage(NamedTuple):
    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


class LiteBackbone(nn.Module):
    """[N,3,H,W] -> the maps of `strides` (of 2, 4, 8, 16, 32), finest first; `channels` are theirs."""

    def __init__(self, name: str, strides: list[int]) -> None:
        super().__init__()
        self.wanted = [REDUCTIONS[s] for s in strides]
        stages = _scaled(*SCALES[name])[: max(self.wanted) + 1]
        self.channels = [stages[i].channels for i in self.wanted]
        self.conv_stem, self.bn1, self.act = _conv(3, STEM, 3, 2), _norm(STEM), nn.ReLU6(inplace=True)
        self.blocks = nn.Sequential()
        inputs = STEM
        for stage in stages:
            self.blocks.append(nn.Sequential())
            for i in range(stage.blocks):
                block = Block(inputs, stage, stage.stride if i == 0 else 1)
                self.blocks[-1].append(block)  # type: ignore[operator]
                inputs = stage.channels

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.act(self.bn1(self.conv_stem(x)))
        maps = {}
        for i, stage in enumerate(self.blocks):
            x = maps[i] = stage(x)
        return [maps[i] for i in self.wanted]


class Block(nn.Module):
    """Inverted residual (MobileNetV2, arXiv 1801.04381): 1x1 to more channels, depthwise, 1x1 to few, no activation
    behind the last; the first block of the network has no expansion. Adds its input where shapes allow."""

    def __init__(self, inputs: int, stage: Stage, stride: int) -> None:
        super().__init__()
        inner = inputs * stage.expansion
        self.skip = stride == 1 and inputs == stage.channels
        self.widens = stage.expansion > 1
        self.act = nn.ReLU6(inplace=True)
        if self.widens:
            self.conv_pw, self.bn1 = _conv(inputs, inner, 1), _norm(inner)
            self.conv_dw, self.bn2 = _conv(inner, inner, stage.kernel, stride, groups=inner), _norm(inner)
            self.conv_pwl, self.bn3 = _conv(inner, stage.channels, 1), _norm(stage.channels)
        else:
            self.conv_dw, self.bn1 = _conv(inner, inner, stage.kernel, stride, groups=inner), _norm(inner)
            self.conv_pw, self.bn2 = _conv(inner, stage.channels, 1), _norm(stage.channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.widens:
            y = self.act(self.bn1(self.conv_pw(x)))
            y = self.act(self.bn2(self.conv_dw(y)))
            y = self.bn3(self.conv_pwl(y))
        else:
            y = self.act(self.bn1(self.conv_dw(x)))
            y = self.bn2(self.conv_pw(y))
        result: Tensor = x + y if self.skip else y
        return result


class Conv2dSame(nn.Conv2d):
    """Convolution under TensorFlow's padding: the output has ceil(input / stride) places, and where the zeros around
    the input cannot be shared evenly, right and bottom get one more. Called as timm calls its own."""

    def pad(self, x: Tensor) -> Tensor:
        sides = zip(self.kernel_size, x.shape[-2:], self.stride, strict=True)
        high, wide = (max(kernel - (size % stride or stride), 0) for kernel, size, stride in sides)
        return F.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.pad(x))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    kind, padding = (nn.Conv2d, kernel // 2) if stride == 1 else (Conv2dSame, 0)
    conv = kind(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    nn.init.normal_(conv.weight, std=(2 * groups / (kernel * kernel * outputs)) ** 0.5)
    return conv


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def _scaled(width: float, depth: float) -> list[Stage]:
    """The table, wider and deeper; the first and the last stage keep their number of blocks."""
    ends = (0, len(STAGES) - 1)
    return [
        stage._replace(
            blocks=stage.blocks if i in ends else -int(-stage.blocks * depth // 1),
            channels=_in_eights(stage.channels * width),
        )
        for i, stage in enumerate(STAGES)
    ]


def _in_eights(channels: float) -> int:
    """The multiple of 8 next to `channels`, not more than a tenth below it."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near
