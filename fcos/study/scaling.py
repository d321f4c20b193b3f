"""The time of a training run on more GPUs, estimated from one measured step. Nothing is run.

Every process sees as many images a step as in the measurement (weak scaling). What is added is the sum of the gradients
over a ring: each of N processes sends 2 (N - 1) / N of their bytes (Patarasuk and Yuan, "Bandwidth optimal all-reduce
algorithms for clusters of workstations", 2009), which torch's DistributedDataParallel does beside the backward pass,
but for the last bucket.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..data.open import split_names
from ..errors import DataError, FcosError
from ..network import weights
from ..system.environment import RUN_FILE
from ..system.readers import read_json
from ..system.terminal import json_ready, table
from ..training.output.folder import RunFolder
from ..zoo.describe import read_settings
from ..zoo.models import known_models
from .asked import Asked, Judged

BUCKET = 25 * 2**20  # bytes that DistributedDataParallel sends at a time
BACKWARD = 2 / 3  # share of a step: the backward pass costs twice the forward one
HOP = 10e-6  # seconds that each of the 2 (N - 1) messages waits
COUNTS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Cluster:
    """step: seconds of a step of one GPU, without waiting for data. images: of one GPU in a step. gradients: bytes.
    machine: GPUs of one. network, inside: Gbit/s of a machine's network, and between the GPUs of one. loading: images
    a second that one machine's processes decode; None: no limit. total: images of the whole run, 0: not known."""

    step: float
    images: int
    gradients: int
    machine: int = 8
    network: float = 100.0
    inside: float = 2400.0
    loading: float | None = None
    total: int = 0


@dataclass(frozen=True)
class Row:
    """One number of GPUs: seconds a step, of them `shown` of the all-reduce that nothing hides (it takes `reduce` in
    all), and `waiting` for data; images a second; the share of N times one GPU; hours of the run."""

    gpus: int
    step: float
    reduce: float
    shown: float
    waiting: float
    rate: float
    efficiency: float
    hours: float | None


@dataclass(frozen=True)
class ScalingStudy:
    """Estimates for each number of GPUs, and what they rest on."""

    cluster: Cluster
    source: str
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        told: dict[str, Any] = json_ready({**asdict(self), "assumptions": self.assumptions()})
        return told

    def assumptions(self) -> list[str]:
        """What the estimate takes for granted, a line each."""
        c = self.cluster
        return [
            f"one GPU takes {c.step:.4g} s for a step of {c.images} images ({self.source}); each of N the same",
            f"gradients are {c.gradients / 1e6:.1f} MB in float32, summed over a ring: each GPU sends 2 (N - 1) / N of "
            f"them, and each of its 2 (N - 1) messages waits {HOP * 1e6:.0f} microseconds",
            f"{c.machine} GPUs a machine, {c.inside:g} Gbit/s between them; beyond one machine all of the ring goes at "
            f"the {c.network:g} Gbit/s of a machine's network, each way, with nothing else on it",
            f"the sum hides behind the backward pass, {BACKWARD:.0%} of a step, but for its last {BUCKET >> 20} MB",
            "data comes in time"
            if c.loading is None
            else f"the processes of a machine decode {c.loading:g} images a second, whatever the number of its GPUs",
            "no time for evaluation, checkpoints, slow machines or waiting for the slowest; the learning rate is yours "
            "to scale with the batch",
        ]

    def text(self) -> str:
        """For a terminal."""
        head = ("GPUs", "batch", "s/step", "all-reduce", "not hidden", "data wait", "images/s", "efficiency", "hours")
        rows = [
            (
                r.gpus,
                r.gpus * self.cluster.images,
                f"{r.step:.4g}",
                f"{r.reduce:.3g}",
                f"{r.shown:.3g}",
                f"{r.waiting:.3g}",
                f"{r.rate:,.1f}",
                f"{r.efficiency:.0%}",
                "-" if r.hours is None else f"{r.hours:.2f}",
            )
            for r in self.rows
        ]
        return "\n".join(
            [table(head, rows), "", "an estimate, not a measurement:", *(f"- {a}" for a in self.assumptions())]
        )


