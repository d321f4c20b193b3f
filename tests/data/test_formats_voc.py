"""Pascal VOC: pages worked by hand, other folders, what is wrong with them."""

import pytest
from written import write_image

from fcos.data.open import open_dataset, open_splits
from fcos.errors import DataError


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
