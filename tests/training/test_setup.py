"""What stands before the first step: initial weights, the layout of memory, settings that say too little."""

import pytest
import torch
from tiny import make_shapes, options, tiny_config

from fcos.data.open import open_splits
from fcos.network import weights
from fcos.training.loop import Trainer
from fcos.training.setup import initialise, wants_channels_last
from fcos.types import Classes


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return open_splits(make_shapes(tmp_path_factory.mktemp("shapes"), {"train": 16, "val": 6}))


def trainer(shapes, out, **sections):
    return Trainer(tiny_config(**sections), shapes, options(out))


def test_fine_tuning_lists_what_is_kept(shapes, tmp_path):
    """From a detector of other classes: all but the classification layer; of another width: what fits."""
    first = trainer(shapes, tmp_path / "first")
    first.run()
    network = weights.build(first.config, 3)
    (line,) = initialise(network, first.config, Classes(("a", "b", "c")), str(tmp_path / "first"))
    assert line.endswith(", fresh: head.class_logits")
    kept_parts = line.split("(")[1].split(")")[0].split(", ")
    assert kept_parts[:2] == ["backbone", "fpn"]
    assert "head.classification" in kept_parts
    assert "head.class_logits" not in kept_parts
    state = network.state_dict()
    kept = int(line.split(": ")[1].split()[0])
    assert kept == len(state) - 2
    theirs = first.shipped.state_dict()
    assert all(torch.equal(state[k], theirs[k]) for k in state if not k.startswith("head.class_logits."))
    wide = tiny_config(model={"head_channels": 32})
    (line,) = initialise(weights.build(wide, 2), wide, Classes(("disc", "square")), str(tmp_path / "first"))
    kept_part, fresh_part = line.split("fresh: ")
    assert "backbone, fpn" in kept_part
    assert fresh_part.startswith("head.classification, head.regression")


def test_a_class_of_the_same_name_keeps_its_row(shapes, tmp_path):
    """What the other detector knows of "square" goes where "Square" stands here; other rows stay fresh."""
    first = trainer(shapes, tmp_path / "first")
    first.run()
    layer = first.shipped.state_dict()["head.class_logits.weight"], first.shipped.state_dict()["head.class_logits.bias"]
    disc, square = (first.classes.names.index(name) for name in ("disc", "square"))
    network = weights.build(first.config, 3)
    fresh = network.head.class_logits.weight.clone(), network.head.class_logits.bias.clone()
    lines = initialise(network, first.config, Classes(("Square", "cat", "di-sc")), str(tmp_path / "first"))
    assert lines[1] == "it knows 2 of the 3 classes already: Square, di-sc"
    for mine, theirs, before in zip(network.head.class_logits.parameters(), layer, fresh, strict=True):
        assert torch.equal(mine[0], theirs[square])
        assert torch.equal(mine[1], before[1])
        assert torch.equal(mine[2], theirs[disc])


def test_the_names_of_coco_and_voc_meet(tmp_path):
    network = weights.build(tiny_config(), 2)
    state = {k: torch.full_like(v, 7.0) for k, v in network.state_dict().items()}
    weights.save(tmp_path / "w.safetensors", state, tiny_config(), Classes(("aeroplane", "pottedplant")), {})
    lines = initialise(network, tiny_config(), Classes(("potted plant", "airplane")), str(tmp_path / "w.safetensors"))
    assert lines[1] == "it knows 2 of the 2 classes already: potted plant, airplane"
    assert bool((network.head.class_logits.weight == 7).all())


def test_a_detector_with_another_body_gives_its_fpn_and_head_only(shapes, tmp_path):
    """Tensors of two bodies may share names and shapes and still mean nothing to each other."""
    first = trainer(shapes, tmp_path / "first")
    first.run()
    other = tiny_config(model={"backbone": "resnet10t", "backbone_weights": "none"})
    network = weights.build(other, 2)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    line, rest = initialise(network, other, Classes(("disc", "square")), str(tmp_path / "first"))
    assert line == ("backbone starts from random weights, with norms that do not learn; give model.backbone_norm=batch")
    assert "fpn" in rest.split("fresh: ")[0]
    theirs = first.shipped.state_dict()
    for key, value in network.state_dict().items():
        if key.startswith("backbone."):
            assert torch.equal(value, before[key]), key
        elif key.startswith("head."):
            assert torch.equal(value, theirs[key]), key


# --------------------------------------------------------------------------- memory layout


def test_the_memory_layout_is_the_bodys_and_the_machines(monkeypatch):
    """Dense bodies lose by channels_last on a CPU without AVX-512, depthwise ones gain (measured)."""
    cpu = torch.device("cpu")
    dense = weights.build(tiny_config(), 2)
    depthwise = weights.build(tiny_config(model={"backbone": "tf_efficientnet_lite0", "backbone_weights": "none"}), 2)
    for capability, expected in (("AVX2", False), ("AVX512", True), ("DEFAULT", True)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        assert wants_channels_last(dense, "auto", cpu) is expected
        assert wants_channels_last(depthwise, "auto", cpu) is True
    assert wants_channels_last(dense, "auto", torch.device("cuda")) is True
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert wants_channels_last(dense, True, cpu) is True
    assert wants_channels_last(depthwise, False, cpu) is False


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"loss": {"centerness_weight": 0}}, True),
        ({"loss": {"centerness_weight": 0}, "decode": {"score": "class"}}, False),
        ({"loss": {"centerness_weight": 0}, "decode": {"score": "power", "power": 1}}, False),
        ({}, False),
    ],
)
def test_a_branch_that_nothing_trains_is_told_where_scores_use_it(shapes, tmp_path, capsys, sections, told):
    Trainer(tiny_config(**sections), shapes, options(tmp_path / "run", quiet=False)).close()
    assert ("centerness branch untrained" in capsys.readouterr().err) == told
