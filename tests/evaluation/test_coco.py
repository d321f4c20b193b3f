"""The numbers of an evaluation against pycocotools, published results and hand-worked cases."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judging import cli, dataset, found, record, scenes
from PIL import Image

from fcos.config import Config
from fcos.data.classes import match_classes
from fcos.data.open import open_dataset
from fcos.errors import DataError, FcosError, ImageError
from fcos.evaluation.coco import count_at, curves, evaluate, flatten
from fcos.evaluation.metrics import confusion, match_coco, match_voc, overlaps, precision_recall, voc_ap
from fcos.evaluation.operating_point import Cut
from fcos.evaluation.results import read_results, write_results
from fcos.evaluation.uncertainty import intervals
from fcos.inference.dataset import Progress, predict_dataset
from fcos.show import plots
from fcos.show.axes import new_figure
from fcos.system.machine import Placement
from fcos.types import Classes

CHECKS = Path(__file__).resolve().parents[3] / "shared" / "data" / "eval_checks"
needs_checks = pytest.mark.skipif(not CHECKS.is_dir(), reason=f"{CHECKS} is not there")
COCO12 = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR@1", "AR@10", "AR@100")
COCO12 = (*COCO12, "AR_small", "AR_medium", "AR_large")


def twelve(metrics):
    numbers = metrics.numbers()
    return np.array([numbers[name] for name in COCO12])


# --------------------------------------------------------------------------- known results

COCO = CHECKS / "cocoapi_val2014_100"
VOC = CHECKS / "voc2007_test_yolov2"


def test_cocoapi_results_are_reproduced():
    if not COCO.is_dir():
        pytest.skip(f"{COCO} is not there")
    data = open_dataset(COCO / "instances_val2014_100.json")
    metrics = evaluate(read_results(COCO / "fakebbox100_results.json", data), data)
    expected = [0.5046, 0.6970, 0.5730, 0.5856, 0.5194, 0.5014, 0.3868, 0.5937, 0.5954, 0.6398, 0.5664, 0.5643]
    np.testing.assert_allclose(twelve(metrics), expected, atol=5e-5)


@needs_checks
def test_equal_to_pycocotools_on_the_files_themselves(capsys):
    """From JSON to number by two ways. Float32 boxes and (x + w) - x cost 0.0003 AP on this very file."""
    from pycocotools.coco import COCO as Api
    from pycocotools.cocoeval import COCOeval

    gt = Api(str(COCO / "instances_val2014_100.json"))
    job = COCOeval(gt, gt.loadRes(str(COCO / "fakebbox100_results.json")), "bbox")
    job.evaluate()
    job.accumulate()
    job.summarize()
    capsys.readouterr()
    data = open_dataset(COCO / "instances_val2014_100.json")
    metrics = evaluate(read_results(COCO / "fakebbox100_results.json", data), data)
    np.testing.assert_allclose(twelve(metrics), job.stats, atol=1e-12)
    assert capsys.readouterr().out == ""


@needs_checks
def test_voc2007_results_are_reproduced():
    data = open_dataset(VOC / "instances_test.json.gz")
    results = read_results(VOC / "results.json.gz", data)
    metrics = evaluate(results, data, voc_plus_one=True)
    assert metrics.voc_ap50_11 == pytest.approx(0.7214, abs=1e-4)
    assert metrics.voc_ap50 == pytest.approx(0.7452, abs=5e-5)
    ignored = [0.4213, 0.7434, 0.4277, 0.0341, 0.2065, 0.5057, 0.3904, 0.5103, 0.5170, 0.1030, 0.3152, 0.5997]
    np.testing.assert_allclose(twelve(metrics), ignored, atol=5e-5)
    assert (metrics.images, metrics.objects, metrics.ignored, metrics.detections) == (4952, 12032, 2944, 101139)

    counted = replace(data, records=tuple(replace(r, ignore=np.zeros_like(r.ignore)) for r in data.records))
    ordinary = [0.3649, 0.6561, 0.3651, 0.0196, 0.1725, 0.4845, 0.3338, 0.4442, 0.4521, 0.0534, 0.2722, 0.5774]
    np.testing.assert_allclose(twelve(evaluate(results, counted)), ordinary, atol=5e-5)


# --------------------------------------------------------------------------- both backends


@settings(max_examples=60, deadline=None)
@given(scenes(), st.sampled_from([(1, 10, 100), (1, 2, 3)]))
def test_hotcoco_equals_pycocotools(scene, limits):
    data, results = scene
    fast = evaluate(results, data, backend="hotcoco", max_detections=limits)
    slow = evaluate(results, data, backend="pycocotools", max_detections=limits)
    np.testing.assert_allclose(list(fast.numbers().values()), list(slow.numbers().values()), atol=1e-9)
    for a, b in zip(fast.classes, slow.classes, strict=True):
        np.testing.assert_allclose([a.ap, a.ap50, a.ar], [b.ap, b.ap50, b.ar], atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(scenes(), st.sampled_from([(0.5, 0), (0.75, 5), (0.9, 8)]))
def test_own_matching_gives_cocos_precision(scene, level):
    """Curves and F1 stand on `match_coco`; its 101-point AP must be cocoapi's."""
    from fcos.evaluation.backends import Totals, coco_arrays

    data, results = scene
    iou, row = level
    names = data.classes.names
    points, truth = flatten(results, data)
    _, precision, _ = coco_arrays(points, truth, Totals(len(data.records), len(names)), (1, 1000), "pycocotools")
    for k, curve in enumerate(curves(results, data, ious=(iou,)).classes[iou]):
        expected = precision[row, :, k, 0, 1]
        if curve.objects == 0:
            assert (expected == -1).all()
            continue
        # cocoapi compares recall with numbers such as 0.30000000000000004: leave the levels that recall meets.
        highest = np.append(np.maximum.accumulate(curve.precision[::-1])[::-1], 0.0)
        recalls = np.linspace(0, 1, 101)
        ours = highest[np.searchsorted(curve.recall, recalls, side="left")]
        met = np.isclose(recalls[:, None], curve.recall[None]).any(axis=1)
        np.testing.assert_allclose(ours[~met], expected[~met], atol=1e-9)


