"""What objects pasted from other images, and weights averaged over the end of a run, are worth: equal processor time.

    python benchmarks/pasting.py [--data ../shared/data] [--seconds 600] [--sets voc3-800,bccd] [--seeds 1]
        [--out runs/pasting]

"plan" is what `fcos train --minutes` does from the ImageNet weights of the backbone of `fcos-lite0`; "paste" puts one
to three boxes of another image, each with what is in it, into half of the images (copy-paste, arXiv 2012.07177, but by
boxes, since there are no masks), and into none in the last tenth of the time. A pasted box is scaled by 0.5 to 1.5 and
goes to a random place where it hides no more than `HIDDEN` of any box. Each run is judged by three sets of weights: its
moving average, as all runs are; the plain mean of the weights at every step of the last quarter (SWA, arXiv 1803.05407,
with the falling learning rate of the plan); and the last ones. Sets, time and judging are those of other_images.py;
each row is a line of OUT/pasting.jsonl, and a run that is there is not done again.
"""

from __future__ import annotations

import argparse
import copy
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from common import fill, lines, print_heading
from other_images import Planned, ProcessorDeadline, cases_options, cases_parser, opened, planned

import fcos.data.loading.loader as loader
import fcos.training.setup as setup
from fcos.data.dataset import Dataset
from fcos.data.loading.augment import Sample, cut, fit
from fcos.evaluation.coco import evaluate
from fcos.inference.composite import OWN, Looks, compose
from fcos.inference.dataset import Progress, predict_dataset
from fcos.inference.load import load
from fcos.network.model import FCOS
from fcos.overlap import area
from fcos.training.data import Source, choose
from fcos.training.loop import Trainer
from fcos.training.optimizer import Average
from fcos.training.run import RunOptions

HIDDEN = 0.3  # of a box, by one that is pasted
SHARE = 0.5  # of the images get boxes of another
MOST = 3  # boxes
TRIES = 10  # places for each
PLAIN = 0.9  # of the time, after which none is pasted
LATE = 0.75  # of the time, after which weights are averaged
ROWS = ("plan", "paste")


def pasted(sample: Sample, other: Sample, rng: np.random.Generator) -> Sample:
    """The image with some boxes of the other, and what else is in them."""
    height, width = sample.size
    scale = min(height / other.size[0], width / other.size[1])
    image, parts = sample.image.copy(), [sample]
    for index in rng.permutation(np.flatnonzero(~other.ignore))[: int(rng.integers(1, MOST + 1))]:
        x1, y1 = np.floor(other.boxes[index, :2]).astype(int).clip(0)
        x2, y2 = np.ceil(other.boxes[index, 2:]).astype(int).clip(max=(other.size[1], other.size[0]))
        factor = scale * rng.uniform(0.5, 1.5)
        h, w = (round(side * factor) for side in (y2 - y1, x2 - x1))
        if not (4 <= h < height and 4 <= w < width):
            continue
        boxes = np.concatenate([part.boxes for part in parts])
        for _ in range(TRIES):
            top, left = int(rng.integers(height - h)), int(rng.integers(width - w))
            box = np.array([left, top, left + w, top + h], np.float32)
            shared = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
            hidden = shared.clip(0).prod(axis=1) / area(boxes).clip(1e-6)
            if not (hidden > HIDDEN).any():
                piece = fit(cut(other, x1, y1, x2, y2), (h, w))
                image[top : top + h, left : left + w] = piece.image
                parts.append(piece._replace(boxes=piece.boxes + box[[0, 1, 0, 1]]))
                break
    rows = (np.concatenate([part[field] for part in parts]) for field in (1, 2, 3))
    return Sample(image, *rows)


class Kept(Average):
    """The moving average, which keeps the mean of late weights too, and the last ones."""

    kept: Kept
    deadline: ProcessorDeadline

    def __init__(self, network: FCOS, decay: float) -> None:
        super().__init__(network, decay)
        self.mean, self.seen, self.last = copy.deepcopy(network).requires_grad_(False).eval(), 0, network
        Kept.kept = self

    @torch.no_grad()
    def update(self, network: FCOS, step: int) -> None:
        super().update(network, step)
        self.last = network
        if used() < LATE:
            return
        self.seen += 1
        for ours, theirs in zip(self.mean.parameters(), network.parameters(), strict=True):
            ours.lerp_(theirs, 1 / self.seen)
        for kept, now in zip(self.mean.buffers(), network.buffers(), strict=True):
            kept.copy_(now)


def used() -> float:
    """Share of the time of the run."""
    return (time.process_time() - Kept.deadline.began) / Kept.deadline.seconds


def run(row: str, seed: int, seconds: float, plan: Planned, data: tuple[Dataset, Dataset]) -> dict[str, Any]:
    """AP and AP50 by each set of weights."""
    learned, judged = data
    config = plan.config.override({"train": {"seed": seed}})
    plain = loader._load_or_next

    def reading(dataset: Dataset, reader: Any, index: int, failures: Any) -> Sample:
        sample = plain(dataset, reader, index, failures)
        if used() > PLAIN or rng.random() >= SHARE:
            return sample
        return pasted(sample, plain(dataset, reader, int(rng.integers(len(dataset))), failures), rng)

    rng = np.random.default_rng(seed)
    setattr(setup, "Average", Kept)  # noqa: B010
    loader._load_or_next = reading if row == "paste" else plain
    with TemporaryDirectory() as folder:
        chosen = choose(Source({"train": learned}, holdout=0), config).data
        Kept.deadline = ProcessorDeadline(seconds, 0)
        trainer = Trainer(
            config, chosen, RunOptions(Path(folder), plan.init, device="cpu", quiet=True, deadline=Kept.deadline)
        )
        trainer.run()
        loader._load_or_next = plain
        detector = load(folder, device="cpu", runtime="own")
    result: dict[str, Any] = {"steps": trainer.step, "averaged": Kept.kept.seen, "size": config.data.size}
    ways = {
        "moving average": detector,
        "mean of the last quarter": detector.replace(network=Kept.kept.mean),
        "last": detector.replace(network=copy.deepcopy(Kept.kept.last).eval()),
    }
    for name, way in ways.items():
        found = predict_dataset(compose([way], Looks(OWN)), judged, 1, progress=Progress(lambda _: None, True))
        metrics = evaluate(found, judged)
        result[name] = [round(metrics.ap, 4), round(metrics.ap50, 4)]
    return result


def measured(chosen: argparse.Namespace, set: str, row: str, seed: int, seconds: float) -> dict[str, Any]:
    """A run and what it came to."""
    data = opened(set, chosen.data, chosen.out, False)
    line = run(row, seed, seconds, planned(data[0], seconds, "none"), data)
    print(set, row, seed, line, flush=True)
    return line


def main() -> None:
    chosen = cases_options(cases_parser(__doc__, "runs/pasting", ("voc3-800", "bccd")))
    print_heading()
    file = chosen.out / "pasting.jsonl"
    cases = [
        {"set": name, "row": row, "seed": seed, "seconds": chosen.seconds}
        for seed in range(chosen.seeds)
        for name in chosen.sets
        for row in ROWS
    ]
    fill(file, cases, partial(measured, chosen), 1e9)
    print(f"{len(lines(file))} runs in {file}")


if __name__ == "__main__":
    main()
