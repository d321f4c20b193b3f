"""Images of many requests through one detector: a bounded queue, decoding threads, lanes that compute."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..detections import Detections
from ..errors import FcosError
from ..inference.detector import Detector
from ..inference.load import load
from ..inference.sources import PIXELS_AHEAD, load_source
from ..inference.stream import pick_lanes
from ..system.terminal import plural
from .metrics import Metrics
from .options import Placing, Refused, ServeOptions
from .pixel_budget import Room
from .request import check_size

Pixels = NDArray[np.uint8]
Task = Callable[[Detector, Pixels], Any]  # something else than detecting that needs the network, such as explaining
_MANY = 1 << 20  # as many images as one likes
_LATE = "the deadline passed before the image's turn came; ask again later"
_NOTHING: Pixels = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True)
class Outcome:
    """One image's height and width, its detections (or what the task gave), and seconds by part."""

    size: tuple[int, int]
    result: Any
    seconds: dict[str, float]


@dataclass
class _Job:
    source: bytes | Pixels
    score: float
    deadline: float
    task: Task | None
    future: Future[Outcome] = field(default_factory=Future)
    image: Pixels = field(default_factory=lambda: _NOTHING)
    room: int = 0  # pixels of the engine's room that it has taken
    decoded: float = 0.0  # when
    decoding: float = 0.0  # seconds

    def late(self) -> bool:
        """Fail where the deadline has passed."""
        if time.monotonic() < self.deadline:
            return False
        _fail(self, Refused(504, _LATE))
        return True


