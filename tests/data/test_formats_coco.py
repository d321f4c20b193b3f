"""COCO files: boxes worked by hand, what is wrong with them, where their images lie."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from written import coco, entry, exif, note, write_image

from fcos.data import kinds
from fcos.data.dataset import Note
from fcos.data.formats.common import assemble
from fcos.data.images.jpeg import Header
from fcos.data.images.reading import turn_boxes
from fcos.data.open import open_dataset, open_splits
from fcos.errors import DataError


def test_coco_worked_by_hand(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        write_image(tmp_path / "images" / name)
    rows = [
        note(30, [10, 20, 30, 40], 7, area=77),
        note(30, [99, 79, 1, 1], 1, iscrowd=1),
        note(30, [0, 0, 5, 5], 1, ignore=1),
        note(30, [0, 0, 5, 5], 1, difficult=1, area=-3),  # no area: that of the box
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
    with pytest.raises(DataError, match=r"splits train, val; choose one with split='train', or name its own file"):
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
    assert dataset.records[0].exact().tolist() == [[20, 10, 40, 30]]  # width and height have changed places too
    assert dataset.records[0].areas.tolist() == [1200]
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
