"""A training step of a lite detector: fp32, and bf16 with torch's gradient of 5x5 depthwise convolutions and with ours.

python benchmarks/lite_step.py [--model fcos-lite0] [--size 320] [--batch 8] [--rounds 5] [--threads 1]

Forward, losses and backward on made images; all ways alternate in one process. CPU time of all threads, medians, so
that it can be read on a busy machine too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch

from fcos.assign import assign_batch
from fcos.bench.timing import alternate
from fcos.losses import Assignment, count, fcos_loss, normalizers
from fcos.network import depthwise, weights
from fcos.points import make_points
from fcos.presets import preset
from fcos.training.memory import keep_memory
from fcos.training.setup import make_ready
from fcos.types import Target

CLASSES = 20


def steps(name: str, size: int, batch: int) -> dict[str, Callable[[], None]]:
    """Each way as something to call."""
    config = preset(name).override({"model": {"backbone_weights": "none"}})
    network = weights.build(config, CLASSES)
    make_ready(network, config, torch.device("cpu"))
    network.train()
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (batch, 3, size, size), generator=generator, dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    targets = []
    for _ in range(batch):
        low = torch.rand(8, 2, generator=generator) * size * 0.7
        high = (low + 16 + torch.rand(8, 2, generator=generator) * size * 0.5).clamp(max=size)
        labels = torch.randint(0, CLASSES, (8,), generator=generator)
        targets.append(Target(torch.cat((low, high), 1), labels, torch.zeros(8, dtype=torch.bool)))
    points = make_points((size, size), config.model, config.assign, torch.device("cpu"))
    learned = Assignment.of(points, targets, assign_batch(points, targets, config.assign))
    norm = normalizers(count(learned.positives, config.loss), config.loss, 1, None)
    windows = depthwise.pays

    def way(bf16: bool, ours: bool) -> Callable[[], None]:
        def step() -> None:
            depthwise.pays = windows if ours else lambda *_: False
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                found = network(images)
            fcos_loss(found, learned, config.loss, config.model, norm).total().backward()
            network.zero_grad()

        return step

    return {"fp32": way(False, False), "bf16, torch": way(True, False), "bf16, ours": way(True, True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fcos-lite0")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_memory()
    times = alternate(
        steps(arguments.model, arguments.size, arguments.batch), arguments.rounds, clock=time.process_time
    )
    first = median(times["fp32"])
    for name, seconds in times.items():
        print(f"{name:20} {1000 * median(seconds):7.0f} ms   {first / median(seconds):.2f}")


if __name__ == "__main__":
    main()
