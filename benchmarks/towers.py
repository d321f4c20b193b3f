"""Fewer FLOPs in R-50's head: a tower that both branches share, as FCOS-RT has it, and BatchNorm that folds away.

    python benchmarks/towers.py [--size 640] [--rounds 5] [--threads 2] [--runtime torch]

GFLOP by part and median milliseconds of the network alone, random weights, all variants alternating in one process.
What each choice costs in AP needs training: docs/measurements/speed.md has a small study.
"""

from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from common import options, parser, print_heading

from fcos.bench.timing import alternate
from fcos.inference.load import load
from fcos.network import weights
from fcos.network.info import describe_network
from fcos.presets import preset
from fcos.types import Classes

VARIANTS = {
    "4 + 4 convs, GroupNorm (the paper)": {},
    "4 + 4 convs, BatchNorm": {"head_norm": "batch"},
    "4 shared, GroupNorm": {"head_shared_convs": 4, "head_convs": 0},
    "4 shared, BatchNorm (as FCOS-RT)": {"head_shared_convs": 4, "head_convs": 0, "head_norm": "batch"},
    "2 shared + 2 + 2, BatchNorm": {"head_shared_convs": 2, "head_convs": 2, "head_norm": "batch"},
    "4 + 4 convs, GroupNorm, depthwise FPN": {"fpn_depthwise": True},
    "4 shared, BatchNorm, depthwise FPN": {
        "head_shared_convs": 4, "head_convs": 0, "head_norm": "batch", "fpn_depthwise": True,
    },
    "4 shared, 128 channels, BatchNorm": {
        "head_shared_convs": 4, "head_convs": 0, "head_norm": "batch", "head_channels": 128, "fpn_channels": 128,
    },
}  # fmt: skip


def main() -> None:
    made = parser(__doc__, rounds=5)
    made.add_argument("--size", type=int, default=640)
    made.add_argument("--model", default="fcos-r50")
    made.add_argument("--runtime", default="torch")
    chosen = options(made)
    size = 128 if chosen.short else chosen.size
    ways, flops = {}, {}
    images = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    with TemporaryDirectory() as folder:
        for number, (name, changes) in enumerate(VARIANTS.items()):
            config = preset(chosen.model).override({"model": {**changes, "backbone_weights": "none"}})
            torch.manual_seed(0)
            network = weights.build(config, 80).eval()
            flops[name] = [part.flops / 1e9 for part in describe_network(network, config, (size, size)).parts]
            path = Path(folder) / f"{number}.safetensors"
            weights.save(path, network.state_dict(), config, Classes(tuple(map(str, range(80)))))
            detector = load(path, runtime=chosen.runtime, threads=chosen.threads, device="cpu")
            ways[name] = lambda network=detector.network: network(images)
    with torch.inference_mode():
        times = {name: 1e3 * median(values) for name, values in alternate(ways, chosen.rounds).items()}
    print_heading()
    print(f"{chosen.model} at {size}x{size}, {chosen.runtime}, fp32, {chosen.rounds} rounds")
    print(f"{'head':<38}{'body':>7}{'FPN':>7}{'head':>7}{'GFLOP':>8}{'ms':>8}{'ratio':>7}")
    base = next(iter(times.values()))
    for name, ms in times.items():
        body, fpn, head = flops[name]
        total = body + fpn + head
        print(f"{name:<38}{body:>7.1f}{fpn:>7.1f}{head:>7.1f}{total:>8.1f}{ms:>8.0f}{base / ms:>7.2f}")


if __name__ == "__main__":
    main()
