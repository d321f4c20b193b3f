"""A data set as the tiles of its images: boxes at the edges by hand, pixels, order, and what an epoch shows."""

import numpy as np
import pytest
from PIL import Image

from fcos.config import Config
from fcos.data.dataset import Dataset
from fcos.data.loading.augment import cut
from fcos.data.loading.cache import Reader
from fcos.data.loading.loader import load_sample, train_loader
from fcos.data.loading.sampler import Sampler
from fcos.data.records import Record, Window
from fcos.data.tiles import empty_share, tiled
from fcos.errors import ConfigError
from fcos.types import Classes


def record(path, size, boxes, ignore=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    ignored = np.zeros(len(boxes), bool) if ignore is None else np.array(ignore)
    return Record(7, path, size, boxes, np.arange(len(boxes)) % 2, ignored, np.ones(len(boxes)), "a.png")


@pytest.fixture
def dataset(tmp_path):
    """One image of 100 x 160 pixels: at a side of 100 and an overlap of 0.2 its tiles begin at x = 0 and 60."""
    pixels = np.random.default_rng(0).integers(0, 256, (100, 160, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    boxes = [[10, 10, 40, 40], [50, 20, 110, 50], [90, 60, 150, 90], [0, 0, 160, 5]]
    one = record(tmp_path / "a.png", (100, 160), boxes, [False, False, False, True])
    return Dataset((one,), Classes(("cat", "dog")), "coco", "train", tmp_path)


def test_boxes_at_the_edge_by_hand(dataset):
    left, right = tiled(dataset, 100).records
    assert (left.window, right.window) == (Window(0, 0, 100, 100), Window(0, 60, 100, 160))
    assert left.whole == right.whole == (100, 160)
    assert left.size == right.size == (100, 100)
    # of the third a sixth is left, less than KEEP: neither to learn nor to call empty; the fourth was ignored before
    assert left.boxes.tolist() == [[10, 10, 40, 40], [50, 20, 100, 50], [90, 60, 100, 90], [0, 0, 100, 5]]
    assert left.ignore.tolist() == [False, False, True, True]
    assert left.areas.tolist() == [900, 1500, 300, 500]
    assert right.boxes.tolist() == [[0, 20, 50, 50], [30, 60, 90, 90], [0, 0, 100, 5]]
    assert right.ignore.tolist() == [False, False, True]
    assert right.labels.tolist() == [1, 0, 1]


def test_a_tile_is_what_the_crop_of_the_image_is(dataset):
    """The same pixels, boxes and ignore flags as `augment.cut` gives for the window, through every cache."""
    whole = load_sample(dataset, Reader(dataset), 0)
    parts = tiled(dataset, 100)
    for cache in ("none", "ram", "disk"):
        reader = Reader(parts, Config().override({"data": {"size": 100, "max_size": 200, "cache": cache}}).data)
        for index, (top, left, bottom, right) in enumerate(r.window for r in parts.records):
            expected = cut(whole, left, top, right, bottom)
            for value, other in zip(load_sample(parts, reader, index), expected, strict=True):
                np.testing.assert_array_equal(value, other)


def test_what_is_no_larger_than_a_tile_stays_and_tiles_are_not_cut_again(dataset):
    assert tiled(dataset, 0) is dataset
    assert tiled(dataset, 160).records == dataset.records
    once = tiled(dataset, 100)
    assert [r.window for r in tiled(once, 50).records] == [r.window for r in once.records]


def grid(tmp_path, count, full):
    """`count` tiles of which the first `full` show an object."""
    rows = tuple(
        Record(
            i, tmp_path / "a.png", (64, 64), np.array([[1.0, 1, 9, 9]] if i < full else [], np.float32).reshape(-1, 4),
            np.zeros(int(i < full), np.int64), np.zeros(int(i < full), bool), np.ones(int(i < full)), "a.png", None,
            Window(0, 64 * i, 64, 64 * i + 64), (64, 64 * count),
        )
        for i in range(count)
    )  # fmt: skip
    return Dataset(rows, Classes(("cat",)), "coco", "train", tmp_path)


@pytest.mark.parametrize(("count", "full", "empty"), [(20, 4, 4), (20, 15, 5), (20, 20, 0), (20, 0, 20)])
def test_an_epoch_shows_no_more_empty_tiles_than_others_and_in_time_all(tmp_path, count, full, empty):
    parts = grid(tmp_path, count, full)
    config = Config().override({"data": {"size": 64, "max_size": 64}, "train": {"batch": 2, "epochs": 40}})
    sampler = Sampler(parts, config.data, config.train)
    seen = np.zeros(count, int)
    for epoch in range(40):
        shown = np.zeros(count, int)
        for step in range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch):
            np.add.at(shown, list(sampler.plan(step).records), 1)
        assert (shown[:full] >= 1).all()
        assert empty <= shown[full:].sum() <= empty + 1  # one may fill the last batch
        seen += shown
    assert (seen > 0).all()


def test_images_without_boxes_that_are_no_tiles_keep_their_place(tmp_path):
    bare = [record(tmp_path / "a.png", (64, 64), []) for _ in range(5)]
    whole = Dataset(
        (record(tmp_path / "a.png", (64, 64), [[1, 1, 9, 9]]), *bare), Classes(("a",)), "coco", "t", tmp_path
    )
    assert empty_share(whole).tolist() == [1] * 6


def test_resuming_on_tiles_is_bit_equal(dataset):
    settings = Config().override(
        {
            "data": {"size": 32, "max_size": 64, "workers": 0, "crop": 0.5, "color": 0.5},
            "train": {"batch": 3, "epochs": 4},
        }
    )
    parts = tiled(dataset, 40)
    whole = list(train_loader(parts, settings))
    rest = list(train_loader(parts, settings, start_step=len(whole) - 3))
    for one, two in zip(whole[-3:], rest, strict=True):
        np.testing.assert_array_equal(one[0].images.numpy(), two[0].images.numpy())
        assert all(np.array_equal(a.boxes, b.boxes) for a, b in zip(one[0].targets, two[0].targets, strict=True))
        assert all(np.array_equal(a.ignore, b.ignore) for a, b in zip(one[0].targets, two[0].targets, strict=True))


def test_what_is_no_tile():
    with pytest.raises(ConfigError, match=r"data\.tile=5 is too small; give at least 32 pixels, or 0"):
        Config().override("data.tile=5")
