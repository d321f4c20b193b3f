"""Decoding and NMS: hand-worked images, and a plain loop as the other implementation."""

import math

import numpy as np
import pytest
import torch
import torchvision
from apple import Apple
from hypothesis import given, settings
from hypothesis import strategies as st
from matching import assert_same_detections

from fcos.boxes import nms
from fcos.config import AssignConfig, DecodeConfig, ModelConfig
from fcos.decode import decode, select
from fcos.points import make_points
from fcos.presets import DIALECTS, preset, with_dialect
from fcos.types import Predictions

MODEL, ASSIGN = ModelConfig(), AssignConfig()
SIZE = (64, 96)


def empty_prediction(points, images=1, classes=2):
    shape = (images, len(points.xy))
    return Predictions(torch.full((*shape, classes), -12.0), torch.full((*shape, 4), 5.0), torch.zeros(shape))


def logit(p):
    return math.log(p / (1 - p))


def test_one_box_by_hand():
    points = make_points(SIZE, MODEL, ASSIGN)
    pred = empty_prediction(points)
    pred.logits[0, 13, 1] = logit(0.81)  # the point (12, 12) of P3
    pred.distances[0, 13] = torch.tensor([20.0, 3.0, 7.0, 5.0])
    pred.centerness[0, 13] = logit(0.64)
    (found,) = decode(pred, points, [(60, 90)], DecodeConfig())
    assert found.boxes.tolist() == [[0.0, 9.0, 19.0, 17.0]]
    assert found.scores.tolist() == pytest.approx([0.72])
    assert (found.labels.tolist(), found.points.tolist(), found.size) == ([1], [13], (60, 90))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"score": "product"}, 0.81 * 0.64),
        ({"score": "class"}, 0.81),
        ({"score": "power", "power": 0.25}, 0.81**0.25 * 0.64**0.75),
    ],
)
def test_score_rules(changes, expected):
    points = make_points(SIZE, MODEL, ASSIGN)
    pred = empty_prediction(points)
    pred.logits[0, 0, 0], pred.centerness[0, 0] = logit(0.81), logit(0.64)
    (found,) = decode(pred, points, [SIZE], DecodeConfig(**changes))
    assert found.scores.tolist() == pytest.approx([expected])


def test_nothing_found():
    points = make_points(SIZE, MODEL, ASSIGN)
    for rule in ("class", "agnostic", "soft-linear", "soft-gaussian", "none"):
        found = decode(empty_prediction(points, 2), points, [SIZE, SIZE], DecodeConfig(nms=rule))
        assert [len(f) for f in found] == [0, 0]
        assert found[0].boxes.shape == (0, 4)


def plain_select(pred, points, cfg):
    rows = []
    for level in range(len(points.grids)):
        here = []
        for p in (points.level == level).nonzero()[:, 0].tolist():
            for c in range(pred.logits.shape[1]):
                cls, ctr = torch.sigmoid(pred.logits[p, c]).item(), torch.sigmoid(pred.centerness[p]).item()
                rules = {"sqrt": math.sqrt(cls * ctr), "product": cls * ctr, "class": cls}
                score = (rules | {"power": cls**cfg.power * ctr ** (1 - cfg.power)})[cfg.score]
                if (cls if cfg.threshold_on == "class" else score) > cfg.threshold:
                    here.append((score if cfg.topk_by == "score" else cls, score, p, c))
        rows += sorted(here, reverse=True)[: cfg.topk]
    return {(p, c): s for _, s, p, c in rows}


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(["class", "score"]),
    st.sampled_from(["score", "class"]),
    st.sampled_from(["sqrt", "product", "class", "power"]),
    st.floats(0.01, 0.6),
    st.integers(1, 20),
)
def test_candidates_equal_a_plain_loop(seed, threshold_on, topk_by, score, threshold, topk):
    g = torch.Generator().manual_seed(seed)
    points = make_points(SIZE, MODEL, ASSIGN)
    pred = Predictions(
        torch.randn(len(points.xy), 2, generator=g) * 3,
        torch.rand(len(points.xy), 4, generator=g) * 9,
        torch.randn(len(points.xy), generator=g) * 2,
    )
    limits = {"threshold": threshold, "threshold_on": threshold_on, "topk": topk, "topk_by": topk_by}
    cfg = DecodeConfig(**limits, score=score, power=0.3)
    boxes, scores, labels, spots = select(pred, points, cfg)
    got = {(p, c): s for p, c, s in zip(spots.tolist(), labels.tolist(), scores.tolist(), strict=True)}
    expected = plain_select(pred, points, cfg)
    assert got.keys() == expected.keys()
    assert all(abs(got[k] - expected[k]) < 1e-5 for k in got)
    assert boxes.shape == (len(got), 4)


