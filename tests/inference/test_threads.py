"""A detector that was asked for so many threads computes with them, and leaves the caller's number alone."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from exporting import NEEDS, PLAIN
from tiny import NAMES, tiny_config

from fcos.inference.detector import Detector
from fcos.inference.load import Compiled, load
from fcos.network import weights
from fcos.system.machine import Placement, has_bf16, training_dtype
from fcos.system.threads import torch_threads
from fcos.types import Classes, Predictions
from fcos.zoo.find import load_network

IMAGE = np.full((64, 64, 3), 127, np.uint8)


class Watched:
    """In the place of a network: notes with how many threads it is called, and sees nothing. (What it computes would
    take seconds where several threads share a busy core.)"""

    def __init__(self):
        self.seen = []

    def __call__(self, images):
        self.seen.append(torch.get_num_threads())
        points = images.shape[-2] * images.shape[-1] // 64 * 5 // 4  # strides 8 and 16
        shape = (len(images), points)
        return Predictions(torch.full((*shape, 2), -9.0), torch.ones(*shape, 4), torch.zeros(shape))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    torch.manual_seed(0)
    config = tiny_config(model=PLAIN)
    path = tmp_path_factory.mktemp("threads") / "tiny.safetensors"
    return weights.save(path, weights.build(config, 2).state_dict(), config, Classes(NAMES))


def watched(detector: Detector) -> tuple[Detector, list[int]]:
    network = Watched()
    return detector.replace(network=network), network.seen


@pytest.mark.parametrize("asked", [0, 1, 2, 3])
def test_threads_inside_and_outside(file, asked):
    torch.set_num_threads(2)
    detector, seen = watched(load(file, threads=asked, device="cpu"))
    assert torch.get_num_threads() == 2
    detector(IMAGE)
    detector.forward(detector.prepare(IMAGE)[0][None], [(64, 64)])
    assert seen == [asked or 2] * 2
    assert torch.get_num_threads() == 2


FORK = """
import multiprocessing, sys, numpy, torch, fcos
torch.set_num_threads(2)
def load():
    return fcos.load(sys.argv[1], device="cpu", runtime="torch", overrides=["data.size=256", "data.max_size=256"])
detector = load()
image = numpy.full((256, 256, 3), 127, numpy.uint8)
def detect(own):
    return (load() if own else detector)(image, score=0)
if __name__ == "__main__":
    here = detect(0)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert all(there == here for there in pool.map_async(detect, range(2)).get(60))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_process_that_is_forked_after_use_detects(file, tmp_path):
    """torch's threads are not in it, and torch would wait for them."""
    (tmp_path / "program.py").write_text(FORK)
    program = [sys.executable, str(tmp_path / "program.py"), str(file)]
    answer = subprocess.run(
        program, capture_output=True, text=True, timeout=200, env=os.environ | {"OMP_NUM_THREADS": "2"}
    )
    assert answer.returncode == 0, answer.stderr


def test_threads_are_put_back_when_the_network_fails(file):
    torch.set_num_threads(2)

    def broken(images):
        raise RuntimeError("broken")

    detector = load(file, threads=3, device="cpu").replace(network=broken)
    with pytest.raises(RuntimeError, match="broken"):
        detector(IMAGE)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_exported_files_leave_the_number_alone(file, tmp_path, format):
    for needed in NEEDS[format]:
        pytest.importorskip(needed)
    from fcos.export.about import About
    from fcos.export.open import write_export
    from fcos.export.registry import FORMATS

    network, config, classes = load_network(file)
    made = tmp_path / f"m{FORMATS[format].suffix}"
    write_export(network, About(config, classes, size=(64, 64)), format, made)
    torch.set_num_threads(2)
    detector, seen = watched(load(made, threads=3, device="cpu", trust=True))
    detector(IMAGE)
    # torch itself stays out of the way of a runtime with threads of its own
    assert seen == [3 if format == "torchscript" else 1]
    assert torch.get_num_threads() == 2


def test_torch_threads_of_each_thread():
    torch.set_num_threads(2)
    seen = {}

    def work():
        with torch_threads(3):
            seen["inside"] = torch.get_num_threads()
        seen["after"] = torch.get_num_threads()

    with torch_threads(1):
        worker = threading.Thread(target=work)
        worker.start()
        worker.join()
        assert torch.get_num_threads() == 1
    assert seen == {"inside": 3, "after": 1}
    assert torch.get_num_threads() == 2


def test_compiled_networks_take_images_in_one_state():
    """Images from inside and outside inference mode, with channels first and last: one compilation."""
    count = []

    def backend(graph, _):
        count.append(1)
        return graph.forward

    torch.manual_seed(0)
    network = weights.build(tiny_config(), 2).eval()
    compiled = Compiled(network, backend)
    plain = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        inside = plain.clone()
    lying = plain[0].permute(1, 2, 0).contiguous().permute(2, 0, 1)[None]  # as OpenCV's pixels come
    states = [plain, inside, plain.to(memory_format=torch.channels_last), lying]
    with torch.no_grad():
        expected = network(plain)
    for images in states:
        for ours, theirs in zip(compiled(images), expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert len(count) == 1


def test_many_compiled_networks_do_not_use_up_each_others_compilations():
    torch.manual_seed(0)
    count = []

    def backend(graph, _):
        count.append(1)
        return graph.forward

    images = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True, recompile_limit=2):
        for _ in range(3):
            Compiled(weights.build(tiny_config(), 2).eval(), backend)(images)
    assert len(count) == 3


BF16 = {(6, 1): False, (7, 0): False, (7, 5): False, (8, 0): True, (8, 9): True, (12, 0): True}


@pytest.mark.parametrize(("capability", "there"), BF16.items())
def test_emulated_bf16_does_not_count(monkeypatch, capability, there):
    """V100 is 7.0 and T4 7.5: torch says yes for both, and computes several times slower than in fp32."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert has_bf16(torch.device("cuda:0")) is there


@pytest.mark.parametrize(
    ("machine", "intel", "onednn", "avx512_bf16", "amx", "has", "trains"),
    [
        ("x86_64", False, True, True, False, True, True),
        ("x86_64", True, True, True, False, True, False),  # Intel's need AMX to be quicker
        ("AMD64", True, True, False, True, True, True),
        ("x86_64", False, True, False, False, False, False),  # AVX-512 alone: oneDNN says yes and emulates
        ("x86_64", False, False, True, False, False, False),  # told to leave them out by ONEDNN_MAX_CPU_ISA
        ("aarch64", False, True, False, False, True, False),
    ],
)
def test_bf16_of_a_processor(monkeypatch, machine, intel, onednn, avx512_bf16, amx, has, trains):
    """What counts are instructions for it; `train.precision=auto` is measured on x86 alone."""
    monkeypatch.setattr("fcos.system.machine._is_intel", lambda: intel)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert has_bf16(torch.device("cpu")) is has
    assert (training_dtype("auto", torch.device("cpu")) == "bf16") is trains


def test_placement_is_what_load_was_told(file):
    place = load(file, threads=3, device="cpu").placement
    assert place == Placement(torch.device("cpu"), "torch", "fp32", 3, 1)
