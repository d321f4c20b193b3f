"""Folders as people have them, each a tree made for its case. What opens is compared with the boxes put in."""

import json
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tiny import make_shapes

from fcos.data import kinds
from fcos.data.open import open_dataset, open_splits, split_names
from fcos.data.splits import taught_splits
from fcos.data.tree import DataSource, Tree
from fcos.errors import DataError, ImageWarning
from fcos.inference.sources import find_images

BOX = (10, 20, 40, 60)  # of every image, xyxy
SIZE = (100, 80)  # width, height


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (sum(map(ord, path.stem)) % 255, 120, 150)).save(path)


def xml(path, name="cat", box=BOX):
    path.parent.mkdir(parents=True, exist_ok=True)
    x1, y1, x2, y2 = box
    path.write_text(
        f"<annotation><filename>{path.stem}.jpg</filename><size><width>100</width><height>80</height></size><object>"
        f"<name>{name}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        "</bndbox></object></annotation>"
    )


def txt(path, label=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{label} 0.25 0.5 0.3 0.5\n")


def coco(path, names, more=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    x1, y1, x2, y2 = BOX
    rows = [
        {"id": k, "image_id": k, "category_id": 3, "bbox": [x1, y1, x2 - x1, y2 - y1]} for k in range(1, len(names) + 1)
    ]
    images = [{"id": k, "file_name": name, "width": 100, "height": 80} for k, name in enumerate(names, 1)]
    content = {"images": images, "annotations": rows, "categories": [{"id": 3, "name": "cat"}]}
    path.write_text(json.dumps((more or {}) | content))


def check(root, splits, kind, **options):
    """Every split has its images, each there with its one box."""
    source = DataSource(root, **options)
    got = open_splits(source, strict=True)
    assert {name: len(part) for name, part in got.items()} == splits
    for part in got.values():
        assert part.format == kind
        for record in part.records:
            assert record.path is not None
            assert record.path.is_file()
            np.testing.assert_allclose(record.boxes, [BOX], atol=1e-4)
            assert part.classes.names[record.labels[0]] in ("cat", "class0")
    assert split_names(source) == list(got)


# --------------------------------------------------------------------------- the six sets of the issue


def test_voc_in_small_letters(tmp_path):
    for stem in "ab":
        image(tmp_path / "images" / f"{stem}.jpg")
        xml(tmp_path / "annotations" / f"{stem}.xml")
    check(tmp_path, {"all": 2}, "voc")


def test_train_and_test_one_level_down_with_xml_beside(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for k in range(count):
            image(tmp_path / "fruit" / split / f"{split}_{k}.jpg")
            xml(tmp_path / "fruit" / split / f"{split}_{k}.xml")
    check(tmp_path, {"train": 3, "test": 2}, "voc")


def test_the_same_under_a_parent_whose_name_says_nothing(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for k in range(count):
            image(tmp_path / "archive (1)" / "stuff" / split / f"{k}.jpg")
            xml(tmp_path / "archive (1)" / "stuff" / split / f"{k}.xml")
    check(tmp_path, {"train": 3, "test": 2}, "voc")


def test_coco_files_that_end_in_their_split(tmp_path):
    image(tmp_path / "train2017" / "1.jpg")
    image(tmp_path / "val2017" / "1.jpg")
    coco(tmp_path / "annotations" / "custom_train.json", ["1.jpg"])
    coco(tmp_path / "annotations" / "custom_val.json", ["1.jpg"])
    check(tmp_path, {"train": 1, "val": 1}, "coco")
    for split in ("train", "val"):
        assert open_dataset(tmp_path, split).records[0].path == tmp_path / f"{split}2017" / "1.jpg"


def test_voc_as_published(tmp_path):
    for stem in ("000001", "000002"):
        image(tmp_path / "VOCdevkit" / "VOC2007" / "JPEGImages" / f"{stem}.jpg")
        xml(tmp_path / "VOCdevkit" / "VOC2007" / "Annotations" / f"{stem}.xml")
    lists = tmp_path / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "trainval.txt").write_text("000001\n")
    (lists / "test.txt").write_text("000002\n")
    (lists / "cat_test.txt").write_text("000002 -1\n")
    check(tmp_path, {"trainval": 1, "test": 1}, "voc")


def test_roboflow_whose_yaml_forgets_test(tmp_path):
    for split in ("train", "valid", "test"):
        image(tmp_path / split / "images" / f"{split}.jpg")
        txt(tmp_path / split / "labels" / f"{split}.txt")
    content = {"train": "../train/images", "val": "../valid/images", "names": ["cat"], "nc": 1}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(content))
    check(tmp_path, {"train": 1, "val": 1, "test": 1}, "yolo")
    assert any("test is not named in data.yaml" in str(n) for n in open_dataset(tmp_path, "test").notes)
    check(tmp_path / "data.yaml", {"train": 1, "val": 1, "test": 1}, "yolo")


# --------------------------------------------------------------------------- names of folders

PLACES = [  # images, annotations; {s} is the split
    ("Images/{s}", "Labels/{s}"),
    ("image/{s}", "label/{s}"),
    ("IMGS/{s}", "ANNOTATIONS/{s}"),
    ("{s}/images", "{s}/labels"),
    ("{s}/img", "{s}/annotation"),
    ("{s}", "{s}"),
    ("{s}_images", "{s}_labels"),
    ("images/{s}2017", "annotations/{s}2017"),
    ("{s}/images", "labels/{s}"),
    ("a/b/images/{s}", "a/b/xmls/{s}"),
]
NAMES = [
    ("train", "val", "test"),
    ("training", "validation", "testing"),
    ("Train", "Valid", "Test"),
    ("trn", "dev", "eval"),
    ("TRAIN", "VAL", "TEST"),
]


@pytest.mark.parametrize("names", NAMES, ids=[n[0] for n in NAMES])
@pytest.mark.parametrize("places", PLACES, ids=[p[0] for p in PLACES])
@pytest.mark.parametrize("kind", ["voc", "yolo"])
def test_split_folders_of_any_usual_name(kind, places, names, tmp_path):
    for folder in names:
        for k in range(2):  # the same names in every split
            image(tmp_path / places[0].format(s=folder) / f"{k}.jpg")
            place = tmp_path / places[1].format(s=folder)
            xml(place / f"{k}.xml") if kind == "voc" else txt(place / f"{k}.txt")
    check(tmp_path, {"train": 2, "val": 2, "test": 2}, kind)


@pytest.mark.parametrize("wraps", [(), ("set",), ("download", "my set v2")])
def test_wrapping_folders(wraps, tmp_path):
    root = tmp_path.joinpath("top", *wraps)
    image(root / "images" / "train" / "a.jpg")
    image(root / "images" / "val" / "a.jpg")
    coco(root / "annotations" / "instances_train.json", ["a.jpg"])
    coco(root / "annotations" / "instances_val.json", ["a.jpg"])
    check(tmp_path / "top", {"train": 1, "val": 1}, "coco")


@pytest.mark.parametrize("place", ["", "lists/", "splits/", "ImageSets/", "ImageSets/Main/"])
@pytest.mark.parametrize("form", ["{}", "{}.jpg", "images/{}.jpg", "./images/{}.jpg", "/home/me/set/images/{}.jpg"])
@pytest.mark.parametrize("kind", ["voc", "yolo", "coco"])
def test_split_lists(kind, form, place, tmp_path):
    flat(tmp_path, kind, ("a b", "b", "c"))
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "train.txt").write_text("".join(form.format(s) + "\n" for s in ("a b", "b")))
    (tmp_path / place / "valid.txt").write_text(form.format("c"))
    check(tmp_path, {"train": 2, "val": 1}, kind)


def flat(root, kind, stems):
    """A set of images, in folders below images/ where their names have such, and their annotations."""
    for stem in stems:
        image(root / "images" / f"{stem}.jpg")
        if kind == "voc":
            xml(root / "annotations" / f"{stem}.xml")
        elif kind == "yolo":
            txt(root / "labels" / f"{stem}.txt")
    if kind == "coco":
        coco(root / "annotations.json", [f"{stem}.jpg" for stem in stems])


def listed(root, kind, lists, names="abcdefghij"):
    """A set of flat folders, and its lists: split -> names."""
    flat(root, kind, names)
    for split, stems in lists.items():
        (root / f"{split}.txt").write_text("".join(f"{stem}.jpg\n" for stem in stems))


@pytest.mark.parametrize("kind", ["voc", "yolo", "coco"])
@pytest.mark.parametrize("split", ["test", "val"])
def test_images_in_no_list_are_learned_where_no_list_is_train(kind, split, tmp_path):
    listed(tmp_path, kind, {split: "cj"})
    splits = open_splits(tmp_path, strict=True)
    assert {name: sorted(r.path.stem for r in part.records) for name, part in splits.items()} == {
        "train": list("abdefghi"),
        split: ["c", "j"],
    }
    assert taught_splits(splits, None, tmp_path) == ["train"]
    assert not any(part.notes for part in splits.values())


@pytest.mark.parametrize("kind", ["voc", "yolo", "coco"])
@pytest.mark.parametrize("taught", ["train", "trainval"])
def test_images_in_no_list_are_told_where_a_list_is_train(kind, taught, tmp_path):
    listed(tmp_path, kind, {taught: "abcde", "val": "fg"})
    splits = open_splits(tmp_path)
    assert {name: len(part) for name, part in splits.items()} == {taught: 5, "val": 2}
    (note,) = [note for part in splits.values() for note in part.notes]
    assert (note.kind, note.count, note.level) == (kinds.IN_NO_LIST, 3, "note")
    assert [Path(name).stem for name in (note.example, *note.more)] == list("hij")


@pytest.mark.parametrize("kind", ["voc", "yolo", "coco"])
def test_a_list_that_names_nothing_is_told(kind, tmp_path):
    listed(tmp_path, kind, {"val": "xyz"})
    (whole,) = open_splits(tmp_path).values()
    assert (whole.split, len(whole)) == ("all", 10)
    assert [str(note) for note in whole.notes] == ["split lists that name no image that is here (1; first: val: x.jpg)"]
    (tmp_path / "test.txt").write_text("c.jpg\n")
    splits = open_splits(tmp_path)
    assert {name: len(part) for name, part in splits.items()} == {"train": 9, "test": 1}
    assert all([(n.kind, n.level) for n in p.notes] == [(kinds.EMPTY_LISTS, "warning")] for p in splits.values())


def test_the_folder_of_an_image_in_no_list_says_its_split(tmp_path):
    names = [f"{folder}/{k}.jpg" for folder in ("test", "more") for k in range(2)]
    for name in (*names, "more/2.jpg"):
        image(tmp_path / name)
    coco(tmp_path / "all.json", [*names, "more/2.jpg"])
    (tmp_path / "val.txt").write_text("more/2.jpg\n")
    check(tmp_path, {"train": 2, "val": 1, "test": 2}, "coco")


def test_a_split_list_with_a_name_that_looks_like_a_table(tmp_path):
    for stem in ("a, b, c, d", "0 1 2 3 4", "plain", "other"):
        image(tmp_path / "images" / f"{stem}.jpg")
        xml(tmp_path / "annotations" / f"{stem}.xml")
    (tmp_path / "train.txt").write_text("a, b, c, d.jpg\nplain.jpg\nother.jpg\n")
    (tmp_path / "val.txt").write_text("0 1 2 3 4.jpg\nplain.jpg\nother.jpg\n")
    (tmp_path / "test.txt").write_text("a, b, c, d.jpg\n")
    found = {name: len(part) for name, part in open_splits(tmp_path).items()}
    assert found == {"train": 3, "val": 3, "test": 1}


def test_two_whole_sets_are_not_mixed(tmp_path):
    for year in ("VOC2007", "VOC2012"):
        for split in ("train", "test"):
            image(tmp_path / year / split / f"{year}{split}.jpg")
            xml(tmp_path / year / split / f"{year}{split}.xml")
    with pytest.raises(DataError, match="several data sets: voc2007, voc2012; name one"):
        open_splits(tmp_path)
    check(tmp_path / "VOC2007", {"train": 1, "test": 1}, "voc")


def test_folders_that_are_no_splits_are_one_set(tmp_path):
    for kind in ("night", "day"):
        image(tmp_path / kind / f"{kind}.jpg")
        xml(tmp_path / kind / f"{kind}.xml")
    check(tmp_path, {"all": 2}, "voc")


# --------------------------------------------------------------------------- COCO


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


# --------------------------------------------------------------------------- YOLO


@pytest.mark.parametrize("file", ["classes.txt", "obj.names", "labels/classes.txt", "data/my.names"])
def test_yolo_without_yaml(file, tmp_path):
    image(tmp_path / "images" / "a.jpg")
    txt(tmp_path / "labels" / "a.txt", 1)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("dog\ncat\n")
    check(tmp_path, {"all": 1}, "yolo")


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ("0 dog\n1 hot dog\n", ("dog", "hot dog")),
        ("0: dog\n1: cat\n\n", ("dog", "cat")),
        ("0,dog\n1,cat", ("dog", "cat")),
        ("1 euro\n2 euro\n", ("1 euro", "2 euro")),  # a name may begin with a number
        ("0 dog\n2 cat\n", ("0 dog", "2 cat")),
        ("0\n1\n", ("0", "1")),
    ],
)
def test_class_names_with_their_numbers_in_front(lines, names, tmp_path):
    image(tmp_path / "images" / "a.jpg")
    txt(tmp_path / "labels" / "a.txt", 1)
    (tmp_path / "classes.txt").write_text(lines)
    assert open_dataset(tmp_path).classes.names == names


