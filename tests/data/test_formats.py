import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from fcos.data import kinds
from fcos.data.dataset import Note
from fcos.data.formats.common import assemble
from fcos.data.images.jpeg import Header
from fcos.data.images.reading import turn_boxes
from fcos.data.kinds import Kind
from fcos.data.open import open_dataset, open_splits
from fcos.errors import DataError

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def write_image(path, width=100, height=80, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 150)).save(path, **options)


def coco(path, images, annotations, categories=((1, "cat"), (7, "dog"))):
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": id, "name": name} for id, name in categories],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def entry(id, name, width=100, height=80):
    return {"id": id, "file_name": name, "width": width, "height": height}


def note(image_id, bbox, category_id=1, **more):
    return {"id": 900 + image_id, "image_id": image_id, "category_id": category_id, "bbox": bbox, **more}


# --------------------------------------------------------------------------- COCO


def test_coco_worked_by_hand(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        write_image(tmp_path / "images" / name)
    rows = [
        note(30, [10, 20, 30, 40], 7, area=77),
        note(30, [99, 79, 1, 1], 1, iscrowd=1),
        note(30, [0, 0, 5, 5], 1, ignore=1),
        note(30, [0, 0, 5, 5], 1, difficult=1),
    ]
    dataset = open_dataset(coco(tmp_path / "data.json", [entry(30, "a.jpg"), entry(4, "b.jpg")], rows))
    first, empty = dataset.records
    assert (first.id, empty.id) == (30, 4)
    assert first.boxes.tolist() == [[10, 20, 40, 60], [99, 79, 100, 80], [0, 0, 5, 5], [0, 0, 5, 5]]
    assert first.labels.tolist() == [1, 0, 0, 0]
    assert first.ignore.tolist() == [False, True, True, True]
    assert first.areas.tolist() == [77, 1, 25, 25]
    assert empty.boxes.shape == (0, 4)
    assert len(empty.target()) == 0
    assert first.path == tmp_path / "images" / "a.jpg"
    assert dataset.classes.names == ("cat", "dog")
    assert dataset.classes.ids == (1, 7)
    assert dataset.notes == ()
    types = (first.boxes.dtype, first.labels.dtype, first.ignore.dtype, first.areas.dtype)
    assert types == (np.float32, np.int64, bool, np.float64)


def test_inclusive_boxes_end_one_pixel_earlier(tmp_path):
    path = coco(tmp_path / "val.json", [entry(1, "a.jpg")], [note(1, [10, 20, 30, 40]), note(1, [5, 5, 1, 1])])
    dataset = open_dataset(path, inclusive=True)
    assert dataset.records[0].boxes.tolist() == [[10, 20, 39, 59]]
    assert dataset.notes[1] == Note(
        kinds.NO_AREA,
        1,
        "annotation 901 of a.jpg, corners (5, 5, 5, 5)",
        "skipped",
    )


BAD = {
    "not finite": [float("nan"), 1, 2, 3],
    "without an area": [1, 1, -4, 5],
    "wholly outside": [200, 10, 20, 20],
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_boxes_are_named_and_counted_or_refused(kind, tmp_path):
    rows = [note(1, [1, 1, 9, 9]), note(1, BAD[kind], id=55), note(1, BAD[kind])]
    path = coco(tmp_path / "val.json", [entry(1, "a.jpg")], rows)
    dataset = open_dataset(path)
    assert len(dataset.records[0].boxes) == 1
    assert any(kind in str(n) and "(2; first: annotation 55 of a.jpg" in str(n) for n in dataset.notes)
    with pytest.raises(DataError, match=f"{kind}.*annotation 55 of a.jpg"):
        open_dataset(path, strict=True)


@pytest.mark.parametrize("bbox", [None, "x", [1, 2, 3], [1, 2, 3, "four"], [1, 2, 3, None], {}])
def test_what_is_no_box_at_all(bbox, tmp_path):
    path = coco(tmp_path / "val.json", [entry(1, "a.jpg")], [note(1, [1, 1, 9, 9]), note(1, bbox)])
    assert len(open_dataset(path).records[0].boxes) == 1


def test_boxes_over_the_edge_are_kept_and_noted(tmp_path):
    path = coco(tmp_path / "val.json", [entry(1, "a.jpg")], [note(1, [-10, 5, 50, 100])])
    for strict in (False, True):
        dataset = open_dataset(path, strict=strict)
        assert dataset.records[0].boxes.tolist() == [[-10, 5, 40, 105]]
        assert any("partly outside" in str(n) for n in dataset.notes)


@pytest.mark.parametrize(
    ("row", "text"),
    [(note(99, [1, 1, 5, 5]), "image id.*image_id 99"), (note(1, [1, 1, 5, 5], 3), "category id.*category_id 3")],
)
def test_annotations_of_nothing(row, text, tmp_path):
    path = coco(tmp_path / "val.json", [entry(1, "a.jpg")], [row])
    assert any("skipped" in str(n) for n in open_dataset(path).notes)
    with pytest.raises(DataError, match=text):
        open_dataset(path, strict=True)


def test_image_listed_twice_becomes_one(tmp_path):
    images = [entry(5, "a.jpg"), entry(6, "b.jpg"), entry(9, "a.jpg")]
    rows = [note(5, [1, 1, 9, 9]), note(9, [1, 1, 9, 9]), note(9, [2, 2, 9, 9]), note(6, [3, 3, 3, 3])]
    dataset = open_dataset(coco(tmp_path / "val.json", images, rows))
    assert [r.id for r in dataset.records] == [5, 6]
    assert dataset.records[0].boxes.tolist() == [[1, 1, 10, 10], [2, 2, 11, 11]]
    assert dataset.records[1].boxes.tolist() == [[3, 3, 6, 6]]
    assert any("listed twice" in str(n) for n in dataset.notes)


def test_one_file_under_two_names_is_one_image(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (100, 80)).save(tmp_path / "images" / "a.jpg")
    images = [entry(5, "a.jpg"), entry(6, "images/a.jpg")]
    path = coco(tmp_path / "val.json", images, [note(5, [1, 1, 9, 9]), note(6, [2, 2, 9, 9])])
    dataset = open_dataset(path)
    assert [len(r.boxes) for r in dataset.records] == [2]


def test_one_id_for_two_images_is_an_error(tmp_path):
    path = coco(tmp_path / "val.json", [entry(5, "a.jpg"), entry(5, "b.jpg")], [])
    with pytest.raises(DataError, match="image id 5 belongs to two images"):
        open_dataset(path)


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "OUT/secret.jpg", "a/../../secret.jpg", "C:\\secret.jpg", "..\\secret.jpg"]
)
def test_file_names_never_lead_out_of_the_folder(name, tmp_path):
    """They are looked up among the images of the set; a stranger's file opens nothing else."""
    write_image(tmp_path / "secret.jpg")
    path = coco(tmp_path / "mine" / "val.json", [entry(1, name.replace("OUT", str(tmp_path)))], [])
    assert open_dataset(path).records[0].path is None
    write_image(tmp_path / "mine" / "secret.jpg")
    inside = open_dataset(path, strict=True).records[0]
    assert inside.path == tmp_path / "mine" / "secret.jpg"
    assert ".." not in inside.file_name
    assert not inside.file_name.startswith("/")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is a list, such as a results file"),
        ("{", "is not JSON"),
        ('{"a": 1}', "it has no 'images'"),
        ('{"images": 5}', "'images' must be a list"),
        ('{"images": [], "categories": [{"id": 1, "name": "a"}]}', "lists no images"),
        ('{"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}]}', "needs an 'id' and a 'file_name'"),
        ('{"images": [], "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}', "the class 'a' twice"),
        ('{"images": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}', "id 1 appears twice"),
        ('{"images": []}', "names no classes"),
        ('{"images": [], "categories": [{"id": [], "name": "a"}]}', "must be a whole number"),
        ('{"images": [], "categories": [{"id": 1.5, "name": "a"}]}', "must be a whole number, not 1.5"),
        (
            '{"images": [], "categories": [{"id": 100000000000000002, "name": "a"}]}',
            "category id 100000000000000002 is too large; number them from 1 on",
        ),
    ],
)
def test_broken_files_give_one_line(text, message, tmp_path):
    path = tmp_path / "val.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("value", [None, -1, 2.5, "x", [], {}, True, 10**400, float("inf"), float("nan"), [{}]])
