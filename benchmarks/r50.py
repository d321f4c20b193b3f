"""R-50 beside torchvision's FCOS in fp32, bf16 and int8, with the paper's head and a lighter one, from JPEG to boxes.

    python benchmarks/r50.py [--size 640] [--rounds 5] [--threads 2] [--heads paper,shared,rt] [--dtypes fp32,bf16,int8]
        [--files DIR] [--cpu-time] [--short]

All ways take turns in one process; the ratio is torchvision's time (eager, fp32) by the other's. Weights are random, so
this is speed only. `paper`: torchvision's own weights converted, 4 + 4 convolutions with GroupNorm. `shared`: 4
convolutions that both branches share, with BatchNorm. `rt`: the same over an FPN of depthwise convolutions. int8 is
calibrated on noise. --files: where the graphs are kept, so that a second call only takes times. --cpu-time is for a
machine shared with others: seconds of one thread, not of the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from common import options, parser, print_heading

from fcos.bench.timing import alternate
from fcos.bench.ways import image, torchvision_detector, way_of_torchvision
from fcos.export.about import About
from fcos.export.open import write_export
from fcos.inference.load import load
from fcos.network import weights
from fcos.presets import preset
from fcos.system.terminal import parse_shape
from fcos.types import Classes
from fcos.zoo.find import load_network

SHARED = {"head_shared_convs": 4, "head_convs": 0, "head_norm": "batch"}
HEADS: dict[str, dict[str, Any]] = {"shared": SHARED, "rt": {**SHARED, "fpn_depthwise": True}}
_CALIBRATION = 3  # images; the ranges of noise are no better for more


def checkpoint(head: str, size: int, folder: Path) -> Path:
    """A file of random weights that keep activations in range."""
    path = folder / f"{head}.safetensors"
    if head == "paper" or path.exists():
        return path
    changes = {**HEADS[head], "backbone_weights": "none"}
    config = preset("fcos-r50").override({"model": changes, "data": {"size": size, "max_size": size}})
    torch.manual_seed(0)
    network = weights.build(config, 80)
    for name, module in network.named_modules():
        if name.endswith("bn3"):
            torch.nn.init.constant_(module.weight, 0.3)
    return weights.save(path, network.state_dict(), config, Classes(tuple(map(str, range(80)))))


def graph(source: Path, dtype: str, size: int) -> Path:
    """The OpenVINO file of a checkpoint, in fp32 or int8."""
    path = source.with_name(f"{source.stem}-{'int8' if dtype == 'int8' else 'fp32'}.xml")
    if not path.exists():
        network, config, classes = load_network(source, ())
        about = About(config, classes, dtype="int8" if dtype == "int8" else "fp32")
        noise = (torch.randint(0, 256, (1, 3, size, size)) for _ in range(_CALIBRATION))
        kind = torch.uint8 if about.pixels == "uint8" else torch.float32
        write_export(network, about, "openvino", path, (value.to(kind) for value in noise))
    return path


def main() -> None:
    made = parser(__doc__, rounds=5)
    made.add_argument("--size", type=int, default=640)
    made.add_argument("--heads", default="paper,shared,rt")
    made.add_argument("--dtypes", default="fp32,bf16,int8")
    made.add_argument("--files", type=Path)
    made.add_argument("--cpu-time", action="store_true")
    chosen = options(made)
    size = 128 if chosen.short else chosen.size
    data = image(parse_shape(str(size)))
    with TemporaryDirectory() as temporary, torch.inference_mode(False):
        folder = chosen.files or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        theirs, paper = torchvision_detector(str(size), folder)
        paper.replace(folder / "paper.safetensors")
        ways: dict[tuple[str, str], Callable[[], object]] = {
            ("torchvision", "fp32"): way_of_torchvision(theirs, str(size), 1, "cpu").whole
        }
        for head in chosen.heads.split(","):
            source = checkpoint(head, size, folder)
            for dtype in chosen.dtypes.split(","):
                file = graph(source, dtype, size)
                detector = load(file, runtime="openvino", dtype=dtype, device="cpu", threads=chosen.threads)
                ways[head, dtype] = lambda detector=detector: detector(data)
                print(f"{head} {dtype}: ready", flush=True)
        clock = time.process_time if chosen.cpu_time else time.perf_counter
        with torch.inference_mode():
            times = alternate(ways, chosen.rounds, clock=clock)
    print_heading()
    kind = "of the processor" if chosen.cpu_time else "of the clock"
    print(f"R-50 at {size}x{size}, JPEG to boxes, ms {kind}, {chosen.threads} threads, {chosen.rounds} rounds")
    base = median(times["torchvision", "fp32"])
    for (head, dtype), seconds in times.items():
        print(f"{head:<14}{dtype:<6}{1e3 * median(seconds):>9.0f}{base / median(seconds):>7.2f}")


if __name__ == "__main__":
    main()
