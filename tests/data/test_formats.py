"""Choosing classes, notes, and the packs whose numbers are known."""

from pathlib import Path

import numpy as np
import pytest
from written import coco, entry, note

from fcos.data.dataset import Note
from fcos.data.kinds import Kind
from fcos.data.open import open_dataset
from fcos.errors import DataError

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


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


def test_a_note_is_one_line_whatever_the_file_is_called():
    assert str(Note(Kind("left out"), 2, "a\nb.png")) == r"left out (2; first: a\nb.png)"
