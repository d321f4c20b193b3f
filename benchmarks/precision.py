"""What bf16 training loses: AP after the same steps in fp32 and in bf16, from the same seeds.

python benchmarks/precision.py DATA --out precision.jsonl [--size 160] [--steps 60] [--batch 8] [--seeds 3] [--images 0]
python benchmarks/precision.py --read precision.jsonl

Both ways of a seed see the same images in the same order. bf16 loses nothing if the mean difference is within the
scatter of the seeds. Each run is a line in --out; runs that are there are not done again. --cpu begins no run after so
many CPU seconds. --images: how many to learn from and how many to judge by at most, 0 for all.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from common import cpu, fill, lines

import fcos
from fcos.data.dataset import Dataset
from fcos.data.open import open_splits

WAYS = ("fp32", "bf16")
Row = dict[str, float | str]


def some(dataset: Dataset, most: int) -> Dataset:
    """At most so many images, the same ones each time."""
    if not most or len(dataset) <= most:
        return dataset
    return dataset.subset(sorted(np.random.default_rng(0).permutation(len(dataset))[:most].tolist()))


def learn(arguments: argparse.Namespace, seed: int, way: str) -> Row:
    """AP of one run, and the CPU seconds it took."""
    splits = open_splits(arguments.data)
    train = splits["train"] if "train" in splits else splits["trainval"]
    val = splits["val"] if "val" in splits else splits["test"]
    size, steps = arguments.size, arguments.steps
    settings = ["train.plots=false", "train.val_loss=false", "train.eval_every=0", "data.workers=0",
                f"train.batch={arguments.batch}", f"data.size={size}", f"data.max_size={size * 5 // 3}",
                f"data.train_sizes=[{size}]", f"train.iterations={steps}", f"train.warmup={max(5, steps // 10)}",
                f"train.ema={max(0.9, 1 - 3 / steps):.4f}", f"train.seed={seed}", f"train.precision={way}"]  # fmt: skip
    data = {"train": some(train, arguments.images), "val": some(val, arguments.images)}
    began = cpu()
    with tempfile.TemporaryDirectory() as folder:
        result = fcos.train(data, out=Path(folder) / "run", settings=settings, quiet=True)
    assert result.metrics is not None
    ap, ap50 = result.metrics.ap, result.metrics.ap50
    return {"AP": ap, "AP50": ap50, "cpu": round(cpu() - began, 1)}


def read(path: Path) -> None:
    """A line for each seed that was run both ways, then the means."""
    by = {(row["seed"], row["way"]): row for row in lines(path)}
    seeds = sorted({s for s, _ in by if all((s, way) in by for way in WAYS)})
    print("seed   fp32 AP  AP50   bf16 AP  AP50    difference")
    for seed in seeds:
        one, other = (by[seed, way] for way in WAYS)
        scores = "     ".join(f"{row['AP']:.3f}  {row['AP50']:.3f}" for row in (one, other))
        print(f"{seed:4}     {scores}    {other['AP'] - one['AP']:+.3f}")
    if len(seeds) < 2:
        return
    gaps = [by[s, "bf16"]["AP"] - by[s, "fp32"]["AP"] for s in seeds]
    scatter = statistics.stdev(by[s, "fp32"]["AP"] for s in seeds)
    error = statistics.stdev(gaps) / len(gaps) ** 0.5
    mean = statistics.mean(gaps)
    print(f"bf16 - fp32: {mean:+.4f}, its standard error {error:.4f}; fp32 from seed to seed {scatter:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--read", type=Path)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--cpu", type=float, default=1e9)
    arguments = parser.parse_args()
    if arguments.read is not None:
        read(arguments.read)
        return
    cases = [{"seed": seed, "way": way} for seed in range(arguments.seeds) for way in WAYS]
    fill(arguments.out, cases, partial(learn, arguments), arguments.cpu)
    read(arguments.out)


if __name__ == "__main__":
    main()
