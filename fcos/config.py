"""Every setting of a detector, in one frozen value: `Config(model, assign, loss, decode, data, train)`.

Sources in order: preset < dialect < YAML file < `train.lr=0.01` on the command line. An unknown key is an
error that suggests the nearest name. The resolved config travels in the run folder, in every checkpoint
and in every export. Presets and dialects are in presets.py.
"""

from __future__ import annotations

from itertools import starmap
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .changes import flat, follow, merge, nest, parse_assignment
from .errors import ConfigError, worded
from .system.core_yaml import dump_yaml

ResizeRule = Literal["nearest", "short-exact", "two-step", "half-up", "floor"]


def _listed(value: object) -> object:
    """One value alone is a list of one, and nothing, as in `train.milestones=`, is an empty list."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return (value,) if value != "" else ()
    return value


_alone = BeforeValidator(_listed)
Stride = Annotated[int, Field(ge=1, le=4096)]
Share = Annotated[float, Field(ge=0, le=1)]
Mean = Annotated[float, Field(ge=-1e4, le=1e4)]
Deviation = Annotated[float, Field(ge=1e-3, le=1e4)]
Length = Annotated[float, Field(ge=0, le=1e9)]  # 1e8 is what others write for no limit
Sides = Annotated[tuple[Annotated[int, Field(ge=32, le=8192)], ...], _alone]
Stage = Annotated[int, Field(ge=1, le=4)]
Zoom = Annotated[float, Field(gt=0, le=100)]
CalibrationLine = tuple[Annotated[float, Field(gt=0, le=100)], Annotated[float, Field(ge=-100, le=100)]]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


def _f(default: Any, about: str, **limits: Any) -> Any:
    """A setting. A number without limits of its own gets wide ones: a thousand million, or a million for floats."""
    if type(default) in (int, float):
        widest = 10**9 if isinstance(default, int) else 1e6
        if not {"le", "lt"} & limits.keys():
            limits["le"] = widest
        if not {"ge", "gt"} & limits.keys():
            limits["ge"] = -widest
    return Field(default, description=about, **limits)


REACH = 16  # strides that the farthest bin of model.regression=bins is away


class ModelConfig(Section):
    """The network: backbone, FPN, head, and where its points lie."""

    backbone: str = _f("resnet50", "backbone: any timm name that gives feature maps, or 'plain' (small, from nothing)")
    backbone_weights: str = _f(
        "auto", "initial weights of the backbone: 'auto' (registry package or timm's hub), 'none', or a file"
    )
    backbone_norm: Literal["batch", "frozen"] = _f(
        "frozen", "BatchNorm of the backbone: trained, or fixed statistics and affine (small batches)"
    )
    backbone_norm_eps: float | None = _f(
        None, "epsilon of the backbone's BatchNorm; null: timm's own, 0 in the original", ge=0, le=1
    )
    stride_in_1x1: bool = _f(False, "ResNet bottlenecks stride in the 1x1 conv (Caffe style), not in the 3x3")
    deformable_stages: Annotated[tuple[Stage, ...], _alone] = _f(
        (), "backbone stages 1..4 whose 3x3 convs are deformable (DCNv2)"
    )
    mean: tuple[Mean, Mean, Mean] = _f((123.675, 116.28, 103.53), "pixel mean, RGB, 0..255")
    std: tuple[Deviation, Deviation, Deviation] = _f((58.395, 57.12, 57.375), "pixel standard deviation, RGB, 0..255")
    bgr: bool = _f(False, "the backbone expects blue first; mean and std here stay in RGB order")

    strides: Annotated[tuple[Stride, ...], _alone] = _f(
        (8, 16, 32, 64, 128), "stride of each level; up to 32 come from the backbone"
    )
    neck: Literal["fpn", "hrfpn"] = _f("fpn", "pyramid: FPN, or HRNet's (all branches joined, then pooled)")
    fpn_channels: int = _f(256, "channels of every FPN level", ge=8, le=4096)
    fpn_depthwise: bool = _f(False, "3x3 convs of the FPN are depthwise separable")
    extra_from: Literal["fpn", "body"] = _f("fpn", "P6 is made from P5 ('fpn') or from C5 ('body')")

    head_convs: int = _f(4, "3x3 convs in each tower", ge=0, le=8)
    head_shared_convs: int = _f(0, "3x3 convs in front of both towers", ge=0, le=8)
    head_channels: int = _f(256, "channels of the towers", ge=8, le=4096)
    head_depthwise: bool = _f(False, "tower convs are depthwise separable")
    head_norm: Literal["group", "batch", "none"] = _f(
        "group", "GroupNorm(32), or BatchNorm with statistics of its own for each level, or none"
    )
    head_bias: bool = _f(True, "tower convs have a bias")
    head_deformable: bool = _f(False, "the last conv of each tower is deformable (DCNv2)")
    centerness_on: Literal["regression", "classification"] = _f(
        "regression", "tower that carries the centerness branch (improved version: regression)"
    )
    scale: bool = _f(True, "one trainable factor per level in front of the distances")
    regression: Literal["relu", "exp", "bins"] = _f(
        "relu", "distances are relu(x), exp(x), or the mean of how likely 0 to 16 strides are (arXiv 2006.04388)"
    )
    normalize: bool = _f(True, "distances are predicted in units of the level's stride")
    prior: float = _f(0.01, "initial class probability", gt=0, lt=1)

    point_offset: float = _f(0.5, "a point lies at (index + offset) * spacing; torchvision: 0", ge=0, lt=1)
    point_spacing: Literal["stride", "grid"] = _f(
        "stride", "spacing of points: the stride, or image size // grid size (torchvision)"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.strides or any(b != 2 * a for a, b in zip(self.strides, self.strides[1:], strict=False)):
            raise ValueError(f"strides must double from level to level, not {self.strides}")
        if self.strides[0] not in (4, 8, 16, 32):
            raise ValueError(f"the first stride must be 4, 8, 16 or 32, not {self.strides[0]}")
        if self.neck == "hrfpn" and (self.strides[0] != 8 or len(self.strides) < 3):
            raise ValueError(f"neck=hrfpn needs the strides 8, 16, 32 and maybe more, not {self.strides}")
        if self.regression == "bins" and not self.normalize:
            raise ValueError("regression=bins counts in strides: set normalize=true")
        return self


class AssignConfig(Section):
    """Which point learns which box."""

    ranges: Annotated[tuple[Length, ...], _alone] = _f(
        (64.0, 128.0, 256.0, 512.0), "upper limit in pixels of max(l,t,r,b) for each level but the last"
    )
    range_rule: Literal["half-open", "inclusive", "strict"] = _f(
        "half-open", "a distance on the limit goes to the lower level / to both levels / to none"
    )
    center_radius: float = _f(1.5, "positives lie within this many strides of the box centre; 0: whole box", ge=0)
    area_plus_one: bool = _f(False, "areas count pixels: (w + 1)(h + 1), as the original")
    center_rule: Literal["distance", "region"] = _f(
        "distance",
        "near the centre: |offset| < radius, or inside the region centre - radius .. centre + radius cut to the box; "
        "they differ by float32 rounding (original, AdelaiDet, mmdetection: region)",
    )
    area_rule: Literal["exact", "rounded", "float32"] = _f(
        "exact",
        "smallest area by true argmin, of areas rounded to float32 (original, AdelaiDet, mmdetection), "
        "or by argmax of 1e8 - area in float32 (torchvision, detectron2)",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(b <= a for a, b in zip((0.0, *self.ranges), self.ranges, strict=False)):
            raise ValueError(f"ranges must be positive and rising, not {self.ranges}")
        return self


class LossConfig(Section):
    """The three losses and what divides them."""

    focal_alpha: float = _f(0.25, "weight of positives in the focal loss", ge=0, le=1)
    focal_gamma: float = _f(2.0, "focusing exponent of the focal loss", ge=0)
    box: Literal["giou", "iou", "linear_iou", "diou"] = _f("giou", "1 - GIoU, -log IoU, 1 - IoU or 1 - DIoU")
    iou_plus_one: bool = _f(False, "IoU as (i + 1) / (u + 1), in stride units when distances are normalised")
    log_weight: float = _f(0.0, "added to it: this times the mean of |log(predicted / true)| of l, t, r, b", ge=0)
    box_weights: Literal["centerness", "none"] = _f("centerness", "weight of each positive in the box loss")
    quality: Literal["centerness", "iou"] = _f("centerness", "what the centerness branch learns")
    normalizer: Literal["positives", "moving-average"] = _f(
        "positives", "divisor: positives of the whole step, or detectron2's moving average"
    )
    normalizer_scope: Literal["world", "process"] = _f(
        "world", "positives are counted over all processes or in each alone"
    )
    normalizer_start: float = _f(300.0, "first value of the moving average", gt=0)
    normalizer_momentum: float = _f(0.9, "momentum of the moving average", ge=0, lt=1)
    class_weight: float = _f(1.0, "factor of the classification loss", ge=0)
    box_weight: float = _f(1.0, "factor of the box loss", ge=0)
    centerness_weight: float = _f(1.0, "factor of the centerness loss; 0 trains without it", ge=0)


class DecodeConfig(Section):
    """From predictions to detections."""

    threshold: float = _f(0.05, "candidates below are dropped before NMS", ge=0, lt=1)
    threshold_on: Literal["class", "score"] = _f("class", "the threshold judges the class probability or the score")
    score: Literal["sqrt", "product", "class", "power"] = _f(
        "sqrt", "sqrt(cls * ctr), cls * ctr, cls, or cls^power * ctr^(1 - power)"
    )
    power: float = _f(0.5, "exponent of the 'power' score", ge=0, le=1)
    topk: int = _f(1000, "candidates kept per level", ge=1, le=1_000_000)
    topk_by: Literal["score", "class"] = _f("score", "what ranks the candidates of a level")
    clip: Literal["before", "after", "none"] = _f("before", "boxes are cut to the image before or after NMS")
    clip_margin: int = _f(0, "boxes end at width - margin; 1 in the original", ge=0, le=1)
    nms: Literal["class", "agnostic", "soft-linear", "soft-gaussian", "none"] = _f(
        "class", "NMS per class, over all classes, or soft-NMS per class"
    )
    nms_iou: float = _f(0.6, "a box that overlaps a better one by more than this IoU is dropped", ge=0, le=1)
    drop_empty: bool = _f(False, "boxes that clipping left without width or height go before NMS, as in mmdetection")
    nms_rule: Literal["torchvision", "mmcv"] = _f(
        "torchvision",
        "NMS per class: corners of 1,000 boxes and fewer moved apart by class, but not beyond 131,072 pixels / always "
        "moved, the limit in float32",
    )
    nms_plus_one: bool = _f(False, "NMS measures widths as x2 - x1 + 1, as the original")
    soft_sigma: float = _f(0.5, "width of Gaussian soft-NMS", gt=0)
    max_detections: int = _f(100, "detections kept per image", ge=1, le=1_000_000)
    shown: float | None = _f(
        None,
        "lowest score that is shown unless --score is given; training stores that of the best F1; null: 0.5, "
        "but 0.25 of a product of two probabilities and 0.3 of the class alone",
        ge=0,
        le=1,
    )

    calibrated: bool = _f(False, "scores are probabilities of being right, by `calibration` (docs/evaluation.md)")
    calibration: Annotated[tuple[CalibrationLine, ...], Field(max_length=100_000), _alone] = _f(
        (), "slope and offset of each class, or one for all: p = sigmoid(slope * logit(score) + offset)"
    )

    @model_validator(mode="after")
    def _can_be_calibrated(self) -> Self:
        if self.calibrated and not self.calibration:
            raise ValueError(
                f"calibrated: this model's scores (decode.score={self.score}) were never calibrated; see "
                "fcos models pack --calibrate"
            )
        return self

    @property
    def by_class(self) -> bool:
        """Whether the score is the class's alone, so that centerness has no part in it."""
        return self.score == "class" or (self.score == "power" and self.power == 1)

    @property
    def lowest_shown(self) -> float:
        """`shown`, or what stands for it in a model that has none: the geometric mean of two probabilities that are
        0.5 is 0.5, their product 0.25. (Evaluation counts every score.)"""
        if self.shown is not None:
            return self.shown
        return 0.5 if self.calibrated else {"product": 0.25, "class": 0.3}.get(self.score, 0.5)


