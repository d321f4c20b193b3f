"""Reliability of scores and thresholds for a wanted precision, by hand; `--score` by class."""

import json

import numpy as np
import pytest
import torch
from judging import cli, dataset, found, record

from fcos.errors import FcosError
from fcos.evaluation.calibration import Threshold, calibration, score_option, threshold_table, thresholds
from fcos.evaluation.coco import curves
from fcos.inference.scores import lowest, only, parse_scores, reached
from fcos.show.judged import reliability_plot
from fcos.types import Classes

BOX, AWAY = [0, 0, 10, 10], [50, 50, 60, 60]


def test_reliability_by_hand(tmp_path):
    crowd = record(3, [BOX], [0], ignore=[True])
    data = dataset(record(1, [BOX], [0]), record(2, [BOX], [0]), crowd, names=("a",))
    results = [
        found([BOX, AWAY, AWAY], [0.92, 0.12, 0.18], [0, 0, 0]),
        found([BOX, AWAY], [0.98, 1.0], [0, 0]),  # a score of 1 belongs to the last bin
        found([BOX], [0.5], [0]),  # inside a crowd: not counted
    ]
    judged = calibration(results, data)
    assert judged.count.tolist() == [0, 2, 0, 0, 0, 0, 0, 0, 0, 3]
    assert judged.score[[1, 9]] == pytest.approx([0.15, 2.9 / 3])
    assert judged.precision[[1, 9]] == pytest.approx([0, 2 / 3])
    assert judged.ece == pytest.approx((2 * 0.15 + 3 * 0.9 / 3) / 5)
    assert np.isnan(judged.precision[0])
    assert json.loads(json.dumps(judged.to_dict()))["precision"][0] is None
    reliability_plot(judged, tmp_path / "a.png")
    nothing = calibration([found(), found(), found()], data)
    assert np.isnan(nothing.ece)
    reliability_plot(nothing, tmp_path / "b.png")
    assert (tmp_path / "b.png").stat().st_size > 3000


def test_thresholds_by_hand():
    names = ("a", "b", "c", "none")
    truth = record(1, [BOX, [20, 0, 30, 10], [40, 0, 50, 10], BOX, BOX], [0, 0, 0, 1, 2])
    data = dataset(truth, names=names)
    results = [
        found(
            [BOX, [20, 0, 30, 10], AWAY, [40, 0, 50, 10], AWAY, AWAY, BOX],
            [0.9, 0.8, 0.7, 0.6, 0.5, 0.75, 0.75],
            [0, 0, 0, 0, 0, 1, 1],
        )
    ]
    lines = curves(results, data)
    a, b, c, none = thresholds(lines, 0.75)
    assert (a.score, a.precision, a.recall) == (pytest.approx(0.6), 0.75, 1.0)  # right, right, wrong, right
    assert np.isnan(b.score)  # right and wrong share a score: no threshold parts them
    assert b.recall == 0
    assert np.isnan(c.score)
    assert np.isnan(none.recall)
    strict = thresholds(lines, 0.9)[0]
    assert (strict.score, strict.recall) == (pytest.approx(0.8), pytest.approx(2 / 3))
    assert thresholds(lines, 0.5)[1].score == 0.75
    assert score_option((a, b, c, none)) == {"a": a.score, "b": 1.0, "c": 1.0}
    option = threshold_table((a, b, c, none), 0.75).splitlines()[-1].partition('"')[2].rstrip('"')
    assert option == "a=0.6,b=1.0,c=1.0"  # of float32, and not 0.6000000238418579
    scores = parse_scores(option, Classes(names))
    assert scores.tolist() == [torch.tensor(a.score).item(), 1, 1, 0.5]


