"""The numbers beside the losses, against cases worked by hand and the plain rules."""

import math

import pytest
import torch

from fcos.assign import assign_batch, candidates
from fcos.config import AssignConfig, LossConfig, ModelConfig
from fcos.losses import Assignment, Normalizers, count, fcos_loss, gather_positives, normalizers
from fcos.points import make_points
from fcos.training.monitor import StepReport, add_crowded, count_crowded, measure
from fcos.training.step import Part
from fcos.types import Predictions, Target

MODEL = ModelConfig(strides=(8, 16))
ASSIGN = AssignConfig(ranges=(32.0,), center_radius=0.0)


def target(boxes, labels, ignore=None):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    ignore = torch.zeros(len(boxes), dtype=torch.bool) if ignore is None else torch.tensor(ignore, dtype=torch.bool)
    return Target(boxes, torch.tensor(labels, dtype=torch.int64), ignore)


def part(losses, pred, positives):
    return Part(losses, pred.distances[positives.image, positives.point], positives)


def step(targets, distances, centerness=None, classes=3, cfg=None, ambiguous=True):
    """Reports of a step whose prediction at every location is `distances`."""
    cfg = cfg or LossConfig()
    points = make_points((64, 64), MODEL, ASSIGN)
    index = assign_batch(points, targets, ASSIGN)
    positives = gather_positives(points, targets, index)
    shape = (len(targets), len(points.xy))
    pred = Predictions(
        torch.full((*shape, classes), -2.0),
        torch.tensor(distances).expand(*shape, 4).clone(),
        torch.zeros(shape) if centerness is None else centerness(points, targets, index, positives),
    )
    norm = normalizers(count(positives, cfg), cfg)
    losses = fcos_loss(pred, Assignment(index, positives), cfg, MODEL, norm)
    sums = measure([part(losses, pred, positives)], points, norm, cfg, classes)
    if ambiguous:
        add_crowded(sums, count_crowded(points, targets, ASSIGN))
    return points, positives, sums


def test_counts_by_hand():
    """A box of 16x16 around 4 points of stride 8 and one of 48x48 for the second level (max side > 32)."""
    targets = [target([[0, 0, 16, 16]], [2]), target([[0, 0, 48, 48]], [0])]
    points, positives, sums = step(targets, [8.0, 8.0, 8.0, 8.0])
    report = StepReport.of(sums.tolist(), 2)
    second = positives.point >= points.grids[1].start
    assert report.by_level == [int((~second).sum()), int(second.sum())]
    assert report.by_level[0] >= 4
    assert report.positives == sum(report.by_level) == len(positives.point)
    assert report.seen == {0, 2}
    assert report.ambiguous == 0.0
    assert report.dead == 0.0


def test_mean_iou_and_dead_positives():
    targets = [target([[0, 0, 16, 16]], [0])]
    *_, sums = step(targets, [0.0, 0.0, 0.0, 0.0])
    assert StepReport.of(sums.tolist(), 2).dead == 1.0
    assert StepReport.of(sums.tolist(), 2).mean_iou == 0.0
    _, positives, sums = step(targets, [4.0, 4.0, 4.0, 4.0])
    truth = positives.distances
    inside = torch.minimum(truth, torch.tensor(4.0))
    overlap = (inside[:, 0] + inside[:, 2]) * (inside[:, 1] + inside[:, 3])
    expected = overlap / (16 * 16 + 8 * 8 - overlap)
    assert StepReport.of(sums.tolist(), 2).mean_iou == pytest.approx(float(expected.mean()), rel=1e-5)


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_a_perfect_centerness_branch_has_no_excess(weight):
    def perfect(points, targets, index, positives):
        left, top, right, bottom = positives.distances.unbind(1)
        across = torch.minimum(left, right) / torch.maximum(left, right)
        down = torch.minimum(top, bottom) / torch.maximum(top, bottom)
        learned = torch.zeros(index.shape)
        learned[positives.image, positives.point] = torch.logit((across * down).sqrt())
        return learned

    targets = [target([[0, 0, 30, 20]], [0]), target([[10, 10, 33, 44], [40, 3, 60, 30]], [1, 2])]
    cfg = LossConfig(centerness_weight=weight)
    *_, sums = step(targets, [4.0] * 4, perfect, cfg=cfg)
    report = StepReport.of(sums.tolist(), 2)
    assert report.centerness > 0.1 * weight
    assert report.centerness_excess == pytest.approx(0.0, abs=1e-6)
    *_, sums = step(targets, [4.0] * 4, cfg=cfg)
    assert StepReport.of(sums.tolist(), 2).centerness_excess > 0.01 * weight


def test_ambiguous_locations_follow_the_plain_rule():
    generator = torch.Generator().manual_seed(3)
    targets = []
    for number in (0, 1, 9, 14):
        corner = torch.rand(number, 2, generator=generator) * 40
        boxes = torch.cat((corner, corner + 4 + torch.rand(number, 2, generator=generator) * 30), dim=1)
        targets.append(target(boxes.tolist(), [0] * number, (torch.rand(number, generator=generator) < 0.2).tolist()))
    points, _, sums = step(targets, [4.0] * 4)
    times = [candidates(points, t.boxes[~t.ignore], ASSIGN).sum(dim=1) for t in targets]
    crowded, some = (sum(int((n > k).sum()) for n in times) for k in (1, 0))
    report = StepReport.of(sums.tolist(), 2)
    assert crowded > 10
    assert report.positives == some
    assert report.ambiguous == pytest.approx(crowded / some)
    *_, sums = step(targets, [4.0] * 4, ambiguous=False)
    assert StepReport.of(sums.tolist(), 2).ambiguous is None


def test_no_boxes():
    *_, sums = step([target([], [])], [4.0] * 4)
    report = StepReport.of(sums.tolist(), 2)
    assert (report.positives, report.mean_iou, report.ambiguous, report.seen) == (0, 0.0, 0.0, frozenset())
    assert math.isfinite(report.loss)


def test_processes_add_up():
    """Two processes with half of a step each, divided by means per process, tell what one with all of it does."""
    cfg = LossConfig()
    targets = [target([[0, 0, 30, 20]], [0]), target([[10, 10, 33, 44], [40, 3, 60, 30]], [1, 2])]
    points, _, whole = step(targets, [4.0] * 4)
    halves = []
    index = assign_batch(points, targets, ASSIGN)
    total = count(gather_positives(points, targets, index), cfg)
    norm = normalizers(total, cfg, world=2)
    assert isinstance(norm, Normalizers)
    for i, one in enumerate(targets):
        positives = gather_positives(points, [one], index[i : i + 1])
        shape = (1, len(points.xy))
        pred = Predictions(torch.full((*shape, 3), -2.0), torch.full((*shape, 4), 4.0), torch.zeros(shape))
        losses = fcos_loss(pred, Assignment(index[i : i + 1], positives), cfg, MODEL, norm)
        sums = measure([part(losses, pred, positives)], points, norm, cfg, 3)
        add_crowded(sums, count_crowded(points, [one], ASSIGN))
        halves.append(sums)
    one, two = StepReport.of(whole.tolist(), 2), StepReport.of(sum(halves).tolist(), 2, world=2)
    for name in ("loss", "classification", "box", "centerness", "centerness_excess", "mean_iou", "ambiguous"):
        assert getattr(two, name) == pytest.approx(getattr(one, name), rel=1e-5), name
    assert (two.positives, two.by_level, two.seen) == (one.positives, one.by_level, one.seen)
