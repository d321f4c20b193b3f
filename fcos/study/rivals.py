"""RetinaNet and an RPN on FCOS's backbone and FPN: what the paper compares FCOS with (1904.01355, tables 3 and 6).

Heads, anchors, matching, losses and decoding are torchvision's (arXiv 1708.02002, 1506.01497); backbone, FPN, pixels,
augmentation, schedule and loop are those of FCOS. The head of FCOS is exchanged, and `Predictions` carry the anchors'
numbers: logits [N,A,C], deltas [N,A,4] as `distances`, and no centerness.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import box_iou

from ..config import Config, ModelConfig
from ..data.dataset import Dataset
from ..detections import Detections
from ..errors import FcosError
from ..inference.detector import Detector
from ..network.model import FCOS
from ..points import level_shapes
from ..training.loop import Trainer
from ..training.monitor import sums_of
from ..training.run import RunOptions
from ..training.step import Learned, in_layout_of
from ..types import Batch, Losses, Predictions, Target
from .baselines import agnostic

RATIOS = (0.5, 1.0, 2.0)
_BASE = 4  # side of the smallest anchor in strides: 32 px at stride 8


class Shapes(NamedTuple):
    """The anchors [A,4] of an input, level after level, and how many each level has."""

    anchors: Tensor
    counts: list[int]


class Rival(FCOS):
    """FCOS's backbone and FPN under a head with anchors. images [N,3,H,W] -> Predictions of its A anchors."""

    def __init__(self, cfg: ModelConfig, num_classes: int, scales: Sequence[float]) -> None:
        super().__init__(cfg, num_classes)
        sizes = tuple(tuple(_BASE * stride * scale for scale in scales) for stride in cfg.strides)
        self.generator = AnchorGenerator(sizes, (RATIOS,) * len(sizes))
        self.each = len(scales) * len(RATIOS)  # anchors at a location

    def shapes(self, images: Tensor) -> Shapes:
        """The anchors of a batch of images [N,3,H,W]."""
        size = (int(images.shape[-2]), int(images.shape[-1]))
        grids = level_shapes(size, self.cfg.strides)
        maps = [torch.empty(1, 1, *grid, device=images.device) for grid in grids]
        anchors = self.generator(ImageList(images[:1], [size]), maps)[0]
        return Shapes(anchors, [rows * columns * self.each for rows, columns in grids])

    def losses(self, pred: Predictions, shapes: Shapes, targets: Sequence[Target]) -> tuple[Tensor, Tensor]:
        """(classification, box) losses of a batch, both means over its images."""
        raise NotImplementedError

    def find(self, pred: Predictions, shapes: Shapes, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """Detections of each image of (height, width) without padding, in pixels of the input."""
        raise NotImplementedError

    def propose(self, pred: Predictions, shapes: Shapes, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """The 1,000 best boxes of each image whatever their class, as the one class 0."""
        raise NotImplementedError


class RetinaNet(Rival):
    """Three scales by three shapes a location, focal loss and L1. `strong`: GroupNorm in the towers, and NMS at 0.6 as
    FCOS has it; the plain form has neither. Whether P6 comes from P5 or C5 is `model.extra_from`."""

    def __init__(self, cfg: ModelConfig, num_classes: int, strong: bool = False) -> None:
        super().__init__(cfg, num_classes, (1.0, 2 ** (1 / 3), 2 ** (2 / 3)))
        width = cfg.fpn_channels
        norm = partial(nn.GroupNorm, math.gcd(32, width)) if strong else None
        head = RetinaNetHead(width, self.each, num_classes, norm_layer=norm)
        self.add_module("head", _RetinaHead(head))
        rest = nn.Identity()
        rest.out_channels = width  # type: ignore[assignment]  # all that torchvision asks a body for
        self._rules = [
            TorchvisionRetinaNet(
                rest, num_classes, anchor_generator=self.generator, head=head,
                nms_thresh=0.6 if strong else 0.5, detections_per_img=100,
            )
        ]  # fmt: skip  # in a list: its head is in this network already

    @property
    def rules(self) -> TorchvisionRetinaNet:
        """torchvision's class, for matching, losses and decoding; it shares the head."""
        return self._rules[0]

    def losses(self, pred: Predictions, shapes: Shapes, targets: Sequence[Target]) -> tuple[Tensor, Tensor]:
        told = [_known(target) for target in targets]
        outputs = {"cls_logits": pred.logits, "bbox_regression": pred.distances}
        matched = [self._match(shapes.anchors, target) for target in targets]
        losses = self.rules.head.compute_loss(told, outputs, [shapes.anchors] * len(told), matched)
        return losses["classification"], losses["bbox_regression"]

    def _match(self, anchors: Tensor, target: Target) -> Tensor:
        matcher = self.rules.proposal_matcher
        boxes = target.boxes[~target.ignore]
        if len(boxes):
            matched: Tensor = matcher(box_iou(boxes, anchors))
        else:
            matched = torch.full((len(anchors),), matcher.BELOW_LOW_THRESHOLD, device=anchors.device)
        matched[(matched == matcher.BELOW_LOW_THRESHOLD) & _ignored(anchors, target)] = matcher.BETWEEN_THRESHOLDS
        return matched

    def find(self, pred: Predictions, shapes: Shapes, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        outputs = {
            "cls_logits": list(pred.logits.split(shapes.counts, dim=1)),
            "bbox_regression": list(pred.distances.split(shapes.counts, dim=1)),
        }
        anchors = [list(shapes.anchors.split(shapes.counts))] * len(sizes)
        rows = self.rules.postprocess_detections(outputs, anchors, list(sizes))
        return [_detections(r["boxes"], r["scores"], size, r["labels"]) for r, size in zip(rows, sizes, strict=True)]

    def propose(self, pred: Predictions, shapes: Shapes, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        rows = (
            agnostic(self.rules, (logits, deltas), shapes, size)
            for logits, deltas, size in zip(pred.logits, pred.distances, sizes, strict=True)
        )
        return [_detections(boxes, scores, size) for (boxes, scores), size in zip(rows, sizes, strict=True)]


class RPN(Rival):
    """Region proposals: three shapes of one scale a location, is there an object or not. It learns data of one
    class, and its detections are its proposals."""

    def __init__(self, cfg: ModelConfig) -> None:
        super().__init__(cfg, 1, (1.0,))
        head = RPNHead(cfg.fpn_channels, self.each)
        self.add_module("head", _RPNHead(head))
        many = {"training": 1000, "testing": 1000}
        self._rules = [RegionProposalNetwork(self.generator, head, 0.7, 0.3, 256, 0.5, many, many, 0.7)]

    @property
    def rules(self) -> RegionProposalNetwork:
        """torchvision's class with torchvision's numbers; it shares the head."""
        return self._rules[0]

    def losses(self, pred: Predictions, shapes: Shapes, targets: Sequence[Target]) -> tuple[Tensor, Tensor]:
        anchors = [shapes.anchors] * len(targets)
        labels, boxes = self.rules.assign_targets_to_anchors(anchors, [_known(t) for t in targets])
        for label, target in zip(labels, targets, strict=True):
            label[(label == 0) & _ignored(shapes.anchors, target)] = -1
        wanted = self.rules.box_coder.encode(boxes, anchors)
        classes, regression = self.rules.compute_loss(
            pred.logits.flatten(), pred.distances.reshape(-1, 4), labels, wanted
        )
        return classes, regression

    def find(self, pred: Predictions, shapes: Shapes, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        return self.propose(pred, shapes, sizes)

    def propose(self, pred: Predictions, shapes: Shapes, sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        self.rules.eval()
        boxes = self.rules.box_coder.decode(pred.distances.reshape(-1, 4), [shapes.anchors] * len(sizes))
        boxes = boxes.view(len(sizes), -1, 4)
        logits = pred.logits.flatten(1)
        best, scores = self.rules.filter_proposals(boxes, logits, list(sizes), shapes.counts)
        return [_detections(*row) for row in zip(best, scores, sizes, strict=True)]


class _RetinaHead(nn.Module):
    """torchvision's head as the network wants one: levels -> Predictions."""

    def __init__(self, inner: RetinaNetHead) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, levels: list[Tensor]) -> Predictions:
        outputs = self.inner(levels)
        logits = outputs["cls_logits"]
        return Predictions(logits, outputs["bbox_regression"], logits.new_zeros(len(logits), 0))


class _RPNHead(nn.Module):
    """torchvision's head as the network wants one: levels -> Predictions."""

    def __init__(self, inner: RPNHead) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, levels: list[Tensor]) -> Predictions:
        number = len(levels[0])
        logits, deltas = concat_box_prediction_layers(*self.inner(levels))
        return Predictions(logits.view(number, -1, 1), deltas.view(number, -1, 4), logits.new_zeros(number, 0))


def _known(target: Target) -> dict[str, Tensor]:
    """What torchvision is told of a target: boxes and labels, without those to ignore."""
    return {"boxes": target.boxes[~target.ignore], "labels": target.labels[~target.ignore]}


def _ignored(anchors: Tensor, target: Target) -> Tensor:
    """[A] bool: anchors whose centre lies in a box to ignore teach nothing, as FCOS's locations there."""
    boxes = target.boxes[target.ignore][:, None]
    center = (anchors[:, :2] + anchors[:, 2:])[None] / 2
    return ((center > boxes[..., :2]) & (center < boxes[..., 2:])).all(dim=-1).any(dim=0)


def _detections(boxes: Tensor, scores: Tensor, size: tuple[int, int], labels: Tensor | None = None) -> Detections:
    labels = torch.zeros_like(scores, dtype=torch.int64) if labels is None else labels
    return Detections(boxes, scores, labels, torch.full_like(labels, -1), size=size)


class RivalTrainer(Trainer):
    """The training program for a rival: its network, as `fresh` builds it, and its losses in place of FCOS's."""

    network: Rival

    def __init__(
        self, fresh: Callable[[], Rival], config: Config, data: Mapping[str, Dataset], options: RunOptions
    ) -> None:
        self._fresh = fresh
        super().__init__(config, data, options)

    def build(self) -> Rival:
        return self._fresh()

    def learn(self, batches: list[Batch]) -> Learned:
        parts: list[Losses] = []
        for i, batch in enumerate(batches):
            with self.fabric.no_backward_sync(self.model, enabled=i + 1 < len(batches)):
                exact = self.config.data.padding == "exact"
                images = batch.padded_with(self.config.model.mean) if exact else batch.images
                pred = Predictions(*self.model(in_layout_of(self.model, images)))
                losses = self.network.losses(pred, self.network.shapes(images), batch.targets)
                classes, boxes = (loss / len(batches) for loss in losses)
                self.fabric.backward(classes + boxes)
            parts.append(Losses(classes.detach(), boxes.detach(), torch.zeros_like(classes)))
        labels = torch.cat([t.labels[~t.ignore] for b in batches for t in b.targets])
        levels = len(self.config.model.strides)
        return Learned(sums_of(parts, labels, levels, len(self.classes)), parts, None)

    def not_finite(self, batches: list[Batch], learned: Learned, gradient: float) -> NoReturn:
        raise FcosError(
            f"step {self.step}: a loss or gradient of {type(self.network).__name__} is not finite; lower train.lr, or "
            "set train.clip=10"
        )


class RivalDetector(Detector):
    """A detector whose network is a Rival; `proposals` turns it into a source of proposals."""

    proposals = False

    @torch.inference_mode()
    def forward(self, images: Tensor, sizes: list[tuple[int, int]]) -> list[Detections]:
        network = self.network
        assert isinstance(network, Rival)
        with self._threads():
            images = images.to(self.device)
            pred, shapes = network(images), network.shapes(images)
            return (network.propose if self.proposals else network.find)(pred, shapes, sizes)


class RivalProposer(RivalDetector):
    """Its proposals, as `fcos.inference.proposals.proposer` gives those of FCOS."""

    proposals = True


def rival(kind: str, config: Config, classes: int) -> Rival:
    """A fresh network: "retinanet", "retinanet-strong" or "rpn"."""
    if kind == "rpn":
        return RPN(config.model)
    return RetinaNet(config.model, classes, strong=kind == "retinanet-strong")