def test_of_two_objects_at_equal_iou_the_later_is_taken():
    """As in cocoapi. The second detection lies on that one alone, and so finds none."""
    data = dataset(record(1, [[0, 0, 20, 10], [10, 0, 30, 10]], [0, 0]))
    results = [found([[5, 0, 25, 10], [10, 0, 30, 10]], [0.9, 0.8], [0, 0])]
    assert evaluate(results, data, backend="pycocotools").ap50 == pytest.approx(51 / 101)
    np.testing.assert_allclose(curves(results, data, ious=(0.5,)).classes[0.5][0].precision, [1, 1 / 2])


def test_ties_between_images_follow_the_ids_not_the_list():
    """Two detections of equal score, one right: pycocotools goes through images by rising id."""
    right, wrong = found([[0, 0, 10, 10]], [0.5], [0]), found([[50, 50, 60, 60]], [0.5], [0])
    one, two = record(1, [[0, 0, 10, 10]], [0]), record(2)
    first = evaluate([right, wrong], dataset(one, two))
    assert evaluate([wrong, right], dataset(two, one)).ap == first.ap == pytest.approx(1)


def test_nothing_to_count_is_nan_and_none():
    empty = evaluate([found()], dataset(record(1)))
    assert np.isnan(empty.ap)
    assert np.isnan(empty.voc_ap50)
    plain = json.loads(json.dumps(empty.to_dict(), allow_nan=False))
    assert plain["AP"] is None
    assert plain["per_class"][0]["AP"] is None
    assert "-" in empty.table()
    missed = evaluate([found()], dataset(record(1, [[0, 0, 10, 10]], [0])))
    assert (missed.ap, missed.ar[100], missed.voc_ap50, missed.f1) == (0, 0, 0, 0)
    assert np.isnan(missed.classes[1].ap)  # no object of class b: left out of the mean, not 0
    no_images = evaluate([], dataset())
    assert np.isnan(no_images.ap)


def test_class_agnostic_rewards_the_box_whatever_its_name():
    data = dataset(record(1, [[0, 0, 10, 10]], [0]))
    wrong_name = [found([[0, 0, 10, 10]], [0.9], [1])]
    assert evaluate(wrong_name, data).ap == 0
    proposals = evaluate(wrong_name, data, class_agnostic=True)
    assert proposals.ap == pytest.approx(1)
    assert proposals.ar[1000] == 1


