"""What is found, missed and wrong from one score on, at one IoU."""

import io
import json
import math
from contextlib import redirect_stdout

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import cli, dataset, found, record, scenes

from fcos.errors import ConfigError
from fcos.evaluation.coco import as_one_class, count_at, evaluate
from fcos.evaluation.operating_point import Cut
from fcos.evaluation.program import evaluate as judge


def two_images():
    """Of class a three objects and a crowd, of class b one object; IoUs 0.4, 1 and 0.9."""
    data = dataset(
        record(1, [[0, 0, 10, 10], [50, 0, 60, 10], [0, 50, 10, 60]], [0, 1, 0]),
        record(2, [[0, 0, 10, 10], [100, 100, 200, 200]], [0, 0], ignore=[False, True]),
    )
    first = found([[0, 0, 10, 4], [50, 0, 60, 10], [0, 50, 10, 59]], [0.9, 0.8, 0.3], [0, 0, 0])
    second = found([[110, 110, 120, 120], [0, 0, 10, 10]], [0.7, 0.6], [0, 0])
    return [first, second], data


def test_counts_by_hand():
    results, data = two_images()
    point = count_at(results, data, Cut(0.5, 0.5))  # AP: 67 of 101 recalls have precision 1/2
    a, b = point.classes
    # of a: the box of IoU 0.4 and the one on b are wrong, the one in the crowd counts nowhere, one object is found
    assert (a.objects, a.found, a.missed, a.wrong) == (3, 1, 2, 2)
    assert (b.objects, b.found, b.missed, b.wrong) == (1, 0, 1, 0)
    assert (a.precision, a.recall) == pytest.approx((1 / 3, 1 / 3))
    assert math.isnan(b.precision)
    assert b.recall == 0
    assert (point.total.objects, point.total.found, point.total.wrong) == (4, 1, 2)
    assert point.cells() == [("a", "a", 1), ("a", None, 2), ("b", "a", 1), (None, "a", 1)]
    assert "from score 0.5000 on, at IoU 0.5" in repr(point)
    assert [line.split() for line in repr(point).splitlines()[2:]] == [
        ["a", "1", "2", "2", "0.333", "0.333", "0.332"],
        ["b", "0", "1", "0", "-", "0.000", "0.000"],
        ["all", "1", "3", "2", "0.333", "0.250", "0.166"],
    ]


def test_a_lower_score_and_iou_find_more():
    results, data = two_images()
    assert [count_at(results, data, Cut(score, 0.5)).total.found for score in (0.95, 0.5, 0.2)] == [0, 1, 2]
    assert [count_at(results, data, Cut(0.2, iou)).total.found for iou in (1.0, 0.95, 0.5, 0.4, 0.3)] == [1, 1, 2, 3, 3]
    one = count_at(*as_one_class(results, data), Cut(0.2, 0.5))
    assert [(row.name, row.found, row.wrong) for row in one.classes] == [("object", 3, 1)]