@pytest.mark.parametrize(
    "key", ["id", "file_name", "width", "image_id", "category_id", "bbox", "area", "iscrowd", "name"]
)
def test_any_value_anywhere_gives_a_data_set_or_one_line(key, value, tmp_path):
    content = {
        "images": [entry(1, "a.jpg"), entry(2, "b.jpg")],
        "annotations": [note(1, [1, 1, 5, 5], area=3, iscrowd=0), note(2, [1, 1, 5, 5])],
        "categories": [{"id": 1, "name": "a", "supercategory": "b"}, {"id": 2, "name": "b"}],
    }
    for rows in content.values():
        if key in rows[0]:
            kept, rows[0][key] = rows[0][key], value
            (tmp_path / "val.json").write_text(json.dumps(content))
            message = ""
            try:
                open_dataset(tmp_path / "val.json")
            except DataError as error:
                message = str(error)
            assert "\n" not in message
            rows[0][key] = kept


def test_gzip_and_damaged_gzip(tmp_path):
    path = coco(tmp_path / "x.json", [entry(1, "a.jpg")], [])
    packed = tmp_path / "instances_val2017.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert open_dataset(packed).split == "val"
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(DataError, match="cut short"):
        open_dataset(packed)


def layouts():
    yield "instances_train.json", "images/train/"
    yield "instances_train.json", "images/"
    yield "instances_train.json", "train/"
    yield "instances_train2017.json", "train2017/"
    yield "annotations/instances_train2017.json", "train2017/"
    yield "annotations/instances_train2017.json", "images/train2017/"
    yield "annotations/instances_train.json", "images/train/"
    yield "annotations/instances_train.json", "images/"
    yield "train.json", ""
    yield "train/_annotations.coco.json", "train/"
    yield "annotations/train.json", "train/"