def test_classes_of_label_studio_count_by_their_ids(tmp_path):
    image(tmp_path / "images" / "a.jpg")
    txt(tmp_path / "labels" / "a.txt", 1)
    rows = [{"id": 1, "name": "cat"}, {"id": 0, "name": "dog"}]
    (tmp_path / "notes.json").write_text(json.dumps({"categories": rows, "info": {"contributor": "Label Studio"}}))
    assert open_dataset(tmp_path).classes.names == ("dog", "cat")


def test_yolo_without_any_names(tmp_path):
    for k in range(3):
        image(tmp_path / "images" / f"{k}.jpg")
    txt(tmp_path / "labels" / "0.txt")
    (tmp_path / "labels" / "1.txt").write_text("")
    dataset = open_dataset(tmp_path)
    assert dataset.classes.names == ("class0",)
    assert [len(r.boxes) for r in dataset.records] == [1, 0, 0]
    assert any("without a label file" in str(n) for n in dataset.notes)


def test_darknet(tmp_path):
    for split in ("train", "valid"):
        for k in range(2):
            image(tmp_path / "data" / "obj" / f"{split}{k}.jpg")
            txt(tmp_path / "data" / "obj" / f"{split}{k}.txt")
        lines = [f"data/obj/{split}{k}.jpg\n" for k in range(2)]
        (tmp_path / "data" / f"{split}.txt").write_text("".join(lines))
    (tmp_path / "data" / "obj.names").write_text("cat\n")
    (tmp_path / "data" / "obj.data").write_text(
        "classes = 1\ntrain  = data/train.txt\nvalid  = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n"
    )
    check(tmp_path, {"train": 2, "val": 2}, "yolo")
    check(tmp_path / "data" / "obj.data", {"train": 2, "val": 2}, "yolo")


