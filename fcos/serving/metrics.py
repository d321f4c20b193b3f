"""What Prometheus is told: requests, images, queues, batch sizes, seconds by part."""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # where several processes keep their numbers, for each other to add up
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The counters of one server, of all its workers where it has several. Images a second are
    `rate(fcos_images_total[1m])`, errors the requests whose status is 400 or above."""

    def __init__(self) -> None:
        to = self.registry = CollectorRegistry()
        self.requests = Counter("fcos_requests", "Requests by route and status", ("route", "status"), registry=to)
        self.images = Counter("fcos_images", "Images detected in", ("model",), registry=to)
        self.queue = Gauge(
            "fcos_queue_images", "Images waiting or in work", ("model",), registry=to, multiprocess_mode="livesum"
        )
        self.batch = Histogram(
            "fcos_batch_images", "Images that shared a pass", ("model",), buckets=(1, 2, 4, 8, 16, 32), registry=to
        )
        self.seconds = Histogram(
            "fcos_seconds", "Seconds by part: decode, wait, network, answer, request", ("part",), buckets=_SECONDS,
            registry=to,
        )  # fmt: skip

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        folder = os.environ.get(FOLDER)
        if folder is None:
            return generate_latest(self.registry)
        _forget_the_dead(Path(folder))
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]
        return generate_latest(everyone)


def _forget_the_dead(folder: Path) -> None:
    """What a worker counted stays when it ends, but nothing waits in its queue any more."""
    if os.name != "posix":  # elsewhere the question would end the process
        return
    for file in folder.glob("gauge_live*_*.db"):
        number = int(file.stem.rpartition("_")[2])
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            mark_process_dead(number, str(folder))  # type: ignore[no-untyped-call]
        except PermissionError:
            pass  # it lives
