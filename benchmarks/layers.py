"""Where a detector's time goes: OpenVINO's own clock by kind of layer, and what lies around the network.

    python benchmarks/layers.py [--model fcos-lite0] [--int8 FILE.xml] [--size 320] [--threads 1] [--rounds 40]
        [--short]

For each number format the best of some rounds by OpenVINO's counters, summed by kind of layer, with the work of each
kind, what it reads and writes of maps, and its share of the machine's peak: what a 3x3 convolution of 256 channels
reaches in the same process in that format (for int8, which torch has none of: twice the bf16's). Then the parts around
it: JPEG, resizing, decoding with NMS.
"""

from __future__ import annotations

import time
from collections import defaultdict
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import openvino
import torch
from common import options, parser, print_heading

from fcos.bench.timing import alternate, convolution
from fcos.bench.ways import image
from fcos.inference import graphs
from fcos.inference.graphs import Origin
from fcos.inference.load import load
from fcos.zoo.find import find_weights

KINDS = ("3x3 and larger", "pointwise", "depthwise 3x3", "depthwise 5x5")
BYTES = {"f32": 4, "bf16": 2, "f16": 2, "i8": 1, "u8": 1}


class Layer(NamedTuple):
    """A node as it runs: its kind, GFLOP, megabytes of maps that it reads and writes, its number format."""

    kind: str
    gflop: float
    megabytes: float
    precision: str


def convolutions(model: openvino.Model) -> dict[str, tuple[str, float]]:
    """(kind, GFLOP) of each convolution, by name."""
    known = {}
    for op in model.get_ordered_ops():
        if op.get_type_name() not in ("Convolution", "GroupConvolution"):
            continue
        kernel, out = list(op.input_value(1).get_shape()), list(op.output(0).get_shape())
        side = kernel[-1]
        grouped = op.get_type_name() == "GroupConvolution"
        kind = f"depthwise {side}x{side}" if grouped else "pointwise" if side == 1 else "3x3 and larger"
        per_value = kernel[-3] * side * side  # inputs of one output value: of its group alone
        known[op.get_friendly_name()] = (kind, 2 * per_value * prod(out) / 1e9)
    return known


def layers(model: openvino.Model, compiled: openvino.CompiledModel) -> dict[str, Layer]:
    """What each node of the compiled graph is, by its name."""
    known, made = convolutions(model), {}
    for op in compiled.get_runtime_model().get_ordered_ops():
        info = {key: str(value.value if hasattr(value, "value") else value) for key, value in op.get_rt_info().items()}
        names = [op.get_friendly_name(), *info.get("originalLayersNames", "").split(",")]
        kind, gflop = next((known[name] for name in names if name in known), (info.get("layerType", "other"), 0.0))
        precision = info.get("outputPrecisions", "f32").split(",")[0]
        maps = [source.get_shape() for source in op.input_values() if source.get_node().get_type_name() != "Const"]
        moved = sum(prod(shape) for shape in maps[:1]) + (prod(op.output(0).get_shape()) if op.outputs() else 0)
        made[op.get_friendly_name()] = Layer(kind, gflop, moved * BYTES.get(precision, 4) / 1e6, precision)
    return made


