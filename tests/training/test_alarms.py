"""Alarms over hand-made sequences of reports, and over a run that deserves one."""

import pytest
from tiny import learn, make_shapes, tiny_config

from fcos.data.open import open_splits
from fcos.training.alarms import Watch, dead_regression, loss_rising, never_seen, no_positives, slow_data
from fcos.training.monitor import StepReport


def reports(count, **values):
    return [StepReport(**{"positives": 9, "loss": 1.0, "seconds": 1.0, "data_wait": 0.01, **values})] * count


@pytest.mark.parametrize(
    ("recent", "alarm"),
    [
        (reports(10, dead=0.6), True),
        (reports(9, dead=1.0), False),  # too early to tell
        (reports(30, dead=0.4), False),
        (reports(30, dead=1.0) + reports(10, dead=0.1), False),  # it recovered
        (reports(10, dead=1.0) + reports(20, positives=0), True),  # steps without positives say nothing
    ],
)
def test_dead_regression(recent, alarm):
    assert (dead_regression(recent) is not None) is alarm


@pytest.mark.parametrize(
    ("recent", "alarm"),
    [
        (reports(50, positives=0), True),
        (reports(49, positives=0), False),
        (reports(49, positives=0) + reports(1), False),
        (reports(1) + reports(50, positives=0), True),
    ],
)
def test_no_positives(recent, alarm):
    assert (no_positives(recent) is not None) is alarm


@pytest.mark.parametrize(
    ("losses", "alarm"),
    [
        ([1.0] * 50 + [1.3] * 50, True),
        ([1.0] * 50 + [1.2] * 50, False),
        ([2.0] * 50 + [1.0] * 50 + [1.3] * 50, True),  # against the lowest, not the first
        ([1.0] * 50 + [1.3] * 49, False),
        ([1.0] * 76 + [9.0] * 24, False),  # half a block of outliers does not move a median
        ([3.0] * 50 + [1.0] * 200, False),
        ([], False),
    ],
)
def test_loss_rising(losses, alarm):
    found = loss_rising([StepReport(loss=x) for x in losses])
    assert (found is not None) is alarm


def test_the_advice_says_from_where_to_where():
    assert "from 1 to 1.3 (medians of 50 steps)" in str(loss_rising(reports(50) + reports(50, loss=1.3)))


@pytest.mark.parametrize(
    ("recent", "alarm"),
    [
        (reports(60, data_wait=0.34), True),
        (reports(60, data_wait=0.33), False),
        (reports(59, data_wait=0.9), False),  # the loader is starting
        (reports(10, data_wait=0.9) + reports(50), False),
    ],
)
def test_slow_data(recent, alarm):
    assert (slow_data(recent) is not None) is alarm


def test_classes_never_seen():
    names = ("fox", "dog", "owl")
    assert never_seen({0, 1, 2}, names, (5, 5, 5)) is None
    found = str(never_seen({0}, names, (5, 5, 0)))
    assert "no location learned dog in an epoch" in found
    assert "no box of owl" in found
    assert "shares of 0..1" in found
    assert "fox" not in found


def test_each_alarm_is_told_once_until_it_clears():
    watch = Watch(("cat",), (5,), epoch=1000)
    told = []
    for dead in (1.0, 1.0, 0.0, 1.0):
        for report in reports(10, dead=dead):
            watch.add(report)
        told.append([a.name for a in watch.look()])
    assert told == [["dead regression"], [], [], ["dead regression"]]


def test_a_class_is_missed_only_after_an_epoch():
    watch = Watch(("cat", "dog"), (5, 5), epoch=4)
    for report in reports(3, seen=frozenset({0})):
        watch.add(report)
    assert watch.look() == []
    watch.add(reports(1)[0])
    assert [a.name for a in watch.look()] == ["class never seen"]
    watch.add(reports(1, seen=frozenset({1}))[0])
    assert watch.look() == []
    assert not watch.on


def test_a_run_tells_its_alarms(tmp_path):
    """Boxes of 12 to 30 pixels, and a first level that learns those above 200: nothing is positive."""
    shapes = open_splits(make_shapes(tmp_path / "shapes", {"train": 4}))
    config = tiny_config(
        model={"strides": [32, 64]}, assign={"ranges": [64], "center_radius": 0.1}, train={"epochs": 1, "batch": 2}
    )
    result = learn(config, shapes, tmp_path / "run")
    alarms = (result.folder / "alarms.txt").read_text().splitlines()
    assert len(alarms) == 1
    assert alarms[0].startswith("step 2: class never seen: no location learned disc, square in an epoch")
    assert "class never seen" in (result.folder / "report.html").read_text()
