"""Jobs that are killed, and jobs on Ray: no image missing, none twice, little done again, memory that stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import NAMES, tiny_config

from fcos.errors import FcosError
from fcos.network import weights
from fcos.scale.detector import Work
from fcos.scale.engine import Engine
from fcos.scale.job import read_job
from fcos.types import Classes


@pytest.mark.parametrize(
    ("engine", "device", "words"),
    [
        (Engine("ray"), "cuda", "how many GPUs"), (Engine("ray", gpus=2), "cpu", "--gpus and --device cpu"),
        (Engine("ray", gpus=2), "cuda:1", "--gpus and --device"), (Engine(cpus=2), "cuda", "--cpus and --device"),
        (Engine(gpus=1), "cpu", "--gpus and"), (Engine("ray"), "cpu", ""), (Engine("ray", gpus=2), "cuda", ""),
        (Engine(gpus=1), "cuda:1", ""), (Engine(), "cuda:1", ""), (Engine(cpus=2), "cpu", ""), (Engine(), "auto", ""),
    ],
)  # fmt: skip
def test_devices_that_contradict_the_engine(engine, device, words):
    if not words:
        return engine.check(device)
    with pytest.raises(FcosError, match=words):
        engine.check(device)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(3)
    config = tiny_config(decode={"threshold": 0.0, "max_detections": 5})
    network = weights.build(config, 2)
    return weights.save(
        tmp_path_factory.mktemp("model") / "tiny.safetensors", network.state_dict(), config, Classes(NAMES, (2, 7))
    )


def links(folder: Path, count: int) -> Path:
    """So many names for nine images, one of which cannot be read."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        pixels = rng.integers(0, 255, (48 + 8 * (i % 3), 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder.parent / f"{folder.name}-{i}.jpg")
    (folder.parent / f"{folder.name}-8.jpg").write_bytes(b"no image")
    for k in range(count):
        (folder / f"{k:06d}.jpg").symlink_to(folder.parent / f"{folder.name}-{k % 9}.jpg")
    return folder


def command(pictures: Path, model: Path, out: Path, *words: str) -> list[str]:
    return [
        sys.executable, "-m", "fcos", "predict", str(pictures), "--model", str(model), "--score", "0",
        "--out", str(out),
        *words,
    ]  # fmt: skip


def done(out: Path) -> list[Path]:
    return sorted((out / "parts").glob("part-*")) if (out / "parts").is_dir() else []


def rows_of(out: Path):
    job = read_job(out)
    assert job is not None
    return list(job.rows())


def same(one, two) -> bool:
    """Rows of the same images; of the same model on the same machine the numbers are the same."""
    key = {row["path"]: row for row in one}
    return len(one) == len(two) == len(key) and all(key[row["path"]] == row for row in two)


def kill_after(process: subprocess.Popen, out: Path, parts: int) -> list[Path]:
    """Kill -9 once so many parts are done; those that are whole then."""
    limit = time.monotonic() + 300
    while len(done(out)) < parts:
        assert process.poll() is None, "it was done before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return done(out)


@pytest.mark.slow
def test_killed_thrice_every_picture_is_there_once(model, tmp_path):
    pictures = links(tmp_path / "pictures", 1500)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert subprocess.run(command(pictures, model, whole, "--engine", "local")).returncode == 1
    for parts in (0, 40, 150):
        process = subprocess.Popen(
            command(pictures, model, out, "--engine", "local", "--resume"), start_new_session=True
        )
        kept = {path: path.stat().st_mtime_ns for path in kill_after(process, out, parts)}
    assert subprocess.run(command(pictures, model, out, "--engine", "local", "--resume")).returncode == 1
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items()), "a whole part was written again"
    assert same(rows_of(whole), rows_of(out))
    job = read_job(out)
    assert job is not None
    assert job.size / job.images < 0.01  # what was in work when it was killed


