"""Bootstrap intervals: a draw's AP is the evaluator's on the data set drawn, and cases worked by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from judging import cli, dataset, found, record, scenes

from fcos.errors import FcosError
from fcos.evaluation.bootstrap import (
    Interval,
    average_precision,
    compare,
    draw,
    hits_needed,
    interval,
    intervals,
    match_images,
    two_sided,
)
from fcos.evaluation.coco import evaluate, flatten


@settings(max_examples=40, deadline=None)
@given(scenes())
def test_without_drawing_it_is_the_evaluators_ap(scene):
    data, results = scene
    judged = evaluate(results, data)
    ours = intervals(results, data, resamples=10)
    np.testing.assert_allclose([v.value for v in ours.values()], [judged.ap, judged.ap50, judged.ap75], atol=1e-9)


def test_the_limit_of_a_hundred_is_by_class_and_image():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 100, (300, 2))
    boxes = np.concatenate([corner, corner + 20], axis=1)
    data = dataset(record(1, boxes[:150], [0] * 150), record(2, boxes[150:], [1] * 150))
    results = [found(b.tolist(), rng.random(150).tolist(), [k] * 150) for k, b in enumerate((boxes[:150], boxes[150:]))]
    assert intervals(results, data, resamples=10)["AP"].value == pytest.approx(evaluate(results, data).ap, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_a_draw_is_the_data_set_with_its_images_repeated(seed):
    """Pictures stand as often as drawn, under ids of their own, before cocoapi's own counting."""
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
    weights = draw(6, 4, seed)
    assert weights.sum(axis=1).tolist() == [6] * 4
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
    judged = intervals(results, data, resamples=2000, seed=1)["AP50"]
    assert (judged.value, judged.low, judged.high) == (pytest.approx(51 / 101), 0, 1)  # a quarter of the draws each


def test_hits_needed_as_floating_numbers_compare():
    objects = np.array([1, 3, 7, 10, 29, 100, 12032])
    recalls = np.linspace(0, 1, 101)
    for row, count in zip(hits_needed(objects), objects.tolist(), strict=True):
        share = np.arange(count + 1) / count
        assert row.tolist() == np.searchsorted(share, recalls, side="left").tolist()


def test_interval_and_p_by_hand():
    draws = np.arange(101) / 100
    assert interval(0.4, draws) == Interval(0.4, pytest.approx(0.025), pytest.approx(0.975))
    assert two_sided(np.array([-1.0, 1, 1, 1])) == 0.5
    assert two_sided(np.array([1.0, 1, 2])) == 0
    assert two_sided(np.array([0.0, 0])) == 1
    assert two_sided(np.array([2.0, np.nan, 0, -1])) == 1  # 2 of 3 on either side, zero on both


def test_what_both_find_hard_cancels():
    """Each picture's luck moves both alike: the difference is narrower than either."""
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
    same = compare(first, first, data, resamples=200)
    assert same.difference["AP"] == Interval(0, 0, 0)
    assert same.p["AP"] == 1
    judged = compare(first, second, data, resamples=200)
    assert judged.difference["AP"].high < 0
    assert judged.p["AP"] == 0
    assert judged.difference["AP50"].value == pytest.approx(0)
    wide, narrow = judged.first["AP"], judged.difference["AP"]
    assert narrow.high - narrow.low < wide.high - wide.low
    assert compare(first, second, data, resamples=200) == judged  # the seed decides
    assert judged.to_dict()["difference"]["AP"]["high"] < 0


def test_nothing_to_count():
    for data, results in ((dataset(), []), (dataset(record(1)), [found()])):
        judged = compare(results, results, data, resamples=10)
        assert np.isnan(judged.difference["AP"].value)
        assert np.isnan(judged.p["AP"])
        assert json.loads(json.dumps(judged.to_dict()))["first"]["AP"]["low"] is None
        assert "nan" in judged.text()


def test_eval_compares_two_files(coco_folder, capsys):
    data = coco_folder / "instances_val.json"
    (coco_folder / "worse.json").write_text("[]")
    pair = ("--compare", coco_folder / "worse.json", coco_folder / "found.json")
    cli("--data", data, *pair, "--json", "--out", coco_folder / "out")
    result = json.loads(capsys.readouterr().out)
    assert result["difference"]["AP"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert result["p"]["AP"] == 0
    assert json.loads((coco_folder / "out" / "comparison.json").read_text()) == result
    cli("--data", data, *pair)
    assert "+1.0000 [+1.0000, +1.0000]" in capsys.readouterr().out
    cli("--data", data, "--detections", coco_folder / "found.json", "--ci")
    assert "AP75  1.0000 [1.0000, 1.0000]" in capsys.readouterr().out
    with pytest.raises(FcosError, match="or --compare A B"):
        cli("--data", data, *pair, "--detections", coco_folder / "found.json")
    with pytest.raises(FcosError, match=r"gone\.json"):
        cli("--data", data, "--compare", coco_folder / "gone.json", coco_folder / "found.json")
