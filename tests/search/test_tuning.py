"""`fcos tune`: ranges, and what is tried, given up, done again after a kill and kept; slowly, real runs."""

import json
import os
import shlex
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import fcos, make_shapes, relabel

pytest.importorskip("optuna")

from fcos.errors import ConfigError, FcosError, MissingExtra
from fcos.evaluation.coco import evaluate
from fcos.presets import preset
from fcos.search import tuning
from fcos.search.journal import Folder
from fcos.search.space import OneOf, Range, draw, ends, sort_ranges, start, usual, words
from fcos.search.tuned import Tuned
from fcos.search.tuning import Search, tune
from fcos.training.data import NamedData
from fcos.training.run import Result

ABOUT = {
    "asked": {},
    "minutes": 3.0,
    "model": "fcos-lite0",
    "fixed": ["train.seed=4"],
    "space": {"train.lr": "0.0001..0.01", "train.batch": "4|8"},
    "start": {"train.lr": 0.001, "train.batch": "8"},
    "every": 2,
    "tail": 20.0,
    "judged": 8,
    "words": ["my data", "--model", "fcos-lite0"],
}


def metrics(ap):
    """Metrics that say this AP."""
    from fcos.data.dataset import Dataset
    from fcos.types import Classes

    return replace(evaluate([], Dataset((), Classes(("a",)), "coco", "val", Path())), ap=ap)


@pytest.fixture
def made(monkeypatch):
    """A search whose beginning costs nothing; its settings are (data, ABOUT)."""

    def begin(search):
        return {**ABOUT, "asked": tuning._asked(search), "minutes": search.minutes or 3.0, "sha256": {}}

    monkeypatch.setattr(tuning, "begin", begin)
    monkeypatch.setattr(tuning, "_hashes", lambda search: {})
    # after each trial the memory of a network is given back; there is none here, and half a second each adds up
    monkeypatch.setattr(tuning.gc, "collect", lambda: 0)


@pytest.fixture
def undrawn(monkeypatch):
    """Without the page, which takes a second."""
    monkeypatch.setattr(Tuned, "write", lambda self: None)


def search(**changes):
    return Search(**{"source": NamedData("my data"), "trials": 12, **changes})


def told(settings):
    """The last value of each setting."""
    return dict(word.split("=", 1) for word in settings)


def test_trials_learn_the_model_that_the_search_chose(made, undrawn, tmp_path, monkeypatch):
    """Not the one that a plan for the settings of a trial would choose again."""
    models = []

    def train(data, **options):
        models.append(options["model"])
        raise FcosError("enough")

    monkeypatch.setattr(tuning, "train", train)
    with pytest.raises(FcosError, match="enough"):
        tune(search(trials=3), tmp_path / "t", str)
    assert set(models) == {ABOUT["model"]}


def learner(ap, seen=None):
    """A `learn` that ends with `ap(settings)` and leaves the files of a run."""

    def learn(out, settings, minutes, on_epoch):
        value = ap(told(settings))
        if seen is not None:
            seen.append((out, settings, minutes))
        out.mkdir()
        (out / "best.safetensors").write_bytes(b"weights")
        (out / "command.txt").write_text(shlex.join(["fcos", "train", "my data", *settings, "train.iterations=50"]))
        return Result(out, 50, value, metrics(value))

    return learn


def near(settings):
    """Best at a rate of 0.003; the batch does not matter."""
    import math

    return 0.6 - 0.1 * abs(math.log10(float(settings["train.lr"]) / 0.003))


# ---------------------------------------------------------------- ranges


def test_a_damaged_journal_is_one_line(tmp_path):
    for text in ("garbage\n" * 3, '{"op_code": 99}\n' * 3, "[1]\n" * 3):
        (tmp_path / "trials.log").write_text(text)
        with pytest.raises(FcosError, match=r"trials\.log is damaged .*; give another --out"):
            Folder(tmp_path)
        assert (tmp_path / "trials.log").read_text() == text


def test_words_with_ranges_are_told_from_settings():
    space, fixed = sort_ranges(
        ["train.lr=1e-4..1e-2", "train.batch=4|8", "data.size=256..416", "train.seed=1", "a=../b"]
    )
    assert space == {
        "train.lr": Range(1e-4, 1e-2),
        "train.batch": OneOf(("4", "8")),
        "data.size": Range(256, 416, whole=True),
    }
    assert fixed == ["train.seed=1", "a=../b"]
    crop, clip = sort_ranges(["data.crop=0..1", "train.clip=1..10"])[0].values()  # shares, however they are written
    assert (crop, clip) == (Range(0.0, 1.0), Range(1.0, 10.0))
    assert (crop.log, clip.log) == (False, True)
    assert [space["data.size"].nearest(side) for side in (1, 300.6, 300.4, 900)] == [256, 301, 300, 416]
    assert [what.log for what in space.values() if isinstance(what, Range)] == [True, False]
    assert [crop.nearest(share) for share in (-1.0, 0.3, 2.0)] == [0.0, 0.3, 1.0]