@settings(max_examples=40, deadline=None)
@given(scenes(), st.sampled_from([0.3, 0.5, 0.75]), st.sampled_from([0.2, 0.55]))
def test_equal_to_pycocotools(scene, iou, score):
    from pycocotools.coco import COCO as Api
    from pycocotools.cocoeval import COCOeval

    data, results = scene
    rows = {"images": [], "categories": [], "annotations": []}
    seen = []
    for record_, one in zip(data.records, results, strict=True):
        rows["images"].append({"id": record_.id, "width": 640, "height": 480})
        for box, label, ignore, area in zip(record_.boxes, record_.labels, record_.ignore, record_.areas, strict=True):
            x1, y1, x2, y2 = map(float, box)
            rows["annotations"].append(
                {
                    "id": len(rows["annotations"]) + 1,
                    "image_id": record_.id,
                    "category_id": int(data.classes.ids[label]),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(area),
                    "iscrowd": int(ignore),
                }
            )
        for box, value, label in zip(one.boxes.tolist(), one.scores.tolist(), one.labels.tolist(), strict=True):
            sides = [box[2] - box[0], box[3] - box[1]]
            row = {"image_id": record_.id, "category_id": int(data.classes.ids[label]), "bbox": [*box[:2], *sides]}
            seen.append({**row, "score": value})
    rows["categories"] = [{"id": int(i), "name": n} for i, n in zip(data.classes.ids, data.classes.names, strict=True)]
    point = count_at(results, data, Cut(score, iou))
    if not seen:
        assert (point.total.found, point.total.wrong) == (0, 0)
        return
    with redirect_stdout(io.StringIO()):
        truth = Api()
        truth.dataset = rows
        truth.createIndex()
        job = COCOeval(truth, truth.loadRes(seen), "bbox")
        job.params.iouThrs = np.array([iou])
        job.evaluate()
        job.accumulate()
    whole = [one for one in job.evalImgs if one is not None and one["aRng"] == job.params.areaRng[0]]
    for k, number in enumerate(data.classes.ids):
        mine = [one for one in whole if one["category_id"] == number]
        kept = [np.array(one["dtScores"]) >= score for one in mine]
        counted = [keep & ~one["dtIgnore"][0].astype(bool) for keep, one in zip(kept, mine, strict=True)]
        right = [one["dtMatches"][0] > 0 for one in mine]
        row = point.classes[k]
        assert row.found == sum(int((c & r).sum()) for c, r in zip(counted, right, strict=True))
        assert row.wrong == sum(int((c & ~r).sum()) for c, r in zip(counted, right, strict=True))
        assert row.objects == sum(int((np.array(one["gtIgnore"]) == 0).sum()) for one in mine)
        precision = job.eval["precision"][0, :, k, 0, -1]
        assert row.ap == pytest.approx(float(precision.mean()) if precision.max() > -1 else math.nan, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(scenes())
def test_by_itself_it_is_the_point_of_the_best_f1(scene):
    data, results = scene
    point, metrics = count_at(results, data), evaluate(results, data)
    assert point.total.ap == pytest.approx(metrics.ap50, nan_ok=True)
    if math.isnan(metrics.threshold):
        assert point.score == 0.5
        return
    assert point.score == metrics.threshold
    total = point.total
    assert 2 * total.found / (2 * total.found + total.missed + total.wrong) == pytest.approx(metrics.f1)


def test_the_last_bit_of_scores_and_boxes_decides_nothing():
    rows = [[10.1, 20.2, 10.1 + 33.3, 20.2 + 44.4], [0.1, 0.7, 0.1 + 3.3, 0.7 + 5.9]]
    data = dataset(record(1, rows, [0, 0]))
    for score in (0.6, 0.7, 0.9):
        point = count_at([found(rows, [score, 0.5], [0, 0])], data, Cut(score, 1))
        assert (point.total.found, point.total.wrong, point.cells()[0]) == (1, 0, ("a", "a", 1))
    shifted = found(np.nextafter(np.float32(rows), np.float32(0)).tolist(), [0.8, 0.5], [0, 0])
    assert count_at([shifted], data, Cut(0.1, 0.99)).total.found == 2
    assert json.dumps(count_at([shifted], data, Cut(np.float32(0.5), np.float32(0.5))).to_dict())


def test_a_results_file_of_the_truth_itself_is_right_at_iou_1(tmp_path):
    corners = np.random.default_rng(0).uniform(0, 300, (60, 4)).round(2)
    boxes = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": box, "area": 1, "iscrowd": 0}
        for i, box in enumerate(corners.tolist(), 1)
    ]
    images = [{"id": row["id"], "file_name": f"{row['id']}.jpg", "width": 640, "height": 640} for row in boxes]
    truth = {"images": images, "categories": [{"id": 1, "name": "a"}], "annotations": boxes}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps([{**row, "score": 0.9} for row in boxes]))
    assert judge(tmp_path / "found.json", tmp_path / "truth.json", iou=1.0).at_score.total.found == 60


def test_from_python_and_in_json():
    results, data = two_images()
    metrics = judge(results, data, score=0.2, iou=0.3)
    assert (metrics.at_score.score, metrics.at_score.iou, metrics.at_score.total.found) == (0.2, 0.3, 3)
    assert "at score 0.200: 3 of 4 objects found, recall 0.750; 1 wrong detection, precision 0.750" in repr(metrics)
    told = json.loads(json.dumps(metrics.to_dict()))["at_score"]
    assert (told["found"], told["missed"], told["wrong"], told["per_class"][1]["precision"]) == (3, 1, 1, None)
    assert {"truth": "b", "found": "a", "count": 1} in told["confusion"]
    assert metrics.ap50 == judge(results, data).ap50  # the numbers of COCO are those of all scores


@pytest.mark.parametrize("options", [{"score": 1.5}, {"score": "0.5"}, {"iou": 0}, {"iou": math.nan}, {"iou": True}])
def test_values_out_of_range(options):
    results, data = two_images()
    with pytest.raises(ConfigError, match=f"{next(iter(options))}="):
        judge(results, data, **options)


def test_on_the_command_line(coco_folder, capsys):
    run = ("--data", coco_folder, "--detections", coco_folder / "found.json")
    cli(*run)
    assert "at score " in (plain := capsys.readouterr().out)
    assert "missed" not in plain
    cli(*run, "--score", "0.1", "--iou", "0.3")
    assert "from score 0.1000 on, at IoU 0.3:\nclass" in capsys.readouterr().out
    cli(*run, "--iou", "0.3", "--json")
    assert json.loads(capsys.readouterr().out)["at_score"]["iou"] == 0.3
