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
@pytest.mark.parametrize(("gap", "score", "number"), [(0, 0.9, 2), (0, 0.4, -1), (1, 0.9, -1), (6, 0.9, -1)])
def test_one_sight_is_not_yet_an_object(kind, gap, score, number):
    """It becomes one with a sure sight in the next frame."""
    one = [([at(0)], [0.9])]
    ids = follow(kind(), one * 3 + [([at(0), at(150)], [0.9, 0.9])] + one * gap + [([at(0), at(150)], [0.9, score])])
    assert ids[3] == [1, -1]
    assert ids[-1] == [1, number]


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


def test_ocsort_prefers_the_direction_of_before():
    """Ten pixels back from where the object is expected, or eleven ahead of it."""
    frames = [([at(6 * k, size=40)], [0.9]) for k in range(10)]
    both = [([at(60 - 10, size=40), at(60 + 11, size=40)], [0.9, 0.9])]
    assert follow(ByteTrack(), frames + both)[-1] == [1, -1]
    assert follow(OcSort(), frames + both)[-1] == [-1, 1]


def test_ocsort_finds_an_object_where_it_was_last_seen():
    """It stopped while it was hidden, so it is expected 72 pixels further on."""
    tracker = OcSort()
    seen, there = [([at(6 * k)], [0.9]) for k in range(15)], [([at(84)], [0.9])]
    assert follow(tracker, seen + [([], [])] * 12 + there)[-1] == [1]
    assert len(tracker.tracks) == 1


def test_after_a_blind_time_ocsort_moves_as_if_it_had_seen_the_line_between():
    """A box goes to the right, and then down, seen there or hidden until the last frame."""
    way = [at(3 * k, size=60) for k in range(30)] + [at(87, 50 + 3 * k, size=60) for k in range(1, 14)]
    motions = []
    for hidden in (range(0), range(30, 42)):
        tracker = OcSort()
        follow(tracker, [([], []) if k in hidden else ([box], [0.9]) for k, box in enumerate(way)])
        motions.append(tracker.tracks[0].motion)
    np.testing.assert_allclose(motions[1].mean, motions[0].mean, atol=1e-6)
    np.testing.assert_allclose(motions[1].covariance, motions[0].covariance, atol=1e-6)


def test_a_constant_speed_is_learned_and_gone_on_with():
    motion = Motion(np.array([0.0, 0, 20, 40]), 0.0)
    for k in range(1, 31):
        motion.predict(k / 30)
        motion.update(np.array([2.0 * k, k, 20 + 2 * k, 40 + k]))
    np.testing.assert_allclose(motion.predict(1.5), [90, 45, 110, 85], atol=1.0)


@pytest.mark.parametrize("time", [0.5, 0.4])
def test_a_filter_that_is_asked_for_a_time_that_is_over_stays(time):
    motion = Motion(np.array([0.0, 0, 20, 40]), 0.0)
    first = motion.predict(0.5)
    covariance = motion.covariance.copy()
    np.testing.assert_array_equal(motion.predict(time), first)
    np.testing.assert_array_equal(motion.covariance, covariance)


def test_the_noise_of_a_motion_grows_with_time_and_height():
    """Not with the number of frames, nor with the width."""

    def covariances(width, height, times):
        motion = Motion(np.array([0.0, 0, width, height]), 0.0)
        for time in times:
            motion.predict(time)
        expected = motion.covariance
        motion.update(motion.box)
        return np.stack((expected, motion.covariance))

    once, often = covariances(20, 40, [1.0]), covariances(20, 40, np.arange(1, 31) / 30)
    np.testing.assert_allclose(often[0, 4:, 4:], once[0, 4:, 4:])
    np.testing.assert_allclose(covariances(80, 40, [1.0]), once)
    np.testing.assert_allclose(covariances(20, 80, [1.0]), 4 * once)


def test_a_box_that_shrinks_stays_a_box():
    motion = Motion(np.array([0.0, 0, 64, 64]), 0.0)
    for k in range(1, 11):
        motion.predict(k / 30)
        motion.update(np.array([0.0, 0, 64 - 4 * k, 64 - 4 * k]))
    for time in (2, 3):
        x1, y1, x2, y2 = motion.predict(time)
        assert (x2 - x1, y2 - y1) == pytest.approx((1, 1))


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
