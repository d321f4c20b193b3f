"""`fcos.train`, the function and the verb: what it takes, what it chooses, what it gives back."""

import json
import multiprocessing
import os
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from judging import dataset, record
from PIL import Image
from tiny import fcos, learn, make_shapes, tiny_config

from fcos.analysis.misses import miss_study
from fcos.config import Config
from fcos.data import kinds
from fcos.data.classes import as_learned
from fcos.data.loading.loader import train_loader
from fcos.data.open import open_dataset, open_splits
from fcos.data.runs import judged_by
from fcos.data.splits import name_of
from fcos.errors import ConfigError, DataError, FcosError, MissingExtra
from fcos.evaluation import coco
from fcos.evaluation.program import evaluate
from fcos.inference.detector import Detector
from fcos.network import weights
from fcos.show import samples
from fcos.training.clock import Deadline
from fcos.training.data import NamedData, check_data, choose
from fcos.training.given_settings import changes_of
from fcos.training.output.checkpoint import checkpoints
from fcos.training.output.ending import Ending
from fcos.training.output.folder import RunFolder
from fcos.training.output.summary import brief
from fcos.training.program import train
from fcos.training.validation import threshold_of
from fcos.types import Classes

QUIET = {"device": "cpu", "quiet": True}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("shapes"), {"train": 16, "val": 10})


@pytest.fixture(scope="module")
def finished(shapes, tmp_path_factory):
    """A run of 8 steps from a path, with what the callbacks were told."""
    told = []
    result = train(
        shapes,
        model=tiny_config(),
        out=tmp_path_factory.mktemp("runs") / "run",
        settings={"train.epochs": 2, "data": {"color": 0.1}},
        init="none",
        on_step=lambda step, report: told.append((step, report.loss)),
        on_epoch=lambda epoch, metrics: told.append((epoch, metrics)),
        **QUIET,
    )
    return result, told


def test_what_cannot_be_called_is_told_at_once(shapes, tmp_path):
    for name in ("on_step", "on_epoch"):
        with pytest.raises(ConfigError, match=f"{name}=3 cannot be called"):
            train(shapes, out=tmp_path / "run", **{name: 3})
    detector = Detector(weights.build(tiny_config(), 2), tiny_config(), Classes(("a", "b")))
    for name, line in (
        ("model", "model is a Detector; give the name of a preset, or a Config"),
        ("init", "init is a Detector; give the name of a model, or its run folder or file"),
    ):
        with pytest.raises(ConfigError, match=line):
            train(shapes, out=tmp_path / "run", **{name: detector})
    assert not (tmp_path / "run").exists()


def test_a_path_gives_a_detector_with_its_numbers(shapes, finished):
    result, told = finished
    assert result.metrics.images == 10
    assert result.metrics.ap == result.best_ap == max(m.ap for _, m in told if hasattr(m, "ap"))
    assert result.interval.low <= result.interval.high
    assert result.detector.classes.names == ("disc", "square")
    assert result.detector is result.detector  # loaded once
    image = next((shapes / "images" / "val").iterdir())
    assert all(0 <= s <= 1 for s in result.detector(image).scores)
    assert repr(result).startswith(f"Result('{result.folder}', 8 steps, AP 0.")
    assert "\n" not in repr(result)
    config = (result.folder / "config.yaml").read_text()
    assert "epochs: 2\n" in config
    assert "color: 0.1\n" in config


def test_callbacks_are_told_every_step_and_epoch(finished):
    _, told = finished
    assert [t[0] for t in told] == [1, 2, 3, 4, 1.0, 5, 6, 7, 8, 2.0]
    assert all(m.ap >= 0 for e, m in told if isinstance(e, float))


def test_settings_in_every_form_are_one():
    wanted = Config().override({"train": {"lr": 0.5, "epochs": 3}})
    for settings in (
        {"train.lr": 0.5, "train.epochs": 3},
        {"train": {"lr": 0.5, "epochs": 3}},
        {"train": {"lr": 0.5}, "train.epochs": 3},
        ["train.lr=0.5", "train.epochs=3"],
    ):
        assert Config().override(*changes_of(settings)) == wanted
    with pytest.raises(ConfigError, match=r"train\.lr"):
        train("nowhere", settings={"train.lrr": 1})
    with pytest.raises(ConfigError, match="one text"):
        train("nowhere", settings="train.lr=1")
    with pytest.raises(DataError, match="give the data set to learn from"):
        train()


