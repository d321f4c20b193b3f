"""What each setting of a training run does."""

import csv
import dataclasses
import importlib

import pytest
import torch
from tiny import equal_states, learn, make_shapes, one_step, options, tiny_config

from fcos.data.loading.loader import train_loader
from fcos.data.open import open_splits
from fcos.errors import ConfigError, ModelError
from fcos.evaluation.coco import evaluate
from fcos.network import weights
from fcos.network.recompute import find_blocks, recompute
from fcos.training.batch_size import peak_bytes
from fcos.training.checkpointing import Keeper
from fcos.training.loop import Trainer
from fcos.training.output.checkpoint import checkpoints, load_checkpoint
from fcos.training.program import train
from fcos.training.step import in_layout_of
from fcos.training.validation import Pass, divided, loss_sums
from fcos.types import Classes
from fcos.zoo.find import load_network


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return open_splits(make_shapes(tmp_path_factory.mktemp("shapes"), {"train": 16, "val": 6}))


def trainer(shapes, out, **sections):
    return Trainer(tiny_config(**sections), shapes, options(out))


def first_step(run):
    """(report, gradients) of a run's first step, which does not move the weights."""
    run.optimizer.step = lambda: None
    run.optimizer.zero_grad = lambda: None
    report = one_step(run, next(iter(train_loader(run.data["train"], run.config))))
    return report, {n: p.grad for n, p in run.network.named_parameters() if p.grad is not None}


def rows(folder, key):
    return [float(r[key]) for r in csv.DictReader((folder / "metrics.csv").open()) if r[key]]


# --------------------------------------------------------------------------- activation checkpointing


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_checkpointing_changes_no_gradient_and_no_statistic(shapes, tmp_path, norm):
    found = []
    for on in (False, True):
        run = trainer(
            shapes, tmp_path / str(on), model={"backbone_norm": norm, "head_norm": "batch"},
            train={"checkpointing": on, "accumulate": 2},
        )  # fmt: skip
        report, gradients = first_step(run)
        found.append((report.loss, gradients, {k: v.clone() for k, v in run.network.named_buffers()}))
    assert found[0][0] == found[1][0]
    assert found[0][1]
    assert equal_states(found[0][1], found[1][1])
    assert equal_states(found[0][2], found[1][2])


@pytest.mark.parametrize("backbone", ["plain", "test_efficientnet", "test_resnet"])
def test_checkpointing_takes_less_memory(backbone):
    peaks = []
    for on in (False, True):
        network = weights.build(tiny_config(model={"backbone": backbone, "backbone_norm": "batch", "head_convs": 4}), 2)
        network.train().requires_grad_(True)
        if on:
            assert recompute(network) > 8
        images = torch.zeros(4, 3, 128, 128, dtype=torch.uint8)
        peaks.append(peak_bytes(lambda n=network, x=images: sum(t.sum() for t in n(x)).backward(), images.device))
    assert peaks[1] < 0.9 * peaks[0]


def test_blocks_do_not_lie_in_each_other():
    network = weights.build(tiny_config(), 2)
    blocks = list(find_blocks(network))
    inside = [m for b in blocks for m in b.modules() if m is not b]
    assert blocks
    assert not {id(b) for b in blocks} & {id(m) for m in inside}


def test_batchnorm_of_a_single_location_is_one_line(shapes, tmp_path):
    model = {"head_norm": "batch", "strides": (8, 16, 32)}
    sections = {"assign": {"ranges": (16.0, 32.0)}, "data": {"size": 32, "max_size": 32}, "train": {"batch": 1}}
    run = trainer(shapes, tmp_path / "run", model=model, **sections)
    with pytest.raises(ConfigError, match=r"cannot learn from one location, and 1 image of 32x32 .* train\.batch=2"):
        first_step(run)
    sections["train"]["batch"] = "auto"
    with pytest.raises(ConfigError, match=r"cannot learn from one location, and 1 image of 32x32 .* train\.batch=2"):
        trainer(shapes, tmp_path / "auto", model=model, **sections)


# --------------------------------------------------------------------------- validation loss


def validation_loss(network, dataset, config, classes, over):
    """The losses of a whole data set, as one process has them."""
    return divided(torch.tensor(loss_sums(network, dataset, config, classes, over), dtype=torch.float64), config)


