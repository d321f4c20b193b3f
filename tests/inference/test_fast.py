"""The fast way without asking: graphs are kept, checked, used, made again where damaged, and never waited for."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from functools import partial

import filelock
import numpy as np
import pytest
import torch
from exporting import PLAIN
from matching import assert_same_detections
from PIL import Image
from tiny import NAMES, fcos, make_shapes, tiny_config

from fcos.errors import ModelError
from fcos.export import browser, check
from fcos.export.about import About
from fcos.inference import fast, graphs, runtime_switch, stream
from fcos.inference.graphs import Check, Graph, Origin
from fcos.inference.load import load
from fcos.inference.runtime_switch import PAYS, ChangeOver
from fcos.inference.stream import Batching, pick_batching
from fcos.network import weights
from fcos.system.machine import Placement, has_bf16, python_program
from fcos.types import Classes, Predictions

CPU = torch.device("cpu")
TORCH, GRAPH = Placement(), Placement(runtime="openvino")
IMAGES = [np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8) for i in range(4)]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    torch.manual_seed(0)
    config = tiny_config(model=PLAIN, decode={"threshold": 0.0, "max_detections": 5})
    path = tmp_path_factory.mktemp("fast") / "tiny.safetensors"
    return weights.save(path, weights.build(config, 2).state_dict(), config, Classes(NAMES))


@pytest.fixture(scope="module")
def shelf(file, tmp_path_factory):
    """A cache folder with the checked graph of `file`."""
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("shelf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FCOS_CACHE", str(folder))
        graphs.make(Origin(file), "openvino")
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, nobody who says FCOS_RUNTIME, and no process beside this one."""
    monkeypatch.setenv("FCOS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FCOS_RUNTIME")
    monkeypatch.setattr(fast, "background", lambda *_: pytest.fail("a process was started"))
    return tmp_path / "cache"


@pytest.fixture
def kept(cache, shelf):
    """The cache folder with the graph in it; its folder."""
    shutil.copytree(shelf, cache)
    return next(path for path in (cache / "graphs").iterdir() if path.is_dir())


def saying(number):
    """A network whose every logit is `number`."""

    def network(images):
        return Predictions(*(torch.full((len(images), 3, k), float(number)) for k in (2, 4, 1)))

    return network


def said(network, images=1):
    return float(network(torch.zeros(images, 3, 8, 8)).logits[0, 0, 0])


def at_once(work):
    work()


def test_it_begins_in_torch_and_goes_on_in_the_graph():
    asked = []

    def later(samples):
        asked.append(samples)
        return saying(2), GRAPH

    network = ChangeOver(lambda: (saying(1), TORCH), None, later, at_once)
    network.samples = ["a.jpg"]
    assert [said(network) for _ in range(PAYS - 1)] == [1] * (PAYS - 1)
    assert (asked, network.placement) == ([], TORCH)
    assert said(network) == 2
    assert (asked, network.placement) == ([["a.jpg"]], GRAPH)
    assert [said(network, 50) for _ in range(3)] == [2, 2, 2]
    assert len(asked) == 1  # it is made once
    assert said(network.torch[0]) == 1


def test_images_of_a_batch_count_each():
    network = ChangeOver(lambda: (saying(1), TORCH), None, lambda _: (saying(2), GRAPH), at_once)
    assert [said(network, PAYS - 1), said(network, 1), said(network, 1)] == [1, 2, 2]


def test_what_cannot_be_made_leaves_torch_as_it_was():
    network = ChangeOver(lambda: (saying(1), TORCH), None, lambda _: None, at_once)
    assert [said(network, PAYS) for _ in range(3)] == [1, 1, 1]
    assert network.placement == TORCH


def test_a_graph_that_fails_is_left_for_torch_for_good():
    calls, built = [], []

    def broken(images):
        calls.append(1)
        raise RuntimeError("no such kernel")

    def in_torch():
        built.append(1)
        return saying(1), TORCH

    network = ChangeOver(in_torch, (broken, GRAPH))
    assert not built  # torch is not built where it is not needed
    assert [said(network) for _ in range(3)] == [1, 1, 1]
    assert (len(calls), len(built), network.placement) == (1, 1, TORCH)


