"""Lanes: parts of a step at once, the same step."""

import threading
import time

import pytest
import torch
from tiny import equal_states, learn, make_shapes, one_step, options, tiny_config
from torch import nn

from fcos.config import TrainConfig
from fcos.data.loading.loader import train_loader
from fcos.data.open import open_splits
from fcos.network import weights
from fcos.training.lanes import Lanes, lanes_for
from fcos.training.loop import Trainer
from fcos.training.not_finite import NotFinite
from fcos.training.output.checkpoint import load_checkpoint
from fcos.training.replay import replay
from fcos.types import Batch, Target

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return open_splits(make_shapes(tmp_path_factory.mktemp("shapes"), {"train": 15, "val": 4}))


def first_step(shapes, out, lanes, **train):
    """(the trainer, report, gradients) of a first step that does not move the weights."""
    run = Trainer(tiny_config(train={"batch": 5, "lanes": lanes, **train}), shapes, options(out))
    run.optimizer.step = lambda: None
    run.optimizer.zero_grad = lambda: None
    report = one_step(run, next(iter(train_loader(run.data["train"], run.config))))
    return run, report, {n: p.grad.clone() for n, p in run.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("accumulate", [1, 5])
def test_a_step_in_lanes_is_the_step(shapes, tmp_path, accumulate):
    """Gradients, losses and counts of five images in lanes of 2 and 3, or one by one, are those of all at once."""
    plain, expected, gradients = first_step(shapes, tmp_path / "plain", 1)
    assert plain.lanes is None
    for count in (2, 64):
        run, report, found = first_step(shapes, tmp_path / f"lanes{count}", count, accumulate=accumulate)
        assert run.lanes.count == 2  # no more than there are threads
        assert report.loss == pytest.approx(expected.loss, rel=1e-5)
        assert report.mean_iou == pytest.approx(expected.mean_iou, rel=1e-5)
        assert (report.positives, report.by_level) == (expected.positives, expected.by_level)
        assert found.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_gradients_lie_in_memory_as_their_weights_do(shapes, tmp_path, monkeypatch):
    """A fused optimizer reads memory in order, whatever the strides say, and `torch.autograd.grad` has its own."""
    run, _, expected = first_step(shapes, tmp_path / "lanes", 2)
    turned = [p for p in run.network.parameters() if p.dim() == 4 and min(p.shape) > 1 and p.requires_grad]
    assert turned
    run.network.zero_grad(set_to_none=True)
    learn = run.lanes._learn

    def flip(g):
        return g.contiguous(memory_format=torch.channels_last if g.is_contiguous() else torch.contiguous_format)

    def other_layout(*task):
        part, gradients = learn(*task)
        return part, [g if g is None or g.dim() != 4 else flip(g) for g in gradients]

    monkeypatch.setattr(run.lanes, "_learn", other_layout)
    run.step = 0
    one_step(run, next(iter(train_loader(run.data["train"], run.config))))
    for name, parameter in run.network.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad.stride() == parameter.stride(), name
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-5, msg=name)


def test_a_lane_that_is_late_changes_no_bit(shapes, tmp_path, monkeypatch):
    """The gradients are added in the order of the parts, whichever thread is done first."""
    _, _, expected = first_step(shapes, tmp_path / "plain", 2, accumulate=5)
    learned = Lanes._learn

    def late(self, batch, *rest):
        time.sleep(0.05 * (batch.ids[0] % 3))
        return learned(self, batch, *rest)

    monkeypatch.setattr(Lanes, "_learn", late)
    _, _, found = first_step(shapes, tmp_path / "late", 2, accumulate=5)
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name


def test_other_threads_keep_their_share_of_the_cores(shapes, tmp_path):
    """torch gives a new thread the number that any thread set last: a lane's would slow down all that come later."""
    run, _, _ = first_step(shapes, tmp_path / "run", 2)
    found = []
    other = threading.Thread(target=lambda: found.append((torch.ones(8) + 1, torch.get_num_threads())))
    other.start()
    other.join()
    assert found[0][1] == torch.get_num_threads() == 2
    assert [run.lanes._pool.submit(torch.get_num_threads).result() for _ in range(2)] == [1, 1]


