"""Training: it learns, it can be resumed, it says what is wrong."""

import csv
import math
import multiprocessing
import os
import signal
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import equal_states, learn, make_shapes, one_step, options, tiny_config

from fcos.config import TrainConfig
from fcos.data.open import open_splits
from fcos.errors import ConfigError, DataError, FcosError, ModelError
from fcos.evaluation.program import evaluate
from fcos.inference.composite import Looks, compose
from fcos.inference.load import load
from fcos.network import weights
from fcos.presets import with_dialect
from fcos.training.loop import Trainer
from fcos.training.not_finite import NotFinite
from fcos.training.optimizer import Average, learning_rate, parameter_groups
from fcos.training.output.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from fcos.training.planning.sample import sample_run
from fcos.training.program import train
from fcos.types import Classes
from fcos.zoo.find import load_network


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return open_splits(make_shapes(tmp_path_factory.mktemp("shapes data"), {"train": 16, "val": 6}))


def run(shapes, out, resume=False, **changes):
    config = tiny_config(model={"backbone_norm": "batch"}, train={"ema": 0.9, "save_every": 3, **changes})
    if resume:
        return train(shapes, out=out, settings={"train": changes}, resume=True, device="cpu", quiet=True)
    return learn(config, shapes, out)


@pytest.fixture(scope="module")
def learned(shapes, tmp_path_factory):
    """The result of a run that is long enough to learn something; its folder is only read."""
    return run(shapes, tmp_path_factory.mktemp("learned") / "run", epochs=12, plots=True)


