"""Detect in many images: decoding runs ahead of the network, and the network ahead of the caller."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.images.reading import image_size, read_image
from ..data.records import Window
from ..detections import Detections
from ..errors import ImageError
from ..system.machine import pick_device
from ..system.remote import is_remote
from ..system.threads import cpu_cores
from .composite import Composite
from .large import open_windows
from .runtime_switch import ChangeOver
from .scores import reached
from .sources import PIXELS_AHEAD, name_of
from .tiles import Held, Windows

if TYPE_CHECKING:
    from .detector import Detector

_Reading = tuple[Path, Future[np.ndarray | Windows]]
_Detected = tuple[Path, np.ndarray, Detections | ImageError]  # pixels, and what is in them
_AHEAD = 4  # images decoded while the network works
_DRAWN = 4096  # longer side in pixels of what is drawn of a large image
_TOGETHER = 8  # images in a pass of a GPU
_LANES = 4  # more take memory for little


def pick_lanes(images: int, batch: int, threads: int) -> int:
    """How many of so many images to detect at once on a CPU with `threads` threads (0: all cores)."""
    return max(1, min(_LANES, threads or cpu_cores(), images // 4)) if batch == 1 else 1


class Batching(NamedTuple):
    """How many images share a pass of the network, and how many passes are in work at once."""

    batch: int
    lanes: int


def pick_batching(images: int, asked: Batching, threads: int, device: str = "auto") -> Batching:
    """The batching for so many images; 0 in `asked` is what is best: on a CPU single images in several lanes, else
    batches of eight."""
    on_cpu = pick_device(device).type == "cpu"
    batch = asked.batch or (1 if on_cpu else _TOGETHER)
    return Batching(batch, asked.lanes or (pick_lanes(images, batch, threads) if on_cpu else 1))


def run(
    detector: Detector | Composite,
    images: Sequence[Path],
    scores: Tensor,
    batch: int = 1,
) -> Iterator[_Detected]:
    """(path, pixels, detections or the error) of each image, in order. Decoding runs ahead of the network, the
    network ahead of the caller, `detector.placement.lanes` images at once.

    scores [C]: the lowest score of each class. `batch` images go to the network together. An image that is looked
    at in tiles is read in windows where it is large; its pixels are then a smaller copy, for drawing.
    """

    def prepare() -> None:
        if detector.placement.threads:  # torch counts them for each thread, and setting them for each image costs
            torch.set_num_threads(detector.placement.threads)

    offer(detector, images)
    read = open_windows if isinstance(detector, Composite) and detector.looks.tile is not None else read_image
    lanes = detector.placement.lanes
    with (
        _keep_threads(),
        ThreadPoolExecutor(max_workers=2) as readers,
        ThreadPoolExecutor(lanes, initializer=prepare) as workers,
    ):
        reading: deque[_Reading] = deque()
        detecting: deque[tuple[int, Future[list[_Detected]]]] = deque()  # number of images, and what becomes of them
        pixels: deque[int] = deque()  # of each image that is held, and of the next where it has to wait
        begun = done = 0
        try:
            while True:
                while begun < len(images) and len(reading) < batch + _AHEAD:
                    if len(pixels) == begun - done:
                        pixels.append(_count_pixels(images[begun]))
                    if begun > done and sum(pixels) > PIXELS_AHEAD:
                        break
                    reading.append((images[begun], readers.submit(read, images[begun])))
                    begun += 1
                if reading:
                    count = min(batch, len(reading))
                    part = [reading.popleft() for _ in range(count)]
                    detecting.append((count, workers.submit(_detect, detector, part, scores)))
                    del part  # it holds the pixels
                if not detecting:
                    return
                if len(detecting) > lanes or not reading:
                    count, group = detecting.popleft()
                    results = deque(group.result())
                    del group
                    while results:
                        yield results.popleft()
                    for _ in range(count):
                        pixels.popleft()
                    done += count
        finally:  # the caller may stop early
            for _, group in detecting:
                group.cancel()
            for _, image in reading:
                image.cancel()


def offer(detector: Detector | Composite, images: Sequence[Path]) -> None:
    """Let the check of a graph that is made meanwhile see images of the kind that comes."""
    for one in detector.detectors if isinstance(detector, Composite) else (detector,):
        if isinstance(one.network, ChangeOver):
            one.network.samples = [path for path in images if not is_remote(path)]


def _count_pixels(path: Path) -> int:
    """By the header; 0 of what cannot be read, which the reader will tell, and of what is read from far away."""
    if is_remote(path):
        return 0
    try:
        height, width = image_size(path)
    except ImageError:
        return 0
    return height * width


@contextmanager
def _keep_threads() -> Iterator[None]:
    """New threads begin with the number of torch's threads that was set last; afterwards that is the caller's again."""
    try:
        yield
    finally:
        torch.set_num_threads(torch.get_num_threads())


def _detect(detector: Detector | Composite, part: Sequence[_Reading], scores: Tensor) -> list[_Detected]:
    images: list[Any] = []  # pixels, or windows for a composite
    errors: dict[int, ImageError] = {}
    for place, (_, future) in enumerate(part):
        try:
            images.append(future.result())
        except ImageError as error:
            errors[place] = error
    names = [name_of(path) for place, (path, _) in enumerate(part) if place not in errors]
    pairs = iter(zip(images, detector.detect(images, names, float(scores.min()), len(part)), strict=True))
    results: list[_Detected] = []
    for place, (path, _) in enumerate(part):
        if place in errors:
            results.append((path, np.zeros((0, 0, 3), np.uint8), errors[place]))
        else:
            image, one = next(pairs)
            results.append((path, preview(image), reached(one, scores)))
    return results


def preview(image: np.ndarray | Windows) -> np.ndarray:
    """The pixels to draw on: those of a large image that was read in windows, smaller."""
    if isinstance(image, np.ndarray):
        return image
    if isinstance(image, Held):
        return image.image
    height, width = image.size
    ratio = min(1.0, _DRAWN / max(height, width))
    return image.read(Window(0, 0, height, width), (max(1, round(height * ratio)), max(1, round(width * ratio))))
