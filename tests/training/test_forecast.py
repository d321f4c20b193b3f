"""`fcos forecast`: which runs it does, what it says and draws, and, slowly, the whole of it."""

import errno
import json

import pytest
from tiny import fcos, make_shapes, tiny_config

from fcos.data.open import open_splits
from fcos.errors import ConfigError, DataError, FcosError
from fcos.system.files import sources_kept
from fcos.training.forecast import RUNS, Scored, forecast, measured, unfinished
from fcos.training.output.folder import alone


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return open_splits(make_shapes(tmp_path_factory.mktemp("shapes"), {"train": 40, "val": 8}))


def test_the_runs_take_the_time_in_all_and_a_part_holds_the_smaller_ones(shapes, tmp_path):
    asked = []

    def learn(name, part, minutes):
        asked.append((name, {r.file_name for r in part.records}, minutes))
        return Scored(0.6 - 0.2 * (len(part) / 40) ** -0.5 * minutes**-0.3, 0.02)

    found = measured(shapes, learn, 2 * RUNS, (15.0, 40))
    assert sum(minutes for *_, minutes in asked) == pytest.approx(2 * RUNS)
    assert [len(files) for _, files, _ in asked] == [40, 40, 40, 12, 22]
    assert asked[3][1] < asked[4][1] < asked[0][1]
    assert len({name for name, *_ in asked}) == 5
    truth = 0.2 * 2**-0.3 * (1 - 2**-0.5)
    assert found.more_images.low <= truth <= found.more_images.high
    assert found.more_time.low <= 0.2 * (2**-0.3 - 17**-0.3) <= found.more_time.high
    first, second = found.text().splitlines()
    assert first.startswith("after 2 minutes on 40 images: AP 0.43")
    assert second.startswith("15 more minutes: +")
    assert "; 40 more images: +" in second
    assert found.write(tmp_path).stat().st_size > 5000
    assert json.loads((tmp_path / "forecast.json").read_text())["more_images"]["images"] == 40


def test_without_images_to_judge_by_or_with_too_few_it_says_so(shapes):
    with pytest.raises(DataError, match="needs images to judge by"):
        measured({"train": shapes["train"]}, lambda *_: 0.5, 10, (15, 200))
    few = {"train": shapes["train"].subset(range(20)), "val": shapes["val"]}
    with pytest.raises(DataError, match="20 images are too few"):
        measured(few, lambda *_: 0.5, 10, (15, 200))


@pytest.mark.parametrize(("images", "settings"), [(20, {}), (40, {"train.epochs": 3})])
def test_a_forecast_that_is_refused_leaves_nothing_behind(shapes, tmp_path, images, settings):
    data = {"train": shapes["train"].subset(range(images)), "val": shapes["val"]}
    with pytest.raises((DataError, ConfigError)):
        forecast(data, tmp_path / "out", 10.0, (15, 200), settings=settings)
    assert not (tmp_path / "out").exists()


class Runs:
    """In place of `fcos.train`: the files that a run leaves. The run named in `killed` ends after its checkpoint."""

    def __init__(self, killed=""):
        self.killed, self.begun, self.models = killed, [], []

    def __call__(self, data, *, out, resume=False, model=None, **_):
        self.begun.append((out.name, resume))
        out.mkdir(exist_ok=True)
        if not resume:
            self.models.append(model)
            (out / "config.yaml").write_text(f"name: {model or 'fcos-lite1'}\n")
        (out / "checkpoint-00000003.pt").write_bytes(b"")
        if out.name == self.killed:
            raise KeyboardInterrupt
        ap = 0.1 + 0.01 * len(data["train"])
        (out / "metrics.json").write_text(json.dumps({"AP": ap}))
        (out / "result.json").write_text(json.dumps({"AP": {"value": ap, "low": ap - 0.02, "high": ap + 0.02}}))


