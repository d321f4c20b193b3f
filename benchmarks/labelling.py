"""Which images to label first: `fcos labels propose --uncertain` beside a random order.

    python benchmarks/labelling.py shared/data/bccd --out labelling.json --plot docs/images/labelling.png

Of the images of train and val, 10 are labelled at random. A model learns from them; it chooses the next ones, learns
from all, and so on to 20 and 40. The other arm draws the next ones at random. Every model begins from the package's
detector and takes the same number of steps, whatever it learns from; all are judged on the test split. The file keeps
what is done, and a second call goes on with it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import fcos
from fcos.data.dataset import Dataset, merge
from fcos.data.open import open_splits
from fcos.inference.detector import Detector
from fcos.labels.proposing import looks_at, select
from fcos.system.files import write_whole

SIZES = (10, 20, 40)


def learn(data: Dataset, seed: int, steps: int) -> Detector:
    """A model after `steps` steps, whatever the number of images."""
    records = tuple(replace(r, id=k) for k, r in enumerate(data.records, 1))
    settings = {
        "train.iterations": steps,
        "train.batch": 4,
        "train.seed": seed,
        "train.plots": False,
        "train.eval_every": 0,
        "train.save_every": 10**6,
        "data.size": 224,
        "data.max_size": 300,
        "data.train_sizes": [192, 224],
        "data.workers": 0,
    }
    folder = Path(tempfile.mkdtemp(prefix="fcos-labelling-"))
    try:
        whole = {"train": replace(data, records=records, split="train")}
        return fcos.train(whole, out=folder / "run", holdout=0, quiet=True, settings=settings).detector
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure(args: argparse.Namespace) -> list[dict[str, float | str]]:
    """A row for each model: seed, arm, images, AP, AP50."""
    splits = open_splits(args.data)
    pool, test = merge([splits["train"], splits["val"]]), splits["test"]
    out = Path(args.out)
    state = json.loads(out.read_text()) if out.exists() else {"rows": [], "next": {}}

    def run(chosen: list[int], seed: int, arm: str) -> Detector | None:
        """Learn from `chosen` and keep the numbers; None where that is done."""
        if any((r["seed"], r["arm"], r["images"]) == (seed, arm, len(chosen)) for r in state["rows"]):
            return None
        detector = learn(pool.subset(chosen), seed, args.steps)
        metrics = fcos.evaluate(detector, test)
        row = {"seed": seed, "arm": arm, "images": len(chosen), "AP": metrics.ap, "AP50": metrics.ap50}
        state["rows"].append(row | {"boxes": sum(len(pool.records[i].boxes) for i in chosen)})
        print(row, flush=True)
        return detector

    for seed in range(args.seeds):
        order = np.random.default_rng(seed).permutation(len(pool)).tolist()
        chosen = order[: SIZES[0]]
        for size, more in zip(SIZES, [*SIZES[1:], 0], strict=True):
            detector = run(chosen, seed, "first" if size == SIZES[0] else "uncertain")
            if more:
                key = f"{seed}/{more}"
                if detector is not None:
                    left = [i for i in range(len(pool)) if i not in set(chosen)]
                    looks, _ = looks_at(detector, [pool.records[i].path for i in left])
                    state["next"][key] = [left[k] for k in select(looks, more - size)]
                chosen = [*chosen, *state["next"][key]]
            write_whole(out, json.dumps(state, indent=1))
        for size in SIZES[1:]:
            run(order[:size], seed, "random")
            write_whole(out, json.dumps(state, indent=1))
    return state["rows"]


def plot(rows: list[dict[str, float | str]], path: str, title: str) -> None:
    """Mean and range over the seeds of both arms against the number of labelled images."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), dpi=130)
    for arm, color in (("uncertain", "#1f6fb2"), ("random", "#888888")):
        values = [[r["AP"] for r in rows if r["images"] == n and r["arm"] in (arm, "first")] for n in SIZES]
        axes.plot(SIZES, [np.mean(v) for v in values], marker="o", color=color, label=arm)
        axes.fill_between(SIZES, [min(v) for v in values], [max(v) for v in values], color=color, alpha=0.15, lw=0)
    axes.set(xlabel="labelled images", ylabel="AP on test", xscale="log", xticks=SIZES, title=title)
    axes.set_xticks(SIZES, [str(n) for n in SIZES])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--out", default="labelling.json")
    parser.add_argument("--plot")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()
    rows = measure(args)
    for n in SIZES:
        for arm in ("first", "uncertain", "random"):
            values = [float(r["AP"]) for r in rows if r["images"] == n and r["arm"] == arm]
            if values:
                print(n, arm, f"AP {np.mean(values):.3f}", " ".join(f"{v:.3f}" for v in values))
    if args.plot:
        plot(rows, args.plot, f"{Path(args.data).name}, {args.steps} steps each, {args.seeds} seeds")


if __name__ == "__main__":
    main()
