"""`fcos eval` beside `fcos predict` on the same images, as whole commands that take turns: seconds by two clocks.

    python benchmarks/eval_rate.py DATA [--model fcos-lite0] [--ways torch:fp32,auto:fp32,auto:auto] [--rounds 1]
        [--images 0] [--short]

A way is RUNTIME:DTYPE, the same for both. Both keep every detection; predict writes them, eval judges them, and with
--out, the third row, writes them too and draws its plots. `auto` is the graph that is kept beside the weights, which a
call before makes, and auto:auto what `fcos predict` does without options from its second run on. The ratios are
predict's time by the other's, of the clock and of the processor: 1 is the same rate. --images: so many of them, spread
over the data set; 0 for all.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from common import options, parser, print_heading

from fcos.data.open import open_judged
from fcos.data.write import convert


def spent(words: list[str]) -> tuple[float, float]:
    """(seconds of the clock, of the processor) of a command; it must not fail."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "fcos", *words], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"fcos {' '.join(words)}: {done.stderr}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    made = parser(__doc__, rounds=1)
    made.add_argument("data")
    made.add_argument("--model", default="fcos-lite0")
    made.add_argument("--ways", default="torch:fp32,auto:fp32,auto:auto")
    made.add_argument("--images", type=int, default=0)
    chosen = options(made)
    dataset = open_judged(chosen.data, None)
    count = 4 if chosen.short else chosen.images or len(dataset)
    dataset = dataset.subset(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int).tolist())
    print_heading()
    print(f"{len(dataset)} images of {dataset.root.name}, {chosen.model}, {chosen.threads} threads")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        convert({"test": dataset}, data, "coco", link=True)
        for way in chosen.ways.split(","):
            runtime, dtype = way.split(":")
            same = ["--model", chosen.model, "--runtime", runtime, "--dtype", dtype, "--threads", str(chosen.threads)]
            judge = ["eval", str(data), *same, "--json"]
            rows = {
                "predict": ["predict", str(data), *same, "--score", "0", "--coco", f"{folder}/results.json"],
                "eval": judge,
                "eval --out": [*judge, "--out", f"{folder}/judged"],
            }
            if runtime == "auto":
                spent(rows["predict"])  # which makes the graph
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
            for _ in range(chosen.rounds):
                for name, words in rows.items():
                    times[name].append(spent(words))
            base = [median(column) for column in zip(*times["predict"], strict=True)]
            for name, taken in times.items():
                clock, cpu = (median(column) for column in zip(*taken, strict=True))
                told = f"{clock:6.1f} s, {cpu:6.1f} s of the processor"
                print(f"{way:<10} {name:<11} {told}; predict's by its: {base[0] / clock:.2f}, {base[1] / cpu:.2f}")


if __name__ == "__main__":
    main()
