"""The loader's batches on the device of the step, on a GPU one step ahead."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from ..types import Batch


class Ahead(Iterator[list[Batch]]):
    """What `loader` gives, on `device`, in order.

    With `ahead` (left out: on a GPU) a thread reads, pins and copies the next batches on a stream of its own while a
    step computes. An error of the loader is raised where its batch would have been given, so that the step in front of
    it is done. `close` ends the thread and the loader.
    """

    def __init__(self, loader: Iterator[list[Batch]], device: torch.device, ahead: bool | None = None) -> None:
        self.loader, self.device = loader, device
        self.cuda = device.type == "cuda"
        self._pool = ThreadPoolExecutor(1, "next-batch") if (self.cuda if ahead is None else ahead) else None
        self._stream = torch.cuda.Stream(device) if self.cuda else None
        self._next: Future[list[Batch]] | None = None

    def __next__(self) -> list[Batch]:
        if self._pool is None:
            return self._read()
        waiting = self._next or self._pool.submit(self._read)
        self._next = None
        batches = waiting.result()
        self._next = self._pool.submit(self._read)
        if self._stream is not None:
            here = torch.cuda.current_stream(self.device)
            here.wait_stream(self._stream)
            for batch in batches:
                for tensor in (batch.images, *(x for t in batch.targets for x in (t.boxes, t.labels, t.ignore))):
                    tensor.record_stream(here)  # its memory is not given away while the step uses it
        return batches

    def _read(self) -> list[Batch]:
        batches = next(self.loader)
        if self._stream is None:
            return [b.to(self.device) for b in batches]
        with torch.cuda.stream(self._stream):
            return [b.pin_memory().to(self.device, non_blocking=True) for b in batches]

    def close(self) -> None:
        """Its thread and the loader's processes end now, not when Python does."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        if isinstance(self.loader, Generator):
            self.loader.close()