def test_errors_of_torch_are_the_callers():
    def broken(images):
        raise RuntimeError("torch's own")

    with pytest.raises(RuntimeError, match="torch's own"):
        said(ChangeOver(lambda: (broken, TORCH)))


def test_nothing_is_opened_while_the_interpreter_ends(monkeypatch):
    assert runtime_switch.opened(lambda: (saying(1), TORCH))[1] == TORCH
    assert runtime_switch.wait_for(lambda: True)
    monkeypatch.setattr(runtime_switch, "_closing", type(runtime_switch._closing)())
    runtime_switch._closing.set()
    assert runtime_switch.opened(lambda: pytest.fail("it was opened")) is None
    assert not runtime_switch.wait_for(lambda: False)


def passed(*dtypes, doubts=(), wrong=()):
    return {
        d: Check(wrong=list(wrong), doubts=[*wrong, *(doubts if d == "bf16" else ())], judged=50, told="")
        for d in dtypes
    }


BAD = passed("fp32", wrong=["scores differ"])
RULES = {  # what is kept for OpenVINO and for ONNX, the dtype asked for -> runtime, dtype, whether some is missing
    "nothing there": (None, None, None, (None, "fp32", True)),
    "bf16 is faster": (passed("fp32", "bf16"), None, None, ("openvino", "bf16", False)),
    "bf16 in doubt": (passed("fp32", "bf16", doubts=["few"]), None, None, ("openvino", "fp32", False)),
    "bf16 in doubt, asked for": (passed("fp32", "bf16", doubts=["few"]), None, "bf16", ("openvino", "bf16", False)),
    "fp32 asked for": (passed("fp32", "bf16"), None, "fp32", ("openvino", "fp32", False)),
    "not checked yet": ({}, passed("fp32"), None, (None, "fp32", True)),
    "OpenVINO bad": (BAD, passed("fp32"), None, ("onnx", "fp32", False)),
    "OpenVINO bad, ONNX to make": (BAD, None, None, (None, "fp32", True)),
    "both bad": (BAD, BAD, None, (None, "fp32", False)),
    "bf16 asked for, in none": (passed("fp32"), passed("fp32"), "bf16", (None, "bf16", False)),
}


@pytest.mark.parametrize("case", RULES)
def test_which_graph_is_used(case, tmp_path, monkeypatch):
    openvino, onnx, asked, expected = RULES[case]
    there = {"openvino": openvino, "onnx": onnx}
    monkeypatch.setattr(graphs, "runtimes", lambda: list(there))
    monkeypatch.setattr(graphs, "find", lambda _, r: None if there[r] is None else Graph(tmp_path, r, "", there[r], 1))
    choice = fast.choose(Origin(tmp_path), asked)
    assert (choice.graph and choice.graph.runtime, choice.dtype, choice.missing) == expected


def report(**changes):
    values = {"images": 9, "detections": 60, "matched": 60, "score": 0.01, "box": 2.0, "share": 0.005, "lost": 0}
    return check.Report(**{**values, "judged": 40, **changes})


def test_bf16_has_to_be_better_unasked_than_asked_for():
    assert not check.doubts(report(), "bf16")
    for changes in ({"score": 0.06}, {"share": 0.03}, {"lost": 1}, {"judged": 19}):
        assert check.doubts(report(**changes), "bf16"), changes
        assert not check.verdict(report(**changes), "bf16"), changes
    close = report(score=5e-5, share=5e-5, judged=3)
    assert not check.doubts(close, "fp32")
    assert check.doubts(report(), "fp32")


