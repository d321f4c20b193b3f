"""Intervals of AP: a draw's AP is the evaluator's on the data set drawn, and cases worked by hand."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from judging import cli, dataset, found, record, scenes

from fcos.errors import FcosError
from fcos.evaluation.coco import evaluate, flatten
from fcos.evaluation.uncertainty import (
    Draws,
    average_precision,
    compare_detections,
    draw,
    hits_needed,
    intervals,
    match_images,
    spread,
    student,
    two_sided,
)

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@settings(max_examples=40, deadline=None)
@given(scenes())
def test_without_drawing_it_is_the_evaluators_ap(scene):
    data, results = scene
    judged = evaluate(results, data)
    ours = intervals(results, data, Draws(10))
    np.testing.assert_allclose([v.value for v in ours.values()], [judged.ap, judged.ap50, judged.ap75], atol=1e-9)


def test_the_limit_of_a_hundred_is_by_class_and_image():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 100, (300, 2))
    boxes = np.concatenate([corner, corner + 20], axis=1)
    data = dataset(record(1, boxes[:150], [0] * 150), record(2, boxes[150:], [1] * 150))
    results = [found(b.tolist(), rng.random(150).tolist(), [k] * 150) for k, b in enumerate((boxes[:150], boxes[150:]))]
    assert intervals(results, data, Draws(10))["AP"].value == pytest.approx(evaluate(results, data).ap, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_weights_are_the_data_set_with_its_images_repeated(seed):
    """Images stand as often as weighed, under ids of their own, before cocoapi's own counting."""
    rng = np.random.default_rng(seed)
    records, results = [], []
    for number in range(6):
        count = int(rng.integers(0, 6))
        corner = rng.uniform(0, 100, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(10, 60, (count, 2))], axis=1)
        labels = rng.integers(0, 2, count)
        records.append(record(number, boxes, labels, rng.random(count) < 0.2))
        near = np.repeat(boxes, 2, axis=0) + rng.normal(0, 4, (2 * count, 4))
        kinds = np.where(rng.random(2 * count) < 0.2, 1 - np.repeat(labels, 2), np.repeat(labels, 2))
        results.append(found(near.tolist(), rng.random(2 * count).tolist(), kinds.tolist()))
    data = dataset(*records)
    weights = np.concatenate([draw(6, 4, seed).halves, rng.integers(0, 4, (3, 6))])
    ours = average_precision(match_images(*flatten(results, data), 6, 2), weights)
    for row, times in enumerate(weights.tolist()):
        chosen = [i for i, n in enumerate(times) for _ in range(n)]
        repeated = dataset(*(replace(records[i], id=k) for k, i in enumerate(chosen)))
        judged = evaluate([results[i] for i in chosen], repeated)
        expected = [judged.ap, judged.ap50, judged.ap75]
        np.testing.assert_allclose([ours[row].mean(), ours[row, 0], ours[row, 5]], expected, atol=1e-9)


def test_one_image_found_one_missed_by_hand():
    box = [[0, 0, 10, 10]]
    data = dataset(record(1, box, [0]), record(2, box, [0]), names=("a",))
    results = [found(box, [0.9], [0]), found()]
    matches = match_images(*flatten(results, data), 2, 1)
    weights = np.array([[2, 0], [1, 1], [0, 2]])
    # recall 1, 1/2 and 0: all, the first 51 and none of the 101 levels
    np.testing.assert_allclose(average_precision(matches, weights)[:, 0], [1, 51 / 101, 0])
    judged = intervals(results, data, Draws(2000, 1))["AP50"]
    assert judged.value == pytest.approx(51 / 101)
    assert (judged.low, judged.high) == (pytest.approx(0, abs=1e-6), pytest.approx(1))  # two images say nothing


def test_hits_needed_as_floating_numbers_compare():
    objects = np.array([1, 3, 7, 10, 29, 100, 12032])
    recalls = np.linspace(0, 1, 101)
    for row, count in zip(hits_needed(objects), objects.tolist(), strict=True):
        share = np.arange(count + 1) / count
        assert row.tolist() == np.searchsorted(share, recalls, side="left").tolist()


def test_halves_part_the_images():
    plan = draw(7, 5, 0)
    assert plan.halves.sum(axis=1).tolist() == [3, 4, 3, 4, 3]
    assert (plan.halves[0] + plan.halves[1] == 1).all()
    assert (plan.halves[2] + plan.halves[3] == 1).all()
    assert plan.factor.tolist() == pytest.approx([(3 / 4) ** 0.5, (4 / 3) ** 0.5] * 2 + [(3 / 4) ** 0.5])
    assert sorted(plan.left_out.argmin(axis=1).tolist()) == list(range(7))
    assert plan.left_out.sum(axis=1).tolist() == [6] * 7
    many = draw(1000, 4, 0).left_out
    assert many.shape == (200, 1000)
    assert set(many.sum(axis=1).tolist()) == {995}
    assert ((1 - many).sum(axis=0) == 1).all()
    assert draw(0, 4, 0).halves.shape == (0, 0)
    assert draw(1, 4, 0).halves.shape == (0, 1)


