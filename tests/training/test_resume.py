"""A run that is killed, stopped or out of disk goes on as if nothing had happened."""

import copy
import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from processes import at, away, fcos, full_disk, half_row, half_save, run, small_files
from tiny import equal_states, learn, make_shapes, tiny_config

from fcos.data.open import open_dataset, open_splits
from fcos.data.runs import learned_from
from fcos.data.write import save_dataset
from fcos.errors import FcosError, ModelError
from fcos.network import weights
from fcos.training.data import NamedData, choose
from fcos.training.output.checkpoint import checkpoints, load_checkpoint, load_optimizer
from fcos.training.program import train

STEPS = 8  # 16 images in batches of 4, 2 epochs
CLOCKS = ("images_per_second", "data_wait")  # columns that differ from run to run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("shapes"), {"train": 16, "val": 3})


@pytest.fixture(scope="module")
def begin(data, tmp_path_factory):
    """Arguments that start a run."""
    settings = tmp_path_factory.mktemp("settings") / "tiny.yaml"
    changes = {"ema": 0.9, "save_every": 3, "epochs": 2, "schedule": "constant", "warmup": 0, "linear_probe": 8}
    settings.write_text(tiny_config(model={"backbone_norm": "batch"}, data={"color": 0.3}, train=changes).dump())
    return ["train", "--data", data, "--config", settings, "--init", "none", "--device", "cpu", "--quiet"]


def go_on(folder):
    return ["train", "--resume", "--out", folder, "--device", "cpu", "--quiet"]


@pytest.fixture(scope="module")
def undisturbed(begin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert run(fcos([*begin, "--out", folder]), folder.with_suffix(".log")) == 0, folder.with_suffix(".log").read_text()
    return folder


def same_end(folder, undisturbed):
    """Bit-equal state, the same weights to ship, the same rows once each, nothing left behind."""
    ours, theirs = load_checkpoint(folder), load_checkpoint(undisturbed)
    assert ours["step"] == theirs["step"] == STEPS
    assert equal_states(ours["model"], theirs["model"])
    assert equal_states(ours["average"], theirs["average"])
    for number, state in theirs["optimizer"]["state"].items():
        assert equal_states(ours["optimizer"]["state"][number], state)
    for name in ("best", "last"):
        ours, theirs = (weights.read(f / f"{name}.safetensors") for f in (folder, undisturbed))
        assert equal_states(ours[0], theirs[0])
        assert ours[3] == theirs[3]
    assert rows(folder) == rows(undisturbed)
    assert len(checkpoints(folder)) == 1
    assert not list(folder.glob(".*"))


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in CLOCKS} for row in csv.DictReader(file)]


MOMENTS = (
    half_save(1),  # in a checkpoint, with none but that of step 0
    at("fcos.training.judging:evaluate", 1),  # at the end of an epoch
    at("fcos.training.loop:Trainer.finish", 1),  # all is trained, the last words are missing
)
MORE_MOMENTS = (
    # a checkpoint is there, its weights to ship are not
    at("fcos.training.output.checkpoint:write_whole", 1, after=True),
    half_row(1),
    half_row(2),
    at("fcos.system.files:os.fsync", 3),  # a file is written, but not in place
    at("fcos.training.optimizer:Average.update", 1),
    half_save(2),
    at("fcos.training.checkpointing:save_checkpoint", 1, after=True),
    at("fcos.training.judging:evaluate", 1, after=True),
    at("fcos.training.loop:Trainer.export", 2),
)


