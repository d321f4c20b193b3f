"""Training on a Mac's GPU, as far as another machine can tell."""

import pytest
import torch
from apple import Apple
from tiny import make_shapes, options, tiny_config

from fcos.data.loading.loader import train_loader
from fcos.data.open import open_splits
from fcos.points import make_points
from fcos.training.loop import Trainer
from fcos.training.validation import Pass, loss_sums


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return open_splits(make_shapes(tmp_path_factory.mktemp("shapes"), {"train": 8, "val": 2}))


@pytest.mark.parametrize("rule", ["exact", "rounded", "float32"])
def test_a_step_needs_nothing_that_mps_lacks_and_learns_the_same(shapes, tmp_path, rule, monkeypatch):
    """No float64 and no least of int64 by scatter; the step is that of the CPU."""
    config = tiny_config(assign={"area_rule": rule}, train={"ema": 0.9, "lanes": 1})
    batches = next(iter(train_loader(shapes["train"], config)))
    told = []
    for device in ("cpu", "mps"):
        trainer = Trainer(config, shapes, options(tmp_path / device))

        def points(batch, device=device, config=config):
            return make_points(batch.images.shape[-2:], config.model, config.assign, device)

        monkeypatch.setattr(trainer, "points", points)
        with Apple():
            report = trainer.train_step(iter([[batch.to(device) for batch in batches]]))
        told.append((report.positives, report.by_level, report.ambiguous, report.grad_norm, report.loss))
        trainer.close()
    assert told[0][0] > 0
    assert told[0][:3] == told[1][:3]
    assert told[0][3:] == pytest.approx(told[1][3:], rel=1e-5)


def test_the_loss_of_images_for_judging_needs_no_float64_there(shapes, tmp_path):
    config = tiny_config()
    trainer = Trainer(config, shapes, options(tmp_path / "run"))
    where = [torch.device("cpu"), torch.device("mps")]
    with Apple():
        sums = [loss_sums(trainer.network, shapes["val"], config, trainer.classes, Pass(device)) for device in where]
    trainer.close()
    assert sums[0] == pytest.approx(sums[1], rel=1e-5)


def test_gradients_are_clipped_where_a_device_has_no_foreach_kernels(shapes, tmp_path):
    """torch knows none for mps, nor for meta."""
    trainer = Trainer(tiny_config(train={"clip": 1.0}), shapes, options(tmp_path / "run"))
    weight = torch.nn.Parameter(torch.ones(3, device="meta"))
    weight.grad = torch.ones(3, device="meta")
    trainer.optimizer.param_groups[:] = [{"params": [weight]}]
    assert trainer.clip_gradients().shape == ()
    trainer.close()
