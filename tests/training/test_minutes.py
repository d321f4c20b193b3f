"""Minutes in: the rules by hand-worked cases, the clock under made times, the plan as a command, and the resume."""

import os
import shlex
import subprocess
import sys
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from tiny import equal_states, learn, make_shapes, options, tiny_config

from fcos.cli.common import sort_words
from fcos.data.open import open_splits
from fcos.errors import ConfigError, DataError
from fcos.presets import preset, resolve
from fcos.training import clock
from fcos.training.clock import Budget, Deadline, process_age
from fcos.training.loop import Trainer
from fcos.training.output.away import Away
from fcos.training.output.checkpoint import load_checkpoint
from fcos.training.planning import minutes
from fcos.training.planning.facts import Facts, orientation
from fcos.training.planning.plan import (
    Choice,
    Pace,
    Plan,
    Time,
    TooShort,
    batch_for,
    cache_for,
    command,
    ending,
    flips_for,
    in_memory,
    make_plan,
    model_for,
    rate_for,
    size_for,
    tile_for,
)
from fcos.training.planning.starting import Start
from fcos.training.program import settled_by

CELLS = Facts(205, 3000, 3, 416, 0.10, 0.25, 0.5, upright=False, handed=False, judged=87)
CHOSEN = {
    "model": Choice("model", "fcos-lite0", ""),
    "batch": Choice("batch", "4", ""),
    "size": Choice("size", "320", ""),
}


