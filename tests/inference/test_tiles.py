"""Tiles: where they lie, and each rule of putting their detections together on a case worked by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import tiny_config

from fcos.boxes import last_pixel
from fcos.data.records import Window
from fcos.data.tiles import cut_windows
from fcos.detections import Detections
from fcos.errors import ConfigError
from fcos.inference.merge import Rows, cut_sides, merge, rows_of
from fcos.inference.tiles import Held, Looked, Tiling, detect_tiles, kept, parse_tile, read_shape
from fcos.types import Classes

CLASSES = Classes(("cat", "dog"))


class Looker:
    """A detector that finds what is painted: each object has its own grey level, and is seen as its window shows it."""

    def __init__(self, objects, blind_below=0.0):
        self.objects, self.classes, self.blind_below = objects, CLASSES, blind_below
        self.config = tiny_config(data={"size": 64, "max_size": 96})
        self.calls = []

    def detect(self, images, names, score=0.0, batch=1):
        self.calls.append(len(images))
        return [self._look(image) for image in images]

    def _look(self, image):
        boxes, scores, labels = [], [], []
        for level, label, score in self.objects:
            rows, columns = np.nonzero(image[..., 0] == level)
            if len(rows) and min(np.ptp(rows), np.ptp(columns)) + 1 >= self.blind_below:
                boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                scores.append(score)
                labels.append(label)
        count = len(boxes)
        return Detections(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor(scores),
            torch.tensor(labels).long(),
            torch.arange(count),
            names=CLASSES.names,
            size=image.shape[:2],
        )


def paint(size, *objects):
    """An image with (level, x1, y1, x2, y2) rectangles."""
    image = np.zeros((*size, 3), np.uint8)
    for level, x1, y1, x2, y2 in objects:
        image[y1:y2, x1:x2] = level
    return image


def boxes_of(found):
    return sorted(tuple(round(v) for v in box) for box in found.boxes.tolist())


def test_windows_cover_everything_and_the_last_shift_inward():
    windows = cut_windows((100, 250), 100, 0.2)
    assert windows == [Window(0, 0, 100, 100), Window(0, 80, 100, 180), Window(0, 150, 100, 250)]
    assert cut_windows((50, 60), 100) == [Window(0, 0, 50, 60)]
    assert cut_windows((100, 100), 100) == [Window(0, 0, 100, 100)]
    # an image of exactly two tiles with overlap needs no third
    assert cut_windows((100, 180), 100, 0.2) == [Window(0, 0, 100, 100), Window(0, 80, 100, 180)]


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("size", [(101, 333), (640, 64), (64, 64), (65, 129)])
def test_every_pixel_lies_in_a_window_of_full_size(size, overlap):
    seen = np.zeros(size, int)
    for w in cut_windows(size, 64, overlap):
        assert (w.bottom - w.top, w.right - w.left) == (min(64, size[0]), min(64, size[1]))
        seen[w.top : w.bottom, w.left : w.right] += 1
    assert seen.min() >= 1


def test_one_tile_is_plain_detection():
    image = paint((60, 60), (9, 5, 5, 30, 40))
    detector = Looker([(9, 1, 0.9)])
    found = detect_tiles(detector, Held(image), Tiling(64))
    (plain,) = detector.detect([image], [None])
    assert torch.equal(found.boxes, plain.boxes)
    assert torch.equal(found.points, plain.points)
    assert detector.calls[0] == 1


def test_a_cut_box_gives_way_to_the_whole_one():
    """The object lies in the overlap: the second tile sees all of it, the first its left part."""
    image = paint((64, 112), (9, 50, 20, 80, 40))  # tiles 0-64 and 48-112
    found = detect_tiles(Looker([(9, 0, 0.9)]), Held(image), Tiling(64, 0.25, whole=False), name="a.png")
    assert boxes_of(found) == [(50, 20, 80, 40)]
    assert (found.source, found.size) == ("a.png", (64, 112))


class Doubter(Looker):
    """What is cut it is sure of, what is whole it is not."""

    def detect(self, images, names, score=0.0, batch=1):
        seen = []
        for d in super().detect(images, names, score, batch):
            whole = (d.boxes[:, 2] < d.size[1]) & (d.boxes[:, 0] > 0)
            d.scores[whole] = 0.4
            seen.append(d[d.scores >= score])
        return seen


def test_what_is_shown_from_a_score_on_is_what_was_found_from_that_score_on():
    """A weak box of the whole object still says that a strong one is a piece of it."""
    image = paint((64, 112), (9, 50, 20, 80, 40))
    every = detect_tiles(Doubter([(9, 0, 0.9)]), Held(image), Tiling(64, 0.25, whole=False))
    assert boxes_of(every) == [(50, 20, 80, 40)]
    for score in (0.1, 0.5, 0.95):
        shown = detect_tiles(Doubter([(9, 0, 0.9)]), Held(image), Tiling(64, 0.25, whole=False), score=score)
        expected = every[every.scores >= score]
        assert (boxes_of(shown), shown.scores.tolist()) == (boxes_of(expected), expected.scores.tolist())


def test_two_halves_become_one():
    image = paint((64, 112), (9, 30, 20, 90, 40))  # no tile holds it
    found = detect_tiles(Looker([(9, 0, 0.8)]), Held(image), Tiling(64, 0.25, whole=False))
    assert boxes_of(found) == [(30, 20, 90, 40)]
    assert found.scores.tolist() == pytest.approx([0.8])


def test_a_sliver_does_not_pull_down_the_score_of_the_whole():
    """The mean by area, of 54 columns and 22: a plain one would be 0.55."""
    seen = [_seen([[10, 20, 64, 40]], [0.9], [0]), _seen([[48, 20, 70, 40]], [0.2], [0])]
    found = join(seen, [Window(0, 0, 64, 64), Window(0, 48, 64, 112)], (64, 112), Looker([]))
    assert boxes_of(found) == [(10, 20, 70, 40)]
    assert found.scores.tolist() == pytest.approx([(54 * 0.9 + 22 * 0.2) / 76])


def test_of_two_pieces_across_the_cut_the_one_that_overlaps_more_is_joined():
    """Either would do, both would not."""
    seen = [_seen([[20, 20, 64, 40]], [0.8], [0]), _seen([[48, 30, 90, 50], [48, 15, 90, 35]], [0.7, 0.7], [0, 0])]
    found = join(seen, [Window(0, 0, 64, 64), Window(0, 48, 64, 112)], (64, 112), Looker([]))
    assert boxes_of(found) == [(20, 15, 90, 40), (48, 30, 90, 50)]


def test_four_quarters_become_one():
    image = paint((112, 112), (9, 30, 30, 90, 90))
    found = detect_tiles(Looker([(9, 0, 0.8)]), Held(image), Tiling(64, 0.25, whole=False))
    assert boxes_of(found) == [(30, 30, 90, 90)]


def test_one_that_runs_through_three_tiles_is_one():
    image = paint((64, 160), (9, 10, 20, 150, 40))
    found = detect_tiles(Looker([(9, 0, 0.8)]), Held(image), Tiling(64, 0.25, whole=False))
    assert boxes_of(found) == [(10, 20, 150, 40)]


def test_neighbours_are_not_joined():
    """Two objects of one class, side by side across the overlap; each is whole in its tile."""
    image = paint((64, 112), (9, 20, 20, 54, 40), (7, 56, 20, 100, 40))
    found = detect_tiles(Looker([(9, 0, 0.8), (7, 0, 0.7)]), Held(image), Tiling(64, 0.25, whole=False))
    assert boxes_of(found) == [(20, 20, 54, 40), (56, 20, 100, 40)]


def test_cut_boxes_of_two_classes_stay_two():
    seen = [_seen([[30, 20, 64, 40]], [0.8], [0]), _seen([[48, 20, 90, 40]], [0.7], [1])]
    found = join(seen, [Window(0, 0, 64, 64), Window(0, 48, 64, 112)], (64, 112), Looker([]))
    assert boxes_of(found) == [(30, 20, 64, 40), (48, 20, 90, 40)]


def test_halves_at_different_heights_are_two_objects():
    seen = [_seen([[30, 5, 64, 25]], [0.8], [0]), _seen([[48, 22, 90, 60]], [0.7], [0])]
    found = join(seen, [Window(0, 0, 64, 64), Window(0, 48, 64, 112)], (64, 112), Looker([]))
    assert len(found) == 2


def test_what_is_larger_than_a_tile_comes_from_the_whole_image():
    image = paint((160, 160), (9, 5, 5, 155, 155), (7, 60, 60, 70, 70))
    found = detect_tiles(Looker([(9, 0, 0.9), (7, 1, 0.6)]), Held(image), Tiling(64, 0.25))
    assert (5, 5, 155, 155) in boxes_of(found)
    assert sum(label == 0 for label in found.labels.tolist()) == 1


def test_larger_tiles_end_where_their_overlap_holds_what_is_looked_for():
    """Tiles of 100 overlap by 20 pixels, those of 200 by 40, those of 400 by 80; the whole comes last."""
    sides = {largest: _sides(Tiling(100, largest=largest)) for largest in (20, 21, 40, 41, 1000)}
    assert sides == {20: [100, 1000], 21: [100, 200, 1000], 40: [100, 200, 1000], 41: [100, 200, 400, 1000],
                     1000: [100, 200, 400, 800, 1000]}  # fmt: skip
    assert _sides(Tiling(100, whole=False)) == [100]


def _sides(tiling):
    return sorted({w.right - w.left for w in tiling.windows((1000, 1000))})


def test_a_piece_that_looks_otherwise_gives_way_to_the_box_that_holds_it():
    """The tile shows 44 of the object's 80 columns, but the network saw only the upper half of those."""
    seen = [_seen([[20, 20, 64, 38]], [0.6], [0]), _seen([[20, 20, 100, 56]], [0.5], [0])]
    windows = [Window(0, 0, 64, 64), Window(0, 0, 128, 128)]
    assert boxes_of(join(seen, windows, (128, 128), Looker([]))) == [(20, 20, 100, 56)]


