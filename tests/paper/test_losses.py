"""Losses against torchvision, autograd and hand-worked values."""

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision

from fcos.assign import assign_batch
from fcos.boxes import to_corners
from fcos.config import AssignConfig, LossConfig, ModelConfig
from fcos.losses import (
    Assignment,
    box_loss,
    centerness_target,
    count,
    entropy_floor,
    fcos_loss,
    focal_sum,
    gather_positives,
    moving_average,
    normalizers,
)
from fcos.points import make_points
from fcos.types import IGNORED, Predictions, Target

MODEL, ASSIGN, LOSS = ModelConfig(), AssignConfig(), LossConfig()
SIZE = (128, 160)


def scene(count_, seed=0):
    g = torch.Generator().manual_seed(seed)
    low = torch.rand(count_, 2, generator=g) * 80
    boxes = torch.cat((low, low + 5 + torch.rand(count_, 2, generator=g) * 70), dim=1)
    return Target(boxes, torch.randint(0, 3, (count_,), generator=g), torch.zeros(count_, dtype=torch.bool))


def prediction(points, images, classes=3, seed=1, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    shape = (images, len(points.xy))
    return Predictions(
        torch.randn(*shape, classes, generator=g, dtype=dtype) * 2,
        torch.rand(*shape, 4, generator=g, dtype=dtype) * 60 + 0.1,
        torch.randn(*shape, generator=g, dtype=dtype),
    )


def setup(*counts):
    points = make_points(SIZE, MODEL, ASSIGN)
    targets = [scene(n, i) for i, n in enumerate(counts)]
    return points, targets, assign_batch(points, targets, ASSIGN), prediction(points, len(counts))


def test_centerness_by_hand():
    d = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 4.0, 2.0], [2.0, 1.0, 8.0, 9.0]])
    assert centerness_target(d).tolist() == pytest.approx([1.0, 0.5, math.sqrt(1 / 4 * 1 / 9)])


def test_focal_equals_torchvision_and_leaves_ignored_points_out():
    points, targets, index, pred = setup(4, 0, 3)
    index = index.clone()
    index[0, :50] = torch.where(index[0, :50] < 0, IGNORED, index[0, :50])
    pos = gather_positives(points, targets, index)
    truth = torch.zeros_like(pred.logits)
    truth[pos.image, pos.point, pos.label] = 1
    mine, theirs = pred.logits.clone().requires_grad_(), pred.logits.clone().requires_grad_()
    expected = torchvision.ops.sigmoid_focal_loss(theirs, truth, alpha=0.25, gamma=2.0)[index != IGNORED].sum()
    got = focal_sum(mine, index, pos, 0.25, 2.0)
    assert got.item() == pytest.approx(expected.item(), rel=1e-12)
    (slope,), (slope_there,) = torch.autograd.grad(got, mine), torch.autograd.grad(expected, theirs)
    torch.testing.assert_close(slope, slope_there)
    turned = pred.logits.permute(2, 0, 1).contiguous().permute(1, 2, 0)  # the same numbers in another memory layout
    assert focal_sum(turned, index, pos, 0.25, 2.0).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("gamma", [2.0, 1.5, 0.0])
def test_focal_gradient(gamma):
    points, targets, index, pred = setup(3)
    pos = gather_positives(points, targets, index)
    near = torch.cat((pos.point[:4], torch.arange(3)))  # a few rows suffice for finite differences
    index, points = index[:, near], points._replace(xy=points.xy[near])
    pos = gather_positives(points, targets, index)
    logits = pred.logits[:, near].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: focal_sum(x, index, pos, 0.25, gamma), logits)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("giou", torchvision.ops.generalized_box_iou_loss),
        ("diou", torchvision.ops.distance_box_iou_loss),
    ],
)
def test_box_losses_equal_torchvision(name, theirs):
    g = torch.Generator().manual_seed(3)
    xy = torch.rand(50, 2, generator=g, dtype=torch.float64) * 100
    a, b = (torch.rand(50, 4, generator=g, dtype=torch.float64) * 40 + 0.01 for _ in "ab")
    mine, _ = box_loss(a, b, LOSS.model_copy(update={"box": name}))
    torch.testing.assert_close(mine, theirs(to_corners(xy, a), to_corners(xy, b)), rtol=1e-6, atol=1e-6)


def test_iou_losses_by_hand():
    a, b = torch.tensor([[1.0, 1.0, 1.0, 1.0]]), torch.tensor([[1.0, 1.0, 3.0, 1.0]])  # 4 and 8 px², meeting in 4
    value = {}
    for name in ("iou", "linear_iou"):
        for plus in (False, True):
            cfg = LOSS.model_copy(update={"box": name, "iou_plus_one": plus})
            value[name, plus] = box_loss(a, b, cfg)[0].item()
    assert value["iou", False] == pytest.approx(math.log(2), rel=1e-5)
    assert value["linear_iou", False] == pytest.approx(0.5, rel=1e-5)
    assert value["iou", True] == pytest.approx(-math.log(5 / 9), rel=1e-5)
    assert value["linear_iou", True] == pytest.approx(4 / 9, rel=1e-5)


def test_a_box_of_no_size_gives_a_finite_loss():
    for name in ("giou", "iou", "linear_iou", "diou"):
        zero = torch.zeros(1, 4, requires_grad=True)
        loss, _ = box_loss(zero, torch.tensor([[3.0, 4.0, 5.0, 6.0]]), LOSS.model_copy(update={"box": name}))
        loss.sum().backward()
        assert torch.isfinite(loss).all()
        assert torch.isfinite(zero.grad).all()


