"""The network, top to bottom: backbone -> FPN P3-P7 -> one head shared by all levels -> Predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import REACH, ModelConfig
from ..types import Predictions
from .backbones import Backbone, DeformableConv2d
from .halving import Halving

# exp() of the first paper overflows to inf on a wild step; e^12 px is far outside any image
_MAX_EXPONENT = 12.0
BINS = REACH + 1  # of regression=bins: distances of 0 to 16 strides, twice what a level learns by itself


class FCOS(nn.Module):
    """FCOS (arXiv 1904.01355, 2006.09214): images [N,3,H,W] uint8 or float in 0..255, RGB -> Predictions.

    H and W are multiples of 32. One forward for training and inference alike; losses and decoding are
    functions of the Predictions (`fcos.losses`, `fcos.decode`).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, cfg: ModelConfig, num_classes: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.num_classes = num_classes
        self.register_buffer("mean", torch.tensor(cfg.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(cfg.std).view(1, 3, 1, 1), persistent=False)
        self.backbone = Backbone(cfg)
        self.fpn = (HRFPN if cfg.neck == "hrfpn" else FPN)(self.backbone.channels, cfg)
        self.head = Head(cfg, num_classes)

    def forward(self, images: Tensor) -> Predictions:
        result: Predictions = self.head(self.features(images))
        return result

    def features(self, images: Tensor) -> list[Tensor]:
        """The pyramid, one map [N,channels,H/stride,W/stride] per level."""
        result: list[Tensor] = self.fpn(self.backbone(self.normalize(images)))
        return result

    def normalize(self, images: Tensor) -> Tensor:
        """Pixels as the backbone expects them: mean and std applied, channels in its order."""
        x = (images.to(self.mean.dtype) - self.mean) / self.std
        x = x.flip(1) if self.cfg.bgr else x
        return x.to(next(self.backbone.parameters()).dtype)


class FPN(nn.Module):
    """Feature pyramid (Lin et al., arXiv 1612.03144) with stride-2 convs for the levels above the backbone's."""

    def __init__(self, channels: Sequence[int], cfg: ModelConfig) -> None:
        super().__init__()
        width = cfg.fpn_channels
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.output = nn.ModuleList(_conv3x3(width, width, cfg.fpn_depthwise) for _ in channels)
        self.extra_from = cfg.extra_from
        extra = len(cfg.strides) - len(channels)
        first = width if cfg.extra_from == "fpn" else channels[-1]
        self.extra = nn.ModuleList(
            _conv3x3(first if i == 0 else width, width, cfg.fpn_depthwise, stride=2) for i in range(extra)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        merged = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for i in range(len(merged) - 1, 0, -1):
            merged[i - 1] = merged[i - 1] + F.interpolate(merged[i], size=merged[i - 1].shape[-2:], mode="nearest")
        levels = [conv(x) for conv, x in zip(self.output, merged, strict=True)]
        x = levels[-1] if self.extra_from == "fpn" else maps[-1]
        for i, conv in enumerate(self.extra):
            x = conv(F.relu(x) if i else x)
            levels.append(x)
        return levels


class HRFPN(nn.Module):
    """HRNet's pyramid (Sun et al., arXiv 1904.04514) as mmdetection builds it for FCOS: maps at strides 4..32
    are enlarged and joined at stride 4, pooled 1, 2, 4, ... times, and each goes through a stride-2 conv.

    H and W are multiples of 64, so that pooling has whole cells to work on.
    """

    def __init__(self, channels: Sequence[int], cfg: ModelConfig) -> None:
        super().__init__()
        width, below = cfg.fpn_channels, len(channels) - 1
        self.reduction = nn.Conv2d(sum(channels), width, 1)
        self.output = nn.ModuleList(_conv3x3(width, width, cfg.fpn_depthwise, stride=2) for _ in range(below))
        above = len(cfg.strides) - below
        self.extra = nn.ModuleList(_conv3x3(width, width, cfg.fpn_depthwise, stride=2) for _ in range(above))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        size = maps[0].shape[-2:]
        wide = [maps[0], *(F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in maps[1:])]
        joined = self.reduction(torch.cat(wide, dim=1))
        convs = [*self.output, *self.extra]
        return [conv(F.avg_pool2d(joined, 2**i) if i else joined) for i, conv in enumerate(convs)]


class Head(nn.Module):
    """Two towers over every level, then class logits, distances and centerness; weights shared by the levels."""

    def __init__(self, cfg: ModelConfig, num_classes: int) -> None:
        super().__init__()
        self.cfg = cfg
        width, inputs = cfg.head_channels, cfg.fpn_channels
        self.shared = Tower(inputs, width, cfg.head_shared_convs, cfg)
        inputs = width if cfg.head_shared_convs else inputs
        self.classification = Tower(inputs, width, cfg.head_convs, cfg)
        self.regression = Tower(inputs, width, cfg.head_convs, cfg)
        width = width if cfg.head_convs else inputs
        self.class_logits = nn.Conv2d(width, num_classes, 3, padding=1)
        self.box_distances = nn.Conv2d(width, 4 * BINS if cfg.regression == "bins" else 4, 3, padding=1)
        self.centerness = nn.Conv2d(width, 1, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(cfg.strides))) if cfg.scale else None
        self.reset_outputs()

    def reset_outputs(self) -> None:
        """Fresh output layers (1904.01355: weights N(0, 0.01), class probability `prior`)."""
        for conv in (self.class_logits, self.box_distances, self.centerness):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.class_logits.bias, -math.log((1 - self.cfg.prior) / self.cfg.prior))  # type: ignore[arg-type]
        if self.cfg.regression == "relu":
            # start with boxes of a typical size: a relu that starts at zero may never wake (FCOS#310)
            nn.init.constant_(self.box_distances.bias, 2.0 if self.cfg.normalize else 32.0)  # type: ignore[arg-type]

    def forward(self, levels: Sequence[Tensor]) -> Predictions:
        rows = [self.level(x, i) for i, x in enumerate(levels)]
        logits, distances, centerness = (torch.cat(parts, dim=1) for parts in zip(*rows, strict=True))
        return Predictions(logits, distances, centerness)

    def level(self, x: Tensor, level: int) -> tuple[Tensor, Tensor, Tensor]:
        """One level's logits [N,HW,C], distances [N,HW,4] in pixels and centerness [N,HW]."""
        x = self.shared(x, level)
        classes, regression = self.classification(x, level), self.regression(x, level)
        carrier = regression if self.cfg.centerness_on == "regression" else classes
        return (
            _rows(self.class_logits(classes)),
            _rows(self.distances(regression, level)),
            _rows(self.centerness(carrier)).squeeze(-1),
        )

    def distances(self, x: Tensor, level: int) -> Tensor:
        """l, t, r, b [N,4,H,W] in pixels, >= 0; float32 even under autocast (bfloat16 has 8 bits)."""
        with torch.autocast(x.device.type, enabled=False):
            weight = self.box_distances.weight
            raw = self.box_distances(x.to(weight.dtype))
            raw = raw.float() if raw.dtype in (torch.bfloat16, torch.float16) else raw
            if self.scales is not None:
                raw = raw * self.scales[level]
            if self.cfg.regression == "bins":
                return _mean_of_bins(raw) * self.cfg.strides[level]
            positive = F.relu(raw) if self.cfg.regression == "relu" else raw.clamp(max=_MAX_EXPONENT).exp()
            return positive * self.cfg.strides[level] if self.cfg.normalize else positive