def test_the_last_words_hold_what_to_do_next(finished, capfd):
    result, _ = finished
    again = train(out=result.folder, resume=True, device="cpu")  # nothing is left to do but to say it
    said = capfd.readouterr().err
    assert again.metrics.ap == result.metrics.ap  # judged again: the best weights are of before
    assert "done in " in said
    assert f"AP {result.metrics.ap:.3f} (95 % interval " in said
    assert "on 10 validation images" in said
    assert f"fcos eval {result.folder}\n" in said
    assert f"fcos export --model {result.folder}" in said
    page = (result.folder / "report.html").read_text()
    assert page.index("Result</h2>") < page.index("The run</h2>") < page.index("Settings and surroundings</h2>")


def test_the_score_of_the_best_f1_is_what_the_weights_show(finished, shapes, capsys, tmp_path):
    result, _ = finished
    config, _, _ = weights.header(result.folder / "best.safetensors")
    assert config.decode.shown == pytest.approx(result.metrics.threshold, abs=1e-4)
    assert config.decode.shown <= result.metrics.threshold  # or the detection that set it would not be shown
    model, (one,) = result.detector, sorted((shapes / "images" / "val").iterdir())[:1]
    every = model(one, score=0)
    expected = every[every.scores >= config.decode.shown]
    assert model.shown == config.decode.shown
    assert model(one) == expected
    assert model(one, score=None) == expected
    code, out, _ = fcos(capsys, "predict", one, "--model", result.folder, "--json")
    assert (code, len(json.loads(out)["detections"])) == (0, len(expected))
    assert miss_study(model, open_splits(shapes)["val"]).score == config.decode.shown
    assert "shown" not in (result.folder / "config.yaml").read_text().replace(
        "shown: null", ""
    )  # no setting of the run
    asked = learn(tiny_config(train={"iterations": 2}, decode={"shown": 0.3}), shapes, tmp_path / "asked")
    assert asked.detector.shown == 0.3  # what was chosen stays


def test_another_kind_of_score_has_another_limit():
    model = tiny_config(decode={"shown": 0.7})
    assert model.decode.lowest_shown == 0.7
    assert model.override("decode.score=product").decode.lowest_shown == 0.25
    assert model.override("decode.score=product", "decode.shown=0.4").decode.lowest_shown == 0.4
    probabilities = ["decode.calibration=[[1.0,0.0]]", "decode.calibrated=true"]
    assert model.override(*probabilities).decode.lowest_shown == 0.5
    assert model.override(*probabilities, "decode.shown=0.2").decode.lowest_shown == 0.2
    assert model.override("decode.shown=null").decode.lowest_shown == 0.5


def test_few_objects_set_no_limit(finished):
    metrics = finished[0].metrics
    assert threshold_of(replace(metrics, threshold=0.12345)) == 0.1234
    assert threshold_of(replace(metrics, threshold=0.12345, objects=9)) is None
    assert threshold_of(replace(metrics, threshold=float("nan"))) is None


