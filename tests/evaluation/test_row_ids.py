"""Results files of other programs: which image and class a row means, and what looks wrong with its numbers."""

import json
import os
import warnings
from dataclasses import replace

import numpy as np
import pytest
from judging import dataset, record

from fcos.errors import DataError
from fcos.evaluation.coco import evaluate, read_results

NAMES = ("cat", "dog", "cow")


def made(count=12, format="yolo", ids=()):
    """Images 1.jpg, 2.jpg ... in folders a and b, counted by their names: 1.jpg, 10.jpg, 11.jpg, ..."""
    names = sorted(f"{'a' if k % 2 else 'b'}/{k}.jpg" for k in range(1, count + 1))
    records = []
    for number, name in enumerate(names, 1):
        k = int(name[2:-4])
        records.append(replace(record(number, [[19 * k, 5, 19 * k + 60, 95]], [k % 3]), file_name=name, path=None))
    return replace(dataset(*records, names=NAMES, ids=ids), format=format)


def rows_of(data, first=0, **more):
    """The truth as a results file, image_id by the number in the name, classes counted from `first`."""
    rows = []
    for one in data.records:
        (x1, y1, x2, y2), name = one.boxes[0].tolist(), one.file_name
        row = {
            "image_id": int(name[2:-4]),
            "category_id": int(one.labels[0]) + first,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
        }
        rows.append({**row, "score": 0.5 + one.id / 100, **{key: value(name) for key, value in more.items()}})
    return rows


def judged(tmp_path, rows, data):
    """(AP50, the warnings)"""
    file = tmp_path / "r.json"
    file.write_text(json.dumps(rows))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        return evaluate(read_results(file, data), data).ap50, [str(w.message) for w in told]


@pytest.mark.parametrize("format", ["yolo", "coco"])
@pytest.mark.parametrize(
    "name", [lambda n: n[2:], lambda n: n, lambda n: f"/home/x/{n}", lambda n: n.replace("/", "\\")]
)
def test_rows_with_a_file_name_go_by_it(tmp_path, format, name):
    data = made(format=format)
    assert judged(tmp_path, rows_of(data, file_name=name), data) == (pytest.approx(1), [])


def test_names_that_the_data_does_not_have_are_left_out(tmp_path):
    data = made()
    rows = [*rows_of(data, file_name=str), *rows_of(made(13), file_name=lambda name: f"other-{name[2:]}")[:2]]
    ap, (told,) = judged(tmp_path, rows, data)
    assert ap == pytest.approx(1)
    assert "2 rows left out, of images that data does not have: 'other-1.jpg', 'other-11.jpg'" in told


def test_another_suffix_is_no_other_image_unless_both_are_named(tmp_path):
    data = made()
    rows = rows_of(data, file_name=lambda name: f"frames/{name[:-4]}.png")
    assert judged(tmp_path, rows, data) == (pytest.approx(1), [])
    more = [{**row, "file_name": r.file_name} for row, r in zip(rows, data.records, strict=True)][:1]
    ap, (told,) = judged(tmp_path, [*rows, *more], data)
    assert ap == pytest.approx(1)
    assert "1 row left out, of images that data does not have: 'frames/a/1.png'" in told
    two = replace(data, records=(*data.records[:2], replace(data.records[2], file_name="a/1.bmp"), *data.records[3:]))
    left = judged(tmp_path, rows_of(data, file_name=lambda name: f"{name[:-4]}.png"), two)
    assert left[0] < 0.5  # a/1.png may be a/1.jpg and a/1.bmp, so the numbers count


def test_equal_names_in_two_folders_go_by_the_folder_and_without_it_by_the_id(tmp_path):
    data = made(2)
    data = replace(data, records=tuple(replace(r, file_name=f"{r.file_name[0]}/x.jpg") for r in data.records))
    rows = [
        {**row, "image_id": 7, "file_name": f"data/{r.file_name}"}
        for row, r in zip(rows_of(made(2)), data.records, strict=True)
    ]
    assert judged(tmp_path, rows, data) == (pytest.approx(1), [])
    alone = [{**row, "image_id": r.id, "file_name": "x.jpg"} for row, r in zip(rows, data.records, strict=True)]
    assert judged(tmp_path, alone, data) == (pytest.approx(1), [])
    case = replace(
        data, records=tuple(replace(r, file_name=f"a/{x}.jpg") for r, x in zip(data.records, "xX", strict=True))
    )
    rows = [row | {"file_name": f"{x}.jpg"} for row, x in zip(rows, "xX", strict=True)]
    assert judged(tmp_path, rows, case) == (pytest.approx(1), [])  # to the letter there is one of each


