"""What the benchmarks share: the options that all have, and the lines that say where figures come from."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from scipy.stats import t

import fcos
from fcos.bench.timing import heading
from fcos.data.dataset import Dataset
from fcos.data.open import open_splits


def parser(doc: str | None, rounds: int, threads: int = 2) -> argparse.ArgumentParser:
    """--rounds, --threads and --short, under the script's own description."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds, help=f"alternating rounds ({rounds})")
    made.add_argument("--threads", type=int, default=threads, help=f"CPU threads ({threads})")
    made.add_argument("--short", action="store_true", help="small inputs and one round: shows only that it runs")
    return made


def options(made: argparse.ArgumentParser) -> argparse.Namespace:
    """The options, with --short and --threads put into effect."""
    chosen = made.parse_args()
    chosen.rounds = 1 if chosen.short else chosen.rounds
    torch.set_num_threads(chosen.threads)
    return chosen


def print_heading() -> None:
    """Machine, versions, commit and date."""
    print("\n".join(heading()) + f"; torchvision {torchvision.__version__}")


def cpu() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def lines(path: Path) -> list[dict[str, Any]]:
    """What stands in a file of JSON lines; nothing where there is no such file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def fill(path: Path, cases: Iterable[dict[str, Any]], run: Callable[..., dict[str, Any]], most: float) -> None:
    """`run(**case)` for each case of which no line in `path` says it, as a new line there; none is begun after `most`
    CPU seconds. What `run` gives stands behind the case."""
    done = lines(path)
    for case in cases:
        if cpu() > most:
            return
        if not any(all(line[key] == value for key, value in case.items()) for line in done):
            line = json.dumps({**case, **run(**case)})
            with path.open("a") as file:
                file.write(line + "\n")


def runs_parser(doc: str | None, steps: int) -> argparse.ArgumentParser:
    """The options of a benchmark that makes many short training runs and keeps a line of each."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("data", nargs="?", type=Path)
    made.add_argument("--out", type=Path)
    made.add_argument("--read", type=Path)
    made.add_argument("--size", type=int, default=160)
    made.add_argument("--steps", type=int, default=steps)
    made.add_argument("--batch", type=int, default=8)
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--images", type=int, default=0)
    made.add_argument("--cpu", type=float, default=1e9)
    return made


def short_settings(arguments: argparse.Namespace, seed: int) -> list[str]:
    """The settings of a run of --steps at --size that only its end judges."""
    size, steps = arguments.size, arguments.steps
    return ["train.plots=false", "train.val_loss=false", "train.eval_every=0", "data.workers=0",
            f"train.batch={arguments.batch}", f"data.size={size}", f"data.max_size={size * 5 // 3}",
            f"data.train_sizes=[{size}]", f"train.iterations={steps}", f"train.warmup={max(5, steps // 10)}",
            f"train.ema={max(0.9, 1 - 3 / steps):.4f}", f"train.seed={seed}"]  # fmt: skip


def short_data(arguments: argparse.Namespace) -> dict[str, Dataset]:
    """What a short run learns from and what judges it, at most --images of each."""
    splits = open_splits(arguments.data)
    train = splits["train"] if "train" in splits else splits["trainval"]
    val = splits["val"] if "val" in splits else splits["test"]
    return {"train": _some(train, arguments.images), "val": _some(val, arguments.images)}


def short_run(
    arguments: argparse.Namespace, seed: int, more: Sequence[str], model: str | None = None, init: str | None = None
) -> dict[str, Any]:
    """AP of one run of --steps at --size with the settings `more`, and the CPU seconds it took."""
    settings = [*short_settings(arguments, seed), *more]
    began = cpu()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        result = fcos.train(short_data(arguments), out=out, model=model, init=init, settings=settings, quiet=True)
    assert result.metrics is not None
    return {"AP": result.metrics.ap, "AP50": result.metrics.ap50, "cpu": round(cpu() - began, 1)}


def compare_runs(arguments: argparse.Namespace, key: str, names: Sequence[str], run: Callable[..., Any]) -> None:
    """`run(arguments, seed, key)` of each of `names` in each seed, and how they differ; with --read only the latter."""
    if arguments.read is None:
        cases = [{"seed": seed, key: name} for seed in range(arguments.seeds) for name in names]
        fill(arguments.out, cases, partial(run, arguments), arguments.cpu)
    show_differences(arguments.read or arguments.out, key)


def show_differences(path: Path, key: str) -> None:
    """A line for each `key` of the runs in a file of JSON lines, and its difference from the first one's, with a 95 %
    interval over the seeds."""
    by = {(row[key], row["seed"]): row for row in lines(path)}
    names = list(dict.fromkeys(name for name, _ in by))
    wide = max((len(name) for name in names), default=0)
    print(f"{key:<{wide}}  AP of each seed            AP50                       difference of AP from {names[0]}'s")
    for name in names:
        mine = {seed: row for (other, seed), row in by.items() if other == name}
        shown = (", ".join(f"{row[what]:.3f}" for row in mine.values()) for what in ("AP", "AP50"))
        gaps = [row["AP"] - by[names[0], seed]["AP"] for seed, row in mine.items() if (names[0], seed) in by]
        told = ""
        if name != names[0] and len(gaps) > 1:
            half = t.ppf(0.975, len(gaps) - 1) * statistics.stdev(gaps) / len(gaps) ** 0.5
            told = f"{statistics.mean(gaps):+.4f} +- {half:.4f} ({len(gaps)} seeds)"
        print(f"{name:<{wide}}  " + "  ".join(f"{text:<25}" for text in shown) + f"  {told}")


def _some(dataset: Dataset, most: int) -> Dataset:
    """At most so many images, the same ones each time."""
    if not most or len(dataset) <= most:
        return dataset
    return dataset.subset(sorted(np.random.default_rng(0).permutation(len(dataset))[:most].tolist()))
