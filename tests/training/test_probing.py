"""Linear probing: what it fits, what it leaves alone, and that a run begins with it."""

from dataclasses import replace

import pytest
import torch
from tiny import make_shapes, options, tiny_config
from torchvision.ops import sigmoid_focal_loss

from fcos.assign import assign_batch
from fcos.data.loading.loader import eval_batches
from fcos.data.open import open_dataset, open_splits
from fcos.losses import Assignment, fcos_loss
from fcos.network import weights
from fcos.points import make_points
from fcos.training.loop import Trainer
from fcos.training.planning.facts import Facts
from fcos.training.planning.rules import Pace, probe_for
from fcos.training.probing import Rows, fit_classes, fitted, seen

CONFIG = tiny_config(train={"linear_probe": 6})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("shapes"), {"train": 8, "val": 3})


@pytest.fixture(scope="module")
def data(folder):
    return open_splits(folder)["train"]


def network():
    torch.manual_seed(0)
    return weights.build(CONFIG, 2)


def test_no_other_layer_has_a_lower_loss():
    """Focal loss as torchvision has it, each location as often as it stands for others, and 100/2 of the squared
    weights of features of spread 1: every small step away from the fit costs."""
    generator = torch.Generator().manual_seed(0)
    inputs = 3 * torch.randn(300, 6, generator=generator)
    wanted = (inputs[:, :2] + torch.randn(300, 2, generator=generator) > 3).float()
    inputs = torch.nn.functional.pad(inputs, (0, 1), value=1.0)
    rows = Rows(inputs, torch.zeros(300, dtype=torch.int64), 1.0 + torch.arange(300) % 4)
    layer, bias = fitted(rows, wanted, CONFIG)
    spread = float(inputs[:, :6].std())

    def loss(change):
        logits = inputs[:, :6].double() @ (layer + change[:6]).double() + (bias + change[6]).double()
        each = sigmoid_focal_loss(logits, wanted.double(), 0.25, 2.0)
        return float((each * rows.weight[:, None]).sum() + 50 * (spread * (layer + change[:6])).square().sum())

    least = loss(torch.zeros(7, 2))
    for _ in range(30):
        step = torch.randn(7, 2, generator=generator)
        step = step / step.norm() * 0.05
        assert loss(step) > least - 1e-4
        assert loss(step) + loss(-step) > 2 * least


def test_locations_stand_for_all(data):
    """The weights of an image's rows add up to its locations, and those of a class to the locations that learn it."""
    image = next(i for i, r in enumerate(data.records) if len(r.boxes))
    rows = seen(network(), data.subset([image]), CONFIG)
    (batch,) = eval_batches(data.subset([image]), CONFIG)
    points = make_points(batch.images.shape[-2:], CONFIG.model, CONFIG.assign, torch.device("cpu"))
    index = assign_batch(points, batch.targets, CONFIG.assign)
    assert float(rows.weight.sum()) == pytest.approx(len(points.xy))
    for label in range(2):
        expected = (batch.targets[0].labels[index[0].clamp(min=0)] == label) & (index[0] >= 0)
        assert float(rows.weight[rows.label == label].sum()) == pytest.approx(float(expected.sum()))
    assert rows.inputs.shape == (len(rows.label), 9 * 16 + 1)


def test_an_input_of_the_layer_is_its_neighbourhood(data):
    """The rows times the layer's weights are the logits that the network gives for those locations."""
    model = network()
    record = data.subset([0])
    rows = seen(model, record, CONFIG)
    layer = model.head.class_logits
    logits = rows.inputs[:, :-1] @ layer.weight.flatten(1).T + layer.bias
    (batch,) = eval_batches(record, CONFIG)
    with torch.no_grad():
        everywhere = model.eval()(batch.images).logits[0]
    for row in logits.detach():
        assert float((everywhere - row).abs().amax(dim=1).min()) < 1e-4