def test_a_run_leaves_a_folder_to_read_and_learns(learned):
    result = learned
    with (result.folder / "metrics.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["loss"]]
    losses = [float(r["loss"]) for r in rows]
    assert [int(r["step"]) for r in rows] == list(range(1, 49))
    assert sum(losses[-8:]) < 0.75 * sum(losses[:8])
    assert float(rows[-1]["mean_iou"]) > float(rows[0]["mean_iou"])
    assert 0 <= float(rows[-1]["centerness_excess"]) < float(rows[-1]["centerness"])
    names = {p.name for p in result.folder.iterdir()}
    assert names >= {
        "config.yaml", "environment.json", "metrics.csv", "last.safetensors", "best.safetensors", "results.png",
        "labels.png", "val_0.jpg", "pr.png", "f1.png", "confusion.png", "reliability.png", "metrics.json",
        "train_batch_0.jpg", "train_batch_1.jpg", "report.html",
    }  # fmt: skip
    assert len(checkpoints(result.folder)) == 1  # two while it goes on
    assert not math.isnan(result.best_ap)
    _, config, classes = load_network(result.folder)
    assert (config.name, classes.names, classes.ids) == ("tiny", ("disc", "square"), (2, 7))


def test_a_stopped_run_resumes_to_the_same_bits(shapes, tmp_path, monkeypatch):
    whole = run(shapes, tmp_path / "whole", epochs=2)

    real, calls = Trainer.train_step, []

    def dies(self, loader):
        calls.append(1)
        if len(calls) == 6:  # two steps past the last checkpoint, in the middle of the second epoch
            raise RuntimeError("killed")
        return real(self, loader)

    monkeypatch.setattr(Trainer, "train_step", dies)
    with pytest.raises(RuntimeError, match="killed"):
        run(shapes, tmp_path / "cut", epochs=2)
    monkeypatch.setattr(Trainer, "train_step", real)
    cut = run(shapes, tmp_path / "cut", resume=True, epochs=2)

    a, b = load_checkpoint(whole.folder), load_checkpoint(cut.folder)
    assert a["step"] == b["step"] == 8
    assert equal_states(a["model"], b["model"])
    assert equal_states(a["average"], b["average"])
    rows = [(r["step"], r["loss"], r["AP"]) for r in csv.DictReader((whole.folder / "metrics.csv").open())]
    assert rows == [(r["step"], r["loss"], r["AP"]) for r in csv.DictReader((cut.folder / "metrics.csv").open())]


def test_what_a_run_begins_from_is_judged_where_it_knows_the_classes(shapes, learned, tmp_path, capfd):
    """A rate that destroys leaves the best weights those that it began from, and says so; classes are known under
    other names too, and new ones are not judged before they are learned."""
    first = learned
    known = evaluate(load(first.folder, device="cpu"), shapes["val"]).ap
    assert known > 0.02
    config = tiny_config(
        model={"backbone_norm": "batch"}, train={"epochs": 2, "optimizer": "sgd", "lr": 1.0, "clip": 1.0}
    )
    capfd.readouterr()
    second = learn(config, shapes, tmp_path / "second", init=str(first.folder), quiet=False)
    rows = [r for r in csv.DictReader((second.folder / "metrics.csv").open()) if r["AP"]]
    assert [int(r["step"]) for r in rows] == [0, 4, 8]
    assert float(rows[0]["AP"]) == pytest.approx(known, abs=1e-6)
    assert second.best_ap == pytest.approx(known, abs=1e-6)
    assert "training did not help: this is the detector that it began from" in capfd.readouterr().err
    before, after = (weights.read(folder / "best.safetensors")[0] for folder in (first.folder, second.folder))
    assert equal_states(before, after)

    others = {k: replace(v, classes=Classes(("disk", "box"), v.classes.ids)) for k, v in shapes.items()}
    ignorant = run(shapes, tmp_path / "ignorant", epochs=1, lr=1e-9)
    for start, judged in ((first, [0, 4, 8]), (ignorant, [4, 8])):
        out = tmp_path / f"judged-{len(judged)}"
        again = learn(config.override({"train": {"lr": 1e-4}}), others, out, init=str(start.folder))
        rows = [r for r in csv.DictReader((again.folder / "metrics.csv").open()) if r["AP"]]
        assert [int(r["step"]) for r in rows] == judged


def test_the_start_is_judged_once_though_a_run_is_killed_after_it(shapes, tmp_path, monkeypatch):
    first = run(shapes, tmp_path / "first", epochs=1)
    config = tiny_config(model={"backbone_norm": "batch"}, train={"epochs": 2})
    whole = learn(config, shapes, tmp_path / "whole", init=str(first.folder))
    real = Trainer.save

    def dies(self):
        if not self.judging.start_due:
            raise RuntimeError("killed")
        real(self)

    monkeypatch.setattr(Trainer, "save", dies)
    with pytest.raises(RuntimeError, match="killed"):
        learn(config, shapes, tmp_path / "cut", init=str(first.folder))
    monkeypatch.setattr(Trainer, "save", real)
    cut = train(shapes, out=tmp_path / "cut", resume=True, device="cpu", quiet=True)
    assert equal_states(load_checkpoint(whole.folder)["model"], load_checkpoint(cut.folder)["model"])
    judged = [[(r["step"], r["AP"]) for r in csv.DictReader((x.folder / "metrics.csv").open())] for x in (whole, cut)]
    assert judged[0] == judged[1]
    assert [step for step, ap in judged[0] if ap] == ["0", "4", "8"]


def test_without_images_to_judge_by_a_resume_keeps_the_rows_of_known_classes(shapes, tmp_path):
    first = run(shapes, tmp_path / "first", epochs=1)
    config = tiny_config(model={"backbone_norm": "batch"}, train={"epochs": 1})
    learn(config, {"train": shapes["train"]}, tmp_path / "run", init=str(first.folder), holdout=0)
    data = {"train": shapes["train"]}
    settings = {"train": {"epochs": 2}}
    train(data, out=tmp_path / "run", settings=settings, resume=True, device="cpu", quiet=True)
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert [int(r["step"]) for r in rows] == list(range(1, 9))


def test_a_finished_run_can_be_extended(shapes, tmp_path):
    run(shapes, tmp_path / "run", epochs=1)
    longer = run(shapes, tmp_path / "run", resume=True, epochs=2)
    assert longer.steps == 8


def test_accumulation_gives_the_same_gradients(shapes, tmp_path):
    """A step of 4 images at once, in 2 parts and in 4 parts: the same gradient, empty images included."""
    gradients = []
    for parts in (1, 2, 4):
        config = tiny_config(train={"accumulate": parts, "optimizer": "sgd"})
        trainer = Trainer(config, shapes, options(tmp_path / str(parts)))
        trainer.network.double()
        trainer.optimizer.step = lambda: None
        trainer.optimizer.zero_grad = lambda: None
        from fcos.data.loading.loader import train_loader

        one_step(trainer, next(iter(train_loader(shapes["train"], config))))
        gradients.append({n: p.grad.clone() for n, p in trainer.network.named_parameters() if p.grad is not None})
    for other in gradients[1:]:
        for name, gradient in gradients[0].items():
            close = 1e-6 * float(gradient.abs().max()) + 1e-12  # the divisor of the box loss is a sum in float32
            torch.testing.assert_close(other[name], gradient, rtol=0, atol=close, msg=name)


class OfHalves(Trainer):
    """Locations learn the boxes of the left half of an image only."""

    def assign(self, points, targets):
        index = super().assign(points, targets)
        return index.where(points.xy[:, 0] < 40, -1)


def test_a_rule_of_ones_own_says_what_locations_learn(shapes, tmp_path):
    """docs/own-loop.md; the whole program goes on around it, a resume too."""
    config = tiny_config(train={"epochs": 1, "save_every": 1})
    counts = {}
    for kind in (Trainer, OfHalves):
        counts[kind] = []
        told = replace(options(tmp_path / kind.__name__), on_step=lambda _, report, k=kind: counts[k].append(report))
        with closing(kind(config, shapes, told)) as trainer:
            assert trainer.run().metrics.images == 6
    counts = {kind: sum(report.positives for report in reports) for kind, reports in counts.items()}
    assert 0 < counts[OfHalves] < counts[Trainer]
    again = replace(options(tmp_path / "OfHalves"), resume=True)
    with pytest.raises(ConfigError, match="is a run of OfHalves, not of Trainer: make that trainer again"):
        Trainer(config.override("train.epochs=2"), shapes, again)
    with closing(OfHalves(config.override("train.epochs=2"), shapes, again)) as trainer:
        assert trainer.run().steps == 8


def test_nan_stops_before_the_weights_change(shapes, tmp_path):
    config = tiny_config()
    trainer = Trainer(config, shapes, options(tmp_path / "run"))
    with torch.no_grad():
        trainer.network.head.class_logits.weight[0, 0, 0, 0] = math.nan
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    with pytest.raises(NotFinite, match="step 0"):
        trainer.run()
    for key, value in trainer.network.state_dict().items():
        torch.testing.assert_close(value, before[key], equal_nan=True, rtol=0, atol=0)


def test_another_run_is_not_overwritten(shapes, tmp_path):
    run(shapes, tmp_path / "run")
    with pytest.raises(FcosError, match="holds a run already"):
        run(shapes, tmp_path / "run")
    with pytest.raises(FcosError, match="no checkpoint to resume"):
        run(shapes, tmp_path / "none", resume=True)


def test_data_without_boxes_is_refused(shapes, tmp_path):
    bare = shapes["train"].subset([4, 9])
    with pytest.raises(DataError, match="no boxes to learn from"):
        run({"train": bare, "val": shapes["val"]}, tmp_path / "run")


def test_starting_from_another_detector(shapes, tmp_path):
    first = run(shapes, tmp_path / "first")
    config = tiny_config(model={"backbone_norm": "batch"}, data={"single_class": True})
    second = learn(config, shapes, tmp_path / "second", init=str(first.folder))
    assert load_network(second.folder)[2].names == ("object",)


def test_learning_rate_by_hand():
    cfg = TrainConfig(warmup=10, warmup_start=0.1, schedule="step", milestones=(0.5, 0.75), gamma=0.1)
    rates = [learning_rate(s, 200, cfg) for s in (0, 5, 10, 99, 100, 149, 150, 199)]
    assert rates == pytest.approx([0.1, 0.55, 1, 1, 0.1, 0.1, 0.01, 0.01])
    cosine = TrainConfig(warmup=0, schedule="cosine", final_lr=0.2)
    assert [learning_rate(s, 100, cosine) for s in (0, 50, 100)] == pytest.approx([1, 0.6, 0.2])
    after_warmup = TrainConfig(warmup=10, warmup_start=0.1, schedule="cosine", final_lr=0.2)
    assert [learning_rate(s, 100, after_warmup) for s in (5, 10, 55, 100)] == pytest.approx([0.55, 1, 0.6, 0.2])
    short = TrainConfig(warmup=1000, warmup_start=0.1, schedule="constant")  # a tenth of a short run
    assert [learning_rate(s, 50, short) for s in (0, 4, 5, 49)] == pytest.approx([0.1, 0.82, 1, 1])
    constant = TrainConfig(warmup=500, warmup_rule="constant", warmup_start=1 / 3)
    assert learning_rate(0, 90_000, constant) == learning_rate(499, 90_000, constant) == pytest.approx(1 / 3)


def test_the_average_by_hand():
    """It keeps (1 + t) / (10 + t) of itself and at most its decay; statistics are taken as they are, and another
    network's weights are that one's."""

    def layer(value):
        norm = torch.nn.BatchNorm1d(1)
        torch.nn.init.constant_(norm.weight, value)
        norm.bias.requires_grad_(False)
        norm.running_mean.fill_(value)
        return norm

    average = Average(layer(0.0), 0.5)
    for value, step, expected in ((1.0, 0, 0.9), (2.0, 2, 0.75 * 2 + 0.25 * 0.9), (3.0, 1000, 0.5 * (3 + 1.725))):
        average.update(layer(value), step)
        assert average.network.weight.item() == pytest.approx(expected)
        assert average.network.running_mean.item() == value
    assert average.network.bias.item() == 0
    assert not average.network.training


def test_a_run_whose_images_find_no_memory_lets_go_of_its_folder(shapes, tmp_path, monkeypatch):
    """Its process may go on, as in a notebook: the run can be resumed there."""
    config = tiny_config(data={"cache": "ram"}, train={"iterations": 1, "eval_every": 0})
    monkeypatch.setattr("fcos.data.loading.cache.free_memory", lambda: 0)
    with pytest.raises(DataError, match="cache=ram needs"):
        learn(config, shapes, tmp_path / "run")
    with pytest.raises(DataError, match="cache=ram needs"), sample_run(config, shapes, "none", "cpu", kept := Kept()):
        pass
    monkeypatch.undo()
    assert kept.trainer.folder._lock is None
    assert train(shapes, out=tmp_path / "run", resume=True, device="cpu", quiet=True).steps == 1


class Kept:
    """Makes a Trainer and keeps it."""

    def __call__(self, *arguments):
        self.trainer = Trainer(*arguments)
        return self.trainer


def test_groups_hold_every_trainable_weight_once():
    network = weights.build(tiny_config(), 2)
    network.backbone.freeze(1)
    groups = parameter_groups(network, TrainConfig(backbone_lr=0.1, bias_lr=2.0, bias_decay=False, layer_decay=0.5))
    held = [id(p) for g in groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in network.parameters() if p.requires_grad)
    by_id = {id(p): g for g in groups for p in g["params"]}
    assert by_id[id(network.head.class_logits.bias)]["factor"] == 2.0
    assert by_id[id(network.head.class_logits.bias)]["weight_decay"] == 0.0
    last = [p for n, p in network.backbone.body.named_parameters() if p.requires_grad][-1]
    assert by_id[id(last)]["factor"] == pytest.approx(0.1)


def test_rates_fall_towards_the_stem():
    network = weights.build(tiny_config(), 2)
    body = network.backbone.body
    groups = parameter_groups(network, TrainConfig(backbone_lr=0.1, layer_decay=0.5))
    factors = {id(p): g["factor"] for g in groups for p in g["params"]}
    stages = (body.conv1, body.layer1, body.layer2, body.layer3)
    found = [factors[next(id(p) for p in stage.parameters() if p.ndim == 4)] for stage in stages]
    assert found == pytest.approx([0.0125, 0.025, 0.05, 0.1])


@pytest.mark.parametrize(
    ("dialect", "factor", "decay"),
    [
        ("original", 2.0, 0.0),
        ("original-2019", 2.0, 0.0),
        ("mmdet", 1.0, 1e-4),
        ("torchvision", 1.0, 1e-4),
        ("adelaidet", 1.0, 0.0),
        ("detectron2", 1.0, 0.0),
    ],
)
def test_norms_are_learned_as_the_dialect_has_it(dialect, factor, decay):
    """The original goes by names alone: whatever is called a bias; mmdetection spares norms of that, and detectron2
    (WEIGHT_DECAY_NORM 0) of all weight decay. Each keeps the stem and the first stage as they were."""
    config = with_dialect(tiny_config(), dialect)
    network = weights.build(config, 2)
    norms = [m for m in network.head.modules() if isinstance(m, torch.nn.GroupNorm)]
    groups = {id(p): g for g in parameter_groups(network, config.train) for p in g["params"]}
    assert norms
    for norm in norms:
        assert (groups[id(norm.bias)]["factor"], groups[id(norm.bias)]["weight_decay"]) == (factor, decay)
        whole = 0.0 if dialect in ("adelaidet", "detectron2") else 1e-4
        assert (groups[id(norm.weight)]["factor"], groups[id(norm.weight)]["weight_decay"]) == (1.0, whole)
    bias = network.head.class_logits.bias
    assert groups[id(bias)]["weight_decay"] == (0.0 if dialect.startswith(("original", "mmdet")) else 1e-4)
    assert config.train.freeze_stages == 2


@pytest.mark.parametrize(
    ("every", "apart", "saved"),
    [(0, math.inf, [0, 12]), (2, math.inf, [0, 6, 12]), (0, 0.0, [0, 3, 6, 9, 12])],
)
def test_quick_epochs_have_few_checkpoints(shapes, tmp_path, monkeypatch, every, apart, saved):
    """Epochs of three steps: saved where one is judged, and some seconds after the last time."""
    steps = []
    monkeypatch.setattr("fcos.training.checkpointing._APART", apart)
    monkeypatch.setattr("fcos.training.checkpointing.save_checkpoint", lambda _, step, state: steps.append(step))
    data = {"train": shapes["train"].subset(range(6)), "val": shapes["val"].subset(range(2))}
    config = tiny_config(train={"batch": 2, "epochs": 4, "eval_every": every})
    learn(config, data, tmp_path / "run")
    assert steps == saved


def test_checkpoints_are_whole_and_two(shapes, tmp_path):
    state = load_checkpoint(run(shapes, tmp_path / "run").folder)
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {**state, "best": float(step)})
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-00000002.pt", "checkpoint-00000003.pt"]
    newest = checkpoints(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:50])
    assert load_checkpoint(tmp_path)["step"] == 2  # the one before serves


