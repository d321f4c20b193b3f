"""AP50 against milliseconds from a JPEG file to boxes: the lite detectors by input size and number format, as a plot.

    python benchmarks/frontier.py DATA [--sizes fcos-lite0=256,320,416,512 ...] [--ways openvino:fp32,openvino:bf16]
        [--int8 fcos-lite0=lite0-int8.xml ...] [--yolox yolox_nano.onnx] [--ssdlite] [--images 540] [--threads 1]
        [--judge 1e9] [--rounds 7] [--cpu-time] [--out frontier] [--short]

Every point is judged on the same images and timed on one of them; all ways take turns in one process. Judging takes
long and needs no quiet machine: what OUT.json holds of the same weights and images is read, not judged again, and
after --judge CPU seconds none is begun, so that a call that is repeated comes to an end; points that are not judged yet
are left out. OUT.json also keeps the times of runs with other --threads, each a panel of the plot. An exported int8
file is a way of its model at every size. --ssdlite times torchvision's ssdlite320_mobilenet_v3_large with random
weights, its time only. --yolox times and judges YOLOX-nano of Megvii by its public ONNX file (COCO's classes, those of
the data among them). --cpu-time is for a machine shared with others: seconds of one thread, not of the clock.
Writes OUT.json and OUT.png.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from common import cpu, options, parser, print_heading

from fcos.bench.timing import alternate, heading
from fcos.boxes import nms
from fcos.config import DecodeConfig
from fcos.convert.names import COCO_80
from fcos.data.open import open_judged
from fcos.detections import Detections
from fcos.evaluation import coco
from fcos.evaluation.program import evaluate
from fcos.inference.detector import Detector
from fcos.inference.load import load
from fcos.system.files import write_whole
from fcos.zoo.find import find_weights

MARKS = {"torch:fp32": "o", "openvino:fp32": "s", "onnx:fp32": "^", "openvino:bf16": "D", "openvino:int8": "v"}
COLORS = ("#2563eb", "#059669", "#dc2626", "#64748b", "#64748b")
STYLES = {"fp32": "-", "bf16": "--", "int8": ":"}
SIZES = ("fcos-lite0=256,320,416,512", "fcos-lite1=320,416,512", "fcos-lite2=416,512,640")
# VOC's names in the words of COCO
SYNONYMS = {"aeroplane": "airplane", "diningtable": "dining table", "motorbike": "motorcycle",
            "pottedplant": "potted plant", "sofa": "couch", "tvmonitor": "tv"}  # fmt: skip


def loaded(source: str, way: str, threads: int, lanes: int = 1) -> Detector:
    runtime, dtype = way.split(":")
    return load(source, device="cpu", runtime=runtime, dtype=dtype, threads=threads, lanes=lanes)


def at(detector: Detector, size: int) -> Detector:
    """The same detector at another size of its input."""
    longest = round(size * 5 / 3 / 32) * 32
    return detector.replace(config=detector.config.override(f"data.size={size}", f"data.max_size={longest}"))


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
        self.rest: dict[str, Any] = {"rows": []}
        if report.is_file():
            stored = json.loads(report.read_text())
            if {key: stored.get(key) for key in self.images} == self.images:
                self.known, self.rest = stored["judged"], {"rows": stored.get("rows", [])}

    def ap50(self, key: str, judge: Callable[[], float], most: float) -> float | None:
        """Known, or judged now and kept; None where more than `most` CPU seconds have gone."""
        if key not in self.known:
            if cpu() > most:
                return None
            self.known[key] = round(judge(), 4)
            self.write(self.rest)
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


class Yolox:
    """YOLOX-nano's public ONNX file, by its maker's rules (arXiv 2107.08430): images of 416 letterboxed with grey at
    the top left, BGR; rows of (centre, log size, objectness, 80 classes) of strides 8, 16 and 32."""

    SIDE = 416

    def __init__(self, path: str, threads: int, names: Sequence[str]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        places, steps = [], []
        for stride in (8, 16, 32):
            side = self.SIDE // stride
            y, x = np.divmod(np.arange(side * side), side)
            places.append(np.stack((x, y), axis=1))
            steps.append(np.full(side * side, stride))
        self.places, self.steps = np.concatenate(places), np.concatenate(steps)[:, None]
        self.columns = [COCO_80.names.index(SYNONYMS.get(name, name)) for name in names]  # of the data's classes
        self.config = DecodeConfig(nms="class", nms_iou=0.65, max_detections=100)

    def __call__(self, data: bytes) -> Detections:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        height, width = pixels.shape[:2]
        scale = min(self.SIDE / height, self.SIDE / width)
        small = cv2.resize(pixels, (int(width * scale), int(height * scale)))
        canvas = np.full((self.SIDE, self.SIDE, 3), 114, np.uint8)
        canvas[: small.shape[0], : small.shape[1]] = small
        (rows,) = self.session.run(None, {"images": canvas.transpose(2, 0, 1)[None].astype(np.float32)})
        rows = rows[0]
        scores = rows[:, 4:5] * rows[:, 5:][:, self.columns]
        place, label = np.nonzero(scores > 0.005)
        middle = (rows[place, :2] + self.places[place]) * self.steps[place]
        half = np.exp(rows[place, 2:4]) * self.steps[place] / 2
        boxes = torch.from_numpy(np.concatenate((middle - half, middle + half), axis=1) / scale).float()
        labels = torch.from_numpy(label)
        keep, kept = nms(boxes, torch.from_numpy(scores[place, label]), labels, self.config)
        return Detections(boxes[keep], kept, labels[keep], torch.full((len(keep),), -1))


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """A panel for each number of threads."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = sorted({row["threads"] for row in rows})
    figure, grid = pyplot.subplots(
        1, len(panels), figsize=(1 + 6 * len(panels), 5.4), layout="constrained", sharey=True, squeeze=False
    )
    colors = dict(zip(dict.fromkeys(r["model"] for r in rows), COLORS, strict=False))
    for axes, threads in zip(grid[0], panels, strict=True):
        here = [row for row in rows if row["threads"] == threads]
        for model, way in dict.fromkeys((r["model"], r["way"]) for r in here):
            line = [r for r in here if (r["model"], r["way"]) == (model, way)]
            if line[0]["AP50"] is None:
                axes.axvline(line[0]["ms"], color="#64748b", ls=":", lw=1)
                axes.annotate(
                    f"{model}, its time alone", (line[0]["ms"], 0.01), xycoords=("data", "axes fraction"), rotation=90,
                    va="bottom", ha="right", fontsize=7, color="#475569",
                )  # fmt: skip
                continue
            x, y = [r["ms"] for r in line], [100 * r["AP50"] for r in line]
            faint = {"markerfacecolor": "white"} if way.endswith("fp32") else {}
            dashes = STYLES.get(way.split(":")[1], "-")
            axes.plot(x, y, MARKS.get(way, "x") + dashes, color=colors[model], label=f"{model}, {way}", lw=1.2, **faint)
            if way == here[0]["way"] or len(line) == 1:
                for r, a, b in zip(line, x, y, strict=True):
                    axes.annotate(str(r["size"]), (a, b), textcoords="offset points", xytext=(5, -9), fontsize=7)
        clock = "" if here[0]["clock"] == "wall" else ", CPU time"
        axes.set(xlabel=f"ms from a JPEG file to boxes, {threads} thread{'s' * (threads != 1)}{clock}", xscale="log")
        low, high = min(r["ms"] for r in here), max(r["ms"] for r in here)
        ticks = [t for t in (3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500) if low / 1.3 < t < 1.3 * high]
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    grid[0][0].set_ylabel("AP50")
    grid[0][0].legend(fontsize=7, loc="lower right")
    figure.savefig(path, dpi=110)