def test_a_whole_box_takes_half_of_what_its_piece_scores_more_and_a_weak_one_nothing_away():
    windows = [Window(0, 0, 64, 64), Window(0, 0, 128, 128)]
    for score, kept_scores in ((0.2, [0.8, 0.2]), (0.4, [0.6]), (0.9, [0.9])):
        seen = [_seen([[20, 20, 64, 38]], [0.8], [0]), _seen([[20, 20, 100, 56]], [score], [0])]
        assert join(seen, windows, (128, 128), Looker([])).scores.tolist() == pytest.approx(kept_scores)


def test_a_piece_nearly_as_large_gives_way_to_the_whole_box():
    """44 of 60 columns, an IoU of 0.73: with its 0.8 NMS would keep the piece, and the right side would be lost."""
    windows = [Window(0, 0, 64, 64), Window(0, 0, 128, 128)]
    seen = [_seen([[20, 20, 64, 56]], [0.8], [0]), _seen([[20, 20, 80, 56]], [0.5], [0])]
    found = join(seen, windows, (128, 128), Looker([]))
    assert boxes_of(found) == [(20, 20, 80, 56)]
    assert found.scores.tolist() == pytest.approx([0.65])


def test_a_piece_of_another_object_in_front_stays():
    """Both are cut by the same edge, and one lies in the other's box only in part."""
    seen = [_seen([[40, 50, 64, 64]], [0.6], [0]), _seen([[20, 20, 100, 58]], [0.9], [0])]
    windows = [Window(0, 0, 64, 64), Window(0, 0, 128, 128)]
    assert (40, 50, 64, 64) in boxes_of(join(seen, windows, (128, 128), Looker([])))