class TurnedClock:
    """A clock that a test turns."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


def paced(step, image):
    """What stands for `minutes.measure`: these seconds."""
    return lambda config, data, wish, brief=False: Pace(step, image, config.train.batch, 64)


@pytest.fixture
def turned(monkeypatch):
    made = TurnedClock()
    monkeypatch.setattr(clock, "time", made)
    return made


def run(turned, deadline, total, seconds):
    """(steps done, the totals on the way) of a run whose step k takes seconds(k)."""
    totals, step = [total], 0
    while step < total:
        turned.now += seconds(step)
        step += 1
        total = deadline.look(step, total)
        if total != totals[-1]:
            totals.append(total)
    return step, totals


def test_enough_time_changes_nothing(turned):
    assert run(turned, Deadline(100, 10, start=turned.now), 80, lambda k: 1.0) == (80, [80])


def test_too_many_steps_are_lowered_once_and_the_run_ends_in_time(turned):
    steps, totals = run(turned, Deadline(110, 10, start=turned.now), 130, lambda k: 1.0)
    assert len(totals) == 2
    assert steps == 100 == totals[-1]
    assert turned.now == 1100


def test_a_machine_that_gets_slower_after_that_ends_at_once(turned):
    steps, totals = run(turned, Deadline(110, 10, start=turned.now), 130, lambda k: 1.0 if k < 80 else 3.0)
    assert len(totals) == 3
    assert totals[-1] == steps
    assert 1100 <= turned.now < 1104  # one step over, and the end has its own ten seconds


def test_no_pace_makes_it_late(turned):
    rng = np.random.default_rng(0)
    for _ in range(200):
        turned.now = 1000.0
        pace = rng.uniform(0.05, 4, 4)
        slow = rng.exponential(1, 4000)
        total = int(rng.integers(40, 3000))
        deadline = Deadline(200, 20, start=1000.0)
        steps, totals = run(turned, deadline, total, lambda k: pace[k * 4 // total] * slow[k])  # noqa: B023
        assert turned.now - slow[steps - 1] * 4 <= 1180
        assert len(totals) <= 3
        assert totals == sorted(totals, reverse=True)


def test_time_of_the_processes_before_counts(turned):
    first = Deadline(100, 10, start=turned.now)
    turned.now += 30
    stored = first.stored()
    turned.now += 4000  # a notebook, hours old, goes on with it
    again = Deadline.again(stored, turned.now)
    assert again.spent() == pytest.approx(30)
    assert again.used == pytest.approx(30)
    assert (again.seconds, again.tail, again.revised) == (100, 10, False)


@pytest.mark.parametrize(
    "broken", [7, [], {}, {"seconds": "9", "tail": 1.0, "used": 0.0}, {"seconds": 9, "tail": float("nan")}]
)
def test_a_damaged_deadline_is_seen(broken):
    assert not Deadline.fits(broken)
    assert Deadline.fits(None)
    assert Deadline.fits(Deadline(60, 5).stored())


def test_a_process_knows_its_age():
    """By ps, which asks the system too."""
    code = "import time; time.sleep(1.2); from fcos.training.clock import process_age; print(process_age())"
    began = time.monotonic()
    age = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 1.2 <= age <= time.monotonic() - began + 0.02


@pytest.mark.parametrize(("up", "believed"), [(130.0, 30.0), (40.0, None), (1e6, None), (None, None)])
def test_a_container_that_counts_its_own_time_tells_no_age(tmp_path, monkeypatch, up, believed):
    """The process began 100 s after the start of the host and has computed for 3 s."""
    monkeypatch.setattr("fcos.training.clock.time.process_time", lambda: 3.0)
    (tmp_path / "self").mkdir()
    fields = [*["0"] * 19, str(100 * os.sysconf("SC_CLK_TCK")), "0"]
    (tmp_path / "self" / "stat").write_text(f"7 (a (b) c) {' '.join(fields)}")
    if up is not None:
        (tmp_path / "uptime").write_text(f"{up} 1.0")
    assert process_age(tmp_path) == pytest.approx(3.0 if believed is None else believed)


def test_timing_steps_ends_on_a_busy_machine():
    assert minutes.more_steps(2, 100.0, 103.0, 109.0)  # two are few
    assert minutes.more_steps(5, 105.0, 103.0, 109.0)  # six are wanted, even past the end
    assert not minutes.more_steps(2, 110.0, 103.0, 109.0)  # but not for ever
    assert not minutes.more_steps(6, 105.0, 103.0, 109.0)
    assert not minutes.more_steps(40, 100.0, 103.0, 109.0)


@pytest.fixture(autouse=True)
def plenty(monkeypatch):
    """As much as anything here asks for, whatever this machine has free."""
    monkeypatch.setattr(minutes, "free_bytes", lambda device: 1 << 50)


def gigabytes(name, images):
    """Made up: a gigabyte an image, two and three of the larger ones; of any other network nobody knows."""
    return {"fcos-lite0": 1e9, "fcos-lite1": 2e9, "fcos-lite2": 3e9}.get(name, 0) * images


@pytest.mark.parametrize(
    ("name", "images", "free", "settled", "want"),
    [
        ("fcos-lite2", 16, 48, (), ("fcos-lite2", 16)),
        ("fcos-lite2", 16, 47, (), ("fcos-lite2", 8)),
        ("fcos-lite2", 16, 12, (), ("fcos-lite2", 4)),
        ("fcos-lite2", 16, 11, (), ("fcos-lite1", 4)),
        ("fcos-lite2", 4, 7, (), ("fcos-lite0", 4)),
        ("fcos-lite2", 4, 3, (), ("fcos-lite0", 2)),
        ("fcos-lite0", 4, 0, (), ("fcos-lite0", 1)),  # the least there is, and training may still manage
        ("fcos-lite2", 4, 7, {"model"}, ("fcos-lite2", 2)),
        ("fcos-lite2", 8, 9, {"batch"}, ("fcos-lite0", 8)),
        ("fcos-lite2", 8, 7, {"batch"}, ("fcos-lite0", 8)),  # nothing smaller is left
        ("fcos-lite2", 8, 0, {"batch", "model"}, ("fcos-lite2", 8)),
        ("fcos-lite2", 0, 0, {"batch", "model"}, ("fcos-lite2", 0)),  # train.batch=auto looks by itself
        ("fcos-r101", 4, 0, {"model"}, ("fcos-r101", 4)),
    ],
)
def test_the_plan_fits_into_memory(name, images, free, settled, want):
    model, batch = in_memory(
        Choice("model", name, "r"), Choice("batch", str(images), "r"), gigabytes, free * 10**9, settled
    )
    assert (model.value, int(batch.value)) == want
    assert (model.reason == "r") == (model.value == name)
    assert (batch.reason == "r") == (int(batch.value) == images)


def test_a_batch_that_cannot_be_split_is_no_way_out():
    """train.accumulate=8: images of a step in eights."""

    def eights(name, images):
        return gigabytes(name, images) if images % 8 == 0 else float("inf")

    choices = Choice("model", "fcos-lite2", ""), Choice("batch", "8", "")
    model, batch = in_memory(*choices, eights, int(17e9), ())
    assert (model.value, batch.value) == ("fcos-lite1", "8")
    assert model.reason == "fcos-lite2 with 8 images would take 24.0 GB, and 17.0 are free"
    assert in_memory(choices[0], Choice("batch", "4", ""), eights, 0, ()) == (choices[0], Choice("batch", "4", ""))


def test_the_plan_says_what_memory_it_would_have_taken():
    choices = Choice("model", "fcos-lite2", ""), Choice("batch", "4", "")
    model, batch = in_memory(*choices, gigabytes, int(5.5e9), ())
    assert model == Choice("model", "fcos-lite0", "fcos-lite2 with 4 images would take 12.0 GB, and 5.5 are free")
    assert batch is choices[1]


def test_the_model_goes_with_the_machine_and_the_time():
    assert model_for(Time(15), CELLS, cuda=False).value == "fcos-lite0"  # before it is known what there is time for
    assert model_for(Time(15, 600, 12), CELLS, cuda=False).value == "fcos-lite1"
    assert model_for(Time(15, 590, 12), CELLS, cuda=False).value == "fcos-lite0"
    assert model_for(Time(15, 2000, 3.9), CELLS, cuda=False).value == "fcos-lite0"  # many images
    small = replace(CELLS, small=0.04)  # 12.8 px at 320
    assert model_for(Time(3, 120, 12), small, cuda=False).value == "fcos-lite1"
    assert model_for(Time(3, 119, 12), small, cuda=False).value == "fcos-lite0"
    assert model_for(Time(3, 120, 12), CELLS, cuda=False).value == "fcos-lite0"
    assert model_for(Time(15, 1990, 12), CELLS, cuda=False, bare=True).value == "fcos-lite0"
    assert model_for(Time(15, 2000, 12), CELLS, cuda=False, bare=True).value == "fcos-lite1"
    assert model_for(Time(3, 120, 12), small, cuda=False, bare=True).value == "fcos-lite0"
    assert model_for(Time(120), CELLS, cuda=False).value == "fcos-lite2"
    assert model_for(Time(15), CELLS, cuda=True).value == "fcos-lite2"


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

    facts = replace(CELLS, images=12, small=small, side=96, judged=3)
    monkeypatch.setattr(minutes, "gather", lambda data: facts)
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
    ("decoding", "steps", "epochs", "need", "kept"),
    [
        (0.05, 100, 3, 250, True),
        (0.01, 100, 3, 250, False),
        (0.05, 99, 3, 250, False),
        (0.05, 100, 2.9, 250, False),
        (0.05, 100, 3, 251, False),
    ],
)
def test_what_is_slow_to_decode_and_fits_is_kept_in_memory(decoding, steps, epochs, need, kept):
    made = cache_for(decoding, Pace(1.0, 0.1, 4, 320), Time(3, steps, epochs), need, 1000)
    assert (made is not None) is kept


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


def test_few_images_are_learned_in_small_batches():
    assert batch_for(CELLS, cuda=False).value == "4"
    assert batch_for(Facts(5000, 1, 1, 1, 1, 1, 1, True, False, 0), cuda=False).value == "8"


@pytest.mark.parametrize(
    ("small", "steps", "epochs", "size"),
    [
        (0.10, 600, 12, "320"),  # a tenth of the boxes is under 32 px: enough
        (0.03, 1000, 20, "512"),  # under 9.6 px; 416 gives 12.5, 512 gives 15.4, and 20 / 2.56 epochs are left
        (0.03, 450, 9, "416"),  # 512 would leave 3.5 epochs
        (0.03, 250, 5, "320"),  # there is no time for more pixels
        (0.10, 75, 1.5, "256"),  # not even for these
        (0.03, 110, 20, "416"),  # few images: 512 would leave 43 steps, and a run needs 40
        (0.03, 100, 20, "320"),  # 416 would leave 59
    ],
)
def test_the_size_follows_the_boxes_and_the_time(small, steps, epochs, size):
    facts = Facts(205, 3000, 3, 416, small, 0.25, 0.5, True, False, 87)
    assert size_for(facts, 320, Time(1, steps, epochs)).value == size


@pytest.mark.parametrize(
    ("small", "large", "side", "tile"),
    [
        (0.0145, 0.03, 960, 320),  # a tenth is under 14 of 960 pixels: at 320 of 320 they have 14
        (0.10, 0.5, 416, 0),  # large enough as they are
        (0.0146, 0.6, 960, 0),  # a tile that holds 95 of 100 objects is as large as the image
        (0.0146, 0.2, 960, 384),  # larger tiles than the small ones want, for the others
        (0.02, 0.04, 400, 0),  # the images have no more pixels than 512 px show
    ],
)
def test_tiles_are_for_small_objects_of_large_images(small, large, side, tile):
    facts = Facts(60, 2000, 10, side, small, small + 0.01, large, True, True, 20)
    assert tile_for(facts, 320) == tile


def test_judging_through_tiles_must_be_affordable(tmp_path):
    """The images are smaller than a tile of 512: each is one window."""
    val = open_splits(make_shapes(tmp_path / "shapes", {"val": 3}))["val"]
    pace = Pace(0.5, 1.0, 4, 320)
    assert minutes.affordable(val, 0, pace, 0.0)
    assert minutes.affordable(None, 512, pace, 0.0)
    assert minutes.affordable(val, 512, pace, 4.0 * len(val))
    assert not minutes.affordable(val, 512, pace, 4.0 * len(val) - 1)
    assert not minutes.affordable(val, 32, pace, 4.0 * len(val))  # several windows each


def test_flips_follow_the_images():
    assert flips_for(CELLS).value == "left-right, up-down"
    assert flips_for(Facts(1, 1, 1, 1, 1, 1, 1, True, False, 0)).value == "left-right"
    assert flips_for(Facts(1, 1, 1, 1, 1, 1, 1, False, True, 0)).value == "none"


@pytest.mark.parametrize(("known", "classes", "rate"), [(3, 3, "0.0001"), (2, 4, "0.0001"), (1, 3, None), (0, 0, None)])
def test_known_classes_are_learned_gently(known, classes, rate):
    choice = rate_for(1e-3, known, classes)
    assert (choice.value if choice else None) == rate


def test_few_steps_from_a_fitted_layer_are_brisk():
    """Twice the usual rate up to 600 steps, where nothing is known; what is known is still learned gently."""
    assert rate_for(1e-3, 0, 3, 600).value == "0.002"
    assert rate_for(1e-3, 0, 3, 601) is None
    assert rate_for(1e-3, 1, 3, 100) is None
    assert rate_for(1e-3, 2, 3, 100).value == "0.0001"


def test_a_plan_fills_the_time():
    plan = make_plan(CELLS, Pace(0.5, 0.05, 4, 320), 600, CHOSEN, {})
    assert isinstance(plan, Plan)
    steps = plan.settings["train.iterations"]
    assert 0.9 * 600 < steps * 0.5 + plan.tail + 4 * 87 * 0.05 <= 600
    assert plan.settings["data.vertical_flip"] == 0.5
    assert plan.settings["data.train_sizes"] == [288, 320, 352]
    assert {c.name for c in plan.choices} >= {"model", "size", "batch", "flips", "steps", "judged"}


def test_what_a_config_or_a_dialect_says_counts_as_settled():
    changed = preset("fcos-lite0").override({"train.batch": 12, "data.flip": 0.0})
    assert settled_by(changed, None) == {"train.batch": 12, "data.flip": 0.0}
    assert settled_by(preset("fcos-lite0"), None) == settled_by("fcos-lite0", None) == settled_by(None, None) == {}
    original = settled_by("fcos-lite0", "original")
    assert original["train.warmup"] == resolve("fcos-lite0", dialect="original").train.warmup


def test_what_the_user_settled_is_not_planned():
    given = {"train.warmup": 3, "data.vertical_flip": 0}
    plan = make_plan(CELLS, Pace(0.5, 0.05, 4, 320), 600, CHOSEN, given)
    assert not set(given) & set(plan.settings)
    assert "flips" not in {c.name for c in plan.choices}


def test_images_that_are_seen_often_are_mixed():
    few, often = (make_plan(CELLS, Pace(step, 0.05, 4, 320), 600, CHOSEN, {}) for step in (0.5, 0.25))
    assert few.settings["data.crop"] == 0
    assert "data.mosaic" not in few.settings
    epochs = often.settings["train.iterations"] / 52  # of 205 images by 4, the last batch filled up
    assert epochs > 40
    assert often.settings["data.crop"] == 0.3
    assert often.settings["data.mosaic"] == 0.5
    assert often.settings["data.plain_epochs"] == round(epochs / 10)
    in_tiles = make_plan(CELLS, Pace(0.25, 0.05, 4, 320), 600, {**CHOSEN, "tile": Choice("tile", "192", "")}, {})
    assert in_tiles.settings["data.crop"] == 0.3
    assert "data.mosaic" not in in_tiles.settings
    without = make_plan(CELLS, Pace(0.25, 0.05, 4, 320), 600, CHOSEN, {"data.mosaic": 0})
    told = [{c.name for c in plan.choices} & {"mosaic", "crop"} for plan in (few, often, in_tiles, without)]
    assert told == [set(), {"mosaic"}, {"crop"}, {"crop"}]
    assert "data.plain_epochs" not in without.settings


@pytest.mark.parametrize("every", [1, 2, 5])
def test_evaluations_that_the_user_asks_for_are_in_the_time(every):
    pace = Pace(0.5, 0.05, 4, 320)
    plan = make_plan(CELLS, pace, 600, CHOSEN, {"train.eval_every": every})
    steps = plan.settings["train.iterations"]
    looks = steps * 4 / 205 / every
    assert 0.95 * 600 < steps * 0.5 + plan.tail + looks * 87 * 0.05 <= 600
    assert "train.eval_every" not in plan.settings
    assert [c.value for c in plan.choices if c.name == "judged"] == [f"{-(-looks // 1):.0f} times"]


@pytest.mark.parametrize("seconds", range(440, 1300, 20))
def test_a_run_is_judged_as_often_as_its_plan_says(seconds):
    """Counted over its steps: at the end, and after epochs whose number `train.eval_every` divides; an epoch of 205
    images by 4 has 52 steps."""
    plan = make_plan(CELLS, Pace(0.5, 0.05, 4, 320), seconds, CHOSEN, {})
    steps, every = plan.settings["train.iterations"], plan.settings["train.eval_every"]
    looks = sum(done == steps or (every > 0 and done % (52 * every) == 0) for done in range(1, steps + 1))
    told = "once, at the end" if looks == 1 else f"{looks} times"
    assert [c.value for c in plan.choices if c.name == "judged"] == [told]
    assert looks <= 5


def test_the_end_has_time_for_many_images_to_judge_by():
    """3,000 images of 60 detections took 25 s of one core after the last step, beside the 0.05 s of each detecting."""
    few, many = (ending(replace(CELLS, judged=n), Pace(0.5, 0.05, 4, 320)) for n in (0, 3000))
    assert many - few >= 3000 * 0.05 + 24


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

    facts = replace(CELLS, small=0.0146, large=0.2, side=960, judged=3)
    monkeypatch.setattr(minutes, "gather", lambda data: facts)
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


def test_without_images_to_judge_by_nothing_is_judged():
    plan = make_plan(replace(CELLS, judged=0), Pace(0.5, 0.05, 4, 320), 600, CHOSEN, {})
    assert [c.value for c in plan.choices if c.name == "judged"] == ["never"]


def test_too_little_time_says_what_it_takes():
    short = make_plan(CELLS, Pace(1.0, 0.05, 4, 320), 20, CHOSEN, {})
    assert isinstance(short, TooShort)
    assert "1.00 s a step" in short.reason
    plan = make_plan(CELLS, Pace(1.0, 0.05, 4, 320), 20 + short.missing, CHOSEN, {})
    assert isinstance(plan, Plan)


@pytest.mark.parametrize("wrong", [0, -1, float("nan"), 1e9])
def test_minutes_have_limits(wrong):
    with pytest.raises(ConfigError, match="minutes"):
        minutes.check(wrong, {}, 1)


def test_two_ways_to_say_how_long_are_refused():
    with pytest.raises(ConfigError, match=r"train\.epochs and minutes"):
        minutes.check(5, {"train.epochs": 3}, 1)
    with pytest.raises(ConfigError, match="one process"):
        minutes.check(5, {}, 2)


# ---------------------------------------------------------------- what up and down, left and right are


def images(tmp_path, draw, count=30, light=False):
    """A COCO set of `count` images with an object that `draw(canvas, rng)` puts into its box."""
    data = make_shapes(tmp_path / "set", {"train": count})
    dataset = open_splits(data)["train"]
    rng = np.random.default_rng(1)
    for record in dataset.records:
        canvas = rng.integers(80, 120, (*record.size, 3), dtype=np.uint8)
        if light:
            canvas[: record.size[0] // 2] += 60
        for box in record.boxes.astype(int):
            part = np.full((box[3] - box[1], box[2] - box[0], 3), 100, np.uint8)
            canvas[box[1] : box[3], box[0] : box[2]] = draw(part, rng)
        cv2.imencode(".png", canvas)[1].tofile(record.path)
    return dataset


def disc(part, rng):
    h, w = part.shape[:2]
    return cv2.ellipse(part, (w // 2, h // 2), (w // 2, h // 2), 0, 0, 360, (240, 240, 240), -1)


def letter(part, rng):
    """An F: neither its own mirror image nor itself upside down."""
    h, w = part.shape[:2]
    part[:, : w // 4] = part[: h // 4] = 250
    part[h // 2 : 2 * h // 3, : w // 2] = 250
    return part


def arrow(part, rng):
    """Points left or right, by chance: as animals do, and cars."""
    h, w = part.shape[:2]
    part[h // 3 : 2 * h // 3] = 250
    part[:, : w // 3] = 250
    return part[:, :: int(rng.choice((-1, 1)))]


@pytest.mark.parametrize("light", [False, True])
def test_cells_have_no_up_whatever_the_light(tmp_path, light):
    assert orientation(images(tmp_path, disc, light=light)) == (False, False)


def house(part, rng):
    """A triangle on its base: upside down it is another thing."""
    h, w = part.shape[:2]
    return cv2.fillPoly(part, [np.array([[0, h], [w, h], [w // 2, 0]])], (250, 250, 250))


def test_houses_stand(tmp_path):
    assert orientation(images(tmp_path, house)) == (True, False)


def test_without_objects_nothing_is_turned(tmp_path):
    dataset = images(tmp_path, disc, count=6)
    assert orientation(dataset) == (True, False)  # too few to say


def test_letters_are_not_their_mirror_images(tmp_path):
    assert orientation(images(tmp_path, letter)) == (True, True)


def test_what_is_seen_from_both_sides_may_be_mirrored(tmp_path):
    assert orientation(images(tmp_path, arrow))[1] is False


# ---------------------------------------------------------------- a run


def test_the_command_of_a_plan_says_the_same(tmp_path):
    settings = {"train.iterations": 812, "data.train_sizes": [288, 320, 352], "data.flip": 0.5, "train.val_loss": False}
    words = shlex.split(command(["my data", "--model", "fcos-lite0"], settings))
    things, changes = sort_words(words[5:], None)
    assert words[:5] == ["fcos", "train", "my data", "--model", "fcos-lite0"]
    assert not things
    nested = {"train": {"iterations": 812, "val_loss": False}, "data": {"train_sizes": [288, 320, 352], "flip": 0.5}}
    assert resolve("fcos-lite0", changes) == resolve("fcos-lite0", [nested])


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
    assert "the plan for 0:30" in said
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
