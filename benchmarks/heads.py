"""What lighter heads cost in AP: equal steps from equal seeds, the backbone of a detector in the package and new heads.

    python benchmarks/heads.py DATA --out heads.jsonl [--model fcos-lite0] [--heads paper,shared,rt,group,batch]
        [--seeds 3] [--size 160] [--steps 200] [--batch 8] [--images 0] [--cpu 1e9]
    python benchmarks/heads.py --read heads.jsonl

`paper`: towers of 4 + 4 convolutions with GroupNorm. `shared`: 4 convolutions that both branches share, with BatchNorm.
`rt`: the same over an FPN of depthwise convolutions. These towers are of plain convolutions, as R-50's are; `group` and
`batch` have the towers of the model itself, with GroupNorm and with BatchNorm. Each begins with the backbone alone: FPN
and head are new. The runs of a seed see the same images in the same order. Each run is a line in --out; runs that are
there are not done again, and none is begun after --cpu seconds of the processor. --images: how many to learn from and
how many to judge by at most, 0 for all. Speed is benchmarks/r50.py's.
"""

from __future__ import annotations

import argparse
from typing import Any

from common import compare_runs, runs_parser, short_run

PLAIN = "model.head_depthwise=false"
SHARED = (PLAIN, "model.head_shared_convs=4", "model.head_convs=0", "model.head_norm=batch")
HEADS = {
    "paper": (PLAIN, "model.head_convs=4", "model.head_norm=group"),
    "shared": SHARED,
    "rt": (*SHARED, "model.fpn_depthwise=true"),
    "group": ("model.head_norm=group",),
    "batch": ("model.head_norm=batch",),
}


def learn(arguments: argparse.Namespace, seed: int, head: str) -> dict[str, Any]:
    row = short_run(arguments, seed, HEADS[head], model=arguments.model, init="backbone")
    return {"steps": arguments.steps, "size": arguments.size, **row}


def main() -> None:
    parser = runs_parser(__doc__, steps=200)
    parser.add_argument("--model", default="fcos-lite0")
    parser.add_argument("--heads", default="paper,shared,rt")
    arguments = parser.parse_args()
    compare_runs(arguments, "head", arguments.heads.split(","), learn)


if __name__ == "__main__":
    main()
