"""A server under load: pictures a second of `fcos serve` with 16 clients beside `fcos predict`, p50 and p99, memory.

    python benchmarks/serving.py --runtime openvino --seconds 20

Both are processes of their own with the same runtime and threads, one after the other, on the same pictures (the
package's photographs, or --images FOLDER). The clients are asyncio connections in this process, which takes a part of
the machine too. Every request is answered before the next of its client is sent, so the load is bounded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import print_heading

from fcos.files import ASSETS


async def client(port: int, bodies: list[bytes], first: int, end: float, took: list[float], bad: list[bytes]) -> None:
    """One connection that asks until `end`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number = first
    while time.monotonic() < end:
        body = bodies[number % len(bodies)]
        number += 1
        begun = time.monotonic()
        writer.write(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        await reader.readexactly(length)
        took.append(time.monotonic() - begun)
        if b" 200 " not in head[:15]:
            bad.append(head[:15])
    writer.close()


def memory(process: int) -> float:
    """Resident MiB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def serve(options: argparse.Namespace, images: list[Path]) -> float:
    """Print how the server does; pictures a second."""
    command = ["-m", "fcos", "serve", "--port", "0", "--model", options.model, "--runtime", options.runtime]
    server = subprocess.Popen([sys.executable, *command, "--device", "cpu"], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        line = next((line for line in server.stderr if "ready: " in line), None)
        if line is None:
            sys.exit("the server did not start; run fcos serve by hand")
        port = int(line.split("ready: ")[1].split()[0].rpartition(":")[2])
        bodies = [path.read_bytes() for path in images]

        def load(seconds: float) -> tuple[list[float], list[bytes], float]:
            took: list[float] = []
            bad: list[bytes] = []

            async def all_of_them() -> None:
                end = time.monotonic() + seconds
                await asyncio.gather(*(client(port, bodies, i, end, took, bad) for i in range(options.clients)))

            begun = time.monotonic()
            asyncio.run(all_of_them())
            return took, bad, time.monotonic() - begun

        load(options.seconds / 4)  # warm
        before = memory(server.pid)
        took, bad, seconds = load(options.seconds)
        after = memory(server.pid)
    finally:
        server.terminate()
        server.wait(30)
    cuts = statistics.quantiles(took, n=100)
    rate = len(took) / seconds
    print(
        f"fcos serve, {options.clients} clients: {rate:.1f} pictures a second; p50 {cuts[49] * 1e3:.0f} ms, p99 "
        f"{cuts[98] * 1e3:.0f} ms; {len(took)} requests, {len(bad)} not 200; memory {before:.0f} -> {after:.0f} MiB"
    )
    return rate


def predict(options: argparse.Namespace, images: list[Path]) -> float:
    """Pictures a second of `fcos predict` on as many pictures, its own figure, without start-up."""
    with tempfile.TemporaryDirectory() as folder:
        for copy in range(options.copies):
            for path in images:
                (Path(folder) / f"{copy:03}-{path.name}").symlink_to(path.resolve())
        command = ["-m", "fcos", "predict", folder, "--model", options.model, "--runtime", options.runtime]
        begun = time.monotonic()
        done = subprocess.run(
            [sys.executable, *command, "--device", "cpu", "--coco", str(Path(folder) / "out.json")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    rate = float(done.stderr.split(" pictures a second")[0].split()[-1])
    print(f"fcos predict: {rate:.1f} pictures a second ({time.monotonic() - begun:.0f} s with start-up)")
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fcos-lite0")
    parser.add_argument("--runtime", default="torch")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=20.0, help="of load, at most 120")
    parser.add_argument("--copies", type=int, default=50, help="of each picture for fcos predict")
    parser.add_argument("--images", type=Path, help="folder of JPEG files")
    parser.add_argument("--short", action="store_true", help="2 seconds: shows only that it runs")
    options = parser.parse_args()
    options.seconds = min(2.0 if options.short else options.seconds, 120.0)
    options.copies = 2 if options.short else options.copies
    images = sorted((options.images or ASSETS / "photos").glob("*.jpg"))
    print_heading()
    one, other = serve(options, images), predict(options, images)
    print(json.dumps({"ratio": round(one / other, 3)}))


if __name__ == "__main__":
    main()