def test_the_option_is_one_that_predict_takes():
    above = Threshold("b", 3.5, 1.0, 1.0, 1)
    for score in (0.123456789, 0.1, 0.7, 1.0):
        rows = (Threshold("a", score, 1.0, 1.0, 1), above)
        table = threshold_table(rows, 0.9)
        kept = score_option(rows)
        assert list(kept) == ["a"]  # no detection of fcos scores 3.5
        assert "a score above 1 is no score of fcos predict" in table
        option = table.splitlines()[-1].partition('"')[2].rstrip('"')
        for given in (option, kept):
            read = float(parse_scores(given, Classes(("a", "b")))[0])
            assert score - 1e-7 < read <= score
    for name in ("cat, big", "a=b"):
        assert "--score FILE.json" in threshold_table((Threshold(name, 0.5, 1.0, 1.0, 1),), 0.9).splitlines()[-1]


def test_scores_by_class(tmp_path):
    classes = Classes(("person", "traffic light", "dog"))

    def of(text):
        return pytest.approx(parse_scores(text, classes).tolist())

    assert of("0.4") == [0.4, 0.4, 0.4]
    assert of("traffic light=0.6") == [0.5, 0.6, 0.5]
    assert of("0.1, traffic light=0.5,dog=0") == [0.1, 0.5, 0]
    path = tmp_path / "scores.json"
    path.write_text('{"dog": 0.25}')
    assert of(str(path)) == [0.5, 0.5, 0.25]
    path.write_text("[1]")
    wrong = {
        "1.5": "'1.5'", "person=high": "'high' of person", "nan": "'nan'", "dgo=0.3": "did you mean dog",
        "person=": "''", "": "''", str(path): "a list", str(tmp_path / "gone.json"): "gone.json",
    }  # fmt: skip
    for text, message in wrong.items():
        with pytest.raises(FcosError, match=message) as caught:
            parse_scores(text, classes)
        assert "\n" not in str(caught.value)


def test_eval_gives_scores_that_predict_takes(coco_folder, capsys):
    arguments = ("--data", coco_folder / "instances_val.json", "--detections", coco_folder / "found.json")
    cli(*arguments, "--precision", "0.9", "--out", coco_folder / "out")
    text = capsys.readouterr().out
    assert 'fcos predict ... --score "cell=0.75"' in text
    assert json.loads((coco_folder / "out" / "scores.json").read_text()) == {"cell": 0.75}
    assert (coco_folder / "out" / "reliability.png").stat().st_size > 5000
    assert parse_scores(str(coco_folder / "out" / "scores.json"), Classes(("cell",))).tolist() == [0.75]
    with pytest.raises(FcosError, match="--class-agnostic"):
        cli(*arguments, "--precision", "0.9", "--class-agnostic")


def test_classes_alone_and_written_otherwise():
    classes = Classes(("dog", "traffic light", "Dog2"))
    assert parse_scores("Traffic_Light=0.2", classes).tolist() == pytest.approx([0.5, 0.2, 0.5])
    with pytest.raises(FcosError, match=r"^score: the model has no class 'dgo'; did you mean dog"):
        lowest({"dgo": 0.3}, classes, 0.5)  # of Python, which has no --score
    with pytest.raises(FcosError, match=r"^--score: the model has no class 'dgo'"):
        parse_scores("dgo=0.3", classes)
    assert parse_scores({"dog": 0.25}, classes, 0.4).tolist() == pytest.approx([0.25, 0.4, 0.4])
    scores = only(parse_scores("0.3", classes), "DOG, traffic-light", classes)
    assert scores.tolist() == pytest.approx([0.3, 0.3, 2.0])
    seen = found([[0, 0, 9, 9]] * 3, [0.3, 0.29, 0.9], [0, 1, 2])
    assert reached(seen, scores).scores.tolist() == pytest.approx([0.3])  # at least
    for text, words in (("cow", "has no class 'cow'"), ("dgo", "did you mean dog"), (" , ", "names none")):
        with pytest.raises(FcosError, match=words):
            only(scores, text, classes)


def test_a_long_name_makes_no_wide_table():
    rows = (Threshold("x" * 300, 0.5, 1.0, 1.0, 1), Threshold("cat", 0.25, 0.9, 0.5, 7))
    lines = threshold_table(rows, 0.9).splitlines()[1:4]
    assert [len(line) for line in lines] == [len(lines[0])] * 3
    assert len(lines[0]) < 100
