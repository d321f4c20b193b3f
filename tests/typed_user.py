"""A small program of a user; `mypy --strict` and pyright must find its types (tests/test_typed_user.py)."""

from pathlib import Path
from typing import assert_type

import numpy as np
import torch
from PIL import Image

import fcos
from fcos.detections import Detection, Results
from fcos.evaluation.coco import Metrics
from fcos.training.monitor import StepReport

model = fcos.load("fcos-lite0", device="cpu", threads=2)
assert_type(model, fcos.Detector)
found = model("photo.jpg", score=0.3)
assert_type(found, fcos.Detections)
assert_type(model(np.zeros((9, 9, 3), np.uint8)), fcos.Detections)
assert_type(model(["a.jpg", "b.jpg"], batch=2), Results)
assert_type(model(["a.jpg", Path("b.jpg"), np.zeros((9, 9, 3), np.uint8), Image.new("RGB", (9, 9))]), Results)
assert_type(model(("a.jpg", Path("b.jpg"))), Results)
assert_type(fcos.Detections([[1, 2, 30, 40]], [0.5], ["cat"]).boxes, torch.Tensor)
assert_type(fcos.Detections(np.zeros((1, 4)), np.ones(1), torch.zeros(1), names=["cat"]).labels, torch.Tensor)
assert_type(found[0], Detection)
assert_type(found["cat"], fcos.Detections)
assert_type(found[found.scores > 0.5], fcos.Detections)
assert_type(found[:2], fcos.Detections)
for detection in found:
    assert_type(detection.name, str)
    assert_type(detection.score, float)
    assert_type(detection.box, tuple[float, float, float, float])
names: list[str] = [d.name for d in found]
data = fcos.open_dataset("my_data", "val")
assert_type(data, fcos.Dataset)
metrics = fcos.evaluate(model, data)
ap: float = metrics.ap
ap = fcos.evaluate("runs/mine", "my_data", split="test", allow_missing=True).ap50
written = model.export("model.onnx", dynamic="batch", data="my_data").file
wider = model.replace(config=model.config.override("data.size=512"))
assert_type(wider, fcos.Detector)
text: str = fcos.explain(model, "photo.jpg").text()
serious: bool = fcos.doctor("my_data", settings={"data.size": 512}, budget=0).serious


def each_step(step: int, report: StepReport) -> None:
    print(step, report.loss, report.mean_iou)


def each_epoch(epoch: float, metrics: Metrics | None) -> None:
    print(epoch, None if metrics is None else metrics.ap50)


chance: float = fcos.labels.check("my_data", model="runs/mine", split="val").findings[0].chance
result = fcos.train("my_data", out="runs/mine", settings={"train.epochs": 5}, on_step=each_step, on_epoch=each_epoch)
assert_type(result.detector, fcos.Detector)
assert_type(result.metrics, Metrics | None)
again = fcos.train({"train": data}, settings=["train.lr=0.001"], holdout=0.2, quiet=True)
own: float = fcos.evaluate(again.folder, ci=True).f1
