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
from functools import partial
from pathlib import Path

from common import fill, lines, runs_parser, short_run

WAYS = ("fp32", "bf16")
Row = dict[str, float | str]


def learn(arguments: argparse.Namespace, seed: int, way: str) -> Row:
    return short_run(arguments, seed, [f"train.precision={way}"])


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
    arguments = runs_parser(__doc__, steps=60).parse_args()
    if arguments.read is not None:
        read(arguments.read)
        return
    cases = [{"seed": seed, "way": way} for seed in range(arguments.seeds) for way in WAYS]
    fill(arguments.out, cases, partial(learn, arguments), arguments.cpu)
    read(arguments.out)


if __name__ == "__main__":
    main()
