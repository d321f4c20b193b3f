"""Boxes are painted as pixels, the image is changed, and the boxes are found again in the pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcos.data.loading import augment
from fcos.data.loading.augment import Sample
from fcos.data.records import Window

FILL = (7, 8, 9)
BRIGHT = 200


def painted(height, width, box, value=BRIGHT):
    image = np.zeros((height, width, 3), dtype=np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = value
    return sample(image, [box])


def sample(image, boxes):
    boxes = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return Sample(image, boxes, np.arange(len(boxes)), np.zeros(len(boxes), dtype=bool))


def found(image, level=BRIGHT / 2):
    """Extent of the bright pixels, or None."""
    rows, columns = np.nonzero(image[..., 0] > level)
    if not len(rows):
        return None
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@st.composite
def scenes(draw):
    height, width = draw(st.integers(8, 60)), draw(st.integers(8, 60))
    x1, y1 = draw(st.integers(0, width - 2)), draw(st.integers(0, height - 2))
    return painted(height, width, (x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))))


@given(scenes())
def test_flips(s):
    for change in (augment.flip, augment.vertical_flip):
        once = change(s)
        assert found(once.image) == once.boxes[0].tolist()
        twice = change(once)
        np.testing.assert_array_equal(twice.boxes, s.boxes)
        np.testing.assert_array_equal(twice.image, s.image)


@given(scenes())
def test_flips_of_boxes_that_end_at_their_last_pixel(s):
    inside = s._replace(boxes=s.boxes - np.array([0, 0, 1, 1], np.float32))
    for change in (augment.flip, augment.vertical_flip):
        once = change(inside, 1)
        x1, y1, x2, y2 = once.boxes[0].tolist()
        assert found(once.image) == [x1, y1, x2 + 1, y2 + 1]


@given(scenes(), st.data())
def test_cut(s, data):
    height, width = s.size
    x1, y1 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x2, y2 = data.draw(st.integers(x1 + 1, width)), data.draw(st.integers(y1 + 1, height))
    part = augment.cut(s, x1, y1, x2, y2)
    pixels = int((s.image[..., 0] > 0).sum())
    left = int((part.image[..., 0] > 0).sum())
    if left == 0:
        assert len(part.boxes) == 0
    else:
        assert found(part.image) == part.boxes[0].tolist()
        assert bool(part.ignore[0]) == (10 * left < 3 * pixels)  # KEEP is 0.3; exactly that much is enough


@given(scenes(), st.integers(16, 90), st.integers(16, 90))
def test_fit_within_a_pixel(s, height, width):
    after = augment.fit(s, (height, width), "linear")
    assert after.size == (height, width)
    x1, _, x2, _ = after.boxes[0]
    sx, sy = width / s.size[1], height / s.size[0]
    assert x2 - x1 == pytest.approx((s.boxes[0, 2] - s.boxes[0, 0]) * sx, rel=1e-5)
    seen = found(after.image)
    if seen is not None and min(sx, sy) >= 1:
        assert np.abs(np.array(seen) - after.boxes[0]).max() <= max(sx, sy) / 2 + 1  # as zoom, below


@settings(max_examples=60)
@given(scenes(), st.integers(0, 2**20), st.floats(0.4, 2.5), st.integers(20, 80), st.integers(20, 80))
def test_zoom_finds_its_boxes(s, seed, factor, height, width):
    after = augment.zoom(s, np.random.default_rng(seed), augment.Frame((height, width), FILL), factor)
    assert after.image.shape == (height, width, 3)
    if len(after.boxes):
        x1, y1, x2, y2 = after.boxes[0]
        assert 0 <= x1 < x2 <= width + 1e-3
        assert 0 <= y1 < y2 <= height + 1e-3
        seen = found(after.image)
        if seen is not None and factor >= 1:
            assert np.abs(np.array(seen) - after.boxes[0]).max() <= factor / 2 + 1
    else:
        assert found(after.image, 150) is None


def test_zoom_without_random_numbers_keeps_everything():
    s = painted(40, 60, (5, 6, 30, 20))
    after = augment.zoom(s, None, augment.Frame((80, 200), FILL), augment.contain((40, 60), (80, 200)))
    assert after.boxes.tolist() == [[10, 12, 60, 40]]
    assert (after.image[:, 120:] == FILL).all()


def test_random_sizes_are_those_that_are_asked_for():
    """What an image does not cover is filled. Jitter shrinks as often as it enlarges (uniform in the logarithm), and a
    mosaic shows each image at half to full size, so now and then smaller than its tile."""
    black, frame = sample(np.zeros((64, 64, 3), np.uint8), []), augment.Frame((64, 64), FILL)
    seeds = [np.random.default_rng(seed) for seed in range(100)]
    shrunk = [(augment.jitter(black, rng, frame, (0.25, 4.0)).image == FILL[0]).any() for rng in seeds]
    assert 35 <= sum(shrunk) <= 65
    assert 5 <= sum((augment.mosaic([black] * 4, rng, frame).image == FILL[0]).any() for rng in seeds) <= 95


@pytest.mark.parametrize("seed", range(5))
def test_mosaic(seed):
    parts = [painted(50, 70, (10, 5, 50, 40), value) for value in (100, 150, 200, 250)]
    after = augment.mosaic(parts, np.random.default_rng(seed), augment.Frame((64, 96), FILL))
    assert after.image.shape == (64, 96, 3)
    values = np.array([100, 150, 200, 250])
    assert len(after.boxes)
    for x1, y1, x2, y2 in after.boxes:
        # The middle of each box shows the paint of exactly one source.
        pixel = int(after.image[min(63, int((y1 + y2) / 2)), min(95, int((x1 + x2) / 2)), 0])
        assert np.abs(values - pixel).min() <= 3
    assert after.boxes.min() >= 0
    assert after.boxes[:, 2].max() <= 96.001
    assert after.boxes[:, 3].max() <= 64.001
    again = augment.mosaic(parts, np.random.default_rng(seed), augment.Frame((64, 96), FILL))
    np.testing.assert_array_equal(after.image, again.image)


@pytest.mark.parametrize("seed", range(20))
def test_pasted_boxes_are_where_their_pixels_are_and_hide_little(seed):
    first, other = painted(80, 120, (30, 20, 90, 60), 100), painted(50, 40, (8, 10, 24, 30), 200)
    before = first.image.copy()
    after = augment.paste(first, other, np.random.default_rng(seed), augment.Frame((1, 1), FILL, "nearest"))
    np.testing.assert_array_equal(first.image, before)
    assert after.size == (80, 120)
    assert len(after.boxes) == len(after.labels) == len(after.ignore) == 2  # the other has one box
    assert after.boxes[0].tolist() == [30, 20, 90, 60]
    x1, y1, x2, y2 = after.boxes[1].astype(int)
    rows, columns = np.nonzero(after.image[:, :, 0] == 200)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (x1, y1, x2, y2)
    assert 0.5 * 1.6 * 16 - 1 <= x2 - x1 <= 1.5 * 1.6 * 16 + 1  # both images are as large at a factor of 1.6
    assert abs((x2 - x1) * 20 / 16 - (y2 - y1)) <= 1.5
    assert (after.image[20:60, 30:90, 0] == 100).mean() >= 0.7


def test_several_pasted_boxes_hide_little_of_any():
    """Neither of the image's own box nor of each other; all are twice as wide as high, and each has its own grey."""
    first = painted(320, 320, (100, 130, 220, 190), 100)
    boxes = [(x, y, x + 100, y + 50) for x, y in ((0, 0), (110, 0), (0, 100), (110, 100), (0, 200))]
    image = np.zeros((320, 320, 3), np.uint8)
    for grey, (x1, y1, x2, y2) in enumerate(boxes, 200):
        image[y1:y2, x1:x2] = grey
    counts = set()
    for seed in range(200):
        rng = np.random.default_rng(seed)
        after = augment.paste(first, sample(image, boxes), rng, augment.Frame((320, 320), FILL, "nearest"))
        for grey, (x1, y1, x2, y2) in zip((100, *(200 + after.labels[1:])), after.boxes.astype(int), strict=True):
            assert (after.image[y1:y2, x1:x2, 0] == grey).mean() >= 0.7
        counts.add(len(after.boxes) - 1)
    assert counts == {1, 2, 3}


