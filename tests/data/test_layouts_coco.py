"""COCO's files as people have them: their names, and the names in them."""

import json
import sys

import pytest
from layouts import SIZE, check, coco, image

from fcos.data import kinds
from fcos.data.open import open_dataset, open_splits
from fcos.data.splits import taught_splits
from fcos.errors import DataError


@pytest.mark.parametrize("name", ["cells.json", "export (3).json", "project-1-at-2024.JSON", "x.y.json"])
def test_json_by_content_not_name(name, tmp_path):
    image(tmp_path / "pics" / "a.jpg")
    coco(tmp_path / name, ["a.jpg"], {"info": {"description": "x" * 500}, "licenses": []})
    (tmp_path / "notes.json").write_text('{"author": "me", "images": 5}')
    (tmp_path / "results.json").write_text('[{"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5}]')
    check(tmp_path, {"all": 1}, "coco")


@pytest.mark.parametrize(
    "name",
    [
        "train/a.jpg",
        "images/train/a.jpg",
        "other/place/a.jpg",
        "/home/me/set/train/a.jpg",
        "C:\\Users\\me\\set\\train\\a.jpg",
        "train\\a.jpg",
        "../train/a.jpg",
        "a.JPG",
        "A.jpeg",
        "a.png",
        "a",
        "https://example.org/set/a.jpg",
    ],
)
def test_file_names_with_other_folders_and_suffixes(name, tmp_path):
    image(tmp_path / "train" / "a.jpg")
    image(tmp_path / "val" / "a.jpg")
    coco(tmp_path / "train.json", [name])
    check(tmp_path, {"train": 1}, "coco")
    assert open_dataset(tmp_path).records[0].path == tmp_path / "train" / "a.jpg"
    assert open_dataset(tmp_path / "train.json").records[0].path == tmp_path / "train" / "a.jpg"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file of such a name")
def test_a_colon_in_a_name_is_no_drive(tmp_path):
    image(tmp_path / "images" / "a:b.jpg")
    image(tmp_path / "images" / "b.jpg")
    coco(tmp_path / "train.json", ["a:b.jpg"])
    assert open_dataset(tmp_path / "train.json").records[0].path.name == "a:b.jpg"


def test_one_json_over_split_folders(tmp_path):
    for split in ("train", "val"):
        image(tmp_path / split / f"{split}.jpg")
    coco(tmp_path / "all.json", ["train.jpg", "val.jpg"])
    check(tmp_path, {"train": 1, "val": 1}, "coco")


def test_images_of_another_split_are_not_taken_for_those_that_are_missing(tmp_path):
    for k in range(3):
        image(tmp_path / "train" / f"{k}.jpg")
    coco(tmp_path / "train.json", ["0.jpg", "1.jpg", "2.jpg"])
    coco(tmp_path / "val.json", ["0.jpg"])
    assert open_dataset(tmp_path, "val").records[0].path is None


def test_other_files_of_coco_beside_the_instances(tmp_path):
    image(tmp_path / "val2017" / "a.jpg")
    for name in ("instances", "person_keypoints", "captions"):
        coco(tmp_path / "annotations" / f"{name}_val2017.json", ["a.jpg"])
    coco(tmp_path / "annotations" / "image_info_test-dev2017.json", [])
    check(tmp_path, {"val": 1}, "coco")


def test_images_that_a_coco_file_does_not_list_are_told(tmp_path):
    """Where no other split may have them: not where the splits share a folder."""
    for k in range(4):
        image(tmp_path / "images" / f"{k}.jpg")
    coco(tmp_path / "annotations.json", ["0.jpg", "1.jpg"])
    told = [str(note) for note in open_dataset(tmp_path).notes]
    assert "images without an entry in the annotation file, left out (2; first: 2.jpg)" in told
    (tmp_path / "annotations.json").rename(tmp_path / "train.json")
    coco(tmp_path / "val.json", ["2.jpg", "3.jpg"])
    for data in open_splits(tmp_path).values():
        assert not any("left out" in str(note) for note in data.notes)


def test_two_files_for_one_split_need_a_choice(tmp_path):
    image(tmp_path / "a.jpg")
    for name in ("train_v1.json", "v2_train.json"):
        coco(tmp_path / name, ["a.jpg"])
    with pytest.raises(DataError, match=r"train_v1.json, v2_train.json all look like the split train"):
        open_splits(tmp_path)


def test_a_coco_file_whose_name_says_no_split_is_told_of(tmp_path):
    for name in ("train", "val", "extra_night"):
        image(tmp_path / "images" / f"{name}.jpg")
        coco(tmp_path / "annotations" / f"{name}.json", [f"{name}.jpg"])
    splits = open_splits(tmp_path)
    told = [str(note) for dataset in splits.values() for note in dataset.notes if note.kind is kinds.NO_SPLIT_NAME]
    assert list(splits) == ["train", "val"]
    assert len(told) == 1
    assert "extra_night.json" in told[0]


def coco_file(path, names):
    images = [{"id": k, "file_name": name, "width": SIZE[0], "height": SIZE[1]} for k, name in enumerate(names, 1)]
    rows = [{"id": k, "image_id": k, "category_id": 1, "bbox": [1, 1, 4, 4]} for k in range(1, len(names) + 1)]
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": [{"id": 1, "name": "a"}]}))


def test_a_file_of_the_whole_called_as_the_one_folder_of_images_is_no_split(tmp_path):
    names = [f"{number}.png" for number in range(4)]
    for name in names:
        image(tmp_path / "frames" / name)
    coco_file(tmp_path / "train.json", names[:2])
    coco_file(tmp_path / "val.json", names[2:])
    coco_file(tmp_path / "frames.json", names)
    assert {name: len(part) for name, part in open_splits(tmp_path).items()} == {"train": 2, "val": 2}


def test_a_split_is_known_by_the_name_of_its_file_too(tmp_path):
    for split in ("day", "night"):
        image(tmp_path / split / f"{split}.png")
        coco_file(tmp_path / f"instances_{split}.json", [f"{split}.png"])
    assert list(open_splits(tmp_path)) == ["day", "night"]
    assert open_dataset(tmp_path, "instances_night").split == "night"
    assert taught_splits(["day", "night"], "instances_day,night", "it") == ["day", "night"]
    assert taught_splits(["train", "val"], "train,valid", "it") == ["train", "val"]
