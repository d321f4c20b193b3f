"""fcos convert, from a file to a file and back."""

import pickle

import pytest
import torch
from variants import distinct, shapes_of, variant

from fcos.cli import main
from fcos.convert.translate import export_state, needs
from fcos.network import weights
from fcos.zoo.find import load_network

SMALL = {"backbone": "resnet18", "stride_in_1x1": False, "fpn_channels": 32, "head_channels": 32, "head_convs": 1}


@pytest.fixture(scope="module")
def theirs():
    config = variant("detectron2", **SMALL)
    return export_state(distinct(shapes_of(config)), config, "detectron2")


def run(*arguments):
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        return stop.code or 0
    return 0


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_there_and_back(tmp_path, capsys, theirs, suffix):
    path, ours, back = tmp_path / f"model{suffix}", tmp_path / "ours.safetensors", tmp_path / f"back{suffix}"
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps({"model": {k: v.contiguous().numpy() for k, v in theirs.items()}}))
    else:
        torch.save({"model": {f"module.{k}": v for k, v in theirs.items()}, "iteration": 3}, path)
    assert run("convert", path, ours, "decode.nms_iou=0.5") == 0
    said = capsys.readouterr().out
    assert "detectron2" in said
    assert "resnet18" in said
    assert "dialect detectron2, 80 classes" in said
    _, config, classes, about = weights.read(ours)
    assert (config.dialect, config.decode.nms_iou, classes.names[0], classes.ids[79]) == (
        "detectron2",
        0.5,
        "person",
        90,
    )
    assert about["converted_from"] == "detectron2"
    assert run("convert", ours, back, "--to", "detectron2") == 0
    assert "BGR" in capsys.readouterr().out
    if suffix == ".pkl":
        returned = {k: torch.from_numpy(v) for k, v in pickle.loads(back.read_bytes())["model"].items()}
    else:
        returned = torch.load(back, weights_only=True)["model"]
    assert returned.keys() == theirs.keys()
    assert all(torch.equal(returned[k], theirs[k]) for k in theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.float16])
def test_a_checkpoint_of_another_precision_gives_a_model_that_loads(tmp_path, theirs, dtype):
    path, ours = tmp_path / "model.pth", tmp_path / "ours.safetensors"
    given = {k: v.to(dtype) if v.is_floating_point() else v for k, v in theirs.items()}
    torch.save({"model": given}, path)
    assert run("convert", path, ours) == 0
    network, config, _ = load_network(ours)
    stored = weights.read(ours)[0]
    floats = {v.dtype for v in stored.values() if v.is_floating_point()}
    assert floats == {torch.float16 if dtype == torch.float16 else torch.float32}
    again = export_state(network.state_dict(), config, "detectron2")
    assert all(torch.equal(again[k], given[k].to(again[k].dtype)) for k in again)


def test_mistakes_are_one_line(tmp_path, capsys, theirs):
    path, out = tmp_path / "model.pth", tmp_path / "out.safetensors"
    torch.save(theirs, path)
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    for arguments in (
        ("convert", tmp_path / "none.pth", out),
        ("convert", path, tmp_path / "out.pth"),
        ("convert", path, out, "--from", "mmdet"),
        ("convert", path, out, "--dialect", "original"),
        ("convert", path, out, "--names", names),
        ("convert", path, out, "--names", tmp_path / "none.txt"),
        ("convert", path, out, "decode.nms_io=0.5"),
        ("convert", path, tmp_path / "x.pth", "--to", "detectron2"),
    ):
        assert run(*arguments) == 2, arguments
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "Traceback" not in error
    assert not out.exists()


def test_a_file_of_another_family_says_so_and_both_sides_are_listed(tmp_path, capsys, theirs):
    path, out = tmp_path / "model.pth", tmp_path / "out.safetensors"
    torch.save(theirs, path)
    assert run("convert", path, out, "--from", "mmdet") == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert "bbox_head.conv_cls.weight" in error
    assert "--from detectron2" in error
    torch.save({k.replace("bbox_pred", "bbox_prediction"): v for k, v in theirs.items()}, path)
    assert run("convert", path, out) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert "head.box_distances.weight has no counterpart" in error
    assert "2 of the file fit nothing (head.bbox_prediction.weight, head.bbox_prediction.bias)" in error
    torch.save({"fc.weight": torch.zeros(2)}, path)
    assert run("convert", path, out) == 2
    assert f"cannot convert {path}: it has no FCOS head" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("dialect", "to", "said"),
    [
        ("mmdet-2019", "adelaidet", ("exp(output), in pixels", "on the classification tower", "no bias (2 tensors")),
        ("mmdet-2019", "original", ("exp(output)", "classification tower", "epsilon 1e-05", "no bias (2 tensors")),
        ("mmdet-2019", "mmdet", ("exp(output)", "classification tower", "no bias")),
        ("mmdet", "adelaidet", ()),
        ("mmdet", "original", ("relu(output), in strides", "regression tower", "epsilon 1e-05")),
        ("original", "adelaidet", ("epsilon 0",)),
        ("original-2019", "detectron2", ("exp(output), in pixels", "classification tower", "epsilon 0")),
        ("adelaidet", "detectron2", ()),
    ],
)
def test_what_the_tensors_do_not_show_is_said(dialect, to, said):
    config = variant(dialect, **{k: v for k, v in SMALL.items() if k != "stride_in_1x1"})
    lines = [line for line in needs(config, to) if any(word in line for word in ("output", "tower", "epsilon"))]
    assert len(lines) == len(said)
    for words in said:
        assert any(words in line for line in lines), (words, lines)


def test_a_file_without_tower_biases_says_how_many_it_lacks():
    config = variant("mmdet-2019", **SMALL)
    bare = export_state(distinct(shapes_of(config)), config, "original")
    whole = config.override({"model": {"head_bias": True}})
    missing = export_state(distinct(shapes_of(whole)), whole, "original").keys() - bare.keys()
    assert len(missing) == 2  # one convolution in each of two towers
    assert any(f"({len(missing)} tensors" in line for line in needs(config, "original"))


def test_what_the_other_config_must_say_names_scales_that_the_weights_lack(tmp_path, capsys, theirs):
    path, out = tmp_path / "model.pth", tmp_path / "out.safetensors"
    torch.save(theirs, path)
    assert run("convert", path, out) == 0
    capsys.readouterr()
    for family, said in (("original", True), ("detectron2", False), ("torchvision", False)):
        assert run("convert", out, tmp_path / "x.pth", "--to", family) == 0
        assert ("scales of its head stay 1" in capsys.readouterr().out) == said