def test_class_nms_spares_other_classes_and_agnostic_does_not():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [1, 0, 11, 10]])
    scores, labels = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 0])
    assert nms(boxes, scores, labels, DecodeConfig())[0].tolist() == [0, 1]
    assert nms(boxes, scores, labels, DecodeConfig(nms="agnostic"))[0].tolist() == [0]
    assert nms(boxes, scores, labels, DecodeConfig(nms="none"))[0].tolist() == [0, 1, 2]
    assert nms(boxes, scores, labels, DecodeConfig(max_detections=1))[0].tolist() == [0]


def test_boxes_that_clipping_empties_go_before_nms():
    """Two detections are asked for. The best candidate lies in the padding: cut to (60, 90) it has no width. Under
    mmdetection's rule it never takes one of the two places; a box one pixel wide does."""
    points = make_points(SIZE, MODEL, ASSIGN)
    pred = empty_prediction(points)
    # the points (92, 4), (92, 20), (4, 4) and (4, 36) of P3, twelve in a row
    for spot, chance, distances in (
        (11, 0.9, [1.0, 4, 3, 4]),  # x from 91: wholly in the padding
        (2 * 12 + 11, 0.8, [3.0, 4, 3, 4]),  # x from 89: one column is left
        (0, 0.7, [3.0, 3, 3, 3]),
        (4 * 12, 0.6, [3.0, 3, 3, 3]),
    ):
        pred.logits[0, spot, 0], pred.distances[0, spot] = logit(chance), torch.tensor(distances)
    rules = {"score": "class", "max_detections": 2}
    (kept,) = decode(pred, points, [(60, 90)], DecodeConfig(**rules))
    assert kept.points.tolist() == [11, 35]
    assert kept.boxes[0].tolist() == [90, 0, 90, 8]
    (dropped,) = decode(pred, points, [(60, 90)], DecodeConfig(**rules, drop_empty=True))
    assert dropped.points.tolist() == [35, 0]
    assert dropped.boxes[0].tolist() == [89, 16, 90, 24]
    (one,) = decode(pred, points, [(60, 90)], DecodeConfig(**rules | {"threshold": 0.85}, drop_empty=True))
    assert len(one) == 0


def test_only_mmdetections_dialects_drop_empty_boxes_and_follow_mmcv():
    for name in DIALECTS:
        cfg = with_dialect(preset("fcos-r50"), name).decode
        assert (cfg.drop_empty, cfg.nms_rule == "mmcv") == ((True, True) if "mmdet" in name else (False, False))


def nms_of_mmcv(boxes, scores, labels, limit):
    """The rule of `mmcv.ops.batched_nms` in float32, written out: corners of each class moved by (highest corner + 1),
    one NMS below 10,000 boxes, else one for each class on the same moved corners."""
    one = np.float32(1)
    moved = boxes + labels.astype(np.float32)[:, None] * (boxes.max() + one)
    x1, y1, x2, y2 = moved.T
    areas = (x2 - x1) * (y2 - y1)
    groups = [np.arange(len(boxes))] if len(boxes) < 10_000 else [np.flatnonzero(labels == k) for k in set(labels)]
    kept = []
    for group in groups:
        order = group[np.argsort(-scores[group], kind="stable")]
        while len(order):
            i, rest = order[0], order[1:]
            kept.append(i)
            width = np.maximum(np.minimum(x2[i], x2[rest]) - np.maximum(x1[i], x1[rest]), np.float32(0))
            height = np.maximum(np.minimum(y2[i], y2[rest]) - np.maximum(y1[i], y1[rest]), np.float32(0))
            inside = width * height
            with np.errstate(invalid="ignore"):
                order = rest[~(inside / (areas[i] + areas[rest] - inside) > np.float32(limit))]
    return np.array(sorted(kept, key=lambda i: -scores[i]))


@pytest.mark.parametrize(
    ("count", "low", "differs"), [(900, 0, False), (1800, 0, True), (1800, -40, True), (10_500, 0, True)]
)
def test_nms_of_mmcv_at_any_count(count, low, differs):
    """Far corners of 80 classes lie near 100,000, where float32 knows 1/128 pixel: IoUs beside the limit change sides.
    torchvision stops moving at 1,000 boxes, mmcv never does. With negative corners classes reach into each other."""
    rng = np.random.default_rng(count + low)
    corner = (rng.integers(0, 60, (count, 2)) * 20).astype(np.float32) + low
    boxes = np.concatenate((corner, corner + rng.integers(1, 12, (count, 2)) * 11), axis=1).astype(np.float32)
    boxes += rng.choice(np.float32([0, 0.001, 0.003]), boxes.shape)  # at the limit or a hair beside it
    boxes[0, 2:] = 1333
    # an IoU of 0.50001, and of 0.5 where 79 * 1334 is added: the second goes, or stays
    boxes[1:3] = [[0, 0, 100, 100], [0, 0, 100, 50.001]]
    labels = rng.choice([0, 1, 78, 79], count)
    labels[1:3] = 79
    scores = (rng.permutation(count) / count).astype(np.float32)
    scores[1:3] = 3, 2
    given = [torch.from_numpy(v) for v in (boxes, scores, labels)]
    cfg = DecodeConfig(nms_iou=0.5, nms_rule="mmcv", max_detections=count)
    found = nms(*given, cfg)[0].numpy()
    assert np.array_equal(found, nms_of_mmcv(boxes, scores, labels, 0.5))
    other = nms(*given, cfg.model_copy(update={"nms_rule": "torchvision"}))[0].numpy()
    assert np.array_equal(found, other) != differs


