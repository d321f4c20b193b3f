"""AP50 against milliseconds from a JPEG file to boxes: the lite detectors by input size and number format, as a plot.

    python benchmarks/frontier.py DATA [--models fcos-lite0,fcos-lite2] [--sizes 256,320,416,512,640]
        [--ways torch:fp32,openvino:fp32,openvino:bf16] [--images 540] [--threads 1] [--rounds 7] [--cpu-time]
        [--int8 fcos-lite0=lite0-int8.xml] [--ssdlite] [--out frontier] [--short]

Every point is judged on the same images and timed on one of them; all ways take turns in one process. Judging takes
long and needs no quiet machine: what OUT.json holds of the same weights and images is read, not judged again, so a
second call only takes times. OUT.json grows with every point that is judged. An exported int8
file is a way of its model at every size. --ssdlite times torchvision's ssdlite320_mobilenet_v3_large with random
weights, its time only. --cpu-time is for a machine shared with others: seconds of one thread, not of the clock.
Writes OUT.json and OUT.png.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from common import options, parser, print_heading

from fcos.bench.timing import alternate, heading
from fcos.data.open import open_judged
from fcos.evaluation.program import evaluate
from fcos.files import write_whole
from fcos.inference.detector import Detector
from fcos.inference.load import load
from fcos.zoo.find import find_weights

MARKS = {"torch:fp32": "o", "openvino:fp32": "s", "onnx:fp32": "^", "openvino:bf16": "D", "openvino:int8": "v"}


def loaded(model: str, way: str, size: int, chosen: Any, int8: dict[str, str]) -> Detector:
    runtime, dtype = way.split(":")
    source = int8[model] if dtype == "int8" else model
    longest = round(size * 5 / 3 / 32) * 32
    return load(
        source,
        device="cpu",
        runtime=runtime,
        dtype=dtype,
        threads=chosen.threads,
        overrides=[f"data.size={size}", f"data.max_size={longest}"],
    )


def weights_of(source: str) -> str:
    """A short hash of a model's weights, those beside an OpenVINO graph included."""
    path = find_weights(source)
    files = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


class Judged:
    """AP50 by (weights, dtype, size) on one choice of images, kept in a report."""

    def __init__(self, report: Path, data: str, images: int) -> None:
        self.report, self.images = report, {"data": Path(data).resolve().name, "images": images}
        self.known: dict[str, float] = {}
        if report.is_file():
            stored = json.loads(report.read_text())
            if {key: stored.get(key) for key in self.images} == self.images:
                self.known = stored.get("judged", {})

    def ap50(self, key: str, judge: Callable[[], float]) -> float:
        """Known, or judged now and kept."""
        if key not in self.known:
            self.known[key] = round(judge(), 4)
            self.write({})
        return self.known[key]

    def write(self, more: dict[str, Any]) -> None:
        write_whole(self.report, json.dumps({**self.images, "judged": self.known, **more}, indent=1))


def ssdlite() -> Callable[[bytes], object]:
    """torchvision's, from a JPEG's bytes to boxes."""
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    torch.manual_seed(0)
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=21).eval()

    def whole(data: bytes) -> object:
        with torch.inference_mode():
            pixels = decode_jpeg(torch.from_numpy(np.frombuffer(data, np.uint8).copy()), ImageReadMode.RGB)
            return model([pixels / 255])

    return whole


