"""What calibrating a detector's scores is worth, on images that it has not learned from.

python benchmarks/calibration.py DATA --model fcos-lite0 [--split test] [--out calibration.png]

The images are cut into halves at random; lines are fitted on one half and judged on the other, both ways, so that no
image is judged by lines that saw it. ECE is the mean gap between score and share of right detections (IoU 0.5) over ten
bins, of all detections and of those with a score of 0.3 or more, with 95 % intervals by a bootstrap over images. The
image shows the reliability before and after.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import print_heading
from PIL import Image

from fcos.config import DecodeConfig
from fcos.data.dataset import Dataset
from fcos.data.open import open_splits
from fcos.decode import calibrated
from fcos.detections import Detections
from fcos.evaluation.calibration import Line, calibration, fit
from fcos.evaluation.coco import evaluate
from fcos.evaluation.program import detect
from fcos.inference.load import load
from fcos.show.judged import reliability_plot

RESAMPLES = 1000
SHOWN = 0.3


class Gaps(NamedTuple):
    """Of each image: sums over its detections in each bin of score, rightness and number, [N,3,10]."""

    sums: np.ndarray

    def ece(self, images: np.ndarray) -> float:
        score, right, count = self.sums[images].sum(axis=0)
        return float(np.abs(score - right).sum() / max(count.sum(), 1))

    def interval(self) -> str:
        number = len(self.sums)
        rng = np.random.default_rng(0)
        draws = [self.ece(rng.integers(0, number, number)) for _ in range(RESAMPLES)]
        low, high = np.quantile(draws, (0.025, 0.975))
        return f"{self.ece(np.arange(number)):.4f} ({low:.4f} to {high:.4f})"


def gaps(detections: Sequence[Detections], dataset: Dataset, least: float = 0.0) -> Gaps:
    """Image by image, by the same rule as `fcos.evaluation.calibration`."""
    rows = []
    for i, d in enumerate(detections):
        c = calibration([d[d.scores >= least]], dataset.subset([i]))
        rows.append([np.nan_to_num(c.score) * c.count, np.nan_to_num(c.precision) * c.count, c.count])
    return Gaps(np.array(rows, dtype=np.float64))


def applied(detections: Sequence[Detections], lines: Sequence[Line]) -> list[Detections]:
    cfg = DecodeConfig(calibrated=True, calibration=tuple(lines))
    result = []
    for d in detections:
        probability = calibrated(d.scores, d.labels, cfg)
        order = probability.argsort(descending=True, stable=True)
        result.append(replace(d[order], scores=probability[order]))
    return result


def crossed(detections: Sequence[Detections], dataset: Dataset, seed: int = 0) -> list[Detections]:
    """Each image's detections under lines fitted on the other half."""
    order = np.random.default_rng(seed).permutation(len(dataset))
    halves = np.sort(order[: len(order) // 2]).tolist(), np.sort(order[len(order) // 2 :]).tolist()
    result = list(detections)
    for learned, judged in (halves, halves[::-1]):
        lines = fit([detections[i] for i in learned], dataset.subset(learned), dataset.classes.names)
        for i, d in zip(judged, applied([detections[i] for i in judged], lines), strict=True):
            result[i] = d
    return result


def report(detections: Sequence[Detections], dataset: Dataset, out: Path | None) -> None:
    after = crossed(detections, dataset)
    all_lines = fit(detections, dataset, dataset.classes.names)
    print(f"{len(dataset)} images, {sum(map(len, detections)):,} detections")
    print(f"{'':<28}{'ECE of all (95 %)':<30}ECE of scores >= {SHOWN}")
    for name, one in (("as the network gives them", detections), ("calibrated, cross-fitted", after)):
        print(f"{name:<28}{gaps(one, dataset).interval():<30}{gaps(one, dataset, SHOWN).interval()}")
    many = [calibration(crossed(detections, dataset, seed), dataset).ece for seed in range(10)]
    print(f"ten ways to halve: ECE {min(many):.4f} to {max(many):.4f}")
    before, now = (evaluate(d, dataset) for d in (detections, applied(detections, all_lines)))
    print(f"AP {before.ap:.4f}, AP50 {before.ap50:.4f}; with one fit on all images {now.ap:.4f}, {now.ap50:.4f}")
    for name, one in (("before", detections), ("after", after)):
        c = calibration(one, dataset)
        cells = (f"{s:.2f}: {p:.2f} of {n:,}" for s, p, n in zip(c.score, c.precision, c.count, strict=True) if n)
        print(f"{name:<8}" + "; ".join(cells))
    if out is not None:
        with tempfile.TemporaryDirectory() as folder:
            sides = []
            for name, one in (("before", detections), ("after", after)):
                reliability_plot(calibration(one, dataset), Path(folder) / f"{name}.png")
                sides.append(Image.open(Path(folder) / f"{name}.png").convert("RGB"))
            wide = Image.new("RGB", (sum(s.width for s in sides), sides[0].height), "white")
            wide.paste(sides[0], (0, 0))
            wide.paste(sides[1], (sides[0].width, 0))
            wide.quantize(64).save(out, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="fcos-lite0")
    parser.add_argument("--split", default="test")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    print_heading()
    detector = load(args.model, runtime="torch", overrides=["decode.calibrated=false"])
    report(*detect(detector, open_splits(args.data)[args.split]), args.out)


if __name__ == "__main__":
    main()
