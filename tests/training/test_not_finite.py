"""A step that is not finite: the run stops before the weights change, and the step can be done again."""

import math

import pytest
import torch
from tiny import equal_states, learn, make_shapes, options, tiny_config

from fcos.cli import main
from fcos.data.open import open_splits
from fcos.errors import ModelError
from fcos.training.loop import Trainer
from fcos.training.not_finite import NotFinite
from fcos.training.output.step_file import load_step
from fcos.training.replay import replay


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return open_splits(make_shapes(tmp_path_factory.mktemp("shapes"), {"train": 8}))


def trainer(shapes, out, **train):
    config = tiny_config(model={"backbone_norm": "batch"}, train={"accumulate": 2, **train})
    return Trainer(config, shapes, options(out))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_poisoned_weight_is_found(shapes, tmp_path, capsys, checkpointing):
    run = trainer(shapes, tmp_path / "run", checkpointing=checkpointing)
    with torch.no_grad():
        run.network.head.class_logits.weight[0, 0, 0, 0] = math.nan
    before = {k: v.clone() for k, v in run.network.named_parameters()}
    with pytest.raises(NotFinite, match=r"step 0: the classification loss is not finite.*--replay .*nan-00000000\.pt"):
        run.run()
    for name, value in run.network.named_parameters():
        torch.testing.assert_close(value, before[name], equal_nan=True, rtol=0, atol=0)

    file = tmp_path / "run" / "nan-00000000.pt"
    found = replay(file, "cpu")
    assert found.reproduced(0.0)
    assert math.isnan(found.losses[0][0])
    assert math.isfinite(found.losses[0][1])
    assert found.weights == ["head.class_logits.weight"]
    assert found.first == "head.class_logits"
    assert found.predictions == {"logits": False, "distances": True, "centerness": True}
    assert "head.class_logits.weight" in found.gradients
    assert "head.box_distances.weight" not in found.gradients
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--replay", str(file), "--device", "cpu"])
    text = capsys.readouterr().out
    assert "the losses are those of the run" in text
    assert "first output not finite: head.class_logits" in text


def test_statistics_that_the_step_itself_spoiled_are_not_to_blame(shapes, tmp_path):
    """BatchNorm takes in what the poisoned weight gives before anybody looks at the loss."""
    run = trainer(shapes, tmp_path / "run")
    name, weight = next(iter(run.network.backbone.named_parameters()))
    with torch.no_grad():
        weight[(0,) * weight.ndim] = math.nan  # in any memory layout
    with pytest.raises(NotFinite):
        run.run()
    file = tmp_path / "run" / "nan-00000000.pt"
    assert any("running_mean" in key and value.isnan().any() for key, value in load_step(file)["model"].items())
    assert replay(file, "cpu").weights == [f"backbone.{name}"]


def test_the_file_holds_the_step_whole(shapes, tmp_path):
    run = trainer(shapes, tmp_path / "run")
    with torch.no_grad():
        run.network.head.centerness.bias.fill_(math.inf)
    with pytest.raises(NotFinite, match="the centerness loss"):
        run.run()
    stored = load_step(tmp_path / "run" / "nan-00000000.pt")  # weights_only
    assert equal_states(stored["model"], run.network.state_dict())
    assert [len(b["images"]) for b in stored["batches"]] == [2, 2]
    assert stored["batches"][0]["images"].dtype == torch.uint8
    assert all(b["images"].isfinite().all() for b in stored["batches"])
    torch.manual_seed(run.seed())
    assert torch.equal(stored["rng"], torch.get_rng_state())
    assert len(stored["files"]) == 4


def test_a_rate_that_is_far_too_high_ends_in_a_file_that_reproduces_it(shapes, tmp_path):
    """Weights explode in the first step; later losses overflow. Nothing was poisoned by hand."""
    config = tiny_config(train={"optimizer": "sgd", "lr": 1e6, "warmup": 0, "epochs": 9, "schedule": "constant"})
    with pytest.raises(NotFinite) as error:
        learn(config, shapes, tmp_path / "run")
    (file,) = (tmp_path / "run").glob("nan-*.pt")
    assert str(file) in str(error.value)
    found = replay(file, "cpu")
    assert found.step > 0
    assert found.reproduced(0.0)
    assert found.gradients
    assert not (tmp_path / "run" / f"checkpoint-{found.step + 1:08d}.pt").exists()


def test_files_that_are_no_step(tmp_path):
    with pytest.raises(ModelError, match="there is no file"):
        replay(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("no step")
    with pytest.raises(ModelError, match="cannot be read"):
        replay(tmp_path / "text.pt")
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="is not a step that training kept"):
        replay(tmp_path / "other.pt")
    torch.save({"kind": "fcos step"}, tmp_path / "empty.pt")
    with pytest.raises(ModelError, match="config is missing or of another kind"):
        replay(tmp_path / "empty.pt")


@pytest.mark.parametrize("change", [{"model": {}}, {"batches": [{}]}, {"batches": [{"images": 3}]}])
def test_a_step_that_was_changed_is_one_line(shapes, tmp_path, change):
    run = trainer(shapes, tmp_path / "run")
    with torch.no_grad():
        run.network.head.centerness.bias.fill_(math.inf)
    with pytest.raises(NotFinite):
        run.run()
    file = tmp_path / "run" / "nan-00000000.pt"
    torch.save({**torch.load(file, weights_only=True), **change}, file)
    with pytest.raises(ModelError, match=r"nan-00000000\.pt is damaged: "):
        replay(file)
