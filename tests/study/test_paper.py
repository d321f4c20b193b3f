"""Studies from cached head outputs: equal to the decoder, and oracles and rows worked by hand."""

from dataclasses import replace

import pytest
import torch
from matching import assert_same_detections
from scripted import CLASSES, CONFIG, GREY, TRUTH, detector

from fcos.analysis.raw import Raw
from fcos.boxes import iou
from fcos.decode import decode_image
from fcos.errors import ConfigError
from fcos.inference.detector import Detector
from fcos.inference.proposals import proposer
from fcos.losses import centerness_target
from fcos.points import make_points
from fcos.study import centerness, oracle
from fcos.study.ablation import ladder
from fcos.study.cached import cache, own_iou, redecode
from fcos.study.centerness import centerness_study
from fcos.study.oracle import oracle_study
from fcos.study.proposals import proposals_study
from fcos.study.suppression import nms_study
from fcos.types import Predictions

LOOSE = CONFIG.override({"decode": {"threshold": 0.05}})


class Noise:
    """A network with random opinions."""

    def __init__(self, seed):
        g = torch.Generator().manual_seed(seed)
        count = len(make_points((128, 128), CONFIG.model, CONFIG.assign).xy)
        self.predictions = Predictions(
            torch.randn(1, count, 2, generator=g) * 2 - 2,
            torch.rand(1, count, 4, generator=g) * 40,
            torch.randn(1, count, generator=g),
        )

    def __call__(self, images):
        return self.predictions


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"score": "product", "nms_iou": 0.4},
        {"score": "class", "topk": 20},
        {"threshold_on": "score", "threshold": 0.3},
        {"nms": "agnostic", "clip": "after", "topk_by": "class", "topk": 30},
    ],
)
def test_the_cache_decodes_as_the_decoder(world, changes):
    data = world((*TRUTH, 0, 0))
    config = LOOSE.override({"decode": changes})
    network = Detector(Noise(1), config, CLASSES)
    cached, raw = cache(network, data)[0], Raw(network, GREY)
    for size in (raw.size, (64, 70)):  # in the second much of the input is padding
        found = redecode(replace(cached, size=size), config.decode)
        plain = decode_image(raw.predictions, raw.points, size, config.decode)
        assert len(plain) > 5
        assert_same_detections(found, plain, box=1e-3, score=1e-6)
        assert sorted(found.points.tolist()) == sorted(plain.points.tolist())
        if config.decode.clip == "after":  # what lies wholly in the padding has no area when it is cut
            assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()


DECODING = {"centerness": centerness_study, "nms": nms_study, "oracle": oracle_study}
ROWS = [
    ((44, 36), (20, 20, 60, 60), 0, 0.7, 0.6),
    ((28, 28), (24, 24, 64, 64), 0, 0.9, 0.9),  # sure, and badly placed
    ((100, 100), (90, 90, 120, 120), 1, 0.4, 0.9),  # nothing is there
]


def test_computed_centerness_is_that_of_the_predicted_box(world):
    c = cache(detector(ROWS), world((*TRUTH, 0, 0)))[0]
    row = int((c.probability - 0.7).abs().argmin())
    expected = centerness_target(torch.tensor([24.0, 16, 16, 24]))
    torch.testing.assert_close(centerness.centerness_of_box(c)[row], expected)


def test_oracles_by_hand(world):
    c = cache(detector(ROWS), world((*TRUTH, 0, 0)))[0]
    inside = c.owner == 0
    assert int(inside.sum()) == 16  # the points 28, 36, 44, 52 of P3; 20 and 60 lie on the edge
    assert not inside[c.spot == c.spot[int((c.probability - 0.4).abs().argmin())]].any()
    sure = oracle.true_class(c)
    assert sure.probability[inside].unique().tolist() == [1.0]
    assert oracle.true_class(replace(c, labels=c.labels + 1)).probability[inside].unique().tolist() == [0.0]
    centered = oracle.true_centerness(c)
    middle = (c.xy == torch.tensor([44.0, 36.0])).all(dim=1) & inside
    torch.testing.assert_close(centered.centerness[middle], centerness_target(torch.tensor([[24.0, 16, 16, 24]])))
    assert (oracle.true_box(c).boxes[inside] == torch.tensor([20.0, 20, 60, 60])).all()
    assert torch.equal(oracle.true_box(c).boxes[~inside], c.boxes[~inside])


