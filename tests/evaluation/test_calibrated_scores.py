"""Scores that become probabilities: the line that is fitted, what it does to detections, and where it is kept."""

import numpy as np
import pytest
import torch
from judging import dataset, found, record
from tiny import equal_states, fcos, learn, make_shapes, tiny_config

from fcos.config import Config, DecodeConfig
from fcos.data.open import open_splits
from fcos.decode import calibrated
from fcos.errors import ConfigError, DataError, ModelError
from fcos.evaluation.calibration import _line, calibration, fit
from fcos.evaluation.coco import as_one_class, evaluate
from fcos.evaluation.program import detect
from fcos.inference.load import load
from fcos.network.weights import header, read


def test_the_line_is_the_one_the_outcomes_were_drawn_from():
    rng = np.random.default_rng(0)
    logits = rng.normal(-1, 2, 40_000)
    right = rng.random(40_000) < 1 / (1 + np.exp(-(0.6 * logits - 0.8)))
    assert _line(logits, right, (1.0, 0.0), 1e-3) == pytest.approx((0.6, -0.8), abs=0.05)


def test_few_detections_keep_the_line_of_all():
    assert _line(np.zeros(0), np.zeros(0, bool), (0.7, -0.2), 10.0) == pytest.approx((0.7, -0.2))
    slope, offset = _line(np.array([2.0]), np.array([False]), (0.7, -0.2), 10.0)
    assert 0.5 < slope < 0.7
    assert -0.4 < offset < -0.2


def test_an_order_upside_down_is_not_followed():
    """All detections get about the same chance: the share that is right."""
    for logits in (np.linspace(-3, 3, 400), np.linspace(1, 7, 400), np.linspace(-9, -3, 400)):
        for share in (0.1, 0.5, 0.9):
            right = logits < np.quantile(logits, share)
            slope, offset = _line(logits, right, (1.0, 0.0), 1e-3)
            assert slope > 0
            chances = 1 / (1 + np.exp(-(slope * logits + offset)))
            assert chances.mean() == pytest.approx(share, abs=0.01)
            assert np.ptp(chances) < 0.02


def test_steps_that_would_go_too_far_are_shortened():
    """Three of four sure detections are wrong: Newton's first step, from where all chances are nearly 1, leads to a
    slope of thousands. The gradient is zero where the line is the most likely one."""
    scores = np.array([0.999, 0.998, 0.9995, 0.999, 0.01, 0.02])
    logits, right = np.log(scores) - np.log1p(-scores), np.array([0, 0, 0, 1, 0, 0])
    slope, offset = _line(logits, right == 1, (1.0, 0.0), 1e-3)
    away = 1 / (1 + np.exp(-(slope * logits + offset))) - right
    assert away @ logits + 1e-3 * (slope - 1) == pytest.approx(0, abs=1e-6)
    assert away.sum() + 1e-3 * offset == pytest.approx(0, abs=1e-6)


def test_each_class_has_its_line():
    cfg = DecodeConfig(calibration=((1.0, 0.0), (2.0, -1.0)), calibrated=True)
    scores, labels = torch.tensor([0.5, 0.5, 0.9]), torch.tensor([0, 1, 1])
    wanted = [0.5, 1 / (1 + np.exp(1)), 1 / (1 + np.exp(1) / 81)]  # logit(0.9) = log 9, twice that: 81
    assert calibrated(scores, labels, cfg).tolist() == pytest.approx(wanted, abs=1e-5)
    one = DecodeConfig(calibration=((2.0, -1.0),), calibrated=True)
    assert calibrated(scores, labels, one)[1:].tolist() == pytest.approx(wanted[1:], abs=1e-5)
    assert calibrated(torch.zeros(0), torch.zeros(0, dtype=torch.int64), cfg).shape == (0,)


def test_a_model_that_was_never_calibrated_says_so():
    with pytest.raises(ConfigError, match="fcos models pack --calibrate"):
        Config().override("decode.calibrated=true")


def test_the_calibration_of_one_kind_of_score_is_not_kept_for_another():
    known = Config().override({"decode": {"calibration": [(0.6, -0.8)], "calibrated": True}})
    assert known.override("decode.nms_iou=0.5").decode.calibration == ((0.6, -0.8),)
    with pytest.raises(ConfigError, match=r"decode\.score=product"):
        known.override("decode.score=product")
    plain = known.override("decode.score=product", "decode.calibrated=false").decode
    assert (plain.calibrated, plain.calibration) == (False, ())
    power = known.override("decode.score=power", "decode.power=0.3", {"decode": {"calibration": [(0.5, 0.0)]}})
    assert power.decode.calibration == ((0.5, 0.0),)
    with pytest.raises(ConfigError, match="never calibrated"):
        power.override("decode.power=0.4")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrated")
    data = make_shapes(folder / "shapes", {"train": 12, "val": 10})
    config = tiny_config(model={"backbone_norm": "batch"}, decode={"threshold": 0.001})
    learn(config, {"train": open_splits(data)["train"]}, folder / "run")
    return folder