@pytest.mark.parametrize(("classes", "side"), [(1203, 1333), (20, 32_768), (80, 10_000)])
def test_nms_per_class_is_exact_where_classes_are_many_or_images_large(classes, side):
    """Against one NMS for each class, without moved corners."""
    rng = np.random.default_rng(classes)
    corner = np.repeat(rng.uniform(0, side - 30, (225, 2)), 4, axis=0) + rng.uniform(0, 4, (900, 2))
    boxes = torch.from_numpy(np.concatenate((corner, corner + rng.uniform(12, 16, (900, 2))), axis=1)).float()
    labels = torch.from_numpy(np.repeat(rng.integers(classes // 2, classes, 225), 4))
    scores = torch.from_numpy(rng.permutation(900) / 900).float()
    found, _ = nms(boxes, scores, labels, DecodeConfig(nms_iou=0.5, max_detections=900))
    alone = [
        rows[torchvision.ops.nms(boxes[rows], scores[rows], 0.5)]
        for label in labels.unique()
        for rows in [(labels == label).nonzero()[:, 0]]
    ]
    assert sorted(found.tolist()) == sorted(torch.cat(alone).tolist())
    assert (scores[found].diff() < 0).all()


@pytest.mark.parametrize("side", [320, 1e6])
def test_boxes_of_a_step_of_learning_can_be_compared(side):
    boxes = (torch.rand(50, 2) * side).repeat(1, 2) + torch.tensor([0.0, 0, 9, 9])
    scores, labels = torch.rand(50), torch.arange(50) % 4
    learned, _ = nms(boxes.requires_grad_(), scores.requires_grad_(), labels, DecodeConfig())
    assert torch.equal(learned, nms(boxes.detach(), scores.detach(), labels, DecodeConfig())[0])


def test_the_limit_of_mmcv_is_float32():
    # 6 of 10 columns overlap: 0.6 in float32 is above 0.6 and equal to float32's 0.6
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 6]])
    scores, labels = torch.tensor([0.9, 0.8]), torch.tensor([0, 0])
    for kind in ("class", "agnostic"):
        assert len(nms(boxes, scores, labels, DecodeConfig(nms=kind))[0]) == 1
        assert len(nms(boxes, scores, labels, DecodeConfig(nms=kind, nms_rule="mmcv"))[0]) == 2


def test_plus_one_widths_change_what_touches():
    # widths 4 and 4: IoU 2/6 = .333 plain, 3/7 = .4286 when x2 - x1 + 1 counts (heights alike)
    boxes = torch.tensor([[0.0, 0, 4, 0.001], [2, 0, 6, 0.001]])
    scores, labels = torch.tensor([0.9, 0.8]), torch.tensor([0, 0])
    assert len(nms(boxes, scores, labels, DecodeConfig(nms_iou=0.4))[0]) == 2
    assert len(nms(boxes, scores, labels, DecodeConfig(nms_iou=0.4, nms_plus_one=True))[0]) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 3, 80]), st.sampled_from([0.25, 0.5, 0.6]), st.integers(1, 300))
