"""Detection by Ray on two nodes against `fcos predict`: images a second, CPU seconds, equal rows, a killed worker.

OMP_NUM_THREADS=1 python benchmarks/ray_rate.py rate [--images 600] [--rounds 1]    # under 3 minutes on a quiet machine
OMP_NUM_THREADS=1 python benchmarks/ray_rate.py kill [--images 600]
OMP_NUM_THREADS=1 python benchmarks/ray_rate.py memory --engine local|ray --images 100000

Two nodes: two sets of Ray's processes on this machine, each held to a core of its own, joined over loopback. The rates
are those between a quarter and 95 % of the images, so that starting counts apart. CPU seconds are of every process that
the run started, Ray's own included. `rate` runs the ways in turn: predict (one process, two lanes), local, ray on two
nodes, ray with one worker. `memory`: so many links to nine small files, by a very small network; the largest resident
memory of each kind of process.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fcos.inference.writers import images_file
from fcos.scale.job import read_job
from fcos.scale.results import write_coco
from fcos.system.files import ASSETS

TICK = os.sysconf("SC_CLK_TCK")
OWN = ["--model", "fcos-lite0", "--runtime", "own"]


class Meter:
    """CPU seconds of all processes whose environment has a mark, dead ones as last seen."""

    def __init__(self) -> None:
        self.mark = f"FCOS_METER={uuid.uuid4().hex}"
        self.seen: dict[tuple[str, str], float] = {}
        self.not_mine: set[tuple[str, str]] = set()

    def look(self) -> float:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                key = folder.name, fields[19]
                if key in self.not_mine:
                    continue
                if key not in self.seen and self.mark.encode() not in (folder / "environ").read_bytes():
                    self.not_mine.add(key)
                    continue
                self.seen[key] = (int(fields[11]) + int(fields[12])) / TICK
            except (OSError, IndexError):
                continue
        return sum(self.seen.values())


def environment(meter: Meter) -> dict[str, str]:
    key, _, value = meter.mark.partition("=")
    return {**os.environ, key: value, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}


@contextmanager
def nodes(meter: Meter, count: int = 2) -> Iterator[str]:
    """The address of a Ray of so many nodes of one core."""
    program = [sys.executable, "-c", NODES, str(count)]
    process = subprocess.Popen(
        program, env=environment(meter), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith(b"address "):
                yield line.split()[1].decode()
                break
        else:
            raise SystemExit("Ray's nodes do not start")
    finally:
        process.communicate(timeout=120)  # the end of its input ends it


NODES = """
import os
import sys
from ray.cluster_utils import Cluster

cores = sorted(os.sched_getaffinity(0))
own = {"num_cpus": 1, "object_store_memory": 100 << 20}
os.sched_setaffinity(0, cores[:1])  # which the processes of the node inherit
cluster = Cluster(initialize_head=True, head_node_args={**own, "include_dashboard": False})
for k in range(1, int(sys.argv[1])):
    os.sched_setaffinity(0, [cores[k % len(cores)]])
    cluster.add_node(**own)
