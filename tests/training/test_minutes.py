"""A run by minutes: what is measured and planned, the plan as a run, and its resume."""

import json
import shlex
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import equal_states, learn, make_shapes, options, tiny_config

from fcos.data.open import open_splits
from fcos.errors import ConfigError, DataError
from fcos.presets import preset, resolve
from fcos.system.terminal import clock
from fcos.training.clock import Budget, Deadline
from fcos.training.given_settings import settled_by
from fcos.training.loop import Trainer
from fcos.training.output.checkpoint import load_checkpoint
from fcos.training.output.store import Away
from fcos.training.planning import minutes
from fcos.training.planning.facts import Facts
from fcos.training.planning.rules import Pace
from fcos.training.starting import Start


@pytest.fixture(autouse=True)
def plenty(monkeypatch):
    """As much as anything here asks for, whatever this machine has free."""
    monkeypatch.setattr(minutes, "free_bytes", lambda device: 1 << 50)


def test_timing_steps_ends_on_a_busy_machine():
    assert minutes.more_steps(2, 100.0, 103.0, 109.0)  # two are few
    assert minutes.more_steps(5, 105.0, 103.0, 109.0)  # six are wanted, even past the end
    assert not minutes.more_steps(2, 110.0, 103.0, 109.0)  # but not for ever
    assert not minutes.more_steps(6, 105.0, 103.0, 109.0)
    assert not minutes.more_steps(40, 100.0, 103.0, 109.0)


@pytest.mark.parametrize(
    ("step", "given", "model", "expected"),
    [
        (0.2, {}, None, "fcos-lite1"),  # 5 minutes of 0.2 s are over 600 steps
        (1.0, {}, None, "fcos-lite0"),
        (0.2, {}, "fcos-lite0", "fcos-lite0"),
        (0.2, {"data.size": "320"}, None, "fcos-lite0"),  # of whose steps one knows nothing
    ],
)
def test_a_larger_model_is_timed_where_there_is_time_for_it(monkeypatch, tmp_path, step, given, model, expected):
    timed = []

    def measure(config, data, wish, brief=False):
        timed.append((config.name, brief))
        return Pace(step * len(timed), 0.01, config.train.batch, config.data.size)

    monkeypatch.setattr(minutes, "measure", measure)
    monkeypatch.setattr(minutes, "start_for", lambda *_: Start(None, ""))
    data = open_splits(make_shapes(tmp_path / "shapes", {"train": 12, "val": 3}))
    wish = minutes.Wish(Budget(5, time.monotonic()), given, model, "cpu", None)
    planned = minutes.prepare(
        wish, lambda preset, changes: resolve(preset, [f"{k}={v}" for k, v in {**changes, **given}.items()]), data
    )
    asked = model is not None or bool(given)
    assert timed == [*([] if asked else [("fcos-lite0", True)]), (expected, False)]
    assert planned.config.name == expected
    assert planned.config.data.size == (416 if expected == "fcos-lite1" else 320)


@pytest.mark.parametrize(
    ("small", "free", "given", "expected"),
    [
        # a step of four holds, at the presets' largest shapes: fcos-lite1 770 bytes of 480x800, 1.18 GB; lite0 610 of
        # 384x640, 0.60 GB; 22 % of the memory are for a step
        (0.5, 5.5e9, {}, ("fcos-lite1", 4, 416)),
        (0.5, 5.2e9, {}, ("fcos-lite0", 4, 320)),
        (0.5, 2.6e9, {}, ("fcos-lite0", 2, 320)),
        (0.5, 1e9, {"train.batch": "8"}, ("fcos-lite0", 8, 320)),
        (0.5, 2.6e9, {"train.accumulate": "4"}, ("fcos-lite0", 4, 320)),  # of which two are computed at once, in lanes
        (0.5, 1e9, {"train.checkpointing": "true"}, ("fcos-lite1", 4, 416)),  # takes less, nobody measured how much
        (0.5, 2.6e9, {"data.size": "192"}, ("fcos-lite0", 4, 192)),  # 224x384
        (0.03, 9e9, {}, ("fcos-lite1", 4, 512)),  # small objects want more pixels: 544x928, 1.55 GB
        (0.03, 6.5e9, {}, ("fcos-lite1", 4, 416)),
    ],
)
def test_plan_by_the_memory_that_is_free(monkeypatch, tmp_path, small, free, given, expected):
    def measure(config, data, wish, brief=False):
        return Pace(0.05, 0.01, config.train.batch, config.data.size)

    facts = Facts(12, 3000, 3, 96, small, 0.25, 0.5, upright=False, handed=False, judged=3)
    monkeypatch.setattr(minutes, "facts_of", lambda data: facts)
    monkeypatch.setattr(minutes, "free_bytes", lambda device: free)
    monkeypatch.setattr(minutes, "measure", measure)
    monkeypatch.setattr(minutes, "start_for", lambda *_: Start(None, ""))
    data = open_splits(make_shapes(tmp_path / "shapes", {"train": 12, "val": 3}))
    given = {**given, "train.precision": "fp32", "train.lanes": "2"}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    wish = minutes.Wish(Budget(5, time.monotonic()), given, None, "cpu", None)
    planned = minutes.prepare(
        wish, lambda preset, changes: resolve(preset, [f"{k}={v}" for k, v in {**changes, **given}.items()]), data
    )
    config = planned.config
    assert (config.name, config.train.batch, config.data.size) == expected


