"""Checkpoints written beside training: what is to be kept is copied, and a thread writes it while the steps go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch


def copied(value: Any) -> Any:
    """`value` with every tensor in it, however deep, as a copy in the memory of the CPU that no step writes to."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(item) for item in value)
    return value


class Saver:
    """Does one piece of writing at a time in a thread.

    An error of the thread is raised by the next call of `start`, `check` or `wait`. A process that is killed leaves
    what a killed writer leaves: files that are whole, and the checkpoint before.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def start(self, write: Callable[[], None]) -> None:
        """Write beside what follows; what was begun before is waited for, so that files come in order."""
        self.wait()
        self._pool = self._pool or ThreadPoolExecutor(1, "checkpoint")
        self._pending = self._pool.submit(write)

    def check(self) -> None:
        """Raise the error of what has ended; does not wait."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait until all is written; raises its error."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait for the thread and end it; on the way out of another error, so its own says nothing."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
