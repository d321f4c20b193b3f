"""The parts of a job that are not done yet, one after the other in this process or by Ray's workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..errors import FcosError, require
from ..inference.stream import pick_lanes
from ..system.progress import Bar
from .detector import BatchDetector, Work
from .engine import Engine, do_parts
from .job import Job, Order, open_job
from .rows import Count

_TOGETHER = 1000  # images of a stream: between two streams nothing is read ahead


class Outcome(NamedTuple):
    """What a job came to: everything in it, and how much of that was done now, in how many seconds."""

    whole: Count
    now: Count
    seconds: float


def detect_all(order: Order, work: Work, engine: Engine, tell: Callable[[str], None], quiet: bool = False) -> Outcome:
    """Detect in all images of an order and write them as parts; what is done already stays. `tell` gets a line for
    each of the first images that could not be read. FcosError as `open_job`, and where the engine fails."""
    engine.check(work.device)
    if order.form == "parquet":
        require("pyarrow.parquet", "parquet")
    runner: Callable[[Job, np.ndarray, Work, Engine], Iterator[Count]] = _local
    if engine.name == "ray":
        from .on_ray import run_on_ray, workers

        runner = run_on_ray
        with_workers = replace(order, workers=workers(engine))
    else:
        with_workers = order
    job = open_job(with_workers, work)
    done = job.done()
    earlier, now = job.count(np.flatnonzero(done).tolist()), Count()
    began = time.perf_counter()
    with Bar("detecting", job.images, "images", done=earlier.images, quiet=quiet) as bar:
        missing = np.flatnonzero(~done)
        for part in runner(job, missing, work, engine) if len(missing) else iter(()):
            told = len(now.errors)
            now = now.plus(part)
            for line in now.errors[told:]:
                tell(line)
            bar.advance(part.images)
    seconds = time.perf_counter() - began
    total = earlier.plus(now)
    if total.images != job.images:
        raise FcosError(f"{order.folder}: {total.images} of {job.images} images are there; go on with --resume")
    return Outcome(total, now, seconds)


def _local(job: Job, missing: np.ndarray, work: Work, engine: Engine) -> Iterator[Count]:
    threads = engine.threads or engine.cpus or 0
    lanes = pick_lanes(len(missing) * job.size, work.batch, threads)
    device = work.device
    if device == "auto":
        device = "cuda" if engine.gpus else "cpu" if engine.cpus else device
    detector = BatchDetector.of(replace(work, threads=threads, lanes=lanes, device=device))
    starts = job.starts()
    together = max(1, _TOGETHER // job.size)
    for first in range(0, len(missing), together):
        yield from do_parts(detector, job, missing[first : first + together].tolist(), starts)