def test_a_run_knows_what_it_was_judged_by(finished, capsys, tmp_path):
    data = make_shapes(tmp_path / "shapes", {"train": 20, "test": 4})
    held = learn(tiny_config(), data, tmp_path / "held", holdout=0.2)
    for result in (finished[0], held):
        assert evaluate(result.folder).ap == result.metrics.ap
        assert evaluate(result.folder / "best.safetensors").images == result.metrics.images
        code, out, _ = fcos(capsys, "eval", result.folder, "--json")
        assert (code, json.loads(out)["AP"]) == (0, result.metrics.ap)
        for words in (["--model", result.folder], [result.folder]):
            code, out, _ = fcos(capsys, "explain", *words, "--json")
            assert (code, json.loads(out)["objects"]) == (0, result.metrics.objects)
    for words, images in (([], 4), (["--split", "test"], 4), (["--split", "train"], 20)):  # the data of the run
        code, out, err = fcos(capsys, "eval", held.folder, "--json", *words)
        told = json.loads(out)
        assert (code, told["split"], told["images"]) == (0, words[-1] if words else "holdout", images)
        assert ("learned from 16 of the 20" in err) == (images == 20)
    assert evaluate(held.folder, split="test").split == "test"
    code, _, err = fcos(capsys, "eval", held.folder, "--split", "nonsense")
    assert (code, "nonsense" in err) == (2, True)
    code, out, _ = fcos(capsys, "explain", held.folder, "--split", "train", "--json")
    assert (code, json.loads(out)["objects"]) == (0, int(open_splits(data)["train"].counts().sum()))
    for verb in ("eval", "explain"):
        code, _, err = fcos(capsys, verb, held.folder, "--images", data)
        assert (code, "a run without a data set takes no --images; it changes nothing" in err) == (0, True), err
    capsys.readouterr()
    for judged, count in ((data / "instances_train.json", 16), (data, 0)):  # the second: its test split
        code, _, err = fcos(capsys, "eval", judged, "--model", held.folder)
        assert (code, f"learned from {count} of the 20 images that it is judged on" in err) == (0, count > 0), err
    evaluate(held.folder, data, split="train")
    assert (
        f"learned from 16 of the 20 images that it is judged on; on those it kept for judging: fcos eval {held.folder}"
        in (capsys.readouterr().err)
    )
    code, _, err = fcos(capsys, "eval", "--model", "fcos-lite0")
    assert (code, err.count("\n")) == (2, 1)
    assert "give the data set to judge on" in err
    unjudged = learn(tiny_config(train={"iterations": 1}), data, tmp_path / "none", holdout=0)
    with pytest.raises(DataError, match="had no images to judge by; name a data set"):
        evaluate(unjudged.folder)


def test_numbers_print_as_a_table(finished):
    result, _ = finished
    m = result.metrics
    lines = repr(m).splitlines()
    assert lines[0] == f"AP {m.ap:.3f}  AP50 {m.ap50:.3f}  AP75 {m.ap75:.3f}"
    assert lines[2].startswith(f"10 images of val, {m.objects} objects, {m.detections} detection")
    assert {line.split()[0] for line in lines[5:]} == {"disc", "square"}
    assert str(result).startswith(repr(result) + f"\nAP {m.ap:.3f} [{result.interval.low:.3f}, ")
    html = result._repr_html_()
    assert html.count("<tr>") == 3
    named = replace(m, classes=tuple(replace(c, name="<b>") for c in m.classes))
    assert "&lt;b&gt;" in named._repr_html_()
    assert "<b>" not in named._repr_html_()


def test_who_finds_nothing_is_told_where_to_look(finished):
    m = replace(finished[0].metrics, ap=0.0, ap50=0.0, ap75=0.0)
    assert "no detection is right" in repr(m)
    assert "found nothing at any score" in repr(replace(m, detections=0))
    assert "there are no objects to find" in repr(replace(m, objects=0))
    assert not finished[0].metrics.ap50 or not finished[0].metrics.hint()
    ending = Ending(finished[0].folder, 8, 1.0, m, None, (), {"data": "/d"})
    assert any("fcos train --resume --out" in line for line in ending.lines())


def test_the_score_that_a_run_tells_of_is_that_of_the_best_weights(shapes, tmp_path, monkeypatch):
    """Which is in their file; the weights judged last have another."""
    thresholds, endings = iter((0.25, 0.375)), []

    def judged(detections, data):
        metrics = coco.evaluate(detections, data)
        threshold = next(thresholds, 0.5)
        return replace(metrics, threshold=threshold, ap=0.6 if threshold == 0.25 else 0.4, objects=100)

    monkeypatch.setattr("fcos.training.judging.evaluate", judged)
    monkeypatch.setattr("fcos.training.loop.Ending", lambda **told: endings.append(told) or Ending(**told))
    run = train(shapes, model=tiny_config(), out=tmp_path / "run", settings={"train.epochs": 2}, init="none", **QUIET)
    _, config, _, _ = weights.read(run.folder / "best.safetensors")
    assert endings[-1]["shown"] == config.decode.shown == 0.25


