"""What the head of fcos-lite costs: plain or depthwise convs, 2 or 4 of them, 64 / 96 / 128 channels.

    python benchmarks/lite_head.py [--size 320] [--rounds 20] [--channels 64 96 128] [--convs 2 4]

Prints parameters beyond the body, GFLOP and the median milliseconds of one image on 2 threads with OpenVINO in
fp32 (pip install 'fcos-detector[openvino]'), all variants alternating in one process.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from common import print_heading

from fcos.network import weights
from fcos.network.info import describe_network
from fcos.presets import preset


def compile_openvino(network, size):
    import openvino as ov

    core = ov.Core()
    model = ov.convert_model(network, example_input=torch.zeros(1, 3, size, size), input=[1, 3, size, size])
    return core.compile_model(
        model,
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2, "PERFORMANCE_HINT": "LATENCY"},
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 96, 128])
    parser.add_argument("--convs", type=int, nargs="+", default=[2, 4])
    options = parser.parse_args()
    variants = {}
    for kind, towers, fpn in (
        ("plain", False, False),
        ("depthwise towers", True, False),
        ("all depthwise", True, True),
    ):
        for convs in options.convs:
            for channels in options.channels:
                config = preset("fcos-lite0").override(
                    {
                        "model": {
                            "fpn_channels": channels,
                            "head_channels": channels,
                            "head_convs": convs,
                            "head_depthwise": towers,
                            "fpn_depthwise": fpn,
                        }
                    }
                )
                network = weights.build(config, options.classes).eval()
                info = describe_network(network, config, (options.size, options.size))
                beyond = sum(p.parameters for p in info.parts if p.name != "backbone")
                flops = sum(p.flops for p in info.parts)
                name = f"{kind:<16} {convs} convs {channels:>3} channels"
                variants[name] = (compile_openvino(network, options.size), beyond, flops)
    image = np.zeros((1, 3, options.size, options.size), np.float32)
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(options.rounds + 2):
        for name, (compiled, _, _) in variants.items():
            began = time.perf_counter()
            compiled(image)
            times[name].append(1e3 * (time.perf_counter() - began))
    print(f"fcos-lite0 at {options.size}x{options.size}, {options.classes} classes, OpenVINO fp32, 2 threads")
    print_heading()
    print(f"{'head':<38}{'parameters beyond the body':>28}{'GFLOP':>8}{'ms':>8}")
    for name, (_, beyond, flops) in variants.items():
        print(f"{name:<38}{beyond:>28,}{flops / 1e9:>8.2f}{statistics.median(times[name][2:]):>8.1f}")


if __name__ == "__main__":
    main()
