"""Live parity with torchvision's FCOS: same weights, same images, the torchvision dialect."""

import copy

import numpy as np
import pytest
import torch
import torchvision
from matching import assert_same_detections

from fcos.assign import assign, assign_batch
from fcos.convert.translate import Hints, from_state
from fcos.inference.detector import Detector
from fcos.losses import Assignment, fcos_loss
from fcos.network import weights
from fcos.points import make_points
from fcos.types import Target

SHORT, LONGEST = 160, 288


@pytest.fixture(scope="module")
def pair():
    """(torchvision's model, ours): random weights and statistics that find plenty of boxes."""
    torch.manual_seed(0)
    theirs = torchvision.models.detection.fcos_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=SHORT, max_size=LONGEST
    )
    for name, module in theirs.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(
                module.weight, 0.3 if name.endswith("bn3") else 0.8, 0.4 if name.endswith("bn3") else 1.2
            )
            torch.nn.init.uniform_(module.bias, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.8, 1.2)
    head = theirs.head
    for tower in (head.classification_head.conv, head.regression_head.conv):
        for module in tower:
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_uniform_(module.weight)
    torch.nn.init.normal_(head.classification_head.cls_logits.weight, std=0.02)
    torch.nn.init.constant_(head.classification_head.cls_logits.bias, -3.0)
    torch.nn.init.normal_(head.regression_head.bbox_reg.weight, std=0.02)
    torch.nn.init.constant_(head.regression_head.bbox_reg.bias, 2.0)
    converted = from_state(
        theirs.state_dict(), hints=Hints(overrides=[f"data.size={SHORT}", f"data.max_size={LONGEST}"])
    )
    network = weights.build(converted.config, len(converted.classes))
    weights.load_state(network, converted.state, "torchvision")
    return theirs.eval(), Detector(network.eval(), converted.config, converted.classes)


def scene_pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.ascontiguousarray(small.repeat(8, 0).repeat(8, 1)[:height, :width])


@torch.inference_mode()
@pytest.mark.parametrize("size", [(128, 256), (160, 224), (96, 160), (256, 128)])
def test_head_outputs(pair, size):
    theirs, detector = pair
    pixels = torch.from_numpy(scene_pixels(*size)).permute(2, 0, 1)[None]
    ours = detector.network(pixels)
    normalized = torch.stack([theirs.transform.normalize(p / 255) for p in pixels])
    out = theirs.head(list(theirs.backbone(normalized).values()))
    levels = torch.cat([torch.full((g.height * g.width,), float(g.stride)) for g in detector.points(size).grids])
    for mine, other in (
        (ours.logits, out["cls_logits"]),
        (ours.distances, out["bbox_regression"] * levels[None, :, None]),
        (ours.centerness, out["bbox_ctrness"].squeeze(-1)),
    ):
        assert (mine - other).abs().max() <= 1e-4 * other.abs().max()


@pytest.mark.parametrize(
    "size", [(120, 200), (160, 240), (240, 161), (97, 333), (200, 120), (33, 40)], ids=lambda s: f"{s[0]}x{s[1]}"
)
def test_detections_from_the_picture_on(pair, size):
    theirs, detector = pair
    image = scene_pixels(*size, seed=size[1])
    with torch.inference_mode():
        (reference,) = theirs([torch.from_numpy(image).permute(2, 0, 1) / 255])
    found = detector(image, score=0)
    assert len(found) > 20
    assert_same_detections(found, reference, box=2e-2)


def scene(draw: torch.Generator, size: tuple[int, int], count: int, whole: bool = False) -> Target:
    height, width = size
    corner = torch.rand(count, 2, generator=draw) * torch.tensor([width * 0.8, height * 0.8])
    extent = torch.rand(count, 2, generator=draw) ** 2 * torch.tensor([width, height]) + 3
    boxes = torch.cat((corner, torch.minimum(corner + extent, torch.tensor([width, height]))), dim=1)
    if whole:
        boxes = boxes.round()
    return Target(boxes, torch.randint(0, 91, (count,), generator=draw), torch.zeros(count, dtype=torch.bool))