def test_minutes_are_counted_from_the_shell_to_the_end(finished):
    deadline = Deadline(180.0, 5.0, used=100.0, start=time.monotonic() - 60.0)
    ending = Ending(finished[0].folder, 8, 160.0, None, None, (), {}, deadline)
    assert ending.lines()[1] == "done after 2:40 of 3:00, 8 steps"
    assert replace(ending, deadline=None).lines()[1] == "done in 2:40, 8 steps"


def test_a_run_in_a_store_names_its_place_there(finished):
    m = replace(finished[0].metrics, ap=0.0, ap50=0.0, ap75=0.0)
    lines = Ending("s3://box/runs/mine", 8, 1.0, m, None, (), {"data": "/d"}).lines()
    assert any("fcos train --resume --out s3://box/runs/mine " in line for line in lines)
    assert "report:   s3://box/runs/mine/report.html" in lines
    assert "detect:   fcos predict IMAGE --model s3://box/runs/mine" in lines
    assert not any("fcos eval" in line for line in lines)  # which takes a run of this machine


def test_classes_whose_best_score_is_another_are_named(finished):
    m = finished[0].metrics
    a, b = (replace(c, f1=0.9, threshold=t) for c, t in zip(m.classes, (0.419, 0.55), strict=True))
    judged = replace(m, threshold=0.519, classes=(a, b))
    assert Ending(finished[0].folder, 8, 1.0, judged, None, (), {}).scores() == ""  # too few to choose a score by
    ending = Ending(finished[0].folder, 8, 1.0, judged, None, (), {}, shown=0.519)
    assert (
        ending.scores()
        == f"shown from score 0.51; classes whose own best score is 0.08 or more away: --score {a.name}=0.41"
    )
    assert f"scores:   {ending.scores()}" in ending.lines()
    near = replace(m, threshold=0.5, classes=(replace(a, threshold=0.45), b))
    assert not replace(ending, metrics=near).scores()  # they differ little
    assert not replace(
        ending, metrics=replace(m, classes=(replace(a, f1=0.0, threshold=0.1), b), threshold=0.5)
    ).scores()


def test_a_run_names_at_most_ten_classes_of_a_split(tmp_path):
    made = open_splits(make_shapes(tmp_path / "shapes", {"train": 4}))["train"]
    assert brief(made) == made.summary()
    many = replace(made, classes=Classes(tuple(f"c{i}" for i in range(13)), tuple(range(1, 14))))
    lines = brief(many).splitlines()
    assert [line.split(" (")[0].strip() for line in lines[1:11]] == [f"c{i}" for i in range(10)]
    assert lines[11:] == ["  and 3 classes more"]


@pytest.mark.parametrize("option", ["model", "init", "config", "dialect", "holdout"])
def test_a_resume_takes_nothing_that_was_settled(finished, option):
    with pytest.raises(FcosError, match=f"^{option}= was settled when the run began"):
        train(out=finished[0].folder, resume=True, **{option: 0.5 if option == "holdout" else "x"})


def test_a_resume_takes_the_model_that_the_run_has(finished, shapes, tmp_path):
    """As a script for SLURM says it, the first time and after that, with the data."""
    folder = shutil.copytree(finished[0].folder, tmp_path / "run")
    name = tiny_config().name
    assert train(shapes, out=folder, resume=True, model=name, **QUIET).steps == finished[0].steps
    with pytest.raises(FcosError, match=rf"^model= was settled when the run began \({name}\)"):
        train(out=folder, resume=True, model="fcos-r101")


# --------------------------------------------------------------------------- what it learns from


def names(dataset):
    return {name_of(r) for r in dataset.records}


