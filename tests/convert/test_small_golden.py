"""Small cases of what the other implementations computed, which every checkout has (tests/golden/README.md)."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from matching import assert_same_detections

from fcos.assign import assign_batch
from fcos.convert.translate import Hints, from_state
from fcos.decode import decode_image
from fcos.inference.detector import Detector
from fcos.losses import Assignment, fcos_loss, gather_positives
from fcos.network import weights
from fcos.points import make_points
from fcos.presets import preset, with_dialect
from fcos.types import Predictions, Target

FOLDER = Path(__file__).resolve().parents[1] / "golden"
FOUR = ("original", "adelaidet", "detectron2", "mmdet")


@cache
def four():
    with np.load(FOLDER / "four.npz") as file:
        return {key: torch.from_numpy(value) for key, value in file.items()}


def part(dialect):
    return {k.partition(".")[2]: v for k, v in four().items() if k.startswith(f"{dialect}.")}


def scene(dialect):
    """(config, points, targets, index) of the two images, padded to 256 x 320."""
    config = with_dialect(preset("fcos-r50"), dialect)
    points = make_points((256, 320), config.model, config.assign)
    targets = [
        Target(four()[f"boxes{i}"], four()[f"labels{i}"], torch.zeros(len(four()[f"labels{i}"]), dtype=torch.bool))
        for i in (0, 1)
    ]
    return config, points, targets, assign_batch(points, targets, config.assign)


@pytest.mark.parametrize("dialect", FOUR)
def test_targets(dialect):
    golden, (_, points, targets, index) = part(dialect), scene(dialect)
    positives = gather_positives(points, targets, index)
    assert torch.equal(torch.stack((positives.image, positives.point), dim=1), golden["spots"])
    assert torch.equal(positives.label, golden["spot_labels"])
    torch.testing.assert_close(positives.distances, golden["spot_sides"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("dialect", FOUR)
def test_losses_of_boxes_and_centerness(dialect):
    """Both need only what the head says at the positives."""
    golden, (config, points, targets, index) = part(dialect), scene(dialect)
    shape = (2, len(points.xy))
    pred = Predictions(torch.zeros(*shape, 1), torch.ones(*shape, 4), torch.zeros(shape))
    at = tuple(golden["spots"].T)
    pred.distances[at], pred.centerness[at] = golden["spot_distances"], golden["spot_centerness"]
    targets = [Target(t.boxes, t.labels * 0, t.ignore) for t in targets]
    losses = fcos_loss(pred, Assignment.of(points, targets, index), config.loss, config.model)
    torch.testing.assert_close(torch.stack(losses)[1:], golden["losses"][1:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dialect", FOUR)
def test_detections(dialect):
    """Classes do not meet in NMS: theirs of six classes among 100 of 80 are the first ones of those classes here."""
    golden, (config, points, *_) = part(dialect), scene(dialect)
    pred = Predictions(golden["logits"], golden["distances"], golden["centerness"])
    height, width = four()["sizes"][0].tolist()
    found = decode_image(pred, points, (height, width), config.decode)[: len(golden["scores"])]
    assert len(golden["scores"]) >= 6
    assert torch.equal(found.labels, golden["labels"])
    torch.testing.assert_close(found.scores, golden["scores"], atol=1e-6, rtol=0)
    torch.testing.assert_close(found.boxes, golden["boxes"], atol=1e-4, rtol=0)


# --------------------------------------------------------------------------- torchvision, from the weights on


@cache
def maker():
    spec = importlib.util.spec_from_file_location("make_golden", FOLDER / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def torchvisions():
    with np.load(FOLDER / "torchvision.npz") as file:
        golden = {k: torch.from_numpy(v) for k, v in file.items() if k != "versions"}
    sizes = [f"data.size={maker().SIZE[0]}", f"data.max_size={maker().SIZE[1]}"]
    found = from_state(maker().tiny().state_dict(), hints=Hints(overrides=sizes))
    network = weights.build(found.config, len(found.classes))
    weights.load_state(network, found.state, "torchvision")
    return golden, Detector(network.eval(), found.config, found.classes)


@torch.inference_mode()
def test_torchvisions_head_outputs_losses_and_detections(torchvisions):
    golden, detector = torchvisions
    pixels = maker().image()
    points = detector.points(maker().SIZE)
    raw = detector.network(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    strides = points.stride[:, None]
    for mine, theirs in (
        (raw.logits[0], golden["logits"]),
        (raw.distances[0], golden["distances"] * strides),
        (raw.centerness[0], golden["centerness"]),
    ):
        assert (mine - theirs).abs().max() <= 1e-4 * theirs.abs().max()
    targets = [Target(maker().BOXES, maker().LABELS, torch.zeros(len(maker().LABELS), dtype=torch.bool))]
    index = assign_batch(points, targets, detector.config.assign)
    losses = fcos_loss(raw, Assignment.of(points, targets, index), detector.config.loss, detector.config.model)
    torch.testing.assert_close(torch.stack(losses).double(), golden["losses"], rtol=1e-4, atol=1e-5)
    theirs = [golden[k] for k in ("boxes", "scores", "labels")]
    assert_same_detections(detector(pixels, score=0), dict(zip(("boxes", "scores", "labels"), theirs, strict=True)))
