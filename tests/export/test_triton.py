"""A folder for NVIDIA's Triton: its config by Triton's own schema, its graph by what the config says of it."""

import importlib.util
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from exporting import config_of, needs_onnx, network_of
from tiny import NAMES, fcos

from fcos.export import job
from fcos.export.about import About
from fcos.export.formats import onnx as onnx_format
from fcos.export.named import named
from fcos.export.open import read_about, write_export
from fcos.network import weights
from fcos.types import Classes

pytestmark = needs_onnx
NUMBERS = {"TYPE_UINT8": np.uint8, "TYPE_FP32": np.float32, "TYPE_INT64": np.int64}
CLASSES = Classes(('cat "of 9" \\ lives', "chien à poil"))
assert len(CLASSES.names) == len(NAMES)


@pytest.fixture(scope="module")
def schema():
    """Triton's model_config.proto as its client carries it; the client's package itself would want grpc."""
    place = importlib.util.find_spec("tritonclient")
    if place is None:
        pytest.skip("pip install 'tritonclient[http]'")
    file = Path(place.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One ends in predictions and takes any batch and size, the other in detections of one image of 96x96."""
    folder = tmp_path_factory.mktemp("triton")
    for name, about in (
        ("free", About(config_of(), CLASSES)),
        ("fixed", About(config_of("original"), CLASSES, batch=1, size=(96, 96), nms=True)),
    ):
        write_export(network_of(about.config), about, "triton", folder / name)
    return folder


@pytest.fixture
def checkpoint(tmp_path):
    config = config_of()
    return weights.save(tmp_path / "mine.safetensors", network_of(config).state_dict(), config, CLASSES)


@pytest.mark.parametrize("name", ["free", "fixed"])
def test_config_and_graph_agree_by_tritons_schema(schema, folders, name):
    text_format = pytest.importorskip("google.protobuf.text_format")
    ort = pytest.importorskip("onnxruntime")
    folder, fixed = folders / name, name == "fixed"
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == [
        "1/model.onnx", "config.pbtxt",
    ]  # fmt: skip
    config = text_format.Parse((folder / "config.pbtxt").read_text(), schema.ModelConfig())  # unknown fields raise
    assert config.backend == "onnxruntime"
    assert config.max_batch_size == (0 if fixed else 8)
    assert config.HasField("dynamic_batching") is not fixed
    assert config.parameters["classes"].string_value.split("\n") == list(CLASSES.names)
    assert config.parameters["fcos"].string_value == read_about(folder / "1" / "model.onnx").to_text()

    # what Triton would send and expect for a batch of requests, through the graph itself
    batch = 1 if fixed else 3
    session = ort.InferenceSession(str(folder / "1" / "model.onnx"))
    kinds = {value: name for name, value in schema.DataType.items()}

    def shape(tensor, free):
        dims = [] if tensor.HasField("reshape") else list(tensor.dims)
        return [free if d < 0 else d for d in (dims if fixed else [batch, *dims])]

    given = {t.name: np.full(shape(t, 96), 90, NUMBERS[kinds[t.data_type]]) for t in config.input}
    outputs = session.run([t.name for t in config.output], given)
    assert {v.name for v in session.get_inputs()} == set(given)
    assert {v.name for v in session.get_outputs()} == {t.name for t in config.output}
    for told, value in zip(config.output, outputs, strict=True):
        assert value.dtype == NUMBERS[kinds[told.data_type]], told.name
        expected = shape(told, -1)
        assert len(expected) == value.ndim, told.name
        assert all(a in (-1, b) for a, b in zip(expected, value.shape, strict=True)), told.name


def test_what_is_judged_is_the_graph_inside_and_a_model_that_is_there_is_replaced_whole(
    folders, checkpoint, tmp_path, monkeypatch
):
    seen = []

    def copied(network, about, path, images=()):
        shutil.copy(folders / "free" / "1" / "model.onnx", path)

    def judged(reference, path, *rest):
        seen.append(read_about(path).classes.names)
        return None, ["bad"] if len(seen) == 2 else []

    monkeypatch.setattr(onnx_format, "write", copied)
    monkeypatch.setattr(job, "judge", judged)
    order = job.Job(partial(named, str(checkpoint)), "triton", tmp_path / "repository" / "mine")
    first = job.run(order)
    assert first.file == tmp_path / "repository" / "mine"
    assert f"--model-repository={tmp_path / 'repository'}" in first.text()
    stale = first.file / "1" / "stale"
    stale.write_text("")
    assert job.run(order).file.name == "mine.rejected"
    assert stale.exists()  # a rejected export touches nothing
    assert job.run(order).file == first.file
    assert not stale.exists()
    assert seen == [CLASSES.names] * 3


def test_a_folder_of_something_else_is_left_alone(capsys, checkpoint, tmp_path):
    """A person who names the repository where the model's folder is wanted loses nothing."""
    repository = tmp_path / "repository"
    (repository / "other" / "1").mkdir(parents=True)
    (repository / "other" / "1" / "model.onnx").write_bytes(b"precious")
    code, out, err = fcos(capsys, "export", checkpoint, "--format", "triton", "--out", repository)
    assert (code, out) == (2, "")
    assert f"--out {repository / 'mine'}" in err
    assert err.count("\n") == 1
    assert (repository / "other" / "1" / "model.onnx").read_bytes() == b"precious"
    code, _, err = fcos(capsys, "export", checkpoint, "--format", "triton", "--out", tmp_path / "mine.onnx")
    assert code == 2
    assert "folder" in err
