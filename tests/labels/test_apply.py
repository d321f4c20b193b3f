"""Decisions become a corrected copy; the original keeps every byte."""

import json

import numpy as np
import pytest
from tiny import fcos, make_shapes

from fcos.data.open import open_splits
from fcos.errors import DataError
from fcos.labels.applying import apply


def snapshot(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def decision(kind, record, names, action="fix", row=None, proposed=None):
    annotated = None
    if row is not None:
        annotated = {"label": names[record.labels[row]], "box": [float(v) for v in record.boxes[row]]}
    where = {"kind": kind, "split": "train", "file": record.file_name}
    return {**where, "annotated": annotated, "proposed": proposed, "action": action}


@pytest.fixture
def world(tmp_path):
    data = make_shapes(tmp_path / "shapes", {"train": 12, "val": 3}, seed=5)
    return data, open_splits(data)


def write(path, data, rows):
    path.write_text(json.dumps({"fcos": "label decisions", "version": 1, "data": str(data), "decisions": rows}))
    return path


@pytest.mark.parametrize("to", [None, "yolo", "voc", "labelstudio"])
def test_each_fix_is_done_in_a_copy(world, tmp_path, capsys, to):
    data, splits = world
    before = snapshot(data)
    names = splits["train"].classes.names
    full = [r for r in splits["train"].records if len(r.boxes)]
    a, b, c, d, e = full[:5]
    other = {"disc": "square", "square": "disc"}[names[b.labels[0]]]
    box = [3.0, 4.0, 23.5, 30.25]
    rows = [
        decision("missing", a, names, proposed={"label": "disc", "box": box}),
        decision("class", b, names, row=0, proposed={"label": other, "box": b.boxes[0].tolist()}),
        decision("shifted", c, names, row=0, proposed={"label": names[c.labels[0]], "box": box}),
        decision("spurious", d, names, row=0),
        decision("duplicate", e, names, "reject", row=0),
        decision("spurious", e, names, "accept", row=0),
    ]
    file, out = write(tmp_path / "decisions.json", data, rows), tmp_path / "mended"
    code, said, err = fcos(capsys, "labels", "apply", file, "--out", out, *(["--to", to] if to else []))
    assert (code, err) == (0, "")
    assert "1 added, 1 renamed, 1 moved, 1 removed" in said
    assert "1 annotation to correct by hand" in said
    assert snapshot(data) == before
    mended = open_splits(out)
    assert set(mended) == {"train", "val"}
    now = {r.path.name.rsplit(".", 1)[0].replace("_", " "): r for r in mended["train"].records}
    table = mended["train"].classes.names

    def find(record):
        return now[record.file_name.rsplit(".", 1)[0].replace("_", " ")]

    assert len(find(a).boxes) == len(a.boxes) + 1
    assert np.abs(find(a).boxes - box).max(axis=1).min() < 0.5
    assert table[find(b).labels[0]] == other
    assert np.abs(find(c).boxes - box).max(axis=1).min() < 0.5
    assert len(find(c).boxes) == len(c.boxes)
    assert len(find(d).boxes) == len(d.boxes) - 1
    assert len(find(e).boxes) == len(e.boxes)
    untouched = full[5:]
    for record in untouched:
        np.testing.assert_allclose(find(record).boxes, record.boxes, atol=0.5)


def test_an_address_in_the_file_is_not_fetched(tmp_path):
    """The file may be a stranger's; only --data asks for the network."""
    file = write(tmp_path / "decisions.json", "http://127.0.0.1:1/set", [])
    with pytest.raises(DataError, match="if you want that to be fetched, say data=http://127"):
        apply(file, out=tmp_path / "out")
    told = {"fcos": "label decisions", "data": str(tmp_path), "images": "http://127.0.0.1:1/set", "decisions": []}
    file.write_text(json.dumps(told))
    with pytest.raises(DataError, match="if you want that to be fetched, say data=http://127"):
        apply(file, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ({}, "does not say what data it is about; give it with data="),
        ({"data": "x", "images": 3}, "data, format, images and labels must be texts"),
    ],
)
def test_a_data_set_that_is_not_said_is_one_line(tmp_path, source, line):
    file = tmp_path / "decisions.json"
    file.write_text(json.dumps({"fcos": "label decisions", **source, "decisions": []}))
    with pytest.raises(DataError, match=line):
        apply(file, out=tmp_path / "out")


def test_how_to_read_belongs_to_the_data(world, tmp_path, capsys):
    file = write(tmp_path / "decisions.json", world[0], [])
    code, _, said = fcos(capsys, "labels", "apply", file, "--out", tmp_path / "out", "--format", "coco")
    assert (code, said) == (0, "fcos: note: a correction without --data takes no --format; it changes nothing\n")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"action": "burn"}, "action 'burn' is not one of fix, accept, reject"),
        ({"kind": "odd"}, "there is no kind 'odd'"),
        ({"file": "gone.png"}, "has no image 'gone.png'"),
        ({"annotated": None}, "annotated is no label with a box of four numbers"),
        ({"annotated": {"label": "disc", "box": [0, 0, "1", 4]}}, "annotated is no label with a box"),
        ({"annotated": {"label": "disc", "box": [5, 5, 1, 9]}}, "annotated is no label with a box"),
        ({"annotated": {"label": "disc", "box": [0.0, 0.0, 1.0, 1.0]}}, "any more; check the data set again"),
    ],
)
def test_bad_decisions_are_one_line_and_write_nothing(world, tmp_path, capsys, change, line):
    data, splits = world
    record = next(r for r in splits["train"].records if len(r.boxes))
    row = {**decision("spurious", record, splits["train"].classes.names, row=0), **change}
    file = write(tmp_path / "decisions.json", data, [row])
    code, _, said = fcos(capsys, "labels", "apply", file, "--out", tmp_path / "mended")
    assert code == 2
    assert line in said
    assert said.count("\n") == 1
    assert not (tmp_path / "mended").exists()