def test_numbers_of_names_that_are_other_images_here_are_told_of(tmp_path):
    data = made()
    ap, (told,) = judged(tmp_path, rows_of(data), data)
    assert ap < 0.3
    assert "data counts its images by their names, so a/11.jpg is 2 here; give each row a file_name" in told
    ours = [row | {"image_id": r.id} for row, r in zip(rows_of(data), data.records, strict=True)]
    assert judged(tmp_path, [*ours, ours[0] | {"image_id": 99}][:-1], data)[0] == pytest.approx(1)
    with pytest.raises(
        DataError, match=r"unknown image_id \(99\), not among the 12 images .* counted by their names: 1 is a/1"
    ):
        judged(tmp_path, [ours[0] | {"image_id": 99}], data)


def test_the_list_beside_a_file_names_images_and_classes(tmp_path):
    """As fcos predict --coco writes it: other ids, another order of classes, and one that the data does not have."""
    data = made()
    rows = rows_of(data, first=40)
    rows.append(rows[0] | {"category_id": 39})
    files = [{"id": int(r.file_name[2:-4]), "file_name": f"/d/{r.file_name}"} for r in data.records]
    kinds = [{"id": k, "name": name} for k, name in ((42, "Cow"), (40, "cat"), (39, "bird"), (41, "dog"))]
    (tmp_path / "r.images.json").write_text(json.dumps({"images": files, "categories": kinds}))
    ap, (told,) = judged(tmp_path, rows, data)
    assert ap == pytest.approx(1)
    assert "1 row left out, of classes that data does not have: 'bird'" in told
    os.utime(tmp_path / "r.images.json", (0, 0))  # perhaps of results that were there before
    ap, (older, _) = judged(tmp_path, rows, data)
    assert ap == pytest.approx(1)
    assert "r.images.json, which is older; remove that if it is of other results" in older
    (tmp_path / "r.images.json").write_text('{"images": [3, {"id": []}], "categories": 5}')  # it tells nothing
    with pytest.raises(DataError, match="unknown category_id"):
        judged(tmp_path, rows, data)


def test_classes_counted_from_1(tmp_path):
    data = made()
    ap, (told,) = judged(tmp_path, rows_of(data, first=1, file_name=str), data)
    assert ap == pytest.approx(1)
    assert "its classes are counted from 1: 1 is cat" in told
    with pytest.raises(DataError, match=r"unknown category_id \(3\)"):  # 0 is there too, so they count from that
        judged(tmp_path, [*rows_of(data, file_name=str), *rows_of(data, first=1, file_name=str)], data)
    # of a file with ids a number means what it means there
    with pytest.raises(DataError, match=r"unknown category_id \(3\), .*ids 0, 1, 2: .*cat.*dog.*cow"):
        judged(tmp_path, rows_of(data, first=1, file_name=str), replace(data, format="coco"))


@pytest.mark.parametrize(("first", "change"), [(4, "one more"), (6, "one less")])
def test_classes_that_are_off_by_one_are_told_of(tmp_path, first, change):
    data = made(30, "coco", ids=(5, 6, 7))
    rows = [row for row in rows_of(data, first, file_name=str) if row["category_id"] in (5, 6, 7)]
    ap, (told,) = judged(tmp_path, rows, data)
    assert ap == 0
    assert f"20 of 20 objects that were found would have their class if category_id were {change}" in told
    right = rows_of(data, 5, file_name=str)
    assert judged(tmp_path, right, data) == (pytest.approx(1), [])
    # a model that takes one class for the next every other time is a poor model, not another way to count
    seen = {row["file_name"] for row in rows[4:]}
    assert judged(tmp_path, [row for row in right if row["file_name"] not in seen] + rows[4:], data)[1] == []


def test_boxes_of_another_form_are_told_of(tmp_path):
    data = made(30)
    rows = rows_of(data, file_name=str)
    for row in rows:
        x, y, w, h = row["bbox"]
        row["bbox"] = [x, y, x + w, y + h]
    assert "x1, y1, x2, y2; a bbox is [x, y, width, height]" in judged(tmp_path, rows, data)[1][0]
    for row in rows:
        row["bbox"] = (np.array(row["bbox"]) / 640).tolist()
    assert "shares of the image; a bbox is" in judged(tmp_path, rows, data)[1][0]