def test_a_graph_is_made_once_and_used_again(kept, file, monkeypatch):
    monkeypatch.setattr(graphs, "write_export", lambda *_: pytest.fail("it was made again"))
    monkeypatch.setattr(graphs, "_check", lambda *_: pytest.fail("it was checked again"))
    graph = graphs.make(Origin(file), "openvino")
    assert graph.folder == kept
    assert graph.passes("fp32")
    detector = load(file, device="cpu", dtype="fp32")
    assert detector.running.runtime == detector.placement.runtime == "openvino"
    expected = load(file, device="cpu", runtime="torch")
    for ours, theirs in zip(detector(IMAGES, score=0), expected(IMAGES, score=0), strict=True):
        assert_same_detections(ours, theirs, box=1e-2, score=1e-4)
    assert repr(detector) == "Detector(tiny, 2 classes, openvino fp32 on cpu)"
    back = detector.in_torch()
    assert (back.placement.runtime, repr(back)) == ("torch", repr(expected))
    assert expected.in_torch() is expected
    for runtime in ("auto", "openvino"):
        assert load(file, device="cpu", runtime=runtime, dtype="fp32").running.runtime == "openvino"


def test_what_a_graph_was_made_of_is_in_its_name(file, tmp_path, monkeypatch):
    other = tmp_path / "other.safetensors"
    state, config, classes, _ = weights.read(file)
    weights.save(other, {k: v + 1 if k.endswith("bias") else v for k, v in state.items()}, config, classes)
    base = Origin(file).folder("openvino", "fp32")
    same = (Origin(shutil.copy(file, tmp_path / "copy.safetensors")), Origin(file, ("decode.threshold=0.4",)))
    assert {o.folder("openvino", "fp32") for o in same} == {base}
    apart = [
        Origin(other).folder("openvino", "fp32"),
        Origin(file, ("model.point_offset=0.25",)).folder("openvino", "fp32"),
        Origin(file, ("data.padding=exact",)).folder("openvino", "fp32"),
        Origin(file).folder("openvino", "fp16"),
        Origin(file).folder("onnx", "fp32"),
    ]
    for module, name, value in (
        (graphs, "processor", lambda: "another CPU"),
        (graphs, "has_bf16", lambda device: not has_bf16(device)),
        (graphs, "__version__", "another version"),
        (graphs.torch, "__version__", "another torch"),
        (graphs.importlib.metadata, "version", lambda name: "another runtime"),
    ):
        with monkeypatch.context() as patch:
            origin = Origin(file)
            assert len(origin.classes) == 2  # read before the versions are what they are not
            patch.setattr(module, name, value)
            apart.append(origin.folder("openvino", "fp32"))
    assert len({base, *apart}) == 1 + len(apart)


@pytest.mark.parametrize("harm", ["cut", "changed", "gone", "state", "no state", "foreign"])
def test_a_damaged_graph_is_made_again(kept, file, harm, monkeypatch):
    whole = {path.name: path.read_bytes() for path in kept.iterdir()}
    bin_file, state = kept / "model.bin", kept / "state.json"
    if harm == "cut":
        bin_file.write_bytes(whole["model.bin"][:-7])
    elif harm == "changed":
        bin_file.write_bytes(whole["model.bin"][:-1] + bytes([whole["model.bin"][-1] ^ 1]))
    elif harm == "gone":
        (kept / "model.xml").unlink()
    elif harm == "state":
        state.write_bytes(whole["state.json"][:40])
    elif harm == "no state":
        state.unlink()
    else:
        state.write_text(json.dumps({"failed": "", "checks": 3}))
    assert load(file, device="cpu").running.runtime == "torch"
    made = []

    def write(network, about, runtime, path):
        made.append(runtime)
        for name in ("model.xml", "model.bin"):
            (path.parent / name).write_bytes(whole[name])

    monkeypatch.setattr(graphs, "write_export", write)
    passing = Check(wrong=[], doubts=[], judged=50, told="")
    monkeypatch.setattr(graphs, "_check", lambda *_: passing)
    graphs.make(Origin(file), "openvino")
    assert made == ["openvino"]
    assert load(file, device="cpu", dtype="fp32").running.runtime == "openvino"


