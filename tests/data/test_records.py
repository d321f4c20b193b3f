"""Records in arrays: what goes in comes out, of any choice of them, and processes share them."""

import json
import multiprocessing
import pickle
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from fcos.data.dataset import Dataset
from fcos.data.open import open_dataset
from fcos.data.records import Record, Records, Window, evenly
from fcos.errors import DataError
from fcos.system import json_rows
from fcos.types import Classes


def made(count: int, seed: int = 0) -> list[Record]:
    """Records with 0 to 3 boxes, some of them tiles, some without a path, with odd names and ids."""
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(count):
        n = int(rng.integers(0, 4))
        corners = rng.uniform(0, 50, (n, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(1, 9, (n, 2))], axis=1)
        name = ("ü b.jpg", "half \udcff.png", "", "a/b.png")[k % 4]
        rows.append(
            Record(
                10**25 if k == 5 else k * 7 - 3,
                None if k % 3 == 2 else Path("/some where") / f"{k}.jpg",
                (60 + k, 80),
                boxes.astype(np.float32),
                rng.integers(0, 3, n),
                rng.random(n) < 0.3,
                rng.uniform(1, 9, n),
                name,
                np.concatenate([corners, rng.uniform(1, 9, (n, 2))], axis=1) if k % 2 else None,
                Window(1, 2, 33, 44) if k % 5 == 0 else None,
                (400, 500) if k % 5 == 0 else None,
                rng.random(n) if n and k % 4 == 1 else None,
            )
        )
    return rows


def same(one: Record, two: Record) -> None:
    for field in fields(Record):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if field.name == "xywh":
            assert np.array_equal(one.exact(), two.exact())
        elif isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            assert np.array_equal(a, b)
        else:
            assert a == b
            assert type(a) is type(b)


@pytest.mark.parametrize("count", [0, 1, 30])
def test_records_come_back_as_they_were(count):
    rows = made(count)
    packed = Records.of(rows)
    assert len(packed) == count
    for k in range(count):
        same(packed[k], rows[k])
        same(packed[k - count], rows[k])
    for a, b in zip(packed, rows, strict=True):
        same(a, b)
    for a, b in zip(packed[1::3], rows[1::3], strict=True):
        same(a, b)
    with pytest.raises(IndexError):
        packed[count]
    assert packed == Records.of(rows) == pickle.loads(pickle.dumps(packed))
    assert Records.of(packed) is packed
    assert packed.owner.tolist() == [k for k, r in enumerate(rows) for _ in r.boxes]


def test_choices_are_those_of_the_objects():
    rows = made(40)
    data = Dataset(tuple(rows), Classes(("a", "b", "c")), "coco", "train", Path("x"))
    rng = np.random.default_rng(2)
    for at in (rng.integers(0, 40, 60).tolist(), [], [7]):
        for a, b in zip(data.subset(at).records, [rows[i] for i in at], strict=True):
            same(a, b)
    mask = rng.random(40) < 0.5
    for part in (data.subset(mask), data.subset(mask.tolist())):
        assert part.packed == Records.of([r for r, chosen in zip(rows, mask, strict=True) if chosen])
    assert data.subset([-1, 0, -40]).packed == Records.of([rows[-1], rows[0], rows[0]])
    for wrong, line in (
        (mask[:9], r"a mask of shape \(9,\) for 40 records"),
        ([3, 40], "there is no record 40: there are 40, from 0 on"),
        ([-41], "there is no record -41"),
        ([1.0, 2.0], "by whole numbers or a bool mask, not by float64"),
    ):
        with pytest.raises(DataError, match=line):
            data.subset(wrong)
    for a, b in zip(data.with_classes(["c", "a"]).records, rows, strict=True):
        keep = b.labels != 1
        same(a, b.pick(keep, np.array([1, 9, 0])[b.labels[keep]]))
    for a, b in zip(data.as_single_class().records, rows, strict=True):
        same(a, replace(b, labels=np.zeros_like(b.labels)))
    assert data.counts().tolist() == [sum(int(((r.labels == k) & ~r.ignore).sum()) for r in rows) for k in range(3)]


