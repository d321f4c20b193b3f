"""What Prometheus is told: requests, pictures, queues, batch sizes, seconds by part."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The counters of one server. Pictures a second are `rate(fcos_images_total[1m])`, errors the requests whose
    status is 400 or above."""

    def __init__(self) -> None:
        to = self.registry = CollectorRegistry()
        self.requests = Counter("fcos_requests", "Requests by route and status", ("route", "status"), registry=to)
        self.images = Counter("fcos_images", "Pictures detected in", ("model",), registry=to)
        self.queue = Gauge("fcos_queue_images", "Pictures waiting or in work", ("model",), registry=to)
        self.batch = Histogram(
            "fcos_batch_images", "Pictures that shared a pass", ("model",), buckets=(1, 2, 4, 8, 16, 32), registry=to
        )
        self.seconds = Histogram(
            "fcos_seconds", "Seconds by part: decode, wait, network, answer, request", ("part",), buckets=_SECONDS,
            registry=to,
        )  # fmt: skip

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        return generate_latest(self.registry)