def matched_by_torchvision(model, size, target):
    """torchvision's own assignment, taken where its loss receives it."""
    model = copy.copy(model)
    seen = {}

    class Head:
        @staticmethod
        def compute_loss(targets, outputs, anchors, matched):
            seen["index"] = matched[0]

    object.__setattr__(model, "_modules", dict(model._modules))
    model._modules["head"] = torch.nn.Identity()
    model._modules["head"].compute_loss = Head.compute_loss
    images = torchvision.models.detection.image_list.ImageList(torch.zeros(1, 3, *size), [size])
    maps = [torch.zeros(1, 1, -(-size[0] // s), -(-size[1] // s)) for s in (8, 16, 32, 64, 128)]
    anchors = model.anchor_generator(images, maps)
    counts = [m.shape[-2] * m.shape[-1] for m in maps]
    model.compute_loss([{"boxes": target.boxes, "labels": target.labels}], {}, anchors, counts)
    return seen["index"]


def test_assignment_is_torchvisions_on_random_scenes_and_differs_from_ours_only_in_its_ties(pair):
    theirs, detector = pair
    config = detector.config
    exact = config.assign.model_copy(update={"area_rule": "exact"})
    draw = torch.Generator().manual_seed(0)
    tied = 0
    for number in range(24):
        size = [(256, 384), (800, 1088), (320, 416), (608, 800)][number % 4]
        target = scene(draw, size, 40, whole=number % 2 == 0)
        if number % 3 == 0:  # twins, a little larger, come first
            twins = target.boxes + torch.tensor([0.0, 0.0, 0.02, 0.01])
            target = Target(torch.cat((twins, target.boxes)), target.labels.repeat(2), target.ignore.repeat(2))
        points = make_points(size, config.model, config.assign)
        reference = matched_by_torchvision(theirs, size, target)
        assert torch.equal(assign(points, target.boxes, config.assign), reference)
        assert torch.equal(assign_batch(points, [target], config.assign)[0], reference)
        ours = assign(points, target.boxes, exact)
        sides = target.boxes[:, 2:] - target.boxes[:, :2]
        area = sides[:, 0] * sides[:, 1]
        for point in (ours != reference).nonzero()[:, 0].tolist():
            mine, other = area[ours[point]], area[reference[point]]
            assert mine < other  # ours is the smaller box
            assert 1e8 - mine == 1e8 - other  # which 1e8 - area cannot tell in float32
            tied += 1
    assert tied > 0  # it happens


@pytest.mark.parametrize("size", [(128, 256), (160, 224)])
def test_losses(pair, size):
    theirs, detector = pair
    config = detector.config
    draw = torch.Generator().manual_seed(1)
    targets = [scene(draw, size, 12), scene(draw, size, 5)]
    pixels = torch.stack([torch.from_numpy(scene_pixels(*size, seed=s)).permute(2, 0, 1) for s in (1, 2)])
    with torch.inference_mode():
        normalized = torch.stack([theirs.transform.normalize(p / 255) for p in pixels])
        maps = list(theirs.backbone(normalized).values())
        images = torchvision.models.detection.image_list.ImageList(normalized, [size] * 2)
        reference = theirs.compute_loss(
            [{"boxes": t.boxes, "labels": t.labels} for t in targets],
            theirs.head(maps),
            theirs.anchor_generator(images, maps),
            [m.shape[-2] * m.shape[-1] for m in maps],
        )
        points = make_points(size, config.model, config.assign)
        index = assign_batch(points, targets, config.assign)
        losses = fcos_loss(detector.network(pixels), Assignment.of(points, targets, index), config.loss, config.model)
    for mine, name in zip(losses, ("classification", "bbox_regression", "bbox_ctrness"), strict=True):
        assert abs(float(mine) - float(reference[name])) <= 1e-5 * max(1.0, float(reference[name])), name