def test_a_run_on_tiles_is_judged_in_tiles_and_keeps_what_auto_needs(shapes, tmp_path):
    """Tiles of 48 pixels from images of 64 x 80: each image is four, two of them side by side from 0 and 32."""
    config = tiny_config(model={"backbone_norm": "batch"}, data={"tile": 48}, train={"epochs": 4, "batch": 8})
    result = learn(config, shapes, tmp_path / "run")
    detector = result.detector
    kept = detector.config.data
    lengths = np.concatenate([(b[:, 2:] - b[:, :2]).max(axis=1) for b in in_tiles(shapes["train"], 48)])
    assert kept.learned_side == 48
    np.testing.assert_allclose(kept.learned_boxes, np.quantile(lengths, (0.05, 0.5, 0.95)), atol=0.06)
    again = evaluate(compose([detector], Looks(tile=48)), shapes["val"], batch=1)
    assert result.metrics.numbers() == pytest.approx(again.numbers(), abs=1e-4, nan_ok=True)
    itself = evaluate(detector, shapes["val"], batch=1)  # as it learned
    assert itself.numbers() == pytest.approx(again.numbers(), nan_ok=True)
    resumed = learn(config, shapes, tmp_path / "other", settings={"train.iterations": 3})
    assert resumed.steps == 3
    more = train(
        shapes, out=tmp_path / "other", settings={"train.iterations": 5}, resume=True, device="cpu", quiet=True
    )
    assert more.steps == 5