def test_the_original_is_never_written_to(world, tmp_path):
    data, _ = world
    before = snapshot(data)
    file = write(tmp_path / "decisions.json", data, [])
    for out in (data, data / "mended"):
        with pytest.raises(DataError, match="lies in the data set itself"):
            apply(file, out=out)
    (tmp_path / "no.json").write_text("[1]")
    with pytest.raises(DataError, match="holds no label decisions"):
        apply(tmp_path / "no.json", data=data, out=tmp_path / "x")
    assert snapshot(data) == before
    assert apply(file, out=tmp_path / "same").text().endswith("nothing changed")


@pytest.mark.parametrize(("kind", "added"), [("spurious", -1), ("shifted", 0)])
def test_a_crowd_in_the_same_place_stays(tmp_path, kind, added):
    """The check judges boxes that are not ignored; the crowd has the same class and corners, and comes first."""
    data = make_shapes(tmp_path / "shapes", {"train": 4}, seed=5)
    file = data / "instances_train.json"
    told = json.loads(file.read_text())
    first = told["annotations"][0]
    told["annotations"].insert(0, {**first, "id": 900, "iscrowd": 1})
    file.write_text(json.dumps(told))
    dataset = open_splits(data)["train"]
    before = next(r for r in dataset.records if r.ignore.any())
    row = int(np.flatnonzero(~before.ignore & (before.boxes == before.boxes[before.ignore]).all(axis=1))[0])
    names = dataset.classes.names
    proposed = {"label": names[before.labels[row]], "box": [3.0, 4.0, 23.5, 30.25]}
    order = decision(kind, before, names, row=row, proposed=proposed)
    apply(write(tmp_path / "decisions.json", data, [order]), out=tmp_path / "mended")
    after = next(r for r in open_splits(tmp_path / "mended")["train"].records if r.file_name == before.file_name)
    assert after.ignore.sum() == 1
    np.testing.assert_array_equal(after.boxes[after.ignore], before.boxes[before.ignore])
    assert len(after.boxes) == len(before.boxes) + added


def test_of_three_boxes_in_one_place_those_that_are_named_go(tmp_path):
    """The first has another class; of the two that are alike each decision takes one."""
    data = make_shapes(tmp_path / "shapes", {"train": 4}, seed=5)
    file = data / "instances_train.json"
    told = json.loads(file.read_text())
    first = told["annotations"][0]
    (other,) = (c["id"] for c in told["categories"] if c["id"] != first["category_id"])
    told["annotations"] = [{**first, "id": 900, "category_id": other}, *told["annotations"], {**first, "id": 901}]
    file.write_text(json.dumps(told))
    dataset = open_splits(data)["train"]
    record = next(r for r in dataset.records if r.id == first["image_id"])
    alike = np.flatnonzero((record.boxes == record.boxes[0]).all(axis=1))
    names = dataset.classes.names
    orders = [decision("duplicate", record, names, row=int(alike[1]))] * 2
    apply(write(tmp_path / "decisions.json", data, orders), out=tmp_path / "mended")
    after = next(r for r in open_splits(tmp_path / "mended")["train"].records if r.file_name == record.file_name)
    left = after.labels[(after.boxes == record.boxes[0]).all(axis=1)]
    assert (len(alike), left.tolist()) == (3, [record.labels[0]])


def test_an_object_that_is_there_already_is_not_added_again(world, tmp_path, capsys):
    data, splits = world
    record, names = next(r for r in splits["train"].records if len(r.boxes)), splits["train"].classes.names
    there = {"label": names[record.labels[0]], "box": (record.boxes[0] + 0.1).tolist()}
    file = write(tmp_path / "decisions.json", data, [decision("missing", record, names, proposed=there)])
    code, said, err = fcos(capsys, "labels", "apply", file, "--out", tmp_path / "mended")
    assert (code, err) == (0, "")
    assert "1 there already" in said
    assert len(open_splits(tmp_path / "mended")["train"].records[0].boxes) == len(splits["train"].records[0].boxes)


@pytest.mark.parametrize("name", ["nowhere", "n" * 5000])  # no folder can be called the second
def test_data_that_is_gone_is_named(tmp_path, capsys, name):
    file = write(tmp_path / "decisions.json", tmp_path / name, [])
    code, _, err = fcos(capsys, "labels", "apply", file, "--out", tmp_path / "mended")
    assert code == 2
    assert "give the data with --data" in err