def _names(value: object) -> object:
    """One name alone is a list of one, and a number is a name too."""
    if isinstance(value, str | int) and not isinstance(value, bool):
        return (str(value),) if value != "" else ()
    if isinstance(value, list | tuple):
        return tuple(str(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in value)
    return value


class DataConfig(Section):
    """How images become tensors, in training and after."""

    size: int = _f(800, "shorter side in pixels", ge=32, le=8192)
    max_size: int = _f(1333, "limit of the longer side", ge=32, le=16384)
    tile: int = _f(
        0,
        "learn from tiles of so many pixels of the images, and judge in them; 0: whole images (docs/tiles.md)",
        ge=0,
        le=16384,
    )
    learned_side: int = _f(
        0,
        "shorter side of the image (or tile) that the middle box was learned on; training keeps it for --tile auto",
        ge=0,
    )
    learned_boxes: tuple[Length, ...] = _f(
        (), "longer sides in pixels of the image that 5, 50 and 95 % of the learned boxes stay below; kept as well"
    )
    train_sizes: Sides = _f((), "shorter sides in training, one drawn per batch; empty: data.size")
    first_sizes: Sides = _f((), "the same for the first part of training: smaller ones are quicker")
    first_share: float = _f(0.5, "that part, as a share of all steps", ge=0, le=1)
    divisor: int = _f(32, "images are padded to a multiple of this", ge=1, le=1024)
    resample: Literal["auto", "linear", "pil", "torch"] = _f(
        "auto",
        "area when shrinking and linear when enlarging / linear / antialiased (PIL) / float (torchvision)",
    )
    round: ResizeRule = _f(
        "nearest",
        "rule of the resized sides: nearest pixel, or as the original / detectron2 / mmdetection / torchvision do",
    )
    padding: Literal["rounded", "exact"] = _f(
        "rounded",
        "colour of padding: the pixel mean in whole grey levels, which keeps images uint8, or exact",
    )
    inclusive_boxes: bool = _f(False, "learn x2 = x + w - 1, as the original; detections have x2 = x + w")
    flip: float = _f(0.5, "chance of a horizontal flip", ge=0, le=1)
    vertical_flip: float = _f(0.0, "chance of a vertical flip (microscopes, aerial images)", ge=0, le=1)
    crop: float = _f(0.0, "chance of a random crop / large-scale jitter", ge=0, le=1)
    crop_scale: tuple[Zoom, Zoom] = _f((0.5, 1.5), "zoom range of the jitter")
    color: float = _f(0.0, "strength of brightness, contrast, saturation and hue changes; 0: none", ge=0, le=1)
    mosaic: float = _f(0.0, "chance of a four-image mosaic", ge=0, le=1)
    mixup: float = _f(0.0, "chance of blending with another image", ge=0, le=1)
    paste: float = _f(0.0, "chance of one to three boxes of another image, put where they hide little", ge=0, le=1)
    plain_epochs: int = _f(0, "last epochs without mosaic, mixup and paste", ge=0)
    workers: int = _f(-1, "loader processes; -1: as the machine suggests, 0: in the training process", ge=-1, le=1024)
    cache: Literal["none", "ram", "disk"] = _f("none", "keep decoded, resized images")
    classes: Annotated[tuple[str, ...], BeforeValidator(_names)] = _f(
        (), "train and judge only these classes; empty: all"
    )
    single_class: bool = _f(False, "all objects are one class")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if 0 < self.tile < 32:
            raise ValueError(f"data.tile={self.tile} is too small; give at least 32 pixels, or 0 for whole images")
        if len(self.learned_boxes) not in (0, 3) or any(side < 0 for side in self.learned_boxes):
            raise ValueError(f"learned_boxes are three lengths, or none, not {self.learned_boxes}")
        if self.max_size < self.size:
            raise ValueError(f"max_size {self.max_size} is below size {self.size}; give both so that they fit")
        return self

    def sides(self, done: float = 1.0) -> tuple[int, ...]:
        """The shorter sides that training draws from when `done` of it, 0..1, lies behind."""
        first = self.first_sizes if done < self.first_share else ()
        return first or self.train_sizes or (self.size,)

    def largest_side(self) -> int:
        """The largest shorter side that training draws."""
        return max(self.sides(0.0) + self.sides())


class TrainConfig(Section):
    """The training run."""

    epochs: int = _f(24, "passes over the training images", ge=1)
    iterations: int = _f(0, "optimiser steps; 0: as epochs say", ge=0)
    batch: Annotated[int, BeforeValidator(lambda v: 0 if v == "auto" else v)] = _f(
        16,
        "images per optimiser step, over all processes; auto: as many as fit into memory (config.yaml has how many)",
        ge=0,
        le=65536,
    )
    accumulate: int = _f(1, "a step's images are computed in this many parts", ge=1, le=65536)
    lanes: Annotated[int, BeforeValidator(lambda v: 0 if v == "auto" else v)] = _f(
        0, "parts of a step that a CPU computes at once; auto: 2 for depthwise backbones, else 1", ge=0, le=64
    )
    optimizer: Literal["sgd", "adamw"] = _f("sgd", "SGD with momentum, or AdamW")
    lr: float = _f(0.01, "learning rate of the head at the given batch", gt=0)
    backbone_lr: float = _f(1.0, "factor of the learning rate of the backbone", ge=0)
    layer_decay: float = _f(1.0, "factor of the learning rate per backbone stage, from the top down", gt=0, le=1)
    momentum: float = _f(0.9, "SGD momentum or AdamW beta1", ge=0, lt=1)
    weight_decay: float = _f(1e-4, "weight decay", ge=0)
    decay_norm: bool | Literal["biases"] = _f(
        True, "weight decay acts on norms and biases too; biases: on biases, not on norms, as detectron2"
    )
    bias_lr: float = _f(1.0, "factor of the learning rate of biases; 2 in the original", gt=0)
    bias_decay: bool = _f(True, "weight decay acts on biases; not in the original")
    bias_of_norms: bool = _f(False, "bias_lr and bias_decay act on the biases of norms too; they do in the original")
    schedule: Literal["step", "cosine", "constant"] = _f("step", "shape of the learning rate")
    milestones: Annotated[tuple[Share, ...], _alone] = _f(
        (0.667, 0.889), "drops of the step schedule, as shares of the run"
    )
    gamma: float = _f(0.1, "factor of each drop", gt=0, lt=1)
    final_lr: float = _f(0.01, "last learning rate of the cosine, as a share", ge=0, le=1)
    warmup: int = _f(1000, "warm-up steps, at most a tenth of the run", ge=0)
    warmup_start: float = _f(0.001, "first learning rate of the warm-up, as a share", ge=0, le=1)
    warmup_rule: Literal["linear", "constant"] = _f("linear", "shape of the warm-up; the original: constant 1/3")
    clip: float = _f(0.0, "limit of the gradient norm; 0: none", ge=0)
    ema: float = _f(0.0, "decay of the averaged weights; 0: none", ge=0, lt=1)
    precision: Literal["auto", "fp32", "bf16"] = _f(
        "auto", "auto: bf16 on GPUs and on x86 CPUs where it is quicker (AMD's with its instructions, AMX), else fp32"
    )
    channels_last: bool | Literal["auto"] = _f(
        "auto", "memory layout of convolutions; auto: everywhere but for dense backbones on a CPU with AVX2 only"
    )
    compile: bool = _f(False, "torch.compile the network; on a CPU its first step takes minutes")
    checkpointing: bool = _f(False, "compute activations again in the backward pass: less memory, more time")
    freeze_stages: int = _f(
        0,
        "backbone stages kept fixed, counted from the stem (1: stem only; 2 in every published implementation)",
        ge=0,
        le=5,
    )
    linear_probe: int = _f(
        0, "fit new classes to this many images before the first step (linear probing, 2202.10054); 0: fresh", ge=0
    )
    balance: float = _f(0.0, "repeat images of rare classes: threshold of repeat sampling (LVIS); 0: off", ge=0)
    eval_every: int = _f(1, "epochs between evaluations; 0: only at the end", ge=0)
    eval_batch: Annotated[int, BeforeValidator(lambda v: 0 if v == "auto" else v)] = _f(
        0, "images that one process judges at once; auto: as many as it learns from at once", ge=0, le=4096
    )
    val_loss: bool = _f(True, "each evaluation also takes the loss of the validation split: one more pass over it")
    save_every: int = _f(
        500,
        "steps between checkpoints; there are others at ends of epochs that are judged or 20 seconds after the last",
        ge=1,
    )
    patience: int = _f(0, "stop after this many evaluations (train.eval_every) without a better AP; 0: never", ge=0)
    log_every: int = _f(10, "steps between rows of metrics.csv", ge=1)
    keep: Literal["resume", "weights"] = _f(
        "resume",
        "what stays at the end: the last checkpoint, to resume from, or the weights alone (a third of the size)",
    )
    plots: bool = _f(True, "draw plots into the run folder; false saves some seconds a run")
    logger: Annotated[
        tuple[Literal["tensorboard", "trackio", "wandb", "mlflow"], ...],
        _alone,
    ] = _f((), "logs beside metrics.csv: tensorboard, trackio, wandb, mlflow; several with commas")
    seed: int = _f(0, "seed of weights, order and augmentation", ge=0, le=2**32 - 1)
    deterministic: bool = _f(False, "refuse operations that differ from run to run")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.compile and self.checkpointing:
            raise ValueError("compile chooses by itself what to compute again; leave out checkpointing")
        return self


class Config(Section):
    """All settings of one detector; `fcos config` prints them with their meaning.

    >>> config = fcos.preset("fcos-lite0").override("data.size=512", {"decode": {"nms_iou": 0.5}})
    >>> config.data.size, config.data.max_size, config.decode.nms_iou
    (512, 853, 0.5)
    """

    name: str = _f("fcos-r50", "preset this config began as")
    dialect: str = _f("fcos", "published implementation whose conventions these settings follow")
    model: ModelConfig = ModelConfig()
    assign: AssignConfig = AssignConfig()
    loss: LossConfig = LossConfig()
    decode: DecodeConfig = DecodeConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.assign.ranges) != len(self.model.strides) - 1:
            raise ValueError(
                f"{len(self.model.strides)} levels need {len(self.model.strides) - 1} limits in assign.ranges, "
                f"not {len(self.assign.ranges)}"
            )
        half = max(32, self.model.strides[-1] // 2)
        if self.model.neck == "hrfpn" and self.data.divisor % half:  # it pools whole cells only
            raise ValueError(f"model.neck=hrfpn needs data.divisor={half} or a multiple, not {self.data.divisor}")
        return self

    def override(self, *changes: dict[str, Any] | str, source: str = "settings") -> Config:
        """A copy with dicts, {"train": {"lr": 0.01}} or {"train.lr": 0.01}, or "train.lr=0.01" applied in order.

        Another data.size takes the limit of the longer side with it, in proportion, and the sizes to learn at where
        there are any, unless they are given too. Another kind of score drops what was fitted to the one before:
        decode.shown and decode.calibration.

        Raises ConfigError for an unknown key (with the nearest name) or a wrong value.
        """
        data = self.model_dump()
        nested: list[dict[str, Any]] = []
        for change in changes:
            if not isinstance(change, str | dict):
                words = """give "train.lr=0.01" or {"train.lr": 0.01}"""
                raise ConfigError(f"{source}: {change!r} is no change of settings; {words}")
            nested += [parse_assignment(change)] if isinstance(change, str) else starmap(nest, change.items())
        for change in nested:
            merge(data, change, source)
        follow(data, self.model_dump(), {name for change in nested for name in flat(change)})
        return _validate(data, source)

    def __repr__(self) -> str:
        """One line; `dump` and `fcos config` say everything."""
        own = f", dialect {self.dialect}" if self.dialect != "fcos" else ""
        return f"Config({self.name}{own}: {self.model.backbone}, {self.data.size} px)"

    __str__ = __repr__

    def dump(self) -> str:
        """The config as YAML text."""
        return dump_yaml(self.model_dump(mode="json"))


def from_dict(data: dict[str, Any], source: str = "config") -> Config:
    """A whole config from nested dicts, such as one stored in a checkpoint."""
    base = Config().model_dump()
    merge(base, data, source)
    return _validate(base, source)


def describe(config: Config) -> list[tuple[str, Any, str]]:
    """(key, value, meaning) of every setting, in order."""
    rows: list[tuple[str, Any, str]] = []
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Section):
            for key, field in type(value).model_fields.items():
                rows.append((f"{name}.{key}", getattr(value, key), field.description or ""))
        else:
            rows.append((name, value, info.description or ""))
    return rows


def _validate(data: dict[str, Any], source: str) -> Config:
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if not isinstance(part, int))
        message = worded(first["msg"])
        where = f"{key}={first['input']!r}: " if key and not isinstance(first["input"], dict) else ""
        raise ConfigError(f"{source}: {where}{message[0].lower()}{message[1:]}") from error