def in_tiles(dataset, side):
    """The boxes that learn, of each tile: worked out apart, by clipping."""
    for record in dataset.records:
        for top in (0, record.size[0] - side):
            for left in (0, record.size[1] - side):
                frame = np.array([left, top, left, top])
                cut = np.clip(record.boxes - frame, 0, side)
                shares = (cut[:, 2:] - cut[:, :2]).prod(axis=1) / (record.boxes[:, 2:] - record.boxes[:, :2]).prod(
                    axis=1
                )
                yield cut[shares >= 0.3]


@pytest.mark.parametrize(
    ("key", "value"), [("seconds", "x" * 99), ("total", 1.5), ("deadline", "soon"), ("normalizer", []), ("step", None)]
)
def test_a_checkpoint_of_other_values_is_one_line(tmp_path, key, value):
    data = make_shapes(tmp_path / "data", {"train": 4})
    learn(tiny_config(train={"iterations": 1, "eval_every": 0}), data, tmp_path / "run", holdout=0.0)
    (path,) = checkpoints(tmp_path / "run")
    state = torch.load(path, weights_only=True)
    torch.save({**state, key: value}, path)
    with pytest.raises(ModelError, match="it is no checkpoint of fcos train"):
        load_checkpoint(tmp_path / "run")


def test_a_killed_loader_process_is_one_line(shapes, tmp_path):
    """Whatever the program does when torch hears of it."""

    def kill(step, report):
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)
        time.sleep(0.2)  # the signal comes here

    config = tiny_config(data={"workers": 1}, train={"iterations": 50})
    with pytest.raises(FcosError, match=r"data\.workers=0 .*--shm-size.*fcos train --resume --out .*run") as lost:
        Trainer(config, shapes, options(tmp_path / "run", on_step=kill)).run()
    assert "\n" not in str(lost.value)


def test_more_images_in_a_resume_are_more_steps(tmp_path):
    """16 images by 4 are 4 steps, 24 are 6: two epochs end after 8 and 12."""
    few, more = ({"train": open_splits(make_shapes(tmp_path / str(n), {"train": n}))["train"]} for n in (16, 24))
    config = tiny_config(train={"epochs": 2, "save_every": 1})

    class Enough(Exception):
        pass

    def stop(step, report):
        if step == 3:
            raise Enough

    with pytest.raises(Enough):
        Trainer(config, few, options(tmp_path / "run", on_step=stop)).run()
    assert Trainer(config, more, options(tmp_path / "run", resume=True)).run().steps == 12