@pytest.mark.parametrize(
    ("init", "model", "given", "bins"),
    [
        ("none", None, {}, True),
        (None, None, {}, False),  # the detector in the package does without
        ("none", "fcos-lite2", {}, True),
        ("none", "fcos-r50", {}, False),  # the paper's stays the paper's
        ("none", None, {"model.regression": "exp"}, False),
        ("none", None, {"model.normalize": "false"}, False),
        ("none", None, {"loss.log_weight": "0"}, False),
        ("none", None, {"model.strides": "[8,16,32]", "assign.ranges": "[128,256]"}, False),  # bins end there
    ],
)
def test_boxes_are_bins_where_all_but_the_backbone_is_fresh(monkeypatch, tmp_path, init, model, given, bins):
    monkeypatch.setattr(minutes, "measure", lambda *_, **__: Pace(0.3, 0.01, 4, 320))
    monkeypatch.setattr(minutes, "start_for", lambda *_: Start(init, ""))
    monkeypatch.setattr(minutes, "known_classes", lambda *_: [])
    data = open_splits(make_shapes(tmp_path / "shapes", {"train": 12, "val": 3}))
    wish = minutes.Wish(Budget(5, time.monotonic()), given, model, "cpu", init)
    planned = minutes.prepare(
        wish, lambda preset, changes: resolve(preset, [f"{k}={v}" for k, v in {**changes, **given}.items()]), data
    )
    assert (planned.config.model.regression == "bins") is bins
    assert (planned.config.loss.log_weight == 1) is bins
    assert ("boxes  bins" in planned.plan.text()) is bins
    assert ("model.regression" in planned.plan.settings) is bins


@pytest.mark.parametrize(("step", "told"), [(2.5, True), (0.9, False)])
def test_few_steps_for_new_classes_are_told(monkeypatch, tmp_path, step, told):
    monkeypatch.setattr(Budget, "left", 150.0)
    monkeypatch.setattr(
        minutes, "measure", lambda config, data, wish, brief=False: Pace(step, 0.01, config.train.batch, 320)
    )
    monkeypatch.setattr(minutes, "start_for", lambda *_: Start(None, ""))
    data = open_splits(make_shapes(tmp_path / "shapes", {"train": 12, "val": 3}))
    wish = minutes.Wish(Budget(3, time.monotonic()), {"data.size": "320"}, "fcos-lite0", "cpu", None)

    def resolved(preset, changes):
        return resolve(preset, [*(f"{k}={v}" for k, v in changes.items()), "data.size=320"])

    planned = minutes.prepare(wish, resolved, data)
    steps = planned.config.train.iterations
    assert (steps < 100) == told
    line = [line for line in planned.lines if "steps are few to learn" in line]
    assert bool(line) == told
    assert all(said.startswith(f"{steps} steps are few") for said in line)


