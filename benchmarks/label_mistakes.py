"""How many of the first suspects of `fcos labels check` are wrong, with known errors put in beforehand.

    python benchmarks/label_mistakes.py shared/data/voc2007 --split test --model fcos-lite2

For each seed 5 % of the boxes are spoiled in each of the five ways; the spoiled set is checked, which injects errors
of its own on top. Printed is the precision among the first N of each kind, N being the number spoiled. Real mistakes of
the set count as right boxes. The model must not have learned from these images.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fcos.analysis.common import label_mapping
from fcos.data.images.reading import read_image
from fcos.inference.load import load
from fcos.labels.checking import Scores, error_of, open_all
from fcos.labels.evidence import gather
from fcos.labels.inject import KINDS, MISSING, Spoiled, spoil
from fcos.labels.suspicion import Suspect


def precision(items: Sequence[tuple[int, Suspect]], copies: Sequence[Spoiled], kind: str) -> tuple[float, int]:
    """(share of the first N that are spoiled boxes of this kind, each counted once; N)."""
    number = sum(len(c.lost) if kind == MISSING else c.kinds.count(kind) for c in copies)
    hits: set[tuple[int, int]] = set()
    for index, suspect in sorted(items, key=lambda item: -item[1].score)[:number]:
        error = error_of(suspect, copies[index])
        if error is not None:
            hits.add((index, error))
    return len(hits) / max(number, 1), number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("--split", default="test")
    parser.add_argument("--model", default="fcos-lite2")
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seeds", default="77,78,79")
    args = parser.parse_args()
    dataset, _ = open_all(args.data, args.split)
    detector = load(args.model, runtime="auto", dtype="fp32")
    mapping = label_mapping(detector.classes, dataset.classes)
    seen = [gather(detector, read_image(str(r.path)), mapping, len(dataset.classes)) for r in dataset.records]
    rows: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for seed in map(int, args.seeds.split(",")):
        copies = spoil(dataset, args.share, seed)
        scores = Scores(replace(dataset, records=tuple(c.record for c in copies)), seed=5)
        for index, evidence in enumerate(seen):
            scores.add(index, evidence)
        _, learned = scores.ranked()
        for kind, values in learned.items():
            ranked = [(i, replace(s, score=float(v))) for (i, s), v in zip(scores.given[kind], values, strict=True)]
            value, number = precision(ranked, copies, kind)
            rows[kind].append(value)
            print(f"seed {seed} {kind:<10} {value:.3f} of the first {number}", flush=True)
    for kind, found in rows.items():
        if found:
            print(f"{kind:<10} {np.mean(found):.3f}  " + " ".join(f"{v:.2f}" for v in found))


if __name__ == "__main__":
    main()
