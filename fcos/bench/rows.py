"""How fast a detector is, from a JPEG file to boxes, and how far from what the machine can do.

Everything is measured in one process: all ways take turns, round by round, and medians are compared, so that
ratios mean something on a machine that is busy with other things.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import torch

from ..errors import FcosError
from ..system.files import scratch
from ..system.machine import pick_device
from ..system.terminal import plural
from ..system.threads import check_threads, torch_threads
from .timing import alternate, heading, products
from .ways import Conditions, Loader, Setup, Way, torchvision_detector, way_of_torchvision

TORCHVISION = "torchvision"


@dataclass(frozen=True)
class Row:
    """One way to run one model at one size. `milliseconds`: the whole way of a batch, from the bytes of a JPEG
    to boxes; `network`: the network's part of it. `gflop`: of one image, 2 per multiply-add. `share`: of the
    peak of this dtype, reached by the network, 0..1. `lanes`: images detected at once, in which case
    `milliseconds` is the time from one result to the next. `megabytes`: what loading and the first image added
    to the process. `ratio`: how many times as fast as the baseline of the same size and batch, None where
    that has no row."""

    model: str
    runtime: str
    dtype: str
    size: str
    batch: int
    lanes: int
    milliseconds: float
    network: float | None
    images_per_second: float
    gflop: float | None
    share: float | None
    megabytes: float | None
    ratio: float | None


_COLUMNS = (  # of the table: title, field of the row, format
    ("model", "model", ""),
    ("runtime", "runtime", ""),
    ("dtype", "dtype", ""),
    ("size", "size", ""),
    ("batch", "batch", ""),
    ("lanes", "lanes", ""),
    ("ms", "milliseconds", ".1f"),
    ("network ms", "network", ".1f"),
    ("images/s", "images_per_second", ".2f"),
    ("GFLOP", "gflop", ".1f"),
    ("of peak", "share", ".0%"),
    ("MB", "megabytes", ".0f"),
    ("ratio", "ratio", ".2f"),
)


@dataclass(frozen=True)
class Report:
    """Rows, the peak in GFLOP/s by dtype (a matrix product or a 3x3 convolution, its best round), what was left out
    and why, and where it was run."""

    rows: tuple[Row, ...]
    peaks: dict[str, float]
    baseline: str
    notes: tuple[str, ...]
    rounds: int
    threads: int
    machine: str
    versions: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """An aligned table for a terminal."""
        lines_of_cells = [
            [title for title, _, _ in _COLUMNS],
            *([_shown(getattr(row, field), form) for _, field, form in _COLUMNS] for row in self.rows),
        ]
        wide = [max(map(len, column)) for column in zip(*lines_of_cells, strict=True)]
        lines = [
            "  ".join(f"{v:<{w}}" if i < 4 else f"{v:>{w}}" for i, (v, w) in enumerate(zip(line, wide, strict=True)))
            for line in lines_of_cells
        ]
        peaks = ", ".join(f"{name} {value:.0f}" for name, value in self.peaks.items())
        return "\n".join(
            [
                *(line.rstrip() for line in lines),
                "",
                f"ratio: times as fast as {self.baseline}, same size and batch; medians of "
                f"{plural(self.rounds, 'alternating round')}",
                f"peak, the best of a matrix product and a 3x3 convolution here, in GFLOP/s: {peaks}",
                *self.notes,
                self.machine,
                self.versions,
            ]
        )


@dataclass(frozen=True)
class Ways:
    """What `bench` combines, each with each. No runtimes or dtypes: an exported file's own, torch and fp32 for others;
    no sizes: the model's own."""

    models: Sequence[str] = ()
    runtimes: Sequence[str] = ()
    dtypes: Sequence[str] = ()
    sizes: Sequence[str] = ()
    batches: Sequence[int] = (1,)
    lanes: Sequence[int] = (1,)