@pytest.mark.parametrize(("file", "folder"), layouts())
def test_folders_where_images_are_found(file, folder, tmp_path):
    write_image(tmp_path / folder / "a b ü.jpg")
    coco(tmp_path / file, [entry(1, "a b ü.jpg")], [note(1, [1, 2, 3, 4])])
    dataset = open_dataset(tmp_path, "train", strict=True)
    assert dataset.records[0].path.resolve() == (tmp_path / folder / "a b ü.jpg").resolve()
    assert dataset.split == "train"
    assert dataset.notes == ()


def test_roboflow_layout_and_its_extra_class(tmp_path):
    for folder in ("train", "valid", "test"):
        write_image(tmp_path / folder / "a.jpg")
        path = coco(tmp_path / folder / "_annotations.coco.json", [entry(0, "a.jpg")], [note(0, [1, 1, 5, 5], 1)])
        content = json.loads(path.read_text())
        content["categories"] = [
            {"id": 0, "name": "cells", "supercategory": "none"},
            {"id": 1, "name": "RBC", "supercategory": "cells"},
        ]
        path.write_text(json.dumps(content))
    splits = open_splits(tmp_path)
    assert list(splits) == ["train", "val", "test"]
    assert splits["val"].classes.names == ("RBC",)
    assert splits["val"].classes.ids == (1,)
    assert splits["val"].records[0].labels.tolist() == [0]
    assert open_dataset(tmp_path, "validation").split == "val"


def test_splits_are_listed_when_one_must_be_chosen(tmp_path):
    for split in ("train", "val"):
        coco(tmp_path / f"instances_{split}.json", [entry(1, "a.jpg")], [])
    with pytest.raises(DataError, match=r"splits train, val; choose one with --split train .*'train'.* its own file"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match="no split 'tran'; did you mean train"):
        open_dataset(tmp_path, "tran")
    with pytest.raises(DataError, match="no split 'nights'; there are: train, val"):
        open_dataset(tmp_path, "nights")


def test_two_years_stay_apart(tmp_path):
    for year in ("2014", "2017"):
        coco(tmp_path / f"instances_val{year}.json", [entry(1, "a.jpg")], [])
    assert list(open_splits(tmp_path)) == ["val2014", "val2017"]


