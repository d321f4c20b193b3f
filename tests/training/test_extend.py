"""A finished run goes on: to more epochs, or for more minutes."""

import shutil
import time

import pytest
from tiny import fcos as command
from tiny import make_shapes, tiny_config

import fcos
from fcos.errors import ConfigError, FcosError
from fcos.training.clock import Budget
from fcos.training.extend import lengthened
from fcos.training.given_settings import given_settings
from fcos.training.output.checkpoint import checkpoints, load_checkpoint

STEPS = {"train.iterations": 4, "train.batch": 8, "train.val_loss": False}


def stored(**more):
    """A checkpoint after 100 steps in 50 seconds, of a run that planned them."""
    config = tiny_config(train={"iterations": 100, "epochs": 7}).model_dump(mode="json")
    return {"config": config, "file": "c.pt", "step": 100, "seconds": 50.0, "deadline": None, **more}


def goes_on(changes=(), budget=None, **more):
    return lengthened(stored(**more), list(changes), given_settings(list(changes), None), budget)


def test_epochs_take_the_place_of_planned_steps_unless_both_are_named():
    train = goes_on(["train.epochs=50"]).config.train
    assert (train.epochs, train.iterations) == (50, 0)
    train = goes_on(["train.epochs=50", "train.iterations=300"]).config.train
    assert (train.epochs, train.iterations) == (50, 300)
    train = goes_on(["train.lr=0.1"]).config.train
    assert (train.epochs, train.iterations, train.lr) == (7, 100, 0.1)


def test_a_batch_that_is_left_open_is_that_of_the_run():
    """As in the command that began it, with --resume behind."""
    longer = goes_on(["train.batch=auto"])
    assert longer.config == goes_on().config
    assert longer.config.train.batch == tiny_config().train.batch


def test_minutes_more_at_the_pace_of_the_run():
    """A step took half a second. Of two minutes 20 seconds are kept for the end, where the run says so: 200 steps."""
    now = time.monotonic()
    longer = goes_on(budget=Budget(2, now), deadline={"seconds": 60, "tail": 20, "used": 55})
    assert 295 <= longer.config.train.iterations <= 300
    assert (longer.deadline.seconds, longer.deadline.tail, longer.deadline.used) == (120, 20, 0)
    assert longer.deadline.start == now
    assert longer.lines[0].startswith("goes on   for 2 minutes: about ")
    half = goes_on(budget=Budget(2, now - 50), deadline={"seconds": 60, "tail": 20, "used": 55})  # 50 s are gone
    assert 195 <= half.config.train.iterations <= 200


def test_half_of_what_was_not_steps_is_taken_to_come_again():
    """Steps of 8 images at 32 a second are a quarter of a second; all in all one took half. So 100 s are 266 steps."""
    budget, rows = Budget(2, time.monotonic()), [{"images_per_second": "32"}, {"images_per_second": ""}, {}]
    config = tiny_config(train={"iterations": 100, "batch": 8}).model_dump(mode="json")
    told = stored(deadline={"seconds": 60, "tail": 20, "used": 55}, config=config)
    assert 361 <= lengthened(told, [], {}, budget, rows).config.train.iterations <= 366


def test_what_cannot_go_on_by_minutes_says_why():
    with pytest.raises(ConfigError, match="no step of this run is saved"):
        goes_on(budget=Budget(2, time.monotonic()), step=0)
    with pytest.raises(ConfigError, match=r"too short for a step of this run; give 1\.[0-9] or more"):
        goes_on(budget=Budget(1, time.monotonic() - 40), deadline={"seconds": 60, "tail": 20, "used": 55})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("longer")
    make_shapes(folder / "shapes", {"train": 16, "val": 3})
    result = fcos.train(
        folder / "shapes",
        model=tiny_config(),
        settings=STEPS,
        out=folder / "run",
        init="none",
        device="cpu",
        quiet=True,
    )
    assert result.steps == 4
    return folder / "run"


def test_by_the_command(run, capsys):
    with pytest.raises(FcosError, match=r"train\.epochs and minutes"):
        fcos.train(out=run, resume=True, minutes=1, settings={"train.epochs": 3})
    code, _, err = command(capsys, "train", "--resume", "--out", run, "--epochs", "3", "--device", "cpu")
    assert code == 0, err
    assert load_checkpoint(run)["step"] == 6  # two steps an epoch
    assert ", 6 steps" in err
    began = time.monotonic()
    gone = Budget(0.5, began - 25)  # 25 of the 30 seconds were spent before
    result = fcos.train(out=run, resume=True, minutes=gone, device="cpu", quiet=True)
    took = time.monotonic() - began
    assert result.steps > 6
    assert took <= 6
    kept = load_checkpoint(run)
    assert kept["deadline"]["seconds"] == 30
    again = fcos.train(out=run, resume=True, device="cpu", quiet=True)  # nothing is left to do, and nothing is done
    assert again.steps == result.steps
    assert len(checkpoints(run)) == 1

    class Killed(Exception):
        pass

    def kill(step, report):
        raise Killed

    with pytest.raises(Killed):  # before a checkpoint of its own
        fcos.train(out=run, resume=True, settings={"train.epochs": 90_000}, device="cpu", quiet=True, on_step=kill)
    kept = load_checkpoint(run)["config"]["train"]
    assert (kept["epochs"], kept["iterations"]) == (90_000, 0)  # so a plain --resume goes on to there


def test_fewer_steps_than_are_done_are_refused_and_nothing_changes(run, capsys):
    def content():
        return {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}

    done, before = load_checkpoint(run)["step"], content()
    code, _, err = command(capsys, "train", "--resume", "--out", run, "--epochs", "1", "--device", "cpu")
    assert code == 2
    assert err.endswith(f"the run in {run} has {done} steps already, and 1 epoch is 2; ask for more\n")
    with pytest.raises(ConfigError, match="steps already, and 1 were asked for"):
        fcos.train(out=run, resume=True, settings={"train.iterations": 1}, device="cpu", quiet=True)
    assert content() == before


@pytest.fixture(scope="module")
def stopped(run, tmp_path_factory):
    """A run that was planned for 6 steps and stopped after 2, with the command that equals it."""

    class Killed(Exception):
        pass

    def kill(step, report):
        if step == 3:
            raise Killed

    out = tmp_path_factory.mktemp("stopped") / "run"
    settings = {**STEPS, "train.iterations": 6, "train.save_every": 2}
    with pytest.raises(Killed):
        fcos.train(
            run.parent / "shapes", model=tiny_config(), settings=settings, out=out, init="none", device="cpu",
            quiet=True, on_step=kill,
        )  # fmt: skip
    (out / "command.txt").write_text("fcos train shapes --model fcos-lite0 train.iterations=9 data.size=64\n")
    return out


def test_the_equal_command_follows_a_resume_and_goes_where_none_is_equal(stopped, tmp_path):
    equal = "fcos train shapes --model fcos-lite0 train.iterations=6 data.size=64\n"
    for k, (settings, text) in enumerate(
        (({}, equal), ({"train.batch": "auto"}, equal), ({"train.iterations": 7}, None))
    ):
        out = tmp_path / f"run{k}"
        shutil.copytree(stopped, out)
        fcos.train(out=out, resume=True, settings=settings, device="cpu", quiet=True)
        file = out / "command.txt"
        assert (file.read_text() if file.exists() else None) == text
