"""`fcos eval` beside `fcos predict` on the same images, as whole commands that take turns: seconds by two clocks.

    python benchmarks/eval_rate.py DATA [--model fcos-lite0] [--ways torch,auto] [--rounds 1] [--short]

Both compute in fp32 and the same runtime and keep every detection; predict writes them, eval judges them, and with
--out, the third row, writes them too and draws its plots. `auto` is the graph that is kept beside the weights; a call
before makes it. The ratios are predict's time by the other's, of the clock and of the processor: 1 is the same rate.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from common import options, parser, print_heading

from fcos.data.open import open_judged


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
    made.add_argument("--ways", default="torch,auto")
    chosen = options(made)
    dataset = open_judged(chosen.data, None)
    paths = [str(record.path) for record in dataset.records][: 4 if chosen.short else None]
    print_heading()
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "images"
        listed.mkdir()
        for number, path in enumerate(paths):
            (listed / f"{number:06d}{Path(path).suffix}").symlink_to(Path(path).resolve())
        split = ["--split", dataset.split] if dataset.split else []
        for way in chosen.ways.split(","):
            same = ["--model", chosen.model, "--runtime", way, "--dtype", "fp32", "--threads", str(chosen.threads)]
            judge = ["eval", str(chosen.data), *split, *same, "--json"]
            rows = {
                "predict": ["predict", str(listed), *same, "--score", "0", "--coco", f"{folder}/results.json"],
                "eval": judge,
                "eval --out": [*judge, "--out", f"{folder}/judged"],
            }
            if way != "torch":
                spent(rows["predict"])  # which makes the graph
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
            for _ in range(chosen.rounds):
                for name, words in rows.items():
                    times[name].append(spent(words))
            base = [median(column) for column in zip(*times["predict"], strict=True)]
            for name, taken in times.items():
                clock, cpu = (median(column) for column in zip(*taken, strict=True))
                told = f"{clock:6.1f} s, {cpu:6.1f} s of the processor"
                print(f"{way:<6} {name:<11} {told}; predict's by its: {base[0] / clock:.2f}, {base[1] / cpu:.2f}")


if __name__ == "__main__":
    main()
