"""What a run says at its end about more time: by made curves, and by a run."""

import json
import math

import numpy as np
import pytest
from tiny import learn, make_shapes, tiny_config

from fcos.training.extrapolate import outlook


def rows(steps, curve):
    """As metrics.csv has them: rows of losses between those of evaluations."""
    judged = [{"step": str(s), "AP": f"{curve(s / steps):.6g}"} for s in range(100, steps + 1, 100)]
    return [{"step": "50", "AP": ""}, *judged]


@pytest.mark.parametrize(("minutes", "asked"), [(1.5, 1), (14, 10), (16, 15), (200, 120)])
def test_it_asks_about_a_round_time_and_finds_the_curve(minutes, asked):
    def curve(x):
        return 0.6 - 0.05 * x**-0.6

    said = outlook(rows(1000, curve), 1000, 60 * minutes, 0.005)
    assert said.minutes == asked
    truth = curve(1 + asked / minutes) - curve(1)
    assert said.gain.low < truth < said.gain.high
    assert abs(said.gain.value - truth) < 0.01
    assert str(said).startswith(f"{asked} more minute")
    assert f"{said.gain.value:+.3f} AP (90 % interval " in str(said)


def test_more_images_to_judge_by_say_more():
    widths = []
    for error in (0.002, 0.02, 0.04):
        gain = outlook(rows(1000, lambda x: 0.6 - 0.05 * x**-0.6), 1000, 600, error).gain
        widths.append(gain.high - gain.low)
    assert widths == sorted(widths)
    assert widths[-1] > 1.5 * widths[0]
    assert outlook(rows(1000, lambda x: 0.6), 1000, 600, 0.2) is None  # it could be anything


def test_where_a_curve_says_nothing_nothing_is_said():
    def curve(x):
        return 0.5 - 0.1 / x

    assert outlook([], 1000, 600, 0.01) is None
    assert outlook(rows(1000, lambda x: 0.0), 1000, 600, 0.001) is None  # nothing was found, ever
    assert outlook(rows(200, curve), 200, 600, 0.01) is None  # two evaluations
    assert outlook(rows(1000, curve), 1050, 600, 0.01) is None  # none at the end
    assert outlook(rows(1000, curve), 1000, 40, 0.01) is None  # a run of less than a minute
    assert outlook(rows(1000, lambda x: math.nan), 1000, 600, 0.01) is None


def test_a_run_tells_it_in_its_last_words(tmp_path, capfd, monkeypatch):
    """The time is made longer, so that there is something to ask about."""
    from fcos.training.loop import Trainer

    monkeypatch.setattr(Trainer, "elapsed", lambda self: 600.0)
    monkeypatch.setattr("fcos.training.extrapolate._WIDEST", 9.0)
    data = make_shapes(tmp_path / "shapes", {"train": 12, "val": 3})
    learn(tiny_config(train={"epochs": 6}), data, tmp_path / "run", quiet=False)
    said = [line for line in capfd.readouterr().err.splitlines() if "by this run's own curve" in line]
    assert len(said) == 1
    assert said[0].startswith("more:     10 more minutes: +")
    kept = json.loads((tmp_path / "run" / "result.json").read_text())["more_minutes"]
    assert kept["minutes"] == 10
    assert kept["low"] <= kept["value"] <= kept["high"]
    assert "by this run&#x27;s own curve" in (tmp_path / "run" / "report.html").read_text()
    assert np.isfinite(kept["value"])
