"""Images held out to judge by, for data that has no validation part."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import make_shapes

from fcos.cli import main
from fcos.data.dataset import Dataset, merge
from fcos.data.holdout import draw_holdout, hold_out, parted
from fcos.data.open import open_dataset
from fcos.data.records import Record
from fcos.data.splits import name_of
from fcos.errors import DataError
from fcos.types import Classes


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return open_dataset(make_shapes(tmp_path_factory.mktemp("shapes"), {"train": 20}))


def test_the_parts_are_disjoint_seeded_and_whole(shapes):
    names = draw_holdout(shapes, 0.25, seed=0)
    train, val = hold_out(shapes, names)
    assert len(names) == len(val) == 5
    assert sorted([r.id for r in train.records] + [r.id for r in val.records]) == sorted(r.id for r in shapes.records)
    assert [name_of(r) for r in val.records] == [name_of(r) for r in shapes.records if name_of(r) in set(names)]
    assert draw_holdout(shapes, 0.25, seed=0) == names
    assert draw_holdout(shapes, 0.25, seed=1) != names
    assert draw_holdout(shapes.subset(range(19, -1, -1)), 0.25, seed=0) == names  # the order does not matter


def test_a_image_that_is_listed_twice_falls_on_one_side(shapes):
    twice = merge([shapes, shapes])
    train, val = hold_out(twice, draw_holdout(twice, 0.3, seed=0))
    assert not {name_of(r) for r in train.records} & {name_of(r) for r in val.records}
    assert len(val) == 2 * 6


@pytest.mark.parametrize("share", [0.0, 1.0, 10, -0.1])
def test_shares_that_are_none(shapes, share):
    with pytest.raises(DataError, match="is not a share of the images"):
        draw_holdout(shapes, share, seed=0)


def test_a_side_without_boxes(shapes):
    bare = [i for i, r in enumerate(shapes.records) if not len(r.boxes)]
    with pytest.raises(DataError, match="leaves one side without boxes"):
        draw_holdout(shapes.subset([0, *bare]), 0.4, seed=0)
    with pytest.raises(DataError, match="leaves one side without boxes"):
        draw_holdout(shapes.subset([0]), 0.5, seed=0)


def test_the_command_records_the_part_and_a_resume_keeps_it(tmp_path, capsys):
    data = make_shapes(tmp_path / "shapes", {"train": 10})
    settings = ["model.backbone=test_resnet", "model.backbone_weights=none", "train.batch=2", "data.workers=0",
                "data.size=64", "data.max_size=96", "data.train_sizes=[]", "train.freeze_stages=0",
                "train.plots=false"]  # fmt: skip
    run = tmp_path / "run"
    options = ["--out", str(run), "--init", "none", "--device", "cpu", *settings]
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--data", str(data), "--holdout", "0.3", "--epochs", "1", *options])
    held = json.loads((run / "environment.json").read_text())["sources"]["held_out"]
    assert len(held) == 3
    assert "(coco, holdout): 3 images" in capsys.readouterr().err
    before = (run / "metrics.csv").read_text()
    assert ",AP" in before
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--resume", "--out", str(run), "--epochs", "2", "train.seed=5", "--device", "cpu"])
    said = capsys.readouterr().err
    assert "(coco, holdout): 3 images" in said
    assert "(coco, train): 7 images" in said
    with pytest.raises(SystemExit):
        main(["train", "--resume", "--out", str(run), "--holdout", "0.5"])
    assert "--holdout was settled when the run" in capsys.readouterr().err


def test_data_with_a_validation_part_needs_no_holdout(tmp_path, capsys):
    data = make_shapes(tmp_path / "shapes", {"train": 4, "val": 2})
    with pytest.raises(SystemExit):
        main(["train", "--data", str(data), "--holdout", "0.3", "--out", str(tmp_path / "run")])
    assert "--holdout is for data without a validation part" in capsys.readouterr().err


def record(number, labels):
    boxes = np.tile(np.array([[1, 1, 9, 9]], np.float32), (len(labels), 1))
    areas, ignore = np.full(len(labels), 64, np.float32), np.zeros(len(labels), bool)
    return Record(number, None, (20, 20), boxes, np.array(labels, np.int64), ignore, areas, f"{number}.png")


def labelled(*labels):
    records = tuple(record(i, k) for i, k in enumerate(labels))
    return Dataset(records, Classes(("a", "b", "c")), "coco", "train", Path("x"))


@pytest.mark.parametrize("seed", range(5))
def test_each_class_has_its_share(seed):
    """80 images of a, 20 of b, one of c, which stays where it can be learned, and 20 without boxes."""
    data = labelled(*[[0]] * 80, *[[1]] * 20, [2], *[[]] * 20)
    held = {int(name.removesuffix(".png")) for name in draw_holdout(data, 0.1, seed)}
    parts = [range(80), range(80, 100), range(100, 101), range(101, 121)]
    assert [len(held & set(part)) for part in parts] == [8, 2, 0, 2]


@pytest.mark.parametrize("seed", range(5))
def test_rare_classes_are_drawn_first_and_the_one_image_of_a_class_is_learned(seed):
    data = labelled(*[[0]] * 90, *[[0, 1]] * 10)
    assert any(int(name.removesuffix(".png")) >= 90 for name in draw_holdout(data, 0.1, seed))
    # c is on the first image alone: the others show a crowd of it, and the first is listed without it too
    crowds = [replace(record(i, [0, 2]), ignore=np.array([False, True])) for i in range(1, 20)]
    data = replace(data, records=(record(0, [2]), *crowds, record(0, [0])))
    held = draw_holdout(data, 0.5, seed)
    assert len(held) == 10
    assert "0.png" not in held
    # rather a class that is judged alone than nothing to judge by
    assert len(draw_holdout(labelled([0], [1], [2]), 0.3, seed)) == 1


@pytest.mark.parametrize("seed", range(5))
def test_near_duplicates_fall_on_one_side(seed):
    data = labelled(*[[0]] * 40)
    groups = [[i, i + 1, i + 2] for i in range(0, 30, 3)]
    held = {int(name.removesuffix(".png")) for name in draw_holdout(data, 0.2, seed, groups)}
    assert len(held) == 8
    assert all(len(held & set(group)) in (0, 3) for group in groups)
    assert draw_holdout(data, 0.2, seed, [list(range(40))])  # one film: its frames say nothing


def test_a_group_too_large_for_one_side_is_told():
    """Of twelve images five show the same; they cannot all stand on the side of a fifth."""
    dataset = labelled(*[[0]] * 12)
    names = [name_of(r) for r in dataset.records]
    assert parted(dataset, [[0, 1, 2, 3, 4]], [names[3], names[9]]).startswith("5 images that show the same, such as")
    assert parted(dataset, [[0, 1], [3, 9]], [names[3], names[9]]) == ""
