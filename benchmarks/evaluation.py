"""Time of the two COCO backends of `fcos.evaluate` on the same made-up detections, alternating.

python benchmarks/evaluation.py [--images 1000] [--detections 100] [--classes 80] [--rounds 3]
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from common import print_heading

from fcos.data.dataset import Dataset
from fcos.data.records import Record
from fcos.detections import Detections
from fcos.evaluation.backends import Totals, coco_arrays
from fcos.evaluation.coco import evaluate, flatten
from fcos.types import Classes


def scene(images: int, detections: int, classes: int, objects: int = 7) -> tuple[list[Detections], Dataset]:
    """Images with `objects` boxes on average; every detection lies near one of them, half of them well."""
    rng = np.random.default_rng(0)
    records, results = [], []
    for number in range(1, images + 1):
        count = int(rng.integers(1, 2 * objects))
        corner = rng.uniform(0, 400, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(8, 240, (count, 2))], axis=1).astype(np.float32)
        labels = rng.integers(0, classes, count)
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        name = f"{number}.jpg"
        records.append(Record(number, Path(name), (640, 640), boxes, labels, rng.random(count) < 0.02, areas, name))
        pick = rng.integers(0, count, detections)
        noise = rng.normal(0, rng.choice([3, 30], (detections, 1)), (detections, 4))
        near = boxes[pick] + noise
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        wrong = rng.random(detections) < 0.3
        found = np.where(wrong, rng.integers(0, classes, detections), labels[pick])
        results.append(
            Detections(
                torch.from_numpy(near.astype(np.float32)),
                torch.from_numpy(rng.random(detections).astype(np.float32)),
                torch.from_numpy(found),
                torch.full((detections,), -1),
            )
        )
    names = tuple(f"class {k}" for k in range(classes))
    return results, Dataset(tuple(records), Classes(names), "coco", "test", Path("."))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("images", 1000), ("detections", 100), ("classes", 80), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    results, data = scene(options.images, options.detections, options.classes)
    found, truth = flatten(results, data)
    whole: dict[str, list[float]] = {"hotcoco": [], "pycocotools": []}
    alone: dict[str, list[float]] = {"hotcoco": [], "pycocotools": []}
    numbers = {}
    for _ in range(options.rounds):
        for backend in whole:
            metrics = evaluate(results, data, backend=backend)
            whole[backend].append(metrics.seconds)
            numbers[backend] = np.array(list(metrics.numbers().values()))
            started = perf_counter()
            coco_arrays(found, truth, Totals(options.images, options.classes), (1, 10, 100, 1000), backend)
            alone[backend].append(perf_counter() - started)
    print_heading()
    print(", ".join(f"{name} {version(name)}" for name in (*whole, "numpy")))
    print(f"{options.images} images x {options.detections} detections, {options.classes} classes")
    for what, seconds in (("evaluate(), VOC and F1 included", whole), ("COCO's numbers alone", alone)):
        print(what)
        for backend, times in seconds.items():
            print(f"  {backend:12} {median(times):8.2f} s  (of {', '.join(f'{t:.2f}' for t in times)})")
        print(f"  ratio {median(seconds['pycocotools']) / median(seconds['hotcoco']):.1f}")
    print(f"largest difference of any number: {np.nanmax(np.abs(numbers['hotcoco'] - numbers['pycocotools'])):.1e}")


if __name__ == "__main__":
    main()