def test_the_spread_of_a_mean_is_its_standard_error():
    """For a mean of numbers both estimates are known: s / sqrt(n)."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(3, 2, 60)
    plan = draw(60, 4000, 0)
    means = [(w * numbers).sum(axis=1) / w.sum(axis=1) for w in (plan.halves, plan.left_out)]
    error, freedom = spread(*means, plan)
    assert error == pytest.approx(numbers.std(ddof=1) / 60**0.5, rel=0.03)
    assert 30 < freedom <= 59
    few = np.where(np.arange(60) < 2, 10.0, 0.0)  # two images decide: few degrees of freedom
    means = [(w * few).sum(axis=1) / w.sum(axis=1) for w in (plan.halves, plan.left_out)]
    assert spread(*means, plan)[1] < 6


@pytest.mark.parametrize(("freedom", "reach"), [(3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)])
def test_students_quantile_and_its_p(freedom, reach):
    """Beside the table of any textbook; p is the same function turned round."""
    assert student(freedom) == pytest.approx(reach, rel=0.012)
    assert two_sided(student(freedom) * 0.1, 0.1, freedom) == pytest.approx(0.05)
    assert two_sided(-2 * student(freedom), 1.0, freedom) < 0.05
    assert two_sided(0.0, 1.0, freedom) == 1


def test_a_difference_without_spread():
    assert two_sided(0.0, 0.0, 5) == 1
    assert two_sided(0.1, 0.0, 5) == 0
    assert np.isnan(two_sided(float("nan"), 0.1, 5))


@settings(max_examples=60, deadline=None)
@given(scenes())
def test_an_interval_always_holds_its_number(scene):
    data, results = scene
    others = [replace(d, scores=d.scores.flip(0), labels=d.labels * 0) for d in results]
    judged = compare_detections(results, others, data, Draws(12))
    matches = match_images(*flatten(results, data), len(data), len(data.classes))
    halves = average_precision(matches, draw(len(data), 12, 0).halves)
    few = sum(bool((~r.ignore).any()) for r in data.records) < 2
    for one, column in zip(judged.first.values(), (halves.mean(axis=1), halves[:, 0], halves[:, 5]), strict=True):
        assert np.isfinite(one.low) or few or np.nanmin(column) == np.nanmax(column)
    for row in (judged.first, judged.second, judged.difference):
        for one in row.values():
            if np.isfinite(one.low):
                assert one.low <= one.value <= one.high
                assert row is judged.difference or 0 <= one.low <= one.high <= 1
            else:  # too few images with objects, or the same number whichever of them are looked at
                assert np.isnan(one.high)


def test_few_objects_of_many_classes_do_not_push_the_interval_off_its_number():
    """Three objects a class, half of them found: the draws of a bootstrap nearly all lie above."""
    rng = np.random.default_rng(3)
    records, results = [], []
    for number in range(40):
        boxes = [[60 * k, 10, 60 * k + 40, 60] for k in range(3)]
        labels = rng.integers(0, 40, 3)
        records.append(record(number, boxes, labels))
        kinds = np.where(rng.random(3) < 0.5, labels, rng.integers(0, 40, 3))
        results.append(found(boxes, rng.random(3).tolist(), kinds.tolist()))
    data = dataset(*records, names=[str(k) for k in range(40)])
    for one in intervals(results, data, Draws(100)).values():
        assert one.low < one.value < one.high


@pytest.mark.slow
@pytest.mark.parametrize(("images", "sets"), [(50, 500), (200, 300), (1000, 150)])
def test_intervals_hold_the_truth_as_often_as_they_say(images, sets):
    """Made-up data sets of benchmarks/intervals.py; the limits leave room for the chance of this many sets. At 50
    images the intervals are a little wide (docs/evaluation.md)."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from intervals import coverage, shares, truths
    finally:
        sys.path.remove(str(BENCHMARKS))
    share = shares(5)
    held = coverage(images, sets, 100, share, truths(share))
    room = 2 * (0.95 * 0.05 / sets) ** 0.5
    assert (held.own == 1).all()
    assert (held.mean > 0.93 - room).all()
    assert (held.mean < (0.98 if images < 200 else 0.97) + room).all()
    assert (held.truth > 0.92 - room).all()


