"""Folders as people have them, each a tree made for its case. What opens is compared with the boxes put in."""

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from layouts import check, coco, image, txt, xml
from PIL import Image
from tiny import make_shapes

from fcos.data import kinds
from fcos.data.open import open_dataset, open_splits
from fcos.data.tree import DataSource, Tree
from fcos.errors import DataError, ImageWarning
from fcos.inference.sources import find_images

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
        DataError, match=r"read in 2 ways .*as coco: all; as yolo: all.*DataSource\(format=NAME\), coco or yolo"
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
    assert "DataSource(images=FOLDER) and DataSource(labels=FOLDER) settle it" in str(caught.value)


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


def test_the_plots_of_a_run_are_no_images_of_the_data_it_lies_in(tmp_path):
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    Image.new("RGB", (20, 20)).save(tmp_path / "a.jpg")
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(run / "val_0.jpg")
    for name in ("environment.json", "config.yaml", "metrics.csv"):
        (run / name).write_text("{}")
    assert [r.file_name for r in open_splits(tmp_path)["all"].records] == ["a.jpg"]


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