@pytest.mark.parametrize("killed", ["time-0.3", "images-22", "images-40"])
def test_the_same_again_goes_on_where_it_stopped_and_does_nothing_twice(shapes, tmp_path, monkeypatch, killed):
    def ask(runs, out=tmp_path / "out", minutes=10.0, **options):
        monkeypatch.setattr("fcos.training.forecast.train", runs)
        with sources_kept():  # as in a command
            return forecast(shapes, out, minutes, (15.0, 200), **{"model": None, "settings": [], **options})

    fresh, first, second, third = Runs(), Runs(killed), Runs(), Runs()
    whole = ask(fresh, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        ask(first)
    assert ask(second).to_dict() == whole.to_dict()
    assert whole.text().startswith("after 2.6 minutes of fcos-lite1 on 40 images")
    assert fresh.models == [None] + ["fcos-lite1"] * 4  # the first takes what it likes, the others the same
    assert first.models + second.models == fresh.models
    assert second.begun[0] == (killed, True)
    assert [name for name, _ in first.begun[:-1] + second.begun] == [name for name, _ in fresh.begun]
    assert ask(third).to_dict() == whole.to_dict()
    assert not third.begun
    file = tmp_path / "out" / "asked.json"
    asked = json.loads(file.read_text())
    kept = {key: asked[key] for key in ("minutes", "model", "settings")}
    file.write_text(json.dumps({**kept, "data": asked["sha256"]}))  # as 1.0.0 wrote it
    assert ask(third).to_dict() == whole.to_dict()
    assert not third.begun
    file.write_text(json.dumps({**kept, "data": {"train": "other"}}))
    with pytest.raises(ConfigError, match="of other data"):
        ask(third)
    file.write_text(json.dumps(asked))
    with pytest.raises(ConfigError, match=r"^minutes=2: its runs share them.* give 6\.5 or more$"):
        ask(Runs(), tmp_path / "short", minutes=2.0)
    with pytest.raises(ConfigError, match=r"holds a forecast with other minutes \(10.0, not 20.0\)"):
        ask(Runs(), minutes=20.0)
    with pytest.raises(ConfigError, match="other settings"):
        ask(Runs(), settings=["data.size=64"])
    for changed in ({"init": "none"}, {"dialect": "original"}, {"model": tiny_config()}):
        with pytest.raises(ConfigError, match=f"with other {next(iter(changed))}"):
            ask(Runs(), **changed)
    monkeypatch.setattr("fcos.training.forecast.train", Runs())
    corrected = {**shapes, "val": shapes["val"].subset(range(7))}
    with pytest.raises(ConfigError, match="of other data: images or labels of val changed"):
        forecast(corrected, tmp_path / "out", 10.0, (15.0, 200), model=None, settings=[])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        ask(Runs(), tmp_path / "mine")


def test_settings_of_python_count_with_their_values(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr("fcos.training.forecast.train", Runs("images-40"))
    (tmp_path / "a.yaml").write_text("train: {lr: 0.001}")
    (tmp_path / "b.yaml").write_text("train: {lr: 0.002}")
    asked = [
        {"settings": {"data.train_sizes": (64, 96)}},
        {"settings": {"data.train_sizes": (64,)}},
        {"config": tmp_path / "a.yaml"},
        {"config": tmp_path / "b.yaml"},
        {"init": tmp_path},
        {},
    ]
    for number, options in enumerate(asked):
        out = tmp_path / f"out{number}"
        with pytest.raises(KeyboardInterrupt):
            forecast(shapes, out, 10.0, (15.0, 200), **options)
        assert [unfinished(shapes, out, 10.0, other) for other in asked] == [k == number for k in range(len(asked))]


def test_two_at_once_in_one_folder_are_refused(shapes, tmp_path):
    with alone(tmp_path, "forecast"), pytest.raises(FcosError, match="another forecast is writing into"):
        forecast(shapes, tmp_path, 10.0, (15.0, 200))


def test_bad_lines(capsys, tmp_path):
    assert fcos(capsys, "forecast")[0] == 2
    code, _, err = fcos(capsys, "forecast", tmp_path / "absent")
    assert (code, err.count("\n")) == (2, 1)
    assert "absent" in err


@pytest.mark.slow
def test_the_whole_of_it(capsys, tmp_path):
    data = make_shapes(tmp_path / "data", {"train": 40, "val": 8})
    small = ["data.size=64", "data.max_size=96", "data.train_sizes=[64]", "train.plots=false", "data.workers=0"]
    code, out, err = fcos(capsys, "forecast", data, "--minutes", "6.6", "--out", tmp_path / "f", *small)
    assert code == 0, err
    assert "more minutes: +" in out
    assert (tmp_path / "f" / "forecast.png").is_file()


def test_a_disk_without_locks_is_used_without(tmp_path, monkeypatch):
    def refused(_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcos.system.locks.FileLock.acquire", refused)
    with alone(tmp_path / "runs", "forecast"):
        assert (tmp_path / "runs").is_dir()
