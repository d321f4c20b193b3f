"""Whether `fcos train --minutes` chooses well: its plan beside a grid made by hand, in equal processor time.

    python benchmarks/grid.py [--data ../shared/data] [--seconds 150] [--sets bccd,digits,small,voc3,coco]
        [--out runs/grid] [--rows plan,lite1,...] [--seeds 1]

"plan" is what the command chooses. Each other row is fcos-lite0, or the model that it names, with one thing changed,
and planned anew around it: the batch, the learning rate, the size. The sets, and how a run is trained and judged, are
those of other_images.py: one thread, seconds of training in processor time. It begins from the detector in the
package, except "voc3", whose images that detector has learned: there it begins from ImageNet weights. Each case is a
line of OUT/grid.jsonl, and is not done again. Rows that give a size learn from whole images, not from tiles.
"""

from __future__ import annotations

import argparse
from typing import Any

from common import lines, print_heading
from other_images import MODEL, Case, cases_options, cases_parser, fill_rows, opened, planned, words
from other_images import run as judged_run

GRID: dict[str, tuple[str | None, dict[str, object]]] = {
    "plan": (None, {}),
    "lite0": (MODEL, {}),
    "lite1": ("fcos-lite1", {}),
    "lite2": ("fcos-lite2", {}),
    "batch 8": (MODEL, {"train.batch": 8}),
    "batch 2": (MODEL, {"train.batch": 2}),
    "lr 0.0005": (MODEL, {"train.lr": 0.0005}),
    "lr 0.002": (MODEL, {"train.lr": 0.002}),
    **{f"size {size}": (MODEL, {"data.size": size}) for size in (256, 320, 384, 416, 512)},
    **{f"lite1 {size}": ("fcos-lite1", {"data.size": size}) for size in (320, 416, 512)},
}


def measured(chosen: argparse.Namespace, set: str, row: str, seed: int, seconds: float) -> dict[str, Any]:
    """A case and what it came to."""
    learned, judged = opened(set, chosen.data, chosen.out, False)
    model, given = GRID[row]
    way, init = ("imagenet", "none") if set.startswith("voc3") else ("starter", None)
    line = judged_run(Case(set, way, seed, seconds), planned(learned, seconds, init, model, given), learned, judged)
    found = {k: v for k, v in line.items() if k not in ("set", "seed", "seconds")}
    print(set, row, found, flush=True)
    return found


def main() -> None:
    made = cases_parser(__doc__, "runs/grid", ("bccd", "digits", "small", "voc3", "coco"))
    made.add_argument("--rows", type=words(tuple(GRID)), default=list(GRID))
    chosen = cases_options(made)
    print_heading()
    file = chosen.out / "grid.jsonl"
    fill_rows(chosen, file, chosen.rows, measured)
    here = [line for line in lines(file) if line["seconds"] == chosen.seconds]
    print("| set | " + " | ".join(chosen.rows) + " | plan / best |")
    for name in chosen.sets:
        by_row = {row: [li["AP"] for li in here if li["set"] == name and li["row"] == row] for row in chosen.rows}
        means = {row: sum(aps) / len(aps) for row, aps in by_row.items() if aps}
        cells = " | ".join(f"{means[row]:.3f}" if row in means else "-" for row in chosen.rows)
        share = f"{means['plan'] / max(means.values()):.3f}" if "plan" in means else "-"
        print(f"| {name} | {cells} | {share} |")


if __name__ == "__main__":
    main()
