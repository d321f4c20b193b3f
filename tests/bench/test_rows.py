"""`fcos bench` on a detector of a few thousand weights: a table whose figures agree with each other."""

import json
import shutil
import time

import pytest
import torch
from exporting import PLAIN
from tiny import NAMES, tiny_config

from fcos.bench import timing
from fcos.bench.rows import Ways, bench
from fcos.bench.timing import alternate
from fcos.bench.ways import Conditions
from fcos.cli import main
from fcos.errors import FcosError, ModelError
from fcos.inference import load as load_module
from fcos.network import weights
from fcos.network.info import describe_network
from fcos.types import Classes
from fcos.zoo.find import load_network


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    config = tiny_config(model=PLAIN)
    path = tmp_path_factory.mktemp("bench") / "tiny.safetensors"
    return weights.save(path, weights.build(config, 2).state_dict(), config, Classes(NAMES))


def test_json(model, capsys):
    main_arguments = ["bench", "--model", str(model), "--size", "60x90,64", "--batch", "1,2", "--rounds", "2", "--json"]
    with pytest.raises(SystemExit) as end:
        main(main_arguments)
    assert end.value.code == 0
    report = json.loads(capsys.readouterr().out)
    rows = report["rows"]
    assert [(r["size"], r["batch"]) for r in rows] == [("60x90", 1), ("60x90", 2), ("64x64", 1), ("64x64", 2)]
    for row in rows:
        assert row["ratio"] == 1.0  # each is the only one of its size and batch
        assert row["images_per_second"] == pytest.approx(1e3 * row["batch"] / row["milliseconds"])
        assert (
            0
            < row["share"]
            == pytest.approx(row["gflop"] * row["batch"] / (row["network"] / 1e3) / report["peaks"]["fp32"])
        )
    assert rows[0]["gflop"] == pytest.approx(1.5 * rows[2]["gflop"], rel=0.01)  # padded to 64x96
    assert report["machine"]


def test_what_cannot_run_is_a_note(model):
    report = bench(Ways([str(model)], ["torch"], ["fp32", "int8"], ["64"]), Conditions(rounds=1))
    assert [row.dtype for row in report.rows] == ["fp32"]
    assert any("int8" in note for note in report.notes)
    head, row = report.text().splitlines()[:2]
    assert len(head) == len(row)  # the last column ends where its heading does
    assert head.split()[-1] == "ratio"
    assert row.split()[-1] == "1.00"
    with pytest.raises(FcosError, match="int8"):
        bench(Ways([str(model)], ["torch"], ["int8"], ["64"]), Conditions(rounds=1))
    for wrong in ("10", "axb"):
        with pytest.raises(FcosError, match="write HxW"):
            bench(Ways([str(model)], sizes=[wrong]))


def test_the_baseline_is_torchvisions_own_size_alone(monkeypatch, model):
    """A row of another size is compared with nothing, and not with itself."""
    from fcos.bench import rows

    theirs = rows.Way("theirs", "eager", "fp32", "64x64", 1, lambda: None, baseline=True)
    ours = [rows.Way("ours", "torch", "fp32", size, 1, lambda: None) for size in ("64x64", "32x32")]
    monkeypatch.setattr(rows, "products", lambda dtype, device: [])
    report = rows._measure([ours[0], theirs, *ours], Conditions(rounds=1), "torchvision", [])
    assert [row.ratio is None for row in report.rows][3:] == [True]
    assert report.rows[1].ratio == 1.0
    assert report.text().splitlines()[4].split()[-1] == "-"


def test_a_compiler_that_fails_is_a_note(model, monkeypatch):
    """As torch's C++ does where it is told to leave out the instructions it needs, or where there is no compiler."""

    def backend(graph, _):
        raise RuntimeError("C++ compile error\n\nCommand: g++\na.cpp:1: error: no such type")

    honest = load_module.Compiled
    monkeypatch.setattr(load_module, "Compiled", lambda network: honest(network, backend))
    report = bench(Ways([str(model)], ["torch", "compile"], sizes=["64"]), Conditions(rounds=1))
    assert [row.runtime for row in report.rows] == ["torch"]
    (note,) = [note for note in report.notes if note.startswith("left out")]
    assert "torch.compile does not work here: a.cpp:1: error: no such type" in note
    with pytest.raises(FcosError, match=r"torch\.compile does not work here"):
        bench(Ways([str(model)], ["compile"], sizes=["64"]), Conditions(rounds=1))


@pytest.mark.slow
def test_lanes_are_rows_of_their_own(model, monkeypatch):
    honest = load_module.Compiled  # with a compiler that has no work: nothing is asked of its code here
    monkeypatch.setattr(load_module, "Compiled", lambda network: honest(network, lambda graph, _: graph.forward))
    monkeypatch.setattr("fcos.bench.rows.products", lambda dtype, device: [])
    report = bench(
        Ways([str(model)], ["torch", "compile"], sizes=["64"], batches=[1, 2], lanes=[1, 2]),
        Conditions(threads=2, rounds=1),
    )
    laned = [row for row in report.rows if row.lanes == 2]
    assert [(row.runtime, row.batch) for row in laned] == [("torch", 1), ("torch", 2)]
    for row in laned:
        assert row.network is None
        assert row.images_per_second == pytest.approx(1e3 * row.batch / row.milliseconds)
    assert any("several lanes" in note for note in report.notes)
    assert "lanes" in report.text().splitlines()[0].split()


