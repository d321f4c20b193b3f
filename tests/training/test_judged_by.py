"""What a run is judged by, and remembers to have been judged by; what it does not take over from another model."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import fcos as command
from tiny import make_shapes, tiny_config

import fcos
from fcos.data.holdout import hold_out
from fcos.data.open import open_splits
from fcos.data.runs import judged_by
from fcos.data.splits import name_of
from fcos.errors import DataError
from fcos.training.data import NamedData, choose
from fcos.training.output.checkpoint import checkpoints
from fcos.training.output.folder import RunFolder
from fcos.training.program import train

STEPS = {"train.iterations": 2, "train.plots": False}
QUIET = {"device": "cpu", "quiet": True, "init": "none"}


@pytest.fixture
def shapes(tmp_path):
    return make_shapes(tmp_path / "shapes", {"train": 12, "val": 4})


def without_objects(dataset, crowd=False):
    def emptied(record):
        if crowd:
            return replace(record, ignore=np.ones(len(record.boxes), bool))
        none = np.zeros(0, bool)
        return replace(
            record, boxes=record.boxes[:0], labels=record.labels[:0], ignore=none, areas=record.areas[:0], xywh=None
        )

    return replace(dataset, records=tuple(map(emptied, dataset.records)))


@pytest.mark.parametrize("crowd", [False, True])
def test_a_val_split_without_objects_judges_nothing_and_the_weights_can_be_read(shapes, tmp_path, capsys, crowd):
    splits = open_splits(shapes)
    splits["val"] = without_objects(splits["val"], crowd)
    out = tmp_path / "run"
    result = train(splits, model=tiny_config(), out=out, settings=STEPS, device="cpu", init="none")
    told = capsys.readouterr().err
    assert "the val split has no objects" in told
    assert "held out for judging" in told  # a tenth of the others
    assert result.metrics is not None
    assert len(result.detector.classes) == 2
    with pytest.raises(DataError, match="no objects to judge by; give others with val="):
        train(splits["train"], val=splits["val"], model=tiny_config(), out=tmp_path / "b", settings=STEPS, **QUIET)


def test_nothing_held_out_and_nothing_to_judge_by(shapes, tmp_path):
    splits = open_splits(shapes)
    splits["val"] = without_objects(splits["val"])
    result = train(splits, model=tiny_config(), out=tmp_path / "a", settings=STEPS, holdout=0, **QUIET)
    assert result.metrics is None
    assert len(result.detector.classes) == 2
    file = shapes / "instances_val.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": []}))
    train(shapes, model=tiny_config(), out=tmp_path / "b", settings=STEPS, holdout=0, **QUIET)
    with pytest.raises(DataError, match="had no images to judge by"):
        judged_by(tmp_path / "b")


def test_classes_that_no_model_file_holds_are_refused_before_the_first_step(shapes, tmp_path):
    data = open_splits(shapes)["train"]
    for classes, words in (
        (replace(data.classes, names=("disc", "s" * 1001)), "'sss.*1000 characters"),
        (replace(data.classes, ids=(1, 2**60)), "'square' .*less than"),
    ):
        with pytest.raises(DataError, match=words):
            train(replace(data, classes=classes), model=tiny_config(), out=tmp_path / "run", settings=STEPS, **QUIET)


def test_what_was_learned_does_not_judge(shapes, tmp_path):
    """Neither val beside train, nor val beside a trainval that has it."""
    for name, split in (("a", "train,val"), ("b", "trainval")):
        if split == "trainval":
            (shapes / "instances_trainval.json").write_text((shapes / "instances_train.json").read_text())
            (shapes / "images" / "train").rename(shapes / "images" / "trainval")
        train(shapes, split=split, model=tiny_config(), out=tmp_path / name, settings=STEPS, **QUIET)
        with pytest.raises(DataError, match="had no images to judge by"):
            judged_by(tmp_path / name)


def test_a_resume_with_another_val_is_remembered_and_begins_the_best_anew(shapes, tmp_path, capsys):
    other = make_shapes(tmp_path / "other", {"val": 3}, seed=5)
    out = tmp_path / "run"
    train(shapes, model=tiny_config(), out=out, settings=STEPS, **QUIET)
    facts = json.loads((out / "environment.json").read_text())
    result = train(out=out, val=other, resume=True, settings={"train.iterations": 4}, device="cpu")
    assert "judged by other images from here on" in capsys.readouterr().err
    assert result.metrics.images == 3
    assert len(judged_by(out)) == 3
    assert fcos.evaluate(out).ap == result.metrics.ap == result.best_ap
    now = json.loads((out / "environment.json").read_text())
    assert now["data"]["val"]["images"] == 3
    assert {k: v for k, v in now.items() if k not in ("sources", "data")} == {
        k: v for k, v in facts.items() if k not in ("sources", "data")
    }
    again = train(out=out, resume=True, settings={"train.iterations": 6}, device="cpu")
    assert again.metrics.images == 3
    assert "other images" not in capsys.readouterr().err


def test_what_was_held_out_is_not_learned_when_something_else_judges(tmp_path):
    other = make_shapes(tmp_path / "other", {"val": 3}, seed=5)
    out = tmp_path / "run"
    shapes = make_shapes(tmp_path / "only train", {"train": 12})
    train(shapes, model=tiny_config(), out=out, settings=STEPS, holdout=0.25, **QUIET)
    begun = json.loads((out / "environment.json").read_text())
    held = begun["sources"]["held_out"]
    for steps in (4, 6):  # what judges is remembered, and so is what was held out
        given = other if steps == 4 else None
        train(out=out, val=given, resume=True, settings={"train.iterations": steps}, device="cpu", quiet=True)
        now = json.loads((out / "environment.json").read_text())
        assert now["sources"]["held_out"] == held
        assert now["data"]["train"] == begun["data"]["train"]
        assert now["data"]["train"]["images"] == 12 - len(held)
        assert len(judged_by(out)) == 3


def test_a_dataset_that_judged_is_not_another_one(shapes, tmp_path):
    val = open_splits(make_shapes(tmp_path / "other", {"val": 3}, seed=5))["val"]
    out = tmp_path / "run"
    assert train(shapes, val=val, model=tiny_config(), out=out, settings=STEPS, **QUIET).metrics.images == 3
    with pytest.raises(DataError, match="judged by a Dataset of Python; name a data set"):
        fcos.evaluate(out)
    with pytest.raises(DataError, match="pass it again, as val"):
        train(out=out, resume=True, settings={"train.iterations": 4}, device="cpu", quiet=True)
    more = {"train.iterations": 4}
    assert train(out=out, val=val, resume=True, settings=more, device="cpu", quiet=True).metrics.images == 3


@pytest.mark.parametrize(
    ("there", "judge", "line"),
    [
        ({"train": 4, "val": 3, "test": 5}, 3, "other has the splits train, val, test: val judges"),
        ({"train": 4, "test": 5}, 5, "other has the splits train, test: test judges"),
        ({"train": 4}, 4, None),
    ],
)
def test_of_other_data_with_several_splits_val_judges(shapes, tmp_path, there, judge, line):
    other = make_shapes(tmp_path / "other", there, seed=5)
    chosen = choose(NamedData(shapes, other), tiny_config())
    assert len(chosen.data["val"]) == judge
    assert [text.partition(f"{tmp_path}/")[2] for text in chosen.lines] == ([line] if line else [])
    if judge == 5:
        train(shapes, val=other, model=tiny_config(), out=tmp_path / "run", settings=STEPS, **QUIET)
        assert len(judged_by(tmp_path / "run")) == judge


def test_of_other_data_no_split_is_guessed(shapes, tmp_path):
    other = make_shapes(tmp_path / "other", {"train": 2, "trainval": 3}, seed=5)
    with pytest.raises(DataError, match="has the splits train, trainval, neither val nor test; name the folder"):
        choose(NamedData(shapes, other), tiny_config())


def test_a_resume_with_the_same_data_keeps_what_judges(shapes, tmp_path):
    """Named once more, as a path or as Datasets."""
    other = make_shapes(tmp_path / "other", {"val": 3}, seed=5)
    out = tmp_path / "run"
    train(shapes, val=other, model=tiny_config(), out=out, settings=STEPS, **QUIET)
    facts = json.loads((out / "environment.json").read_text())
    for data, steps in ((shapes, 3), ({"train": open_splits(shapes)["train"]}, 4)):
        result = train(data, out=out, resume=True, settings={"train.iterations": steps}, device="cpu", quiet=True)
        assert result.metrics.images == len(judged_by(out)) == 3
    assert json.loads((out / "environment.json").read_text())["sources"] == facts["sources"]


def test_other_images_are_noticed_in_a_run_of_version_1_0_0(shapes, tmp_path, capsys):
    """Whose checkpoint does not know what judged; what the rows of metrics.csv say of AP was so by other images."""
    other = make_shapes(tmp_path / "other", {"val": 3}, seed=5)
    out = tmp_path / "run"
    train(shapes, model=tiny_config(), out=out, settings=STEPS, **QUIET)
    file = checkpoints(out)[-1]
    stored = torch.load(file, weights_only=True)
    for key in ("val", "trainer", "plain_from", "start_due"):
        del stored[key]
    stored["best"] = 0.9
    torch.save(stored, file)
    result = train(out=out, val=other, resume=True, settings={"train.iterations": 4}, device="cpu")
    assert "judged by other images from here on" in capsys.readouterr().err
    assert result.best_ap == result.metrics.ap < 0.9
    rows = RunFolder(out, write=False).rows()
    assert [bool(row["AP"]) for row in rows if row["step"] == "2"] in ([False], [False, False])
    assert rows[-1]["AP"]


def test_a_config_of_a_trained_model_leaves_its_score_and_calibration_behind(shapes, tmp_path):
    lines = ((2.0, 1.0), (1.0, 0.5), (1.0, 0.0))  # of three classes; here are two
    learned = {"decode": {"shown": 0.123, "calibrated": True, "calibration": lines}}
    used = tiny_config().override(learned, {"data": {"learned_side": 64, "learned_boxes": (10, 20, 30)}})
    result = train(shapes, model=used, out=tmp_path / "a", settings=STEPS, **QUIET)
    decode = result.detector.config.decode
    assert (decode.calibrated, decode.calibration) == (False, ())
    assert decode.shown != 0.123
    result = train(shapes, model=used, out=tmp_path / "b", settings={**STEPS, "decode.shown": 0.3}, **QUIET)
    assert result.detector.config.decode.shown == 0.3
    mine = tiny_config().override("decode.shown=0.2")  # of no model
    assert train(shapes, model=mine, out=tmp_path / "c", settings=STEPS, **QUIET).detector.shown == 0.2


def test_a_run_whose_data_moved_says_what_has_and_how_to_name_it(shapes, tmp_path):
    out, other = tmp_path / "run", make_shapes(tmp_path / "other", {"val": 3})
    train(shapes, val=other, model=tiny_config(), out=out, settings=STEPS, **QUIET)
    moved = other.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=rf"of the run in .*run, .*other, is not here; .*: data=DATA model={out}"):
        fcos.evaluate(out)
    with pytest.raises(DataError, match=rf"other, is not here; .*: fcos train --resume --out {out} --val DATA"):
        train(out=out, resume=True, **QUIET | {"init": None})
    shapes.rename(tmp_path / "gone")
    with pytest.raises(DataError, match=rf"shapes, is not here; .*: fcos train --resume --out {out} --data DATA"):
        train(out=out, resume=True, val=moved, **QUIET | {"init": None})
    assert fcos.evaluate(out, moved).images == 3


def test_two_runs_are_compared_on_what_the_first_was_judged_by(shapes, tmp_path, capsys):
    for name in ("a", "b"):
        train(shapes, model=tiny_config(), out=tmp_path / name, settings=STEPS, **QUIET)
    a, b = tmp_path / "a", tmp_path / "b"
    assert fcos.compare(a, b).images == 4
    assert fcos.compare("fcos-lite0", b, allow_missing=True).images == 4
    for words in (("--compare", a, b), (a, "--compare", a, b)):
        code, out, err = command(capsys, "eval", *words, "--device", "cpu", "--resamples", "10")
        assert code == 0, err
        assert f"on {a}, split val" in out
    with pytest.raises(DataError, match="give the data set to judge on"):
        fcos.compare("fcos-lite0", "fcos-lite1")
    code, _, err = command(capsys, "eval", "--compare", "fcos-lite0", "fcos-lite1")
    assert (code, err.count("\n")) == (2, 1)
    assert "give the data set to judge on" in err


def test_an_image_that_is_gone_is_not_another_whose_name_ends_alike(tmp_path):
    data = open_splits(make_shapes(tmp_path / "set", {"train": 3}))["train"]
    first = data.records[0]
    assert len(hold_out(data, [name_of(first)])[1]) == 1
    ends = ["/".join(first.path.parts[-k:]) for k in (1, 2, 3)]
    for name in set(ends) - {name_of(first)}:
        with pytest.raises(DataError, match="1 of the images that the run held out are gone"):
            hold_out(data, [name])