def peak(words: list[str]) -> tuple[int, int]:
    """Exit code and largest resident memory in bytes of a command."""
    code = (
        "import resource, subprocess, sys; rc = subprocess.run(sys.argv[1:]).returncode;"
        "print(rc, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    answer = subprocess.run([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True, check=True)
    rc, kilobytes = answer.stdout.split()[-2:]
    return int(rc), int(kilobytes) * 1024


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(model, tmp_path):
    few, many = links(tmp_path / "few", 1000), links(tmp_path / "many", 10_000)
    one = peak(command(few, model, tmp_path / "a", "--engine", "local", "--cpus", "1"))
    ten = peak(command(many, model, tmp_path / "b", "--engine", "local", "--cpus", "1"))
    assert one[0] == ten[0] == 1
    assert ten[1] < one[1] + (40 << 20)


# --------------------------------------------------------------------------- Ray


@pytest.mark.parametrize("images", [1, 391, 1000])
def test_blocks_hold_every_part_once_and_get_smaller(images):
    from fcos.scale.on_ray import blocks

    for count in (1, 2, 7, 500, 10_000):
        for workers in (1, 2, 16):
            made = blocks(np.arange(count), images, workers)
            assert np.concatenate(made).tolist() == list(range(count))
            sizes = [len(block) for block in made]
            assert sizes == sorted(sizes, reverse=True)
            assert sizes[-1] == 1
            assert max(sizes) <= 50
            assert max(sizes) * images <= 2000  # a worker tells of its parts when the block is done


class FakeRay:
    """What a Ray says of its machines."""

    def __init__(self, **there):
        self.there = there

    def cluster_resources(self):
        return self.there


def test_workers_share_out_the_cores_and_no_more():
    from fcos.scale.on_ray import _workers

    ray = FakeRay(CPU=8.0, GPU=2.0)
    assert _workers(ray, Engine("ray")) == (8, (1, 0))
    assert _workers(ray, Engine("ray", threads=3)) == (2, (3, 0))
    assert _workers(ray, Engine("ray", cpus=6, threads=2)) == (3, (2, 0))
    assert _workers(ray, Engine("ray", gpus=2)) == (2, (1, 1))
    assert _workers(ray, Engine("ray", gpus=1, threads=4)) == (1, (4, 1))
    for less, words in (
        ({"cpus": 9}, "has 8 cores"), ({"cpus": 2, "threads": 3}, "a worker takes 3"), ({"gpus": 3}, "this Ray has 2"),
    ):  # fmt: skip
        with pytest.raises(FcosError, match=words):
            _workers(ray, Engine("ray", **less))


def test_only_a_host_and_port_are_tried_before_ray_is_asked():
    from fcos.scale.cluster import _reach

    for address in (None, "auto", "local", "ray://127.0.0.1:1"):
        _reach(address)
    with pytest.raises(FcosError, match="no Ray can be reached there"):
        _reach("127.0.0.1:1")


@pytest.fixture(scope="module")
def nodes():
    """Two nodes of one core each, as two sets of Ray's processes on this machine; their address."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray[data]'")
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="5")
    from ray.cluster_utils import Cluster

    store = 100 << 20
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "object_store_memory": store, "include_dashboard": False},
    )
    cluster.add_node(num_cpus=1, object_store_memory=store)
    yield cluster.address
    cluster.shutdown()


@pytest.mark.slow
def test_two_nodes_of_ray_give_the_rows_of_this_process(model, tmp_path, nodes):
    pictures = links(tmp_path / "pictures", 300)
    one, two = tmp_path / "one", tmp_path / "two"
    assert subprocess.run(command(pictures, model, one, "--engine", "local")).returncode == 1
    ray = command(pictures, model, two, "--engine", "ray", "--address", nodes)
    answer = subprocess.run(ray, capture_output=True, text=True, timeout=900)
    assert answer.returncode == 1, answer.stderr
    assert "33 images could not be read" in answer.stderr
    assert same(rows_of(one), rows_of(two))


def workers_of_ray() -> set[int]:
    """Process ids of Ray's workers that detect."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"MapWorker(MapBatches(Worker))" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_a_killed_worker_of_ray_costs_only_its_part(model, tmp_path, nodes):
    pictures = links(tmp_path / "pictures", 900)
    out = tmp_path / "out"
    before = workers_of_ray()
    process = subprocess.Popen(command(pictures, model, out, "--engine", "ray", "--address", nodes))
    limit = time.monotonic() + 600
    while len(done(out)) < 20:
        assert process.poll() is None, "it was done before a worker could be killed"
        assert time.monotonic() < limit
        time.sleep(0.01)
    mine = sorted(workers_of_ray() - before)
    assert mine
    kept = {path: path.stat().st_mtime_ns for path in done(out)}
    os.kill(mine[0], signal.SIGKILL)
    assert process.wait(900) == 1
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items()), "a whole part was written again"
    rows = rows_of(out)
    assert len(rows) == len({row["path"] for row in rows}) == 900


@pytest.mark.parametrize(
    ("wrong", "words"), [({"tile": "abc"}, "abc"), ({"runtime": "fast"}, "choose from"), ({"dtype": "x"}, "x")]
)
def test_what_could_never_run_is_told_before_a_job_begins(model, wrong, words):
    with pytest.raises(FcosError, match=words):
        Work((str(model),), **wrong).check()
