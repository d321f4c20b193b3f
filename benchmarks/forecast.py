"""How often the intervals of `fcos forecast` hold the truth: by doing what they are about.

python benchmarks/forecast.py DATA --out forecast-cases.jsonl [--size 64] [--steps 160] [--images 60] [--val 10,20,40]
                              [--cases 10] [--first 0]
python benchmarks/forecast.py --read forecast-cases.jsonl

A case draws images to learn from and to judge by out of DATA, does the five runs of a forecast (a "minute" is --steps
steps, so that the machine's load does not matter), asks about as much time again and as many images again, and then
does both. The last run of the time is judged five times on its way: what its own curve says is kept too. Each case is a
line in --out; cases that are there are not done again. --cpu ends it after so many CPU seconds.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import fill, lines

import fcos
from fcos.data.open import open_splits
from fcos.evaluation.forecast import fit, scatter
from fcos.training.extrapolate import outlook


def measured(arguments: argparse.Namespace, case: int) -> dict[str, Any]:
    """The measured points of one case."""
    splits = open_splits(arguments.data)
    rng = np.random.default_rng(case)
    pool = splits["train"]
    vals = [int(v) for v in arguments.val.split(",")]
    order = rng.permutation(len(pool))
    count, judged = arguments.images, vals[case % len(vals)]
    if "val" in splits:
        val = splits["val"].subset(sorted(rng.permutation(len(splits["val"]))[:judged].tolist()))
    else:
        val = pool.subset(sorted(order[-judged:].tolist()))
    steps, size = arguments.steps, arguments.size
    per_epoch = max(1, count // 4)
    settings = ["train.plots=false", "train.val_loss=false", "data.workers=0", "train.batch=4", "train.eval_every=0",
                f"data.size={size}", f"data.max_size={size * 5 // 3}", f"data.train_sizes=[{size}]"]  # fmt: skip

    def learn(images: int, run: int, *more: str) -> tuple[float, float, list[list[float]]]:
        train = pool.subset(sorted(order[:images].tolist()))
        told = [*settings, f"train.iterations={run}", f"train.warmup={max(5, run // 10)}",
                f"train.ema={max(0.9, 1 - 3 / run):.4f}", f"train.seed={case}", *more]  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            result = fcos.train({"train": train, "val": val}, out=Path(folder) / "run", settings=told, quiet=True)
            rows = (Path(folder) / "run" / "metrics.csv").read_text().splitlines()
        head = rows[0].split(",")
        own = [[float(r.split(",")[head.index("step")]), float(r.split(",")[head.index("AP")])]
               for r in rows[1:] if r.split(",")[head.index("AP")]]  # fmt: skip
        assert result.interval is not None
        return own[-1][1], result.interval.error, own

    often = max(1, round(steps / per_epoch / 5))
    whole = learn(count, steps, f"train.eval_every={often}")
    time = [[share, *learn(count, round(share * steps))[:2]] for share in (0.3, 0.55)] + [[1.0, *whole[:2]]]
    number_of = [[n, *learn(n, steps)[:2]] for n in (round(0.3 * count), round(0.55 * count))] + [[count, *whole[:2]]]
    return {
        "judged": judged,
        "objects": int(val.counts().sum()),
        "time": time,
        "images": number_of,
        "own": whole[2],
        "more_time": learn(count, 2 * steps)[0] - whole[0],
        "more_images": learn(2 * count, steps)[0] - whole[0],
    }


def read(path: Path) -> None:
    """How many intervals hold the truth."""
    cases = lines(path)
    print("noise    about        held   median width")
    for name, noise in (("0.01", lambda e: 0.01), ("scatter", scatter)):
        for about in ("time", "images", "own"):
            held, wide = [], []
            for one in cases:
                last = noise(one["time"][-1][2])
                if about == "own":  # as a run of a minute tells it at its end
                    rows = [{"step": str(int(step)), "AP": str(ap)} for step, ap in one["own"]]
                    told = outlook(rows, int(one["own"][-1][0]), 60.0, one["time"][-1][2])
                    if told is not None and name == "scatter":
                        held.append(told.gain.low <= one["more_time"] <= told.gain.high)
                        wide.append(told.gain.high - told.gain.low)
                    continue
                points, truth = one[about], one[f"more_{about}"]
                curve = fit([p[0] for p in points], [p[1] for p in points], [noise(p[2]) for p in points])
                gain = curve.gain(points[-1][0], points[-1][0], last)
                held.append(gain.low <= truth <= gain.high)
                wide.append(gain.high - gain.low)
            if held:
                print(f"{name:8} {about:10} {sum(held):3} of {len(held):3}   {np.median(wide):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--read", type=Path)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--val", default="10,20,40")
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case, which draws its images")
    parser.add_argument("--cpu", type=float, default=1e9)
    arguments = parser.parse_args()
    if arguments.read is not None:
        read(arguments.read)
        return
    cases = [{"case": arguments.first + number} for number in range(arguments.cases)]
    fill(arguments.out, cases, partial(measured, arguments), arguments.cpu)


if __name__ == "__main__":
    main()
