"""The images of one request through an engine: each gets its result or its error, by the deadline."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from ..errors import FcosError
from .answers import as_learned
from .engine import Engine, Outcome, Pixels, Task
from .options import Refused

log = logging.getLogger("fcos.serving")


async def compute(
    engine: Engine, sources: Sequence[bytes | Pixels], least: float, deadline: float, task: Task | None = None
) -> list[Outcome | Exception]:
    """Each image through the engine, by `task` where one is given; a model that learned from tiles looks at such.

    An image that is refused fails alone; Refused for all: 413 where they are more than fit, 503 where too many wait
    already.
    """
    most = engine.options.limits.together
    if len(sources) > most:
        raise Refused(413, f"{len(sources)} images; at most {most} in a request")
    futures = engine.submit(sources, least, deadline, task or as_learned(engine.detector, least))
    return await _finish([asyncio.wrap_future(future) for future in futures], deadline)


async def _finish(futures: Sequence[asyncio.Future[Outcome]], deadline: float) -> list[Outcome | Exception]:
    """Each result or its error, at the deadline at the latest."""
    if futures:
        await asyncio.wait(futures, timeout=max(deadline - time.monotonic(), 0.0))
    done: list[Outcome | Exception] = []
    for future in futures:
        if not future.done():
            future.cancel()
            done.append(Refused(504, "the deadline passed; ask again later, or for fewer images"))
            continue
        error = future.exception()
        if error is None:
            done.append(future.result())
        elif isinstance(error, Exception):
            if not isinstance(error, FcosError):
                log.error("an image failed", exc_info=error)
            done.append(error)
        else:
            raise error
    return done
