"""Several views of an image: what they are, and their boxes put together by hand-worked cases."""

import numpy as np
import pytest
import torch

from fcos.detections import Detections
from fcos.errors import ConfigError
from fcos.inference.composite import Looks, compose
from fcos.inference.load import load
from fcos.inference.views import View, fuse, fuse_boxes, mirror, parse_views


def rows(*detections):
    boxes, scores, labels = zip(*detections, strict=True) if detections else ((), (), ())
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64)


def test_what_is_asked_for():
    assert parse_views("flip") == (View(), View(True))
    assert parse_views("0.8,1.2") == (View(), View(False, 0.8), View(False, 1.2))
    assert parse_views("flip,1.5") == (View(), View(True), View(False, 1.5), View(True, 1.5))
    assert parse_views("1") == (View(),)


@pytest.mark.parametrize("text", ["flop", "0.01", "9", "nan", "1e9"])
def test_what_cannot_be_asked_for(text):
    with pytest.raises(ConfigError, match="--tta"):
        parse_views(text)


def test_boxes_of_one_object_become_their_mean_by_score():
    """(0.9 * 10 + 0.3 * 14) / 1.2 = 11; the score is the mean, 0.6, and both of two views saw it."""
    boxes, scores, labels = fuse_boxes([rows(([10, 10, 50, 50], 0.9, 0)), rows(([14, 10, 54, 50], 0.3, 0))], 0.55)
    np.testing.assert_allclose(boxes, [[11, 10, 51, 50]], rtol=1e-6)
    np.testing.assert_allclose(scores, [0.6], rtol=1e-6)
    assert labels.tolist() == [0]


def test_what_one_of_three_views_saw_keeps_a_third_of_its_score():
    _, scores, _ = fuse_boxes([rows(([0, 0, 9, 9], 0.9, 1)), rows(), rows()], 0.55)
    np.testing.assert_allclose(scores, [0.3], rtol=1e-6)


def test_one_view_comes_back_as_it_is():
    view = rows(([0, 0, 10, 10], 0.9, 0), ([0, 0, 10, 10.5], 0.7, 0), ([0, 0, 10.5, 10], 0.5, 1))
    for got, put in zip(fuse_boxes([view], 0.55), view, strict=True):
        np.testing.assert_allclose(got, put, rtol=1e-6)


def test_weak_neighbours_do_not_pull_a_sure_object_down():
    """Both views are sure of one object, 0.9 and 0.8, and keep a weaker box beside it, 0.2: the mean is 0.85."""
    sure, beside = [0, 0, 10, 10], [0, 0, 10, 14]
    views = [rows((sure, 0.9, 0), (beside, 0.2, 0)), rows((sure, 0.8, 0), (beside, 0.2, 0))]
    boxes, scores, _ = fuse_boxes(views, 0.55)
    np.testing.assert_allclose(scores, [0.85, 0.2], rtol=1e-6)
    np.testing.assert_allclose(boxes, [sure, beside], rtol=1e-6)


def test_classes_and_distant_boxes_stay_apart():
    views = [rows(([0, 0, 10, 10], 0.9, 0), ([50, 50, 60, 60], 0.6, 0)), rows(([0, 0, 10, 10], 0.7, 1))]
    boxes, scores, labels = fuse_boxes(views, 0.55)
    assert labels.tolist() == [0, 1, 0]
    np.testing.assert_allclose(scores, [0.45, 0.35, 0.3], rtol=1e-6)
    np.testing.assert_allclose(boxes, [[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]], rtol=1e-6)


def test_what_views_saw_together_keeps_the_ids_of_the_classes():
    detector = load("fcos-lite0", runtime="torch", device="cpu")
    image = np.zeros((64, 64, 3), np.uint8)
    plain = detector(image, score=0.0)
    (seen,) = compose([detector], Looks(views=parse_views("flip"))).detect([image], [None])
    assert seen.ids == plain.ids == detector.classes.ids


def test_agnostic_nms_holds_after_several_looks():
    """Two classes in one place, each seen by one view: by class both stay, as one class the stronger."""
    detector = load("fcos-lite0", runtime="torch", device="cpu")
    views = [
        Detections(
            torch.tensor([[0.0, 0, 50, 50]]), torch.tensor([s]), torch.tensor([k]), torch.tensor([0]), size=(64, 64)
        )
        for s, k in ((0.9, 3), (0.8, 5))
    ]
    assert fuse(views, detector).labels.tolist() == [3, 5]
    agnostic = detector.replace(config=detector.config.override("decode.nms=agnostic"))
    assert fuse(views, agnostic).labels.tolist() == [3]
    few = detector.replace(config=detector.config.override("decode.max_detections=1"))
    assert fuse(views, few).labels.tolist() == [3]


def test_nothing_seen_is_nothing():
    boxes, scores, labels = fuse_boxes([rows(), rows()], 0.55)
    assert boxes.shape == (0, 4)
    assert len(scores) == len(labels) == 0


def test_mirrored_boxes_come_back():
    seen = Detections(torch.tensor([[10.0, 5, 30, 9]]), torch.ones(1), torch.zeros(1).long(), torch.zeros(1).long())
    assert mirror(seen, 100).boxes.tolist() == [[70, 5, 90, 9]]
    assert torch.equal(mirror(mirror(seen, 100), 100).boxes, seen.boxes)
