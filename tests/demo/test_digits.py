"""The demo's scenes: boxes tight to the pixel, splits disjoint, the same seed the same bytes."""

import hashlib
import json

import cv2
import numpy as np
import pytest

from fcos.demo import digits
from fcos.errors import ConfigError


def scene(i: int, split: str = "train", size: tuple[int, int] = (256, 256)) -> digits.Scene:
    return digits.make_scene(np.random.default_rng([7, i]), split, size)


def test_splits_are_disjoint_and_whole() -> None:
    parts = [digits.split_samples(split) for split in digits.SPLITS]
    together = np.concatenate(parts)
    assert len(together) == len(np.unique(together)) == len(digits.load_digits()[0]) == 1797
    for part in parts:
        counts = np.bincount(digits.load_digits()[1][part], minlength=10)
        assert counts.max() - counts.min() <= 5


@pytest.mark.parametrize("split", digits.SPLITS)
def test_scenes_use_only_digits_of_their_split(split: str) -> None:
    for i in range(20):
        one = scene(i, split)
        assert np.isin(one.samples, digits.split_samples(split)).all()
        assert (digits.load_digits()[1][one.samples] == one.labels).all()


@pytest.mark.parametrize("size", [(256, 256), (128, 320), (400, 300), (33, 32)])
def test_boxes_are_tight_around_the_visible_ink(size: tuple[int, int]) -> None:
    for i in range(25):
        one = scene(i, size=size)
        assert one.image.shape == (*size, 3)
        assert one.boxes.dtype == np.float32
        assert one.boxes.shape == (len(one.labels), 4)
        for k, box in enumerate(one.boxes):
            x, y, w, h = cv2.boundingRect((one.owner == k).astype(np.uint8))
            assert tuple(box) == (x, y, x + w, y + h)
        assert set(np.unique(one.owner)) <= set(range(-1, len(one.labels)))


def test_ink_in_the_image_fills_the_box() -> None:
    """Seen in the pixels alone: where the ground is all one grey, what differs from it is a digit."""
    checked = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "_ground", lambda rng, h, w: np.full((h, w, 3), 120, np.uint8))
        for i in range(60):
            one = scene(i)
            if len(one.boxes) != 1:
                continue
            # half opaque ink over the darkened grey, at CONTRAST or more from it, moves the luma by half of that
            luma = one.image @ np.array([0.299, 0.587, 0.114])
            ground = round(120 * digits.DARKER)
            x, y, w, h = cv2.boundingRect((abs(luma - ground) > digits.CONTRAST / 2).astype(np.uint8))
            assert np.abs(one.boxes[0] - (x, y, x + w, y + h)).max() <= 1
            checked += 1
    assert checked > 3


def test_digits_stand_out_and_are_mostly_visible() -> None:
    clear = []
    for i in range(60):
        one = scene(i)
        luma = one.image @ np.array([0.299, 0.587, 0.114])
        for k, box in enumerate(one.boxes.astype(int)):
            x1, y1, x2, y2 = box
            part, mine = luma[y1:y2, x1:x2], one.owner[y1:y2, x1:x2] == k
            around = one.owner[y1:y2, x1:x2] == -1
            if around.sum() > 20:
                clear.append(abs(part[mine].mean() - part[around].mean()))
    assert np.mean(np.array(clear) > 45) > 0.95


def test_no_digit_loses_more_than_half_its_ink() -> None:
    overlaps = 0
    for i in range(60):
        drawn: list[int] = []
        real = digits._paint

        def spy(rng, window, alpha, other, real=real, drawn=drawn):
            drawn.append(int((alpha >= 0.5).sum()))
            real(rng, window, alpha, other)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(digits, "_paint", spy)
            one = scene(i)
        shown = np.bincount(one.owner[one.owner >= 0], minlength=len(drawn))
        assert len(drawn) == len(one.boxes)
        assert all(s >= 0.5 * whole for s, whole in zip(shown, drawn, strict=True))
        overlaps += sum(s < whole for s, whole in zip(shown, drawn, strict=True))
    assert overlaps > 0


def test_sizes_and_counts() -> None:
    lengths, counts = [], []
    for i in range(200):
        one = scene(i)
        counts.append(len(one.labels))
        lengths += list((one.boxes[:, 2:] - one.boxes[:, :2]).max(1))
    assert 0.01 < np.mean(np.array(counts) == 0) < 0.12
    assert max(counts) == digits.MOST
    assert np.mean((np.array(lengths) >= 44) & (np.array(lengths) <= 110)) > 0.8
    assert max(lengths) <= 130


def test_files_are_coco_and_depend_on_the_seed_only(tmp_path) -> None:
    def digest(folder, count: int, seed: int) -> tuple[str, list[str]]:
        path = digits.make_scenes(folder, count, "val", seed, size=(96, 128))
        images = sorted((folder / "images" / "val").iterdir())
        return path.read_text(), [hashlib.sha256(p.read_bytes()).hexdigest() for p in images]

    first, again = digest(tmp_path / "a", 12, 3), digest(tmp_path / "b", 12, 3)
    assert first == again
    other = digest(tmp_path / "c", 5, 4)
    assert not set(other[1]) & set(first[1])
    shorter = digest(tmp_path / "d", 5, 3)
    assert shorter[1] == first[1][:5]

    content = json.loads(first[0])
    assert [c["name"] for c in content["categories"]] == list("0123456789")
    ids = {image["id"] for image in content["images"]}
    assert len(ids) == 12
    for image in content["images"]:
        read = cv2.imread(str(tmp_path / "a" / "images" / "val" / image["file_name"]))
        assert read.shape == (image["height"], image["width"], 3) == (96, 128, 3)
    for row in content["annotations"]:
        x, y, w, h = row["bbox"]
        assert row["image_id"] in ids
        assert 1 <= row["category_id"] <= 10
        assert x >= 0
        assert y >= 0
        assert w > 0
        assert h > 0
        assert x + w <= 128
        assert y + h <= 96


def test_dataset_is_recognised(tmp_path) -> None:
    folder = digits.digits_dataset(tmp_path / "d", {"train": 6, "val": 3, "test": 0}, size=(64, 64))
    assert not (folder / "images" / "test").exists()
    from fcos.data.open import open_dataset

    for split, count in (("train", 6), ("val", 3)):
        dataset = open_dataset(folder, split)
        assert len(dataset) == count
        assert dataset.classes.names == digits.NAMES


def test_wrong_input_is_named() -> None:
    with pytest.raises(ConfigError, match="no split 'dev'"):
        digits.split_samples("dev")
    with pytest.raises(ConfigError, match="sides >= 32"):
        digits.make_scenes("never-written", 1, "train", size=(10, 10))
    with pytest.raises(ConfigError, match="no split 'dev'"):
        digits.make_scenes("never-written", 1, "dev")


def test_assets_are_small_and_attributed() -> None:
    text = (digits.ASSETS / "ATTRIBUTION.md").read_text()
    # weights, should there be any, belong to the zoo
    files = [digits.ASSETS / "digits.npz", *digits.photographs(), *(digits.ASSETS / "textures").iterdir()]
    assert len(digits.photographs()) >= 3
    assert sum(file.stat().st_size for file in files) < 500_000
    for file in files:
        assert f"`{file.relative_to(digits.ASSETS).as_posix()}`" in text
