"""RetinaNet and RPN on FCOS's body: their losses and boxes against torchvision's own classes, and the study itself."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import fcos, make_shapes, options, relabel, tiny_config
from torch import nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from fcos.data.open import open_splits
from fcos.errors import FcosError
from fcos.presets import preset
from fcos.study.rivals import RPN, RetinaNet, RivalTrainer, rival
from fcos.study.versus import Plan, _Run, methods, versus_study
from fcos.study.versus_table import Cell, Cost, Method, MethodRow, VersusStudy
from fcos.system.files import sources_kept
from fcos.types import Batch, Target

CONFIG = tiny_config()
SCALES = tuple((4 * s, 4 * s * 2 ** (1 / 3), 4 * s * 2 ** (2 / 3)) for s in (8, 16))
IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 64, 96), dtype=np.uint8))
SIZES = [(64, 96), (64, 96)]
TARGETS = [
    Target(torch.tensor([[4.0, 6.0, 40.0, 50.0], [30, 20, 90, 60]]), torch.tensor([1, 0]), torch.zeros(2).bool()),
    Target.empty(),
]
TOLD = [{"boxes": t.boxes, "labels": t.labels} for t in TARGETS]


class Body(nn.Module):
    """The features of a rival as torchvision asks for them: from pixels it has brought to 0..1 and normalised."""

    def __init__(self, network):
        super().__init__()
        self.network, self.out_channels = network, 16

    def forward(self, x):
        return dict(enumerate(self.network.fpn(self.network.backbone(x))))


@pytest.mark.parametrize("strong", [False, True])
def test_retinanet_is_torchvisions_class_with_our_body(strong):
    torch.manual_seed(0)
    network = RetinaNet(CONFIG.model, 2, strong=strong).train()
    network.backbone.eval()  # batch statistics would differ between two passes
    mean, std = ([v / 255 for v in values] for values in (CONFIG.model.mean, CONFIG.model.std))
    theirs = TorchvisionRetinaNet(
        Body(network), 2, min_size=64, max_size=96, image_mean=mean, image_std=std, head=network.head.inner,
        anchor_generator=AnchorGenerator(SCALES, ((0.5, 1.0, 2.0),) * 2), score_thresh=0.05,
        nms_thresh=0.6 if strong else 0.5, detections_per_img=100,
    )  # fmt: skip
    theirs.train()
    network.backbone.eval()
    expected = theirs([image / 255 for image in IMAGES], [dict(t) for t in TOLD])
    ours = network.losses(network(IMAGES), network.shapes(IMAGES), TARGETS)
    torch.testing.assert_close(ours[0], expected["classification"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours[1], expected["bbox_regression"], rtol=1e-4, atol=1e-6)
    assert ours[1] > 0

    nn.init.constant_(network.head.inner.classification_head.cls_logits.bias, -1.0)  # it detects much then
    nn.init.normal_(network.head.inner.classification_head.cls_logits.weight, std=0.2)
    network.eval(), theirs.eval()
    with torch.inference_mode():
        found = network.find(network(IMAGES), network.shapes(IMAGES), SIZES)
        wanted = theirs([image / 255 for image in IMAGES])
    for mine, other in zip(found, wanted, strict=True):
        assert len(mine) == len(other["scores"]) > 3
        torch.testing.assert_close(mine.scores, other["scores"], rtol=1e-3, atol=1e-5)
        best = other["scores"].argmax()  # near-ties may change places
        assert ((mine.boxes - other["boxes"][best]).abs().amax(dim=1) < 0.1).any()


def test_the_rpn_is_torchvisions_class_with_our_body():
    torch.manual_seed(0)
    network = RPN(CONFIG.model).train()
    network.backbone.eval()
    sizes = tuple((4.0 * s,) for s in (8, 16))
    many = {"training": 1000, "testing": 1000}
    theirs = RegionProposalNetwork(
        AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 2), RPNHead(16, 3), 0.7, 0.3, 256, 0.5, many, many, 0.7
    )
    theirs.head.load_state_dict(network.head.inner.state_dict())
    features = dict(enumerate(network.features(IMAGES)))
    images = ImageList(IMAGES, SIZES)
    torch.manual_seed(1)  # it samples anchors
    _, expected = theirs(images, features, [dict(t) for t in TOLD])
    torch.manual_seed(1)
    ours = network.losses(network(IMAGES), network.shapes(IMAGES), TARGETS)
    torch.testing.assert_close(ours[0], expected["loss_objectness"])
    torch.testing.assert_close(ours[1], expected["loss_rpn_box_reg"])
    theirs.eval()
    with torch.inference_mode():
        proposals, _ = theirs(images, features)
        found = network.propose(network(IMAGES), network.shapes(IMAGES), SIZES)
    for mine, boxes in zip(found, proposals, strict=True):
        assert mine.boxes.shape == boxes.shape
        torch.testing.assert_close(mine.boxes.sort(dim=0).values, boxes.sort(dim=0).values, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", ["retinanet", "rpn"])
def test_anchors_inside_a_box_to_ignore_teach_nothing(kind):
    """With all of the image ignored, and no other box, there is nothing to learn: neither objects nor background."""
    network = rival(kind, CONFIG, 2).eval()
    whole = Target(torch.tensor([[-1.0, -1.0, 97.0, 65.0]]), torch.tensor([0]), torch.tensor([True]))
    pred, shapes = network(IMAGES[:1]), network.shapes(IMAGES[:1])
    half = Target(torch.tensor([[-1.0, -1.0, 48.0, 65.0]]), torch.tensor([0]), torch.tensor([True]))
    nothing, some, everything = (
        network.losses(pred, shapes, [t])[0].nan_to_num(0).item() for t in (whole, half, Target.empty())
    )
    assert nothing == 0
    assert everything > 0
    assert some < everything or kind == "rpn"  # a mean over 256 sampled anchors does not shrink


def test_a_step_in_parts_is_the_step_of_their_mean():
    """Two parts that are alike give the gradient of one of them."""
    config = tiny_config()
    network = rival("retinanet", config, 2)
    fabric = SimpleNamespace(no_backward_sync=lambda *_, **__: nullcontext(), backward=lambda loss: loss.backward())
    run = SimpleNamespace(fabric=fabric, config=config, model=network, network=network, classes=("disc", "square"))
    gradients = []
    for parts in (1, 2):
        network.zero_grad()
        RivalTrainer.learn(run, [Batch(IMAGES, SIZES, TARGETS)] * parts)
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_rivals_run_goes_on_to_the_same_weights(tmp_path):
    data = open_splits(make_shapes(tmp_path / "shapes", {"train": 8}))
    config = tiny_config(train={"iterations": 4, "save_every": 2, "ema": 0.5})

    def make(out, **more):
        return RivalTrainer(lambda: rival("retinanet", config, 2), config, data, options(out, **more))

    whole = make(tmp_path / "whole")
    whole.run()

    class Killed(Exception):
        pass

    def kill(step, report):
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        make(tmp_path / "cut", on_step=kill).run()
    again = make(tmp_path / "cut", resume=True)
    assert again.step == 2
    again.run()
    for a, b in zip(whole.shipped.state_dict().values(), again.shipped.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_study_that_was_stopped_tells_how_to_go_on(tmp_path):
    import os
    import signal

    from fcos.study.cells import trained
    from fcos.system.stop import Stopped
    from fcos.training.loop import Trainer
    from fcos.training.run import RunOptions

    data = open_splits(make_shapes(tmp_path / "shapes", {"train": 4}))
    config = tiny_config(train={"iterations": 3})

    def make(config, data, options):
        def stop(step, report):
            os.kill(os.getpid(), signal.SIGTERM)

        return Trainer(config, data, RunOptions(**{**vars(options), "on_step": stop}))

    with pytest.raises(Stopped, match="the same command goes on") as caught:
        trained(config, data, tmp_path / "run", "cpu", make)
    assert caught.value.code == 128 + signal.SIGTERM
    trained(config, data, tmp_path / "run", "cpu")
    assert (tmp_path / "run" / "result.json").is_file()


@pytest.mark.slow
def test_the_rivals_learn(tmp_path):
    """From nothing, in 200 steps, at a tenth of a second of work each or less."""
    data = open_splits(make_shapes(tmp_path / "shapes", {"train": 40, "val": 20}))
    settings = {"iterations": 200, "batch": 8, "warmup": 20, "ema": 0.98, "log_every": 20, "eval_every": 0}
    config = tiny_config(model={"backbone_norm": "batch"}, train=settings)
    plan = Plan(config, tmp_path / "out", only=("retinanet-strong", "rpn"), device="cpu")
    retinanet, rpn = (row.cells[0] for row in versus_study(data, plan).rows)
    assert retinanet.AP50 > 0.4  # 0.73 and 0.43 when this was written
    assert rpn.AR100 > 0.25


def test_rows_differ_in_the_method_and_in_nothing_else():
    config = preset("fcos-lite0").override("train.lr=0.002", "data.size=256")
    for key, method in methods(config).items():
        changed = config.override(*method.changes)
        assert (changed.train, changed.data) == (config.train, config.data), key
        assert changed.model.backbone == config.model.backbone
        assert changed.model.fpn_channels == changed.model.head_channels == 96
    rows = {k: config.override(*m.changes) for k, m in methods(config).items()}
    assert rows["retinanet"].model.extra_from == "body"
    assert rows["retinanet-strong"].model.extra_from == "fpn"
    assert rows["fcos-own"] == config
    first, improved = rows["fcos-2019"], rows["fcos"]
    assert (first.model.head_convs, first.model.regression, first.loss.box) == (4, "exp", "iou")
    assert (improved.model.head_convs, improved.model.regression, improved.loss.box) == (4, "relu", "giou")
    assert "fcos-own" not in methods(preset("fcos-r50"))  # it is the improved version


def test_one_class_stays_one_class(tmp_path):
    make_shapes(tmp_path / "shapes", {"train": 4, "val": 2})
    data = open_splits(tmp_path / "shapes")
    for single, counts in ((False, [2, 2, 1]), (True, [1, 1, 1])):
        config = tiny_config(data={"single_class": single})
        plan, known = Plan(config, tmp_path / "out", device="cpu"), methods(config)
        runs = [_Run(key, known[key], plan, data) for key in ("fcos", "retinanet", "rpn")]
        assert [len(run.classes) for run in runs] == counts


def test_the_interval_is_over_seeds_or_over_images():
    def row(*aps):
        cells = tuple(Cell(2, ap, 0.5, 0.1, 0.3, 0.4, 0.5) for ap in aps)
        return MethodRow("a", Method("A", ()), Cost(0, 1.0, 1.0, 9, 9), cells)

    assert row(0.2).interval() == (0.1, 0.3)
    assert row(0.2, 0.3).interval() == pytest.approx((0.0, 0.8853))  # 0.25 -+ 12.706 * 0.05; no AP is below 0
    low, high = row(0.2, 0.3, 0.4).interval()  # mean 0.3, s 0.1, t(2) 4.303: half 4.303 * 0.1 / sqrt(3)
    assert (low, high) == pytest.approx((0.3 - 0.24843, 0.3 + 0.24843), abs=1e-4)
    study = VersusStudy("d", "2 steps", "4 images of val", (row(0.2), row(float("nan"))))
    assert "20.00" in study.text()
    json.dumps(study.to_dict(), allow_nan=False)


def test_the_study_trains_tabulates_and_goes_on(tmp_path, capsys):
    make_shapes(tmp_path / "shapes", {"train": 8, "val": 2})
    config = tiny_config(train={"iterations": 2})
    data = open_splits(tmp_path / "shapes")
    told = []
    plan = Plan(config, tmp_path / "out", only=("retinanet", "fcos", "rpn"), device="cpu", report=told.append)
    study = versus_study(data, plan)
    assert [line.split(", about")[0] for line in told] == [
        f"run {i} of 3: {name}, seed 0, 2 steps" for i, name in enumerate(("RetinaNet", "FCOS, improved", "RPN"), 1)
    ]
    assert [r.key for r in study.rows] == ["retinanet", "fcos", "rpn"]
    assert [r.cells[0].steps for r in study.rows] == [2, 2, 2]
    outputs = {r.key: r.cost.outputs for r in study.rows}  # 64 x 64: 64 + 16 locations
    assert outputs == {"retinanet": 80 * 9 * (2 + 4), "fcos": 80 * (2 + 4 + 1), "rpn": 80 * 3 * (1 + 4)}
    assert all(0 <= r.cells[0].AR100 <= r.cells[0].AR1000 <= 1 for r in study.rows)
    assert np.isnan(study.rows[2].cells[0].AP)
    assert (tmp_path / "out" / "versus.txt").read_text() == study.text() + "\n"
    study.plot(tmp_path / "versus.png")

    # again: what has ended is read, what was killed goes on
    (tmp_path / "out" / "rpn-seed0" / "result.json").unlink()
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*-seed0/last.safetensors")}
    again = versus_study(data, plan)
    assert again.text() == study.text()
    assert all(line.endswith("seed 0, which is there already") for line in told[3:])
    changed = {p.parent.name for p in kept if p.stat().st_mtime_ns != kept[p]}
    assert changed == {"rpn-seed0"}
    fewer = {**data, "val": data["val"].subset([0])}
    with sources_kept():  # as in a command: what it judged before is read, and written anew
        judged = versus_study(fewer, Plan(config, tmp_path / "out", only=("fcos",), device="cpu"))
    assert judged.judged == "1 image of val"
    with pytest.raises(FcosError, match="other settings"):
        versus_study(data, Plan(config.override("train.lr=0.1"), tmp_path / "out", only=("fcos",), device="cpu"))
    moved = Plan(config.override("train.seed=5"), tmp_path / "out", only=("fcos",), device="cpu", report=told.append)
    assert len(versus_study(data, moved).rows[0].cells) == 1  # a run is its seed's, whichever the settings began with
    assert told[-1].endswith("seed 0, which is there already")
    with pytest.raises(FcosError, match="did you mean rpn"):
        versus_study(data, Plan(config, tmp_path / "out", only=("rpm",), device="cpu"))

    # corrected labels: what judges is used anew, what was learned from is another study
    one = Plan(config, tmp_path / "out", only=("fcos",), device="cpu")
    versus_study(data, one)
    file = tmp_path / "out" / "fcos-seed0" / "judged.json"
    before = file.stat().st_mtime_ns
    with sources_kept():
        versus_study(open_splits(relabel(tmp_path / "shapes", "val")), one)
    assert file.stat().st_mtime_ns != before
    with pytest.raises(FcosError, match="labels of train changed; give another --out"):
        versus_study(open_splits(relabel(tmp_path / "shapes", "train")), one)


MISTAKES = [
    (["--minutes", "1", "--epochs", "2"], "--minutes"),
    (["--minutes", "0"], "--minutes"),
    (["--methods", "yolo"], "yolo"),
    (["--split", "tset"], "tset"),
    (["--split", "train"], "--split train is what is learned from"),
    (["train.batch=0"], "train.batch"),
    (["train.batch=auto"], "give a number"),
]


@pytest.mark.parametrize(("arguments", "word"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_mistakes_are_one_line(tmp_path, capsys, arguments, word):
    make_shapes(tmp_path / "shapes", {"train": 1, "val": 1})
    code, _, err = fcos(
        capsys, "study", "versus", "--data", tmp_path / "shapes", "--out", tmp_path / "o", "--device", "cpu", *arguments
    )
    assert code == 2
    assert word in err.strip().splitlines()[-1]
    assert "Traceback" not in err


def test_seeds_count_from_the_one_in_the_settings(tmp_path, capsys, monkeypatch):
    make_shapes(tmp_path / "shapes", {"train": 1, "val": 1})
    plans = []

    def study(data, plan):
        plans.append(plan)
        raise FcosError("enough")

    monkeypatch.setattr("fcos.study.versus.versus_study", study)
    words = ("study", "versus", tmp_path / "shapes", "--out", tmp_path / "o", "--device", "cpu", "--seeds", "2")
    for changes in ((), ("train.seed=4",)):
        assert fcos(capsys, *words, *changes)[0] == 2
    assert [list(plan.seeds) for plan in plans] == [[0, 1], [4, 5]]


def test_nothing_to_judge_by_is_told_before_anything_is_trained(tmp_path, capsys):
    words = ("study", "versus", tmp_path / "shapes", "--out", tmp_path / "o", "--device", "cpu")
    make_shapes(tmp_path / "shapes", {"train": 1})
    code, _, err = fcos(capsys, *words)
    assert (code, "has no val split to judge by beside train" in err, "fcos data split" in err) == (2, True, True)
    make_shapes(tmp_path / "shapes", {"val": 1})
    file = tmp_path / "shapes" / "instances_val.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": []}))
    code, _, err = fcos(capsys, *words, "--methods", "rpn")
    assert code == 2
    assert "no boxes in 1 image of val" in err
    assert not (tmp_path / "o").exists()


def test_options_of_versus_are_refused_elsewhere(tmp_path, capsys):
    make_shapes(tmp_path / "shapes", {"train": 1, "val": 1})
    code, _, err = fcos(capsys, "study", "recall", "--data", tmp_path / "shapes", "--epochs", "3")
    assert code == 2
    assert "takes no --epochs" in err