@pytest.mark.parametrize("moments", [MOMENTS, pytest.param(MORE_MOMENTS, marks=pytest.mark.slow)], ids=["few", "more"])
def test_killed_at_any_moment_it_goes_on_to_the_same_bits(begin, undisturbed, tmp_path, moments):
    folder, log = tmp_path / "run", tmp_path / "log"
    for moment in (
        half_save(1),
        at("fcos.training.output.folder:RunFolder.describe", 1),
    ):  # not a run yet: it is simply started again
        assert run(fcos([*begin, "--out", folder], moment), log) == -signal.SIGKILL
        assert not (folder / "config.yaml").exists()
    in_a_step = at("fcos.training.optimizer:Average.update", 2)  # the weights have moved, their average has not
    assert run(fcos([*begin, "--out", folder], in_a_step), log) == -signal.SIGKILL
    reached = [0]
    for moment in moments:
        assert run(fcos(go_on(folder), moment), log) in (-signal.SIGKILL, 0), log.read_text()
        reached.append(load_checkpoint(folder)["step"])
    assert reached == sorted(reached)
    assert moments is MORE_MOMENTS or reached[-1] == STEPS
    assert run(fcos(go_on(folder)), log) == 0
    same_end(folder, undisturbed)
    assert log.read_text() == ""


@pytest.mark.slow
def test_killed_after_an_epoch_that_nothing_judged_it_goes_on_to_the_same_bits(begin, tmp_path):
    """Such an end of an epoch has no checkpoint: the steps are done again from the one before."""
    never, log = ["train.eval_every=0", "train.save_every=500"], tmp_path / "log"
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(fcos([*begin, *never, "--out", whole]), log) == 0, log.read_text()
    moment = at("fcos.training.optimizer:Average.update", STEPS - 2)
    assert run(fcos([*begin, *never, "--out", cut], moment), log) == -signal.SIGKILL
    assert load_checkpoint(cut)["step"] == 0 < STEPS // 2 < STEPS - 2  # the first epoch had ended
    assert run(fcos(go_on(cut)), log) == 0, log.read_text()
    same_end(cut, whole)


@pytest.mark.parametrize(
    ("number", "where", "call", "step"),
    [
        (
            signal.SIGINT,
            "fcos.training.optimizer:Average.update",
            5,
            5,
        ),  # in the middle of a step: it is finished first
        (signal.SIGHUP, "fcos.training.optimizer:Average.update", 3, 3),  # the terminal is closed
        (
            signal.SIGTERM,
            "fcos.training.judging:evaluate",
            1,
            4,
        ),  # in an evaluation: it is left, and done after the resume
    ],
)
def test_a_signal_stops_cleanly(begin, undisturbed, tmp_path, number, where, call, step):
    folder, log = tmp_path / "run", tmp_path / "log"
    workers = ["data.workers=1"]  # they get the signal too
    usual = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
    status = run(fcos([*begin, "--out", folder, *workers], usual, at(where, call, number)), log)
    assert status == 128 + number, log.read_text()
    how = f"go on with: fcos train --resume --out {folder}"
    assert log.read_text() == f"fcos: stopped at step {step} of {STEPS}; {how}\n"
    assert load_checkpoint(folder)["step"] == step
    assert run(fcos(go_on(folder)), log) == 0, log.read_text()
    same_end_but_settings(folder, undisturbed)


def test_under_nohup_a_closed_terminal_is_no_matter(begin, undisturbed, tmp_path):
    folder, log = tmp_path / "run", tmp_path / "log"
    workers = ["data.workers=1"]
    hangup = at("fcos.training.optimizer:Average.update", 3, signal.SIGHUP)
    ignored = partial(signal.signal, signal.SIGHUP, signal.SIG_IGN)
    assert run(fcos([*begin, "--out", folder, *workers], ignored, hangup), log) == 0, log.read_text()
    same_end_but_settings(folder, undisturbed)


def same_end_but_settings(folder, undisturbed):
    assert equal_states(load_checkpoint(folder)["average"], load_checkpoint(undisturbed)["average"])
    assert rows(folder) == rows(undisturbed)


