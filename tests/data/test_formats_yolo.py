"""YOLO: rows worked by hand, ways to name the images, what is wrong with them."""

import numpy as np
import pytest
import yaml
from PIL import Image
from written import exif, write_image

from fcos.data import kinds
from fcos.data.open import open_dataset, open_splits
from fcos.errors import DataError


def yolo(root, rows, content, image="images/train/a.jpg"):
    write_image(root / image)
    label = (root / image.replace("images/", "labels/")).with_suffix(".txt")
    label.parent.mkdir(parents=True, exist_ok=True)
    label.write_text(rows)
    (root / "data.yaml").write_text(yaml.safe_dump(content))


def test_yolo_worked_by_hand(tmp_path):
    rows = "0 0.5 0.5 0.2 0.5\n1 0.1 0.25 0.3 0.25 0.2 0.75\n\n"
    yolo(tmp_path, rows, {"train": "images/train", "names": ["cat", "dog"]})
    write_image(tmp_path / "images/train/sub/b.png")
    dataset = open_dataset(tmp_path)
    assert dataset.format == "yolo"
    np.testing.assert_allclose(dataset.records[0].boxes, [[40, 20, 60, 60], [10, 20, 30, 60]], rtol=1e-6)
    assert dataset.records[0].labels.tolist() == [0, 1]
    assert [r.file_name for r in dataset.records] == ["images/train/a.jpg", "images/train/sub/b.png"]
    assert dataset.records[1].boxes.shape == (0, 4)
    assert [r.id for r in dataset.records] == [1, 2]


def test_yolo_keypoints_are_no_polygon(tmp_path):
    """Worked by hand: the box of a row is its first four numbers, whatever the keypoints are."""
    rows = (
        "0 0.5 0.5 0.2 0.5 0.45 0.3 2 0.55 0.3 0\n"
        "0 0.5 0.5 0.2 0.5\n"  # no keypoints
        "0 0.1 0.25 0.3 0.25 0.2 0.75\n"  # a polygon
    )
    content = {"train": "images/train", "names": ["person"], "kpt_shape": [2, 3]}
    yolo(tmp_path, rows, content)
    dataset = open_dataset(tmp_path)
    np.testing.assert_allclose(dataset.records[0].boxes, [[40, 20, 60, 60]], rtol=1e-6)
    (note,) = dataset.notes
    assert (note.count, note.level) == (2, "skipped")
    assert "line 2: 5 numbers; a box with the keypoints of kpt_shape has 11" in note.example
    flat = "0 0.5 0.5 0.2 0.5 0.1 0.1 0.2 0.2\n"  # without visibility: an even count
    yolo(tmp_path, flat, {**content, "kpt_shape": [2, 2]})
    np.testing.assert_allclose(open_dataset(tmp_path).records[0].boxes, [[40, 20, 60, 60]], rtol=1e-6)
    for odd in (17, [17], [0, 3], ["a", 3], [1.5, 2]):
        yolo(tmp_path, flat, {**content, "kpt_shape": odd})
        with pytest.raises(DataError, match=r"kpt_shape must be \[number of keypoints, 2 or 3\]"):
            open_dataset(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        {"path": ".", "train": "images/train", "names": {0: "cat", 1: "dog"}},
        {"path": "missing", "train": "images/train", "names": ["cat", "dog"], "nc": 2},
        {"train": "../images/train", "names": ["cat", "dog"], "test": "not/there", "val": ""},
        {"train": ["images/train"], "names": ["cat", "dog"]},
        {"train": "train.txt", "names": ["cat", "dog"]},
        {"train": "here.txt", "names": ["cat", "dog"]},
        {"train": "ABSOLUTE", "names": ["cat", "dog"]},
    ],
)
def test_yolo_ways_to_name_the_images(content, tmp_path):
    root = tmp_path / "set"
    if content["train"] == "ABSOLUTE":
        content = content | {"train": str(root / "images/train")}
    yolo(root, "1 0.5 0.5 0.2 0.5\n", content)
    (root / "train.txt").write_text("./images/train/a.jpg\n")
    (root / "here.txt").write_text(f"{root}/images/train/a.jpg\n")
    for place in (root, root / "data.yaml"):
        dataset = open_dataset(place, strict=True)
        assert dataset.records[0].labels.tolist() == [1]
        assert dataset.classes.names == ("cat", "dog")


