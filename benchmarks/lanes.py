"""A step of training on all cores together, and in lanes, side by side: what `train.lanes=auto` rests on.

    python benchmarks/lanes.py DATA [--models fcos-lite0,fcos-lite2,fcos-r50] [--lanes 1,2] [--batch 4] [--size 0]
        [--rounds 8] [--threads 2]

The presets on the images of DATA (`train` split), at their own sizes or --size, in the precision that `auto` picks.
"""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median

from common import options, parser, print_heading

from fcos.bench.timing import alternate
from fcos.data.open import open_splits
from fcos.presets import resolve
from fcos.training.planning.sample import sample_run


def main() -> None:
    made = parser(__doc__, rounds=8)
    made.add_argument("data")
    made.add_argument("--models", default="fcos-lite0,fcos-lite2,fcos-r50")
    made.add_argument("--lanes", default="1,2")
    made.add_argument("--batch", type=int, default=4)
    made.add_argument("--size", type=int, default=0, help="the shorter side; 0: the preset's sizes")
    chosen = options(made)
    counts = [int(n) for n in chosen.lanes.split(",")]
    data = {"train": open_splits(chosen.data)["train"]}
    print_heading()
    print(f"{'model':<12}" + "".join(f"{f'lanes {n}, ms':>14}" for n in counts) + f"{'gain':>8}")
    for name in chosen.models.split(","):
        with ExitStack() as stack:
            steps = {}
            for count in counts:
                settings = [f"train.batch={chosen.batch}", f"train.lanes={count}", "model.backbone_weights=none"]
                size = 64 if chosen.short else chosen.size
                sizes = [f"data.size={size}", f"data.max_size={size * 5 // 3}", f"data.train_sizes=[{size}]"]
                settings += sizes if size else []
                config = resolve(name, overrides=settings)
                steps[count] = stack.enter_context(sample_run(config, data, "none", "cpu"))[1]
            ms = [1e3 * median(times) for times in alternate(steps, chosen.rounds).values()]
        print(f"{name:<12}" + "".join(f"{value:>14.0f}" for value in ms) + f"{ms[0] / ms[-1]:>8.2f}")


if __name__ == "__main__":
    main()