# --------------------------------------------------------------------------- processes


def mapped(address: int) -> str:
    """What the memory at an address is, by the system's own list."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(x, 16) for x in line.split()[0].split("-"))
        if start <= address < end:
            return " ".join(line.split()[3:5]) + " " + line.split(maxsplit=5)[-1]
    return "nowhere"


def look(records, queue):
    table = records.table
    where = mapped(table.boxes.__array_interface__["data"][0])
    queue.put((float(table.boxes.sum()), records[3].file_name, where))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists the memory of a process")
def test_processes_that_are_spawned_map_the_same_memory():
    context = multiprocessing.get_context("spawn")
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.uniform(0, 90, (1000, 4)).astype(np.float32), axis=1)
    ones = np.ones(1000)
    many = Record(1, None, (99, 99), boxes, np.zeros(1000, int), ones < 0, ones, "a.jpg")
    records = Records.of([many, many, many, replace(many, file_name="ü.png")])
    held = records[0].boxes  # what was given out before stays what it was
    before = held.copy()
    queue = context.Queue()
    workers = [context.Process(target=look, args=(records, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    seen = [queue.get(timeout=300) for _ in workers]
    for worker in workers:
        worker.join()
    assert np.array_equal(held, before)
    assert np.array_equal(records[0].boxes, before)
    mine = mapped(records.table.boxes.__array_interface__["data"][0])
    for total, name, where in seen:
        assert total == float(records.table.boxes.sum())
        assert name == "ü.png"
        assert where == mine  # the same device, inode and name
        assert "torch" in where


# --------------------------------------------------------------------------- large files in pieces


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(json_rows, "_PIECE", 60)


def written(tmp_path, text: str) -> Path:
    file = tmp_path / "x.json"
    file.write_text(text)
    return file


ROWS = [
    [{"id": k, "text": f'"}}, {{" {k}', "deep": [{"a": 1}, {"b": [k]}], "box": [1.5, k]} for k in range(40)],
    [{"id": k} for k in range(40)],
    [{"a": {}}, {"a": {"b": {}}}] * 30,
    [{"id": 1}],
    [],
]


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("indent", [None, 1])
def test_pieces_are_the_whole(tmp_path, small_pieces, rows, before, indent):
    other = {"images": [{"id": k, "annotations": "x"} for k in range(20)], "note": '"annotations": [{'}
    value = {"annotations": rows} | other if before else other | {"annotations": rows}
    file = written(tmp_path, json.dumps(value, indent=indent))
    rest, parts = json_rows.read_json_rows(file, "annotations", list)
    assert [row for part in parts for row in part] == rows
    assert rest == {**value, "annotations": []}


def test_plain_rows_are_read_in_pieces(tmp_path, small_pieces):
    for text in (json.dumps({"a": ROWS[1], "b": [{"id": 1}]}), json.dumps({"b": 1, "a": ROWS[1]}, indent=2)):
        assert len(json_rows.read_json_rows(written(tmp_path, text), "a", list)[1]) > 5


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [{"id": 1}, {"id": 2}, {"id": 3}, {"id": 4}, {"id": 5}, {"id": 6}, {"id": 7},, {"id": 8}]}',
        '{"a": [{"id": 1}, {"id": 2}, {"id": 3}, {"id": 4}, {"id": 5}, {"id": 6}, {"id": 7}, {"id": 8},]}',
        '{"a": [{"id": 1}, {"id": 2}, {"id": 3}, {"id": 4}, {"id": 5}, {"id": 6}, {"id": 7}, {"id": 8}]',
        '{"a": [{"id": 1}, {"id": 2}, {"id": 3}, {"id": 4}, {"id": 5}, {"id": 6}, {"id": 7}, 3, {"id": 8}]}',
        '{"a": [{"id": 1}, {"id": 2}, {"id": 3}, {"id": 4}, {"id": 5}, {"id": 6}, {"id": 7}, {"id": 1e999}]}',
        '{"a": [{"id": 1}, {"id": 2}, {"id": 3}, {"id": 4}, {"id": 5}, {"id": 6}, {"id": 7}, {"id": 1}}, "b": [3]}',
    ],
)
def test_what_is_wrong_is_said_as_of_the_whole(tmp_path, small_pieces, monkeypatch, text):
    file = written(tmp_path, text)
    with pytest.raises(DataError) as piecewise:
        json_rows.read_json_rows(file, "a", list, DataError)
    monkeypatch.setattr(json_rows, "_PIECE", 1 << 20)
    with pytest.raises(DataError) as whole:
        json_rows.read_json_rows(file, "a", list, DataError)
    assert str(piecewise.value) == str(whole.value)


def test_the_list_of_an_inner_object_is_not_taken(tmp_path, small_pieces):
    inner = [{"id": k} for k in range(30)]
    for value in ({"x": {"a": inner}, "a": inner[:3]}, {"x": [{"a": inner}]}, [{"a": inner}]):
        rest, parts = json_rows.read_json_rows(written(tmp_path, json.dumps(value)), "a", list)
        ours = isinstance(value, dict) and "a" in value
        assert [row for part in parts for row in part] == (inner[:3] if ours else [])
        assert rest == ({**value, "a": []} if ours else value)


def test_of_a_key_that_stands_twice_the_last_counts(tmp_path, small_pieces):
    rows = [{"id": k} for k in range(30)]
    text = f'{{"a": {json.dumps(rows)}, "b": 1, "a": [{{"id": 99}}]}}'
    assert json_rows.read_json_rows(written(tmp_path, text), "a", list) == ({"a": [], "b": 1}, [[{"id": 99}]])


def test_a_coco_file_in_pieces_is_the_same_data_set(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    images = [{"id": k, "file_name": f"{k}.jpg", "width": 90, "height": 80} for k in range(50)]
    rows = []
    for k in range(400):
        x, y = rng.integers(0, 60, 2).tolist()
        row = {"id": k, "image_id": k % 50, "category_id": 1 + k % 2, "bbox": [x, y, 9.5, 8], "area": 70}
        rows.append(row | ({"iscrowd": 1} if k % 9 == 0 else {}))
    odd = [
        {"id": "x", "image_id": "3", "category_id": 2.0, "bbox": [1, 1, 5, 5]},
        {"image_id": 77, "category_id": 1, "bbox": [1, 1, 5, 5]},
        {"image_id": 4, "category_id": None, "bbox": [1, 1, 5, 5]},
        {"image_id": 4, "category_id": 1, "bbox": [1, 1, 5], "ignore": "true"},
        {"image_id": 5, "category_id": 1, "segmentation": [[1, 2, 9, 2, 9, 12]]},
        {"image_id": 5, "category_id": 1, "bbox": [1, 2, "7", 9], "area": None, "difficult": 1},
    ]
    file = tmp_path / "instances_train.json"
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    file.write_text(json.dumps({"images": images, "annotations": rows + odd, "categories": categories}))
    whole = open_dataset(file)
    monkeypatch.setattr(json_rows, "_PIECE", 1000)
    parts = open_dataset(file)
    assert parts.records == whole.records
    assert parts.notes == whole.notes
    assert len(whole.notes) == 4
    assert len(whole.packed.table.boxes) == 403
    assert int(whole.packed.table.ignore.sum()) == 46


def test_numbers_are_drawn_evenly():
    assert evenly(199, 3).tolist() == [0, 99, 198]
    assert evenly(3, 9).tolist() == [0, 1, 2]
    assert evenly(0, 9).tolist() == []
    for count in range(1, 200, 7):
        for most in range(2, 40):
            drawn = evenly(count, most).tolist()
            assert len(set(drawn)) == min(most, count)  # none twice
            assert drawn == sorted(drawn)
            assert (drawn[0], drawn[-1]) == (0, count - 1)
