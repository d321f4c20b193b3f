"""The loaded models of a server and what its routes share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from ..errors import FcosError
from .engine import Engine
from .metrics import Metrics
from .options import Limits, Refused, ServeOptions
from .request import Bodies

T = TypeVar("T")
_FETCHES = 16  # at once, from other hosts


def _fetching() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_FETCHES, "fetch")


@dataclass(frozen=True)
class Server:
    """What the routes share."""

    options: ServeOptions
    engines: dict[str, Engine]
    metrics: Metrics
    fetching: ThreadPoolExecutor = field(default_factory=_fetching)
    drawing: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, 2))  # images at once
    bodies: Bodies = field(default_factory=Bodies)

    async def fetched(self, work: Callable[[], T], deadline: float) -> T:
        """What `work` gets from another host. It has threads of its own: a slow host must hold none of those that
        answer. Refused (504) at the deadline, a time of `time.monotonic`."""
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0.0)):
                return await asyncio.get_running_loop().run_in_executor(self.fetching, work)
        except TimeoutError:
            raise Refused(504, "what had to be fetched did not arrive in time") from None

    @property
    def limits(self) -> Limits:
        return self.options.limits

    def engine(self, name: str | None) -> Engine:
        """A model by name, or the first; Refused (404) where there is none."""
        if name is None:
            return next(iter(self.engines.values()))
        if name not in self.engines:
            raise Refused(404, f"there is no model {name[:80]!r}; models: {', '.join(self.engines)}")
        return self.engines[name]

    def ready(self) -> bool:
        return not any(engine.stopped for engine in self.engines.values())


def start(options: ServeOptions) -> Server:
    """Load the models; FcosError when one cannot be."""
    metrics = Metrics()
    engines: dict[str, Engine] = {}
    for model in options.models:
        engine = Engine(model, options, metrics)
        if engine.name in engines:
            raise FcosError(f"two models are called {engine.name}; name them: --model first={model}")
        engines[engine.name] = engine
    return Server(options, engines, metrics)
