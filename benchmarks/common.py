"""What the benchmarks share: the options that all have, and the lines that say where figures come from."""

from __future__ import annotations

import argparse

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