@pytest.mark.parametrize("turned", [False, True])
def test_boxes_far_from_the_corner_of_a_long_image_are_pasted(turned):
    other = painted(90, 40, (5, 60, 35, 88)) if turned else painted(40, 90, (60, 5, 88, 35))
    first = sample(np.zeros((200, 200, 3), np.uint8), [])
    after = augment.paste(first, other, np.random.default_rng(0), augment.Frame((200, 200), FILL, "nearest"))
    assert [found(after.image)] == after.boxes.tolist()


def test_the_last_pixel_of_inclusive_boxes_is_pasted_too():
    """The object has 20 columns, and its box ends 19 after its first."""
    other = painted(40, 40, (10, 10, 30, 30))
    other = other._replace(boxes=other.boxes - np.array([0, 0, 1, 1], np.float32))
    first = sample(np.zeros((40, 40, 3), np.uint8), [])
    after = augment.paste(first, other, np.random.default_rng(3), augment.Frame((40, 40), FILL, "nearest"), last=1)
    x1, y1, x2, y2 = found(after.image)
    np.testing.assert_allclose(after.boxes, [[x1, y1, x1 + (x2 - x1) * 19 / 20, y1 + (y2 - y1) * 19 / 20]])


def test_what_else_is_in_a_pasted_box_comes_with_it():
    image = np.zeros((60, 60, 3), np.uint8)
    other = sample(image, [(10, 10, 40, 40), (20, 20, 30, 30), (30, 5, 90, 16)])
    other = other._replace(ignore=np.array([False, True, True]))
    after = augment.paste(sample(image, []), other, np.random.default_rng(1), augment.Frame((60, 60), FILL))
    x1, y1, x2, y2 = after.boxes[0]
    np.testing.assert_allclose(
        after.boxes[1], [x1 + (x2 - x1) / 3, y1 + (y2 - y1) / 3, x1 + (x2 - x1) / 1.5, y1 + (y2 - y1) / 1.5], atol=1e-3
    )
    np.testing.assert_allclose(after.boxes[2], [x1 + (x2 - x1) / 1.5, y1, x2, y1 + (y2 - y1) / 5], atol=1e-3)
    assert after.ignore.tolist() == [False, True, True]