def test_without_val_a_tenth_is_held_out_and_test_is_left_alone(tmp_path):
    data = make_shapes(tmp_path / "shapes", {"train": 40, "test": 5})
    chosen = choose(NamedData(data), tiny_config())
    learned = open_splits(data)["train"]
    assert len(chosen.data["val"]) == 4
    assert names(chosen.data["train"]) | names(chosen.data["val"]) == names(learned)
    assert not names(chosen.data["train"]) & names(chosen.data["val"])
    assert {r.path.parent.name for d in chosen.data.values() for r in d.records} == {"train"}
    assert "no val split: 4 images of 40 held out" in chosen.lines[0]
    assert choose(NamedData(open_splits(data)), tiny_config()).held_out == chosen.held_out
    again = choose(NamedData(data), tiny_config(), chosen.held_out, resumed=True)
    assert names(again.data["val"]) == names(chosen.data["val"])
    assert set(choose(NamedData(data, holdout=0), tiny_config()).data) == {"train"}
    assert set(choose(NamedData(data), tiny_config(), None, resumed=True).data) == {"train"}
    with pytest.raises(DataError, match=r"no split called val; it has train, test\. Leave --split out"):
        choose(NamedData(data, split="train,val"), tiny_config())


def test_the_datasets_of_a_mapping_are_called_as_splits_are(shapes):
    whole = open_splits(shapes)
    train, val = whole["train"], whole["val"]
    for given in ({"train": train, "valid": val}, {"Training": train, "validation": val}):
        chosen = choose(NamedData(given), tiny_config())
        assert (len(chosen.data["train"]), len(chosen.data["val"]), chosen.held_out) == (16, 10, None)
    own = choose(NamedData({"a": train, "val": val}, split="a"), tiny_config())
    assert (len(own.data["train"]), len(own.data["val"])) == (16, 10)
    named = replace(val, split="extra")  # as a data set may have one more
    assert choose(NamedData({"train": train, "extra": named}), tiny_config()).held_out
    for given, line in (
        ({"train": train, "vall": val}, "nothing uses the data called 'vall'; did you mean val?"),
        ({"train": train, "zzz": val}, "nothing uses the data called 'zzz'; choose from train"),
        ({"train": train, "val": val, "valid": val}, "two of 'train', 'val', 'valid' mean val"),
        ({"train": str(shapes)}, "'train' is a str; give a Dataset"),
        ({}, "no split called train"),
    ):
        with pytest.raises(DataError, match=line):
            choose(NamedData(given), tiny_config())
    for given in ({"val": val}, train, {"train": shapes}, None):
        with pytest.raises(DataError, match="is a mapping with Datasets"):
            check_data(given)


def test_who_learns_from_val_is_not_judged(shapes):
    chosen = choose(NamedData(shapes, split="train,val"), tiny_config())
    assert set(chosen.data) == {"train"}
    assert len(chosen.data["train"]) == 26
    assert "nothing is kept for judging" in chosen.lines[0]


@pytest.mark.parametrize("splits", [{"train": 12, "val": 4}, {"train": 20}])
def test_inclusive_boxes_are_learned_and_judging_is_by_those_of_the_file(splits, tmp_path):
    """As the authors' code with pycocotools: the same boxes whether the run or the data set is named."""
    folder = make_shapes(tmp_path / "shapes", splits, seed=3)
    config = tiny_config(data={"inclusive_boxes": True})
    files = open_splits(folder)
    for data in (folder, files):
        chosen = choose(NamedData(data), config)
        plain = choose(NamedData(data), tiny_config())
        before, after = plain.data["train"].packed.table, chosen.data["train"].packed.table
        assert np.array_equal(after.boxes, before.boxes - [0, 0, 1, 1])
        assert np.array_equal(after.xywh, before.xywh - [0, 0, 1, 1])
        assert chosen.data["val"] == plain.data["val"]
        assert chosen.held_out == plain.held_out
    opened = choose(NamedData(open_splits(folder, inclusive=True)), config)  # not twice
    assert np.array_equal(opened.data["train"].packed.table.boxes, after.boxes)
    chosen = choose(NamedData(folder), config)
    (tmp_path / "run").mkdir()
    told = {"sources": {**NamedData(folder).stored(), "held_out": chosen.held_out}}
    (tmp_path / "run" / "environment.json").write_text(json.dumps(told))
    assert judged_by(tmp_path / "run").records == chosen.data["val"].records