def test_a_finished_run_is_extended(begin, undisturbed, tmp_path):
    folder, log = tmp_path / "run", tmp_path / "log"
    assert run(fcos([*begin, "--out", folder, "--epochs", 1]), log) == 0
    assert load_checkpoint(folder)["step"] == 4
    assert run(fcos([*go_on(folder), "--epochs", 2]), log) == 0, log.read_text()
    same_end(folder, undisturbed)
    assert "epochs: 2\n" in (folder / "config.yaml").read_text()


@pytest.mark.parametrize("version", ["1.0.0", "now"])
def test_images_of_shards_that_a_run_held_out_stay_held_out(version, tmp_path):
    """1.0.0 called them by their place, train/000000.tar/a.jpg."""
    make_shapes(tmp_path / "files", {"train": 10})
    save_dataset(open_splits(tmp_path / "files"), tmp_path / "shards", "webdataset")
    config = tiny_config(train={"schedule": "constant", "warmup": 0})

    def learned(name, epochs, **options):
        return learn(config.override({"train": {"epochs": epochs}}), tmp_path / "shards", tmp_path / name, **options)

    whole, first = learned("whole", 2, holdout=0.2).folder, learned("first", 1, holdout=0.2).folder
    file = first / "environment.json"
    told = json.loads(file.read_text())
    names = told["sources"]["held_out"]
    assert len(names) == 2
    if version == "1.0.0":
        told["sources"]["held_out"] = [f"train/000000.tar/{name}" for name in names]
        file.write_text(json.dumps(told))
    train(out=first, resume=True, settings=["train.epochs=2"], device="cpu", quiet=True)
    ours, theirs = (load_checkpoint(folder) for folder in (first, whole))
    assert equal_states(ours["model"], theirs["model"])
    data = open_dataset(tmp_path / "shards", "train")
    assert learned_from(first, data) == 8
    kept = choose(NamedData(data, data[:3]), config, json.loads(file.read_text())["sources"]["held_out"], resumed=True)
    assert {r.file_name for r in data.records} - {r.file_name for r in kept.data["train"].records} == set(names)


def test_a_full_disk_is_one_line(begin, undisturbed, tmp_path):
    folder, log, disk = tmp_path / "disk" / "run", tmp_path / "log", tmp_path / "disk"
    disk.mkdir()
    size = load_checkpoint_size(undisturbed)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={6 * size}", "tmpfs", disk]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        assert run(fcos([*begin, "--out", folder], full_disk(3, disk / "filler")), log) == 2
        reason = "No space left on device; what was there before is untouched"
        how = f"go on with: fcos train --resume --out {folder}"
        assert log.read_text() == f"fcos: cannot write {folder / 'checkpoint-00000004.pt'}: {reason}; {how}\n"
        assert load_checkpoint(folder)["step"] == 3
        (disk / "filler").unlink()
        assert run(fcos(go_on(folder)), log) == 0, log.read_text()
        same_end(folder, undisturbed)
    finally:
        subprocess.run(["umount", disk], check=True)


def load_checkpoint_size(folder):
    return checkpoints(folder)[-1].stat().st_size


def test_images_that_go_away_end_a_run_that_keeps_its_steps(begin, undisturbed, data, tmp_path):
    images, folder, log = tmp_path / "data" / "images", tmp_path / "run", tmp_path / "log"
    shutil.copytree(data, images.parent)
    begin = [images.parent if word == data else word for word in begin]
    gone = away("fcos.training.optimizer:Average.update", 5, images)
    assert run(fcos([*begin, "--out", folder], gone), log) == 2
    last = log.read_text().splitlines()[-1]
    assert last.startswith("fcos: 16 images in a row cannot be read, the last: cannot read ")
    assert "no such file or directory; once they can be read, go on with: fcos train" in last
    assert last.endswith(f" --resume --out {folder}")
    assert load_checkpoint(folder)["step"] == 5  # and save_every is 3
    Path(f"{images}.away").rename(images)
    assert run(fcos(go_on(folder)), log) == 0, log.read_text()
    same_end_but_settings(folder, undisturbed)


