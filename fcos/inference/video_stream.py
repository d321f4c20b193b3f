"""Detections of moving images: frames are read while the network works, and what was found comes out in their order."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from ..detections import Detections
from ..errors import ConfigError
from .sources import PIXELS_AHEAD
from .video import Frame, Pixels, Reader

if TYPE_CHECKING:
    from .composite import Composite
    from .detector import Detector

_AHEAD = 4  # frames read while the network works
_NEWEST = 8  # passes by which the next ones of a live source are spread

T = TypeVar("T")


def stream(
    detector: Detector | Composite,
    frames: Iterable[Frame],
    *,
    every: int = 1,
    batch: int = 1,
    score: float | None = None,
) -> Iterator[Frame]:
    """`frames` with their detections, in order. Reading runs ahead of the network, the network ahead of the caller. Not
    so on a live source, of which a frame is taken when a lane is free for it, the lanes at even distances. `batch`
    frames share a pass, and as many passes run at once as the detector has lanes. With `every` N only each Nth frame is
    detected in, and the others come through with None. score: the lowest kept; None: what the model shows. Of what lies
    between no more is held than of images that are read ahead; a pass may be sent with fewer frames then.
    """
    if every < 1 or batch < 1:
        raise ConfigError(f"every={every}, batch={batch}: give 1 or more")
    lowest = detector.shown if score is None else score
    live = isinstance(frames, Reader) and frames.info.live
    lanes = max(1, detector.placement.lanes)
    took = deque[float](maxlen=_NEWEST)  # seconds of the newest passes

    def work(images: list[Pixels]) -> list[Detections]:
        began = time.monotonic()
        found = detector.detect(images, [None] * len(images), lowest, batch)
        took.append(time.monotonic() - began)
        return found

    with ThreadPoolExecutor(lanes) as workers:
        passes = _Passes(lambda images: workers.submit(work, images), batch, lanes - 1 if live else lanes)
        waiting = iter(frames) if live else ahead(frames, _AHEAD + batch)
        try:
            for read, frame in enumerate(waiting):
                if (frame.index if live else read) % every == 0:  # numbers of images may have gaps
                    passes.add(frame)
                else:
                    passes.let_through(frame)
                yield from passes.leaving()
                # The lanes look at moments apart: side by side they would at one, and then at none. A single slow pass,
                # such as the first, is no measure.
                if live and lanes > 1:
                    time.sleep(max(0.0, passes.sent + min(list(took), default=0.0) / lanes - time.monotonic()))
            passes.send()
            yield from passes.leaving(over=True)
        finally:
            if isinstance(waiting, ahead):
                waiting.close()
            passes.cancel()


class _Passes:
    """Forward passes over frames, `batch` in each, by `detect`; `most` of them may be under way while the next one
    fills. Frames leave in the order in which they came."""

    def __init__(self, detect: Callable[[list[Pixels]], Future[list[Detections]]], batch: int, most: int) -> None:
        self.detect, self.batch, self.most = detect, batch, most
        self.held: deque[tuple[Frame, _Pass | None]] = deque()  # in order, with the pass that a frame has a part in
        self.filling = _Pass()
        self.under_way = 0
        self.sent = 0.0  # when, by the monotonic clock
        self.between = 0  # pixels of the frames between that wait

    def add(self, frame: Frame) -> None:
        """A frame to detect in."""
        self.held.append((frame, self.filling))
        self.filling.images.append(frame.image)
        if len(self.filling.images) == self.batch:
            self.send()

    def let_through(self, frame: Frame) -> None:
        """A frame to hand on as it is."""
        self.held.append((frame, None))
        self.between += _pixels(frame)
        if self.between > PIXELS_AHEAD and not self.under_way:
            self.send()

    def send(self) -> None:
        """Detect in what has come together, if anything."""
        if self.filling.images:
            self.filling.done, self.sent = self.detect(self.filling.images), time.monotonic()
            self.filling, self.under_way = _Pass(), self.under_way + 1

    def leaving(self, over: bool = False) -> Iterator[Frame]:
        """What is done; and what is under way where that is too much, or nothing more comes."""
        while self.held:
            frame, one = self.held[0]
            if one is None:
                self.between -= _pixels(frame)
                yield self.held.popleft()[0]
                continue
            wait = over or self.under_way > self.most or self.between > PIXELS_AHEAD
            if one.done is None or not (wait or one.done.done()):
                return
            detections = one.done.result()[one.taken]
            one.taken += 1
            self.under_way -= one.taken == len(one.images)
            self.held.popleft()
            yield Frame(frame.index, frame.time, frame.image, detections)

    def cancel(self) -> None:
        """Begin no more of them."""
        for _, one in self.held:
            if one is not None and one.done is not None:
                one.done.cancel()


def _pixels(frame: Frame) -> int:
    return int(frame.image.shape[0] * frame.image.shape[1])


@dataclass
class _Pass:
    """Images of frames that share a forward pass, what comes of them, and how many of the results are taken."""

    images: list[Pixels] = field(default_factory=list)
    done: Future[list[Detections]] | None = None
    taken: int = 0


class ahead(Iterator[T]):
    """The items of an iterable, read in a thread that stays up to `count` ahead; its errors come out here."""

    def __init__(self, items: Iterable[T], count: int) -> None:
        self._queue: queue.Queue[tuple[bool, Any]] = queue.Queue(maxsize=max(1, count))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(items,), daemon=True)
        self._thread.start()
        self._over = False

    def _read(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                if not self._give((True, item)):
                    return
            self._give((False, None))
        except BaseException as error:  # the caller's thread raises it
            self._give((False, error))

    def _give(self, item: tuple[bool, Any]) -> bool:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=0.1)
                return True
        return False

    def __next__(self) -> T:
        if self._over:
            raise StopIteration
        more, item = self._queue.get()
        if more:
            result: T = item
            return result
        self._over = True
        if item is not None:
            raise item
        raise StopIteration

    def close(self) -> None:
        """Read no more."""
        self._stop.set()
        self._over = True