def test_the_command_of_a_trial_is_without_what_only_trials_want(tmp_path):
    given = "fcos train 'my data' train.plots=false train.keep=weights train.lr=0.1"
    (tmp_path / "command.txt").write_text(f"{given}\n")
    assert tuning._command(tmp_path, []) == "fcos train 'my data' train.lr=0.1"
    assert tuning._command(tmp_path, ["train.plots=false"]) == "fcos train 'my data' train.plots=false train.lr=0.1"


@pytest.mark.parametrize(
    "word",
    ["train.lr=1e-4..", "train.lr=1..x", "train.lr=2..1", "train.lr=0..inf", "train.batch=4|", "train.epochs=1.5..3"],
)
def test_half_a_range_is_an_error(word):
    with pytest.raises(ConfigError, match=r"train\."):
        sort_ranges([word])


def test_a_range_written_and_read_again_is_the_same():
    space, _ = sort_ranges(["train.lr=0.00025..0.5", "data.size=64..4096", "train.optimizer=sgd|adamw"])
    assert sort_ranges([f"{key}={what}" for key, what in space.items()])[0] == space


@pytest.mark.parametrize("name", ["fcos-lite0", "fcos-lite2", "fcos-r50"])
def test_the_usual_space_holds_the_preset_and_every_end_of_it_can_be_had(name):
    config = preset(name)
    space = usual(config, {"train.batch": "4"})
    assert sort_ranges([f"{key}={what}" for key, what in space.items()]) == (space, [])
    assert "train.batch" not in space
    at_start = start(space, config)
    assert at_start["train.lr"] == config.train.lr
    assert at_start["data.size"] == str(config.data.size)
    assert config.override(*words(at_start)).train.backbone_lr == config.train.backbone_lr
    for settings in ends(space):
        config.override(*settings)


def test_the_start_is_inside_the_ranges():
    space, _ = sort_ranges(["train.lr=0.01..0.02", "train.batch=2|4", "train.warmup=1..9"])
    assert start(space, preset("fcos-lite0")) == {"train.lr": 0.01, "train.batch": "2", "train.warmup": 9}


def test_what_is_drawn_can_be_read_as_a_setting():
    class Low:
        def suggest_float(self, name, low, high, *, log=False):
            return low * 1.23456789

        def suggest_int(self, name, low, high, *, log=False):
            return low

        def suggest_categorical(self, name, choices):
            return choices[-1]

    space, _ = sort_ranges(["train.lr=1e-4..1e-2", "train.warmup=5..9", "data.train_sizes=[64]|[96,128]"])
    config = preset("fcos-lite0").override(*words(draw(space, Low())))
    assert (config.train.lr, config.train.warmup, config.data.train_sizes) == (0.0001235, 5, (96, 128))


# ---------------------------------------------------------------- the search


def test_it_finds_the_better_settings_and_says_what_mattered(made, tmp_path):
    seen, lines = [], []
    found = tune(search(trials=20), tmp_path / "t", lines.append, learner(near, seen))
    first = told(seen[0][1])
    assert (first["train.lr"], first["train.batch"]) == ("0.001", "8")  # the plan's own settings come first
    assert first["train.eval_every"] == "2"
    assert first["train.seed"] == "4"
    assert len(seen) == len(found.whole) == 20
    assert len({out for out, *_ in seen}) == 20
    assert 0.0015 < found.best.values["train.lr"] < 0.006
    assert found.best.ap == max(near(told(s)) for _, s, _ in seen)
    assert found.first.number == 0
    assert max(found.importances, key=found.importances.get) == "train.lr"
    assert sum(found.importances.values()) == pytest.approx(1)
    kept = [p.parent.name for p in (tmp_path / "t").glob("*/best.safetensors")]
    assert kept == [f"trial-{found.best.number:04d}"]
    command = shlex.split((tmp_path / "t" / "command.txt").read_text())
    assert f"train.lr={found.best.values['train.lr']:.4g}" in command
    assert "train.iterations=50" in command
    assert "train.plots=false" not in command  # of trials only
    assert len(lines) == 21
    assert f"{found.best.values['train.lr']:.4g}" in found.longer()
    text = found.text()
    assert "looks better than it is" in text
    assert "The plan's own settings had 0.552 (trial 0)" in text
    page = (tmp_path / "t" / "tune.html").read_text()
    assert "What mattered" in page
    assert page.count("<svg") == 3
    assert json.loads(json.dumps(found.to_dict()))["best"] == found.best.number