def bench(
    ways: Ways,
    conditions: Conditions | None = None,
    *,
    against: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Time every combination; what is not installed or not possible becomes a note.

    A preset without weights gets random ones. `against="torchvision"` puts torchvision's
    fcos_resnet50_fpn in front as the baseline, with random weights, and the same weights converted beside it; otherwise
    the first row of each size and batch is the baseline. Raises FcosError when nothing can be run.
    """
    if against not in (None, TORCHVISION):
        raise FcosError(f"--against {against}: there is only {TORCHVISION}")
    conditions = conditions or Conditions()
    check_threads(conditions.threads)
    models = ways.models or (() if against else ("fcos-lite0",))
    made: list[Way] = []
    with scratch("bench-") as folder, torch_threads(conditions.threads):
        loader = Loader(conditions, folder)
        sources = [(name, loader.source(name)) for name in models]
        for size in ways.sizes or (None,):
            if against:
                theirs, file = torchvision_detector(size or "640", folder)
                made += [way_of_torchvision(theirs, size or "640", batch, conditions.device) for batch in ways.batches]
                sources_here = [("the same, converted", file), *sources]
            else:
                sources_here = sources
            for name, path in sources_here:
                for runtime, dtype, lanes in product(ways.runtimes or (None,), ways.dtypes or (None,), ways.lanes):
                    way = ", ".join(filter(None, (runtime, dtype, f"{lanes} lanes" if lanes > 1 else "")))
                    say(f"loading {name}{way and f', {way}'}")
                    made += loader.ways(name, path, Setup(runtime, dtype, size, lanes), ways.batches)
        if not made:
            raise FcosError("nothing to measure: " + "; ".join(loader.notes))
        say(f"ways: {len(made)}, rounds: {conditions.rounds}")
        return _measure(made, conditions, against, loader.notes)


def _measure(ways: Sequence[Way], conditions: Conditions, against: str | None, notes: list[str]) -> Report:
    turns: dict[Any, Callable[[], Any]] = {}
    work: dict[tuple[str, int], float] = {}
    where = pick_device(conditions.device)
    for dtype in dict.fromkeys(way.dtype for way in ways):
        made = products(dtype, where)
        if not made:
            notes.append(f"no fast matrix product in {dtype} here, so no share of the peak")
        for number, (turn, gflop) in enumerate(made):
            turns["peak", dtype, number], work[dtype, number] = turn, gflop
    for i, way in enumerate(ways):
        turns["whole", i] = way.whole
        if way.network is not None:
            turns["network", i] = way.network
    with torch.inference_mode():
        seconds = alternate(turns, conditions.rounds)
    times = {name: statistics.median(values) for name, values in seconds.items()}
    peaks: dict[str, float] = {}  # the best that any round reached: a peak is no median
    for (dtype, number), gflop in work.items():
        peaks[dtype] = max(peaks.get(dtype, 0.0), gflop / min(seconds["peak", dtype, number]))
    first: dict[tuple[str, int], float] = {}
    rows = []
    for i, way in enumerate(ways):
        whole, network = times["whole", i] / way.calls, times.get(("network", i))
        if not against or way.baseline:
            first.setdefault((way.size, way.batch), whole)
        base = first.get((way.size, way.batch))
        share = None
        if way.gflop is not None and way.dtype in peaks:
            share = way.gflop * way.batch / (network or whole) / peaks[way.dtype]
        rows.append(
            Row(
                **{name: getattr(way, name) for name in ("model", "runtime", "dtype", "size", "batch", "lanes")},
                milliseconds=1e3 * whole,
                network=1e3 * network if network else None,
                images_per_second=way.batch / whole,
                gflop=way.gflop,
                share=share,
                megabytes=way.megabytes,
                ratio=None if base is None else base / whole,
            )
        )
    machine, versions = heading()
    baseline = "torchvision's fcos_resnet50_fpn, eager fp32" if against else "the first row"
    threads = torch.get_num_threads()
    return Report(tuple(rows), peaks, baseline, tuple(notes), conditions.rounds, threads, machine, versions)


def _shown(value: str | float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