def draw(rows: list[dict[str, Any]], beside: float | None, path: Path, note: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    colors = dict(zip(dict.fromkeys(r["model"] for r in rows), ("#2563eb", "#dc2626", "#059669"), strict=False))
    for model, way in dict.fromkeys((r["model"], r["way"]) for r in rows):
        line = [r for r in rows if (r["model"], r["way"]) == (model, way)]
        x, y = [r["ms"] for r in line], [100 * r["AP50"] for r in line]
        faint = {"markerfacecolor": "white"} if way.startswith("torch") else {}
        axes.plot(x, y, MARKS.get(way, "x") + "-", color=colors[model], label=f"{model}, {way}", lw=1.2, **faint)
        for r, a, b in zip(line, x, y, strict=True):
            axes.annotate(str(r["size"]), (a, b), textcoords="offset points", xytext=(4, -10), fontsize=7)
    if beside is not None:
        axes.axvline(beside, color="#64748b", ls=":", lw=1)
        axes.annotate(
            "torchvision SSDLite 320,\nits time alone", (beside, axes.get_ylim()[0]), xytext=(4, 6),
            textcoords="offset points", fontsize=7, color="#475569",
        )  # fmt: skip
    axes.set(xlabel=f"ms from a JPEG file to boxes ({note})", ylabel="AP50", xscale="log")
    ticks = [t for t in (5, 10, 20, 30, 50, 100, 200, 400, 800) if min(r["ms"] for r in rows) / 2 < t]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def main() -> None:
    made = parser(__doc__, rounds=7, threads=1)
    made.add_argument("data")
    made.add_argument("--models", default="fcos-lite0,fcos-lite2")
    made.add_argument("--sizes", default="256,320,416,512,640")
    made.add_argument("--ways", default="torch:fp32,openvino:fp32,openvino:bf16")
    made.add_argument("--images", type=int, default=540)
    made.add_argument("--int8", action="append", default=[], metavar="MODEL=FILE")
    made.add_argument("--ssdlite", action="store_true")
    made.add_argument("--cpu-time", action="store_true")
    made.add_argument("--out", type=Path, default=Path("frontier"))
    chosen = options(made)
    int8 = dict(pair.split("=", 1) for pair in chosen.int8)
    dataset = open_judged(chosen.data, None)
    count = min(4 if chosen.short else chosen.images, len(dataset))
    dataset = dataset.subset([round(i) for i in np.linspace(0, len(dataset) - 1, count)])
    path = dataset.records[0].path
    assert path is not None
    data = path.read_bytes()
    judged = Judged(chosen.out.with_suffix(".json"), chosen.data, count)
    rows: list[dict[str, Any]] = []
    turns: dict[int, Callable[[], object]] = {}
    for model in chosen.models.split(","):
        ways = [*chosen.ways.split(","), *(["openvino:int8"] if model in int8 else [])]
        for size in map(int, chosen.sizes.split(",")[: 1 if chosen.short else None]):
            for way in ways:
                detector = loaded(model, way, size, chosen, int8)
                dtype = way.split(":")[1]
                # fp32 is the same in every runtime, which the check of an export sees to
                key = f"{weights_of(int8[model] if dtype == 'int8' else model)} {dtype} {size}"
                ap50 = judged.ap50(key, lambda detector=detector: evaluate(detector, dataset, batch=1).ap50)
                turns[len(rows)] = lambda detector=detector: detector(data)
                rows.append({"model": model, "way": way, "size": size, "AP50": ap50})
                print(f"{model} {way} {size}: AP50 {ap50:.4f}", flush=True)
    if chosen.ssdlite:
        whole = ssdlite()
        turns[-1] = lambda: whole(data)
    clock = time.process_time if chosen.cpu_time else time.perf_counter
    seconds = alternate(turns, chosen.rounds, clock=clock)
    times = {key: 1e3 * median(values) for key, values in seconds.items()}
    for i, row in enumerate(rows):
        row["ms"] = round(times[i], 2)
    print_heading()
    for row in rows:
        print("  ".join(f"{v!s:<14}" for v in row.values()))
    beside = times.get(-1)
    if beside is not None:
        print(f"torchvision ssdlite320_mobilenet_v3_large: {beside:.1f} ms")
    note = f"{chosen.threads} thread{'s' * (chosen.threads != 1)}{', CPU time' * chosen.cpu_time}"
    judged.write({"note": note, "ssdlite_ms": beside, "rows": rows, "where": heading()})
    draw(rows, beside, chosen.out.with_suffix(".png"), note)


if __name__ == "__main__":
    main()