def test_true_nms_keeps_one_box_for_each_object(world):
    data = world((*TRUTH, 0, 0), (26, 20, 66, 60, 0, 0))
    rows = [
        ((44, 36), (20, 20, 60, 60), 0, 0.5, 0.5),  # fits best, but the next has a better score
        ((36, 36), (21, 20, 60, 60), 0, 0.6, 0.6),
        ((44, 44), (26, 20, 66, 60), 0, 0.9, 0.9),  # overlaps its neighbour by 0.74
        ((100, 100), (90, 90, 120, 120), 0, 0.9, 0.2),
    ]
    c = cache(detector(rows), data)[0]
    plain = redecode(c, CONFIG.decode)
    assert len(plain) == 2  # the neighbour was lost
    mended = redecode(*oracle.perfect_nms(c, CONFIG))
    assert mended.boxes.round().tolist() == [[26, 20, 66, 60], [21, 20, 60, 60], [90, 90, 120, 120]]
    assert float(iou(mended.boxes[:1], mended.boxes[1:2])) > CONFIG.decode.nms_iou


def test_true_nms_keeps_a_box_that_the_limit_lets_through(world):
    """Where the best score has a class probability below the limit, the next one stays."""
    config = CONFIG.override({"decode": {"threshold": 0.5, "threshold_on": "class"}})
    rows = [((44, 36), (20, 20, 60, 60), 0, 0.45, 0.99), ((36, 36), (21, 20, 60, 60), 0, 0.6, 0.6)]
    c = cache(detector(rows), world((*TRUTH, 0, 0)))[0]
    assert redecode(*oracle.perfect_nms(c, config)).boxes.round().tolist() == [[21, 20, 60, 60]]


def test_the_iou_of_a_candidate_is_with_a_box_of_its_class(world):
    rows = [((44, 36), (20, 20, 60, 40), 0, 0.9, 0.5), ((36, 36), (20, 20, 60, 60), 1, 0.8, 0.5)]
    c = cache(detector(rows), world((*TRUTH, 0, 0)))[0]
    found = [round(float(own_iou(c)[(c.probability - p).abs().argmin()]), 4) for p in (0.9, 0.8)]
    assert found == [0.5, 0.0]