def test_nms_of_many_boxes_equals_torchvisions(seed, classes, limit, count):
    g = torch.Generator().manual_seed(seed)
    low = torch.rand(1500, 2, generator=g) * 60
    boxes = torch.cat((low, low + torch.rand(1500, 2, generator=g) * 40), 1)
    if seed % 2:  # IoUs of exactly 1/2 and the like
        boxes = boxes.round()
    scores, labels = torch.randperm(1500, generator=g) / 1500, torch.randint(0, classes, (1500,), generator=g)
    cfg = DecodeConfig(nms_iou=limit, max_detections=count)
    keep = torch.cat([(labels == c).nonzero()[torchvision.ops.nms(boxes[labels == c], scores[labels == c], limit), 0]
                      for c in range(classes)])  # fmt: skip
    expected = keep[scores[keep].argsort(descending=True)][:count]
    assert torch.equal(nms(boxes, scores, labels, cfg)[0], expected)
    agnostic = torchvision.ops.nms(boxes, scores, limit)[:count]
    assert torch.equal(nms(boxes, scores, labels, DecodeConfig(**{**cfg.model_dump(), "nms": "agnostic"}))[0], agnostic)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_find_the_same(dtype):
    g = torch.Generator().manual_seed(3)
    points = make_points(SIZE, MODEL, ASSIGN)
    logits = (torch.randn(1, len(points.xy), 2, generator=g) * 3).bfloat16()
    pred = Predictions(logits, torch.full((1, len(points.xy), 4), 9.0), torch.zeros(1, len(points.xy)).bfloat16())
    (a,) = decode(pred, points, [SIZE], DecodeConfig())
    (b,) = decode(Predictions(*(v.to(dtype) for v in pred)), points, [SIZE], DecodeConfig())
    assert_same_detections(a, b, box=1e-3, score=1e-6)


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_a_bf16_logit_just_above_the_threshold_is_found_on_any_device(device):
    """-2.9375 lies above the limit of -2.9395; rounded to bf16 the limit would be -2.9375 itself."""
    with Apple():
        points = make_points(SIZE, MODEL, ASSIGN, device)
        pred = Predictions(*(value.bfloat16()[0].to(device) for value in empty_prediction(points)))
        pred.logits[7, 1] = -2.9375
        cfg = DecodeConfig(threshold=1 / (1 + math.exp(2.9395)), threshold_on="class")
        found = select(pred, points, cfg)
        assert (found.points.tolist(), found.labels.tolist()) == ([7], [1])


def plain_soft_nms(boxes, scores, labels, cfg):
    left = scores.tolist()
    out = []
    while len(out) < min(len(left), cfg.max_detections):
        best = max(range(len(left)), key=lambda i: left[i])
        if left[best] <= cfg.threshold * 0.1:
            break
        out.append((best, left[best]))
        for i in range(len(left)):
            if labels[i] == labels[best] and left[i] >= 0 and i != best:
                o = torchvision.ops.box_iou(boxes[best][None], boxes[i][None]).item()
                left[i] *= (1 - o if o > cfg.nms_iou else 1.0) if cfg.nms == "soft-linear" else math.exp(-o * o / 0.5)
        left[best] = -1.0
    return out


@pytest.mark.parametrize("rule", ["soft-linear", "soft-gaussian"])
def test_soft_nms_equals_a_plain_loop(rule):
    g = torch.Generator().manual_seed(5)
    low = torch.rand(40, 2, generator=g) * 30
    boxes = torch.cat((low, low + 10 + torch.rand(40, 2, generator=g) * 10), 1)
    scores, labels = torch.rand(40, generator=g), torch.randint(0, 2, (40,), generator=g)
    cfg = DecodeConfig(nms=rule, nms_iou=0.3)
    keep, lowered = nms(boxes, scores, labels, cfg)
    expected = plain_soft_nms(boxes, scores, labels, cfg)
    assert keep.tolist() == [i for i, _ in expected]
    assert lowered.tolist() == pytest.approx([s for _, s in expected], rel=1e-4)


def test_soft_nms_is_not_disturbed_by_empty_boxes():
    """Two boxes without an area overlap by 0 of 0, which must not hide what comes after them."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 5, 5], [5, 5, 5, 5], [20, 20, 30, 30]])
    scores = torch.tensor([0.9, 0.5, 0.4, 0.3])
    keep, lowered = nms(boxes, scores, torch.zeros(4, dtype=torch.int64), DecodeConfig(nms="soft-gaussian"))
    assert keep.tolist() == [0, 1, 2, 3]
    assert lowered.tolist() == pytest.approx(scores.tolist())


def test_clip_before_or_after_nms():
    points = make_points(SIZE, MODEL, ASSIGN)
    pred = empty_prediction(points)
    pred.logits[0, 0, 0], pred.logits[0, 11, 1] = 5.0, 6.0
    pred.distances[0, 0] = 500.0  # the other, around (92, 4), lies in the padding
    cases = (
        ("before", 0, [(60.0, 60.0), (60.0, 9.0)]),
        ("before", 1, [(59.0, 59.0), (59.0, 9.0)]),
        ("after", 1, [(59.0, 59.0)]),
        ("none", 0, [(504.0, 504.0), (97.0, 9.0)]),
    )
    for clip, margin, corners in cases:
        (found,) = decode(pred, points, [(60, 60)], DecodeConfig(clip=clip, clip_margin=margin))
        got = {point: tuple(box[2:]) for point, box in zip(found.points.tolist(), found.boxes.tolist(), strict=True)}
        assert got == dict(zip((0, 11), corners, strict=False))
