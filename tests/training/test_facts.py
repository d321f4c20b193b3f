"""What up and down, left and right are in images."""

import cv2
import numpy as np
import pytest
from tiny import make_shapes

from fcos.data.in_python import dataset_of
from fcos.data.open import open_splits
from fcos.training.planning.facts import orientation


def images(tmp_path, draw, count=30, light=False):
    """A COCO set of `count` images with an object that `draw(canvas, rng)` puts into its box."""
    data = make_shapes(tmp_path / "set", {"train": count})
    dataset = open_splits(data)["train"]
    rng = np.random.default_rng(1)
    for record in dataset.records:
        canvas = rng.integers(80, 120, (*record.size, 3), dtype=np.uint8)
        if light:
            canvas[: record.size[0] // 2] += 60
        for box in record.boxes.astype(int):
            part = np.full((box[3] - box[1], box[2] - box[0], 3), 100, np.uint8)
            canvas[box[1] : box[3], box[0] : box[2]] = draw(part, rng)
        cv2.imencode(".png", canvas)[1].tofile(record.path)
    return dataset


def disc(part, rng):
    h, w = part.shape[:2]
    return cv2.ellipse(part, (w // 2, h // 2), (w // 2, h // 2), 0, 0, 360, (240, 240, 240), -1)


def letter(part, rng):
    """An F: neither its own mirror image nor itself upside down."""
    h, w = part.shape[:2]
    part[:, : w // 4] = part[: h // 4] = 250
    part[h // 2 : 2 * h // 3, : w // 2] = 250
    return part


def arrow(part, rng):
    """Points left or right, by chance: as animals do, and cars."""
    h, w = part.shape[:2]
    part[h // 3 : 2 * h // 3] = 250
    part[:, : w // 3] = 250
    return part[:, :: int(rng.choice((-1, 1)))]


@pytest.mark.parametrize("light", [False, True])
def test_cells_have_no_up_whatever_the_light(tmp_path, light):
    assert orientation(images(tmp_path, disc, light=light)) == (False, False)


def house(part, rng):
    """A triangle on its base: upside down it is another thing."""
    h, w = part.shape[:2]
    return cv2.fillPoly(part, [np.array([[0, h], [w, h], [w // 2, 0]])], (250, 250, 250))


def test_houses_stand(tmp_path):
    assert orientation(images(tmp_path, house)) == (True, False)


def test_without_objects_nothing_is_turned(tmp_path):
    dataset = images(tmp_path, disc, count=6)
    assert orientation(dataset) == (True, False)  # too few to say


def test_images_of_the_whole_set_are_looked_at(tmp_path):
    """In the first 100 of 199 images nothing has an up; in the others things stand."""
    rows = []
    for k in range(199):
        pixels = np.full((48, 48, 3), 100, np.uint8)
        (disc if k < 100 else house)(pixels[8:40, 8:40], None)
        file = tmp_path / f"{k:03}.png"
        cv2.imencode(".png", pixels)[1].tofile(file)
        rows.append({"image": str(file), "boxes": [[8, 8, 40, 40]], "labels": ["thing"]})
    assert orientation(dataset_of(rows[:100]))[0] is False
    assert orientation(dataset_of(rows))[0] is True


def test_letters_are_not_their_mirror_images(tmp_path):
    assert orientation(images(tmp_path, letter)) == (True, True)


def test_what_is_seen_from_both_sides_may_be_mirrored(tmp_path):
    assert orientation(images(tmp_path, arrow))[1] is False