@pytest.mark.parametrize("why", ["a file in its place", "read-only", "full"])
def test_a_cache_that_cannot_be_written_changes_nothing_but_the_speed(cache, file, why, monkeypatch):
    pytest.importorskip("openvino")
    if why == "a file in its place":
        cache.write_text("")
    elif why == "read-only":
        monkeypatch.setattr(filelock.FileLock, "acquire", refuse(errno.EROFS))
    else:
        monkeypatch.setattr(graphs, "write_export", refuse(errno.ENOSPC))
    with pytest.raises(graphs.NoCache, match=str(cache)):
        graphs.make(Origin(file), "openvino")
    assert load(file, device="cpu").running.runtime == "torch"
    if why == "read-only":
        assert load(file, device="cpu", runtime="openvino").running.runtime == "openvino"  # made in memory
    assert not list((cache / "graphs").glob(".making-*")) if cache.is_dir() else True


def refuse(number):
    def call(*arguments, **options):
        raise OSError(number, os.strerror(number))

    return call


def test_a_network_that_cannot_be_exported_is_remembered(cache, file, monkeypatch):
    tries = []

    def write(network, about, runtime, path):
        tries.append(runtime)
        path.write_bytes(b"half of it")
        raise RuntimeError("no such operator\nand a long trace")

    monkeypatch.setattr(graphs, "write_export", write)
    for _ in range(2):
        graph = graphs.make(Origin(file), "openvino")
        assert (graph.failed, graph.passes("fp32"), graph.best) == ("no such operator", False, None)
    assert tries == ["openvino"]
    assert [p.name for p in graph.folder.iterdir()] == ["state.json"]
    monkeypatch.setattr(graphs, "runtimes", lambda: ["openvino"])
    assert load(file, device="cpu").running.runtime == "torch"
    assert load(file, device="cpu", runtime="auto").running.runtime == "torch"
    with pytest.raises(ModelError, match="no such operator"):
        load(file, device="cpu", runtime="openvino")


def test_a_lack_of_memory_is_not_remembered_and_a_person_may_ask_again(cache, file, monkeypatch):
    errors = iter([MemoryError(), RuntimeError("could not create a primitive"), RuntimeError("no such operator")])
    real = graphs.write_export

    def write(network, about, runtime, path):
        error = next(errors, None)
        if error is not None:
            raise error
        real(network, about, runtime, path)

    monkeypatch.setattr(graphs, "write_export", write)
    for _ in range(2):
        with pytest.raises(graphs.NoCache, match="was not made"):
            graphs.make(Origin(file), "openvino", None)
        assert graphs.find(Origin(file), "openvino") is None
    assert graphs.make(Origin(file), "openvino", None).failed == "no such operator"
    assert graphs.make(Origin(file), "openvino", None).failed == "no such operator"
    pytest.importorskip("openvino")
    assert not graphs.make(Origin(file), "openvino", None, again=True).failed


def test_a_wrong_graph_is_never_used(cache, file, monkeypatch):
    """An export whose weights are another network's: the check sees it, and torch computes."""
    pytest.importorskip("openvino")
    real = graphs.write_export

    def write(network, about, runtime, path):
        with torch.no_grad():
            network.head.class_logits.bias += 0.5
        real(network, about, runtime, path)

    monkeypatch.setattr(graphs, "write_export", write)
    monkeypatch.setattr(graphs, "runtimes", lambda: ["openvino"])
    detector = load(file, device="cpu", runtime="auto")
    assert detector.running.runtime == "torch"
    graph = graphs.find(Origin(file), "openvino")
    assert graph is not None
    assert not graph.passes("fp32")
    assert graph.best is None


