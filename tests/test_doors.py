"""Public functions work, and find the same, whatever their caller has set for torch; their errors speak Python."""

import json
import logging
from inspect import isfunction

import pytest
import torch
from tiny import NAMES, make_shapes, tiny_config

import fcos
from fcos.network import weights
from fcos.types import Classes

STEPS = {"train.iterations": 1}


def run(world, out):
    config = tiny_config()
    return fcos.train(world.data, model=config, out=out, settings=STEPS, init="none", device="cpu", quiet=True)


def corrected(world, out):
    (out.with_suffix(".json")).write_text(
        json.dumps({"fcos": "label decisions", "decisions": [], "data": str(world.data)})
    )
    return str(fcos.labels.apply(out.with_suffix(".json"), out=out).changes)


# of each public function, and of what a Detector does: something that it says
WAYS = {
    "compare": lambda w, out: fcos.compare(w.model, w.model, w.data, split="val", resamples=10).text(),
    "doctor": lambda w, out: fcos.doctor(w.data, tiny_config(), budget=0).text(),
    "evaluate": lambda w, out: fcos.evaluate(w.model, w.data, ci=True),
    "explain": lambda w, out: [(s.text(), s.draw().tolist()) for s in [fcos.explain(w.model, w.image)]],
    "load": lambda w, out: fcos.load(w.model, device="cpu")(w.image).to_dict(),
    "open_dataset": lambda w, out: [r.boxes.tolist() for r in fcos.open_dataset(w.data, "val").records],
    "preset": lambda w, out: fcos.preset("fcos-lite0").model_dump(),
    "save_dataset": lambda w, out: fcos.save_dataset(fcos.open_dataset(w.data, "val"), out, "yolo"),
    "train": lambda w, out: run(w, out).metrics,
    "labels.apply": corrected,
    "labels.check": lambda w, out: fcos.labels.check(w.data, model=w.model, split="val", quiet=True).text(),
    "labels.propose": lambda w, out: fcos.labels.propose([w.image], model=w.model, to="coco", out=out).boxes,
    "detector": lambda w, out: w.detector([w.image], tta="flip", score="0.1,disc=0.05")[0].to_dict(),
    "detector.stream": lambda w, out: [f.detections.to_dict() for f in w.detector.stream([w.image], score=0.05)],
    "detector.export": lambda w, out: w.detector.export(out.with_suffix(".torchscript"), size=64).file.name,
    "detections": lambda w, out: fcos.Detections([[1, 2, 3, 4]], [0.5], ["a"]).boxes.dtype,
}


class World:
    def __init__(self, folder):
        torch.manual_seed(3)
        config = tiny_config()
        network = weights.build(config, 2)
        torch.nn.init.constant_(network.head.class_logits.bias, 0.0)  # it fires everywhere
        self.data = make_shapes(folder / "shapes", {"train": 4, "val": 2})
        self.model = folder / "model.safetensors"
        weights.save(self.model, network.state_dict(), config, Classes(NAMES, (2, 7)))
        self.image = str(next((self.data / "images" / "val").iterdir()))
        self.detector = fcos.load(self.model, device="cpu", runtime="torch")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("doors"))


def test_every_public_function_is_tried():
    functions = {name for name in fcos.__all__ if isfunction(getattr(fcos, name))}
    functions |= {f"labels.{name}" for name in fcos.labels.__all__}
    assert functions == {name for name in WAYS if "det" not in name}


@pytest.mark.parametrize("name", WAYS)
def test_defaults_of_the_caller_change_nothing(name, world, tmp_path):
    expected = WAYS[name](world, tmp_path / "first")
    torch.set_default_dtype(torch.float64)
    threads = torch.get_num_threads()
    levels = {logging.getLogger(name): 7 for name in ("lightning_fabric", "torch.onnx", "matplotlib")}
    for logger, level in levels.items():
        logger.setLevel(level)
    try:
        with torch.device("meta"):  # where nothing can be computed
            found = WAYS[name](world, tmp_path / "second")
            assert torch.zeros(1).is_meta
        assert torch.get_default_dtype() == torch.float64
        assert torch.get_num_threads() == threads
        assert {logger: logger.level for logger in levels} == levels
    finally:
        torch.set_default_dtype(torch.float32)
    assert json.dumps(found, default=str).replace("second", "first") == json.dumps(expected, default=str)
