"""What computes the parts of a job, and how parts are done, wherever they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ..errors import FcosError
from ..system.files import is_there, whole
from ..system.threads import cpu_cores
from .detector import BatchDetector
from .job import Job
from .rows import Count, count, count_part, write_part

ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Engine:
    """What computes. name: local, this process, or ray. address: of a running Ray, auto to find it, None to start one
    here. gpus or cpus: how many to use in all, None for all that are there; each worker has one GPU, or `threads`
    cores (0: one for Ray, all for local)."""

    name: str = "local"
    address: str | None = None
    gpus: int | None = None
    cpus: int | None = None
    threads: int = 0

    def check(self, device: str = "auto") -> None:
        """FcosError for what does not go together, `device` (as of `fcos.load`) among it."""
        if self.name not in ENGINES:
            raise FcosError(f"there is no engine {self.name!r}; choose from {', '.join(ENGINES)}")
        if self.gpus is not None and self.cpus is not None:
            raise FcosError("--gpus and --cpus: give one; workers have a GPU each, or cores")
        for name, value in (("--gpus", self.gpus), ("--cpus", self.cpus)):
            if value is not None and value < 1:
                raise FcosError(f"{name} {value}: give 1 or more")
        if self.name == "local" and (self.address is not None or (self.gpus or 1) > 1):
            raise FcosError("--address and several GPUs are for --engine ray; local is this process alone")
        if self.gpus is not None and device not in ("auto", "cuda") and not (self.name == "local" and "cuda" in device):
            raise FcosError(f"--gpus and --device {device} do not go together; leave one out")
        if device.startswith("cuda") and self.cpus is not None:
            raise FcosError(f"--cpus and --device {device} do not go together; leave one out")
        if device not in ("auto", "cpu") and self.name == "ray" and self.gpus is None:
            raise FcosError(f"--device {device}: with --engine ray say how many GPUs to use, such as --gpus 1")


def cores(engine: Engine) -> int:
    """The cores that are to be used on this machine."""
    return engine.cpus or cpu_cores()


def do_parts(detector: BatchDetector, job: Job, numbers: Sequence[int], starts: np.ndarray) -> Iterator[Count]:
    """Detect in the images of some parts, as one stream, and write each part when its rows are there, unless it was
    already; what each part holds, in order. starts [parts + 1]: `Job.starts`. FcosError where the weights are no longer
    those that the job began with."""
    done = [is_there(job.file(number)) for number in numbers]  # by a worker that was lost before it said so
    todo = [number for number, there in zip(numbers, done, strict=True) if not there]
    rows = detector.stream([path for number in todo for path in job.paths(number, starts)])
    for number, there in zip(numbers, done, strict=True):
        file = job.file(number)
        if there:
            yield count_part(file, job.form)
            continue
        part = list(islice(rows, job.images_in(number)))
        if any(row["model"] != job.model for row in part):
            raise FcosError(f"the job began with {job.model}, and that file has changed since, to {part[0]['model']}")
        with whole(file) as temporary:
            write_part(part, job.form, temporary)
        yield count(part)
