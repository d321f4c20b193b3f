"""What lighter heads cost in AP: equal steps from equal seeds, the body of a detector in the package and new heads.

    python benchmarks/heads.py DATA --out heads.jsonl [--model fcos-lite0] [--heads paper,shared,rt] [--seeds 3]
        [--size 160] [--steps 200] [--batch 8] [--images 0] [--cpu 1e9]
    python benchmarks/heads.py --read heads.jsonl

`paper`: towers of 4 + 4 convolutions with GroupNorm. `shared`: 4 convolutions that both branches share, with BatchNorm.
`rt`: the same over an FPN of depthwise convolutions. All towers are of plain convolutions, as R-50's are. Each begins
with the body alone: FPN and head are new. The runs of a seed see the same images in the same order. Each run is a line
in --out; runs that are there are not done again, and none is begun after --cpu seconds of the processor. --images: how
many to learn from and how many to judge by at most, 0 for all. Speed is benchmarks/r50.py's.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from common import cpu, fill, lines
from precision import some
from scipy.stats import t

import fcos
from fcos.data.open import open_splits
from fcos.network import weights
from fcos.zoo.find import find_weights

SHARED = ("model.head_shared_convs=4", "model.head_convs=0", "model.head_norm=batch")
HEADS = {
    "paper": ("model.head_convs=4", "model.head_norm=group"),
    "shared": SHARED,
    "rt": (*SHARED, "model.fpn_depthwise=true"),
}


def body_of(model: str, folder: Path) -> Path:
    """A file with the backbone's weights alone."""
    state, config, classes, _ = weights.read(find_weights(model))
    body = {name: value for name, value in state.items() if name.startswith("backbone.")}
    return weights.save(folder / "body.safetensors", body, config, classes)


def learn(arguments: argparse.Namespace, seed: int, head: str) -> dict[str, Any]:
    """AP of one run, and the CPU seconds it took."""
    splits = open_splits(arguments.data)
    train = splits["train"] if "train" in splits else splits["trainval"]
    val = splits["val"] if "val" in splits else splits["test"]
    size, steps = arguments.size, arguments.steps
    settings = ["train.plots=false", "train.val_loss=false", "train.eval_every=0", "data.workers=0",
                f"train.batch={arguments.batch}", f"data.size={size}", f"data.max_size={size * 5 // 3}",
                f"data.train_sizes=[{size}]", f"train.iterations={steps}", f"train.warmup={max(5, steps // 10)}",
                f"train.ema={max(0.9, 1 - 3 / steps):.4f}", f"train.seed={seed}", "model.head_depthwise=false",
                *HEADS[head]]  # fmt: skip
    data = {"train": some(train, arguments.images), "val": some(val, arguments.images)}
    began = cpu()
    with tempfile.TemporaryDirectory() as folder:
        init = body_of(arguments.model, Path(folder))
        result = fcos.train(
            data, out=Path(folder) / "run", model=arguments.model, init=init, settings=settings, quiet=True
        )
    assert result.metrics is not None
    ap, ap50 = result.metrics.ap, result.metrics.ap50
    return {"steps": steps, "size": size, "AP": ap, "AP50": ap50, "cpu": round(cpu() - began, 1)}


def read(path: Path) -> None:
    """A line for each head, and its difference from the paper's with a 95 % interval over the seeds."""
    by = {(row["head"], row["seed"]): row for row in lines(path)}
    print("head      AP of each seed            AP50                       difference of AP from the paper's")
    for head in dict.fromkeys(name for name, _ in by):
        mine = {seed: row for (name, seed), row in by.items() if name == head}
        shown = (", ".join(f"{row[key]:.3f}" for row in mine.values()) for key in ("AP", "AP50"))
        gaps = [row["AP"] - by["paper", seed]["AP"] for seed, row in mine.items() if ("paper", seed) in by]
        told = ""
        if head != "paper" and len(gaps) > 1:
            half = t.ppf(0.975, len(gaps) - 1) * statistics.stdev(gaps) / len(gaps) ** 0.5
            told = f"{statistics.mean(gaps):+.4f} +- {half:.4f} ({len(gaps)} seeds)"
        print(f"{head:<8}  " + "  ".join(f"{text:<25}" for text in shown) + f"  {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--read", type=Path)
    parser.add_argument("--model", default="fcos-lite0")
    parser.add_argument("--heads", default="paper,shared,rt")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--cpu", type=float, default=1e9)
    arguments = parser.parse_args()
    if arguments.read is not None:
        read(arguments.read)
        return
    cases = [{"seed": seed, "head": head} for seed in range(arguments.seeds) for head in arguments.heads.split(",")]
    fill(arguments.out, cases, partial(learn, arguments), arguments.cpu)
    read(arguments.out)


if __name__ == "__main__":
    main()