@pytest.mark.parametrize(
    ("decoding", "given", "quick"),
    [(0.04, {}, 0.6), (0.04, {}, 0.795), (0.04, {"data.cache": "none"}, 0.6), (0.001, {}, 0.6)],
)
def test_a_plan_with_images_in_memory_pays_for_filling_it(monkeypatch, tmp_path, decoding, given, quick):
    timed = []

    def measure(config, data, wish, brief=False):
        timed.append((config.data.cache, len(data["train"])))
        return Pace(0.8 if config.data.cache == "none" else quick, 0.01, config.train.batch, 320)

    monkeypatch.setattr(Budget, "left", 150.0)
    monkeypatch.setattr(minutes, "measure", measure)
    monkeypatch.setattr(minutes, "seconds_to_decode", lambda _: decoding)
    monkeypatch.setattr(minutes, "room", lambda: 1 << 40)
    monkeypatch.setattr(minutes, "start_for", lambda *_: Start(None, ""))
    data = open_splits(make_shapes(tmp_path / "shapes", {"train": 48, "val": 3}))
    wish = minutes.Wish(Budget(3, time.monotonic()), given, "fcos-lite0", "cpu", None)

    def resolved(preset, changes):
        return resolve(preset, [f"{k}={v}" for k, v in {**changes, **given}.items()])

    planned = minutes.prepare(wish, resolved, data)
    tried = decoding > 0.01 and not given
    kept = tried and quick < 0.7  # else nothing is gained
    assert planned.config.data.cache == ("ram" if kept else "none")
    assert timed == [("none", 48), *([("ram", 32)] if tried else [])]
    assert ("cache" in {c.name for c in planned.plan.choices}) is kept
    steps, step = planned.config.train.iterations, 0.6 if kept else 0.8
    left = 150 - planned.plan.tail - (48 * decoding if kept else 0)
    assert left - 12 < steps * step <= left  # the layer of classes is fitted in less than that


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_a_cache_that_is_asked_for_is_filled_once_and_in_the_time(monkeypatch, tmp_path, cache):
    """48 images of 1 s to decode; a step takes 0.8 s with decoding, 0.6 s without. 150 s are left."""
    timed = []

    def measure(config, data, wish, brief=False):
        timed.append((config.data.cache, len(data["train"])))
        return Pace(0.8 if config.data.cache == "none" else 0.6, 0.01, config.train.batch, 320)

    monkeypatch.setattr(Budget, "left", 150.0)
    monkeypatch.setattr(minutes, "measure", measure)
    monkeypatch.setattr(minutes, "seconds_to_decode", lambda _: 1.0)
    monkeypatch.setattr(minutes, "start_for", lambda *_: Start(None, ""))
    data = open_splits(make_shapes(tmp_path / "shapes", {"train": 48, "val": 3}))
    wish = minutes.Wish(Budget(3, time.monotonic()), {"data.cache": cache}, None, "cpu", None)

    def resolved(preset, changes):
        return resolve(preset, [*(f"{k}={v}" for k, v in changes.items()), f"data.cache={cache}"])

    planned = minutes.prepare(wish, resolved, data)
    assert timed == [("none", 48), ("none", 48), (cache, 32)]
    assert planned.config.data.cache == cache
    left = 150 - planned.plan.tail - 48
    assert left - 12 < planned.config.train.iterations * 0.6 <= left


def test_images_that_are_timed_have_objects_where_there_are_some(tmp_path):
    data = open_splits(make_shapes(tmp_path / "shapes", {"train": 12}))["train"]
    empty = [replace(record, ignore=np.ones(len(record.boxes), bool)) for record in data.records]
    mostly = replace(data, records=(*empty[:7], data.records[7], *empty[8:]))
    assert [record.id for record in minutes.drawn(mostly, 4).records] == [data.records[7].id]
    assert len(minutes.drawn(replace(data, records=tuple(empty)), 4)) == 4
    assert [record.id for record in minutes.drawn(data, 2).records] == [data.records[0].id, data.records[-1].id]


def test_judging_through_tiles_must_be_affordable(tmp_path):
    """The images are smaller than a tile of 512: each is one window."""
    val = open_splits(make_shapes(tmp_path / "shapes", {"val": 3}))["val"]
    pace = Pace(0.5, 1.0, 4, 320)
    assert minutes.affordable(val, 0, pace, 0.0)
    assert minutes.affordable(None, 512, pace, 0.0)
    assert minutes.affordable(val, 512, pace, 4.0 * len(val))
    assert not minutes.affordable(val, 512, pace, 4.0 * len(val) - 1)
    assert not minutes.affordable(val, 32, pace, 4.0 * len(val))  # several windows each


def test_what_a_config_or_a_dialect_says_counts_as_settled():
    changed = preset("fcos-lite0").override({"train.batch": 12, "data.flip": 0.0})
    assert settled_by(changed, None) == {"train.batch": 12, "data.flip": 0.0}
    assert settled_by(preset("fcos-lite0"), None) == settled_by("fcos-lite0", None) == settled_by(None, None) == {}
    original = settled_by("fcos-lite0", "original")
    assert original["train.warmup"] == resolve("fcos-lite0", dialect="original").train.warmup