class Engine:
    """One model of a server. `submit` never blocks: decoding and computing are done by its own threads."""

    def __init__(self, model: str, options: ServeOptions, metrics: Metrics) -> None:
        """Loads `model`, [NAME=] a model's name, run folder or file, which takes seconds; FcosError when it cannot."""
        self.options, self.metrics = options, metrics
        self.name, self.source = split_name(model)
        self.detector = self._load()
        self.stopped = False
        self._pending = 0
        self._lock = threading.Lock()
        self._rate = 0.0  # images a second, lately
        self._room = Room(PIXELS_AHEAD)
        self._ready: queue.Queue[_Job | None] = queue.Queue()
        lanes = self.detector.placement.lanes
        self._together = 1 if lanes > 1 else options.placing.batch
        self._readers = ThreadPoolExecutor(max(2, lanes), f"{self.name}-decode")
        self._lanes = [
            threading.Thread(target=self._work, name=f"{self.name}-lane-{i}", daemon=True) for i in range(lanes)
        ]
        for lane in self._lanes:
            lane.start()

    def _load(self) -> Detector:
        placing: Placing = self.options.placing
        lanes = placing.lanes or pick_lanes(_MANY, 1, placing.threads)

        detector = load(
            self.source,
            runtime=placing.runtime,
            dtype=placing.dtype,
            threads=placing.threads,
            lanes=lanes,
            device=placing.device,
            trust=placing.trust,
            overrides=self.options.settings,
        )
        detector.detect([np.full((64, 64, 3), 127, np.uint8)], [None], 1.0, 1)  # what is slow only once is done now
        return detector

    def reload(self) -> None:
        """Load the source again; requests in work keep the old weights, and so do all where loading fails."""
        fresh = self._load()
        lanes = fresh.placement.lanes
        if lanes != len(self._lanes):
            raise FcosError(f"{self.name} would now run in {lanes} lanes, not {len(self._lanes)}; restart the server")
        self.detector = fresh

    def submit(
        self, sources: Sequence[bytes | Pixels], score: float, deadline: float, task: Task | None = None
    ) -> list[Future[Outcome]]:
        """Detections of at least `score` in each image, the bytes of its file or pixels [H,W,3] uint8 RGB.

        `deadline` is a time of `time.monotonic`. Raises Refused (503) at once where not all find a place in the queue;
        a future raises Refused: 413 for too many pixels, 504 for a deadline that passed; and ImageError for bytes that
        are no image.
        """
        with self._lock:
            if self.stopped:
                raise Refused(503, "the server is stopping", 1)
            if self._pending + len(sources) > self.options.limits.queue:
                wait = self._pending / self._rate if self._rate else 1.0
                raise Refused(
                    503, f"{plural(self._pending, 'image')} in front already; ask again later", max(1, round(wait))
                )
            self._pending += len(sources)
        self.metrics.queue.labels(self.name).set(self._pending)
        jobs = [_Job(source, score, deadline, task) for source in sources]
        for job in jobs:
            job.future.add_done_callback(partial(self._done, job))
            self._readers.submit(self._decode, job)
        return [job.future for job in jobs]

    def stop(self, grace: float) -> None:
        """Finish what was submitted, for at most `grace` seconds."""
        self.stopped = True
        end = time.monotonic() + grace
        while self._pending and time.monotonic() < end:
            time.sleep(0.01)
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._room.close()
        for _ in self._lanes:
            self._ready.put(None)

    def _done(self, job: _Job, _: Future[Outcome]) -> None:
        with self._lock:
            self._pending -= 1
        self.metrics.queue.labels(self.name).set(self._pending)
        self._drop(job)

    def _drop(self, job: _Job) -> None:
        """Hold nothing for an image any more; it may be in the queue still, where its request was given up."""
        with self._lock:
            room, job.room = job.room, 0
        job.source, job.image = b"", _NOTHING
        self._room.give_back(room)

    def _decode(self, job: _Job) -> None:
        if job.future.cancelled() or job.late():
            return
        try:
            source = job.source
            # pixels that came as such are held by their request, whether there is room or not
            pixels = check_size(source, self.options.limits) if isinstance(source, bytes) else 0
            if not self._room.take(pixels, job.deadline):
                raise Refused(504, _LATE)
            job.room = pixels
            begun = time.monotonic()
            if not job.future.cancelled():
                job.image = load_source(source)
        except Exception as error:
            _fail(job, error)
            return
        job.source = b""
        job.decoded = time.monotonic()
        job.decoding = job.decoded - begun
        if job.future.cancelled():  # while it waited or was decoded
            self._drop(job)
        else:
            self._ready.put(job)

    def _work(self) -> None:
        if self.detector.placement.threads:  # torch counts them for each thread
            torch.set_num_threads(self.detector.placement.threads)
        while True:
            first = self._ready.get()
            if first is None:
                return
            part = [first]
            end = time.monotonic() + self.options.placing.wait
            while len(part) < self._together and first.task is None:
                try:
                    job = self._ready.get(timeout=max(end - time.monotonic(), 0.0))
                except queue.Empty:
                    break
                if job is None:
                    self._ready.put(None)
                    break
                part.append(job)
            part = [job for job in part if not job.late() and job.future.set_running_or_notify_cancel()]
            for group in ([j for j in part if j.task is None], *([j] for j in part if j.task is not None)):
                if group:
                    self._compute(group)

    def _compute(self, part: list[_Job]) -> None:
        begun = time.monotonic()
        detector = self.detector
        try:
            results: list[Any]
            if part[0].task is not None:
                results = [part[0].task(detector, part[0].image)]
            else:
                least = min(job.score for job in part)
                images = [job.image for job in part]
                results = list(detector.detect(images, [None] * len(part), least, len(part)))
        except Exception as error:
            if len(part) > 1:  # one image must not spoil those beside it
                for job in part:
                    self._compute([job])
            else:
                _fail(part[0], error)
            return
        took = time.monotonic() - begun
        self._rate = 0.9 * self._rate + 0.1 * len(part) * len(self._lanes) / max(took, 1e-6)
        self.metrics.batch.labels(self.name).observe(len(part))
        self.metrics.images.labels(self.name).inc(len(part))
        for job, result in zip(part, results, strict=True):
            if isinstance(result, Detections):
                result = result[result.scores >= job.score]
            seconds = {"decode": job.decoding, "wait": begun - job.decoded, "network": took}
            for name, value in seconds.items():
                self.metrics.seconds.labels(name).observe(value)
            height, width = job.image.shape[:2]
            job.future.set_result(Outcome((height, width), result, seconds))


def _fail(job: _Job, error: Exception) -> None:
    with contextlib.suppress(InvalidStateError):  # the request was given up meanwhile
        job.future.set_exception(error)


def split_name(model: str) -> tuple[str, str]:
    """(name in requests, source) of `--model`: NAME=SOURCE, or, as for a file with = in its name, the last part of the
    source's path."""
    name, equals, source = model.partition("=")
    if equals and name and "/" not in name and not os.path.exists(model):
        return name, source
    last = model.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    return last.removesuffix(".safetensors"), model
