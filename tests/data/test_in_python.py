"""Annotations that a program holds are the data set that the same annotations in a file are."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import make_shapes

import fcos
from fcos.errors import DataError


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    make_shapes(folder, {"train": 5})
    return folder


def rows_of(data, convert=lambda values: values):
    return [
        {
            "image": str(r.path),
            "boxes": convert(r.boxes.tolist()),
            "labels": [data.classes.names[k] for k in r.labels],
            "ignore": r.ignore.tolist(),
        }
        for r in data.records
    ]


@pytest.mark.parametrize("convert", [lambda v: v, np.array, torch.tensor], ids=["lists", "arrays", "tensors"])
def test_rows_are_the_data_set_that_a_file_is(shapes, convert):
    expected = fcos.open_dataset(shapes, "train")
    found = fcos.open_dataset(rows_of(expected, convert), "train", classes=expected.classes.names)
    assert found.classes.names == expected.classes.names
    assert (found.split, len(found)) == ("train", len(expected))
    for a, b in zip(found.records, expected.records, strict=True):
        assert (a.path, a.size, a.file_name.rpartition("/")[2]) == (b.path, b.size, b.file_name.rpartition("/")[2])
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.labels, b.labels)
        np.testing.assert_array_equal(a.ignore, b.ignore)
        np.testing.assert_allclose(a.areas, (b.boxes[:, 2] - b.boxes[:, 0]) * (b.boxes[:, 3] - b.boxes[:, 1]))


def test_numbers_are_classes_where_these_are_named(shapes):
    data = fcos.open_dataset(shapes, "train")
    rows = rows_of(data)
    numbered = [{**row, "labels": np.array(r.labels)} for row, r in zip(rows, data.records, strict=True)]
    found = fcos.open_dataset(numbered, classes=data.classes.names)
    assert found.counts().tolist() == data.counts().tolist()
    with pytest.raises(DataError, match=r"row \d .*the label \d is no class; name them: classes"):
        fcos.open_dataset(numbered)
    with pytest.raises(DataError, match=r"the label 1 is no class; there are 1 class"):
        fcos.open_dataset(numbered, classes=["one"])


def test_a_choice_of_classes_is_that_of_a_file(shapes):
    data = fcos.open_dataset(shapes, "train")
    one = data.classes.names[1]
    of_file, of_rows = (
        fcos.open_dataset(shapes, "train", classes=[one]),
        fcos.open_dataset(rows_of(data), classes=[one]),
    )
    assert of_file.classes.names == of_rows.classes.names == (one,)
    assert data.with_classes(one).classes == data.with_classes([one]).classes  # a text is one name
    assert of_file.counts().tolist() == of_rows.counts().tolist() == [data.counts()[1]]
    assert len(of_file) == len(of_rows) == len(data)  # the others teach what it is not


def test_objects_of_classes_that_are_not_chosen_are_counted(shapes):
    data = fcos.open_dataset(shapes, "train")
    a, b = data.classes.names
    only = fcos.open_dataset(rows_of(data), classes=[a], strict=True)  # no fault: it was asked for
    assert [str(n) for n in only.notes] == [
        f"objects of other classes than the chosen, left out ({data.counts()[1]}; first: {b!r})"
    ]
    (note,) = fcos.open_dataset(rows_of(data), classes=[a.upper(), b]).notes
    assert (note.level, note.count) == ("skipped", data.counts()[0])
    assert f"{a!r}; did you mean {a.upper()!r}?" in str(note)
    with pytest.raises(DataError, match=f"{a!r}; did you mean {a.upper()!r}"):
        fcos.open_dataset(rows_of(data), classes=[a.upper(), b], strict=True)


def test_classes_are_names_however_they_are_given(shapes):
    data = fcos.open_dataset(shapes, "train")
    a, b = data.classes.names
    for where in (shapes, rows_of(data)):
        for given in ({0: a, 1: b}, {1: b, 0: a}, data.classes, np.array([a, b]), (name for name in (a, b))):
            assert fcos.open_dataset(where, classes=given).classes.names == (a, b)
        assert fcos.open_dataset(where, classes=b).classes.names == (b,)
        for given, line in (
            ({1: a, 2: b}, "classes has the numbers 1, 2; number them 0, 1"),
            ({a: 0, b: 1}, "number them 0, 1"),
            ([1, 2], "classes holds 1; give names"),
            (3, "classes is a int; give a list of names"),
        ):
            with pytest.raises(DataError, match=line):
                fcos.open_dataset(where, classes=given)


def test_an_image_is_no_data_set(shapes):
    with pytest.raises(DataError) as error:
        fcos.open_dataset(next(shapes.rglob("*.jpg"), None) or next(shapes.rglob("*.png")))
    assert "is an image; give the file or folder of its annotations" in str(error.value)
    assert not error.value.details


def test_edges_are_those_of_files(tmp_path):
    """EXIF rotation, an image without objects, one listed twice, one that is missing, faulty boxes."""
    image = Image.new("RGB", (80, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown as 40 x 80
    image.save(tmp_path / "turned.jpg", exif=exif)
    Image.new("L", (30, 20)).save(tmp_path / "grey.png")
    rows = [
        {"image": tmp_path / "turned.jpg", "boxes": [[5, 50, 35, 78]], "labels": ["a"]},
        {"image": tmp_path / "grey.png", "boxes": [], "labels": []},
        {"image": tmp_path / "turned.jpg", "boxes": [[5, 50, 35, 78], [1, 1, 9, 9]], "labels": ["a", "b"]},
        {"image": tmp_path / "missing.png", "boxes": [[1, 1, 9, 9]], "labels": ["b"]},
        {"image": tmp_path / "grey.png", "boxes": [[9, 9, 3, 12], [0, 0, float("nan"), 3]], "labels": ["a", "b"]},
    ]
    data = fcos.open_dataset(rows)
    assert [(r.file_name, r.size, len(r.boxes)) for r in data.records] == [
        ("turned.jpg", (80, 40), 2),
        ("grey.png", (20, 30), 0),
    ]
    told = "\n".join(map(str, data.notes))
    for part in ("listed twice", "missing.png", "corners (9, 9, 3, 12)", "corners (0, 0, nan, 3)"):
        assert part in told
    with pytest.raises(DataError):
        fcos.open_dataset(rows, strict=True)


@pytest.mark.parametrize(
    ("row", "line"),
    [
        ("photo.jpg", "row 0 is a str; give a mapping with image, boxes and labels"),
        ({"image": "a.jpg", "labels": []}, "row 0 has no boxes"),
        ({"image": "a.jpg", "boxes": [], "label": []}, "row 0 has a key 'label'; did you mean labels"),
        ({"image": np.zeros((3, 3)), "boxes": [], "labels": []}, "image is a ndarray; give the path of a file"),
        ({"image": "a.jpg", "boxes": [[1, 2, 3]], "labels": ["a"]}, "row 0 (a.jpg): boxes are not rows of four"),
        ({"image": "a.jpg", "boxes": [1, 2, 3, 4], "labels": ["a"]}, "boxes are not rows of four numbers"),
        ({"image": "a.jpg", "boxes": 3, "labels": ["a"]}, "boxes is a int; give a list"),
        ({"image": "a.jpg", "boxes": [[1, 2, 3, "x"]], "labels": ["a"]}, "boxes are not rows of four numbers"),
        ({"image": "a.jpg", "boxes": [[1, 2, 3, 4]], "labels": "a"}, "labels is a str; give a list"),
        ({"image": "a.jpg", "boxes": [[1, 2, 3, 4]], "labels": []}, "1 boxes, 0 labels and 0 ignore"),
        (
            {"image": "a.jpg", "boxes": [[1, 2, 3, 4]], "labels": ["a"], "ignore": [[True]]},
            "ignore is not a list of True and False",
        ),
        (
            {"image": "a.jpg", "boxes": [[1, 2, 3, 4]], "labels": ["a"], "ignore": ["False"]},
            "ignore is not a list of True and False",
        ),
        ({"image": "a.jpg", "boxes": [[1, 2, 3, 4]], "labels": [1.5]}, "a label is 1.5; give the name of a class"),
        ({"image": "a.jpg", "boxes": [[1, 2, 3, 4]], "labels": [True]}, "a label is True"),
    ],
)
def test_what_makes_no_sense_is_one_line(row, line):
    with pytest.raises(DataError) as error:
        fcos.open_dataset([row])
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("rows", [[], 5, None])
def test_no_rows_are_no_data_set(rows):
    with pytest.raises(DataError):
        fcos.open_dataset(rows)


def test_no_class_is_no_data_set(shapes):
    images = [str(r.path) for r in fcos.open_dataset(shapes, "train").records]
    with pytest.raises(DataError, match="names no classes"):
        fcos.open_dataset([{"image": images[0], "boxes": [], "labels": []}])
    with pytest.raises(DataError, match="names the class 'a' twice"):
        fcos.open_dataset([{"image": images[0], "boxes": [], "labels": []}], classes=["a", "a"])


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
def test_rows_are_saved_as_a_folder_that_commands_read(shapes, tmp_path, to):
    data = fcos.open_dataset(rows_of(fcos.open_dataset(shapes, "train")), "train")
    told = fcos.save_dataset(data, tmp_path / "out", to)
    assert all(isinstance(line, str) for line in told)
    again = fcos.open_dataset(tmp_path / "out")
    assert again.split == "train"
    assert dict(zip(again.classes.names, again.counts().tolist(), strict=True)) == dict(
        zip(data.classes.names, data.counts().tolist(), strict=True)
    )
    fcos.save_dataset(data, tmp_path / "linked", to, link=True)
    linked = fcos.open_dataset(tmp_path / "linked").records
    assert all(record.path.is_symlink() for record in linked)
    with pytest.raises(DataError, match="is there already"):
        fcos.save_dataset({"train": data}, tmp_path / "out", to)
    with pytest.raises(DataError, match="yolo"):
        fcos.save_dataset(data, tmp_path / "more", "yoho")


def test_what_would_be_written_wrongly_or_into_itself_is_refused(tmp_path):
    folder = make_shapes(tmp_path / "set", {"train": 2})
    data = fcos.open_dataset(folder, "train")
    fcos.save_dataset(data, tmp_path / "voc", "voc")
    with pytest.raises(DataError, match="lies in the data set itself"):
        fcos.save_dataset(fcos.open_dataset(tmp_path / "voc"), tmp_path / "voc" / "new")
    assert len(fcos.open_dataset(tmp_path / "voc")) == 2
    with pytest.raises(DataError, match=r"inclusive=True: its boxes end one pixel earlier .* open it without"):
        fcos.save_dataset(fcos.open_dataset(folder, "train", inclusive=True), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    fcos.save_dataset(data, tmp_path / "out")


def test_a_home_folder_is_meant_by_its_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME" if os.name == "posix" else "USERPROFILE", str(tmp_path))
    make_shapes(tmp_path / "set", {"train": 2})
    assert len(fcos.open_dataset("~/set")) == 2
    assert fcos.DataSource("~/set").path == tmp_path / "set"


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (lambda x, y, w, h: (x, y, x + w, y + h), ""),
        (lambda x, y, w, h: (x, y, w, h), "as if all were x, y of a corner, width, height"),
        (lambda x, y, w, h: (x + w / 2, y + h / 2, w, h), "as if all were x, y of the centre, width, height"),
        (lambda x, y, w, h: (x, x + w, y, y + h), "as if all were x1, x2, y1, y2"),
        (lambda x, y, w, h: (y, x, y + h, x + w), "as if all were y1, x1, y2, x2"),
        (lambda x, y, w, h: (x / 200, y / 100, (x + w) / 200, (y + h) / 100), "as if their numbers were shares"),
        (lambda x, y, w, h: (x / 2, y, (x + w) / 2, y + h), ""),
        (lambda x, y, w, h: (x / 2, y / 2, (x + w) / 2, (y + h) / 2), "all lie in the upper left of their images"),
    ],
)
def test_boxes_in_another_unit_or_form_are_told_of(written, told, tmp_path):
    Image.new("RGB", (200, 100)).save(tmp_path / "0.png")
    rng = np.random.default_rng(0)
    rows = []
    for k in range(25):
        (tmp_path / f"{k}.png").write_bytes((tmp_path / "0.png").read_bytes())
        low, side = rng.uniform((0, 0), (150, 70), (3, 2)), rng.uniform((10, 10), (50, 30), (3, 2))
        boxes = [written(*box) for box in np.concatenate([low, side], axis=1).tolist()]
        rows.append({"image": tmp_path / f"{k}.png", "boxes": boxes, "labels": ["cat"] * 3})
    said = " ".join(note.kind.many for note in fcos.open_dataset(rows).notes)
    assert told in said
    assert ("as if" in said) == bool(told)


def test_a_data_set_is_a_sequence_of_records(shapes):
    data = fcos.open_dataset(shapes, "train")
    assert [r.id for r in data] == [r.id for r in data.records]
    assert data[-1].id == data.records[len(data) - 1].id
    assert [r.id for r in data[1:3]] == [r.id for r in list(data)[1:3]]
    assert [r.id for r in data[np.array([True, False, False, False, True])]] == [data[0].id, data[4].id]
    with pytest.raises(IndexError):
        data[99]


def test_boxes_that_say_their_form_become_corners(shapes):
    from torchvision.tv_tensors import BoundingBoxes

    image = fcos.open_dataset(shapes, "train")[0].path

    def boxes(form, *box):
        given = BoundingBoxes([box], format=form, canvas_size=(64, 80))
        return fcos.open_dataset([{"image": image, "boxes": given, "labels": ["disc"]}])[0].boxes.tolist()

    assert boxes("XYWH", 1, 2, 30, 40) == boxes("XYXY", 1, 2, 31, 42) == [[1, 2, 31, 42]]
    with pytest.raises(DataError, match=r"row 0 .*: boxes are in the form CXCYWHR"):
        boxes("CXCYWHR", 20.0, 20.0, 8.0, 8.0, 45.0)
