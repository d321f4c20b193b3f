"""Proposals of torchvision's detectors, to stand beside FCOS's own (1904.01355, section 5, table 6).

A state dict of torchvision's Faster R-CNN gives the proposals of its RPN, one of RetinaNet its boxes by the
most probable class, NMS over all classes. Nothing is downloaded and no code of the file is run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..analysis.common import with_files
from ..data.images.reading import read_image
from ..detections import Detections
from ..errors import ModelError
from ..system.progress import track

if TYPE_CHECKING:
    from ..config import DataConfig
    from ..data.dataset import Dataset

_ANCHORS = 9  # of RetinaNet, a location
_BEFORE = 1000  # boxes of a level that go through NMS


@dataclass(frozen=True)
class Baseline:
    """A torchvision detector by its builder's name; `propose(image [H,W,3] uint8)` gives boxes [K,4] in its
    pixels and their scores [K], best first."""

    name: str
    propose: Callable[[np.ndarray], tuple[Tensor, Tensor]]


def load_baseline(path: str | Path, data: DataConfig, most: int = 1000) -> Baseline:
    """Build the detector that a state dict belongs to; inputs have the size of `data`.

    Raises ModelError for a file that cannot be read or is neither a Faster R-CNN nor a RetinaNet with FPN.
    """
    from torchvision.models import detection

    from ..network.checkpoints import read_checkpoint

    state, _ = read_checkpoint(path)
    name = recognise(state)
    if name is None:
        raise ModelError(f"{path} is no state dict of torchvision's fasterrcnn_*_fpn or retinanet_*_fpn")
    options: dict[str, Any] = {"min_size": data.size, "max_size": data.max_size}
    if name.startswith("fasterrcnn"):
        classes = len(state["roi_heads.box_predictor.cls_score.bias"])
        limits = {"rpn_pre_nms_top_n_test": max(most, _BEFORE), "rpn_post_nms_top_n_test": most}
        options |= limits | {"rpn_score_thresh": 0.0}
    else:
        classes = len(state["head.classification_head.cls_logits.bias"]) // _ANCHORS
    model = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=classes, **options)
    frozen = not any(k.endswith("num_batches_tracked") for k in state)
    try:
        missing, spare = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelError(f"{path} looks like {name} but does not fit it: {reason}") from error
    missing = [k for k in missing if not (frozen and k.endswith("num_batches_tracked"))]
    if missing or spare:
        raise ModelError(f"{path} looks like {name} but does not fit it: missing {missing[:3]}, left over {spare[:3]}")
    if frozen:  # torchvision's published weights were trained with frozen norms without an epsilon
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 0.0
    model.eval().requires_grad_(False)
    run = _rpn if name.startswith("fasterrcnn") else _retinanet
    return Baseline(name, lambda image: run(model, image, most))


def recognise(state: dict[str, Tensor]) -> str | None:
    """The name of torchvision's builder that a state dict belongs to, None for anything else."""
    if "head.regression_head.bbox_ctrness.weight" in state:
        return None  # its FCOS
    if "head.classification_head.cls_logits.bias" in state:
        name = "retinanet_resnet50_fpn" if "backbone.body.layer3.5.conv1.weight" in state else None
        second = any(re.match(r"head\.classification_head\.conv\.\d\.1\.", k) for k in state)
    elif "rpn.head.cls_logits.bias" in state and "roi_heads.box_predictor.cls_score.bias" in state:
        if "backbone.body.0.0.weight" in state:
            return "fasterrcnn_mobilenet_v3_large_fpn"
        name = "fasterrcnn_resnet50_fpn" if "backbone.body.layer3.5.conv1.weight" in state else None
        second = any(k.startswith("rpn.head.conv.1.") for k in state)
    else:
        return None
    return f"{name}_v2" if name and second else name


def baseline_proposals(baseline: Baseline, dataset: Dataset) -> list[Detections]:
    """Its proposals on every image, as the one class 0."""
    detections = []
    for record in track(with_files(dataset).records, len(dataset), baseline.name):
        boxes, scores = baseline.propose(read_image(str(record.path)))
        none = torch.zeros(len(boxes), dtype=torch.int64)
        detections.append(Detections(boxes, scores, none, none - 1))
    return detections


def _input(model: Any, image: np.ndarray) -> tuple[Any, Tensor]:
    """(torchvision's image list of one image, factors [4] from its pixels to the image's)."""
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255
    images, _ = model.transform([tensor])
    (height, width), (rows, columns) = images.image_sizes[0], image.shape[:2]
    return images, torch.tensor([columns / width, rows / height] * 2)


@torch.inference_mode()
def _rpn(model: Any, image: np.ndarray, most: int) -> tuple[Tensor, Tensor]:
    images, ratio = _input(model, image)
    boxes, _ = model.rpn(images, model.backbone(images.tensors))
    boxes = boxes[0][:most] * ratio
    return boxes, torch.linspace(1, 0, len(boxes) + 1)[:-1]  # the RPN gives the order, not the scores


@torch.inference_mode()
def _retinanet(model: Any, image: np.ndarray, most: int) -> tuple[Tensor, Tensor]:
    images, ratio = _input(model, image)
    levels = list(model.backbone(images.tensors).values())
    outputs = model.head(levels)
    counts = [_ANCHORS * level.shape[-2] * level.shape[-1] for level in levels]
    anchors = model.anchor_generator(images, levels)[0]
    numbers = outputs["cls_logits"][0], outputs["bbox_regression"][0]
    boxes, scores = agnostic(model, numbers, (anchors, counts), images.image_sizes[0], most)
    return boxes * ratio, scores


def agnostic(
    model: Any,
    outputs: tuple[Tensor, Tensor],
    shapes: tuple[Tensor, Sequence[int]],
    size: tuple[int, int],
    most: int = 1000,
) -> tuple[Tensor, Tensor]:
    """The `most` best boxes [K,4] of a torchvision RetinaNet by their most probable class, and the scores [K], with NMS
    over all classes. outputs: logits [A,C] and deltas [A,4] of an image of `size`; shapes: the anchors [A,4], and how
    many each level has."""
    from torchvision.ops import clip_boxes_to_image, nms

    (logits, deltas), (anchors, counts) = outputs, shapes
    scores = logits.amax(dim=1).sigmoid()
    best = [part.topk(min(max(most, _BEFORE), len(part))).indices for part in scores.split(list(counts))]
    starts = np.cumsum([0, *counts[:-1]]).tolist()
    rows = torch.cat([start + part for start, part in zip(starts, best, strict=True)])
    boxes = clip_boxes_to_image(model.box_coder.decode_single(deltas[rows], anchors[rows]), size)
    keep = nms(boxes, scores[rows], model.nms_thresh)[:most]
    return boxes[keep], scores[rows][keep]
