"""A server under load: images a second of `fcos serve` with 16 clients beside `fcos predict`, p50 and p99, memory.

    python benchmarks/serving.py --runtime openvino          # rounds of serve and predict, one after the other
    python benchmarks/serving.py --requests 50000            # memory over many small requests

Both are processes of their own with the same runtime and threads, in turn, on the same images (the package's
photographs, or --images FOLDER); on a machine that others use too the median of the rounds' ratios counts, and the
seconds of CPU an image. The clients are asyncio connections in this process, which takes a part of the machine too.
Every request is answered before the next of its client is sent, so the load is bounded.

--requests measures the server's memory with a network of random weights and an image of 64x48 pixels: after the
first tenth it may not grow by more than 5 %.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common import print_heading

from fcos.system.files import ASSETS

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Load:
    """What clients have seen: seconds of each request, heads of answers other than 200."""

    took: list[float] = field(default_factory=list)
    bad: list[bytes] = field(default_factory=list)


async def client(port: int, bodies: list[bytes], first: int, load: Load, end: tuple[float, int]) -> None:
    """One connection that asks until a time, or until so many requests have been made by all."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number = first
    while time.monotonic() < end[0] and len(load.took) < end[1]:
        body = bodies[number % len(bodies)]
        number += 1
        begun = time.monotonic()
        writer.write(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        await reader.readexactly(length)
        load.took.append(time.monotonic() - begun)
        if b" 200 " not in head[:15]:
            load.bad.append(head[:15])
    writer.close()


def ask(port: int, bodies: list[bytes], clients: int, seconds: float, requests: int = 1 << 40) -> Load:
    """So many clients for so long, or for so many requests."""
    load = Load()

    async def all_of_them() -> None:
        end = (time.monotonic() + seconds, requests)
        await asyncio.gather(*(client(port, bodies, i, load, end) for i in range(clients)))

    asyncio.run(all_of_them())
    return load


def memory(process: int) -> float:
    """Resident MiB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def busy(process: int) -> float:
    """Seconds of CPU that a process has had."""
    parts = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / _TICK


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[int, int]]:
    """(process, port) of `fcos serve`."""
    command = [sys.executable, "-m", "fcos", "serve", "--port", "0", "--device", "cpu", *arguments]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        line = next((line for line in server.stderr if "ready: " in line), None)
        if line is None:
            sys.exit("the server did not start; run fcos serve by hand")
        yield server.pid, int(line.split("ready: ")[1].split()[0].rpartition(":")[2])
    finally:
        server.terminate()
        server.wait(30)


def predict(options: argparse.Namespace, folder: Path) -> float:
    """Images a second of `fcos predict`, its own figure, without start-up."""
    command = ["-m", "fcos", "predict", str(folder), "--model", options.model, "--runtime", options.runtime]
    done = subprocess.run(
        [sys.executable, *command, "--device", "cpu", "--coco", str(folder / "out.json")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stderr.split(" images a second")[0].split()[-1])


def beside_predict(options: argparse.Namespace, images: list[Path]) -> None:
    bodies = [path.read_bytes() for path in images]
    ratios, every, bad = [], [], 0
    with (
        tempfile.TemporaryDirectory() as folder,
        serving("--model", options.model, "--runtime", options.runtime) as (process, port),
    ):
        for copy in range(options.copies):
            for path in images:
                (Path(folder) / f"{copy:03}-{path.name}").symlink_to(path.resolve())
        ask(port, bodies, options.clients, options.seconds / 4)  # warm
        for number in range(options.rounds):
            before, begun = busy(process), time.monotonic()
            load = ask(port, bodies, options.clients, options.seconds)
            rate, spent = len(load.took) / (time.monotonic() - begun), busy(process) - before
            other = predict(options, Path(folder))
            ratios.append(rate / other)
            every += load.took
            bad += len(load.bad)
            print(
                f"round {number + 1}: serve {rate:.1f} images a second ({1e3 * spent / len(load.took):.1f} ms of CPU "
                f"each), predict {other:.1f}; ratio {ratios[-1]:.3f}"
            )
    cuts = statistics.quantiles(every, n=100)
    print(
        f"fcos serve, {options.clients} clients: {len(every)} requests, {bad} not 200; p50 {cuts[49] * 1e3:.0f} ms, "
        f"p99 {cuts[98] * 1e3:.0f} ms"
    )
    print(json.dumps({"ratio": round(statistics.median(ratios), 3), "rounds": [round(r, 3) for r in ratios]}))


def tiny(folder: Path) -> Path:
    """A checkpoint of random weights that computes next to nothing."""
    from fcos.config import Config
    from fcos.network import weights
    from fcos.types import Classes

    config = Config(name="tiny").override(
        {
            "model": {
                "backbone": "plain", "stride_in_1x1": False, "backbone_norm_eps": None, "backbone_weights": "none",
                "strides": (16, 32), "fpn_channels": 16, "head_channels": 16, "head_convs": 1,
            },
            "assign": {"ranges": (32.0,)}, "data": {"size": 64, "max_size": 96},
        }
    )  # fmt: skip
    network = weights.build(config, 2)
    return weights.save(folder / "tiny.safetensors", network.state_dict(), config, Classes(("a", "b")))


def endure(options: argparse.Namespace) -> None:
    from PIL import Image

    stream = io.BytesIO()
    with Image.open(sorted((ASSETS / "photos").glob("*.jpg"))[0]) as image:
        image.resize((64, 48)).save(stream, "JPEG")
    with (
        tempfile.TemporaryDirectory() as folder,
        serving("--model", str(tiny(Path(folder))), "--runtime", options.runtime, "--lanes", "1") as (process, port),
    ):
        held, bad, begun = [], 0, time.monotonic()
        for _ in range(50):
            load = ask(port, [stream.getvalue()], options.clients, 600.0, max(options.requests // 50, 1))
            bad += len(load.bad)
            held.append(memory(process))
    rate = options.requests / (time.monotonic() - begun)
    after_warm, end = held[4], statistics.median(held[-5:])
    print("MiB at each fiftieth: " + " ".join(f"{value:.0f}" for value in held))
    print(
        f"{options.requests} requests, {bad} not 200, {rate:.0f} a second; memory {after_warm:.1f} MiB after a tenth, "
        f"{end:.1f} at the end, at most {max(held[4:]):.1f}"
    )
    print(json.dumps({"growth": round(end / after_warm - 1, 4)}))
    if bad or end > 1.05 * after_warm:
        sys.exit("memory grew by more than 5 %, or a request failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fcos-lite0")
    parser.add_argument("--runtime", default="torch")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=20.0, help="of load in a round, at most 120")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--copies", type=int, default=50, help="of each image for fcos predict")
    parser.add_argument("--images", type=Path, help="folder of JPEG files")
    parser.add_argument("--requests", type=int, default=0, help="memory over so many, in place of the rounds")
    parser.add_argument("--short", action="store_true", help="2 seconds: shows only that it runs")
    options = parser.parse_args()
    options.seconds = min(2.0 if options.short else options.seconds, 120.0)
    options.copies, options.rounds = (2, 1) if options.short else (options.copies, options.rounds)
    print_heading()
    if options.requests:
        endure(options)
    else:
        beside_predict(options, sorted((options.images or ASSETS / "photos").glob("*.jpg")))


if __name__ == "__main__":
    main()