def test_yaml_written_on_another_machine(tmp_path):
    image(tmp_path / "train" / "images" / "a.jpg")
    txt(tmp_path / "train" / "labels" / "a.txt")
    (tmp_path / "data.yaml").write_text("path: /content/datasets/x\ntrain: /content/x/train/images\nnames: [cat]\n")
    check(tmp_path, {"train": 1}, "yolo")


def test_a_yaml_opens_nothing_outside_unless_told(tmp_path):
    image(tmp_path / "secret" / "pics" / "a.jpg")
    txt(tmp_path / "secret" / "pics" / "a.txt")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "data.yaml").write_text(f"train: {tmp_path}/secret/pics\nnames: [cat]\n")
    with pytest.raises(DataError, match=r"is outside .*--images"):
        open_dataset(tmp_path / "set")
    check(tmp_path / "set", {"train": 1}, "yolo", images=tmp_path / "secret" / "pics")


# --------------------------------------------------------------------------- two places, and by hand


@pytest.mark.parametrize("kind", ["voc", "yolo", "coco"])
def test_images_and_labels_in_two_places(kind, tmp_path):
    image(tmp_path / "disk1" / "train" / "a.jpg")
    image(tmp_path / "disk1" / "val" / "a.jpg")
    for split in ("train", "val"):
        if kind == "voc":
            xml(tmp_path / "disk2" / split / "a.xml")
        elif kind == "yolo":
            txt(tmp_path / "disk2" / split / "a.txt")
        else:
            coco(tmp_path / "disk2" / f"{split}.json", ["a.jpg"])
    check(tmp_path / "disk1", {"train": 1, "val": 1}, kind, labels=tmp_path / "disk2")
    check(tmp_path / "disk2", {"train": 1, "val": 1}, kind, images=tmp_path / "disk1")
    check(tmp_path, {"train": 1, "val": 1}, kind, images=tmp_path / "disk1", labels=tmp_path / "disk2")


