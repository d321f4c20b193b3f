"""YOLO's label files as people write them, with and without names and a YAML."""

import json

import pytest
from layouts import check, image, txt
from PIL import Image

from fcos.data.open import open_dataset, open_splits
from fcos.data.tree import DataSource
from fcos.errors import DataError


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
    with pytest.raises(DataError, match=r"is outside .*DataSource\(images="):
        open_dataset(tmp_path / "set")
    check(tmp_path / "set", {"train": 1}, "yolo", images=tmp_path / "secret" / "pics")


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


def test_images_beside_no_label_file_are_told(tmp_path):
    for name in ("x/a", "y/b"):
        (tmp_path / "images" / name).parent.mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(tmp_path / "images" / f"{name}.jpg")
    (tmp_path / "labels" / "x").mkdir(parents=True)
    (tmp_path / "labels" / "x" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (dataset,) = open_splits(tmp_path).values()
    assert len(dataset) == 1
    assert any("without any label file" in str(note) for note in dataset.notes), dataset.notes


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


def test_a_key_of_images_without_labels_is_no_split(tmp_path):
    for folder in ("train", "night", "masks"):
        image(tmp_path / "images" / folder / f"{folder}.png")
    for folder in ("train", "night"):
        (tmp_path / "labels" / folder).mkdir(parents=True)
        (tmp_path / "labels" / folder / f"{folder}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    keys = "".join(f"{folder}: images/{folder}\n" for folder in ("train", "night", "masks"))
    (tmp_path / "data.yaml").write_text(f"path: .\n{keys}names: [a]\n")
    assert sorted(open_splits(tmp_path)) == ["night", "train"]