def test_a_refused_write_is_one_line(begin, tmp_path):
    folder, log = tmp_path / "run", tmp_path / "log"
    assert run(fcos([*begin, "--out", folder], small_files(2, 100_000)), log) == 2
    path = folder / "checkpoint-00000003.pt"
    reason = "File too large; what was there before is untouched"
    how = f"go on with: fcos train --resume --out {folder}"
    assert log.read_text() == f"fcos: cannot write {path}: {reason}; {how}\n"
    assert load_checkpoint(folder)["step"] == 0
    assert not list(folder.glob(".*"))


def test_what_cannot_change_in_a_resume_is_said(undisturbed, tmp_path, capfd):
    from fcos.cli import main

    before = sorted((p.name, p.stat().st_mtime_ns) for p in undisturbed.iterdir())
    for change, message in (
        ("model.head_convs=2", "model.head_convs cannot change in a resume"),
        ("train.batch=8", "train.accumulate takes less memory for the same batch"),
        ("train.optimizer=sgd", "train.optimizer cannot change in a resume"),
        ("train.bias_lr=2", "cannot change in a resume (such as train.freeze_stages or train.bias_lr)"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in [*go_on(undisturbed), change]])
        assert stopped.value.code == 2
        assert message in capfd.readouterr().err
    assert before == sorted((p.name, p.stat().st_mtime_ns) for p in undisturbed.iterdir())


@pytest.mark.slow
def test_a_program_killed_at_random_moments(begin, undisturbed, tmp_path):
    """`python -m fcos train` with loader processes, killed by the clock and by the signals of a terminal."""
    folder = tmp_path / "run"
    generator = torch.Generator().manual_seed(int(time.time()))
    program = [sys.executable, "-m", "fcos"]
    rounds = 0
    while rounds < 6 or not done(folder):
        started = (folder / "config.yaml").exists()
        arguments = go_on(folder) if started else [*begin, "--out", folder]
        process = subprocess.Popen(
            [str(a) for a in [*program, *arguments, "data.workers=1"]], start_new_session=True, stderr=subprocess.PIPE
        )
        rounds += 1
        number = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)[rounds % 3]
        if rounds < 6:
            while process.poll() is None and not (folder / "metrics.csv").exists():
                time.sleep(0.05)
            time.sleep(float(torch.rand(1, generator=generator)) * 4)
            os.killpg(process.pid, number)
        error = process.communicate(timeout=600)[1].decode()
        assert process.returncode in (0, -number, 128 + number), error
        assert "Traceback" not in error or (number == signal.SIGINT and "stopped at" not in error), error
    same_end_but_settings(folder, undisturbed)


def done(folder):
    return bool(checkpoints(folder)) and load_checkpoint(folder)["step"] == STEPS


@pytest.mark.parametrize(
    ("kind", "names"), [("sgd", ["momentum_buffer"]), ("adamw", ["exp_avg", "exp_avg_sq", "step"])]
)
def test_damaged_momenta_are_one_line(kind, names):
    """torch takes them, and fails at the first step."""
    layer = torch.nn.Linear(3, 2)

    def optimizer():
        if kind == "sgd":
            return torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
        return torch.optim.AdamW(layer.parameters(), lr=0.1)

    first = optimizer()
    layer(torch.ones(1, 3)).sum().backward()
    first.step()
    load_optimizer(optimizer(), first.state_dict())
    for name in names:
        for value in (torch.zeros(7), "x", [], 1, None):
            state = copy.deepcopy(first.state_dict())
            state["state"][0][name] = value
            if (name == "momentum_buffer" and value is None) or (name == "step" and isinstance(value, int)):
                load_optimizer(optimizer(), state)  # as before the first step, and as older versions of torch write it
                continue
            with pytest.raises(FcosError):
                load_optimizer(optimizer(), state)
    if kind == "adamw":
        del state["state"][1]["exp_avg"]
        state["state"][0]["step"] = torch.tensor(1.0)
        with pytest.raises(ModelError, match="no exp_avg"):
            load_optimizer(optimizer(), state)
        for steps in (-5.5, float("nan"), float("inf")):
            state = copy.deepcopy(first.state_dict())
            state["state"][0]["step"] = steps
            with pytest.raises(ModelError, match="a weight has taken"):
                load_optimizer(optimizer(), state)