def test_a_lane_that_cannot_start_ends_in_an_error(monkeypatch):
    """And not in a wait for ever: the second thread is one too many for the system."""
    start, begun = threading.Thread.start, []

    def few(self):
        if self.name.startswith("lane"):
            begun.append(self)
            if len(begun) > 1:
                raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", few)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        _ = Lanes(nn.Linear(1, 1), None, 2)._pool
    begun[0].join(10)
    assert not begun[0].is_alive()


def test_a_run_in_lanes_resumes_bit_by_bit(shapes, tmp_path):
    settings = {"batch": 4, "iterations": 6, "save_every": 3, "ema": 0.9, "lanes": 2, "plots": False}
    config = tiny_config(train=settings)
    learn(config, shapes, tmp_path / "whole")

    def killed(step, _):
        if step == 4:
            raise KeyboardInterrupt

    run = Trainer(config, shapes, options(tmp_path / "halves", on_step=killed))
    assert run.lanes is not None
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert load_checkpoint(tmp_path / "halves")["step"] == 4
    learn(None, shapes, tmp_path / "halves", resume=True, init=None)
    whole, halves = (load_checkpoint(tmp_path / name) for name in ("whole", "halves"))
    assert whole["step"] == halves["step"] == 6
    assert equal_states(whole["model"], halves["model"])
    assert equal_states(whole["average"], halves["average"])


def test_an_error_in_a_lane_comes_out_and_the_step_can_be_done_again(shapes, tmp_path):
    run, _, _ = first_step(shapes, tmp_path / "a", 2)
    run.lanes.network.head.class_logits.forward = lambda x: 1 / 0
    with pytest.raises(ZeroDivisionError):
        one_step(run, next(iter(train_loader(run.data["train"], run.config))))
    run = Trainer(tiny_config(train={"batch": 4, "lanes": 2}), shapes, options(tmp_path / "b"))
    with torch.no_grad():
        run.network.head.class_logits.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(NotFinite, match="the classification loss is not finite"):
        run.run()
    (file,) = (tmp_path / "b").glob("nan-*.pt")
    found = replay(file, "cpu")
    assert len(found.losses) == 2
    assert found.reproduced(1e-4)


def test_where_a_part_would_learn_something_else_there_is_one_lane():
    def built(**model):
        return weights.build(tiny_config(model=model), 2).train()

    def lanes(network, device=CPU, **train):
        return lanes_for(network, TrainConfig(**train), device)

    dense = built()
    assert lanes(dense) == 1
    assert lanes(dense, lanes=2) == 2
    assert lanes(dense, lanes=8) == 2  # no more than threads
    lite = {"backbone": "tf_efficientnet_lite0", "backbone_weights": "none", "backbone_norm": "frozen"}
    assert lanes(built(**lite)) == 2
    assert lanes(built(**lite), lanes=1) == 1
    assert lanes(built(**lite, head_norm="batch")) == 1
    assert lanes(built(backbone_norm="batch"), lanes=2) == 1
    assert lanes(dense, lanes=2, compile=True) == 1
    assert lanes(dense, lanes=2, checkpointing=True) == 1
    assert lanes(dense, torch.device("cuda"), lanes=2) == 1
    for name, part, expected in (("p", nn.Dropout(0.1), 1), ("p", nn.Dropout(0.0), 2), ("drop_prob", nn.Identity(), 1)):
        network = built()
        if name == "drop_prob":
            part.drop_prob = 0.2  # as timm's DropPath
        network.head.add_module("extra", part)
        assert lanes(network, lanes=2) == expected
    torch.set_num_threads(1)
    assert lanes(built(**lite)) == 1


@pytest.mark.parametrize(("images", "parts", "sizes"), [(5, 2, [2, 3]), (1, 2, [1]), (4, 4, [1, 1, 1, 1]), (0, 2, [0])])
def test_a_batch_splits_in_order(images, parts, sizes):
    batch = Batch(
        torch.arange(images).view(-1, 1, 1, 1).expand(-1, 3, 2, 2), [(2, i) for i in range(images)],
        [Target.empty() for _ in range(images)], list(range(images)),
    )  # fmt: skip
    split = batch.split(parts)
    assert [len(b) for b in split] == sizes
    assert [i for b in split for i in b.ids] == batch.ids
    assert [s for b in split for s in b.sizes] == batch.sizes
    assert torch.equal(torch.cat([b.images for b in split]), batch.images)
    assert sum(len(b.targets) for b in split) == images