def test_every_study_gives_its_table(world, tmp_path):
    data = world((*TRUTH, 0, 0), (80, 80, 120, 120, 1, 0))
    cached = cache(detector(ROWS), data)
    tables = {}
    for name in ("centerness", "nms", "proposals", "oracle"):
        if name == "proposals":
            study = proposals(detector(ROWS), data)
        else:
            study = DECODING[name](cached, data, CONFIG)
        tables[name] = {r.name: r.numbers for r in study.rows}
        assert study.to_dict()["study"] == name
        assert name in study.text()
        study.plot(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    # the sure and badly placed box hides the good one
    assert tables["oracle"]["as predicted"]["AP75"] == 0.0
    assert tables["oracle"]["IoU as centerness"]["AP75"] == pytest.approx(0.5)
    assert tables["oracle"]["true box"]["AP75"] == pytest.approx(1.0)
    assert "33.5" in centerness_study(cached, data, CONFIG).text()
    advice = nms_study(cached, data, CONFIG).advice
    assert CONFIG.override(*advice.split())


def proposals(network, data, baselines=None):
    one, proposing = data.as_single_class(), proposer(network)
    return proposals_study(cache(proposing, one, 0.0), one, proposing.config, baselines)


def test_a_calibrated_detector_proposes_too():
    """Its lines are of classes, of which a proposer has one."""
    lines = [(1.0, -0.5), (1.1, -0.4)]
    known = LOOSE.override({"decode": {"calibration": lines, "calibrated": True}})
    found = proposer(Detector(Noise(2), known, CLASSES), most=20)(GREY)
    plain = proposer(Detector(Noise(2), LOOSE, CLASSES), most=20)(GREY)
    torch.testing.assert_close(found.scores, plain.scores)


def test_proposals_are_the_best_boxes_whatever_their_class_and_score(world):
    network = Detector(Noise(2), LOOSE, CLASSES)
    found = proposer(network, most=50)(GREY)
    assert len(found) == 50
    assert found.names == ("object",)
    p = Noise(2).predictions
    score = (p.logits[0].sigmoid().amax(dim=1) * p.centerness[0].sigmoid()).sqrt()
    torch.testing.assert_close(found.scores, score[found.points])
    best = int(score.argmax())
    assert int(found.points[0]) == best
    overlaps = iou(found.boxes, found.boxes).fill_diagonal_(0)
    assert float(overlaps.max()) <= LOOSE.decode.nms_iou  # of boxes of different classes too
    assert len(proposer(network)(GREY)) > len(network(GREY, score=0))


def test_the_study_of_proposals_counts_what_the_proposer_finds(world):
    data = world((*TRUTH, 0, 0), (80, 80, 120, 120, 1, 0))
    network = Detector(Noise(3), LOOSE, CLASSES)
    rows = {r.name: r.numbers for r in proposals(network, data, {"same": [proposer(network)(GREY)]}).rows}
    assert rows["same"] == pytest.approx(rows["FCOS"])
    assert rows["FCOS"]["AR@1000"] > 0


def test_an_empty_image_and_a_silent_network(world):
    data = world()
    cached = cache(detector([]), data)
    assert len(redecode(cached[0], CONFIG.decode)) == 0
    for name in ("centerness", "nms", "oracle"):
        assert DECODING[name](cached, data, CONFIG).to_dict()
    assert proposals(detector([]), data).to_dict()


def test_the_ladder_changes_one_thing_at_a_time():
    steps = ladder(CONFIG)
    assert [s[2] for s in steps] == [0.371, None, None, None, 0.387, 0.394]
    first, last = steps[0][1], steps[-2][1]
    assert (first.loss.box, first.model.centerness_on, first.assign.center_radius) == ("iou", "classification", 0)
    assert last.model_copy(update={"name": CONFIG.name}) == CONFIG
    assert steps[-1][1].loss.quality == "iou"
    assert all(s[1].train == CONFIG.train for s in steps)


def test_the_ablation_wants_a_batch_that_is_the_same_in_every_run(tmp_path):
    from fcos.study.ablation import ablation_study

    with pytest.raises(ConfigError, match=r"train\.batch=auto may differ from run to run; give a number"):
        ablation_study({}, CONFIG.override({"train": {"batch": "auto"}}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_ablation_trains_every_step(tmp_path):
    from tiny import make_shapes, tiny_config

    from fcos.data.open import open_splits
    from fcos.errors import FcosError
    from fcos.study.ablation import LADDER, ablation_study

    data = open_splits(make_shapes(tmp_path / "shapes", {"train": 8, "val": 4}))
    study = ablation_study(data, tiny_config(), tmp_path / "out", seeds=(0, 1), device="cpu")
    assert [s.name for s in study.steps] == [name for name, _, _ in LADDER]
    assert all(len(s.ap) == 2 for s in study.steps)
    assert (tmp_path / "out" / "ablation.txt").read_text() == study.text() + "\n"
    assert len(list((tmp_path / "out").glob("*-seed*/best.safetensors"))) == 2 * len(LADDER)
    study.plot(tmp_path / "ablation.png")

    # again: finished runs are read, one that stopped before it saved anything starts anew
    stopped = tmp_path / "out" / "0-seed1"
    for file in stopped.iterdir():
        if file.name != "config.yaml":
            file.unlink()
    settings = stopped / "config.yaml"
    text = settings.read_text()
    settings.write_text(text.replace("  linear_probe: 0\n", ""))  # an earlier version did not know it
    assert settings.read_text() != text
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*/report.html")}
    again = ablation_study(data, tiny_config(), tmp_path / "out", seeds=(0, 1), device="cpu")
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert (stopped / "report.html").exists()
    assert again.text() == study.text()
    with pytest.raises(FcosError, match="other settings"):
        ablation_study(data, tiny_config(train={"lr": 0.1}), tmp_path / "out", device="cpu")


@pytest.mark.parametrize("tile", [0, 64])
def test_a_run_of_the_ladder_that_was_killed_is_not_taken_for_finished(tmp_path, tile):
    """report.html is renewed while a run goes on; only result.json, the last file of a run, says that it has ended."""
    from tiny import make_shapes, tiny_config

    from fcos.data.open import open_splits
    from fcos.study.ablation import _run
    from fcos.study.cells import trained
    from fcos.training.loop import Trainer
    from fcos.training.output.checkpoint import checkpoints
    from fcos.training.output.folder import RunFolder

    data = open_splits(make_shapes(tmp_path / "shapes", {"train": 8, "val": 4, "test": 2}))
    config, folder, calls = tiny_config(train={"epochs": 2}, data={"tile": tile}), tmp_path / "run", []

    def make(config, data, options):
        calls.append(options)
        assert sorted(data) == ["train", "val"]
        return Trainer(config, data, options)

    trained(config, data, folder, "cpu", make)
    first = _run(config, data, folder, "cpu")
    assert calls[-1].init == "none"  # not from the bundled detector, which one step's rules have trained
    trained(config, data, folder, "cpu", make)
    assert len(calls) == 1  # it was read
    (folder / "result.json").unlink()
    assert (folder / "report.html").exists()
    trained(config, data, folder, "cpu", make)
    assert len(calls) == 2
    assert calls[-1].resume
    assert _run(config, data, folder, "cpu") == first
    assert RunFolder(folder, write=False).finished()
    assert len(checkpoints(folder)) == 1


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_run_of_other_labels_is_not_read_as_one_of_these(tmp_path, split):
    from tiny import make_shapes, relabel, tiny_config

    from fcos.data.open import open_splits
    from fcos.study.cells import trained
    from fcos.training.loop import Trainer

    folder, calls = make_shapes(tmp_path / "shapes", {"train": 4, "val": 2}), []
    config = tiny_config(train={"iterations": 1})

    def make(*parts):
        calls.append(parts)
        return Trainer(*parts)

    def again():
        return trained(config, open_splits(folder), tmp_path / "run", "cpu", make)

    again()
    again()
    assert len(calls) == 1
    relabel(folder, split)
    with pytest.raises(ConfigError, match=rf"run of other data: images or labels of {split} changed; give another"):
        again()
    (tmp_path / "run" / "result.json").unlink()  # killed before its end: half of it learned the old labels
    with pytest.raises(ConfigError, match="other data"):
        again()
    relabel(folder, split)
    again()
    assert len(calls) == 2


def test_the_truth_does_not_choose_who_is_detected(world):
    """Network outputs below a hundredth: a study finds what the decoder finds, no true pair without its rivals."""
    data = world((*TRUTH, 0, 0))
    low = Noise(4)
    low.predictions = low.predictions._replace(logits=low.predictions.logits - 6)  # most below a hundredth
    for changes in ({"threshold": 0.001}, {"threshold": 0.04, "threshold_on": "score"}, {"threshold": 0.0}):
        network = Detector(low, LOOSE.override({"decode": changes}), CLASSES)
        raw = Raw(network, GREY)
        expected = decode_image(raw.predictions, raw.points, raw.size, network.config.decode)
        assert len(expected)
        assert_same_detections(redecode(cache(network, data)[0], network.config.decode), expected)
    network = Detector(low, LOOSE.override({"decode": {"threshold": 0.001}}), CLASSES)
    kept = cache(network, data, 0.01)[0]  # more than is asked for is not there, the true ones neither
    strict = network.config.override({"decode": {"threshold": 0.01}}).decode
    assert_same_detections(redecode(kept, network.config.decode), redecode(kept, strict))


def test_where_nothing_differs_the_present_settings_are_advised(world):
    """A detector that finds nothing has the same AP under every rule."""
    data = world((100.0, 100.0, 101.0, 101.0, 0, 0))
    config = CONFIG.override("decode.nms_iou=0.55", "decode.threshold=0.1")
    advice = nms_study(cache(Detector(Noise(1), config, CLASSES), data), data, config).advice.split()
    assert "decode.nms_iou=0.55" in advice
    assert "decode.threshold=0.1" in advice


def test_data_without_objects_advises_no_setting(world):
    data = world()
    bare = replace(
        data,
        records=tuple(replace(r, boxes=r.boxes[:0], labels=r.labels[:0], ignore=r.ignore[:0]) for r in data.records),
    )
    study = nms_study(cache(Detector(Noise(1), CONFIG, CLASSES), bare), bare, CONFIG)
    assert study.advice == ""
    assert "no objects to judge by" in study.text()
    assert "best setting" not in study.text()


def test_rules_are_compared_at_one_limit_of_the_class(world):
    """A limit on the root of class and centerness is another one for the product, which ranks as the root does."""
    data = world((*TRUTH, 0, 0))
    config = LOOSE.override({"decode": {"threshold_on": "score", "threshold": 0.3}})
    cached = cache(Detector(Noise(1), config, CLASSES), data)
    study = nms_study(cached, data, config)
    rows = {r.name: r.numbers for r in study.rows}
    assert rows["cls*ctr"] == rows["sqrt(cls*ctr)"]
    assert "decode.threshold_on=class" in study.advice.split()
    assert "decode.threshold_on=class" not in nms_study(cached, data, LOOSE).advice.split()
    by_class = config.override({"decode": {"threshold_on": "class", "threshold": 0.3**2}})
    for mine, other in zip(*(centerness_study(cached, data, c).rows for c in (config, by_class)), strict=True):
        assert mine.numbers == other.numbers