def test_threads_are_those_asked_for_and_the_callers_afterwards(model, monkeypatch):
    seen = []
    monkeypatch.setattr("fcos.bench.rows.products", lambda dtype, device: [])
    report = bench(
        Ways([str(model)], sizes=["64"]),
        Conditions(threads=2, rounds=1),
        say=lambda _: seen.append(torch.get_num_threads()),
    )
    assert report.threads == 2
    assert set(seen) == {2}
    assert torch.get_num_threads() == 1


def test_threads_that_no_system_has_room_for_are_one_line(model):
    with pytest.raises(ModelError, match="513 threads cannot be; give 0 to 512"):
        bench(Ways([str(model)], sizes=["64"]), Conditions(threads=513, rounds=1))


def test_the_peak_is_that_of_the_device_asked_for(model, monkeypatch):
    """A machine with a GPU, asked for its CPU."""
    asked = []

    def products(dtype, device):
        asked.append(torch.device(device).type)
        return []

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(timing, "synchronize", lambda: None)
    monkeypatch.setattr("fcos.bench.rows.heading", lambda: ("machine", "versions"))
    monkeypatch.setattr("fcos.bench.rows.products", products)
    bench(Ways([str(model)], sizes=["64"]), Conditions(device="cpu", rounds=1))
    assert asked == ["cpu"]


@pytest.mark.slow
def test_a_network_is_compiled_once_for_each_state_of_its_images(model, tmp_path, monkeypatch):
    """Two models at two sizes and two batches: torch neither gives up nor compiles the same again."""
    compiled = []

    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    honest = load_module.Compiled
    monkeypatch.setattr(load_module, "Compiled", lambda network: honest(network, backend))
    monkeypatch.setattr("fcos.bench.rows.products", lambda dtype, device: [])
    paths = [str(model), str(tmp_path / "other.safetensors")]
    shutil.copy(*paths)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        report = bench(Ways(paths, ["compile"], sizes=["64", "64x96"], batches=[1, 2]), Conditions(rounds=1))
    assert len(report.rows) == 2 * 2 * 2
    assert not torch._inductor.config.freezing
    # one size, then any size, then any batch
    assert len(compiled) <= 2 * 3


def test_ways_take_turns():
    order = []
    times = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2, warm=1)
    assert order == ["a", "b"] * 3
    assert {k: len(v) for k, v in times.items()} == {"a": 2, "b": 2}


def test_flops_of_a_layer_by_hand():
    """A deformable convolution counts as a plain one and its offsets; nothing is computed, so 4000 pixels are quick."""
    size = (4096, 4096)
    small = {"head_convs": 1, "head_channels": 16, "fpn_channels": 16}
    plain, bent = (
        describe_network(weights.build(c, 2), c, size)
        for c in (tiny_config(model={**small, "head_deformable": d}) for d in (False, True))
    )
    cells = sum(level["points"] for level in plain.levels)
    # head: two tower convs of 16x16x9, outputs of 16x9x(2+4+1)
    assert plain.parts[2].flops == 2 * cells * (2 * 16 * 16 * 9 + 16 * 9 * 7)
    assert bent.parts[2].flops == plain.parts[2].flops + 2 * cells * 2 * 16 * 27 * 9


def test_an_emulated_product_is_no_peak(monkeypatch):
    """int8 that is slower than fp32 says nothing about the machine; in fp32 the better of two counts."""
    honest = timing.matrix_product

    def slow(dtype, device="cpu"):
        if dtype == "fp32":
            return honest("fp32", device)
        return (lambda: time.sleep(0.5)), 0.001

    monkeypatch.setattr(timing, "matrix_product", slow)
    assert timing.products("int8") == []
    assert len(timing.products("fp32")) == 2


def test_an_exported_file_is_measured_as_what_it_is(model, tmp_path, monkeypatch):
    monkeypatch.setattr("fcos.bench.rows.products", lambda dtype, device: [])
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from fcos.export.about import About
    from fcos.export.open import write_export

    network, config, classes = load_network(model)
    file = tmp_path / "m.onnx"
    write_export(network, About(config, classes, size=(64, 64)), "onnx", file)
    report = bench(Ways([str(file)]), Conditions(rounds=1))
    assert [(row.runtime, row.dtype) for row in report.rows] == [("onnx", "fp32")]
    report = bench(
        Ways([str(file)], ["torch", "onnx"], ["fp32", "bf16"], lanes=[1, 2]), Conditions(threads=2, rounds=1)
    )
    assert [(row.runtime, row.dtype, row.lanes) for row in report.rows] == [
        ("onnx", "fp32", 1),
        ("onnx", "fp32", 2),
    ]
    wrong_runtime, wrong_dtype = [note for note in report.notes if note.startswith("left out")]
    assert "is a file for the runtime onnx, not torch" in wrong_runtime
    assert "export it with dtype=bf16" in wrong_dtype