def test_packed_calibrated_and_asked_for(work, capsys, tmp_path):
    out = tmp_path / "model.safetensors"
    code, _, err = fcos(capsys, "models", "pack", work / "run", out, "--calibrate", work / "shapes", "--split", "val")
    assert code == 0, err
    data = open_splits(work / "shapes")["val"]
    plain = load(out, device="cpu")
    assert header(out)[2]["calibrated_on"] == "10 images of shapes, val"
    asked = load(out, device="cpu", overrides=["decode.calibrated=true"])
    raw, _ = detect(plain, data)
    probable, _ = detect(asked, data)
    assert calibration(probable, data).ece < calibration(raw, data).ece
    for a, b in zip(raw, probable, strict=True):  # the same boxes, each with another score, best first
        assert sorted(a.boxes.tolist()) == sorted(b.boxes.tolist())
        assert b.scores.tolist() == sorted(b.scores.tolist(), reverse=True)
    with pytest.raises(ModelError, match="5 lines"):
        asked.replace(config=asked.config.override({"decode": {"calibration": [[1, 0]] * 5}}))


def test_packing_again_adds_lines_and_changes_nothing_else(work, capsys, tmp_path):
    """As the files of the package get theirs: weights bit-equal, and settings and facts but for the calibration."""
    file = tmp_path / "shipped.safetensors"
    assert fcos(capsys, "models", "pack", work / "run", file, "--licence", "Apache-2.0")[0] == 0
    state, config, classes, about = read(file)
    again = tmp_path / "again.safetensors"
    data = open_splits(work / "shapes")["val"]
    before, _ = detect(load(file, device="cpu"), data)
    code, _, err = fcos(capsys, "models", "pack", file, again, "--calibrate", work / "shapes", "--split", "val")
    assert code == 0, err
    same, changed, same_classes, told = read(again)
    assert equal_states(state, same)
    assert {k: v.dtype for k, v in state.items()} == {k: v.dtype for k, v in same.items()}
    assert same_classes == classes
    assert {k: v for k, v in told.items() if k != "calibrated_on"} == about
    assert len(changed.decode.calibration) == 2
    assert changed.override({"decode": {"calibration": []}}) == config
    assert changed.decode.shown == config.decode.shown
    after, _ = detect(load(again, device="cpu"), data)
    for a, b in zip(before, after, strict=True):  # nobody asked for probabilities
        assert torch.equal(a.scores, b.scores)
        assert torch.equal(a.boxes, b.boxes)
    probable, _ = detect(load(again, device="cpu", overrides=["decode.calibrated=true"]), data)
    assert evaluate(probable, data).ap == pytest.approx(evaluate(before, data).ap, abs=1e-9)  # the order within a class
    photo = data.records[0].path
    asked = ("predict", photo, "--score", "0", "--json", "--device", "cpu", "--model")
    spoken = fcos(capsys, *asked, again, "--calibrated")[1]
    assert spoken == fcos(capsys, *asked, again, "decode.calibrated=true")[1]
    assert spoken != fcos(capsys, *asked, again)[1]
    code, _, err = fcos(capsys, *asked, file, "--calibrated")
    assert (code, "never calibrated; see fcos models pack --calibrate" in err) == (2, True)
    card = tmp_path / "card.md"
    assert fcos(capsys, "models", "card", again, card)[0] == 0
    assert "fitted on 10 images of shapes, val" in card.read_text()


def test_a_class_has_its_line_however_its_name_is_written():
    """'Traffic Light' of the model is 'traffic_light' of the data, as in detection."""
    rng = np.random.default_rng(3)
    boxes = [[0, 0, 10, 10], [100, 0, 110, 10]]
    data = dataset(*(record(k, boxes, [0, 1]) for k in range(200)), names=("traffic_light", "Dog"))
    results = []
    for _ in range(200):  # most of the first class is wrong, most of the second right
        place = [
            [0, 0, 10, 10] if rng.random() < 0.1 else [50, 50, 60, 60],
            boxes[1] if rng.random() < 0.9 else [0] * 4,
        ]
        results.append(found(place, rng.uniform(0.4, 0.6, 2).tolist(), [0, 1]))
    lines = fit(results, data, ("dog", "Traffic Light", "zebra"))
    assert lines[:2] == fit(results, data, ("Dog", "traffic_light"))
    assert lines[0] != lines[1]
    assert lines[2] not in lines[:2]
    (everyone,) = fit(*as_one_class(results, data), data.as_single_class().classes.names)
    assert lines[2] == pytest.approx(everyone, abs=0.01)


def test_nothing_right_cannot_be_calibrated(work):
    data = open_splits(work / "shapes")["val"]
    names = data.classes.names
    with pytest.raises(DataError, match="none is right"):
        fit([d[:0] for d in detect(load(work / "run", device="cpu"), data)[0]], data, names)
