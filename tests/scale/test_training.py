"""`fcos train --engine ray`: the run of one process by workers of Ray, one of which is killed; and Ctrl-C."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import free_port
from tiny import equal_states, make_shapes, tiny_config

from fcos.cli import main
from fcos.errors import FcosError, MissingExtra
from fcos.network import weights
from fcos.training.output.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def begin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_shapes(folder / "shapes", {"train": 16, "val": 2})
    settings = folder / "tiny.yaml"
    settings.write_text(tiny_config(train={"optimizer": "sgd", "lr": 0.01, "ema": 0.9, "epochs": 2}).dump())
    return ["train", "--data", folder / "shapes", "--config", settings, "--init", "none", "--device", "cpu", "--quiet"]


def program(*words: object, folder: Path) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "fcos", *map(str, words)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder)


def rows(folder: Path) -> list[dict[str, str]]:
    if not (folder / "metrics.csv").is_file():
        return []
    with (folder / "metrics.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["loss"]]


def workers() -> set[int]:
    """Process ids of Ray's workers that train."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"ray::" in (line := (folder / "cmdline").read_bytes()) and b"TrainWorker" in line:
                found.add(int(folder.name))
        except OSError:
            continue
    return found


def at_step(process: subprocess.Popen, folder: Path, step: int) -> None:
    limit = time.monotonic() + 600
    while len(rows(folder)) < step:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.02)


def ended(process: subprocess.Popen) -> tuple[int, str]:
    told = process.communicate(timeout=600)[1]
    return process.returncode, told


def test_what_cannot_go_well_is_said_before_ray_starts(begin, tmp_path, capsys, monkeypatch):
    def said(*words: object) -> str:
        with pytest.raises(SystemExit) as end:
            main([*map(str, begin), *map(str, words)])
        assert end.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    out = ["--engine", "ray", "--out", tmp_path / "run"]
    assert "there is no engine 'rey'; choose from local, ray" in said("--engine", "rey")
    assert "--address is for --engine ray" in said("--address", "auto")
    assert "so it needs one: --out FOLDER" in said("--engine", "ray")
    assert "minutes are planned for one process" in said(*out, "--minutes", "3")
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert "OMP_NUM_THREADS=many: give the cores of each worker" in said(*out)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    assert "holds a run already; give another --out, or go on with it: --resume" in said(*out)


def test_without_ray_there_is_the_install_line(begin, tmp_path, monkeypatch):
    from fcos.scale.training import train_on_ray

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"this needs ray, which is not installed: pip install .*\[ray\]"):
        train_on_ray("nowhere", out=tmp_path / "run")


def test_a_ray_that_is_not_there_is_said_at_once(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray[data]'")
    from fcos.scale.cluster import connected
    from fcos.scale.engine import Engine

    address = f"127.0.0.1:{free_port()}"
    with (
        pytest.raises(FcosError, match=f"--address {address}: no Ray can be reached there"),
        connected(Engine("ray", address)),
    ):
        pass


def test_what_ray_says_of_an_error_is_cut_to_a_sentence():
    from fcos.scale.cluster import reason

    assert (
        reason(RuntimeError("a page\nThe actor is dead. Some common causes include: (1) none")) == "The actor is dead"
    )
    assert reason(RuntimeError("line 3\nKeyError: 'x'\n")) == "KeyError: 'x'"
    assert reason(RuntimeError()) == "RuntimeError"


@pytest.mark.slow
def test_a_lost_worker_is_replaced_and_the_run_goes_on(begin, tmp_path):
    """One of two workers is killed in the middle; nobody does anything, and the end is, to the last bit, that of two
    processes without Ray that lived."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray[data]'")
    long = [*(word for word in begin if word != "--quiet"), "train.epochs=60", "train.save_every=10", "--devices", 2]
    before = workers()
    process = program(*long, "--out", "ray", "--engine", "ray", folder=tmp_path)
    at_step(process, tmp_path / "ray", 30)
    mine = sorted(workers() - before)
    assert len(mine) == 2, mine
    os.kill(mine[1], signal.SIGKILL)
    code, told = ended(process)
    assert code == 0, told
    assert "fcos: a worker was lost; all go on from the newest checkpoint in ray\n" in told
    assert ended(program(*long, "--out", "plain", folder=tmp_path))[0] == 0
    for folder in ("ray", "plain"):
        assert [row["step"] for row in rows(tmp_path / folder)] == [str(step) for step in range(1, 241)]
    about = json.loads((tmp_path / "ray" / "environment.json").read_text())
    assert about["command"] == " ".join(["fcos", *map(str, long), "--out", "ray", "--engine", "ray"])
    ours, theirs = (weights.read(tmp_path / folder / "last.safetensors")[0] for folder in ("ray", "plain"))
    assert equal_states(ours, theirs)


@pytest.mark.slow
def test_ctrl_c_and_a_mistake_end_it_and_it_can_be_resumed(begin, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray[data]'")
    ray = ["--out", "run", "--engine", "ray", "--devices", 2]
    assert ended(program(*begin, *ray, "train.batch=5", folder=tmp_path)) == (
        2,
        "fcos: train.batch=5 cannot be split over 2 processes x train.accumulate=1; make it a multiple of 2\n",
    )
    process = program(*begin, *ray, "train.epochs=500", folder=tmp_path)
    at_step(process, tmp_path / "run", 10)
    process.send_signal(signal.SIGINT)
    code, told = ended(process)
    step = load_checkpoint(tmp_path / "run")["step"]
    assert code == 130
    assert told == f"fcos: stopped at step {step} of 2000; go on with: fcos train --resume --out run\n"
    assert len(rows(tmp_path / "run")) == step
    more = program(
        "train", "--resume", "--quiet", "--device", "cpu", *ray, f"train.iterations={step + 4}", folder=tmp_path
    )
    assert ended(more) == (0, "")
    assert len(rows(tmp_path / "run")) == step + 4
