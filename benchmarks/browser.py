"""Frames a second of the page's own network: fcos-lite0 in wasm in a headless Chromium, beside onnxruntime in Python.

    python benchmarks/browser.py                  # 2 threads; under 2 minutes on a quiet machine
    python benchmarks/browser.py --html lite0.html    # the same from one HTML file on disk, where one thread computes

A frame of 640x480, as a camera gives, from JPEG to detections: decoding, resizing to 320x427, network, NMS. Rounds of
both in turn, then the page's camera on Chromium's made one; the last line says it all. On a machine that others use too
the CPU's seconds a frame say more than the clock's.
"""

from __future__ import annotations

import base64
import io
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

import uvicorn
from common import options, parser, print_heading
from PIL import Image

from fcos.export.about import About
from fcos.export.browser import Browser, Tab
from fcos.export.formats.html import browser_model
from fcos.inference.load import load
from fcos.serving.app import build
from fcos.serving.options import Placing, ServeOptions
from fcos.serving.server import start
from fcos.system.files import ASSETS
from fcos.zoo.find import find_weights, load_network

_TICK = os.sysconf("SC_CLK_TCK")
_BAR = 8  # frames a second (issue 19)
_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


def frame() -> bytes:
    stream = io.BytesIO()
    with Image.open(ASSETS / "photos" / "cat.jpg") as image:
        image.resize((640, 480)).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def busy(process: int) -> float:
    """Seconds of CPU of a process and all that it started."""
    parents, spent = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parts = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(folder.name)], spent[int(folder.name)] = int(parts[1]), int(parts[11]) + int(parts[12])
    total = 0
    for number, ticks in spent.items():
        above = number
        while above > 1 and above != process:
            above = parents.get(above, 0)
        total += ticks if above == process else 0
    return total / _TICK


def graph(folder: str) -> str:
    """fcos-lite0 as the file that the page and onnxruntime both run; written once, it is most of the waiting."""
    network, config, classes = load_network(find_weights("fcos-lite0"), ())
    path = Path(folder) / "fcos-lite0.onnx"
    path.write_bytes(browser_model(network.eval(), About(config, classes)))
    return str(path)


def serve(model: str, threads: int) -> str:
    """The page on a free port of this process."""
    import socket

    parts = start(ServeOptions((model,), placing=Placing(device="cpu", threads=threads)))
    server = uvicorn.Server(uvicorn.Config(build(parts), log_level="warning"))
    listening = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


def in_page(tab: Tab, url: str, frames: int) -> list[dict[str, float]]:
    """Seconds of each frame, in all and by part."""
    rows: list[dict[str, float]] = tab.evaluate(
        f"""(async () => {{
          const rows = [];
          for (let i = 0; i < {frames}; i++) {{
            const begun = performance.now();
            const told = await fcosPage.detect({json.dumps(url)});
            rows.push({{all: (performance.now() - begun) / 1000, ...told.seconds}});
          }}
          return rows; }})()"""
    )
    return rows


def by_camera(tab: Tab, seconds: float) -> float:
    """Frames a second that the page shows of its camera, after some seconds of it."""
    tab.evaluate("document.getElementById('camera').click()")
    time.sleep(seconds)
    rate = tab.evaluate("fcosPage.state.camera?.rate || 0")
    tab.evaluate("document.getElementById('camera').click()")
    return float(rate)


def main() -> None:
    made = parser(__doc__, rounds=3)
    made.add_argument("--frames", type=int, default=40, help="in a round")
    made.add_argument("--html", type=Path, help="a file of fcos export --format html, in place of the served page")
    chosen = options(made)
    chosen.frames = 3 if chosen.short else chosen.frames
    print_heading()
    data = frame()
    url = "data:image/jpeg;base64," + base64.b64encode(data).decode()
    with tempfile.TemporaryDirectory() as folder, Browser(_CAMERA) as browser:
        model = graph(folder)
        detector = load(model, device="cpu", threads=chosen.threads)
        tab = browser.open(chosen.html.resolve().as_uri() if chosen.html else serve(model, chosen.threads))
        tab.evaluate("fcosPage.ready")
        if not chosen.html:
            tab.evaluate("document.getElementById('local').click()")
        in_page(tab, url, 3)
        detector(data)
        frames: list[dict[str, float]] = []
        python: list[float] = []
        ratios, spent = [], 0.0
        for _ in range(chosen.rounds):
            before = busy(browser._process.pid)
            rows = in_page(tab, url, chosen.frames)
            spent += busy(browser._process.pid) - before
            frames += rows
            times = []
            for _ in range(chosen.frames):
                begun = time.perf_counter()
                detector(data)
                times.append(time.perf_counter() - begun)
            python += times
            ratios.append(statistics.median(r["all"] for r in rows) / statistics.median(times))
        camera = by_camera(tab, 2 if chosen.short else 8)
        threads = tab.evaluate("crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1")
    every = sorted(row["all"] for row in frames)
    parts = ", ".join(
        f"{name} {1e3 * statistics.median(row[name] for row in frames):.0f}" for name in frames[0] if name != "all"
    )
    print(
        f"a frame: median {1e3 * statistics.median(every):.0f} ms ({parts}), {1e3 * spent / len(every):.0f} ms of CPU"
    )
    print(json.dumps({"wasm/onnxruntime": round(statistics.median(ratios), 2)}))
    rate = 1 / statistics.median(every)
    print(
        f"wasm, {threads} thread(s): {rate:.1f} frames a second (median of {len(every)}; the bar of {_BAR} is "
        f"{'held' if rate >= _BAR else 'missed'}), {1 / every[len(every) // 10]:.1f} in the best tenth, camera "
        f"{camera:.1f}; onnxruntime in Python, {chosen.threads} threads: {1 / statistics.median(python):.1f}"
    )


if __name__ == "__main__":
    main()