def test_missing_and_unreadable_images(tmp_path):
    write_image(tmp_path / "a.jpg")
    (tmp_path / "c.jpg").write_bytes(b"")
    path = coco(
        tmp_path / "val.json", [entry(1, "a.jpg"), entry(2, "b.jpg"), entry(3, "c.jpg")], [note(2, [1, 1, 2, 2])]
    )
    dataset = open_dataset(path)
    assert [r.id for r in dataset.records] == [1]
    assert any("missing (1; first: b.jpg" in str(n) for n in dataset.notes)
    assert any("cannot be read" in str(n) and "c.jpg" in str(n) for n in dataset.notes)
    with pytest.raises(DataError, match="missing"):
        open_dataset(path, strict=True)


def test_wrong_size_in_the_file(tmp_path):
    write_image(tmp_path / "a.jpg", 100, 80)
    write_image(tmp_path / "b.jpg", 100, 80)
    dataset = open_dataset(coco(tmp_path / "val.json", [entry(1, "a.jpg", 200, 160), entry(2, "b.jpg")], []))
    assert [r.id for r in dataset.records] == [2]
    assert any("a.jpg is 100x80, the annotation file says 200x160" in str(n) for n in dataset.notes)


def test_size_comes_from_the_image_when_the_file_has_none(tmp_path):
    write_image(tmp_path / "a.jpg", 64, 48)
    path = coco(tmp_path / "val.json", [{"id": 1, "file_name": "a.jpg"}], [])
    assert open_dataset(path).records[0].size == (48, 64)


def exif(orientation):
    value = Image.Exif()
    value[0x0112] = orientation
    return {"exif": value}


def test_exif_rotation_and_the_size_that_the_file_gives(tmp_path):
    write_image(tmp_path / "a.jpg", 100, 80, **exif(6))  # shown as 80 wide, 100 high
    rows = [note(1, [10, 20, 30, 40])]
    shown = open_dataset(coco(tmp_path / "val.json", [entry(1, "a.jpg", 80, 100)], rows)).records[0]
    assert shown.size == (100, 80)
    assert shown.boxes.tolist() == [[10, 20, 40, 60]]
    dataset = open_dataset(coco(tmp_path / "val.json", [entry(1, "a.jpg", 100, 80)], rows))
    assert dataset.records[0].size == (100, 80)
    assert dataset.records[0].boxes.tolist() == [[20, 10, 60, 40]]  # turned by 90 degrees: x' = 80 - y2, y' = x1
    assert any("boxes turned with them" in str(n) for n in dataset.notes)
    tall = [note(1, [10, 60, 30, 38])]  # reaches y = 98: only possible in the displayed image
    dataset = open_dataset(coco(tmp_path / "val.json", [entry(1, "a.jpg", 100, 80)], tall))
    assert dataset.records[0].boxes.tolist() == [[10, 60, 40, 98]]


class Owners(np.ndarray):
    """Counts the numbers that are looked at one by one."""

    looks = 0

    def __array_ufunc__(self, ufunc, method, *inputs, **more):
        type(self).looks += max(map(np.size, inputs))
        return getattr(ufunc, method)(*(np.asarray(i) for i in inputs), **more)


def test_rows_of_many_turned_images_are_found_at_once(monkeypatch):
    """In whatever order they stand; the work does not grow with images times rows."""
    images, each = 200, 5
    monkeypatch.setattr(assemble, "image_header", lambda path: Header(80, 100, 6))
    rng = np.random.default_rng(0)
    owner = rng.permutation(np.repeat(np.arange(images), each))
    corners = rng.integers(0, 40, (len(owner), 2))
    boxes = np.hstack([corners, corners + 30]).astype(float)
    rows = assemble.Rows(
        owner.view(Owners), boxes.copy(), np.zeros(len(owner), int), np.zeros(len(owner), bool),
        np.full(len(owner), np.nan), str, np.full((len(owner), 2), (30.0, 30.0)),
    )  # fmt: skip
    entries = [assemble.ImageFile(k, f"{k}.jpg", Path(f"{k}.jpg"), (80, 100)) for k in range(images)]
    records = assemble.assemble(entries, rows, assemble.Problems(Path("a.json"), False))
    for k, record in enumerate(records):
        np.testing.assert_allclose(record.boxes, turn_boxes(boxes[owner == k], 6, (100, 80)))
    assert Owners.looks < 20 * len(owner)