@pytest.mark.parametrize("padding", ["rounded", "exact"])
def test_validation_loss_is_the_training_loss_of_other_images(shapes, tmp_path, padding):
    """One step over the whole split, without augmentation, has the same loss; the batch size changes nothing. Half a
    grey level of padding, seen through a small deviation, does."""
    config = tiny_config(
        model={"mean": [90.5] * 3, "std": [0.2] * 3},
        data={"flip": 0.0, "divisor": 64, "padding": padding},
        train={"batch": 6},
    )
    run = Trainer(config, {"train": shapes["val"]}, options(tmp_path / "run"))
    report, _ = first_step(run)
    for batch in (1, 4, 6):
        over = Pass(torch.device("cpu"), batch, run.fabric.autocast)
        losses = validation_loss(run.network, shapes["val"], config, run.classes, over)
        assert float(losses.total()) == pytest.approx(report.loss, rel=2e-6)
    assert not run.network.training
    other = config.override({"data": {"padding": "rounded" if padding == "exact" else "exact"}})
    losses = validation_loss(run.network, shapes["val"], other, run.classes, Pass(torch.device("cpu")))
    assert float(losses.total()) != pytest.approx(report.loss, rel=8e-6)


def test_validation_loss_knows_classes_by_name(shapes):
    network = weights.build(tiny_config(), 2).eval()
    cpu, swapped = Pass(torch.device("cpu")), shapes["val"].with_classes(["square", "disc"])
    one = validation_loss(network, shapes["val"], tiny_config(), shapes["val"].classes, cpu)
    two = validation_loss(network, swapped, tiny_config(), shapes["val"].classes, cpu)
    assert float(two.total()) == pytest.approx(float(one.total()), rel=1e-6)
    # a class that the network does not know is ignored, not taken for background or for another class
    other = validation_loss(network, shapes["val"], tiny_config(), Classes(("disc", "moon")), cpu)
    only = shapes["val"].with_classes(["disc"])
    assert float(other.box) == pytest.approx(
        float(validation_loss(network, only, tiny_config(), Classes(("disc", "moon")), cpu).box), rel=1e-6
    )


def test_validation_loss_is_logged(shapes, tmp_path):
    result = learn(tiny_config(), shapes, tmp_path / "run")
    assert len(rows(result.folder, "val_loss")) == 1
    assert rows(result.folder, "val_loss")[0] > 0
    config = tiny_config(train={"val_loss": False})
    result = learn(config, shapes, tmp_path / "without")
    assert rows(result.folder, "val_loss") == []


# --------------------------------------------------------------------------- what is trained, and how fast


def test_frozen_stages_stay_as_they_were(shapes, tmp_path):
    run = trainer(shapes, tmp_path / "run", model={"backbone_norm": "batch"}, train={"freeze_stages": 2})
    before = {k: v.clone() for k, v in run.network.backbone.body.state_dict().items()}  # statistics of norms too
    run.run()
    moved = [k for k, v in run.network.backbone.body.state_dict().items() if not torch.equal(v, before[k])]
    kept = [k for k in before if k not in moved]
    assert {k.split(".")[0] for k in kept} >= {"conv1", "layer1"}
    assert {k.split(".")[0] for k in moved} == {"layer2", "layer3", "layer4"} & {k.split(".")[0] for k in before}


def test_frozen_norm_keeps_statistics_and_affine(shapes, tmp_path):
    run = trainer(shapes, tmp_path / "run")
    norms = {k: v.clone() for k, v in run.network.backbone.state_dict().items() if "bn" in k}
    assert len(norms) > 20
    run.run()
    assert equal_states(norms, {k: v for k, v in run.network.backbone.state_dict().items() if k in norms})


def test_layers_learn_at_their_own_rate(shapes, tmp_path):
    """With plain SGD the first update is rate x gradient: head 1, last stage 0.5, the one below 0.25."""
    run = trainer(
        shapes, tmp_path / "run", model={"backbone_norm": "batch"},
        train={"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "lr": 0.01, "warmup": 0,
               "schedule": "constant", "backbone_lr": 0.5, "layer_decay": 0.5},
    )  # fmt: skip
    before = {n: p.detach().clone() for n, p in run.network.named_parameters()}
    gradients = {}
    real = run.optimizer.zero_grad
    run.optimizer.zero_grad = lambda: (
        gradients.update({n: p.grad.clone() for n, p in run.network.named_parameters() if p.grad is not None}), real()
    )  # fmt: skip
    one_step(run, next(iter(train_loader(run.data["train"], run.config))))
    stages = run.network.backbone.stages
    after = dict(run.network.named_parameters())
    for prefix, factor in (("head.class_logits", 1.0), (f"backbone.body.{stages[-1]}.", 0.5),
                           (f"backbone.body.{stages[-2]}.", 0.25)):  # fmt: skip
        name = next(n for n in gradients if n.startswith(prefix) and n.endswith("weight") and gradients[n].ndim == 4)
        moved = before[name] - after[name].detach()
        torch.testing.assert_close(moved, 0.01 * factor * gradients[name], rtol=1e-3, atol=1e-8, msg=name)


