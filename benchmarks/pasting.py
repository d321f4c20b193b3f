"""What objects pasted from other images, and weights averaged over the end of a run, are worth: equal processor time.

    python benchmarks/pasting.py [--data ../shared/data] [--seconds 600] [--sets voc3-800,bccd] [--seeds 1]
        [--out runs/pasting]

"plan" is what `fcos train --minutes` does from the ImageNet weights of the backbone of `fcos-lite0`, without pasting;
"paste" has `data.paste=0.5` beside, but for the last tenth of the planned epochs. Each run is judged by three sets of
weights: its moving average, as all runs are; the plain mean of the weights at every step of the last quarter (SWA,
arXiv 1803.05407, with the falling learning rate of the plan); and the last ones. Sets, time and judging are those of
other_images.py; each row is a line of OUT/pasting.jsonl, and a run that is there is not done again.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from common import lines, print_heading
from other_images import Planned, ProcessorDeadline, cases_options, cases_parser, fill_rows, opened, planned

import fcos.training.setup as setup
from fcos.data.dataset import Dataset
from fcos.evaluation.coco import evaluate
from fcos.inference.composite import OWN, Looks, compose
from fcos.inference.dataset import Progress, predict_dataset
from fcos.inference.load import load
from fcos.network.model import FCOS
from fcos.training.data import NamedData, choose
from fcos.training.loop import Trainer
from fcos.training.optimizer import Average
from fcos.training.run import RunOptions

LATE = 0.75  # of the time, after which weights are averaged
ROWS = ("plan", "paste")


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
    config = plan.config.override({"train": {"seed": seed}, "data": {"paste": 0.0}})
    if row == "paste":
        epochs = round(config.train.iterations * config.train.batch / len(learned))
        plain = max(config.data.plain_epochs, round(epochs / 10), 1)
        config = config.override({"data": {"paste": 0.5, "plain_epochs": plain}})
    setattr(setup, "Average", Kept)  # noqa: B010
    with TemporaryDirectory() as folder:
        chosen = choose(NamedData({"train": learned}, holdout=0), config).data
        Kept.deadline = ProcessorDeadline(seconds, 0)
        trainer = Trainer(
            config, chosen, RunOptions(Path(folder), plan.init, device="cpu", quiet=True, deadline=Kept.deadline)
        )
        trainer.run()
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
    fill_rows(chosen, file, ROWS, measured)
    print(f"{len(lines(file))} runs in {file}")


if __name__ == "__main__":
    main()