def _mean_of_bins(x: Tensor) -> Tensor:
    """[N,4,H,W]: the mean of 0 to BINS - 1 when x [N,4*BINS,H,W] says how likely each is, side by side (2006.04388)."""
    likely = x.unflatten(1, (4, BINS)).softmax(dim=2)
    steps = torch.arange(BINS, dtype=x.dtype, device=x.device).view(BINS, 1, 1)
    mean: Tensor = (likely * steps).sum(dim=2)
    return mean


class Tower(nn.Module):
    """`count` blocks of 3x3 conv, norm and ReLU: [N,inputs,H,W] -> [N,width,H,W]."""

    def __init__(self, inputs: int, width: int, count: int, cfg: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TowerLayer(width if i else inputs, width, cfg, cfg.head_deformable and i == count - 1) for i in range(count)
        )

    def forward(self, x: Tensor, level: int) -> Tensor:
        for layer in self.layers:
            x = layer(x, level)
        return x


class TowerLayer(nn.Module):
    """3x3 conv, norm, ReLU. BatchNorm keeps statistics and affine of its own for each level."""

    def __init__(self, inputs: int, width: int, cfg: ModelConfig, deformable: bool) -> None:
        super().__init__()
        self.conv: nn.Module
        if deformable:
            self.conv = DeformableConv2d(inputs, width, bias=cfg.head_bias)
            nn.init.normal_(self.conv.weight, std=0.01)
        else:
            self.conv = _conv3x3(inputs, width, cfg.head_depthwise, bias=cfg.head_bias)
            for module in self.conv.modules():
                if isinstance(module, nn.Conv2d):
                    if cfg.head_depthwise:
                        nn.init.kaiming_normal_(module.weight)
                    else:
                        nn.init.normal_(module.weight, std=0.01)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
        self.norm: nn.Module
        if cfg.head_norm == "group":
            self.norm = LevelGroupNorm(math.gcd(32, width), width)
        elif cfg.head_norm == "batch":
            self.norm = nn.ModuleList(nn.BatchNorm2d(width) for _ in cfg.strides)
        else:
            self.norm = nn.Identity()

    def forward(self, x: Tensor, level: int) -> Tensor:
        x = self.conv(x)
        if isinstance(self.norm, nn.ModuleList):
            x = self.norm[level](x)
        elif x.dtype == torch.bfloat16 and x.device.type == "cpu" and torch.is_grad_enabled():
            wide = next(self.norm.parameters(), x).dtype  # float32 under autocast, else that of x
            with torch.autocast("cpu", enabled=False):  # in bfloat16 its gradient takes five times as long
                x = self.norm(x.to(wide)).to(x.dtype)
        else:
            x = self.norm(x)
        return F.relu(x, inplace=True)


class LevelGroupNorm(nn.GroupNorm):
    """GroupNorm for levels of any size. nn.GroupNorm refuses groups of a single number, which narrow towers have on a
    level of one cell; here such a group becomes its bias."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def _conv3x3(inputs: int, outputs: int, depthwise: bool, stride: int = 1, bias: bool = True) -> nn.Module:
    kind = Halving if stride == 2 else nn.Conv2d
    if not depthwise:
        return kind(inputs, outputs, 3, stride=stride, padding=1, bias=bias)
    return nn.Sequential(
        kind(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=bias),
        nn.Conv2d(inputs, outputs, 1, bias=bias),
    )


def _rows(x: Tensor) -> Tensor:
    """[N,C,H,W] -> [N,HW,C]"""
    return x.permute(0, 2, 3, 1).flatten(1, 2)
