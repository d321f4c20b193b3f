"""Several looks at one image stand where a detector does."""

import numpy as np
import pytest
import torch
from matching import assert_same_detections
from tiny import NAMES, tiny_config

from fcos.errors import ConfigError, DataError
from fcos.inference.composite import Composite, Looks, compose
from fcos.inference.detector import Detector
from fcos.inference.views import View, at_scale, parse_views, through
from fcos.network import weights
from fcos.types import Classes


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    config = tiny_config(decode={"threshold": 0.0})
    return Detector(weights.build(config, len(NAMES)).eval(), config, Classes(NAMES))


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (120, 150, 3), dtype=np.uint8)


def test_plain_looks_are_the_detector_bit_for_bit(detector, image):
    (alone,) = detector.detect([image], ["a"])
    (seen,) = Composite((detector,)).detect([image], ["a"])
    for key in ("boxes", "scores", "labels", "points"):
        assert torch.equal(getattr(alone, key), getattr(seen, key))
    assert seen.source == "a"


def test_one_tile_is_the_detector_bit_for_bit(detector, image):
    (alone,) = detector.detect([image], ["a"])
    (seen,) = Composite((detector,), Looks(tile=500)).detect([image], ["a"])
    assert torch.equal(alone.boxes, seen.boxes)
    assert torch.equal(alone.scores, seen.scores)


def test_a_mirrored_view_of_a_mirrored_image_is_the_plain_view(detector, image):
    turned = np.ascontiguousarray(image[:, ::-1])
    a, b = through(detector, image, View(True)), through(detector, turned, View())
    back = 150 - b.boxes[:, [2, 1, 0, 3]]
    back[:, 1::2] = b.boxes[:, 1::2]
    torch.testing.assert_close(a.boxes, back)


def test_a_model_beside_itself_changes_nothing_under_nms(detector, image):
    (alone,) = detector.detect([image], [None])
    (both,) = Composite((detector, detector), Looks(fusion="nms")).detect([image], [None])
    assert_same_detections(both, alone)


def test_every_view_takes_part(detector, image):
    (seen,) = Composite((detector,), Looks(views=parse_views("flip,0.5"))).detect([image], [None])
    assert 0 < len(seen) <= detector.config.decode.max_detections
    assert seen.size == (120, 150)
    least = float(seen.scores.median())
    (sure,) = Composite((detector,), Looks(views=parse_views("flip,0.5"))).detect([image], [None], score=least)
    assert sure == seen[seen.scores >= least]
    assert 0 < len(sure) < len(seen)


def test_tiles_and_views_together(detector, image):
    (seen,) = Composite((detector,), Looks(tile=64, views=parse_views("flip"))).detect([image], [None], score=0.0)
    assert len(seen) > 0
    assert bool((seen.boxes[:, 2] <= 150 + 1e-3).all())


def test_classes_in_another_order_are_matched_by_name(detector, image):
    turned = detector.replace(classes=Classes(tuple(reversed(NAMES))))
    (seen,) = Composite((detector, turned)).detect([image], [None])
    assert set(seen.labels.tolist()) <= set(range(len(NAMES)))
    with pytest.raises(DataError, match="does not know"):
        Composite((detector, detector.replace(classes=Classes(("x", *NAMES[1:]))))).detect([image], [None])


def test_classes_that_the_first_model_lacks_count_as_nothing(detector, image):
    more = detector.replace(classes=Classes(("only here", *NAMES[1:])))
    few = detector.replace(classes=Classes(NAMES[1:]), network=_less(detector))
    (seen,) = compose((few, more), Looks(fusion="nms")).detect([image], [None])
    assert len(seen) > 0
    assert set(seen.labels.tolist()) == {0}
    with pytest.raises(DataError, match=f"model 2 of 2 does not know '?{NAMES[0]}"):
        compose((detector, few), Looks())  # before the first image


def _less(detector):
    torch.manual_seed(1)
    return weights.build(detector.config, len(NAMES) - 1).eval()


def test_a_fixed_size_takes_no_scales(detector):
    with pytest.raises(ConfigError, match="no scales"):
        at_scale(detector.replace(size=(64, 64)), 1.2)


def test_models_that_look_together_score_by_the_rule_of_the_first(detector, image):
    other = detector.replace(config=detector.config.override("decode.score=product"))
    root = detector.replace(config=detector.config.override("decode.score=power", "decode.power=0.7"))
    for first, second in ((detector, other), (other, detector), (root, detector), (root, other)):
        (alone,) = first.detect([image], [None])
        (both,) = compose([first, second], Looks(fusion="nms")).detect([image], [None])
        assert_same_detections(both, alone)


def test_probabilities_are_not_mixed_with_scores(detector, image):
    line = {"calibration": ((1.5, -0.5),), "calibrated": True}
    sure = detector.replace(config=detector.config.override({"decode": line}))
    assert compose([detector, sure], Looks()).detectors[1].config.decode.calibrated is False
    plain = detector.replace(config=sure.config.override("decode.calibrated=false"))
    assert compose([sure, plain], Looks()).detectors[1].config.decode.calibrated is True
    with pytest.raises(DataError, match="model 2 of 2 has no probabilities"):
        compose([sure, detector], Looks())
    other = sure.config.override("decode.score=product", {"decode": line})
    with pytest.raises(DataError, match=r"no probabilities of decode\.score=sqrt"):
        compose([sure, detector.replace(config=other)], Looks())


def test_a_branch_that_nothing_has_trained_scores_nothing(detector):
    other = detector.replace(config=detector.config.override("loss.centerness_weight=0", "decode.score=class"))
    with pytest.raises(DataError, match=r"model 2 of 2 has a centerness branch that nothing has trained.*score=class"):
        compose([detector, other], Looks())
    by_class = detector.replace(config=detector.config.override("decode.score=class"))
    assert compose([by_class, other], Looks()).detectors[1] is other
    untrained = detector.replace(config=detector.config.override("loss.centerness_weight=0"))
    assert compose([by_class, untrained], Looks()).detectors[1].config.decode.score == "class"