def test_two_readings_are_shown_and_format_chooses(tmp_path):
    image(tmp_path / "images" / "a.jpg")
    txt(tmp_path / "labels" / "a.txt")
    coco(tmp_path / "annotations" / "all.json", ["a.jpg"])
    with pytest.raises(
        DataError, match=r"read in 2 ways .*as coco: all; as yolo: all.*--format coco or yolo"
    ) as caught:
        open_dataset(tmp_path)
    assert "all.json: COCO JSON" in caught.value.details
    check(tmp_path, {"all": 1}, "yolo", format="yolo")
    check(tmp_path, {"all": 1}, "coco", format="coco")


def test_what_was_found_is_shown_where_nothing_is_known(tmp_path):
    for k in range(5):
        image(tmp_path / "photos" / f"{k}.jpg")
    (tmp_path / "meta.json").write_text('{"author": 1, "year": 2}')
    (tmp_path / "dets.json").write_text('[{"image_id": 1, "score": 0.5, "bbox": [1, 2, 3, 4]}]')
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "readme.txt").write_text("hello\n")
    (tmp_path / "deep" / "x.xml").write_text("<plist><dict/></plist>")
    with pytest.raises(DataError, match=r"holds no data set that is known .5 images and 4 files") as caught:
        open_dataset(tmp_path)
    for text in (
        "photos/  5 images",
        "meta.json: an object with 'author', 'year'",
        "dets.json: a list of detections (COCO results), not annotations",
        "readme.txt: a text that begins 'hello'",
        "x.xml: XML <plist>",
    ):
        assert text in caught.value.details
    assert "--format NAME, --images FOLDER and --labels FOLDER" in str(caught.value)