def test_what_became_of_each_row():
    """Two halves, a whole one in a larger window, and a stranger."""
    seen = [
        _seen([[30, 20, 64, 40], [5, 5, 15, 15]], [0.8, 0.7], [0, 0]),
        _seen([[56, 20, 90, 40]], [0.7], [0]),
        _seen([[31, 20, 89, 40]], [0.6], [0]),
    ]
    windows = [Window(0, 0, 64, 64), Window(0, 56, 64, 120), Window(0, 0, 128, 128)]
    whole = merge(rows_of(seen, windows, (128, 128)))
    assert [whole.members[k] for k in whole.owner[[0, 2]]] == [(3,), (3,)]
    assert sorted(whole.members) == [(1,), (3,)]
    joined = merge(rows_of(seen[:2], windows[:2], (128, 128)))
    assert sorted(joined.members) == [(0, 2), (1,)]
    assert joined.owner.tolist() == [-1, -1, -1]


def test_a_piece_gives_way_to_a_box_of_its_own_class():
    seen = [
        _seen([[20, 0, 64, 18], [20, 40, 64, 58]], [0.6, 0.6], [0, 1]),
        _seen([[20, 0, 100, 18], [20, 40, 100, 58]], [0.9, 0.9], [0, 1]),
    ]
    merged = merge(rows_of(seen, [Window(0, 0, 64, 64), Window(0, 0, 128, 128)], (128, 128)))
    assert merged.labels.tolist() == [0, 1]
    assert merged.owner.tolist() == [0, 1, -1, -1]