def test_a_batch_by_the_memory_is_planned_with(tmp_path):
    """`train.batch=auto`, whose number is not known before the network is there; a part of the steps is timed."""
    data = open_splits(make_shapes(tmp_path / "shapes", {"train": 12}))
    config = tiny_config(train={"batch": "auto"})
    wish = minutes.Wish(Budget(0.5, time.monotonic()), {}, None, "cpu", "none")
    pace = minutes.measure(config, data, wish, brief=True)
    assert pace.batch > 0
    assert pace.image == pytest.approx(pace.step / pace.batch)


def test_a_size_that_the_user_asks_for_is_timed_as_it_will_be_learned(monkeypatch, tmp_path):
    timed = []

    def measure(config, data, wish, brief=False):
        timed.append(config.data)
        return Pace(0.1, 0.01, config.train.batch, config.data.size)

    monkeypatch.setattr(minutes, "measure", measure)
    monkeypatch.setattr(minutes, "start_for", lambda *_: Start(None, ""))
    data = open_splits(make_shapes(tmp_path / "shapes", {"train": 12, "val": 3}))
    wish = minutes.Wish(Budget(5, time.monotonic()), {"data.size": "416"}, None, "cpu", None)

    def resolved(preset, changes):
        words = [f"{k}={v}" for k, v in changes.items() if k != "data.size"]
        return resolve(preset, [*words, "data.size=416"])

    planned = minutes.prepare(wish, resolved, data)
    assert [(t.size, t.max_size, t.train_sizes) for t in timed] == [(416, 693, (384, 416, 448))]
    assert planned.config.data.train_sizes == (384, 416, 448)
    assert planned.judging == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("given", "side", "why"), [({}, 384, "too small for whole"), ({"data.tile": 96}, 96, "asked for")]
)
def test_tiles_are_chosen_with_their_reason_or_asked_for(monkeypatch, tmp_path, given, side, why):
    def measure(config, data, wish, brief=False):
        return Pace(0.05, 0.001, config.train.batch, config.data.size)

    facts = Facts(205, 3000, 3, 960, 0.0146, 0.25, 0.2, upright=False, handed=False, judged=3)
    monkeypatch.setattr(minutes, "facts_of", lambda data: facts)
    monkeypatch.setattr(minutes, "measure", measure)
    monkeypatch.setattr(minutes, "start_for", lambda *_: Start(None, ""))
    data = open_splits(make_shapes(tmp_path / "shapes", {"train": 12, "val": 3}))
    wish = minutes.Wish(Budget(5, time.monotonic()), given, "fcos-lite0", "cpu", None)
    planned = minutes.prepare(
        wish, lambda preset, changes: resolve(preset, [f"{k}={v}" for k, v in {**changes, **given}.items()]), data
    )
    assert planned.config.data.tile == side
    (row,) = [choice for choice in planned.plan.choices if choice.name == "tile"]
    assert (row.value, why in row.reason) == (str(side), True)


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), 1e9])
def test_minutes_have_limits(wrong):
    with pytest.raises(ConfigError, match="minutes"):
        minutes.check(wrong, {}, 1)


def test_two_ways_to_say_how_long_are_refused():
    with pytest.raises(ConfigError, match=r"train\.epochs and minutes"):
        minutes.check(5, {"train.epochs": 3}, 1)
    with pytest.raises(ConfigError, match="one process"):
        minutes.check(5, {}, 2)


def test_a_run_by_the_clock(tmp_path, monkeypatch, capfd):
    """Pace and time are given, so that nothing depends on this machine; the run is real."""
    monkeypatch.setattr(Budget, "left", 29.0)
    monkeypatch.setattr(Deadline, "look", lambda self, step, total: 45 if step >= 30 else total)
    monkeypatch.setattr(
        minutes, "measure", lambda config, data, wish, brief=False: Pace(0.3, 0.01, config.train.batch, 64)
    )
    pushed = []
    files = (tmp_path / "run").glob
    monkeypatch.setattr(Away, "push", lambda self: pushed.extend(path.read_text() for path in files("command.txt")))
    data = make_shapes(tmp_path / "shapes", {"train": 12, "val": 3})
    config = tiny_config(train={"epochs": 30})
    given = {"data.size": 64, "data.max_size": 96, "data.train_sizes": [64], "data.color": 0.25}
    result = learn(config, data, tmp_path / "run", minutes=Budget(0.5, time.monotonic()), settings=given, quiet=False)
    said = capfd.readouterr().err
    assert said.index("looking at the data, then timing some steps") < said.index("the plan for 0:30")
    stored = load_checkpoint(tmp_path / "run")
    planned = stored["config"]["train"]["iterations"]
    assert 50 < planned < 100
    assert result.steps == 45
    assert stored["total"] == stored["step"] == result.steps
    assert stored["config"]["data"]["color"] == 0.25
    words = shlex.split((tmp_path / "run" / "command.txt").read_text())
    assert f"train.iterations={result.steps}" in words
    assert shlex.split(pushed[-1]) == words  # what a store holds
    assert any(f"train.iterations={planned}" in shlex.split(told) for told in pushed)
    assert "data.color=0.25" in words
    assert result.metrics is not None
    kept = json.loads((tmp_path / "run" / "result.json").read_text())["seconds"]
    assert kept == round(result.seconds, 1)  # one clock: what was planned in counts, too
    assert f"done after {clock(result.seconds)} of 0:30, 45 steps" in said