def test_ar_1000_counts_detections_beyond_100():
    junk = [[300.0 + i % 20, 300 + i // 20, 310 + i % 20, 310 + i // 20] for i in range(150)]
    results = [found([*junk, [0, 0, 10, 10]], [0.9] * 150 + [0.1], [0] * 151)]
    metrics = evaluate(results, dataset(record(1, [[0, 0, 10, 10]], [0])))
    assert (metrics.ar[100], metrics.ar[1000]) == (0, 1)


def test_bad_detections_are_named():
    data = dataset(record(1), record(7))
    with pytest.raises(DataError, match=r"1 detection not in finite numbers, the first in 7\.jpg"):
        evaluate([found(), found([[0, 0, float("nan"), 1]], [0.5], [0])], data)
    with pytest.raises(ValueError, match=r"labels 2\.\.2 do not fit 2 classes"):
        evaluate([found(), found([[0, 0, 1, 1]], [0.5], [2])], data)
    with pytest.raises(ValueError, match="1 images' detections for 2 images"):
        evaluate([found()], data)


@st.composite
def full_doubles(draw):
    """(truth, detections) as the files hold them: coordinates with all digits of a double, sides that are the truth's
    times or divided by an IoU threshold, areas a hair below and above 32 x 32 and 96 x 96."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grid = draw(st.sampled_from([None, 2, 0]))  # digits; None: all
    limits = np.linspace(0.5, 0.95, 10)
    annotations, rows = [], []

    def digits(values):
        return [float(v) if grid is None else float(round(v, grid)) for v in values]

    for image in (1, 2, 3):
        for _ in range(int(rng.integers(0, 5))):
            x, y, w, h = digits([*rng.uniform(0, 400, 2), *rng.uniform(8, 200, 2)])
            near = rng.choice([1024.0, 9216.0])
            area = float(rng.choice([w * h, near - 1e-5, near, near + 1e-5, np.nextafter(near, 0)]))
            crowd = int(rng.random() < 0.15)
            annotations.append(
                {"image_id": image, "category_id": int(rng.integers(1, 3)), "bbox": [x, y, w, h], "area": area,
                 "iscrowd": crowd, "id": len(annotations) + 1}
            )  # fmt: skip
            for _ in range(int(rng.integers(1, 4))):
                t = float(rng.choice(limits))
                sides = [[w * t, h], [w, h * t], [w / t, h], [w * t**0.5, h * t**0.5], [w, h]][int(rng.integers(0, 5))]
                # the same corner, or a box moved along x so that it shares a part t of a row of both
                left = x if rng.random() < 0.6 else x + w * (1 - t) / (1 + t)
                box = [left, y, *(sides if left == x else [w, h])]
                rows.append({**{k: annotations[-1][k] for k in ("image_id", "category_id")}, "bbox": box,
                             "score": float(rng.random().__round__(1))})  # fmt: skip
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 640, "height": 640} for i in (1, 2, 3)]
    truth = {"images": images, "annotations": annotations, "categories": [{"id": k, "name": f"c{k}"} for k in (1, 2)]}
    return truth, rows


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(full_doubles(), st.sampled_from(["hotcoco", "pycocotools"]))
def test_full_doubles_on_thresholds_count_as_in_pycocotools(tmp_path, capsys, files, backend):
    from pycocotools import mask
    from pycocotools.coco import COCO as Api
    from pycocotools.cocoeval import COCOeval

    truth, rows = files
    gt_file, dt_file = tmp_path / "instances_val.json", tmp_path / "found.json"
    gt_file.write_text(json.dumps(truth))
    dt_file.write_text(json.dumps(rows))
    data = open_dataset(gt_file)
    results = read_results(dt_file, data)
    assert data.records[0].boxes.dtype == data.records[0].target().boxes.numpy().dtype == np.float32
    flat_found, flat_truth = flatten(results, data)
    pairs = overlaps(flat_found, flat_truth, minimum=1e-9)
    boxes = [np.concatenate([side.boxes[:, :2], side.extent], axis=1) for side in (flat_found, flat_truth)]
    if len(boxes[0]) and len(boxes[1]):
        theirs = mask.iou(*boxes, flat_truth.ignore.astype(np.uint8))
        assert (pairs.iou == theirs[pairs.detections, pairs.truth]).all()  # to the last bit
    if not rows:
        return
    gt = Api(str(gt_file))
    job = COCOeval(gt, gt.loadRes(str(dt_file)), "bbox")
    job.evaluate()
    job.accumulate()
    job.summarize()
    capsys.readouterr()
    ours = twelve(evaluate(results, data, backend=backend))
    np.testing.assert_allclose(np.where(np.isnan(ours), -1, ours), job.stats, atol=1e-12)
    picked = [d[d.scores >= 0] for d in results]
    np.testing.assert_array_equal(flatten(picked, data)[0].extent, flat_found.extent)


def test_an_area_a_hair_below_the_limit_is_small(tmp_path):
    truth = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 64}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40], "area": 1023.99999}],
    }
    (tmp_path / "instances_val.json").write_text(json.dumps(truth))
    data = open_dataset(tmp_path / "instances_val.json")
    assert data.records[0].areas.tolist() == [1023.99999]
    judged = evaluate([found([[0, 0, 40, 40]], [0.9], [0])], data)
    assert judged.ap_small == pytest.approx(1)
    assert np.isnan(judged.ap_medium)


def test_boxes_changed_after_reading_are_judged_as_they_are_now(tmp_path):
    data = dataset(record(1, [[0, 0, 10, 10]], [0]))
    (tmp_path / "f.json").write_text(
        json.dumps([{"image_id": 1, "category_id": 0, "bbox": [0, 0, 10.1, 10], "score": 0.5}])
    )
    results = read_results(tmp_path / "f.json", data)
    assert flatten(results, data)[0].extent.tolist() == [[10.1, 10]]
    halved = [replace(d, boxes=d.boxes / 2) for d in results]
    assert flatten(halved, data)[0].extent.tolist() == [[5.05, 5]]


def test_scores_a_hair_apart_are_judged_as_written_and_may_be_percent(tmp_path):
    """The surer of two detections is right; as float32 they would tie, and the first in the file is wrong."""
    data = dataset(record(1, [[0, 0, 10, 10]], [0]))
    for scores in ((0.5, 0.5 + 1e-10), (50.0, 50.1)):
        rows = [
            {"image_id": 1, "category_id": 0, "bbox": box, "score": score}
            for box, score in zip(([50, 50, 10, 10], [0, 0, 10, 10]), scores, strict=True)
        ]
        (tmp_path / "f.json").write_text(json.dumps(rows))
        assert evaluate(read_results(tmp_path / "f.json", data), data).ap == pytest.approx(1)


# --------------------------------------------------------------------------- by hand


def flat(data, *results):
    return flatten(list(results), data)


def test_voc_ap_by_hand():
    """5 objects; right, wrong, right, right, wrong: precision 1, 1/2, 2/3, 3/4, 3/5 at recall .2 .2 .4 .6 .6."""
    curve = precision_recall(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([1, 0, 1, 1, 0]), 5)
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 3, 3 / 4, 3 / 5])
    assert voc_ap(curve) == pytest.approx(0.2 * 1 + 0.4 * 0.75)
    # Recall 0, .1, .2 reach precision 1; .3, .4, .5, .6 reach 3/4; the other four nothing.
    assert voc_ap(curve, points=11) == pytest.approx((3 * 1 + 4 * 0.75) / 11)


def test_recall_of_three_in_ten_reaches_level_0_3():
    curve = precision_recall(np.array([0.9, 0.8, 0.7]), np.array([1, 1, 1]), 10)
    assert voc_ap(curve, points=11) == pytest.approx(4 / 11)  # 0, .1, .2, .3


def test_voc_belongs_to_the_best_box_coco_takes_a_free_one():
    """Two overlapping objects, two detections that both fit the first one best."""
    data = dataset(record(1, [[0, 0, 10, 10], [0, 0, 10, 15]], [0, 0]))
    points, truth = flat(data, found([[0, 0, 10, 10], [0, 0, 10, 11]], [0.9, 0.8], [0, 0]))
    pairs = overlaps(points, truth, minimum=0.1)
    assert match_voc(points, truth, pairs).tolist() == [1, 0]  # a second detection of the first box
    assert match_coco(points, truth, pairs, 0.5).tolist() == [1, 1]  # 0.73 with the second, which is free


def test_voc_needs_more_than_half_coco_half():
    data = dataset(record(1, [[0, 0, 10, 10]], [0]))
    points, truth = flat(data, found([[0, 0, 10, 5]], [0.9], [0]))
    pairs = overlaps(points, truth, minimum=0.5)
    assert pairs.iou.tolist() == [0.5]
    assert match_voc(points, truth, pairs).tolist() == [0]
    assert match_coco(points, truth, pairs, 0.5).tolist() == [1]


def test_ignored_boxes_neither_reward_nor_punish():
    data = dataset(record(1, [[0, 0, 100, 100], [200, 0, 210, 10]], [0, 0], ignore=[True, False]))
    inside = [[0, 0, 50, 50], [50, 50, 100, 100], [0, 0, 100, 100]]
    results = found([*inside, [200, 0, 210, 10]], [0.9, 0.8, 0.7, 0.6], [0, 0, 0, 0])
    points, truth = flat(data, results)
    pairs = overlaps(points, truth, minimum=0.5)
    assert match_coco(points, truth, pairs, 0.5).tolist() == [-1, -1, -1, 1]  # a crowd holds any number
    voc_pairs = overlaps(points, truth, minimum=0.5, crowd=False)
    assert match_voc(points, truth, voc_pairs).tolist() == [0, 0, -1, 1]  # VOC asks for IoU with difficult boxes too
    assert evaluate([results], data).ap == pytest.approx(1)
    assert confusion(points, truth, pairs, 2, score=0.0).tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_voc_plus_one_measures_pixels():
    """Truth (4,0)-(10,10) is pixels 5..10 x 1..10 of VOC; the same numbers in a VOC file are a perfect fit."""
    data = dataset(record(1, [[4, 0, 10, 10]], [0]))
    devkit = [found([[5, 1, 10, 10]], [0.9], [0])]
    points, truth = flat(data, *devkit)
    shifted = truth._replace(boxes=truth.boxes + np.array([1, 1, 0, 0]), extent=None)
    assert overlaps(points, shifted, minimum=0.1, crowd=False, plus_one=True).iou.tolist() == [1.0]
    half = [found([[5, 1, 7, 10]], [0.9], [0])]  # 3 of 6 columns of pixels: not more than half
    assert evaluate(half, data, voc_plus_one=True).voc_ap50 == 0
    assert evaluate(devkit, data, voc_plus_one=True).voc_ap50 == 1


def test_f1_and_best_threshold_by_hand():
    """4 objects: F1 = 2 tp / (kept + 4) is 2/5, 4/6, 4/7, 6/8 - the last two of one score."""
    curve = precision_recall(np.array([0.9, 0.8, 0.6, 0.6]), np.array([1, 1, 0, 1]), 4)
    np.testing.assert_allclose(curve.f1(np.array([0.95, 0.9, 0.85, 0.7, 0.6, 0.0])), [0, 0.4, 0.4, 4 / 6, 0.75, 0.75])
    assert curve.best() == (pytest.approx(0.6), pytest.approx(0.75))
    # A threshold cannot keep the right one of two equal scores and drop the wrong one.
    tied = precision_recall(np.array([0.9, 0.5, 0.5, 0.5]), np.array([1, 1, 0, 0]), 2)
    assert tied.best() == (pytest.approx(0.7), pytest.approx(2 / 3))  # the middle of 0.9 and 0.5: all do alike


def test_confusion_matrix_by_hand():
    data = dataset(record(1, [[0, 0, 10, 10], [50, 0, 60, 10], [0, 50, 10, 60]], [0, 1, 0]), record(2, [], []))
    first = found(
        [[0, 0, 10, 9], [0, 0, 10, 10], [50, 0, 60, 10], [0, 50, 10, 60]],
        [0.6, 0.9, 0.8, 0.2],
        [0, 1, 0, 0],
    )
    second = found([[0, 0, 5, 5]], [0.7], [1])
    # a is found as a although b overlaps it more and with a higher score; b is taken for a; the second a only has a
    # detection below the threshold; the other b detections lie on nothing that is left.
    assert count_at([first, second], data, Cut(0.5)).confusion.tolist() == [[1, 0, 1], [1, 0, 0], [0, 2, 0]]


# --------------------------------------------------------------------------- files and detectors


def test_results_file_round_trip(tmp_path):
    data = dataset(record(42), record(7), names=("cat", "dog"), ids=(3, 90))
    path = tmp_path / "results.json"
    results = [found([[1, 2, 5, 8.5]], [0.25], [1]), found()]
    write_results(path, results, data)
    assert json.loads(path.read_text()) == [{"image_id": 42, "category_id": 90, "bbox": [1, 2, 4, 6.5], "score": 0.25}]
    counted = tmp_path / "counted.json"  # ids that are counted here mean nothing elsewhere
    write_results(counted, results, replace(data, format="yolo"))
    assert [row["file_name"] for row in json.loads(counted.read_text())] == [data.records[0].file_name]
    packed = tmp_path / "results.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for file in (path, packed):
        back = read_results(file, data)
        assert back[0].boxes.tolist() == [[1, 2, 5, 8.5]]
        assert back[0].labels.tolist() == [1]
        assert len(back[1]) == 0


ROW = {"image_id": 1, "category_id": 0, "bbox": [0, 0, 5, 5], "score": 0.5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"annotations": []}, "must hold a list of detections .* belongs to --data"),
        ([{**ROW, "image_id": 9}, ROW, {**ROW, "image_id": 9}], r"2 rows with 1 unknown image_id \(9\)"),
        ([{**ROW, "category_id": 5}], r"1 row with 1 unknown category_id \(5\)"),
        ([ROW, {**ROW, "score": float("nan")}], "1 row not in finite numbers, the first is row 1"),
        ([{**ROW, "bbox": [0, 0, 5, float("inf")]}], "not in finite"),
        ([{**ROW, "bbox": [0, 0, -5, 5]}], "negative width or height"),
        ([ROW, {**ROW, "bbox": [0, 0, 5]}], r"row 1 has the bbox \[0, 0, 5\], not four numbers"),
        ([{"image_id": 1}], "row 0 has no 'category_id'"),
        ([ROW, 3], "row 1 is a int"),
        ([{**ROW, "image_id": [1]}], r"row 0 has the image_id \[1\]"),
    ],
)
def test_bad_results_files_give_one_line(tmp_path, content, message):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as caught:
        read_results(path, dataset(record(1)))
    assert "\n" not in str(caught.value)


def test_unreadable_results_files(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        read_results(tmp_path / "none.json", dataset(record(1)))
    (tmp_path / "text.json").write_text("[{")
    with pytest.raises(DataError, match="is not JSON"):
        read_results(tmp_path / "text.json", dataset(record(1)))
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b"[1, 2, 3]" * 1000)[:30])
    with pytest.raises(DataError, match=r"cut\.json\.gz"):
        read_results(tmp_path / "cut.json.gz", dataset(record(1)))


def test_classes_match_by_name():
    data = Classes(("dining table", "cat"), (67, 17))
    assert match_classes(Classes(("cat", "Dining-Table", "dog")), data).tolist() == [1, 0, -1]
    assert match_classes(Classes(("Cat", "cat")), Classes(("cat",))).tolist() == [-1, 0]
    with pytest.raises(DataError, match=r"does not know 1 of the data's 2 classes: 'dining table' .*'table'"):
        match_classes(Classes(("cat", "table")), data)
    assert match_classes(Classes(("cat",)), data, allow_missing=True).tolist() == [1]


class FakeDetector:
    """A dog and an "a" in every image."""

    classes = Classes(("dog", "a", "b"))
    config = Config()
    placement = Placement()
    network = None

    def detect(self, images, names, score, batch):
        assert score == 0
        return [found([[0, 0, 10, 10], [1, 1, 2, 2]], [0.9, 0.8], [1, 0]) for _ in images]


def test_predict_dataset_maps_classes_and_survives_a_broken_image(tmp_path):
    lines = []
    records = [record(1, [[0, 0, 10, 10]], [0]), record(2, [[0, 0, 10, 10]], [0]), record(3)]
    for number, name in enumerate(("1.png", "2.png", "3.png")):
        records[number] = replace(records[number], path=tmp_path / name)
        Image.new("RGB", (20, 20)).save(tmp_path / name)
    (tmp_path / "2.png").write_bytes(b"cut short")
    data = dataset(*records)
    results = predict_dataset(FakeDetector(), data, batch=3, progress=Progress(lines.append))
    assert [d.labels.tolist() for d in results] == [[0], [], [0]]
    assert results[0].names == ("a", "b")
    assert lines[0] == "1 class of the model left out, not in the data: 'dog'"
    assert "2.png" in lines[1]
    assert "counted as an image without detections" in lines[1]
    with pytest.raises(DataError, match="without a file to detect in"):
        predict_dataset(FakeDetector(), dataset(replace(data.records[0], path=None)))
    told = len(lines)
    for count, many in ((30, 20), (2, 2)):  # their disk has gone away: no score is measured on nothing
        gone = [replace(data.records[0], id=number, path=tmp_path / f"gone {number}.png") for number in range(count)]
        with pytest.raises(ImageError, match=f"{many} images in a row cannot be read, the last: .*gone {many - 1}.png"):
            predict_dataset(FakeDetector(), dataset(*gone), batch=3, progress=Progress(lines.append))
    assert len(lines) == told + 2 + 19 + 1
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff cut short")
    there = [replace(data.records[0], id=number, path=tmp_path / "cut.jpg") for number in range(30)]
    assert sum(map(len, predict_dataset(FakeDetector(), dataset(*there), progress=Progress(lines.append)))) == 0


def test_the_plot_of_f1_goes_as_far_as_the_scores(tmp_path, monkeypatch):
    data = dataset(record(1, [[0, 0, 10, 10]], [0]))
    drawn = []
    monkeypatch.setattr(plots, "_finish", lambda figure, axes, path: drawn.append(axes))
    for scores, high in (([0.9, 0.2], 1), ([90, 20], 90)):
        plots.f1_curve(curves([found([[0, 0, 10, 10], [50, 50, 60, 60]], scores, [0, 0])], data), tmp_path / "f1.png")
        assert drawn[-1].get_xlim() == (0, high)
        assert max(x for line in drawn[-1].lines for x in line.get_xdata()) == high


@pytest.mark.parametrize(("classes", "some"), [(1, False), (3, True), (24, True)])
def test_plots_are_drawn(tmp_path, classes, some):
    from PIL import Image

    names = tuple(f"class {k}" for k in range(classes))
    data = dataset(record(1, [[0, 0, 10 + k, 10] for k in range(classes)], range(classes)), record(2), names=names)
    results = [found([[0, 0, 10, 10]], [0.9], [0]) if some else found(), found()]
    lines = curves(results, data)
    plots.pr_curve(lines, tmp_path / "pr.png")
    plots.f1_curve(lines, tmp_path / "f1.png")
    plots.confusion_matrix(count_at(results, data, Cut(0.5)).confusion, names, tmp_path / "confusion.png", Cut(0.5))
    for name in ("pr", "f1", "confusion"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert min(image.size) > 400
            assert len(image.convert("RGB").quantize(16).getcolors()) > 3  # something stands on it


def test_the_plot_of_precision_has_the_ap_of_the_table(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    names, records, results = ("a", "b"), [], []
    for i in range(1, 9):
        corner = rng.uniform(0, 300, (6, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(30, 90, (6, 2))], 1)
        labels = np.array([0, 0, 0, 1, 1, 1])
        records.append(record(i, boxes.tolist(), labels.tolist()))
        results.append(found(boxes + rng.normal(0, 6, boxes.shape), rng.random(6), labels))
    data = dataset(*records, names=names)
    drawn = []
    monkeypatch.setattr(plots, "_finish", lambda figure, axes, path: drawn.append(axes))
    plots.pr_curve(curves(results, data), tmp_path / "pr.png")
    told = dict(text.rsplit(maxsplit=1) for text in drawn[0].get_legend_handles_labels()[1] if "   " in text)
    metrics = evaluate(results, data)
    assert 0 < metrics.ap50 < 1
    assert told["mean of classes"] == f"{metrics.ap50:.3f}"
    assert told["a"] == f"{metrics['a'].ap50:.3f}"


# --------------------------------------------------------------------------- the command


def test_eval_prints_one_json_object_and_writes_the_folder(coco_folder, capsys):
    truth = coco_folder / "instances_val.json"
    cli("--data", truth, "--detections", coco_folder / "found.json", "--json", "--out", coco_folder / "out")
    result = json.loads(capsys.readouterr().out)
    assert result["AP"] == pytest.approx(1)
    assert result["best_F1_score"] == 0.75
    assert result["per_class"][0]["id"] == 9
    written = {path.name for path in (coco_folder / "out").iterdir()}
    assert written >= {"metrics.json", "detections.json", "pr.png", "f1.png", "confusion.png", "reliability.png"}
    assert json.loads((coco_folder / "out" / "metrics.json").read_text()) == result


def test_scores_that_are_no_probabilities_are_left_out_of_the_reliability(coco_folder, capsys):
    rows = json.loads((coco_folder / "found.json").read_text())
    odd = [{**rows[0], "score": score} for score in (-3.5, 7.0)]
    (coco_folder / "odd.json").write_text(json.dumps([*rows, *odd]))
    run = ("--data", coco_folder / "instances_val.json", "--detections", coco_folder / "odd.json")
    cli(*run, "--out", coco_folder / "out")
    told = capsys.readouterr().err.splitlines()
    assert told[1:] == ["fcos: 2 scores outside 0..1, which no probability is: left out of reliability.png"]
    assert (coco_folder / "out" / "reliability.png").is_file()


def test_the_intervals_are_among_the_numbers(coco_folder, capsys):
    run = ("--data", coco_folder / "instances_val.json", "--detections", coco_folder / "found.json", "--json")
    cli(*run, "--ci")
    told = json.loads(capsys.readouterr().out)
    data = open_dataset(coco_folder / "instances_val.json")
    seen = read_results(coco_folder / "found.json", data)
    metrics = replace(evaluate(seen, data), intervals=intervals(seen, data))
    assert metrics.to_dict()["intervals"] == told["intervals"]
    assert set(told["intervals"]) == {"AP", "AP50", "AP75"}
    assert "intervals" not in evaluate(seen, data).to_dict()


def test_eval_takes_test_then_val_and_says_so(coco_folder, capsys):
    data = coco_folder / "data"
    data.mkdir()
    for split in ("train", "val", "test"):
        (coco_folder / f"instances_{split}.json").rename(data / f"instances_{split}.json")
    run = ("--data", data, "--detections", coco_folder / "found.json")
    cli(*run)
    assert "split test" in capsys.readouterr().out
    (data / "instances_test.json").unlink()
    cli(*run)
    assert "split val" in capsys.readouterr().out
    cli(*run, "--split", "train")
    assert "split train" in capsys.readouterr().out


def test_eval_refuses_both_or_neither(coco_folder):
    with pytest.raises(FcosError, match="--model MODEL, --detections FILE or --compare A B"):
        cli("--data", coco_folder)
    with pytest.raises(FcosError, match=r"'decode\.nms_iou=0.5' is a setting of a model"):
        cli("--data", coco_folder, "--detections", coco_folder / "found.json", "decode.nms_iou=0.5")


def test_long_names_leave_the_title_of_a_confusion_matrix_whole(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(plots, "new_figure", lambda *size: made.append(new_figure(*size)) or made[-1])
    names = ["traffic_light_red", "traffic_light_green", "speed_limit_sign_50"]
    plots.confusion_matrix(np.eye(4, dtype=np.int64), names, tmp_path / "m.png", Cut(0.513))
    title, plot = made[0]._suptitle.get_window_extent(), made[0].axes[0].get_window_extent()
    assert title.x0 >= 0
    assert title.x1 <= made[0].bbox.x1
    assert title.y0 >= plot.y1


def test_a_confusion_matrix_of_many_classes_shows_those_with_most_mistakes(tmp_path, monkeypatch):
    figures = []
    real = plots.new_figure
    monkeypatch.setattr(plots, "new_figure", lambda *size: figures.append(real(*size)) or figures[-1])
    monkeypatch.setattr(plots, "MOST_CELLS", 2)
    matrix = np.array([[9, 0, 3, 0], [0, 9, 0, 1], [0, 1, 9, 0], [0, 0, 0, 0]])
    plots.confusion_matrix(matrix, ("a", "b", "c"), tmp_path / "m.png")
    axes = figures[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "c", "background"]
    assert "2 of 3 classes" in figures[0]._suptitle.get_text()
    assert {text.get_text() for text in axes.texts} == {"9", "3"}
