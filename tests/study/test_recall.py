"""Best possible recall and ambiguity: hand-worked scenes, and the fast ways against the plain ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fcos.analysis.scan import scan
from fcos.assign import assign, candidate_pairs, candidates
from fcos.boxes import iou
from fcos.config import AssignConfig, Config, DataConfig, ModelConfig
from fcos.data.classes import inclusive
from fcos.data.dataset import Dataset
from fcos.data.records import Record
from fcos.detections import Detections
from fcos.points import make_points
from fcos.study.ambiguity import ambiguity_study, ambiguous_detections
from fcos.study.anchors import LOW, POSITIVE, Matched, anchor_shapes, grid_anchors, match
from fcos.study.recall import p4_only, recall_study, retinanet_recall, sampling
from fcos.types import Classes

NATIVE = Config(data=DataConfig(size=256, max_size=256))


def dataset(*scenes, size=(256, 256), classes=3):
    """Each scene: rows of (x1, y1, x2, y2, label, ignore)."""
    records = []
    for i, scene in enumerate(scenes):
        rows = np.array(scene, np.float32).reshape(-1, 6)
        boxes = rows[:, :4].copy()
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        records.append(
            Record(i + 1, None, size, boxes, rows[:, 4].astype(np.int64), rows[:, 5] > 0, areas, f"{i + 1}.jpg")
        )
    return Dataset(tuple(records), Classes(tuple("abcdefgh"[:classes])), "test", "val", Path("made"))


def random_boxes(seed, count, side=256):
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=g) * side * 0.9
    extent = (torch.rand(count, 2, generator=g) ** 2) * side * 0.8 + 1.0
    return torch.cat((corner, torch.minimum(corner + extent, torch.tensor(float(side)))), dim=1)


def test_a_box_between_the_points_is_not_recalled():
    # points of P3 at 4, 12, 20, ...: nothing lies in (5, 5)-(11, 11); (1, 1)-(7, 7) holds (4, 4)
    found = scan(dataset([(5, 5, 11, 11, 0, 0), (1, 1, 7, 7, 0, 0)]), sampling(NATIVE, 0))
    assert found.recall == 0.5
    assert found.no_location.tolist() == [True, False]
    assert found.learned.tolist() == [[0] * 5, [1, 0, 0, 0, 0]]


def test_a_box_under_a_smaller_twin_is_outranked():
    # both hold only the point (4, 4); the smaller one takes it
    found = scan(dataset([(1, 1, 8, 8, 0, 0), (1, 1, 7, 7, 1, 0)]), sampling(NATIVE, 0))
    assert found.recalled.tolist() == [False, True]
    assert found.outranked.tolist() == [True, False]
    assert found.ambiguity == (1.0, 1.0)
    assert found.lost[1, 0] == 1
    assert found.lost.sum() == 1


def test_ambiguity_by_hand():
    # 16x16 at 0: points 4, 12 -> 4 positives; 8x16 on its left half: 2 of them, same class in one image,
    # another class in the other, crowd in the third
    big = (0, 0, 16, 16, 0, 0)
    data = dataset([big, (0, 0, 8, 16, 0, 0)], [big, (0, 0, 8, 16, 1, 0)], [big, (0, 0, 8, 16, 1, 1)], [])
    found = scan(data, sampling(NATIVE, 0))
    assert found.positives.tolist() == [4, 4, 4, 0]
    assert found.ambiguous.tolist() == [2, 2, 0, 0]
    assert found.different.tolist() == [0, 2, 0, 0]
    assert found.ambiguity == (4 / 12, 2 / 12)
    assert found.boxes == 5


def test_three_boxes_of_two_classes_at_one_point():
    # the two smallest are of one class, the third differs: the location is ambiguous between classes
    data = dataset([(1, 1, 6, 6, 0, 0), (1, 1, 7, 7, 0, 0), (1, 1, 8, 8, 1, 0)])
    found = scan(data, sampling(NATIVE, 0))
    assert found.ambiguity == (1.0, 1.0)
    assert found.lost[0].tolist() == [1, 1, 0]


def test_the_input_size_matters():
    small = dataset([(5, 5, 11, 11, 0, 0)])
    twice = Config(data=DataConfig(size=512, max_size=512))
    assert scan(small, sampling(NATIVE, 0)).recall == 0.0
    assert scan(small, sampling(twice, 0)).recall == 1.0  # (10, 10)-(22, 22) holds 12 and 20


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 12),
    radius=st.sampled_from([0.0, 1.5]),
    rule=st.sampled_from(["half-open", "inclusive", "strict"]),
    levels=st.sampled_from([5, 1]),
    grid=st.booleans(),
)
def test_pairs_near_the_boxes_are_all_pairs(seed, count, radius, rule, levels, grid):
    boxes = random_boxes(seed, count)
    cfg = AssignConfig(center_radius=radius, range_rule=rule, ranges=(64, 128, 256, 512) if levels == 5 else ())
    model = ModelConfig(
        strides=(8, 16, 32, 64, 128) if levels == 5 else (16,), point_spacing="grid" if grid else "stride"
    )
    points = make_points((256, 320), model, cfg)
    spot, box = candidate_pairs(points, boxes, cfg)
    dense = torch.zeros(len(points.xy), count, dtype=torch.bool)
    dense[spot, box] = True
    assert len(spot) == dense.sum()
    assert torch.equal(dense, candidates(points, boxes, cfg))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), radius=st.sampled_from([0.0, 1.5]))
def test_the_scan_is_the_plain_definition(seed, radius):
    scenes = []
    for k in range(3):
        boxes = random_boxes(seed + k, 4 + k)
        scenes.append([(*b, i % 3, 0) for i, b in enumerate(boxes.tolist())])
    data = dataset(*scenes)
    config = sampling(NATIVE, radius)
    found = scan(data, config)
    points = make_points((256, 256), config.model, config.assign)
    for i, record in enumerate(data.records):
        boxes, labels = torch.tensor(record.boxes), torch.tensor(record.labels)
        may, index = candidates(points, boxes, config.assign), assign(points, boxes, config.assign)
        mine = found.image == i
        assert found.learned[mine].sum(axis=1).tolist() == torch.bincount(
            index[index >= 0], minlength=len(boxes)
        ).tolist()  # fmt: skip
        assert found.candidates[mine].sum(axis=1).tolist() == may.sum(dim=0).tolist()
        assert found.positives[i] == (index >= 0).sum()
        assert found.ambiguous[i] == (may.sum(dim=1) > 1).sum()
        kinds = [len(set(labels[row].tolist())) for row in may]
        assert found.different[i] == sum(k > 1 for k in kinds)


def test_anchor_shapes():
    shapes = anchor_shapes(8)
    assert shapes.shape == (9, 2)
    torch.testing.assert_close(shapes.prod(dim=1)[:3], torch.full((3,), 1024.0))
    torch.testing.assert_close(shapes.prod(dim=1)[6:], torch.full((3,), 1024.0 * 2 ** (4 / 3)))
    assert (shapes[0, 0] / shapes[0, 1]).item() == pytest.approx(2)  # wide first


def test_rounded_anchors_are_those_of_faster_rcnn():
    # the three shapes at stride 16 that Faster R-CNN's code prints in its documentation, times 4
    assert anchor_shapes(16, rounded=True)[:3].tolist() == [[4 * 23, 4 * 12], [64, 64], [4 * 11, 4 * 22]]


def test_the_original_measures_boxes_one_pixel_wider():
    # inside the anchor [20, 20, 52, 52] of P3: IoU 23² / 32² = 0.517, and 22² / 32² = 0.473
    data = dataset([(24, 24, 47, 47, 0, 0)], size=(128, 128))
    config = Config(data=DataConfig(size=128, max_size=128))
    assert retinanet_recall(data, config) == (1, 1, 1)
    assert retinanet_recall(inclusive(data), config) == (0, 1, 1)
    assert retinanet_recall(inclusive(data), config, original=True) == (1, 1, 1)


def match_plainly(points, boxes, rounded=False):
    """The rule of `match`, on all anchors x boxes [G,4] of one image."""
    anchors = torch.cat([grid_anchors(g, rounded) for g in points.grids])
    overlap = iou(anchors, boxes)
    value, choice = overlap.max(dim=1)
    best = overlap == overlap.amax(dim=0)
    result = []
    for least in (2.0, LOW, 0.0):
        learns = (value >= POSITIVE) | (best.any(dim=1) & (value >= least))
        result.append(torch.bincount(choice[learns], minlength=len(boxes)) > 0)
    return Matched(*result)


def test_anchors_by_hand():
    # a 32x32 box around the point (36, 36) of P3 is an anchor of it; a 10x10 box overlaps none by 0.4
    points = make_points((128, 128), ModelConfig(), AssignConfig())
    boxes = torch.tensor([[20.0, 20, 52, 52], [100, 100, 110, 110]])
    matched = match_plainly(points, boxes)
    assert [m.tolist() for m in matched] == [[True, False], [True, False], [True, True]]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 9), rounded=st.booleans())
def test_anchors_near_the_boxes_are_all_anchors(seed, count, rounded):
    points = make_points((256, 320), ModelConfig(), AssignConfig())
    first, second = random_boxes(seed, count), random_boxes(seed + 1, 3)
    image = torch.tensor([0] * count + [2] * 3)
    fast = match(points, torch.cat((first, second)), image, rounded)
    slow = (match_plainly(points, boxes, rounded) for boxes in (first, second))
    for value, a, b in zip(fast, *slow, strict=True):
        assert torch.equal(value, torch.cat((a, b)))


def test_elongated_boxes_reach_all_anchors():
    points = make_points((128, 640), ModelConfig(), AssignConfig())
    boxes = torch.tensor([[10.0, 50, 630, 55], [300, 40, 330, 70], [0, 0, 640, 128]])
    assert [m.tolist() for m in match(points, boxes, torch.zeros(3, dtype=torch.int64))] == [
        m.tolist() for m in match_plainly(points, boxes)
    ]


def test_boxes_as_the_original_reads_them():
    data = inclusive(dataset([(5, 5, 11, 11, 0, 0), (3, 3, 4, 9, 1, 0)]))
    assert data.records[0].boxes.tolist() == [[5, 5, 10, 10]]
    assert data.records[0].labels.tolist() == [0]


def test_the_studies_speak():
    data = dataset([(0, 0, 100, 90, 0, 0), (10, 10, 40, 60, 1, 0)], [])
    recall = recall_study(data, NATIVE)
    assert len(recall.rows) == 7
    assert "98.40" in recall.text()
    assert recall.to_dict()["rows"][4]["recall"] == 1.0
    ambiguity = ambiguity_study(data, NATIVE)
    assert "23.16" in ambiguity.text()
    assert ambiguity.pairs[0][:2] == ("b", "a")
    empty = recall_study(dataset([]), NATIVE)
    assert empty.to_dict()["rows"][0]["recall"] is None
    assert p4_only(NATIVE).model.strides == (16,)


def test_detections_from_ambiguous_locations():
    big, small = (1, 1, 8, 8, 0, 0), (1, 1, 7, 7)
    data = dataset([big, (*small, 1, 0)], [big], [big, (*small, 0, 0)])  # of two classes, alone, of one class
    none = torch.zeros(2, dtype=torch.int64)
    found = [Detections(torch.zeros(2, 4), torch.ones(2), none, torch.tensor([0, 5]))] * 3
    assert ambiguous_detections(found, data, sampling(NATIVE, 0)) == (2 / 6, 1 / 6)


def test_outputs_against_anchors():
    from fcos.presets import preset
    from fcos.study.outputs import outputs_study

    study = outputs_study(preset("fcos-r50").override("data.size=128", "data.max_size=128", "model.fpn_channels=8"))
    points = 16**2 + 8**2 + 4**2 + 2**2 + 1
    assert study.fcos["all"] == points * 85
    assert study.anchors["all"] == points * 9 * 84
    assert "8.89 times" in study.text()
