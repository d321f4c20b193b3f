"""A detector as a source of proposals, in place of an RPN (1904.01355, section 5)."""

from __future__ import annotations

from torch import Tensor

from ..types import Classes, Predictions
from .detector import Detector


def proposer(detector: Detector, most: int = 1000) -> Detector:
    """The same network as a source of proposals (1904.01355, section 5: in place of an RPN): each location
    gives one box with the score of its most probable class and its centerness, NMS takes all boxes for one
    class, and the `most` best stay, whatever their score. Its one class, "object", has the id of the
    detector's first, so that results fit data with those ids."""
    detector = detector.in_torch()
    network = detector.network

    def highest(images: Tensor) -> Predictions:
        predictions = network(images)
        return predictions._replace(logits=predictions.logits.amax(dim=-1, keepdim=True))

    cfg = detector.config.decode
    changes = {"threshold": 0.0, "nms": "agnostic", "max_detections": most, "topk": max(most, cfg.topk), "shown": 0.0}
    of_classes = {"calibrated": False, "calibration": ()}
    config = detector.config.override({"decode": {**changes, **of_classes}})
    classes = Classes(("object",), detector.classes.ids[:1])
    return detector.replace(network=highest, config=config, classes=classes)