def test_text_ids_are_numbered(tmp_path):
    dataset = open_dataset(coco(tmp_path / "val.json", [entry("x7", "a.jpg"), entry("x8", "b.jpg")], [
        {"id": 1, "image_id": "x8", "category_id": 7, "bbox": [1, 1, 2, 2]}
    ]))  # fmt: skip
    assert [r.id for r in dataset.records] == [1, 2]
    assert dataset.records[1].labels.tolist() == [1]


@pytest.mark.parametrize("name", ["nothing", "notes.txt", "data.zip"])
def test_what_is_no_data_set(name, tmp_path):
    if "." in name:
        (tmp_path / name).write_text("x")
    with pytest.raises(DataError) as caught:
        open_dataset(tmp_path / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="holds no data set that is known"):
        open_dataset(tmp_path)


def test_a_run_folder_is_no_data_set(tmp_path):
    (tmp_path / "environment.json").write_text("{}")
    (tmp_path / "results.png").write_bytes(b"")
    with pytest.raises(DataError, match="a run folder, not a data set; give the data that it learned from") as told:
        open_dataset(tmp_path)
    assert not told.value.details  # what else lies in it is no help


# --------------------------------------------------------------------------- choosing classes


def test_classes_can_be_chosen_and_joined(tmp_path):
    rows = [note(1, [1, 1, 5, 5], 1), note(1, [2, 2, 5, 5], 7), note(2, [3, 3, 5, 5], 1, iscrowd=1)]
    dataset = open_dataset(coco(tmp_path / "val.json", [entry(1, "a.jpg"), entry(2, "b.jpg")], rows))
    dogs = dataset.with_classes(["dog"])
    assert dogs.classes.ids == (7,)
    assert [r.labels.tolist() for r in dogs.records] == [[0], []]
    assert dogs.records[0].boxes.tolist() == [[2, 2, 7, 7]]
    swapped = dataset.with_classes(["dog", "cat"])
    assert swapped.records[0].labels.tolist() == [1, 0]
    assert dataset.as_single_class().records[0].labels.tolist() == [0, 0]
    assert dataset.counts().tolist() == [1, 1]
    assert dataset.subset([1]).records[0].id == 2
    with pytest.raises(DataError, match="no class 'dgo'; did you mean dog"):
        dataset.with_classes(["dgo"])
    text = dataset.summary()
    assert "2 images, 3 boxes (1 of them ignored" in text
    assert "dog (id 7): 1" in text


# --------------------------------------------------------------------------- YOLO


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


def test_yolo_rotated_image_uses_the_displayed_size(tmp_path):
    yolo(tmp_path, "0 .5 .5 .5 .5\n", {"train": "images/train", "names": ["cat"]})
    write_image(tmp_path / "images/train/a.jpg", 100, 80, **exif(6))
    record = open_dataset(tmp_path).records[0]
    assert record.size == (100, 80)
    assert record.boxes.tolist() == [[20, 25, 60, 75]]


# --------------------------------------------------------------------------- VOC


def voc(root, stem, objects, width=100, height=80, images="JPEGImages", pages="Annotations"):
    write_image(root / images / f"{stem}.jpg", width, height)
    (root / pages).mkdir(exist_ok=True)
    body = "".join(
        f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox><part><name>head</name></part></object>"
        for name, hard, (x1, y1, x2, y2) in objects
    )
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    (root / pages / f"{stem}.xml").write_text(f"<annotation>{size}{body}</annotation>")


