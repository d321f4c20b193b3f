"""Tracking numbers: equal to TrackEval's, and by hand; MOTChallenge files."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import fcos

from fcos.data.open import open_dataset
from fcos.errors import DataError
from fcos.evaluation.mot import judge_mot, mot_lines, read_mot, track_metrics

pytest.importorskip("scipy", reason="tracking needs scipy: pip install 'fcos-detector[track]'")
BY_TRACKEVAL = json.loads((Path(__file__).parent / "mot_by_trackeval.json").read_text())
CASES = BY_TRACKEVAL["cases"]


def frames(rows):
    return [(np.array(ids, np.int64), np.array(boxes, float).reshape(-1, 4)) for ids, boxes in rows]


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_the_numbers_are_trackevals(case):
    """Made by TrackEval 1.3.0 (MIT) from boxes and ids made at random; the file keeps both."""
    found = track_metrics(frames(case["truth"]), frames(case["result"]))
    for name in ("hota", "deta", "assa", "idf1", "mota"):
        assert getattr(found, name) == pytest.approx(case[name], abs=1e-9), name
    assert found.switches == case["switches"]


def test_files_with_distractors_are_judged_as_by_trackeval(tmp_path):
    """Made by its MotChallenge2DBox from rows made at random, with all classes of persons and two of vehicles."""
    (case,) = BY_TRACKEVAL["files"]
    truth, result = tmp_path / "gt.txt", tmp_path / "result.txt"
    truth.write_text("\n".join(case["truth"]))
    result.write_text("\n".join(case["result"]))
    found = judge_mot(truth, result).to_dict()
    for name in ("hota", "deta", "assa", "idf1", "mota", "switches", "misses", "alarms"):
        assert found[name] == pytest.approx(case[name], abs=1e-9), name


def test_a_pair_stays_over_a_frame_without_detections():
    """TrackEval's rule: the track that was the object's before the gap is so after it, though another fits better."""
    truth = frames([([1], [[0, 0, 100, 100]])] * 3)
    result = frames([([1], [[0, 0, 100, 100]]), ([], []), ([1, 2], [[0, 0, 100, 70], [0, 0, 100, 90]])])
    found = track_metrics(truth, result)
    assert (found.switches, found.mota) == (0, pytest.approx(1 / 3))


def test_no_pair_stays_over_a_frame_in_which_only_others_were_found():
    """TrackEval's rule: then the best overlap decides, and what was the object's track before is a change of id."""
    one, other = [0, 0, 100, 100], [300, 0, 400, 100]
    truth = frames([([1, 2], [one, other])] * 3)
    again = ([1, 3, 9], [[0, 0, 100, 70], [0, 0, 100, 90], other])
    found = track_metrics(truth, frames([([1, 9], [one, other]), ([9], [other]), again]))
    assert (found.switches, found.misses, found.alarms) == (1, 1, 1)


def test_hota_pairs_by_the_whole_video():
    """Tracks 1 and 2 cover the object alike in its fourth frame. 1 was on it twice before and 2 once, but 1 is
    elsewhere in seven frames, so 2 fits better. Then each has two hits, of 4 + 10 - 2 and of 4 + 2 - 2 boxes that it
    and the object have together."""
    box, far = [0, 0, 100, 100], [500, 0, 600, 100]
    truth = frames([([5], [box])] * 4 + [([], [])] * 7)
    result = frames([([1], [box])] * 2 + [([2], [box]), ([1, 2], [box, box])] + [([1], [far])] * 7)
    found = track_metrics(truth, result)
    assert found.deta == pytest.approx(4 / (4 + 12 - 4))
    assert found.assa == pytest.approx((2 * 2 / (4 + 10 - 2) + 2 * 2 / (4 + 2 - 2)) / 4)


@pytest.mark.parametrize(("kind", "false"), [(1, 5), (3, 5), (7, 0), (12, 0)])
def test_detections_of_distractors_count_as_nothing(tmp_path, kind, false):
    truth, result = tmp_path / "gt.txt", tmp_path / "result.txt"
    lines = [f"{k},1,0,0,10,10,1,1,1\n{k},2,50,50,10,10,0,{kind},1" for k in range(1, 6)]
    truth.write_text("\n".join(lines))
    result.write_text("\n".join(f"{k},1,0,0,10,10,1\n{k},2,50,50,10,10,1" for k in range(1, 6)))
    found = judge_mot(truth, result)
    assert (found.alarms, found.objects, found.mota) == (false, 5, 1 - false / 5)


@pytest.mark.parametrize(
    ("truth", "result", "counted"),
    [
        # a result that ends before the truth
        ([f"{k},1,0,0,100,100,1,1,1" for k in range(1, 6)], ["1,5,0,0,100,95,1"], (5, 4, 0)),
        # a box that overlaps a distractor but fits an object better
        (["1,1,0,0,100,100,1,1,1", "1,2,0,0,100,60,0,7,1"], ["1,5,0,0,100,95,1"], (1, 0, 0)),
        # class 7 with a 1 in the seventh column: an object that is judged
        (["1,1,0,0,100,100,1,7,1"], ["1,5,0,0,100,95,1"], (1, 0, 0)),
        # blanks between the columns
        (["1 1 0 0 100 100 1"], ["1, 5, 0, 0, 100, 95, 1", "1  6  500 0  100 95 1"], (1, 0, 1)),
    ],
    ids=["ends early", "beside a distractor", "class 7 that is judged", "blanks"],
)
def test_files_by_hand(tmp_path, truth, result, counted):
    """Objects, misses and false detections."""
    (tmp_path / "gt.txt").write_text("\n".join(truth))
    (tmp_path / "result.txt").write_text("\n".join(result))
    found = judge_mot(tmp_path / "gt.txt", tmp_path / "result.txt")
    assert (found.objects, found.misses, found.alarms) == counted


def still(ids, count=4):
    """Objects that stand side by side."""
    return [(np.array(ids), np.array([[30.0 * k, 0, 30 * k + 20, 20] for k in range(len(ids))]))] * count


def test_the_truth_itself_is_perfect():
    found = track_metrics(still([1, 2]), still([7, 9]))
    assert (found.hota, found.idf1, found.mota, found.switches) == (1.0, 1.0, 1.0, 0)


def test_ids_that_change_places_once_by_hand():
    """Two objects, four frames; the ids change places in the middle: 2 changes, MOTA 1 - 2/8, IDF1 4/8, AssA: each hit
    has 2 of the 6 frames that its object and its track have together."""
    result = still([1, 2], 2) + still([2, 1], 2)
    found = track_metrics(still([1, 2]), result)
    assert (found.switches, found.mota, found.idf1) == (2, 0.75, 0.5)
    assert found.deta == 1.0
    assert found.assa == pytest.approx(1 / 3)


def test_nothing_and_only_one_side():
    none = [(np.zeros(0, np.int64), np.zeros((0, 4)))] * 4
    assert np.isnan(track_metrics(none, none).hota)
    assert json.loads(json.dumps(track_metrics(none, none).to_dict(), allow_nan=False))["hota"] is None
    missed = track_metrics(still([1]), none)
    assert (missed.hota, missed.misses, missed.mota) == (0.0, 4, 0.0)
    false = track_metrics(none, still([1]))
    assert (false.hota, false.alarms) == (0.0, 4)


def test_frames_must_be_as_many():
    with pytest.raises(DataError, match="4 frames, the result 3"):
        track_metrics(still([1], 4), still([1], 3))


def test_a_file_comes_back(tmp_path):
    rows = [
        (np.array([3, 4]), np.array([[1.5, 2, 11.5, 22], [30, 30, 40, 50]]), np.array([0.9, 0.5])),
        (np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0)),
        (np.array([3]), np.array([[2.5, 2, 12.5, 22]]), np.array([0.8])),
    ]
    path = tmp_path / "tracks.txt"
    path.write_text(mot_lines(rows))
    for (ids, boxes, _), (ids2, boxes2) in zip(rows, read_mot(path), strict=True):
        assert ids.tolist() == ids2.tolist()
        np.testing.assert_allclose(boxes + 1, boxes2, atol=0.01)  # the first pixel is 1 in these files
    assert len(read_mot(path, 9)) == 9


def test_boxes_of_a_data_set_are_where_its_truth_has_them(tmp_path):
    truth = tmp_path / "MOT-01" / "gt" / "gt.txt"
    truth.parent.mkdir(parents=True)
    truth.write_text("1,1,21,40,12,14,1,1,1\n1,2,60,40,16,20,1,1,1\n2,1,23,40,12,14,1,1,1\n2,2,60,42,16,20,1,1,1\n")
    images = tmp_path / "MOT-01" / "img1"
    images.mkdir()
    for frame in (1, 2):
        Image.new("RGB", (120, 90)).save(images / f"{frame:06d}.jpg")
    seen = [(np.array([1, 2]), record.boxes, np.ones(2)) for record in open_dataset(tmp_path).records]
    result = tmp_path / "result.txt"
    result.write_text(mot_lines(seen))
    assert judge_mot(truth, result).hota == pytest.approx(1.0)


def test_rows_left_out_of_judging(tmp_path):
    path = tmp_path / "gt.txt"
    path.write_text("1,1,0,0,10,10,1,1,1.0\n1,2,0,0,10,10,0,1,1.0\n")
    assert read_mot(path, truth=True)[0][0].tolist() == [1]
    assert read_mot(path)[0][0].tolist() == [1, 2]  # in a result it is a score


def test_a_result_of_score_0_counts(tmp_path, capsys):
    truth, result = tmp_path / "gt.txt", tmp_path / "result.txt"
    truth.write_text("1,1,0,0,10,10,1\n1,2,50,50,10,10,0\n2,1,0,0,10,10,1\n")
    result.write_text("1,7,0,0,10,10,0\n2,7,0,0,10,10,0.0\n")
    code, out, _ = fcos(capsys, "eval", "--mot", truth, result, "--json")
    told = json.loads(out)
    assert (code, told["misses"], round(told["hota"], 9), told["objects"]) == (0, 0, 1.0, 2)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1,1,5,5,10,10,1", "line 2: frame 1 has the id 1 twice"),
        ("1.5,2,0,0,1,1,1", "line 2: frame 1.5 and id 2 have to be whole numbers"),
        ("1,2.5,0,0,1,1,1", "line 2: frame 1 and id 2.5 have to be whole numbers"),
        ("1,2,0,0,-1,1,1", "line 2: width -1 and height 1 must not be below 0"),
        ("1,2,0,0,1,-1,1", "line 2: width 1 and height -1 must not be below 0"),
    ],
)
@pytest.mark.parametrize("truth", [True, False])
def test_rows_that_no_video_has(tmp_path, line, told, truth):
    path = tmp_path / "gt.txt"
    path.write_text("1,1,0,0,10,10,1\n" + line + "\n")
    with pytest.raises(DataError, match=f"{path.name}: {told}"):
        read_mot(path, truth=truth)
    # one that is left out of judging may share its id
    path.write_text("1,1,0,0,10,10,1\n1,1,0,0,10,10,0\n")
    assert read_mot(path, truth=True)[0][0].tolist() == [1]


@pytest.mark.parametrize(
    "line",
    [
        "a,b",
        "1,2,3",
        "0,1,0,0,1,1",
        "1,1,nan,0,1,1",
        "1",
        "1e8,1,0,0,1,1",
        "1,1e300,0,0,1,1",
        "1,1,1e308,0,1e308,1",
        "1e99,1,0,0,1,1",
    ],
)
def test_a_bad_line_is_named(tmp_path, line):
    path = tmp_path / "gt.txt"
    path.write_text("1,1,0,0,10,10,1\n" + line + "\n")
    with pytest.raises(DataError, match="line 2 is no MOTChallenge row"):
        read_mot(path)