def test_what_both_find_hard_cancels():
    """Each image's luck moves both alike: the difference is narrower than either."""
    rng = np.random.default_rng(0)
    boxes = [[0, 0, 50, 50], [100, 100, 150, 150]]
    records, first, second = [], [], []
    for number in range(40):
        records.append(record(number, boxes, [0, 0]))
        hard = rng.random() < 0.5
        first.append(found(boxes[: 1 if hard else 2], rng.random(1 if hard else 2).tolist(), [0] * (1 if hard else 2)))
        shifted = (torch.tensor(boxes, dtype=torch.float32) + 4).tolist()  # IoU 0.73
        second.append(found(shifted[: len(first[-1])], first[-1].scores.tolist(), [0] * len(first[-1])))
    data = dataset(*records, names=("a",))
    same = compare_detections(first, first, data, Draws(200))
    assert same.difference["AP"].value == 0  # twice the same detector: what others would differ by is not known
    assert np.isnan(same.difference["AP"].low)
    assert same.p["AP"] == 1
    judged = compare_detections(first, second, data, Draws(200))
    assert judged.difference["AP"].high < 0
    assert judged.p["AP"] < 1e-6
    assert judged.difference["AP50"].value == pytest.approx(0)
    wide, narrow = judged.first["AP"], judged.difference["AP"]
    assert narrow.high - narrow.low < wide.high - wide.low
    assert compare_detections(first, second, data, Draws(200)).to_dict() == judged.to_dict()  # the seed decides
    assert judged.to_dict()["difference"]["AP"]["high"] < 0


def test_nothing_to_count():
    for data, results in ((dataset(), []), (dataset(record(1)), [found()])):
        judged = compare_detections(results, results, data, Draws(10))
        assert np.isnan(judged.difference["AP"].value)
        assert np.isnan(judged.p["AP"])
        assert json.loads(json.dumps(judged.to_dict()))["first"]["AP"]["low"] is None
        assert "nan" not in judged.text() + repr(judged)
        assert judged.text().splitlines()[1].split() == ["AP", "-", "-", "-", "-"]


@pytest.mark.parametrize("count", [2, 3, 12])
def test_what_every_image_says_alike_has_no_interval_and_a_p_by_their_number(count):
    """By hand: under chance each image favours either side as a coin falls, so n of n do in 2 of 2 ** n cases."""
    box = [10, 10, 50, 50]
    data = dataset(*(record(n, [box], [0]) for n in range(1, count + 1)))
    good, none = [found([box], [0.9], [0])] * count, [found()] * count
    judged = compare_detections(none, good, data, Draws(40))
    assert judged.difference["AP"].value == 1
    for interval in (judged.first["AP"], judged.second["AP"], judged.difference["AP"]):
        assert np.isnan([interval.low, interval.high]).all()
    assert judged.p["AP"] == 2 / 2**count
    assert judged.text().splitlines()[1].split()[:4] == ["AP", "0.0000", "1.0000", "+1.0000"]


def test_one_image_with_objects_among_many_has_no_interval():
    data = dataset(record(1, [[10, 10, 50, 50]], [0]), *(record(n) for n in range(2, 40)))
    results = [found([[10, 10, 50, 42]], [0.9], [0]), *[found()] * 38]
    for interval in intervals(results, data, Draws(40)).values():
        assert np.isnan([interval.low, interval.high]).all()


def test_eval_compares_two_files(coco_folder, capsys):
    data = coco_folder / "instances_val.json"
    (coco_folder / "worse.json").write_text("[]")
    pair = ("--compare", coco_folder / "worse.json", coco_folder / "found.json")
    cli("--data", data, *pair, "--json", "--out", coco_folder / "out")
    result = json.loads(capsys.readouterr().out)
    assert result["difference"]["AP"] == {"value": 1.0, "low": None, "high": None}  # one image knows no spread
    assert result["p"]["AP"] is None
    assert json.loads((coco_folder / "out" / "comparison.json").read_text()) == result
    cli("--data", data, *pair)
    assert "+1.0000" in (out := capsys.readouterr().out)
    assert "+1.0000 -" not in out  # a dash for an interval would read as a minus
    cli("--data", data, "--detections", coco_folder / "found.json", "--ci")
    assert "AP75  1.0000\n" in capsys.readouterr().out
    with pytest.raises(FcosError, match="give one of --model, --detections and --compare"):
        cli("--data", data, *pair, "--detections", coco_folder / "found.json")
    with pytest.raises(FcosError, match=r"gone\.json"):
        cli("--data", data, "--compare", coco_folder / "gone.json", coco_folder / "found.json")