cluster.wait_for_nodes()
print("address", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def watch(words: list[str], done: Callable[[], int], total: int, meter: Meter, lines: IO[bytes]) -> dict[str, float]:
    """Run `fcos` with `words`; seconds and CPU seconds for each image between a quarter and 95 % of them."""
    began = time.monotonic()
    command = [sys.executable, "-m", "fcos", *words]
    process = subprocess.Popen(command, env=environment(meter), stdout=lines, stderr=subprocess.PIPE)
    marks: list[tuple[int, float, float]] = []
    running = True
    while running:
        running = process.poll() is None  # looked at once more after the end: the last part comes just before it
        count = done()
        if not marks and count >= total / 4:
            marks.append((count, time.monotonic(), meter.look()))
        if len(marks) == 1 and count >= 0.95 * total:
            marks.append((count, time.monotonic(), meter.look()))
        meter.look()
        time.sleep(0.05)
    seconds = time.monotonic() - began
    if process.returncode or len(marks) < 2:
        raise SystemExit(f"fcos {' '.join(words)}: {process.communicate()[1].decode()}")
    (a, t, c), (b, u, d) = marks
    return {"rate": (b - a) / (u - t), "cpu_per_image": (d - c) / (b - a), "whole_seconds": seconds}


def parts(folder: Path) -> list[Path]:
    return list((folder / "parts").glob("part-*")) if (folder / "parts").is_dir() else []


def images_done(folder: Path) -> int:
    job = read_job(folder)
    return len(parts(folder)) * job.size if job is not None else 0


def links(folder: Path, count: int) -> Path:
    photos = sorted((ASSETS / "photos").glob("*.jpg"))
    folder.mkdir()
    for k in range(count):
        (folder / f"{k:06d}.jpg").symlink_to(photos[k % len(photos)])
    return folder


def rows(folder: Path) -> list[str]:
    job = read_job(folder)
    assert job is not None
    return sorted(map(str, job.rows()))


def found_in(file: Path) -> set[tuple[str, int, float, tuple[float, ...]]]:
    """The detections of COCO results, by the names of their images."""
    listed = json.loads(images_file(file).read_text())["images"]
    names = {image["id"]: Path(image["file_name"]).name for image in listed}
    return {
        (names[one["image_id"]], one["category_id"], round(one["score"], 5), tuple(round(v, 2) for v in one["bbox"]))
        for one in json.loads(file.read_text())
    }


def rate(count: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder, meter = Path(place), Meter()
        pictures = links(folder / "images", count)
        found: dict[str, list[dict[str, float]]] = {}
        with nodes(meter) as address:
            ways = {
                "predict": ["--coco"],
                "local": ["--engine", "local", "--out"],
                "ray, two nodes": ["--engine", "ray", "--address", address, "--out"],
                "ray, one worker": ["--engine", "ray", "--address", address, "--cpus", "1", "--out"],
            }
            for turn in range(rounds):
                for name, words in ways.items():
                    stem = f"{name}-{turn}".replace(", ", "-").replace(" ", "-")
                    out = folder / (f"{stem}.json" if name == "predict" else stem)

                    def done(out: Path = out, name: str = name) -> int:
                        if name == "predict":
                            return Path(f"{out}.txt").read_bytes().count(b"\n")
                        return images_done(out)

                    with Path(f"{out}.txt").open("wb") as lines:
                        told = watch(["predict", str(pictures), *OWN, *words, str(out)], done, count, meter, lines)
                    found.setdefault(name, []).append(told)
                    print(name, {k: round(v, 4) for k, v in told.items()}, flush=True)
        same = rows(folder / "local-0") == rows(folder / "ray-two-nodes-0") == rows(folder / "ray-one-worker-0")
        write_coco(folder / "ray-two-nodes-0", folder / "ray.json")
        ours, theirs = found_in(folder / "ray.json"), found_in(folder / "predict-0.json")
    medians = {
        name: {key: statistics.median(one[key] for one in told) for key in told[0]} for name, told in found.items()
    }

    def share(key: str, a: str, b: str) -> float:
        """Median over the rounds of a's over b's."""
        return round(statistics.median(x[key] / y[key] for x, y in zip(found[a], found[b], strict=True)), 3)

    return {
        "medians": {name: {key: round(value, 4) for key, value in told.items()} for name, told in medians.items()},
        "two nodes over predict, images a second": share("rate", "ray, two nodes", "predict"),
        "two nodes over predict, images per CPU second": share("cpu_per_image", "predict", "ray, two nodes"),
        "two workers over one, images a second": share("rate", "ray, two nodes", "ray, one worker"),
        "two workers over one, images per CPU second": share("cpu_per_image", "ray, one worker", "ray, two nodes"),
        "rows of local and of Ray equal": same,
        "detections": len(theirs),
        "detections of Ray and of predict equal as sets": ours == theirs,
    }


def workers(meter: Meter) -> list[int]:
    """Ray's workers that detect, of this meter."""
    meter.look()
    told = []
    for pid, _ in meter.seen:
        try:
            if b"MapWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                told.append(int(pid))
        except OSError:
            continue
    return sorted(told)


def kill(count: int) -> dict[str, Any]:
    """A worker is killed after a quarter; then the whole job is, after a half, and goes on with --resume."""
    with tempfile.TemporaryDirectory() as place:
        folder, meter = Path(place), Meter()
        pictures = links(folder / "images", count)
        base = [sys.executable, "-m", "fcos", "predict", str(pictures), *OWN]
        subprocess.run([*base, "--engine", "local", "--out", str(folder / "local")], check=True, capture_output=True)
        with nodes(meter) as address:
            out = folder / "ray"
            words = [*base, "--engine", "ray", "--address", address, "--out", str(out), "--resume"]
            process = subprocess.Popen(words, env=environment(meter), stdout=subprocess.DEVNULL)

            def wait(number: int) -> None:
                while len(parts(out)) < number:
                    assert process.poll() is None
                    time.sleep(0.02)

            wait(count // 4)
            before = {p: p.stat().st_mtime_ns for p in parts(out)}
            victim = workers(meter)[0]
            os.kill(victim, signal.SIGKILL)
            wait(count // 2)
            process.kill()
            process.wait()
            for pid in workers(meter):
                os.kill(pid, signal.SIGKILL)
            time.sleep(2)
            kept = {p: p.stat().st_mtime_ns for p in parts(out)}
            again = subprocess.run(words, env=environment(meter), stdout=subprocess.DEVNULL)
        job = read_job(out)
        assert job is not None
        return {
            "killed worker": victim,
            "parts before the first kill written again": sum(p.stat().st_mtime_ns != t for p, t in before.items()),
            "parts before the second kill written again": sum(p.stat().st_mtime_ns != t for p, t in kept.items()),
            "exit code of --resume": again.returncode,
            "rows equal to local's": rows(out) == rows(folder / "local"),
            "images of a part, share": round(job.size / job.images, 5),
        }


TINY = [
    "model.backbone=test_resnet", "model.backbone_weights=none", "model.strides=[8,16]", "model.fpn_channels=16",
    "model.head_channels=16", "model.head_convs=1", "assign.ranges=[16]", "data.size=64",
    "data.max_size=64", "data.train_sizes=[64]", "data.divisor=16", "decode.max_detections=5", "decode.threshold=0",
]  # fmt: skip


def peaks(meter: Meter, seen: dict[str, float]) -> None:
    """Renew the largest resident memory, in MB, of the program, of a worker of Ray and of Ray's other processes."""
    meter.look()
    for pid, _ in meter.seen:
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        kind = "program" if b"predict" in line else "worker" if b"MapWorker" in line else "other"
        if kind == "other":
            kind = f"other {Path(line.split(bytes(1))[0].decode()).name}"
        if (at := status.find("VmHWM:")) >= 0:
            seen[kind] = max(seen.get(kind, 0), int(status[at:].split()[1]) / 1024)


def memory(count: int, engine: str) -> dict[str, Any]:
    import numpy as np
    import torch
    from PIL import Image

    from fcos.network import weights
    from fcos.presets import resolve

    with tempfile.TemporaryDirectory() as place:
        folder, meter = Path(place), Meter()
        torch.manual_seed(0)
        config = resolve("fcos-lite0", TINY)
        model = weights.save(
            folder / "tiny.safetensors", weights.build(config, 2).state_dict(), config, weights.Classes(("a", "b"))
        )
        rng = np.random.default_rng(0)
        for i in range(9):
            pixels = rng.integers(0, 255, (48 + 8 * (i % 3), 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.jpg")
        (folder / "images").mkdir()
        for k in range(count):
            (folder / "images" / f"{k:06d}.jpg").symlink_to(folder / f"{k % 9}.jpg")
        words = ["predict", str(folder / "images"), "--model", str(model), "--score", "0", "--batch", "16"]
        words += ["--engine", engine, "--cpus", "1", "--out", str(folder / "rows")]
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "fcos", *words], env=environment(meter))
        seen: dict[str, float] = {}
        while process.poll() is None:
            peaks(meter, seen)
            time.sleep(0.2)
        total = meter.look()
        return {
            "engine": engine, "images": count, "exit code": process.returncode, "cpu_seconds": round(total),
            "seconds": round(time.monotonic() - began), "peak_mb": {k: round(v) for k, v in sorted(seen.items())},
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("rate", "kill", "memory"))
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--engine", choices=("local", "ray"), default="ray")
    given = parser.parse_args()
    if given.what == "memory":
        told = memory(given.images, given.engine)
    else:
        told = rate(given.images, given.rounds) if given.what == "rate" else kill(given.images)
    print(json.dumps(told, indent=None if given.what == "memory" else 1))


if __name__ == "__main__":
    main()