def test_yolo_images_below_a_folder_as_everywhere(tmp_path):
    """Hidden folders, which programs leave behind, are left out, and links to folders are followed."""
    write_image(tmp_path / "images" / "train" / "a.jpg", 10, 10)
    write_image(tmp_path / "images" / "train" / ".cache" / "c.jpg", 10, 10)
    write_image(tmp_path / "more" / "b.jpg", 10, 10)
    (tmp_path / "images" / "train" / "linked").symlink_to(tmp_path / "more")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [a]\n")
    assert {r.file_name.rpartition("/")[2] for r in open_dataset(tmp_path).records} == {"a.jpg", "b.jpg"}


def test_yolo_labels_beside_the_images(tmp_path):
    write_image(tmp_path / "train/a.jpg")
    (tmp_path / "train/a.txt").write_text("0 .5 .5 .5 .5")
    (tmp_path / "data.yaml").write_text("train: train\nnames: [cat]\n")
    assert len(open_dataset(tmp_path).records[0].boxes) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("5 .5 .5 .1 .1", "there is no class 5"),
        ("0 .5 .5", "3 numbers"),
        ("0 50 40 10 10", "not in shares of the image"),
        ("cat .5 .5 .1 .1", "made of numbers"),
        ("0 nan .5 .1 .1", "not finite"),
        ("0 .5 .5 0 .1", "without an area"),
    ],
)
def test_yolo_bad_rows(row, reason, tmp_path):
    yolo(tmp_path, f"0 .5 .5 .5 .5\n{row}\n", {"train": "images/train", "names": ["cat"]})
    dataset = open_dataset(tmp_path)
    assert len(dataset.records[0].boxes) == 1
    assert any(reason in str(n) and "line 2" in str(n) for n in dataset.notes)
    with pytest.raises(DataError, match=reason):
        open_dataset(tmp_path, strict=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": "images/nope", "names": ["a"]}, "images/nope does not exist"),
        ({"train": "images/train"}, "names must be"),
        ({"names": ["a"]}, "names no images|known"),
        ({"train": "images/train", "names": ["a", "a"]}, "'a' twice"),
        ({"train": "images/train", "names": ["a"], "nc": 3}, "nc is 3, but it lists 1 name"),
        ({"train": "bad.txt", "names": ["a"]}, "lists no images"),
    ],
)
def test_yolo_errors(content, message, tmp_path):
    yolo(tmp_path, "", content)
    (tmp_path / "bad.txt").write_text("../../etc/passwd.jpg\n")
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path / "data.yaml")


def test_yolo_boxes_a_little_over_the_edge_are_kept_and_told(tmp_path):
    yolo(tmp_path, "0 .9 .5 .4 .5\n", {"train": "images/train", "names": ["cat"]})
    dataset = open_dataset(tmp_path, strict=True)
    np.testing.assert_allclose(dataset.records[0].boxes, [[70, 20, 110, 60]], rtol=1e-6)
    assert [note.kind for note in dataset.notes] == [kinds.PARTLY_OUTSIDE]


def test_yolo_rotated_image_uses_the_displayed_size(tmp_path):
    yolo(tmp_path, "0 .5 .5 .5 .5\n", {"train": "images/train", "names": ["cat"]})
    write_image(tmp_path / "images/train/a.jpg", 100, 80, **exif(6))
    record = open_dataset(tmp_path).records[0]
    assert record.size == (100, 80)
    assert record.boxes.tolist() == [[20, 25, 60, 75]]


@pytest.mark.parametrize("key", ["train", "path"])
def test_a_yolo_place_too_long_for_any_file_is_one_line(key, tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "images" / "a.jpg")
    entries = {"path": ".", "train": "images", "nc": 1, "names": ["a"], key: "1" + "0" * 300}
    (tmp_path / "data.yaml").write_text("".join(f"{k}: {v!r}\n" for k, v in entries.items()))
    if key == "path":  # of another machine: the file's own folder counts
        assert len(open_splits(tmp_path / "data.yaml")["train"]) == 1
    else:
        with pytest.raises(DataError, match=r"data\.yaml"):
            open_splits(tmp_path / "data.yaml")