def test_rates_and_decay_are_those_of_the_settings_and_momenta_those_of_the_checkpoint():
    layer = torch.nn.Linear(3, 2)
    first, second = (torch.optim.SGD(layer.parameters(), lr, 0.9, weight_decay=lr / 10) for lr in (0.1, 0.01))
    layer(torch.ones(1, 3)).sum().backward()
    first.step()
    load_optimizer(second, first.state_dict())
    assert [(group["lr"], group["weight_decay"]) for group in second.param_groups] == [(0.01, 0.001)]
    kept, went_on = (one.state[layer.weight]["momentum_buffer"] for one in (first, second))
    assert torch.equal(kept, went_on)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize(("saved", "now"), [(0, 1), (1, 0)])
def test_momenta_of_another_memory_layout_are_those_of_their_weights(kind, saved, now):
    """A fused step equals the plain one, which goes by the place of a value and not by its address."""
    layouts = (torch.contiguous_format, torch.channels_last)
    random = torch.Generator().manual_seed(0)
    first, *gradients = (torch.randn(4, 3, 3, 3, generator=random) for _ in range(3))

    def after_a_step(weight, gradient, state=None, **options):
        options |= {"momentum": 0.9} if kind is torch.optim.SGD else {}
        optimizer = kind([weight], lr=0.1, **options)
        if state is not None:
            load_optimizer(optimizer, copy.deepcopy(state))
        weight.grad = torch.empty_like(weight).copy_(gradient)
        optimizer.step()
        return optimizer.state_dict()

    before = torch.nn.Parameter(first.clone(memory_format=layouts[saved]))
    state = after_a_step(before, gradients[0])
    ends = []
    for fused in (False, True):
        weight = torch.nn.Parameter(before.detach().clone(memory_format=layouts[now]))
        after_a_step(weight, gradients[1], state, fused=fused)
        ends.append(weight.detach())
    torch.testing.assert_close(*ends)


def test_a_checkpoint_that_lacks_a_value_is_one_line(tmp_path):
    """Each of them, those that may be None too."""
    whole = {
        "step": 1, "config": {"model": {}, "train": {}}, "classes": {"names": ["a"]}, "model": {}, "average": None,
        "optimizer": {}, "best": 0.0, "stale": 0, "judged_at": 0, "start_due": False, "AP": None, "shown": None,
        "normalizer": None, "trainer": "Trainer", "data": "", "val": None, "seconds": 1.0, "total": 2,
        "plain_from": None, "deadline": None,
    }  # fmt: skip
    file = tmp_path / "checkpoint-00000001.pt"
    torch.save(whole, file)
    assert load_checkpoint(tmp_path)["step"] == 1
    for key in whole:
        torch.save({k: v for k, v in whole.items() if k != key}, file)
        if key == "start_due":  # a checkpoint of version 1.0.0
            assert load_checkpoint(tmp_path)["start_due"] is False
            torch.save({**torch.load(file, weights_only=True), "judged_at": -1}, file)  # the start was still due
            assert [load_checkpoint(tmp_path)[k] for k in ("start_due", "judged_at")] == [True, 0]
            continue
        with pytest.raises(ModelError, match=key):
            load_checkpoint(tmp_path)
    for key, value in (
        ("step", -1),
        ("stale", -3),
        ("total", 2**63),
        ("total", "7"),
        ("plain_from", "7"),
        ("seconds", math.nan),
    ):
        torch.save({**whole, key: value}, file)
        with pytest.raises(ModelError, match=f"steps or its time cannot be read|{key} is missing or of another"):
            load_checkpoint(tmp_path)
