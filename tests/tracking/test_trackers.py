"""Both trackers on clips with crossings and occlusion whose truth is exact, and each rule by hand."""

import numpy as np
import pytest
from clips import as_detections, clip, detections_of, tracked, truth_of

from fcos.errors import ConfigError
from fcos.evaluation.mot import track_metrics
from fcos.tracking.bytetrack import ByteTrack
from fcos.tracking.motion import Motion
from fcos.tracking.ocsort import OcSort
from fcos.tracking.tracks import Track, TrackConfig

pytest.importorskip("scipy", reason="tracking needs scipy: pip install 'fcos-detector[track]'")
TRACKERS = pytest.mark.parametrize("kind", [ByteTrack, OcSort])


def at(x, y=50, size=20):
    return [x, y, x + size, y + size]


def follow(tracker, frames, rate=30):
    """Ids of each frame of [(boxes, scores), ...]."""
    return [tracker.update(as_detections(*frame), k / rate).tolist() for k, frame in enumerate(frames)]


def mean_scores(kind, rate, seeds):
    results = []
    for seed in seeds:
        frames = clip(seed, rate)
        results.append(track_metrics(truth_of(frames), tracked(kind(), detections_of(frames, seed))))
    return np.mean([r.hota for r in results]), np.mean([r.idf1 for r in results])


@TRACKERS
@pytest.mark.parametrize("clips", [4, pytest.param(12, marks=pytest.mark.slow)])
def test_on_clips_with_crossings_and_occlusion(kind, clips):
    """The `trackers` package (2.6.1, its ByteTrack and OC-SORT) reaches HOTA 0.826 and 0.737 on the twelve clips."""
    hota, idf1 = mean_scores(kind, 30, range(20, 20 + clips))
    assert hota > 0.826 - 0.005
    assert idf1 > 0.94
    _, slow = mean_scores(kind, 10, range(20, 20 + clips))
    assert idf1 - slow < (0.05 if clips == 12 else 0.08)


@TRACKERS
def test_an_object_keeps_its_id_through_a_blind_time(kind):
    frames = [([at(3 * k)], [0.9]) if not 20 <= k < 40 else ([], []) for k in range(60)]
    ids = follow(kind(), frames)
    assert ids[19] == ids[45] == [1]


@pytest.mark.parametrize("rate", [5, 10, 15, 25, 30])
def test_only_who_was_out_of_sight_is_followed_again(rate, monkeypatch):
    """A step of a slow video is no blind time: each sight is learned once. After 0.4 seconds without one the line
    between is learned too, 30 points a second, the last of them the new sight."""
    updates = []
    honest = Motion.update
    monkeypatch.setattr(Motion, "update", lambda motion, box: updates.append(box) or honest(motion, box))
    tracker = OcSort()
    follow(tracker, [([at(k)], [0.9]) for k in range(20)], rate)
    assert len(updates) == 19
    tracker.update(as_detections([], []), 19 / rate + 0.2)
    assert tracker.update(as_detections([at(22)], [0.9]), 19 / rate + 0.4).tolist() == [1]
    assert len(updates) == 19 + 12


@TRACKERS
def test_after_patience_it_is_someone_new(kind):
    frames = [([at(3 * k)], [0.9]) if not 20 <= k < 70 else ([], []) for k in range(80)]
    ids = follow(kind(TrackConfig(patience=0.5)), frames)
    assert ids[19] == [1]
    assert ids[75] == [2]


@TRACKERS
def test_patience_is_in_seconds_whatever_the_frame_rate(kind):
    for rate in (60, 30, 10):
        gap = int(0.8 * rate)
        frames = [([at(20)], [0.9])] * rate + [([], [])] * gap + [([at(20)], [0.9])] * 3
        assert follow(kind(), frames, rate)[-1] == [1]