def test_inclusive_boxes_are_mirrored_about_the_middle_of_the_image(tmp_path, monkeypatch):
    """Pixels 32 to 95 of 128 lie as far from the left as from the right; so in one's own loop, and on a sheet."""
    Image.new("RGB", (128, 128)).save(tmp_path / "a.png")
    rows = open_dataset([{"image": str(tmp_path / "a.png"), "boxes": [[32, 32, 96, 96]], "labels": ["x"]}])
    own = {"size": 128, "max_size": 128, "inclusive_boxes": True, "flip": 1.0, "vertical_flip": 1.0, "workers": 0}
    config = tiny_config(data=own, train={"batch": 1, "iterations": 1})
    for data in (rows, as_learned(rows, config.data)):
        (batch,) = next(iter(train_loader(data, config)))
        assert batch.targets[0].boxes.tolist() == [[32, 32, 95, 95]]
    drawn = []
    monkeypatch.setattr(samples, "draw_cell", lambda image, marks: drawn.append(marks.boxes))
    samples.augmented(rows, config, 1)
    assert drawn[0].tolist() == [[32, 32, 95, 95]]


def test_boxes_of_a_pixel_are_told_where_they_cannot_be_learned():
    rows = dataset(record(1, [[5, 5, 6, 9], [10, 20, 40, 60]], [0, 0]))
    learned = as_learned(rows, tiny_config(data={"inclusive_boxes": True}).data)
    assert learned.records[0].boxes.tolist() == [[10, 20, 39, 59]]
    assert [(n.kind, n.count, n.level) for n in learned.notes] == [(kinds.ONE_PIXEL, 1, "skipped")]
    assert as_learned(rows, tiny_config().data) is rows


def test_data_that_cannot_be_judged_by_is_refused_before_the_start(shapes, tmp_path):
    splits = open_splits(shapes)
    with pytest.raises(DataError, match="no images to judge by"):
        learn(tiny_config(), {"train": splits["train"], "val": splits["val"].subset([])}, tmp_path / "a")
    boxes = tmp_path / "boxes"
    boxes.mkdir()
    (boxes / "instances_val.json").write_text((shapes / "instances_val.json").read_text())
    with pytest.raises(DataError, match="names 10 images without a file"):
        learn(tiny_config(), splits["train"], tmp_path / "b", val=boxes)
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_a_missing_logger_is_told_before_anything_is_done(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr("fcos.training.output.folder.find_spec", lambda name: None)
    monkeypatch.setattr(
        "fcos.training.output.folder.require", lambda m, e: (_ for _ in ()).throw(MissingExtra(f"needs {m}"))
    )
    with pytest.raises(MissingExtra, match="needs wandb"):
        learn(tiny_config(train={"logger": "wandb"}), shapes, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --------------------------------------------------------------------------- the run folder


def test_weights_alone_may_stay(shapes, tmp_path):
    result = learn(tiny_config(train={"keep": "weights", "iterations": 2, "eval_every": 0}), shapes, tmp_path / "run")
    assert not checkpoints(result.folder)
    assert RunFolder(result.folder, write=False).finished()
    with pytest.raises(FcosError, match=f"start a new run from its weights with init={result.folder}"):
        train(out=result.folder, resume=True, **QUIET)


def _hold(folder, held, leave):
    run = RunFolder(folder)
    run.hold()
    held.set()
    leave.wait(60)


def test_a_second_run_in_a_folder_is_one_line(shapes, tmp_path, capsys):
    context = multiprocessing.get_context("spawn")
    held, leave = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "run", held, leave))
    other.start()
    assert held.wait(60)
    try:
        arguments = ["train", shapes, "--out", tmp_path / "run", "--init", "none", "--device", "cpu", "--quiet"]
        code, _, err = fcos(capsys, *arguments, "train.iterations=1", "model.backbone_weights=none")
        assert code == 2
        assert err == f"fcos: another run is writing into {tmp_path / 'run'}; wait for its end, or give another --out\n"
    finally:
        other.kill()
        other.join()
    folder = RunFolder(tmp_path / "run")
    folder.hold()  # what was killed holds nothing
    folder.release()
    assert not list((tmp_path / "run").iterdir())


def foreign(path):
    torch.save({"state_dict": {"a": torch.ones(2)}}, path)


def other_shapes(path):
    state = torch.load(path, weights_only=True)
    state["model"] = {k: v[:1] for k, v in state["model"].items() if v.ndim}
    torch.save(state, path)


