"""The parts of a job by Ray Data: rows are numbers of parts, which stand for lines of the job's list of paths; workers
read, detect and write, and report a count. Pixels and boxes never pass through Ray.

Ray Data hands the parts out, starts a worker anew that was killed, and gives its parts to it or to another, which skips
those that are whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..errors import FcosError, one_line
from ..system.remote import is_remote
from .cluster import connected, told
from .detector import BatchDetector, Work
from .engine import Engine, cores, do_parts
from .job import Job
from .rows import Count

_BLOCK = 50  # parts of a block, at most
_IMAGES = 2000  # images of a block, about: a worker tells of its parts when the block is done


def workers(engine: Engine) -> int:
    """About how many workers there will be, before Ray is asked; the size of the parts follows from it."""
    if engine.gpus:
        return engine.gpus
    return max(1, cores(engine) // max(1, engine.threads))


class Worker:
    """What runs in each of Ray's workers: numbers of parts in, their counts out."""

    def __init__(self, job: Job, work: Work) -> None:
        self.job, self.starts, self.detector = job, job.starts(), BatchDetector.of(work)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        counts = list(do_parts(self.detector, self.job, batch["part"].tolist(), self.starts))
        return {
            "images": np.array([c.images for c in counts]),
            "failed": np.array([c.failed for c in counts]),
            "detections": np.array([c.detections for c in counts]),
            "errors": np.array(["\n".join(one_line(e) for e in c.errors) for c in counts], dtype=object),
        }


def run_on_ray(job: Job, missing: np.ndarray, work: Work, engine: Engine) -> Iterator[Count]:
    """The counts of the missing parts, as they are done."""
    import pyarrow as pa

    with connected(engine) as ray:
        import ray.data as data

        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        # Ray keeps room free for two blocks of each worker, of 128 MB if not told
        context.target_max_block_size = 1 << 20
        count, share = _workers(ray, engine)
        count = min(count, len(missing))
        work = replace(work, threads=share.cpus, lanes=1, device="cuda" if engine.gpus else "cpu")
        job = job if is_remote(job.folder) else replace(job, folder=job.folder.absolute())
        # Blocks that are there need no task of Ray to make them, which would wait without end for a core that the
        # workers hold, or, without a core, be a process for each block.
        parts = data.from_arrow([pa.table({"part": group}) for group in blocks(missing, job.size, count)])
        counts = parts.map_batches(
            Worker,
            fn_constructor_args=(job, work),
            batch_size=None,
            batch_format="numpy",
            compute=data.ActorPoolStrategy(size=count),
            num_cpus=share.cpus,
            num_gpus=share.gpus or None,
        )
        try:
            for row in counts.iter_rows():
                errors = tuple(filter(None, row["errors"].split("\n")))
                yield Count(int(row["images"]), int(row["failed"]), int(row["detections"]), errors)
        except Exception as error:
            raise told(error) from error


def blocks(missing: np.ndarray, images: int, workers: int) -> list[np.ndarray]:
    """The numbers of the missing parts [M], of so many `images` each, in blocks, each handed to a worker as one: large
    ones first, since a block costs Ray some time, then smaller and smaller ones, so that all workers end together."""
    made = []
    most = min(_BLOCK, max(1, _IMAGES // images))
    while len(missing):
        size = min(most, max(1, len(missing) // (4 * workers)))
        made.append(missing[:size])
        missing = missing[size:]
    return made


class _Share(NamedTuple):
    """What a worker holds."""

    cpus: int
    gpus: int = 0


def _workers(ray: Any, engine: Engine) -> tuple[int, _Share]:
    """How many workers, and what each of them holds; FcosError where the cluster has less."""
    there = ray.cluster_resources()
    share = max(1, engine.threads)
    if engine.gpus:
        if there.get("GPU", 0) < engine.gpus:
            raise FcosError(f"--gpus {engine.gpus}: this Ray has {there.get('GPU', 0):.0f}")
        return engine.gpus, _Share(share, 1)
    have = int(there.get("CPU", 0))
    wanted = engine.cpus or have
    if wanted > have or wanted < share:
        raise FcosError(f"--cpus {wanted}: this Ray has {have} cores, and a worker takes {share}")
    return wanted // share, _Share(share)