def profile(path: Path, dtype: str, size: int, chosen: Any) -> tuple[dict[str, tuple[float, ...]], float]:
    """({kind: (layers, GFLOP, MB, ms)}, ms of the whole network by the clock)."""
    core = openvino.Core()
    model = core.read_model(str(path))
    model.reshape([1, 3, size, size])
    settings = {"INFERENCE_PRECISION_HINT": dtype, "PERFORMANCE_HINT": "LATENCY", "PERF_COUNT": "YES"}
    compiled = core.compile_model(model, "CPU", {**settings, "INFERENCE_NUM_THREADS": str(chosen.threads)})
    nodes, request = layers(model, compiled), compiled.create_infer_request()
    kind = model.inputs[0].get_element_type().to_dtype()
    given = [np.random.default_rng(0).integers(0, 255, (1, 3, size, size)).astype(kind)]
    request.infer(given)
    times: dict[str, list[float]] = defaultdict(list)
    whole = []
    for _ in range(chosen.rounds):
        began = time.perf_counter()
        request.infer(given)
        whole.append(1e3 * (time.perf_counter() - began))
        for entry in request.profiling_info:
            times[entry.node_name].append(entry.real_time.total_seconds() * 1e3)
    sums = {name: [0.0, 0.0, 0.0, 0.0] for name in KINDS}
    for name, values in times.items():
        layer, ms = nodes.get(name, Layer("other", 0.0, 0.0, "")), min(values)
        into = sums.setdefault(layer.kind, [0.0, 0.0, 0.0, 0.0])
        for place, value in enumerate((1.0, layer.gflop, layer.megabytes, ms) if ms else ()):
            into[place] += value
    return {name: tuple(values) for name, values in sums.items() if values[0]}, min(whole)


def peak(dtype: str, chosen: Any) -> float:
    """GFLOP/s of a dense convolution, the best of some."""
    made = convolution("fp32" if dtype == "f32" else "bf16")
    assert made is not None
    way, gflop = made
    with torch.inference_mode():
        return gflop / min(alternate({0: way}, max(3, chosen.rounds))[0])


def around(name: str, size: int, chosen: Any) -> dict[str, float]:
    """Milliseconds of the parts outside the network, for a photograph-sized JPEG of which one side becomes `size`."""
    detector = load(name, runtime="openvino", device="cpu", threads=chosen.threads, overrides=[f"data.size={size}"])
    data = np.frombuffer(image((480, 640)), np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    prepared = detector.prepare(pixels)[0][None]
    with torch.inference_mode():
        parts = {
            "JPEG of 640x480": lambda: cv2.imdecode(data, cv2.IMREAD_COLOR_RGB),
            "resizing, padding": lambda: detector.prepare(pixels),
            "network": lambda: detector.network(prepared),
            "from JPEG to boxes": lambda: detector(data.tobytes(), score=0.3),
            "the same, every score": lambda: detector(data.tobytes(), score=0.0),
        }
        times = alternate(parts, chosen.rounds)
    return {part: 1e3 * min(values) for part, values in times.items()}


def main() -> None:
    made = parser(__doc__, rounds=40, threads=1)
    made.add_argument("--model", default="fcos-lite0")
    made.add_argument("--int8", type=Path)
    made.add_argument("--size", type=int, default=320)
    chosen = options(made)
    size = 128 if chosen.short else chosen.size
    fp32 = graphs.make(Origin(find_weights(chosen.model)), "openvino", None).file
    print_heading()
    print(f"{chosen.model} at {size}x{size}, OpenVINO, {chosen.threads} threads, {chosen.rounds} rounds")
    files = {"f32": fp32, "bf16": fp32, **({"int8": chosen.int8} if chosen.int8 else {})}
    for dtype, path in files.items():
        most = peak(dtype, chosen) * (2 if dtype == "int8" else 1)
        sums, whole = profile(path, "f32" if dtype == "int8" else dtype, size, chosen)
        print(f"\n{dtype}: network {whole:.1f} ms, peak {most:.0f} GFLOP/s")
        print(f"{'':<18}{'layers':>7}{'GFLOP':>8}{'MB':>8}{'ms':>8}{'GFLOP/s':>9}{'of peak':>9}{'GB/s':>7}")
        for kind, (count, gflop, megabytes, ms) in sums.items():
            rate = gflop / ms * 1e3 if ms else 0.0
            moved = megabytes / ms if ms else 0.0
            work = f"{count:>7.0f}{gflop:>8.2f}{megabytes:>8.1f}{ms:>8.2f}"
            print(f"{kind:<18}{work}{rate:>9.0f}{rate / most:>9.0%}{moved:>7.1f}")
    print()
    for part, ms in around(chosen.model, size, chosen).items():
        print(f"{part:<22}{ms:>8.2f} ms")


if __name__ == "__main__":
    main()