def main() -> None:
    made = parser(__doc__, rounds=7, threads=1)
    made.add_argument("data")
    made.add_argument("--sizes", action="append", default=[], metavar="MODEL=SIZE,SIZE")
    made.add_argument("--ways", default="openvino:fp32,openvino:bf16")
    made.add_argument("--images", type=int, default=540)
    made.add_argument("--int8", action="append", default=[], metavar="MODEL=FILE")
    made.add_argument("--yolox")
    made.add_argument("--ssdlite", action="store_true")
    made.add_argument("--judge", type=float, default=1e9, metavar="SECONDS")
    made.add_argument("--cpu-time", action="store_true")
    made.add_argument("--out", type=Path, default=Path("frontier"))
    chosen = options(made)
    int8 = dict(pair.split("=", 1) for pair in chosen.int8)
    dataset = open_judged(chosen.data, None)
    count = min(4 if chosen.short else chosen.images, len(dataset))
    dataset = dataset.subset([round(i) for i in np.linspace(0, len(dataset) - 1, count)])
    data = Path(str(dataset.records[0].path)).read_bytes()
    judged = Judged(chosen.out.with_suffix(".json"), chosen.data, count)
    rows: list[dict[str, Any]] = []
    turns: dict[int, Callable[[], object]] = {}

    def point(model: str, way: str, size: int, ap50: float | None, turn: Callable[[], object]) -> None:
        turns[len(rows)] = turn
        rows.append({"model": model, "way": way, "size": size, "AP50": ap50})

    for model, listed in (pair.split("=") for pair in chosen.sizes or SIZES):
        for way in [*chosen.ways.split(","), *(["openvino:int8"] if model in int8 else [])]:
            dtype = way.split(":")[1]
            source = int8[model] if dtype == "int8" else model
            weights, detector = weights_of(source), loaded(source, way, chosen.threads)
            for size in map(int, listed.split(",")[: 1 if chosen.short else None]):
                here = at(detector, size)
                # fp32 is the same in every runtime, which the check of an export sees to
                ap50 = judged.ap50(
                    f"{weights} {dtype} {size}", lambda here=here: evaluate(here, dataset, batch=1).ap50, chosen.judge
                )
                if ap50 is not None:
                    point(model, way, size, ap50, lambda here=here: here(data))
                    print(f"{model} {way} {size}: AP50 {ap50:.4f}", flush=True)
    if chosen.yolox:
        other = Yolox(chosen.yolox, chosen.threads, dataset.classes.names)
        images = (Path(str(record.path)).read_bytes() for record in dataset.records)
        ap50 = judged.ap50(
            f"{weights_of(chosen.yolox)} 416", lambda: coco.evaluate([*map(other, images)], dataset).ap50, chosen.judge
        )
        if ap50 is not None:
            point("YOLOX-nano", "onnx:fp32", 416, ap50, lambda: other(data))
    if chosen.ssdlite:
        whole = ssdlite()
        point("torchvision SSDLite", "torch:fp32", 320, None, lambda: whole(data))
    clock = time.process_time if chosen.cpu_time else time.perf_counter
    seconds = alternate(turns, chosen.rounds, clock=clock)
    for i, row in enumerate(rows):
        row |= {"ms": round(1e3 * median(seconds[i]), 2), "threads": chosen.threads, "where": heading()}
        row["clock"] = "cpu" if chosen.cpu_time else "wall"
    print_heading()
    for row in rows:
        print("  ".join(f"{row[key]!s:<20}" for key in ("model", "way", "size", "AP50", "ms")))
    kept = [row for row in judged.rest["rows"] if row["threads"] != chosen.threads]
    judged.write({"rows": [*kept, *rows]})
    draw([*kept, *rows], chosen.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
