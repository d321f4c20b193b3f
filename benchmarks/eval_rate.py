"""`fcos eval` beside `fcos predict` on the same images, as whole commands that take turns: seconds by two clocks.

    python benchmarks/eval_rate.py DATA [--model fcos-lite0] [--ways torch:fp32,auto:fp32,auto:auto] [--rounds 1]
        [--images 0] [--short]

A way is RUNTIME:DTYPE, the same for both. Both keep every detection; predict writes them, eval judges them, and with
--out, the third row, writes them too and draws its plots. `auto` is the graph that is kept beside the weights, which a
call before makes, and auto:auto what `fcos predict` does without options from its second run on. The ratios are
predict's time by the other's, of the clock and of the processor: 1 is the same rate. The last row judges the halves of
the images in two processes at once, with half the threads each; nobody joins what they give. --images: so many of
them, spread over the data set; 0 for all.
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


def spent(*commands: list[str]) -> tuple[float, float]:
    """(seconds of the clock, of the processor) of commands that run at once; none may fail."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryFile("w+") as told:
        started = [
            subprocess.Popen([sys.executable, "-m", "fcos", *words], stdout=subprocess.DEVNULL, stderr=told)
            for words in commands
        ]
        failed = [process.wait() for process in started]
        if any(failed):
            told.seek(0)
            sys.exit(f"{commands}: {told.read()}")
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
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
        halves = [Path(folder) / name for name in ("first", "second")]
        for number, half in enumerate(halves):
            convert({"test": dataset.subset(range(number, len(dataset), 2))}, half, "coco", link=True)
        for way in chosen.ways.split(","):
            runtime, dtype = way.split(":")
            model = ["--model", chosen.model, "--runtime", runtime, "--dtype", dtype]
            same = [*model, "--threads", str(chosen.threads)]
            judge = ["eval", str(data), *same, "--json"]
            each = [*model, "--threads", str(max(1, chosen.threads // 2)), "--json"]
            rows = {
                "predict": [["predict", str(data), *same, "--score", "0", "--coco", f"{folder}/results.json"]],
                "eval": [judge],
                "eval --out": [[*judge, "--out", f"{folder}/judged"]],
                "2 processes": [["eval", str(half), *each] for half in halves],
            }
            if runtime == "auto":
                spent(*rows["predict"])  # which makes the graph
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
            for _ in range(chosen.rounds):
                for name, commands in rows.items():
                    times[name].append(spent(*commands))
            base = [median(column) for column in zip(*times["predict"], strict=True)]
            for name, taken in times.items():
                clock, cpu = (median(column) for column in zip(*taken, strict=True))
                told = f"{clock:6.1f} s, {cpu:6.1f} s of the processor"
                print(f"{way:<10} {name:<11} {told}; predict's by its: {base[0] / clock:.2f}, {base[1] / cpu:.2f}")


if __name__ == "__main__":
    main()