def test_the_same_command_goes_on(made, undrawn, tmp_path):
    tune(search(trials=3), tmp_path / "t", str, learner(near))
    seen = []
    found = tune(search(trials=5), tmp_path / "t", str, learner(near, seen))
    assert len(seen) == 2
    assert len(found.whole) == 5
    assert tune(search(trials=5), tmp_path / "t", str, learner(near, seen)).whole == found.whole
    assert len(seen) == 2
    with pytest.raises(ConfigError, match=r"holds a search with other model \(None, not fcos-lite2\)"):
        tune(search(model="fcos-lite2"), tmp_path / "t", str, learner(near))
    with pytest.raises(ConfigError, match=r"other minutes \(3\.0, not 5\)"):
        tune(search(minutes=5), tmp_path / "t", str, learner(near))


@pytest.mark.slow
def test_trials_on_corrected_labels_are_another_search(monkeypatch, undrawn, tmp_path):
    def begin(search):
        hashes = {} if search.trials == 7 else {"sha256": tuning._hashes(search)}
        return {**ABOUT, "asked": tuning._asked(search), **hashes}

    monkeypatch.setattr(tuning, "begin", begin)
    data = make_shapes(tmp_path / "data", {"train": 4, "val": 2, "test": 2})
    asked, seen = search(source=NamedData(data), minutes=3.0, trials=1), []
    tune(asked, tmp_path / "t", str, learner(near))
    relabel(data, "test")  # which no trial looks at
    tune(asked, tmp_path / "t", str, learner(near, seen))
    relabel(data, "val")
    with pytest.raises(ConfigError, match=r"a search of other data: images or labels of val changed; give another"):
        tune(replace(asked, trials=2), tmp_path / "t", str, learner(near, seen))
    assert not seen
    old = replace(asked, trials=7)  # as of 1.0.0, which kept no hash
    for trials in (7, 8):
        tune(replace(old, trials=trials), tmp_path / "old", str, learner(near, seen))
    assert len(seen) == 8