def test_the_whole_loss_written_out():
    points, targets, index, pred = setup(4, 2)
    got = fcos_loss(pred, Assignment.of(points, targets, index), LOSS, MODEL)
    truth = torch.zeros_like(pred.logits)
    box, branch, weight, n = 0.0, 0.0, 0.0, 0
    for image, target in enumerate(targets):
        for p in (index[image] >= 0).nonzero()[:, 0].tolist():
            k = int(index[image, p])
            truth[image, p, target.labels[k]] = 1
            (x, y), (x1, y1, x2, y2) = points.xy[p].tolist(), target.boxes[k].tolist()
            left, top, right, bottom = x - x1, y - y1, x2 - x, y2 - y
            c = math.sqrt(min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom))
            a = to_corners(points.xy[p].double(), pred.distances[image, p])[None]
            box += c * torchvision.ops.generalized_box_iou_loss(a, target.boxes[k].double()[None]).item()
            z = pred.centerness[image, p].item()
            branch += -(c * math.log(1 / (1 + math.exp(-z))) + (1 - c) * math.log(1 / (1 + math.exp(z))))
            weight, n = weight + c, n + 1
    classes = torchvision.ops.sigmoid_focal_loss(pred.logits, truth, 0.25, 2.0, "sum").item()
    assert [v.item() for v in got] == pytest.approx([classes / n, box / weight, branch / n], rel=1e-5)


def test_a_batch_without_objects_has_a_loss_and_gradients():
    points, targets, index, pred = setup(0, 0)
    leaves = Predictions(*(v.clone().requires_grad_() for v in pred))
    losses = fcos_loss(leaves, Assignment.of(points, targets, index), LOSS, MODEL)
    losses.total().backward()
    assert losses.box.item() == 0
    assert losses.centerness.item() == 0
    assert losses.classification.item() > 0
    assert all(v.grad is not None and torch.isfinite(v.grad).all() for v in leaves)


def test_logarithms_of_distances_by_hand():
    """Twice or half of each distance is log 2 away, in any unit; a distance of 0 is far away, not infinitely."""
    truth = torch.tensor([[2.0, 4.0, 8.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    found = torch.tensor([[4.0, 2.0, 8.0, 1.0], [0.0, 1.0, 1.0, 1.0]])
    plain, overlap = box_loss(found, truth, LOSS)
    more, same = box_loss(found, truth, LOSS.model_copy(update={"log_weight": 3.0}))
    assert torch.equal(overlap, same)
    expected = [3 * 2 * math.log(2) / 4, 3 * math.log(1000) / 4]
    assert (more - plain).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("quality", ["centerness", "iou"])
@pytest.mark.parametrize("weights", ["centerness", "none"])
def test_parts_add_up_to_the_whole(quality, weights):
    """Normalisers summed over parts make two half batches one whole batch: the base of exact accumulation."""
    cfg = LOSS.model_copy(update={"quality": quality, "box_weights": weights})
    points, targets, index, pred = setup(4, 0, 3, 1)
    whole = fcos_loss(pred, Assignment.of(points, targets, index), cfg, MODEL)
    halves = [slice(0, 1), slice(1, 4)]
    total = sum(count(gather_positives(points, targets[h], index[h]), cfg) for h in halves)
    norm = normalizers(total, cfg)
    parts = [
        fcos_loss(Predictions(*(v[h] for v in pred)), Assignment.of(points, targets[h], index[h]), cfg, MODEL, norm)
        for h in halves
    ]
    for whole_term, *part_terms in zip(whole, *parts, strict=True):
        assert sum(part_terms).item() == pytest.approx(whole_term.item(), rel=1e-6)


@pytest.mark.parametrize("weights", ["centerness", "none"])
@pytest.mark.parametrize("positives", [0, 1, 3, 40])
def test_the_divisors_of_processes_make_the_mean_of_their_gradients_that_of_one(positives, weights):
    """With no object in any image too, and with fewer positives than processes."""
    cfg = LOSS.model_copy(update={"box_weights": weights})
    total = torch.tensor([positives, 0.3 * positives])
    one, four = normalizers(total, cfg), normalizers(total, cfg, world=4)
    for alone, shared in zip(one, four, strict=True):
        assert float(4 * shared) == pytest.approx(float(alone), rel=1e-6)
    assert float(one[0]) == max(1.0, positives)
    averaged = cfg.model_copy(update={"normalizer": "moving-average"})
    assert all(float(n) == 5.0 for n in normalizers(total, averaged, world=4, average=20.0))


def test_moving_average_of_detectron2():
    cfg = LOSS.model_copy(update={"normalizer": "moving-average"})
    first = moving_average(None, 89.0, cfg)
    assert first == pytest.approx(278.9)  # dialects.md
    assert moving_average(first, 0.0, cfg) == pytest.approx(278.9 * 0.9 + 0.1)


def test_entropy_floor_is_the_loss_of_a_perfect_branch():
    t = torch.rand(200, dtype=torch.float64).clamp(0.01, 0.99)
    perfect = F.binary_cross_entropy_with_logits(torch.logit(t), t)
    assert entropy_floor(t).item() == pytest.approx(perfect.item(), rel=1e-9)
    assert entropy_floor(t[:0]).item() == 0
    assert entropy_floor(torch.tensor([0.0, 1.0])).item() == pytest.approx(0, abs=1e-5)  # a point on an edge, or amid


def test_the_branch_learns_the_iou_and_not_the_iou_the_branch():
    points, targets, index, pred = setup(4, 2)
    distances = pred.distances.clone().requires_grad_()
    cfg = LOSS.model_copy(update={"quality": "iou"})
    losses = fcos_loss(pred._replace(distances=distances), Assignment.of(points, targets, index), cfg, MODEL)
    assert losses.box.requires_grad
    assert not losses.centerness.requires_grad