DAMAGE = {
    "environment.json": [b"", b"[1, 2]", b'{"sources": {"data": 3}}', b"\xff\xfe\x00", b'{"sources": null}'],
    "metrics.csv": [
        b"a,b\n1,2\n",
        b"\x00\x01\xff\n",
        b"step,epoch,loss\n1,2,three\n",
        b"step,epoch,loss\n1,2,3,4\n",
        b"step,epoch,loss\n1,2,0.3\x0c16\n",
        b"step,epoch,loss\n1.5,2,3\n",
        b"step,epoch,loss,positives_by_level\n1,2,3,4 5\n2,2,3,4\n",
    ],
    "checkpoint": [foreign, other_shapes, lambda p: p.write_bytes(p.read_bytes()[:99]), lambda p: p.write_text("no")],
}


@pytest.mark.parametrize("name", list(DAMAGE))
def test_a_damaged_run_folder_is_one_line_that_names_the_file(finished, tmp_path, name):
    for number, damage in enumerate(DAMAGE[name]):
        folder = tmp_path / str(number)
        folder.mkdir()
        for file in finished[0].folder.iterdir():
            if file.is_file():
                (folder / file.name).write_bytes(file.read_bytes())
        for file in checkpoints(folder) if name == "checkpoint" else [folder / name]:
            damage(file) if callable(damage) else file.write_bytes(damage)
        with pytest.raises(FcosError) as told:
            train(out=folder, resume=True, **QUIET)
        line = str(told.value)
        assert "\n" not in line
        assert name in line
        assert str(folder) in line


def test_a_notebook_shows_a_bar_where_it_can(monkeypatch):
    import sys
    import types

    from fcos.system import progress

    kernel = type("ZMQInteractiveShell", (), {})()
    assert not progress.in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: kernel))
    for there in (False, True):
        monkeypatch.setattr(progress, "find_spec", lambda name, there=there: (there and name == "ipywidgets") or None)
        assert progress.in_notebook() == there
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    assert not progress.in_notebook()


def test_the_sizes_are_those_of_the_model_that_a_file_names(shapes, tmp_path, capsys):
    """As with --model: 320 px in place of 800 takes the sizes to learn at with it."""
    file = tmp_path / "mine.yaml"
    file.write_text("name: fcos-lite2\nmodel: {backbone_weights: none}\n")
    words = ("train", shapes, "--config", file, "--init", "none", "--out", tmp_path / "run", "--device", "cpu")
    small = ("data.size=64", "train.iterations=1", "train.batch=2", "data.workers=0", "train.plots=false")
    code, _, err = fcos(capsys, *words, *small)
    assert code == 0, err
    assert "data.max_size=106 data.train_sizes=[32,64,96]" in err
    assert "fcos-lite2" in (tmp_path / "run" / "config.yaml").read_text()


def test_the_sizes_are_those_of_the_run(shapes, tmp_path, capsys):
    words = ("train", shapes, "--model", "fcos-lite0", "--init", "none", "--out", tmp_path / "run", "--device", "cpu")
    small = (
        "model.backbone_weights=none",
        "train.iterations=1",
        "train.batch=2",
        "data.workers=0",
        "train.plots=false",
        "data.size=96",
    )
    code, _, err = fcos(capsys, *words, *small)
    assert code == 0, err
    assert "data.max_size=160 data.train_sizes=[64,96,128]" in err
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert "max_size: 160" in config


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_training_learns_whatever_its_caller_has_switched_off(shapes, tmp_path, around):
    config = tiny_config(train={"iterations": 1})
    with around():
        assert learn(config, shapes, tmp_path / "run").steps == 1


