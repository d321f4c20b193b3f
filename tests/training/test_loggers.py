"""Logs beside metrics.csv: each tool really writes, in the run folder, and a resumed run goes on in the same log."""

import csv
import re
import sqlite3
import time

import pytest
from tiny import tiny_config

from fcos.config import Config
from fcos.errors import ConfigError, MissingExtra
from fcos.training.output.folder import RunFolder
from fcos.training.output.loggers import scalars

ROWS = [
    {"step": 1, "epoch": 0.5, "loss": 3.0, "positives_by_level": "7 0", "lr": 0.1},
    {"step": 2, "epoch": 1.0, "loss": 2.0, "positives_by_level": "5 1", "lr": 0.1},
    {"step": 2, "epoch": 1.0, "AP": 0.25, "AP50": float("nan")},
    {"step": 3, "epoch": 1.5, "loss": 1.0, "positives_by_level": "4 2", "lr": 0.1},
]


def test_names_in_a_log():
    assert scalars(ROWS[0]) == {
        "train/loss": 3, "train/positives_level_0": 7, "train/positives_level_1": 0, "train/lr": 0.1
    }  # fmt: skip
    assert scalars(ROWS[2]) == {"val/AP": 0.25}
    assert scalars({"step": 4, "val_loss": "0.5", "AP": "", "loss": None}) == {"val/val_loss": 0.5}


def logged(folder, name, rows, resume_at=None):
    """A run folder after these rows, or after a resume at a step that goes on with them."""
    run = RunFolder(folder)
    if resume_at is None:
        run.start({"command": "test"})
    else:
        run.rewind(resume_at)
    run.describe(tiny_config(train={"logger": name}))
    for row in rows:
        run.record(row)
    run.close()


@pytest.fixture(
    params=["tensorboard", "trackio", *(pytest.param(name, marks=pytest.mark.slow) for name in ("mlflow", "wandb"))]
)
def both_parts(request, tmp_path, monkeypatch):
    """The logger's name and the folder of a run that was killed after step 3, with its last checkpoint at 2."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "run" / "trackio"))  # read when trackio is first imported
    pytest.importorskip(request.param)
    if request.param == "mlflow":
        pytest.importorskip("sqlalchemy")
    for name in ("WANDB_MODE", "MLFLOW_TRACKING_URI", "TRACKIO_SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    logged(tmp_path / "run", request.param, ROWS)
    logged(tmp_path / "run", request.param, [ROWS[3], {"step": 4, "epoch": 2, "loss": 0.5}], resume_at=2)
    assert {p.name for p in tmp_path.iterdir()} == {"run"}  # nothing elsewhere
    return request.param, tmp_path / "run"


def test_a_log_is_written_and_a_resume_goes_on_in_it(both_parts):
    name, folder = both_parts
    with (folder / "metrics.csv").open() as file:
        assert [r["step"] for r in csv.DictReader(file)] == ["1", "2", "2", "3", "4"]
    losses, aps = globals()[name](folder)
    assert losses == [(1, 3.0), (2, 2.0), (3, 1.0), (4, 0.5)]
    assert aps == [(2, 0.25)]


def tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    assert "config.yaml/text_summary" in events.Tags()["tensors"]
    return tuple([(e.step, e.value) for e in events.Scalars(tag)] for tag in ("train/loss", "val/AP"))


def mlflow(folder):
    with sqlite3.connect(folder / "mlflow.db") as database:
        assert database.execute("select count(*), max(status) from runs").fetchone() == (1, "FINISHED")
        setting = "select value from params where key = 'train.lr'"
        assert database.execute(setting).fetchone() == ("0.003",)
        query = "select step, value from metrics where key = ? order by step"
        return tuple(database.execute(query, (key,)).fetchall() for key in ("train/loss", "val/AP"))


def trackio(folder):
    import json

    import trackio

    assert folder / "trackio" == trackio.utils.TRACKIO_DIR
    (file,) = (folder / "trackio").glob("*.db")
    with sqlite3.connect(file) as database:
        assert database.execute("select count(distinct run_name) from metrics").fetchone() == (1,)
        rows = [(s, json.loads(m)) for s, m in database.execute("select step, metrics from metrics order by step")]
    return tuple([(s, m[key]) for s, m in rows if key in m] for key in ("train/loss", "val/AP"))


def wandb(folder):
    """The transaction logs of the two parts, which `wandb sync` puts together by their common id. Each is protocol
    buffers: a key is followed by its value as JSON, with the field's number and the length between them."""
    found, files = {"train/loss": [], "val/AP": []}, []
    for _ in range(50):  # its own process writes them, a little later
        files = sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))
        if all(b"train/loss" in file.read_bytes() for file in files):
            break
        time.sleep(0.2)
    assert len(files) == 2
    assert len({file.name for file in files}) == 1
    for key, values in found.items():
        for file in files:
            numbers = re.findall(key.encode() + rb"\x82\x01.([0-9.]+)", file.read_bytes(), re.DOTALL)
            values += list(dict.fromkeys(map(float, numbers)))  # the history, and once more as a summary
    return [(i + 1, v) for i, v in enumerate(found["train/loss"])], [(2, v) for v in found["val/AP"]]


def test_settings_name_one_or_several():
    base = Config()
    assert base.train.logger == ()
    assert base.override("train.logger=tensorboard").train.logger == ("tensorboard",)
    assert base.override("train.logger=tensorboard,mlflow").train.logger == ("tensorboard", "mlflow")
    with pytest.raises(ConfigError, match=r"train\.logger"):
        base.override("train.logger=tensorbord")


def test_a_missing_tool_is_one_line_and_leaves_no_run_behind(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)  # as if not installed
    run = RunFolder(tmp_path / "run")
    run.start({})
    with pytest.raises(MissingExtra, match=r"pip install .*\[wandb\]"):
        run.describe(tiny_config(train={"logger": "wandb"}))
    assert not (run.path / "config.yaml").exists()


def test_other_processes_log_nothing(tmp_path):
    run = RunFolder(tmp_path / "run", write=False)
    run.start({})
    run.describe(tiny_config(train={"logger": "tensorboard"}))
    run.record(ROWS[0])
    run.close()
    assert not (tmp_path / "run").exists()