def test_a_trial_that_is_worse_at_the_same_time_is_given_up(made, undrawn, tmp_path, monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    turned = Clock()
    monkeypatch.setattr(tuning, "time", turned)
    ended = []

    def learn(out, settings, minutes, on_epoch):
        good = len(ended) < 6
        for quarter in (1, 2, 3, 4):
            turned.now += 40  # of the 160 until the last step
            on_epoch(quarter, None)
            on_epoch(quarter, metrics(0.1 * quarter if good else 0.05 * quarter))
        ended.append(good)
        return Result(out, 1, 0.4, metrics(0.4 if good else 0.2))

    found = tune(search(trials=8), tmp_path / "t", str, learn)
    assert ended == [True] * 6
    assert [t.state for t in found.tried] == ["whole"] * 6 + ["given up"] * 2
    assert [list(t.looks) for t in found.tried[:7]] == [[1, 2, 3]] * 6 + [[1, 2]]  # the second quarter decides
    assert "2 given up" in found.text()


def test_no_trial_begins_that_could_not_end_in_time(made, undrawn, tmp_path, monkeypatch):
    lefts = iter([600.0, 400.0, 191.0, 189.0])
    monkeypatch.setattr(tuning.Budget, "left", property(lambda self: next(lefts)))
    assert len(tune(search(trials=None, hours=1), tmp_path / "t", str, learner(near)).whole) == 3


def test_a_trial_that_fails_counts_as_bad_and_three_in_a_row_end_it(made, undrawn, tmp_path):
    calls = []

    def learn(out, settings, minutes, on_epoch):
        calls.append(out)
        if len(calls) in (2, 5):  # with a whole one in between
            raise FcosError("step 3: the box loss is not finite")
        if len(calls) == 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        return learner(near)(out, settings, minutes, on_epoch)

    found = tune(search(trials=5), tmp_path / "t", str, learn)
    assert [t.state for t in found.tried] == ["whole", "failed", "failed", "whole", "failed"]
    assert [t.error for t in found.tried[1:3]] == ["step 3: the box loss is not finite", "there was not enough memory"]

    def broken(*_, **__):
        raise FcosError("no such images")

    with pytest.raises(FcosError, match="no such images"):
        tune(search(trials=9), tmp_path / "other", str, broken)

    def bug(*_, **__):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        tune(search(trials=9), tmp_path / "third", str, bug)


KILLED = """
import sys, time
sys.path[:0] = {paths!r}
from pathlib import Path
import test_tuning
from fcos.search import tuning
tuning.begin = lambda search: dict(test_tuning.ABOUT, asked=tuning._asked(search), sha256={{}})
tuning._hashes = lambda search: {{}}
done = []
def learn(out, settings, minutes, on_epoch):
    if len(done) == 2:
        print("in the third", flush=True)
        time.sleep(600)
    done.append(out)
    return test_tuning.learner(test_tuning.near)(out, settings, minutes, on_epoch)
tuning.tune(test_tuning.search(trials=6), Path({out!r}), str, learn)
"""


def test_a_killed_search_loses_nothing_but_time(made, undrawn, tmp_path):
    here = str(Path(__file__).parent)
    script = KILLED.format(paths=[here, str(Path(here).parent)], out=str(tmp_path / "t"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, env=environment)
    assert process.stdout.readline() == b"in the third\n"
    beside = Folder(tmp_path / "t")
    with beside.alone():
        assert beside.bury() == []  # it lives
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with (tmp_path / "t" / "trials.log").open("ab") as file:
        file.write(b'{"op_code": 4, "half a li')
    seen, lines = [], []
    found = tune(search(trials=6), tmp_path / "t", lines.append, learner(near, seen))
    assert [t.state for t in found.tried] == ["whole", "whole", "cut off", *["whole"] * 4]
    assert found.tried[2].values == found.tried[3].values  # done again
    assert len(seen) == 4
    assert "trial 2 was cut off; it is done again" in lines


def test_a_journal_that_the_disk_does_not_take_is_named_and_the_search_goes_on(made, undrawn, tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def learn(out, settings, minutes, on_epoch):
        if len(Folder(tmp_path / "t").tried()) == 3:
            size = (tmp_path / "t" / "trials.log").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, before[1]))
        return learner(near)(out, settings, minutes, on_epoch)

    try:
        with pytest.raises(FcosError, match=r"^cannot write .*trials\.log: File too large; make room, then"):
            tune(search(trials=5), tmp_path / "t", str, learn)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    found = tune(search(trials=5), tmp_path / "t", str, learner(near))
    assert [t.state for t in found.tried] == ["whole", "whole", "cut off", "whole", "whole", "whole"]


def test_two_processes_share_a_folder(made, undrawn, tmp_path):
    """The second is called while the first is in the middle of a trial."""
    inner = []

    def learn(out, settings, minutes, on_epoch):
        if not inner:
            inner.append(settings)
            second = tune(search(trials=4), tmp_path / "t", str, learner(near, inner))
            assert [t.state for t in second.tried] == ["running", "whole", "whole", "whole"]
        return learner(near)(out, settings, minutes, on_epoch)

    found = tune(search(trials=4), tmp_path / "t", str, learn)
    assert [t.state for t in found.tried] == ["whole"] * 4
    assert len({tuple(sorted(t.values.items())) for t in found.tried}) == 4


# ---------------------------------------------------------------- the command


def test_bad_lines(capsys, tmp_path):
    data = make_shapes(tmp_path / "data", {"train": 12, "val": 3})
    out = tmp_path / "t"
    for arguments, said in (
        ([], "give the data set to learn from"),
        ([data], "give the time that it may take"),
        ([tmp_path / "absent", "--hours", "1"], "absent"),
        ([data, "--trials", "2", "train.lrr=1..2"], "did you mean train.lr"),
        ([data, "--trials", "2", "train.lr=0..1"], "train.lr"),
        ([data, "--trials", "2", "train.lr=2..1"], "a range is LOW..HIGH"),
        ([data, "--hours", "0.05", "--minutes", "3"], "no time for two trials"),
        ([data, "--trials", "2", "--split", "train,val"], "nothing to judge by"),
    ):
        code, _, err = fcos(capsys, "tune", *arguments, "--out", out)
        assert (code, err.count("\n")) == (2, 1), err
        assert said in err
        assert not out.exists()


def test_without_optuna_the_error_is_the_install_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtra, match=r"optuna.*pip install"):
        tune(search(), tmp_path / "t", str)


@pytest.mark.slow
def test_real_trials_on_digits(capsys, tmp_path):
    from fcos.demo.digits import digits_dataset

    data = tmp_path / "digits"
    digits_dataset(data, {"train": 40, "val": 16}, size=(64, 64))
    small = ["data.size=64", "data.max_size=96", "data.train_sizes=[64]", "data.workers=0"]
    code, out, err = fcos(capsys, "tune", data, "--trials", "2", "--minutes", "1", "--out", tmp_path / "t", *small)
    assert code == 0, err
    assert "2 whole trials" in out
    command = shlex.split((tmp_path / "t" / "command.txt").read_text())
    assert command[:3] == ["fcos", "train", str(data)]
    code, _, err = fcos(capsys, *command[1:], "train.iterations=3", "--out", tmp_path / "again")
    assert code == 0, err