def test_early_stopping_counts_evaluations_without_a_better_score(shapes, tmp_path, monkeypatch):
    scores = iter([0.1, 0.3, 0.2, 0.3, 0.9])
    monkeypatch.setattr(
        "fcos.training.judging.evaluate", lambda *args: dataclasses.replace(evaluate(*args), ap=next(scores))
    )
    config = tiny_config(train={"epochs": 9, "patience": 2, "val_loss": False})
    result = learn(config, shapes, tmp_path / "run")
    assert result.steps == 4 * 4  # epochs 3 and 4 were not better than epoch 2; an equal score is not better
    assert result.best_ap == 0.3
    assert rows(result.folder, "AP") == [0.1, 0.3, 0.2, 0.3]
    assert weights.read(result.folder / "best.safetensors")[3]["AP"] == 0.3
    assert weights.read(result.folder / "best.safetensors")[3]["step"] == 8
    assert weights.read(result.folder / "last.safetensors")[3]["step"] == 16


def test_a_file_has_the_ap_of_its_own_weights_alone(shapes, tmp_path, monkeypatch):
    told = {}
    real = Keeper.export

    def export(self, name, state, about):
        told[name, about[1]["step"]] = about[1]["AP"]
        real(self, name, state, about)

    monkeypatch.setattr(Keeper, "export", export)
    monkeypatch.setattr("fcos.training.judging.evaluate", lambda *args: dataclasses.replace(evaluate(*args), ap=0.3))
    config = tiny_config(train={"iterations": 7, "save_every": 3, "val_loss": False})
    learn(config, shapes, tmp_path / "run")  # epochs end after steps 4 and 7
    assert told.pop(("best", 4)) == 0.3
    assert told == {("last", step): 0.3 if step in (4, 7) else None for step in (0, 3, 4, 6, 7)}


def test_class_subset_and_single_class(shapes, tmp_path):
    only = learn(tiny_config(data={"classes": ["square"]}), shapes, tmp_path / "only")
    network, config, classes = load_network(only.folder)
    assert (classes.names, classes.ids) == (("square",), (7,))
    assert network.head.class_logits.out_channels == 1
    assert config.data.classes == ("square",)
    squares = sum(int((r.labels == 1).sum()) for r in shapes["val"].records)
    assert [(one.name, one.id, one.objects) for one in only.metrics.classes] == [("square", 7, squares)]
    single = learn(tiny_config(data={"single_class": True}), shapes, tmp_path / "single")
    assert load_network(single.folder)[2].names == ("object",)


def test_same_seed_same_bits(shapes, tmp_path):
    """Also with everything that draws random numbers; another seed gives another run."""
    states = []
    try:
        for name, seed in (("a", 3), ("b", 3), ("c", 4)):
            run = trainer(
                shapes, tmp_path / name, data={"color": 0.5, "mosaic": 0.5, "mixup": 0.3, "crop": 0.5},
                train={"deterministic": True, "seed": seed, "iterations": 3},
            )  # fmt: skip
            run.run()
            states.append(run.network.state_dict())
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert equal_states(states[0], states[1])
    assert not equal_states(states[0], states[2])


def test_bf16_on_the_cpu(shapes, tmp_path):
    """The same step in bfloat16: the loss within its 8 bits, distances in float32, weights and state in float32."""
    losses = {}
    for precision in ("fp32", "bf16"):
        run = trainer(shapes, tmp_path / precision, train={"precision": precision})
        report, gradients = first_step(run)
        losses[precision] = report
        assert {g.dtype for g in gradients.values()} == {torch.float32}
    assert losses["bf16"].loss != losses["fp32"].loss
    assert losses["bf16"].loss == pytest.approx(losses["fp32"].loss, rel=0.01)
    assert losses["bf16"].grad_norm == pytest.approx(losses["fp32"].grad_norm, rel=0.05)
    result = learn(tiny_config(train={"precision": "bf16", "ema": 0.9}), shapes, tmp_path / "run")
    state = load_checkpoint(result.folder)
    assert all(v.dtype != torch.bfloat16 for v in [*state["model"].values(), *state["average"].values()])


def test_images_come_in_the_layout_of_the_weights_and_the_step_is_the_same(shapes, tmp_path):
    images = torch.rand(2, 3, 8, 8)
    reports = {}
    for asked in (True, False):
        run = trainer(shapes, tmp_path / str(asked), train={"channels_last": asked})
        assert in_layout_of(run.network, images).is_contiguous(memory_format=torch.channels_last) is asked
        assert in_layout_of(run.network, images).is_contiguous() is not asked
        reports[asked] = first_step(run)[0]
    assert reports[True].loss == pytest.approx(reports[False].loss, rel=1e-5)


