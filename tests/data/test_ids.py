"""Ids of COCO files: whatever JSON holds, an image has one number, and no two have the same."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import fcos

import fcos as fcos_package
from fcos.cli.explain import _image_id
from fcos.data.ids import id_of, look_up, settle
from fcos.data.open import numbers_of, open_dataset
from fcos.detections import Detections
from fcos.errors import DataError
from fcos.evaluation.coco import evaluate
from fcos.evaluation.results import read_results, write_results
from fcos.inference.writers import image_ids

any_id = st.integers(-3, 12) | st.sampled_from(["3", "03", "003", "-3", "²", "1.0", "", "a", "b/7", "٣", "0", "-0"])


@settings(deadline=None)
@given(st.lists(any_id, max_size=8))
@example([3, "3", "03"])
@example(["a", 1, "b", 2])
@example(["000139", "000285"])
def test_every_id_has_a_number_of_its_own(ids):
    numbers = settle(ids)
    assert len(set(numbers.values())) == len(numbers) == len(set(ids))
    assert all(numbers[i] == i for i in ids if isinstance(i, int))
    assert all(look_up(i, numbers, 99) == numbers[i] for i in ids)
    assert all(type(n) is int for n in numbers.values())


def test_what_spells_a_number_has_it_where_it_is_free():
    assert settle(["000139", "000285"]) == {"000139": 139, "000285": 285}
    assert settle(["03", "3", 4]) == {4: 4, "3": 3, "03": 1}
    assert settle(["cat", 2, "dog"]) == {2: 2, "cat": 1, "dog": 3}


def test_what_is_no_id():
    assert [id_of(v) for v in (True, None, [3], 3.5, float("nan"), float("inf"))] == [None] * 6
    assert id_of(3.0) == 3
    assert look_up("3", {3: 7}, -1) == look_up(3.0, {3: 7}, -1) == 7
    assert look_up("03", {3: 7}, -1) == look_up(True, {1: 7}, -1) == -1


def write(folder, images, annotations, found=()):
    truth = {
        "images": [{"id": id, "file_name": name, "width": 64, "height": 64} for id, name in images],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": n, "category_id": 1, **a} for n, a in enumerate(annotations, 1)],
    }
    (folder / "instances_val.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(json.dumps([{"category_id": 1, "score": 0.9, **f} for f in found]))
    return folder / "instances_val.json", folder / "found.json"


def box(number):
    return [number, 2 * number, 10 + number, 20]


@pytest.mark.parametrize("ids", [[3, "3", "03"], ["x8", 1, "1"], ["000139", "000285"], [5, 6], ["1.0", 1.0]])
def test_perfect_detections_are_perfect_whatever_the_ids(tmp_path, ids):
    rows = [{"image_id": id, "bbox": box(n)} for n, id in enumerate(ids)]
    truth, found = write(tmp_path, [(id, f"{n}.jpg") for n, id in enumerate(ids)], rows, rows)
    data = open_dataset(truth)
    assert len({r.id for r in data.records}) == len(ids)
    assert [r.boxes[0, 0] for r in data.records] == list(range(len(ids)))
    assert evaluate(read_results(found, data), data).ap == pytest.approx(1)


def test_numbers_given_as_text_are_numbers(tmp_path):
    rows = [{"image_id": "7", "bbox": ["1", "2.5", "10", "20"], "category_id": "1", "area": "200", "iscrowd": "0"}]
    truth, found = write(tmp_path, [(7, "a.jpg")], rows, [{"image_id": "7", "bbox": [1, 2.5, 10, 20]}])
    data = open_dataset(truth)
    record = data.records[0]
    assert (record.boxes.tolist(), record.ignore.tolist()) == ([[1, 2.5, 11, 22.5]], [False])
    assert evaluate(read_results(found, data), data).ap == pytest.approx(1)


@pytest.mark.parametrize("key", ["iscrowd", "ignore", "difficult"])
@pytest.mark.parametrize(
    ("value", "crowd"), [(0, False), ("0", False), (None, False), ("false", False), (False, False), (0.0, False),
                         (1, True), ("1", True), ("True", True), (True, True)],
)  # fmt: skip
def test_marks_of_crowd(tmp_path, key, value, crowd):
    truth, _ = write(tmp_path, [(1, "a.jpg")], [{"image_id": 1, "bbox": box(1), key: value}])
    assert open_dataset(truth).records[0].ignore.tolist() == [crowd]


@pytest.mark.parametrize("value", ["maybe", [0], {}, ""])
def test_a_mark_that_is_no_number_is_refused(tmp_path, value):
    truth, _ = write(tmp_path, [(1, "a.jpg")], [{"image_id": 1, "bbox": box(1), "iscrowd": value}])
    with pytest.raises(DataError, match=r"instances_val\.json: iscrowd of annotation 1 is .*; write 0 or 1"):
        open_dataset(truth)


@pytest.mark.parametrize("value", [True, 3.5, [1], None])
def test_an_id_that_is_none_is_refused(tmp_path, value):
    truth, _ = write(tmp_path, [(value, "a.jpg")], [])
    with pytest.raises(DataError, match=r"the image id .* must be a whole number or a text"):
        open_dataset(truth)


@pytest.mark.parametrize("ids", [(1, 2), ("x", "y"), (1, "1")])
def test_two_ids_of_one_file_name_are_one_image(tmp_path, ids):
    rows = [{"image_id": ids[0], "bbox": box(1)}, {"image_id": ids[1], "bbox": box(30)}]
    truth, found = write(tmp_path, [(ids[0], "a.jpg"), (ids[1], "a.jpg")], rows, rows)
    data = open_dataset(truth)
    assert len(data) == 1
    results = read_results(found, data)
    assert np.sort(results[0].boxes[:, 0].numpy()).tolist() == [1, 30]
    assert evaluate(results, data).ap == pytest.approx(1)
    assert len(read_results(found, data.subset([0]))) == 1


def test_categories_by_numbers_in_texts(tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}],
        "annotations": [
            {"id": k, "image_id": 1, "category_id": id, "bbox": [10 * k, 20, 5, 5]}
            for k, id in enumerate(("01", 2, "2", "03", 3.0))
        ],
        "categories": [{"id": "01", "name": "cat"}, {"id": 2, "name": "dog"}, {"id": "03", "name": "cow"}],
    }
    (tmp_path / "data.json").write_text(json.dumps(content))
    dataset = open_dataset(tmp_path / "data.json", strict=True)
    assert dataset.classes.ids == (1, 2, 3)
    assert [dataset.classes.names[k] for k in dataset[0].labels] == ["cat", "dog", "dog", "cow", "cow"]


@pytest.mark.parametrize("ids", [(1, 2, 3), ("a", "b", "c"), (7, "2", "x")])
def test_detections_of_images_that_are_not_here_are_passed_over(tmp_path, ids, capsys):
    """The annotation file lists them, so the results are of this set; an id that it does not know is refused still."""
    names = ("here.jpg", "missing.jpg", "broken.jpg")
    Image.new("RGB", (100, 80)).save(tmp_path / names[0])
    (tmp_path / names[2]).write_bytes(b"\xff\xd8")
    images = [{"id": id, "file_name": n, "width": 100, "height": 80} for id, n in zip(ids, names, strict=True)]
    truth = [{"id": k, "image_id": id, "category_id": 1, "bbox": [10, 20, 30, 40]} for k, id in enumerate(ids)]
    content = {"images": images, "annotations": truth, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "data.json").write_text(json.dumps(content))
    found = [{"image_id": id, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.9} for id in (*ids, ids[2])]
    (tmp_path / "r.json").write_text(json.dumps(found))
    data = open_dataset(tmp_path / "data.json")
    with pytest.warns(UserWarning, match=r"r\.json: 3 rows left out, of images that .*data\.json lists"):
        results = read_results(tmp_path / "r.json", data)
    assert [one.boxes.tolist() for one in results] == [[[10, 20, 40, 60]]]
    (tmp_path / "r.json").write_text(json.dumps([*found, {**found[0], "image_id": 99}]))
    with pytest.warns(UserWarning, match="3 rows"), pytest.raises(DataError, match=r"unknown image_id \(99\)"):
        read_results(tmp_path / "r.json", data)
    # judged by the file of annotations, no image is needed
    (tmp_path / "r.json").write_text(json.dumps(found[:3]))
    metrics = fcos_package.evaluate(tmp_path / "r.json", tmp_path / "data.json")
    assert (metrics.images, metrics.objects, metrics.ap) == (3, 3, pytest.approx(1))
    code, out, err = fcos(capsys, "eval", tmp_path / "data.json", "--detections", tmp_path / "r.json", "--json")
    assert (code, json.loads(out)["images"]) == (0, 3)
    assert "left out" not in err


def test_ids_that_are_texts_stand_in_results_as_in_the_file(tmp_path):
    """And find the image in `fcos explain --image`, as its name does."""
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    images = [{"id": id, "file_name": name} for id, name in (("v50", "a.png"), ("007", "b.png"), (9, "c.png"))]
    rows = [{"id": 1, "image_id": "v50", "category_id": 1, "bbox": [1, 2, 8, 9]}]
    content = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "set.json").write_text(json.dumps(content))
    dataset = open_dataset(tmp_path)
    assert [dataset.text_ids.get(record.id, record.id) for record in dataset] == ["v50", "007", 9]
    paths = [tmp_path / name for name in ("a.png", "c.png", "b.png")]
    assert image_ids(paths, numbers_of(tmp_path).ids) == ["v50", 9, "007"]
    found = Detections([[1, 2, 9, 11]], [0.5], [0], names=("cat",))
    write_results(tmp_path / "found.json", [found] * 3, dataset)
    assert [row["image_id"] for row in json.loads((tmp_path / "found.json").read_text())] == ["v50", "007", 9]
    assert [len(one) for one in read_results(tmp_path / "found.json", dataset)] == [1, 1, 1]
    for asked in ("v50", "a.png", "a", str(dataset.records[0].id)):
        assert _image_id(dataset, asked) == dataset.records[0].id
    with pytest.raises(DataError, match="no image v5 in the split all; give a file name or an id"):
        _image_id(dataset, "v5")
