"""Target assignment: the fast way against the plain one and against torchvision's, and its share of a training step.

    python benchmarks/assignment.py [--threads 1] [--rounds 30]

One image of 800x1088 (18,134 points) with 150 boxes; the three ways alternate in one process, medians in ms. Then
the targets of 100 images of VOC's density against one CPU training step of fcos-lite0 (8 images of 320x448).
"""

import argparse
import statistics
import time
from types import SimpleNamespace

import torch
from common import print_heading

from fcos.assign import assign, assign_batch
from fcos.losses import Assignment, fcos_loss
from fcos.network import weights
from fcos.points import make_points
from fcos.presets import preset
from fcos.types import Target


def scene(count: int, height: int, width: int, seed: int) -> Target:
    g = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=g) * torch.tensor([width * 0.9, height * 0.9])
    size = 8 + torch.rand(count, 2, generator=g) ** 2 * 400
    high = torch.minimum(low + size, torch.tensor([float(width), float(height)]))
    return Target(
        torch.cat((low, high), 1), torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.bool)
    )


def torchvision_way(points, boxes):
    """The lines of torchvision's FCOS.compute_loss that match anchors to boxes, called on the same points."""
    from torchvision.models.detection.fcos import FCOS

    anchors = torch.cat((points.xy - points.stride[:, None] / 2, points.xy + points.stride[:, None] / 2), 1)
    seen = {}
    double = SimpleNamespace(
        center_sampling_radius=1.5,
        head=SimpleNamespace(compute_loss=lambda t, h, a, matched: seen.update(index=matched[0])),
    )
    per_level = [grid.cells for grid in points.grids]
    FCOS.compute_loss(double, [{"boxes": boxes}], {}, [anchors], per_level)
    return seen["index"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = preset("fcos-r50")
    points = make_points((800, 1088), config.model, config.assign)
    target = scene(150, 800, 1088, 0)
    ways = {
        "fast": lambda: assign_batch(points, [target], config.assign),
        "plain": lambda: assign(points, target.boxes, config.assign),
        "torchvision": lambda: torchvision_way(points, target.boxes),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(options.rounds + 2):
        for name, way in ways.items():
            if name != "fast" and round_ > 7:
                continue
            began = time.perf_counter()
            way()
            times[name].append(1e3 * (time.perf_counter() - began))
    medians = {name: statistics.median(values[2:]) for name, values in times.items()}
    print_heading()
    print(f"{len(points.xy)} points x 150 boxes, {options.threads} thread(s)")
    for name, value in medians.items():
        print(f"{name:<12}{value:>9.2f} ms{value / medians['fast']:>9.1f} x")

    lite = preset("fcos-lite0")
    network = weights.build(lite, 20).train()
    network.backbone.freeze(lite.train.freeze_stages)
    images = torch.zeros(8, 3, 320, 448).contiguous(memory_format=torch.channels_last)
    grid = make_points((320, 448), lite.model, lite.assign)
    batch = [scene(3, 320, 448, i) for i in range(8)]
    hundred = [scene(3, 320, 448, i) for i in range(100)]
    steps, targets = [], []
    for _ in range(4):
        began = time.perf_counter()
        index = assign_batch(grid, batch, lite.assign)
        fcos_loss(network(images), Assignment.of(grid, batch, index), lite.loss, lite.model).total().backward()
        steps.append(time.perf_counter() - began)
        began = time.perf_counter()
        assign_batch(grid, hundred, lite.assign)
        targets.append(time.perf_counter() - began)
    step, cost = statistics.median(steps[1:]), statistics.median(targets[1:])
    print(f"targets of 100 images {1e3 * cost:.1f} ms, one step of 8 images {1e3 * step:.0f} ms: {cost / step:.2%}")


if __name__ == "__main__":
    main()