@TRACKERS
def test_a_weak_detection_keeps_a_known_object_and_begins_none(kind):
    frames = [([at(2 * k)], [0.9]) for k in range(5)] + [([at(10), at(200)], [0.2, 0.2])] * 3
    ids = follow(kind(), frames)
    assert ids[-1] == [1, -1]


@TRACKERS
@pytest.mark.parametrize("others", [[], [at(300)]], ids=["alone", "with another"])
def test_who_is_out_of_sight_waits_for_a_sure_detection(kind, others):
    def seen(*scores):
        return [at(20)] * len(scores) + others, [*scores] + [0.9] * len(others)

    ids = follow(kind(), [seen(0.9)] * 6 + [seen()] + [seen(0.2), seen(0.9)])
    assert [row[0] for row in ids[-2:]] == [-1, 1]


@TRACKERS
def test_one_sight_is_not_yet_an_object(kind):
    frames = [([at(0)], [0.9])] * 3 + [([at(0), at(150)], [0.9, 0.9])] + [([at(0)], [0.9])] * 3
    ids = follow(kind(), frames)
    assert ids[3] == [1, -1]


@TRACKERS
def test_classes_do_not_take_each_others_ids(kind):
    tracker = kind()
    first = [tracker.update(as_detections([at(0)], [0.9], [0]), k / 30).tolist() for k in range(3)][-1]
    then = [tracker.update(as_detections([at(0)], [0.9], [1]), (3 + k) / 30).tolist() for k in range(3)][-1]
    assert first != then


@TRACKERS
def test_the_order_of_detections_does_not_matter(kind):
    frames = clip(3, 30, seconds=3)
    found = detections_of(frames, 3)
    rng = np.random.default_rng(0)
    turned = [(time, d[rng.permutation(len(d)).tolist()] if len(d) else d) for time, d in found]
    a, b = (track_metrics(truth_of(frames), tracked(kind(), rows)) for rows in (found, turned))
    assert a.hota == pytest.approx(b.hota, abs=1e-9)


@TRACKERS
def test_nothing_is_nothing(kind):
    assert follow(kind(), [([], [])] * 3) == [[], [], []]


def test_two_that_pass_each_other_keep_their_ways():
    """By motion: at the crossing the boxes lie on each other."""
    frames = [([at(10 + 4 * k, 50), at(210 - 4 * k, 52)], [0.9, 0.9]) for k in range(50)]
    for kind in (ByteTrack, OcSort):
        ids = follow(kind(), frames)
        assert ids[0] == ids[-1] == [1, 2]


def test_a_constant_speed_is_learned_and_gone_on_with():
    motion = Motion(np.array([0.0, 0, 20, 40]), 0.0)
    for k in range(1, 31):
        motion.predict(k / 30)
        motion.update(np.array([2.0 * k, k, 20 + 2 * k, 40 + k]))
    np.testing.assert_allclose(motion.predict(1.5), [90, 45, 110, 85], atol=1.0)


def test_a_filter_that_is_asked_twice_for_one_time_stays():
    motion = Motion(np.array([0.0, 0, 20, 40]), 0.0)
    first = motion.predict(0.5)
    covariance = motion.covariance.copy()
    np.testing.assert_array_equal(motion.predict(0.5), first)
    np.testing.assert_array_equal(motion.covariance, covariance)


def test_limits():
    for wrong in ({"high": 2.0}, {"patience": -1.0}, {"first_iou": float("nan")}):
        with pytest.raises(ConfigError, match="of a tracker"):
            TrackConfig(**wrong)


@pytest.mark.parametrize("rate", [30, 120, 240])
def test_the_way_so_far_is_measured_over_the_same_time_at_any_rate(rate):
    track = Track(1, 0, Motion(np.array([0.0, 0, 10, 10]), 0.0), 0.0)
    for k in range(rate):
        track.meet(np.array([k / rate * 60, 0, k / rate * 60 + 10, 10]), k / rate)
    assert track.history[-1][0] - track.history[0][0] >= 0.2
    assert len(track.history) <= max(9, 0.2 * rate + 2)