def test_images_of_the_user_prove_bf16_where_the_packages_cannot(kept, file, tmp_path, monkeypatch):
    seen = []

    def checked(reference, graph, dtype, images):
        seen.append((dtype, len(images)))
        judged = 3 + 10 * (len(images) - 9)
        few = dtype == "bf16" and judged < check.ENOUGH
        return Check(wrong=[], doubts=["few"] if few else [], judged=judged, told="")

    monkeypatch.setattr(graphs, "_check", checked)
    monkeypatch.setattr(graphs, "has_bf16", lambda device: True)
    (tmp_path / "none.png").write_bytes(b"no image")
    paths = [tmp_path / "none.png"]
    for i, image in enumerate(IMAGES[:2]):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    # has_bf16 is part of the name, so on a CPU without it this is a graph to make
    if not Origin(file).folder("openvino", "fp32").exists():
        shutil.copytree(kept, Origin(file).folder("openvino", "fp32"))
    state = Origin(file).folder("openvino", "fp32") / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "checks": {}, "tries": 0}))
    first = graphs.make(Origin(file), "openvino")
    assert (first.best, first.unproved, seen) == ("fp32", True, [("fp32", 9), ("bf16", 9)])
    assert graphs.make(Origin(file), "openvino").best == "fp32"  # nothing new to look at
    second = graphs.make(Origin(file), "openvino", paths)
    assert (second.best, second.unproved, seen[2:]) == ("bf16", False, [("bf16", 11)])
    assert graphs.find(Origin(file), "openvino") == second


def test_the_graphs_used_last_are_kept(cache, file, monkeypatch):
    def write(network, about, runtime, path):
        path.write_bytes(b"a graph")

    monkeypatch.setattr(graphs, "write_export", write)
    folders = []
    for i in range(graphs.MOST + 2):
        graph = graphs.make(Origin(file, (f"model.point_offset={i / 20}",)), "openvino", None)
        os.utime(graph.folder / "state.json", (i, i))
        folders.append(graph.folder)
        if i == 4:
            (cache / "graphs" / ".making-killed").mkdir()
    left = sorted(p.name for p in (cache / "graphs").iterdir() if p.is_dir())
    assert left == sorted(p.name for p in folders[2:])


def test_a_folder_changes_over_halfway_and_tells(kept, cache, file, tmp_path, monkeypatch, capsys):
    """The graph comes while the images are detected: nothing is made here, so when it comes is certain."""
    shutil.move(kept, cache / "aside")
    asked = []

    def background(origin, place, samples):
        asked.append((place, list(samples)))
        shutil.move(cache / "aside", kept)
        return fast._open(fast.choose(origin, "fp32").graph, place, "fp32")

    monkeypatch.setattr(fast, "background", background)
    monkeypatch.setattr(runtime_switch, "_in_background", at_once)
    images = tmp_path / "images"
    images.mkdir()
    count = PAYS + 6
    for i in range(count):
        Image.fromarray(np.roll(IMAGES[i % 4], i, axis=1)).save(images / f"{i:02}.png")

    def predict(*options):
        where = ("--score", 0, "--out", tmp_path / "o", "--lanes", 1)
        code, out, err = fcos(capsys, "predict", images, "--model", file, "--json", *where, *options)
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]

    halfway = predict()
    (place, samples), *more = asked
    assert not more
    assert place.dtype == "fp32"
    assert [p.name for p in samples] == sorted(p.name for p in images.iterdir())
    after = predict("--dtype", "fp32")
    plain = predict("--runtime", "torch")
    assert len(halfway) == len(after) == len(plain) == count
    for rows in zip(halfway, after, plain, strict=True):
        boxes = [[(d["box"], d["score"], d["label"]) for d in row["detections"]] for row in rows]
        assert len(boxes[0]) == len(boxes[1]) == len(boxes[2]) > 0
        for other in boxes[:2]:
            for (box, score, _), (same_box, same_score, _) in zip(other, boxes[2], strict=True):
                assert np.allclose(box, same_box, atol=1e-2)
                assert abs(score - same_score) < 1e-4
    assert len(asked) == 1


