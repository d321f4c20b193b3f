"""Points and assignment against the paper's rules worked by hand, and the fast way against the plain one."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fcos.assign import assign, assign_batch, candidates
from fcos.config import AssignConfig, ModelConfig
from fcos.points import make_points
from fcos.types import IGNORED, NEGATIVE, Target

MODEL = ModelConfig()
WHOLE = AssignConfig(center_radius=0.0)


def target(boxes, ignore=None):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    flags = torch.zeros(len(boxes), dtype=torch.bool) if ignore is None else torch.tensor(ignore)
    return Target(boxes, torch.arange(len(boxes)), flags)


def test_points_lie_in_the_middle_of_their_cells():
    points = make_points((64, 96), MODEL, WHOLE)
    assert [(g.height, g.width) for g in points.grids] == [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
    assert points.xy[0].tolist() == [4, 4]
    assert points.xy[13].tolist() == [12, 12]  # second row, second column of P3
    assert points.xy[96].tolist() == [8, 8]  # first of P4
    assert points.lower.unique().tolist() == [0, 64, 128, 256, 512]
    assert points.level.bincount().tolist() == [96, 24, 6, 2, 1]


def test_torchvision_spacing_differs_where_the_size_is_no_multiple():
    model = MODEL.model_copy(update={"point_offset": 0.0, "point_spacing": "grid"})
    points = make_points((800, 1088), model, WHOLE)
    last = points.grids[-1]
    assert (last.step_x, last.step_y) == (1088 // 9, 800 // 7)  # dialects.md: 120 x 114, not 128


def test_levels_follow_the_largest_distance():
    # at (44, 44) the largest distance to this box is 64, at (52, 52) it is 72
    points = make_points((256, 256), MODEL, WHOLE)
    box = torch.tensor([[-20.0, -20.0, 108.0, 108.0]])
    fits = candidates(points, box, WHOLE)[:, 0]
    p3 = {tuple(p) for p in points.xy[fits & (points.level == 0)].tolist()}
    p4 = {tuple(p) for p in points.xy[fits & (points.level == 1)].tolist()}
    assert (44.0, 44.0) in p3
    assert (52.0, 52.0) not in p3
    assert (56.0, 56.0) in p4
    assert (40.0, 40.0) in p4  # 68 to the far corner
    assert (44.0, 44.0) not in p4


@pytest.mark.parametrize(("rule", "levels"), [("half-open", {0}), ("inclusive", {0, 1}), ("strict", set())])
def test_a_distance_of_exactly_64(rule, levels):
    # no point belongs to two levels, so each level is asked about a box around a point of its own
    cfg = WHOLE.model_copy(update={"range_rule": rule})
    points = make_points((256, 256), MODEL, cfg)
    found = set()
    for level in (0, 1):
        x, y = points.xy[points.level == level][17].tolist()
        box = torch.tensor([[x - 64, y - 10, x + 10, y + 10]])
        spot = (points.level == level) & (points.xy == torch.tensor([x, y])).all(dim=1)
        if candidates(points, box, cfg)[spot].any():
            found.add(level)
    assert found == levels


def test_half_open_ranges_lose_and_double_no_distance():
    points = make_points((512, 512), MODEL, WHOLE)
    for d in (1.0, 63.999, 64.0, 64.001, 128.0, 256.0, 512.0, 4000.0):
        levels = {int(lv) for lv in points.level[(points.lower < d) & (d <= points.upper)].unique()}
        assert len(levels) == 1


def test_the_smallest_box_wins_and_ties_go_to_the_first():
    points = make_points((64, 64), MODEL, WHOLE)
    boxes = torch.tensor([[0, 0, 60, 60], [8, 8, 40, 40], [8, 8, 40, 40], [10.0, 10.0, 42.0, 42.0]])
    index = assign(points, boxes, WHOLE)
    at = {tuple(p): int(i) for p, i in zip(points.xy.tolist(), index, strict=True) if points.level[0] == 0}
    assert at[(20.0, 20.0)] == 1
    assert 2 not in index.tolist()
    assert at[(52.0, 52.0)] == 0


def test_true_argmin_where_float32_ties():
    # 1e8 - area in float32 cannot tell 99 from 96 square pixels
    boxes = torch.tensor([[0.0, 0.0, 24.75, 4.0], [0.0, 0.0, 24.0, 4.0]])
    points = make_points((32, 32), ModelConfig(point_offset=0.25), WHOLE)
    exact = assign(points, boxes, WHOLE)
    tied = assign(points, boxes, WHOLE.model_copy(update={"area_rule": "float32"}))
    both = candidates(points, boxes, WHOLE).all(dim=1)
    assert both.any()
    assert exact[both].unique().tolist() == [1]
    assert tied[both].unique().tolist() == [0]


def test_center_sampling_keeps_near_points():
    cfg = AssignConfig(center_radius=1.5)
    points = make_points((128, 128), MODEL, cfg)
    fits = candidates(points, torch.tensor([[4.0, 4.0, 116.0, 116.0]]), cfg)[:, 0]
    chosen = points.xy[fits]
    assert len(chosen)
    assert ((chosen - 60.0).abs().amax(dim=1) < 1.5 * points.stride[fits]).all()


@pytest.mark.parametrize("rule", ["distance", "region"])
def test_a_point_just_1_5_strides_from_the_centre_is_not_near(rule):
    cfg = AssignConfig(center_radius=1.5, center_rule=rule)
    points = make_points((128, 128), MODEL, cfg)
    fits = candidates(points, torch.tensor([[0.0, 0.0, 128.0, 128.0]]), cfg)[:, 0]
    # of stride 16, where 40 and 88 are 24 pixels from the centre
    assert points.xy[fits].tolist() == [[56.0, 56.0], [72.0, 56.0], [56.0, 72.0], [72.0, 72.0]]


def test_ignore_regions_are_neither_positive_nor_negative():
    points = make_points((128, 128), MODEL, WHOLE)
    index = assign_batch(points, [target([[0, 0, 60, 60], [30, 30, 100, 100]], [False, True]), target([])], WHOLE)
    inside = ((points.xy > 30) & (points.xy < 100)).all(dim=1)
    assert (index[0][inside] != NEGATIVE).all()
    assert (index[0][inside] == IGNORED).any()
    assert (index[0][(points.xy >= 100).any(dim=1)] == NEGATIVE).all()  # some lie on its edge
    assert (index[0] != 1).all()
    at = (points.xy == torch.tensor([44.0, 44.0])).all(dim=1) & (points.level == 0)
    assert index[0][at].tolist() == [0]  # an object inside the region is still learnt
    assert (index[1] == NEGATIVE).all()


def test_no_images_and_no_boxes():
    points = make_points((64, 64), MODEL, WHOLE)
    assert assign_batch(points, [], WHOLE).shape == (0, len(points.xy))
    assert (assign(points, torch.zeros(0, 4), WHOLE) == NEGATIVE).all()


@st.composite
def scenes(draw):
    height, width = draw(st.integers(1, 24)) * 32, draw(st.integers(1, 24)) * 32
    count = draw(st.integers(0, 12))
    side = st.floats(-50, 800, width=32) if draw(st.booleans()) else st.integers(-6, 100).map(lambda v: v * 8.0)
    boxes = []
    for _ in range(count):
        (x1, x2), (y1, y2) = (sorted((draw(side), draw(side))) for _ in "xy")
        boxes.append([x1, y1, x2, y2])
    return (height, width), boxes


@settings(max_examples=150, deadline=None)
@given(
    scenes(),
    st.sampled_from([0.0, 0.5, 1.5, 2.5]),
    st.sampled_from(["half-open", "inclusive", "strict"]),
    st.sampled_from(["exact", "float32"]),
    st.sampled_from(["stride", "grid"]),
    st.booleans(),
)
@example(((768, 32), [[-8.0, 0.0, 32.0, 600.0]]), 1.5, "half-open", "exact", "grid", False)  # steps of 32 and 64
def test_the_fast_assignment_equals_the_plain_one(scene, radius, rule, area_rule, spacing, plus_one):
    size, boxes = scene
    cfg = AssignConfig(center_radius=radius, range_rule=rule, area_rule=area_rule, area_plus_one=plus_one)
    model = ModelConfig(point_spacing=spacing, point_offset=0.5 if spacing == "stride" else 0.0)
    points = make_points(size, model, cfg)
    first, second = target(boxes), target(boxes[::-1])
    fast = assign_batch(points, [first, target([]), second], cfg)
    assert torch.equal(fast[0], assign(points, first.boxes, cfg))
    assert torch.equal(fast[2], assign(points, second.boxes, cfg))
    assert (fast[1] == NEGATIVE).all()