@pytest.mark.parametrize("seed", range(4))
def test_what_lies_far_apart_is_merged_as_each_alone(seed):
    """Two scenes of 300 objects in nine windows each, in one image and in any order."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 380, (300, 2))
    objects = np.concatenate([low, low + rng.uniform(4, 90, (300, 2))], axis=1)
    windows = [Window(top, left, top + 160, left + 160) for top in (0, 120, 240) for left in (0, 120, 240)]
    boxes, frames = [], []
    for window in windows:
        frame = np.array([window.left, window.top, window.right, window.bottom])
        cut = np.concatenate([np.clip(objects[:, k : k + 2], frame[:2], frame[2:]) for k in (0, 2)], axis=1)
        boxes.append(cut[(cut[:, 2:] - cut[:, :2] > 2).all(axis=1)])
        frames.append(np.tile(frame, (len(boxes[-1]), 1)))
    far = np.array([1000, 1000, 1000, 1000])
    boxes, frames = (np.concatenate([*part, *(p + far for p in part)]).astype(np.float32) for part in (boxes, frames))
    count = len(boxes) // 2
    scores = rng.uniform(0.1, 1, 2 * count).astype(np.float32)
    rows = Rows(boxes, scores, np.zeros(2 * count, np.int64), frames, cut_sides(boxes, frames, (1500, 1500)))

    def names(merged, of):
        return {tuple(sorted(of[list(m)].tolist())) for m in merged.members}

    halves = [np.arange(count), np.arange(count, 2 * count)]
    alone = set.union(*(names(merge(rows.pick(half)), half) for half in halves))
    mixed = rng.permutation(2 * count)
    assert names(merge(rows.pick(mixed)), mixed) == alone
    assert len(alone) < 2 * count  # some gave way


def test_the_edge_of_the_image_cuts_nothing():
    boxes = np.array([[0, 10, 20, 30], [40, 10, 64, 30], [90, 0, 112, 64]], np.float32)
    frames = np.array([[0, 0, 64, 64], [0, 0, 64, 64], [48, 0, 112, 64]], np.float32)
    assert cut_sides(boxes, frames, (64, 112)).tolist() == [
        [False, False, False, False],
        [False, False, True, False],
        [False, False, False, False],
    ]


def test_the_last_pixel_of_inclusive_boxes_is_one_of_the_image():
    """Also where the whole image is read smaller: here a third, 192 x 96 px."""
    detector = Looker([(9, 0, 0.9)])
    detector.config = tiny_config(data={"size": 64, "max_size": 96, "inclusive_boxes": True})
    plain, image = Looker([(9, 0, 0.9)]), Held(paint((288, 576), (9, 30, 30, 540, 240)))
    real = detector.detect
    detector.detect = lambda *args: [replace(d, boxes=d.boxes + last_pixel(detector.config.data)) for d in real(*args)]
    (found,) = detect_tiles(detector, image, Tiling(64, 0.25)).boxes.tolist()
    (expected,) = detect_tiles(plain, image, Tiling(64, 0.25)).boxes.tolist()
    assert expected == [30, 30, 540, 240]
    assert found == [30, 30, 541, 241]


def test_nothing_seen_is_nothing():
    found = detect_tiles(Looker([]), Held(paint((100, 200))), Tiling(64))
    assert len(found) == 0
    assert found.size == (100, 200)


@pytest.mark.parametrize(
    ("size", "window", "shape"),
    [
        ((2000, 3000), Window(0, 0, 2000, 3000), (128, 192)),  # the whole image
        ((100, 3000), Window(0, 0, 100, 3000), (6, 192)),
        ((2000, 3000), Window(0, 0, 600, 900), None),
        ((9000, 9000), Window(0, 0, 5000, 5000), (128, 128)),  # too large to be held beside others
    ],
)
def test_a_large_window_is_read_at_twice_what_the_network_takes(size, window, shape):
    assert read_shape(window, size, tiny_config(data={"size": 64, "max_size": 96}).data) == shape


def test_tiles_go_through_the_network_in_batches():
    detector = Looker([])
    detect_tiles(detector, Held(paint((64, 208))), Tiling(64, 0.25, whole=False, batch=3))
    assert detector.calls == [3, 1]


def test_which_tile_auto_means():
    detector = Looker([])
    assert parse_tile("auto", detector.config.data) == Tiling(64)
    detector.config = detector.config.override({"data": {"learned_side": 480, "learned_boxes": (10, 40, 150)}})
    assert parse_tile("auto", detector.config.data) == Tiling(480, largest=150)
    assert parse_tile("100", detector.config.data, 0.5) == Tiling(100, 0.5)
    for wrong in ("ten", "5", "-3"):
        with pytest.raises(ConfigError, match=r"tile .* (too small|neither)"):
            parse_tile(wrong, detector.config.data)
    with pytest.raises(ConfigError, match="--overlap"):
        parse_tile("100", detector.config.data, 0.95)


def join(seen, windows, size, looker):
    """The detections of windows put together."""
    rows = rows_of(seen, windows, size)
    return kept(Looked(tuple(windows), tuple(seen), rows, merge(rows)), looker)[0]


def _seen(boxes, scores, labels):
    count = len(boxes)
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores),
        torch.tensor(labels).long(),
        torch.arange(count),
        names=CLASSES.names,
    )