def test_voc_worked_by_hand(tmp_path):
    voc(tmp_path, "000001", [("dog", 0, (1, 1, 100, 80)), ("cat", 1, (11, 21, 11, 21)), ("cat", "true", (1, 1, 2, 2))])
    voc(tmp_path, "000002", [])
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("000001\n")
    (lists / "val.txt").write_text("000002\n")
    (lists / "dog_train.txt").write_text("000001  1\n")
    splits = open_splits(tmp_path)
    assert list(splits) == ["train", "val"]
    record = splits["train"].records[0]
    assert record.boxes.tolist() == [[0, 0, 100, 80], [10, 20, 11, 21], [0, 0, 2, 2]]
    assert record.ignore.tolist() == [False, True, True]
    assert splits["val"].classes == splits["train"].classes
    assert [splits["train"].classes.names[k] for k in record.labels] == ["dog", "cat", "cat"]
    assert len(splits["train"].classes) == 20  # names all known from VOC: VOC's own list
    assert len(splits["val"].records[0].boxes) == 0


def test_voc_other_classes_and_flat_folders(tmp_path):
    for split in ("train", "valid"):
        voc(tmp_path, f"{split}1", [("zebra fish", 0, (2, 2, 9, 9))], images=split, pages=split)
    voc(tmp_path, "valid2", [("ant", 0, (2, 2, 9, 9))], images="valid", pages="valid")
    splits = open_splits(tmp_path)
    assert list(splits) == ["train", "val"]
    assert splits["train"].classes.names == ("ant", "zebra fish")


def test_voc_problems(tmp_path):
    voc(tmp_path, "a", [("x", 0, (1, 1, 5, 5)), ("x", 0, ("", 1, 5, 5)), ("x", 0, (9, 9, 3, 3))])
    voc(tmp_path, "b", [])
    (tmp_path / "Annotations" / "b.xml").write_text("<annotation>")
    dataset = open_dataset(tmp_path)
    assert [len(r.boxes) for r in dataset.records] == [
        1
    ]  # what b shows nobody knows, so it is no image without objects
    text = " ".join(map(str, dataset.notes))
    assert "a.xml: object 2 has no bndbox" in text
    assert "object 2 (x) of a.xml" in text
    with pytest.raises(DataError):
        open_dataset(tmp_path, strict=True)


# --------------------------------------------------------------------------- the packs


@pytest.mark.skipif(not DATA.is_dir(), reason="shared/data is not here")
@pytest.mark.parametrize(
    ("pack", "split", "images", "boxes", "ignored"),
    [
        ("bccd", "test", 72, 945, 0),
        ("bccd", "train", 205, 2804, 0),
        ("voc2007", "test", 540, 1619, 291),
        ("coco_val2017_60", "val", 60, 655, 12),
        ("coco_val2017_boxes", "val", 5000, 36781, 444),
    ],
)
def test_packs_have_the_counts_of_their_readme(pack, split, images, boxes, ignored):
    dataset = open_dataset(DATA / pack, split)
    assert len(dataset) == images
    assert sum(len(r.boxes) for r in dataset.records) == boxes
    assert sum(int(r.ignore.sum()) for r in dataset.records) == ignored
    if pack != "coco_val2017_boxes":
        assert all(r.path is not None for r in dataset.records)
        assert dataset.notes == ()


@pytest.mark.skipif(not DATA.is_dir(), reason="shared/data is not here")
def test_same_boxes_as_pycocotools(capsys):
    from pycocotools.coco import COCO

    path = DATA / "coco_val2017_60" / "instances_val.json"
    theirs, dataset = COCO(str(path)), open_dataset(path)
    assert dataset.classes.ids == tuple(sorted(theirs.getCatIds()))
    for record in dataset.records:
        rows = theirs.loadAnns(theirs.getAnnIds(record.id))
        xywh = np.array([r["bbox"] for r in rows], dtype=np.float64).reshape(-1, 4)
        mine = record.boxes.astype(np.float64)
        np.testing.assert_allclose(np.hstack((mine[:, :2], mine[:, 2:] - mine[:, :2])), xywh, atol=1e-4)
        assert [dataset.classes.ids[k] for k in record.labels] == [r["category_id"] for r in rows]
        np.testing.assert_allclose(record.areas, [r["area"] for r in rows], rtol=1e-6)
        assert record.ignore.tolist() == [bool(r["iscrowd"]) for r in rows]


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


def test_a_note_is_one_line_whatever_the_file_is_called():
    assert str(Note(Kind("left out"), 2, "a\nb.png")) == r"left out (2; first: a\nb.png)"