def focal(model, data):
    """The classification loss of all images."""
    total = 0.0
    for batch in eval_batches(data, CONFIG):
        points = make_points(batch.images.shape[-2:], CONFIG.model, CONFIG.assign, torch.device("cpu"))
        index = assign_batch(points, batch.targets, CONFIG.assign)
        with torch.no_grad():
            pred = model.eval()(batch.images)
        total += float(fcos_loss(pred, Assignment.of(points, batch.targets, index), CONFIG.loss, CONFIG.model)[0])
    return total


def test_the_loss_falls_and_all_else_stays(data):
    model = network()
    before, loss = {k: v.clone() for k, v in model.state_dict().items()}, focal(model, data)
    model.train()
    assert fit_classes(model, data, CONFIG, []) == 2
    assert model.training
    changed = [k for k, v in model.state_dict().items() if not torch.equal(v, before[k])]
    assert changed == ["head.class_logits.weight", "head.class_logits.bias"]
    assert focal(model, data) < 0.8 * loss


def test_a_known_class_keeps_its_row(data):
    model = network()
    before = model.head.class_logits.weight.clone()
    assert fit_classes(model, data, CONFIG, ["disc"]) == 1
    after = model.head.class_logits.weight
    assert torch.equal(after[0], before[0])
    assert not torch.equal(after[1], before[1])


def test_a_class_without_an_object_stays_fresh(data):
    """Its row would learn that there is none: only those that the images show are fitted."""
    model = network()
    before = model.head.class_logits.state_dict()["bias"].clone()
    squares = replace(data, records=[r for r in data.records if len(r.boxes) and (r.labels == 1).all()])
    assert len(squares) > 0
    assert fit_classes(model, squares, CONFIG, []) == 1
    after = model.head.class_logits.bias.detach()
    assert float(after[0]) == float(before[0])
    assert float(after[1]) != float(before[1])


def test_nothing_to_fit(data, tmp_path):
    """Known classes; no image; images without an object; an image that cannot be read is for training to name."""
    model = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert fit_classes(model, data, CONFIG, ["disc", "square"]) == 0
    assert fit_classes(model, data.subset([]), CONFIG, []) == 0
    empty = data.subset([i for i, r in enumerate(data.records) if not len(r.boxes)])
    assert len(empty) > 0
    assert fit_classes(model, empty, CONFIG, []) == 0
    broken = open_dataset(make_shapes(tmp_path, {"train": 2}))
    for file in (tmp_path / "images/train").iterdir():
        file.write_bytes(b"no image any more")
    with pytest.warns(UserWarning, match="not an image"):
        assert fit_classes(model, broken, CONFIG, []) == 0
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_run_begins_with_it(folder, tmp_path, capsys):
    """The class loss of the first step is below that of a run without, and the terminal says why."""
    first = {}
    for images in (0, 6):
        config = CONFIG.override({"train": {"linear_probe": images, "warmup": 0}})
        trainer = Trainer(config, open_splits(folder), options(tmp_path / str(images), quiet=False))
        trainer.run()
        told = "linear probe: the layer of 2 new classes is fitted to 6 images before the first step"
        assert (told in " ".join(capsys.readouterr().err.split())) == bool(images)
        first[images] = float(trainer.folder.rows()[0]["classification"])
    assert first[6] < 0.8 * first[0]


def test_the_plan_keeps_time_for_it():
    """0.5 s for a step of 4: 0.075 s for a forward pass, 2.5 s for a fit of 5 classes; a tenth of the time at most."""
    facts = Facts(205, 3000, 5, 416, 0.10, 0.25, 0.5, upright=False, handed=False, judged=87)
    pace = Pace(0.5, 0.05, 4, 320)
    choice, seconds = probe_for(100, facts, pace, 600)
    assert (choice.value, seconds) == ("100", pytest.approx(10.0))
    assert probe_for(100, replace(facts, images=40), pace, 600)[0].value == "40"
    choice, seconds = probe_for(100, facts, pace, 55)
    assert (choice.value, seconds) == ("40", pytest.approx(5.5))
    assert probe_for(100, facts, pace, 20)[0].value == "1"