def scaling_study(cluster: Cluster, source: str = "as given") -> ScalingStudy:
    """The estimate for 1 to 64 GPUs; `source` says where the time of the step comes from."""
    return ScalingStudy(cluster, source, tuple(estimate(cluster, gpus) for gpus in COUNTS))


def estimate(cluster: Cluster, gpus: int) -> Row:
    """One number of GPUs."""
    c = cluster
    speed = (c.inside if gpus <= c.machine else min(c.inside, c.network)) * 1e9 / 8
    reduce = 0.0 if gpus == 1 else 2 * (gpus - 1) * (c.gradients / gpus / speed + HOP)
    last = reduce * min(1.0, BUCKET / c.gradients)
    shown = max(last, reduce - BACKWARD * c.step)
    computed = c.step + shown
    loaded = 0.0 if c.loading is None else c.images * min(gpus, c.machine) / c.loading
    step = max(computed, loaded)
    rate = gpus * c.images / step
    hours = c.total / rate / 3600 if c.total else None
    return Row(gpus, step, reduce, shown, step - computed, rate, c.step / step, hours)


def measured_step(run: Path, batch: int) -> float:
    """Seconds that a step of `batch` images takes without waiting for data: the median over the rows of a run's
    metrics.csv, without the first of them. DataError where it has none."""
    file = run / "metrics.csv"
    seconds = []
    for row in RunFolder(run, write=False).rows():
        rate, waited = float(row.get("images_per_second") or 0), float(row.get("data_wait") or 0)
        if rate > 0:
            seconds.append(batch / rate - waited)
    kept = sorted(seconds[1:] or seconds)
    if not kept or kept[len(kept) // 2] <= 0:
        raise DataError(f"{file} has no step with its time; give it with --step SECONDS")
    return kept[len(kept) // 2]


def processes_of(run: Path) -> int | None:
    """How many processes a run had, each on a GPU of its own; None where its folder does not tell."""
    file = run / RUN_FILE
    stored = read_json(file) if file.is_file() else None
    count = stored.get("processes") if isinstance(stored, dict) else None
    return count if isinstance(count, int) and count > 0 else None


def run(asked: Asked) -> Judged:
    """The study as it is asked for."""
    given, model = dict(asked.own), asked.named()
    dataset = None
    if asked.data is not None:
        dataset = asked.dataset("train" if "train" in split_names(asked.source()) else None)
    bad = [key for key, value in given.items() if value is not None and not 1e-6 <= value <= 1e6]
    if bad:
        option = "gpus-per-machine" if bad[0] == "machine" else bad[0]
        raise FcosError(f"--{option} {given[bad[0]]}: give a number from 0.000001 to 1,000,000")
    config = asked.config()
    bare = model in known_models() and known_models()[model].path() is None
    classes = len(dataset.classes) if dataset is not None else 80 if bare else len(read_settings(model)[1])
    if not config.train.batch:
        raise FcosError("the images of a step are not known; give them with --set train.batch=16")
    source, gpus = "as given", 1
    if Path(model).is_dir():
        known = processes_of(Path(model))
        gpus = known or 1
        source += "" if known else "; the run does not tell how many GPUs it had: taken for one"
    if given["step"] is None:
        if not Path(model).is_dir():
            raise FcosError(f"{model} is no run, so the time of a step is not known; give it with --step SECONDS")
        given |= {"step": measured_step(Path(model), config.train.batch)}
        source = source.replace("as given", f"median of {Path(model) / 'metrics.csv'}, waiting for data left out")
    network = weights.build(config, classes)
    size = sum(p.numel() * p.element_size() for p in network.parameters() if p.requires_grad)
    images = config.train.iterations * config.train.batch
    if not images and dataset is not None:
        images = config.train.epochs * len(dataset)
    each = max(1, config.train.batch // gpus)  # train.batch is of all processes together
    return dataset, scaling_study(Cluster(images=each, gradients=size, total=images, **given), source)