def test_images_alone_are_told_so(tmp_path):
    for k in range(2):
        image(tmp_path / f"{k}.jpg")
    with pytest.raises(
        DataError, match=r"2 images, no labels; if they are elsewhere, .*; if there are none, fcos labels"
    ):
        open_dataset(tmp_path)


def test_a_reading_that_failed_says_why(tmp_path):
    image(tmp_path / "images" / "a.jpg")
    txt(tmp_path / "labels" / "other.txt")
    with pytest.raises(DataError, match=r"no label file belongs to an image by its name, such as .*other.txt"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tgz", "x.7z"])
def test_archives(name, tmp_path):
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="is an archive; unpack it first"):
        open_dataset(tmp_path / name)


def test_a_loop_of_links_and_what_a_killed_writer_left(tmp_path):
    image(tmp_path / "images" / "a.jpg")
    image(tmp_path / "images" / ".writing-a-1.jpg")
    xml(tmp_path / "annotations" / "a.xml")
    (tmp_path / "images" / "again").symlink_to(tmp_path)
    check(tmp_path, {"all": 1}, "voc")


def test_files_stand_in_the_order_of_their_paths(tmp_path):
    """As sorted() has paths, folder by folder: a folder before one whose name goes on with a letter below the slash."""
    names = ["a/2.jpg", "a-b/1.jpg", "a/b/3.jpg", "a.jpg", "B/x.jpg", "a/é.jpg", "a b/0.jpg", "10.jpg", "9.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert Tree(DataSource(tmp_path)).images.paths == sorted(tmp_path / name for name in names)


def test_opening_leaves_the_collector_of_python_as_it_was(tmp_path):
    import gc

    with pytest.raises(DataError):
        open_dataset(tmp_path / "nothing")
    assert gc.isenabled()
    gc.disable()
    try:
        with pytest.raises(DataError):
            open_splits(tmp_path / "nothing")
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_split_that_is_not_there_is_not_another(tmp_path):
    """Leading folders of an entry are dropped, but not the one that says which split it is."""
    for name in ("a", "b"):
        (tmp_path / "images" / "train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "labels" / "train").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20)).save(tmp_path / "images" / "train" / f"{name}.jpg")
        (tmp_path / "labels" / "train" / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text("train: ../images/train\nval: ../valid/images\nnames: [q]\n")
    with pytest.raises(DataError, match=r"val: \.\./valid/images does not exist"):
        open_splits(tmp_path)


def test_the_plots_of_a_run_are_no_images_of_the_data_it_lies_in(tmp_path):
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    Image.new("RGB", (20, 20)).save(tmp_path / "a.jpg")
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(run / "val_0.jpg")
    for name in ("environment.json", "config.yaml", "metrics.csv"):
        (run / name).write_text("{}")
    assert [r.file_name for r in open_splits(tmp_path)["all"].records] == ["a.jpg"]


def test_images_beside_no_label_file_are_told(tmp_path):
    for name in ("x/a", "y/b"):
        (tmp_path / "images" / name).parent.mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(tmp_path / "images" / f"{name}.jpg")
    (tmp_path / "labels" / "x").mkdir(parents=True)
    (tmp_path / "labels" / "x" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (dataset,) = open_splits(tmp_path).values()
    assert len(dataset) == 1
    assert any("without any label file" in str(note) for note in dataset.notes), dataset.notes


@pytest.mark.parametrize("to", ["kitti", "openimages"])
def test_classes_called_by_numbers_and_a_split_without_boxes_come_back(tmp_path, to):
    from fcos.data.write import convert
    from fcos.demo.digits import digits_dataset

    splits = dict(open_splits(digits_dataset(tmp_path / "digits", {"train": 3, "val": 2}, size=(64, 64))))
    nothing = replace(splits["val"], records=tuple(replace_boxes(r) for r in splits["val"].records))
    convert({"train": splits["train"], "val": nothing}, tmp_path / "out", to)
    again = open_splits(tmp_path / "out")
    assert len(again["train"]) == 3
    assert to != "kitti" or len(again["val"]) == 2
    assert again["train"].counts().sum() == splits["train"].counts().sum()


@pytest.mark.parametrize("kind", ["kitti", "yolo"])
def test_label_files_with_objects_are_found_among_many_empty_ones(tmp_path, kind):
    """Of many alike only a sample is opened: here it is of images without objects."""
    labels, images = ("label_2", "image_2") if kind == "kitti" else ("labels", "images")
    for k in range(60):
        image(tmp_path / images / f"{k:03d}.png")
        (tmp_path / labels).mkdir(exist_ok=True)
        text = {5: "", 8: "\n"}.get(k, "")
        if k in (3, 41):
            text = "Car 0 0 0 10 20 40 60 1 1 1 1 1 1 1\n" if kind == "kitti" else "0 0.25 0.5 0.3 0.5\n"
        (tmp_path / labels / f"{k:03d}.txt").write_text(text)
    dataset = open_dataset(tmp_path, strict=True)
    assert dataset.format == kind
    assert [k for k, record in enumerate(dataset) if len(record.boxes)] == [3, 41]
    assert len(dataset) == 60


def replace_boxes(record):
    """The same image without objects."""
    keep = np.zeros(0, int)
    return replace(
        record, boxes=record.boxes[keep], labels=record.labels[keep], ignore=record.ignore[keep],
        areas=record.areas[keep], xywh=record.exact()[keep],
    )  # fmt: skip


def test_images_of_formats_that_are_not_read_are_told_of(tmp_path):
    make_shapes(tmp_path, {"train": 3})
    for name in ("b.heic", "a.HEIC", "c.nef"):
        (tmp_path / "images" / "train" / name).write_bytes(b"x")
    told = "3 files in .* left out .*a.HEIC.: .heic, .nef images are not read; convert to JPEG or PNG"
    with pytest.warns(ImageWarning, match=told):
        assert len(open_dataset(tmp_path)) == 3
    with pytest.warns(ImageWarning, match=told):
        assert len(find_images([str(tmp_path)])) == 3


def test_a_source_takes_its_folders_as_texts_too(tmp_path):
    make_shapes(tmp_path, {"train": 2})
    texts = DataSource(str(tmp_path), images=str(tmp_path / "images"))
    assert texts == DataSource(tmp_path, images=tmp_path / "images")
    assert len(open_dataset(texts)) == 2


def test_a_run_among_the_images_of_a_yolo_set_teaches_nothing(tmp_path):
    """Its plots lie in a folder of images, and are none of them."""
    images = tmp_path / "images" / "train"
    for folder in (images, tmp_path / "labels" / "train", run := images / "run"):
        folder.mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (32, 32)).save(images / f"{name}.png")
        (tmp_path / "labels" / "train" / f"{name}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [disc]\n")
    for name in ("environment.json", "config.yaml", "metrics.csv"):
        (run / name).write_text("{}")
    Image.new("RGB", (32, 32)).save(run / "val_0.jpg")
    assert [r.path.name for r in open_dataset(tmp_path).records] == ["a.png", "b.png"]


# --------------------------------------------------------------------------- names on several machines


@pytest.mark.parametrize("kind", ["yolo", "listed", "voc", "coco"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_both_spellings_of_an_umlaut_are_one_name(tmp_path, kind, form):
    """macOS spells ä as a with a mark behind it, and so do zip files from there."""
    other = "NFD" if form == "NFC" else "NFC"
    there, told = (unicodedata.normalize(f, "Grün/Bäume") for f in (form, other))
    image(tmp_path / "images" / f"{there}.jpg")
    if kind in ("yolo", "listed"):
        txt(tmp_path / "labels" / f"{told}.txt")
    if kind == "listed":
        (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [cat]\n")
        (tmp_path / "train.txt").write_text(f"/content/images/{told}.jpg\n")
    if kind == "voc":
        xml(tmp_path / "annotations" / f"{told}.xml")
    if kind == "coco":
        coco(tmp_path / "annotations.json", [f"{told}.jpg"])
    check(tmp_path, {"train" if kind == "listed" else "all": 1}, "yolo" if kind == "listed" else kind)


def parts_of(root):
    """Split -> the images, below images/, without suffix."""
    return {
        split: sorted(r.path.relative_to(root / "images").with_suffix("").as_posix() for r in part)
        for split, part in open_splits(root).items()
    }


@pytest.mark.parametrize("kind", ["yolo", "voc", "coco"])
@pytest.mark.parametrize("front", ["", "images/", "/content/data/images/", "./", "C:\\set\\images\\"])
def test_lists_tell_frames_of_one_name_apart_by_their_folders(tmp_path, kind, front):
    flat(tmp_path, kind, ["cam1/0001", "cam2/0001", "cam1/0002", "alone"])
    (tmp_path / "train.txt").write_text(f"{front}cam1/0001.jpg\n{front}cam1/0002.jpg\n")
    (tmp_path / "val.txt").write_text(f"{front}cam2/0001.jpg\n{front}alone.jpg\n")
    assert parts_of(tmp_path) == {"train": ["cam1/0001", "cam1/0002"], "val": ["alone", "cam2/0001"]}


@pytest.mark.parametrize("kind", ["yolo", "coco"])
def test_a_list_of_another_machine_means_the_only_image_of_a_name(tmp_path, kind):
    flat(tmp_path, kind, ["x/a", "x/b", "x/c"])
    (tmp_path / "train.txt").write_text("/home/me/old/a.jpg\n/home/me/old/c.jpg\n")
    (tmp_path / "val.txt").write_text("/home/me/old/b.jpg\n/home/me/older/c.jpg\nx/gone.jpg\n")
    # two lists mean c by different paths, so it is in neither of them
    assert parts_of(tmp_path) == {"train": ["x/a"], "val": ["x/b"]}


# --------------------------------------------------------------------------- YOLO as people write it


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("data.yaml", "nc: 2\nnames: [dog, cat]\n"),
        ("data.yaml", "# a comment\n  nc: 2\n  names:\n    0: dog\n    1: cat\n"),
        ("my set.yml", '"names": {0: dog, 1: cat}\n'),
    ],
)
def test_names_of_a_yaml_that_names_no_images_are_heard(tmp_path, name, text):
    image(tmp_path / "images" / "a.jpg")
    txt(tmp_path / "labels" / "a.txt", 1)
    (tmp_path / name).write_text(text)
    check(tmp_path, {"all": 1}, "yolo")
    assert open_dataset(tmp_path).classes.names == ("dog", "cat")
    (tmp_path / "classes.txt").write_text("cow\nhen\n")
    with pytest.raises(DataError, match="name different classes; remove one of them"):
        open_dataset(tmp_path)


def test_a_yaml_whose_keys_are_indented_describes_a_set(tmp_path):
    image(tmp_path / "images" / "one" / "a.jpg")
    txt(tmp_path / "labels" / "one" / "a.txt")
    (tmp_path / "data.yaml").write_text("  train: images/one\n  names:\n    0: cat\n")
    check(tmp_path, {"train": 1}, "yolo")


def test_classes_as_pandas_writes_them(tmp_path):
    image(tmp_path / "images" / "a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0.0 0.25 0.5 0.3 0.5\n")
    check(tmp_path, {"all": 1}, "yolo")
    (tmp_path / "labels" / "a.txt").write_text("2.0 0.25 0.5 0.3 0.5\n")
    assert open_dataset(tmp_path).classes.names == ("class0", "class1", "class2")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("0 0.25 0.5 0.3 0.5 0.9", "6 numbers; .* is the sixth a score"),
        ("0,0.25,0.5,0.3,0.5", "a row is made of numbers: class x y w h"),
        ("0 25 50 30 50", r".* is not in shares of the image \(0\.\.1\)"),
        ("0.5 0.25 0.5 0.3 0.5", "there is no class 0.5"),
    ],
)
def test_label_files_that_are_nearly_of_yolo_are_told_why_not(tmp_path, row, told):
    for name in "ab":
        image(tmp_path / "images" / f"{name}.jpg")
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{name}.txt").write_text(row + "\n")
    with pytest.raises(DataError, match=rf"holds no data set that is known .*as YOLO: .*a\.txt, line 1: {told}"):
        open_dataset(tmp_path)


def test_a_walk_that_was_cut_short_is_told(tmp_path, monkeypatch):
    """COCO's images and as many labels lie beside one file, and no more are looked at than so many."""
    monkeypatch.setattr("fcos.data.tree._NEAR_FILES", 3)
    for number in range(6):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    images = [{"id": 1, "file_name": "1.png", "width": 8, "height": 8}]
    file = tmp_path / "instances.json"
    file.write_text(json.dumps({"images": images, "annotations": [], "categories": [{"id": 1, "name": "a"}]}))
    with pytest.warns(ImageWarning, match="not all were looked at; name the folder of the images with --images"):
        open_dataset(file)


def test_yolo_labels_in_a_folder_of_another_name(tmp_path):
    """As VOC's are found there; of two label files of one image nobody knows which is meant."""
    for stem in "ab":
        image(tmp_path / "photos_2024" / f"{stem}.jpg")
        txt(tmp_path / "my_labels" / "deep" / f"{stem}.txt")
    assert [len(record.boxes) for record in open_dataset(tmp_path)] == [1, 1]
    source = DataSource(tmp_path / "photos_2024", labels=tmp_path / "my_labels")
    assert [len(record.boxes) for record in open_dataset(source)] == [1, 1]
    txt(tmp_path / "old_labels" / "b.txt")
    assert [len(record.boxes) for record in open_dataset(tmp_path)] == [1, 0]


def test_faulty_kitti_rows_are_told_and_the_good_ones_beside_them_kept(tmp_path):
    good = "Car 0 0 0 10 20 50 60 1 1 1 0 0 0 0\n"
    rows = ("", good.replace("10 20", "nan 20"), "Car 0 0 0 10 20\n")
    for k, more in enumerate(rows):
        image(tmp_path / "training" / "image_2" / f"{k:06d}.png")
        label = tmp_path / "training" / "label_2" / f"{k:06d}.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text(good + more)
    dataset = open_dataset(tmp_path)
    assert [len(record.boxes) for record in dataset] == [1, 1, 1]
    assert {note.kind for note in dataset.notes} == {kinds.NOT_FINITE, kinds.OBJECTS}
    with pytest.raises(DataError, match="line 2"):
        open_dataset(tmp_path, strict=True)


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


def test_a_key_of_images_without_labels_is_no_split(tmp_path):
    for folder in ("train", "night", "masks"):
        image(tmp_path / "images" / folder / f"{folder}.png")
    for folder in ("train", "night"):
        (tmp_path / "labels" / folder).mkdir(parents=True)
        (tmp_path / "labels" / folder / f"{folder}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    keys = "".join(f"{folder}: images/{folder}\n" for folder in ("train", "night", "masks"))
    (tmp_path / "data.yaml").write_text(f"path: .\n{keys}names: [a]\n")
    assert sorted(open_splits(tmp_path)) == ["night", "train"]