def test_the_start_stands_in_the_plan_and_in_the_equal_command(tmp_path, monkeypatch, capfd):
    """What the run starts from is asked once, at the size that was chosen, and not by the run itself again."""
    asked = []

    def start_for(config, train, init, device):
        asked.append((config.data.size, init))
        return Start("none", "as this test says")

    monkeypatch.setattr(Budget, "left", 29.0)
    monkeypatch.setattr(minutes, "start_for", start_for)
    monkeypatch.setattr("fcos.training.program.start_for", None)
    monkeypatch.setattr(
        minutes, "measure", lambda config, data, wish, brief=False: Pace(0.5, 0.01, config.train.batch, 64)
    )
    data = make_shapes(tmp_path / "shapes", {"train": 12, "val": 3})
    given = {"data.size": 64, "data.max_size": 96, "data.train_sizes": [64]}
    budget = Budget(2, time.monotonic())
    learn(tiny_config(), data, tmp_path / "run", minutes=budget, settings=given, init=None, quiet=False)
    assert asked == [(64, None)]
    assert "as this test says" in capfd.readouterr().err
    words = shlex.split((tmp_path / "run" / "command.txt").read_text())
    assert words[words.index("--init") + 1] == "none"


def test_one_minute_too_few_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(
        minutes, "measure", lambda config, data, wish, brief=False: Pace(3.0, 0.1, config.train.batch, 64)
    )
    data = make_shapes(tmp_path / "shapes", {"train": 12, "val": 3})
    with pytest.raises(ConfigError, match="minutes=1 is too short") as refused:
        learn(tiny_config(), data, tmp_path / "run", minutes=1)
    assert "\n" not in str(refused.value)
    enough = float(str(refused.value).split("give ")[1].split(" minutes")[0])
    assert 40 * 3.0 / 60 < enough < 40 * 3.0 / 60 + 1  # the least number of steps, and half a minute around them
    assert not (tmp_path / "run").exists()


def test_nothing_to_learn_from_is_told_before_the_plan(tmp_path):
    train = open_splits(make_shapes(tmp_path / "shapes", {"train": 4}))["train"]
    with pytest.raises(DataError, match="no boxes to learn from in the train split"):
        learn(tiny_config(), {"train": train.subset([]), "val": train}, tmp_path / "run", minutes=1)


class Scripted(Deadline):
    """Lowers the number of steps to 6 when 3 are done."""

    def look(self, step, total):
        return 6 if step >= 3 else total


class Killed(Exception):
    pass


def test_a_resume_has_the_steps_that_were_left(tmp_path):
    splits = open_splits(make_shapes(tmp_path / "shapes", {"train": 16, "val": 3}))
    mosaics = {"mosaic": 1.0, "plain_epochs": 1, "workers": 0}
    config = tiny_config(data=mosaics, train={"iterations": 40, "batch": 8, "ema": 0.9, "save_every": 100})

    def kill(step, report):
        if step == 5:
            raise Killed

    def start(out, **more):
        return Trainer(config, splits, options(out, deadline=Scripted(3600, 1, start=time.monotonic()), **more))

    assert start(tmp_path / "whole").run().steps == 6
    with pytest.raises(Killed):
        start(tmp_path / "killed", on_step=kill).run()
    assert load_checkpoint(tmp_path / "killed")["total"] == 6
    assert Trainer(config, splits, options(tmp_path / "killed", resume=True)).run().steps == 6
    ours, theirs = load_checkpoint(tmp_path / "killed"), load_checkpoint(tmp_path / "whole")
    assert ours["plain_from"] == theirs["plain_from"] == 4  # the last epoch of two steps is without mosaics
    assert equal_states(ours["model"], theirs["model"])
    assert equal_states(ours["average"], theirs["average"])