def test_what_computed_is_said(kept, file, tmp_path, monkeypatch, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for i in range(PAYS):
        Image.fromarray(IMAGES[i % 4]).save(images / f"{i}.png")

    def told(*options):
        code, _, err = fcos(capsys, "predict", *options, "--model", file, "--out", tmp_path / "o")
        assert code == 0, err
        return next(line for line in err.splitlines() if "images a second" in line).rpartition(", ")[2]

    assert told(images, "--dtype", "fp32") == "openvino fp32"
    assert told(images, "--runtime", "torch") == "torch fp32"
    assert told(images / "0.png") == "torch fp32"  # a graph takes longer to start than it saves
    monkeypatch.setenv("FCOS_RUNTIME", "torch")
    assert told(images) == "torch fp32"
    monkeypatch.setenv("FCOS_RUNTIME", "openvino")
    assert told(images / "0.png") == "openvino fp32"
    monkeypatch.setenv("FCOS_RUNTIME", "fast")
    code, _, err = fcos(capsys, "predict", images, "--model", file, "--out", tmp_path / "o")
    assert code == 2
    assert "FCOS_RUNTIME" in err
    assert "fast" in err
    assert len(err.splitlines()) == 1


def test_bf16_never_takes_over_halfway(cache, file, monkeypatch):
    """Who asks for bf16 before there is a graph stays in torch's, and has it made for the next time."""
    pytest.importorskip("openvino")
    asked = []
    monkeypatch.setattr(fast, "background", lambda origin, place, samples: asked.append(place))
    monkeypatch.setattr(runtime_switch, "_in_background", at_once)
    detector = load(file, device="cpu", dtype="bf16")
    detector.network(torch.zeros(PAYS, 3, 64, 64, dtype=torch.uint8))
    assert asked == [None]
    assert (detector.running.runtime, detector.running.dtype) == ("torch", "bf16")


def test_without_another_runtime_nothing_is_different(cache, file, monkeypatch):
    monkeypatch.setattr(graphs, "runtimes", list)
    detector = load(file, device="cpu")
    assert not isinstance(detector.network, ChangeOver)
    assert detector.in_torch() is detector


def test_prepare_tells_what_it_made(kept, file, capsys):
    code, out, err = fcos(capsys, "models", "prepare", file)
    assert code == 0, err
    assert str(kept) in out
    assert "fp32: good" in out
    assert out.splitlines()[-1].startswith("predict computes in openvino")
    code, _, err = fcos(capsys, "models", "prepare", "no-such-model")
    assert code == 2
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_two_processes_make_one_graph(cache, file):
    pytest.importorskip("openvino")
    command = [sys.executable, "-m", "fcos", "models", "prepare", str(file), "--background"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outs[0] == outs[1]
    assert len([p for p in (cache / "graphs").iterdir() if p.is_dir()]) == 1
    assert load(file, device="cpu").running.runtime == "openvino"


@pytest.mark.slow
def test_waiting_for_another_process_is_said(kept, file, monkeypatch, capsys):
    monkeypatch.setattr(graphs, "_PATIENCE", 0.05)
    held = threading.Event()

    def other():  # a thread of its own: filelock refuses to wait for a lock of the same one
        with filelock.FileLock(kept.parent / ".lock"):
            held.set()
            time.sleep(0.6)

    thread = threading.Thread(target=other)
    thread.start()
    assert held.wait(10)
    monkeypatch.setattr(graphs, "ticking", partial(graphs.ticking, every=0.1))
    graphs.make(Origin(file), "openvino", None)
    thread.join()
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith("fcos: another process prepares the fast form of a model; waiting for it")
    assert rest
    assert all(line.startswith("fcos: still waiting, 0:0") and "--runtime torch" in line for line in rest)


def test_making_a_graph_is_said_at_once_and_goes_on_being_said(cache, file, monkeypatch, capsys):
    def write(network, about, runtime, path):
        said.append(capsys.readouterr().err)
        time.sleep(0.3)
        path.write_bytes(b"a graph")

    said = []
    monkeypatch.setattr(graphs, "write_export", write)
    monkeypatch.setattr(graphs, "ticking", partial(graphs.ticking, every=0.05))
    graphs.make(Origin(file), "onnx", None)
    assert len(said) == 1
    assert said[0].startswith(f"fcos: preparing {file.stem} for this machine (onnx)")
    assert "a minute or two" in said[0]
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("fcos: still preparing, 0:0") for line in lines)


def test_a_graph_that_is_there_is_not_announced(kept, file, capsys):
    graphs.make(Origin(file), "openvino")
    assert capsys.readouterr().err == ""


def test_what_a_killed_process_left_is_gone_before_the_next_graph_is_written(cache, file, monkeypatch):
    left = cache / "graphs" / ".making-killed"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"half")
    seen = []
    monkeypatch.setattr(graphs, "write_export", lambda *_: seen.append(left.exists()))
    graphs.make(Origin(file), "onnx", None)
    assert seen == [False]