@pytest.mark.parametrize(
    ("sections", "row"),
    [
        ({"data": {"mosaic": 1.0, "plain_epochs": 1}}, "mixing"),
        ({"data": {"mosaic": 1.0}}, None),
        ({"data": {"plain_epochs": 1}}, None),
        ({"train": {"patience": 3, "eval_every": 0}}, "patience"),
        ({"train": {"patience": 3, "eval_every": 1}}, None),
    ],
)
def test_what_is_set_without_effect_is_said(shapes, tmp_path, sections, row):
    rows = dict(trainer(shapes, tmp_path / "run", **sections).summary())
    assert [key for key in ("mixing", "patience") if key in rows] == ([row] if row else [])


def test_emulated_bf16_is_said(shapes, tmp_path, monkeypatch):
    run = trainer(shapes, tmp_path / "run", train={"precision": "bf16"})
    for there, said in ((True, False), (False, True)):
        monkeypatch.setattr("fcos.training.output.summary.has_bf16", lambda device, there=there: there)
        assert ("slow" in dict(run.summary())) is said


# --------------------------------------------------------------------------- torch.compile


@pytest.mark.parametrize("works", [pytest.param(True, marks=pytest.mark.slow), False])
def test_compiling_is_not_silent(shapes, tmp_path, monkeypatch, capsys, works):
    def backend(graph, _):
        if not works:
            raise RuntimeError("No working C++ compiler found")
        return graph.forward

    importlib.import_module("lightning_fabric")  # which puts a torch.compile of its own in the place of torch's
    honest = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **how: honest(network, **{**how, "backend": backend}))
    config = tiny_config(train={"compile": True, "iterations": 2})
    if works:
        learn(config, shapes, tmp_path / "run", quiet=False)
    else:
        with pytest.raises(ModelError, match=r"torch\.compile does not work here: .*No working C\+\+ compiler"):
            learn(config, shapes, tmp_path / "run", quiet=False)
    said = capsys.readouterr().err
    assert "the first step waits for torch.compile" in said
    assert ("the first step took" in said) == works


@pytest.mark.slow
def test_compile_gives_the_same_training(shapes, tmp_path):
    """Three steps at three image sizes: the losses of eager training, and its names in every file."""
    losses, states = [], []
    for on in (False, True):
        config = tiny_config(
            data={"train_sizes": [64, 96]}, train={"compile": on, "ema": 0.9, "iterations": 4, "seed": 1}
        )
        result = learn(config, shapes, tmp_path / str(on))
        losses.append(rows(result.folder, "loss"))
        states.append(load_checkpoint(result.folder))
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    for part in ("model", "average"):
        assert states[0][part].keys() == states[1][part].keys()
        assert not any("_orig_mod" in k for k in states[1][part])
    assert weights.read(tmp_path / "True" / "last.safetensors")[0].keys() == states[0]["model"].keys()


def test_a_run_that_stopped_early_can_be_made_longer(shapes, tmp_path, monkeypatch):
    monkeypatch.setattr("fcos.training.judging.evaluate", lambda *args: dataclasses.replace(evaluate(*args), ap=0.3))
    config = tiny_config(train={"epochs": 9, "patience": 1, "val_loss": False})
    first = learn(config, shapes, tmp_path / "run")
    assert first.steps == 2 * 4
    again = train(shapes, out=first.folder, resume=True, epochs=12, device="cpu", quiet=True)
    assert again.steps == 3 * 4  # one epoch, which was not better either


def test_a_run_that_is_judged_at_another_size_chooses_its_best_anew(shapes, tmp_path, capsys):
    config = tiny_config(train={"epochs": 1, "val_loss": False})
    first = learn(config, shapes, tmp_path / "run")
    file = checkpoints(first.folder)[-1]
    torch.save({**torch.load(file, weights_only=True), "best": 0.9}, file)
    size = {"data.size": 32, "data.max_size": 64}
    again = train(shapes, out=first.folder, resume=True, epochs=2, settings=size, device="cpu")
    assert "it is judged at another size or by other rules from here on" in capsys.readouterr().err
    assert again.best_ap == again.metrics.ap < 0.9


def test_a_damaged_checkpoint_is_told_where_the_one_before_serves(shapes, tmp_path, capsys):
    config = tiny_config(train={"epochs": 2, "save_every": 1, "val_loss": False, "keep": "resume"})

    def stop(step, report):
        if step == 3:
            raise KeyError

    with pytest.raises(KeyError):
        learn(config, shapes, tmp_path / "run", on_step=stop)
    *_, older, newest = checkpoints(tmp_path / "run")
    newest.write_bytes(newest.read_bytes()[:1000])
    train(shapes, out=tmp_path / "run", resume=True, device="cpu")
    step = int(older.stem.partition("-")[2])
    assert f"{newest} cannot be read" in (told := capsys.readouterr().err)
    assert f"the run goes on from step {step}" in told
