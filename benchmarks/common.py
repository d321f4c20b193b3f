"""What the benchmarks share: the options that all have, and the lines that say where figures come from."""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torchvision

from fcos.bench.timing import heading


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