def test_a_process_beside_this_one_makes_it(cache, file, tmp_path, monkeypatch):
    """The real thing: no other test waits for a process. What lies in the current folder is none of its modules."""
    pytest.importorskip("openvino")
    monkeypatch.undo()
    monkeypatch.setenv("FCOS_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "typer.py").write_text("open('ran', 'w')\n")
    running = fast.background(Origin(file), Placement(threads=1), ())
    assert running is not None
    assert running[1].runtime == "openvino"
    assert not (tmp_path / "ran").exists()
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    detector = load(file, device="cpu", runtime="torch")
    with torch.inference_mode():
        for ours, theirs in zip(running[0](images), detector.network(images), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("program", "frozen"),
    [("/opt/viewer/viewer", True), ("/opt/viewer/python", True), ("/usr/bin/uwsgi", False), (None, False), ("", False)],
)
def test_a_program_that_python_is_a_part_of_is_not_started_again(file, monkeypatch, program, frozen):
    monkeypatch.setattr(fast.subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr(sys, "executable", program)
    if frozen:
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert fast.background(Origin(file), Placement(threads=1), ()) is None
    monkeypatch.setenv("FCOS_CHROMIUM", "chrome")
    assert browser.find_chromium() is None


def test_no_process_is_started_where_nothing_can_be_kept(file, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FCOS_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(fast.subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    assert fast.background(Origin(file), Placement(threads=1), ()) is None


@pytest.mark.parametrize("name", ["python3.12", "pythonw.exe", "Python", "pypy3", "graalpy"])
def test_python_by_any_of_its_names_is_started(monkeypatch, name):
    monkeypatch.setattr(sys, "executable", f"/opt/bin/{name}")
    assert python_program() == f"/opt/bin/{name}"


def test_the_input_of_a_graph_is_that_of_its_settings(file):
    origin = Origin(file, ("data.padding=exact",))
    assert About(origin.config, origin.classes).pixels == "float32"


def test_eval_gives_the_numbers_of_torch_on_the_kept_graph(kept, file, tmp_path, capsys, monkeypatch):
    opened = []
    real = graphs.open_runtime
    monkeypatch.setattr(graphs, "open_runtime", lambda path, place: opened.append(place) or real(path, place))
    data = make_shapes(tmp_path / "shapes", {"val": 5})
    results = []
    for options in ((), ("--runtime", "auto")):
        code, out, err = fcos(capsys, "eval", data, "--model", file, "--json", *options)
        assert code == 0, err
        results.append(json.loads(out))
    assert [(place.runtime, place.dtype) for place in opened] == [("openvino", "fp32")]
    assert results[0]["detections"] == results[1]["detections"] == 25
    assert results[0]["AP"] == pytest.approx(results[1]["AP"], abs=1e-6)


def test_the_pace_that_is_best_where_none_is_asked_for(monkeypatch):
    best = Batching(0, 0)
    assert pick_batching(1000, best, 2, "cpu") == Batching(1, 2)
    assert pick_batching(3, best, 2, "cpu") == Batching(1, 1)
    assert pick_batching(1000, Batching(8, 0), 2, "cpu") == Batching(8, 1)
    assert pick_batching(1000, Batching(4, 3), 2, "cpu") == Batching(4, 3)
    monkeypatch.setattr(stream, "pick_device", lambda name: torch.device("meta"))  # a GPU
    assert pick_batching(1000, best, 2) == Batching(8, 1)


def test_a_file_that_changed_since_is_not_read_for_the_same_model(tmp_path):
    file = tmp_path / "m.safetensors"
    file.write_bytes(b"one")
    origin = graphs.Origin(file)
    origin.check_same()  # nothing was looked for yet
    assert origin._file[1]
    file.touch()
    origin.check_same()  # another time, the same bytes
    file.write_bytes(b"two")
    with pytest.raises(ModelError, match="load it again"):
        origin.check_same()
