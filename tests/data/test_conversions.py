"""Every format into every other one and back to boxes."""

import itertools
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from fcos.data.dataset import Dataset
from fcos.data.images.reading import image_header
from fcos.data.open import open_splits
from fcos.data.records import Record
from fcos.data.registry import formats
from fcos.data.tree import DataSource
from fcos.data.write import convert
from fcos.errors import DataError
from fcos.types import Classes

NAMES = ("dog", "cat", "traffic-light", "unseen")
WRITTEN = [name for name, form in formats().items() if form.write is not None]
NO_MARK = {"yolo", "cvat", "ndjson", "createml"}  # nothing for boxes to ignore
NO_EMPTY = {"openimages"}  # no row for an image without objects


def small_set(folder):
    """Two splits; boxes with fractions, one to ignore, and in each split a last image without any."""
    rng = np.random.default_rng(5)
    splits = {}
    for split, count in (("train", 4), ("val", 3)):
        records = []
        for k in range(count):
            height, width = 60 + 7 * k, 90 - 5 * k
            path = folder / f"{split}_{k}.{'jpg' if k % 2 else 'png'}"
            Image.new("RGB", (width, height), (30 * k, 90, 200)).save(path)
            size = 0 if k == count - 1 else 3
            low = rng.uniform(0, 25, (size, 2))
            boxes = np.hstack((low, low + rng.uniform(3, 30, (size, 2)))).round(2)
            ignore = np.array([False, False, k == 1][:size], dtype=bool)
            areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
            labels = rng.integers(0, 3, size)
            records.append(Record(k + 1, path, (height, width), boxes, labels, ignore, areas, path.name))
        splits[split] = Dataset(tuple(records), Classes(NAMES, (2, 5, 9, 11)), "coco", split, folder)
    return splits


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The set in every format."""
    folder = tmp_path_factory.mktemp("formats")
    (folder / "src").mkdir()
    splits = small_set(folder / "src")
    for name in WRITTEN:
        convert(splits, folder / name, name)
    return folder, splits


def compare(before, after, lost, *, marks=True):
    assert list(after) == list(before)
    for split, part in after.items():
        expected = [r for r in before[split].records if len(r.boxes) or "empty" not in lost]
        assert len(part) == len(expected)
        assert part.classes.names == NAMES
        for a, b in zip(expected, part.records, strict=True):
            assert a.size == b.size
            assert image_header(b.path).displayed == b.size
            keep = ~a.ignore, ~b.ignore
            np.testing.assert_allclose(b.boxes[keep[1]], a.boxes[keep[0]], atol=0.02)
            assert b.labels[keep[1]].tolist() == a.labels[keep[0]].tolist()
            ignored = {tuple(np.round(box, 1)) for box in b.boxes[b.ignore].astype(float)}
            wanted = {tuple(np.round(box, 1)) for box in a.boxes[a.ignore].astype(float)}
            assert len(ignored) == (len(wanted) if marks else 0)
            np.testing.assert_allclose(sorted(ignored), sorted(wanted) if marks else [], atol=0.11)


@pytest.mark.parametrize(("first", "second"), list(itertools.product(WRITTEN, WRITTEN)))
def test_every_pair_keeps_the_boxes(first, second, written, tmp_path):
    folder, before = written
    middle = open_splits(folder / first, strict=True)
    assert {part.format for part in middle.values()} == {first}
    lost = {"empty"} if {first, second} & NO_EMPTY else set()
    compare(before, middle, {"empty"} if first in NO_EMPTY else set(), marks=first not in NO_MARK)
    lines = convert(middle, tmp_path / "out", second, link=True)
    after = open_splits(tmp_path / "out", strict=True)
    compare(before, after, lost, marks=not {first, second} & NO_MARK)
    ignored = sum(int(r.ignore.sum()) for part in middle.values() for r in part.records)
    assert any("crowd or difficult" in line for line in lines) == (
        ignored > 0 and second not in ("voc", "huggingface", "parquet", "webdataset", "mot")
    )


@pytest.mark.parametrize("name", WRITTEN)
def test_every_loss_is_named(name, written, tmp_path):
    """What differs after the way through a format stands in a line: ids, class ids, areas, names, sizes."""
    _, before = written
    lines = " ".join(convert(before, tmp_path / name, name))
    after = open_splits(tmp_path / name)
    first = [(a, b) for s in before for a, b in zip(before[s].records, after[s].records, strict=False)]
    if any(a.id != b.id for a, b in first):
        assert "image ids" in lines
    if any(part.classes.ids != (2, 5, 9, 11) for part in after.values()):
        assert "class ids" in lines
    if any(a.path.suffix != b.path.suffix or a.path.stem != b.path.stem for a, b in first):
        assert "name" in lines
    if any(len(after[s]) != len(before[s]) for s in before):
        assert "without objects" in lines


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("bad", ["a\nb", "a\tb", "a\0b", "a\u2028b", "a\x85b", " a", "a ", "", "a\ud800b"])
def test_class_names_that_would_come_back_as_others_are_refused(bad, name, written, tmp_path):
    from dataclasses import replace

    _, before = written
    splits = {s: replace(d, classes=Classes((bad, *NAMES[1:]))) for s, d in before.items()}
    with pytest.raises(DataError, match="--rename"):
        convert(splits, tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [n for n in WRITTEN if n != "kitti"])
def test_odd_but_harmless_class_names_come_back(name, written, tmp_path):
    from dataclasses import replace

    _, before = written
    odd = ('say "cheese", <b> & co', "fish: fresh; #1", "猫 'x' \\n", "1.10")
    splits = {s: replace(d, classes=Classes(odd)) for s, d in before.items()}
    convert(splits, tmp_path / "out", name)
    after = open_splits(DataSource(tmp_path / "out", format=name))
    assert next(iter(after.values())).classes.names == odd
    for split in before:
        ours = [r.labels[~r.ignore].tolist() for r in before[split].records if len(r.boxes)]
        theirs = [r.labels[~r.ignore].tolist() for r in after[split].records if len(r.boxes)]
        assert ours == theirs


def test_parquet_holds_the_images(written, tmp_path, monkeypatch):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setenv("FCOS_CACHE", str(tmp_path / "cache"))
    _, before = written
    for split, dataset in before.items():
        rows = []
        for r in dataset.records:
            xywh = np.hstack((r.boxes[:, :2], r.boxes[:, 2:] - r.boxes[:, :2])).tolist()
            objects = {"bbox": xywh, "category": r.labels.tolist(), "iscrowd": r.ignore.astype(int).tolist()}
            rows.append({"image": {"bytes": r.path.read_bytes(), "path": r.path.name}, "objects": objects})
        table = arrow.Table.from_pylist(rows)
        label = {"feature": {"names": list(NAMES), "_type": "ClassLabel"}, "_type": "Sequence"}
        features = {"info": {"features": {"objects": {"category": label}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
        (tmp_path / "set" / "data").mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet")
    after = open_splits(tmp_path / "set", strict=True)
    compare(before, after, set())
    for split, dataset in before.items():
        for a, b in zip(dataset.records, after[split].records, strict=True):
            assert a.path.read_bytes() == b.path.read_bytes()
    for name, part in open_splits(written[0] / "parquet").items():
        for a, b in zip(before[name].records, part.records, strict=True):
            assert a.path.read_bytes() == b.path.read_bytes()
            assert np.array_equal(a.boxes, b.boxes)
            assert np.array_equal(a.exact(), b.exact())
            assert np.array_equal(a.areas, b.areas)


@pytest.mark.skipif(os.name == "nt", reason="names of files are text on Windows")
def test_parquet_in_a_folder_whose_name_is_no_text(written, tmp_path, monkeypatch):
    """One line, or the data set; pyarrow itself may not take such a name."""
    pytest.importorskip("pyarrow")
    monkeypatch.setenv("FCOS_CACHE", str(tmp_path / "cache"))
    odd = tmp_path / os.fsdecode(b"set-\xff")
    shutil.copytree(written[0] / "parquet", odd)
    refused = ""
    try:
        after = {split: len(part) for split, part in open_splits(odd).items()}
    except DataError as error:
        refused = str(error)
    assert refused.count("\n") == 0
    assert refused or after == {split: len(part) for split, part in written[1].items()}
