"""The clock of a run by minutes, under made times, and the age of a process."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from fcos.training import clock
from fcos.training.clock import Deadline, process_age


class TurnedClock:
    """A clock that a test turns."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


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
    assert Deadline.again({**stored, "revised": True}, turned.now).revised  # steps are lowered once in a run


@pytest.mark.parametrize(
    "change", [{"seconds": "9"}, {"tail": float("nan")}, {"used": float("inf")}, {"revised": None}, {"tail": None}]
)
def test_a_damaged_deadline_is_seen(change):
    whole = Deadline(60, 5).stored()
    assert Deadline.fits(whole)
    assert not Deadline.fits({**whole, **change})
    for key in change:
        assert not Deadline.fits({k: v for k, v in whole.items() if k != key})
    assert Deadline.fits(None)
    assert not any(map(Deadline.fits, (7, [], {})))


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