def test_nothing_is_pasted_where_it_would_hide_objects_or_there_is_none():
    full = sample(
        np.zeros((40, 40, 3), np.uint8), [(x, y, x + 4, y + 4) for x in range(0, 40, 4) for y in range(0, 40, 4)]
    )
    other = painted(40, 40, (2, 2, 38, 38), 90)  # 18 pixels and more, which hide some of the 100 wholly
    frame = augment.Frame((40, 40), FILL)
    for seed in range(10):
        after = augment.paste(full, other, np.random.default_rng(seed), frame)
        assert len(after.boxes) == 100
        assert not after.image.any()
    ignored = other._replace(ignore=np.array([True]))
    after = augment.paste(sample(full.image, []), ignored, np.random.default_rng(0), frame)
    assert (len(after.boxes), after.image.max()) == (0, 0)


def test_mixup_keeps_all_boxes():
    first, second = painted(40, 40, (0, 0, 10, 10)), painted(30, 60, (20, 20, 58, 28))
    before = first.image.copy()
    after = augment.mixup(first, second, np.random.default_rng(0))
    np.testing.assert_array_equal(first.image, before)  # which data.cache=ram keeps
    assert after.size == (40, 40)
    assert after.boxes.tolist() == [[0, 0, 10, 10], [20, 20, 40, 28]]
    assert 0 < after.image[5, 5, 0] < BRIGHT
    assert 0 < after.image[24, 24, 0] < BRIGHT


def test_colour_of_strength_zero_changes_nothing_and_boxes_never_matter():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    same = augment.color(image, np.random.default_rng(0), 0.0)
    assert np.abs(same.astype(int) - image).max() <= 1
    changed = augment.color(image, np.random.default_rng(0), 1.0)
    assert changed.shape == image.shape
    assert np.abs(changed.astype(int) - image).mean() > 5


def test_colour_leaves_grey_grey():
    image = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    for seed in range(5):
        after = augment.color(image, np.random.default_rng(seed), 1.0).astype(int)
        assert np.ptp(after, axis=2).max() <= 1


def test_contrast_turns_about_the_mean():
    """An image of one grey has none: brightness alone changes it, by 40 % at most."""
    image = np.full((16, 16, 3), 100, np.uint8)
    after = [augment.color(image, np.random.default_rng(seed), 1.0) for seed in range(40)]
    assert 59 <= np.min(after) < 70
    assert 130 < np.max(after) <= 141


def test_everything_works_without_boxes():
    s = sample(np.zeros((20, 30, 3), dtype=np.uint8), [])
    rng = np.random.default_rng(0)
    for after in (
        augment.flip(s),
        augment.vertical_flip(s),
        augment.fit(s, (10, 10)),
        augment.jitter(s, rng, augment.Frame((16, 16), FILL), (0.5, 2.0)),
        augment.mosaic([s] * 4, rng, augment.Frame((16, 16), FILL)),
        augment.mixup(s, s, rng),
        augment.paste(s, s, rng, augment.Frame((16, 16), FILL)),
    ):
        assert after.boxes.shape == (0, 4)
        assert after.boxes.dtype == np.float32
        assert after.labels.shape == after.ignore.shape == (0,)


def test_a_one_pixel_image():
    s = painted(1, 1, (0, 0, 1, 1))
    frame = augment.Frame((1, 1), FILL)
    after = augment.jitter(s, np.random.default_rng(0), frame, (0.5, 1.5))
    assert after.size == (1, 1)
    assert augment.mosaic([s] * 4, np.random.default_rng(0), frame).size == (1, 1)
    assert augment.paste(s, s, np.random.default_rng(0), frame).boxes.tolist() == s.boxes.tolist()


def test_exactly_the_share_that_is_kept_is_no_region_to_ignore():
    """0.3 in single precision is a little more than 0.3: 15 of 50 pixels would be too few."""
    for width, height, left in ((10, 5, 3), (10, 7, 3), (20, 9, 6), (10, 1, 3), (30, 11, 9)):
        box = np.array([[0, 0, width, height]], dtype=np.float32)
        _, shown, ignored = augment.cut_boxes(box, np.zeros(1, bool), Window(0, 0, height, left))
        assert shown.all()
        assert not ignored.any()
