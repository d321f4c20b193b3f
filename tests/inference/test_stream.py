"""A folder of images: batches, lanes and background writing change neither results nor order nor errors."""

import dataclasses
import subprocess
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from matching import assert_same_detections
from PIL import Image
from tiny import NAMES, tiny_config

from fcos.data.images.reading import read_image
from fcos.errors import ImageError
from fcos.inference import stream
from fcos.inference.detector import Detector
from fcos.inference.load import load
from fcos.inference.stream import pick_lanes, run
from fcos.network import weights
from fcos.types import Classes


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(1)
    config = tiny_config(decode={"threshold": 0.0, "max_detections": 5})
    return Detector(weights.build(config, 2).eval(), config, Classes(NAMES))


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for i in range(11):
        path = tmp_path / f"{i}.png"
        if i == 4:
            path.write_bytes(b"no image")
        else:
            Image.fromarray(rng.integers(0, 255, (64, 64 + 32 * (i % 2), 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def test_batches_keep_order_results_and_errors(detector, images):
    scores = torch.zeros(2)
    single = list(run(detector, images, scores))
    assert [path for path, _, _ in single] == images
    assert [i for i, (_, _, found) in enumerate(single) if isinstance(found, ImageError)] == [4]
    for batch in (3, 20):
        for (path, pixels, found), (same_path, same_pixels, expected) in zip(
            run(detector, images, scores, batch), single, strict=True
        ):
            assert path == same_path
            assert np.array_equal(pixels, same_pixels)
            if not isinstance(expected, ImageError):
                assert_same_detections(found, expected, box=1e-2, score=1e-5)
                assert found.source == str(path)
    assert list(run(detector, [], scores)) == []


def in_a_new_thread() -> int:
    """The number of threads that torch begins with in a new thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


@pytest.mark.parametrize("runtime", ["torch", pytest.param("onnx", marks=pytest.mark.slow), "openvino"])
def test_lanes_change_neither_order_nor_results_nor_errors(detector, images, tmp_path, runtime):
    if runtime != "torch":
        pytest.importorskip({"onnx": "onnxruntime"}.get(runtime, runtime))
        pytest.importorskip("onnxscript")
    path = weights.save(
        tmp_path / "tiny.safetensors", detector.network.state_dict(), detector.config, detector.classes
    )  # fmt: skip
    torch.set_num_threads(2)
    laned = load(path, runtime=runtime, threads=3, lanes=3, device="cpu")
    assert (laned.placement.lanes, laned.placement.threads) == (3, 1)
    scores = torch.zeros(2)
    expected = list(run(detector, images, scores))
    for _ in range(3):  # threads that share what is not theirs to share do so now and then
        found = list(run(laned, images, scores))
        assert [p for p, _, _ in found] == images
        for (_, pixels, one), (_, same, other) in zip(found, expected, strict=True):
            assert np.array_equal(pixels, same)
            assert isinstance(one, ImageError) == isinstance(other, ImageError)
            if not isinstance(one, ImageError):
                assert_same_detections(one, other, box=1e-2, score=1e-5)
    assert torch.get_num_threads() == in_a_new_thread() == 2  # the caller's threads are the caller's
    assert next(run(laned, images, scores))[0] == images[0]  # who stops early is not made to wait for the rest


def test_lanes_are_few_and_only_where_they_can_be(detector, tmp_path):
    assert pick_lanes(1, 1, 2) == pick_lanes(7, 1, 2) == pick_lanes(1000, 8, 2) == pick_lanes(1000, 1, 1) == 1
    assert pick_lanes(1000, 1, 2) == pick_lanes(8, 1, 64) == 2
    assert pick_lanes(1000, 1, 64) == 4
    path = weights.save(tmp_path / "tiny.safetensors", detector.network.state_dict(), detector.config, detector.classes)
    compiled = load(path, runtime="compile", threads=2, lanes=2, device="cpu")
    assert (compiled.placement.lanes, compiled.placement.threads) == (1, 2)


def test_the_same_image_twice_in_a_batch(detector, images):
    found = list(run(detector, [images[0]] * 3 + [images[4]] * 2, torch.zeros(2), batch=5))
    assert [isinstance(one, ImageError) for _, _, one in found] == [False] * 3 + [True] * 2
    for _, _, one in found[1:3]:
        assert_same_detections(one, found[0][2], box=1e-3, score=1e-6)


@pytest.mark.parametrize(("batch", "lanes"), [(1, 1), (1, 3), (4, 1)])
def test_large_images_are_held_one_at_a_time_and_small_ones_together(detector, images, monkeypatch, batch, lanes):
    held: list[weakref.ref] = []
    most, bound = [0], 0

    def alive():
        return sum(one() is not None for one in held)

    def reading(path):
        image = read_image(path)
        held.append(weakref.ref(image))
        until = time.monotonic() + 2  # a thread lets go of what it is done with a moment after its result is there
        while alive() > bound and time.monotonic() < until:
            time.sleep(0.001)
        most[0] = max(most[0], alive())
        return image

    monkeypatch.setattr(stream, "read_image", reading)
    laned = detector.replace(placement=dataclasses.replace(detector.placement, lanes=lanes))
    good = [path for path in images if path.stem != "4"]
    for limit, bound in ((64 * 96 - 1, 1), (3 * 64 * 96, 4), (10**9, len(good))):
        monkeypatch.setattr(stream, "PIXELS_AHEAD", limit)
        held.clear()
        most[0] = 0
        order = []
        for path, pixels, found in run(laned, good, torch.zeros(2), batch):
            order.append(path)
            del pixels, found
        assert order == good
        assert most[0] <= bound
    assert most[0] > 1


@pytest.mark.slow
def test_a_folder_of_the_largest_images_stays_under_a_stated_bound(tmp_path):
    """Eight images of 170 megapixels, 0.5 GB each when decoded: docs/security.md promises 4 GB."""
    first = tmp_path / "0.png"
    Image.new("RGB", (17000, 10000), (90, 120, 30)).save(first, compress_level=1)
    for i in range(1, 8):
        (tmp_path / f"{i}.png").hardlink_to(first)
    program = f"""
import resource
from fcos.cli import main
try: main(["predict", {str(tmp_path)!r}, "--out", {str(tmp_path / "out")!r}])
except SystemExit as end: assert not end.code, end.code
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert len(list((tmp_path / "out").iterdir())) == 8
    assert int(done.stdout.splitlines()[-1]) * 1024 < 4e9
