"""A network that begins in torch and goes on in an exported graph as soon as there is one."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from ..system.machine import Placement
from ..types import Network, Predictions

Running: TypeAlias = tuple[Network, Placement]  # a network, and where and how it computes
Later: TypeAlias = Callable[[Sequence[Path]], "Running | None"]  # images for its check -> what to go on with
PAYS = 16  # images from which on a graph is worth its start

_closing = threading.Event()  # the interpreter ends
_opening = threading.Lock()  # held while a runtime is opened, which must not be cut off by that end


class ChangeOver:
    """images [N,3,H,W] -> Predictions, by a graph where one is at hand, else by torch.

    `torch` gives the network in torch when it is wanted first. `later`, if given, runs once beside the caller after
    `PAYS` images; what it gives is used from the next image on. A graph that fails is left for torch for good.
    """

    def __init__(
        self,
        torch: Callable[[], Running],
        graph: Running | None = None,
        later: Later | None = None,
        start: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._make, self._torch = torch, None if graph is not None else torch()
        self._later, self._start = later, start or _in_background
        self._lock = threading.Lock()
        self._left = PAYS
        self.samples: Sequence[Path] = ()  # images of the kind that come, for the check of a graph
        self._now: Running = graph or self.torch

    @property
    def torch(self) -> Running:
        """The network in torch."""
        if self._torch is None:
            self._torch = self._make()
        return self._torch

    @property
    def placement(self) -> Placement:
        """Where and how the next image is computed."""
        return self._now[1]

    def __call__(self, images: Tensor) -> Predictions:
        self._count(len(images))
        now = self._now  # another thread may change it
        if self._torch is not None and now is self._torch:
            return now[0](images)
        try:
            return now[0](images)
        except Exception:  # a runtime has errors of its own; torch's would come again
            self._now = self.torch
            return self._now[0](images)

    def _count(self, images: int) -> None:
        if self._later is None:
            return
        with self._lock:
            self._left -= images
            later = self._later if self._left <= 0 else None
            if later is None:
                return
            self._later = None

        def prepare() -> None:
            if (graph := later(self.samples)) is not None:
                self._now = graph

        self._start(prepare)


def _in_background(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="fcos-graph", daemon=True).start()


def wait_for(done: Callable[[], bool], seconds: float = 0.2) -> bool:
    """Wait until `done`, asked every so many seconds; False where the interpreter ends before."""
    while not done():
        if _closing.wait(seconds):
            return False
    return True


def opened(open: Callable[[], Running]) -> Running | None:
    """What `open` gives; None where the interpreter is about to end, which waits for an `open` that has begun."""
    with _opening:
        return None if _closing.is_set() else open()


def _close() -> None:
    _closing.set()
    if _opening.acquire(timeout=60):
        _opening.release()


atexit.register(_close)
