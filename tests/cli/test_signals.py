"""A command that is asked to end leaves things as they were, also where the tests run under `nohup`."""

import os
import signal
import time
from functools import partial

import pytest
from processes import as_torchrun, at, fcos, free_port, run, start
from tiny import make_shapes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_half_written_stays(tmp_path, number):
    make_shapes(tmp_path / "data", {"train": 3})
    before = {p.name for p in tmp_path.iterdir()}
    work = fcos(
        ["data", "show", tmp_path / "data", "--out", tmp_path / "a.jpg"], at("fcos.system.files:_place", 1, number)
    )
    assert run(partial(_usual, work), tmp_path / "log") == 128 + number
    assert {p.name for p in tmp_path.iterdir()} == before | {"log"}
    assert (tmp_path / "log").read_text() == "fcos: stopped\n"


def test_a_script_in_the_background_is_ended_as_well(tmp_path):
    """There Ctrl-C is ignored, and nothing else."""
    ended = at("fcos.system.files:_place", 1, signal.SIGTERM)
    work = partial(_with_ignored, fcos(["data", "show", made(tmp_path), "--out", tmp_path / "a.jpg"], ended))
    assert run(partial(_usual, work), tmp_path / "log") == 128 + signal.SIGTERM
    assert not list(tmp_path.glob(".writing-*"))


def _with_ignored(work):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work()


def made(folder):
    make_shapes(folder / "data", {"train": 3})
    return folder / "data"


def test_a_second_signal_does_not_cut_the_cleaning_short(tmp_path):
    twice = partial(_twice, "fcos.system.files:_place")
    work = fcos(["data", "show", made(tmp_path), "--out", tmp_path / "a.jpg"], twice)
    assert run(partial(_usual, work), tmp_path / "log") == 143
    assert not list(tmp_path.glob(".writing-*"))


def _twice(where):
    from pathlib import Path

    honest = Path.unlink

    def unlink(path, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGHUP)
        return honest(path, *args, **kwargs)

    Path.unlink = unlink
    at(where, 1, signal.SIGTERM)()


@pytest.mark.slow
def test_a_run_that_waits_for_others_ends_at_once(tmp_path):
    """As torchrun ends it: it waits in code that no handler of Python interrupts."""
    make_shapes(tmp_path / "data", {"train": 3})
    work = fcos(["train", tmp_path / "data", "--out", tmp_path / "run", "--device", "cpu"])
    process = start(work, tmp_path / "log", as_torchrun(1, 2, free_port()))
    time.sleep(20)
    os.killpg(process.pid, signal.SIGTERM)
    began = time.monotonic()
    process.join(60)
    assert process.exitcode == -signal.SIGTERM
    assert time.monotonic() - began < 20


def _usual(work):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    work()