def test_training_computes_in_32_bits_whatever_its_caller_prefers(shapes, tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        assert learn(tiny_config(train={"iterations": 1}), shapes, tmp_path / "run").steps == 1
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_random_numbers_of_the_caller_go_on_after_a_run(shapes, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    learn(tiny_config(train={"iterations": 1}), shapes, tmp_path / "run")
    assert torch.equal(torch.rand(4), expected)


def test_a_run_that_is_the_same_each_time_leaves_torch_as_it_was(shapes, tmp_path, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    inside = []
    settings = {"train.iterations": 1, "train.deterministic": True}
    learn(
        tiny_config(), shapes, tmp_path / "run", settings=settings,
        on_step=lambda *_: inside.append(torch.are_deterministic_algorithms_enabled()),
    )  # fmt: skip
    assert inside == [True]
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_a_run_does_not_lie_right_in_its_data(shapes):
    with pytest.raises(DataError, match="is the data set itself"):
        learn(tiny_config(train={"iterations": 1}), shapes, shapes)


def test_images_that_are_learned_and_judged_by_are_told(shapes):
    splits = open_splits(shapes)
    data = {"train": splits["train"], "val": splits["train"].subset(range(3))}
    lines = choose(NamedData(data), tiny_config()).lines
    assert "3 of the 3 images to judge by are learned from too" in lines[0]
    assert not choose(NamedData(shapes), tiny_config()).lines


def test_epochs_as_on_the_command_line(shapes, tmp_path):
    config = tiny_config(train={"iterations": 1, "batch": 4})
    count = len(open_splits(shapes)["train"])
    result = train(shapes, model=config, epochs=2, out=tmp_path / "run", init="none", device="cpu", quiet=True)
    assert result.steps == 2 * -(-count // 4)
    again = train(out=tmp_path / "run", resume=True, epochs=3, device="cpu", quiet=True)
    assert again.steps == 3 * -(-count // 4)
    with pytest.raises(ConfigError, match=r"epochs are 5 and train\.epochs is 7"):
        train(shapes, epochs=5, settings=["train.epochs=7"])
    with pytest.raises(DataError, match="not TensorDataset"):
        train(torch.utils.data.TensorDataset(torch.zeros(2)))


@pytest.mark.parametrize(
    "wrong",
    [{"minutes": "15"}, {"settings": None}, {"settings": [None]}, {"holdout": "0.1"}, {"split": ["train"]}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_an_argument_of_another_kind_is_one_line(shapes, wrong):
    with pytest.raises(ConfigError, match=f"^{next(iter(wrong))}"):
        train(shapes, **wrong)


def test_a_taken_folder_is_refused_before_anything_is_prepared(finished, shapes, monkeypatch):
    def prepares(*_):
        raise AssertionError

    monkeypatch.setattr("fcos.training.program.choose", prepares)
    with pytest.raises(FcosError, match="holds a run already; give another out="):
        train(shapes, out=finished[0].folder, **QUIET)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"batch": 4}, "no option 'batch'; it is a setting: settings={'train.batch': 4}"),
        ({"imgsz": 96}, "no option 'imgsz'; it is a setting: settings={'data.size': 96}"),
        ({"epoch": 3}, "no option 'epoch'; did you mean epochs?"),
        ({"foo": 1}, "no option 'foo'; choose from data, model, out"),
    ],
)
def test_names_that_train_does_not_have_say_what_is_meant(given, told):
    with pytest.raises(ConfigError) as error:
        train("nowhere", **given)
    assert str(error.value).startswith(f"fcos.train has {told}")


class _Mine(Exception):
    pass


def test_what_a_callback_raises_comes_after_the_steps_are_kept(shapes, tmp_path):
    """The epoch that had just been judged was lost."""

    def fail(epoch, metrics):
        raise _Mine

    told = {"model": tiny_config(), "init": "none", "settings": {"train.epochs": 2}}
    with pytest.raises(_Mine):
        train(shapes, out=tmp_path / "run", on_epoch=fail, **told, **QUIET)
    steps = []
    train(out=tmp_path / "run", resume=True, on_step=lambda step, report: steps.append(step), **QUIET)
    assert steps == [5, 6, 7, 8]


def test_a_callback_ends_a_run_as_patience_does(shapes, tmp_path):
    def enough(epoch, metrics):
        raise StopIteration

    told = {"model": tiny_config(), "init": "none", "settings": {"train.epochs": 2}}
    result = train(shapes, out=tmp_path / "run", on_epoch=enough, **told, **QUIET)
    assert (result.steps, result.metrics.images) == (4, 10)
    assert (tmp_path / "run" / "best.safetensors").is_file()
