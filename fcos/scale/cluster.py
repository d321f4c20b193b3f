"""Ray, found or started here: what detection and training on it share."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ..errors import FcosError, first_line, one_line, require
from .engine import Engine, cores

_STORE = 256 << 20  # bytes of shared memory of a Ray that is started here: only counts pass through it


def told(error: BaseException) -> BaseException:
    """The FcosError that a worker raised, or what Ray says as one line."""
    cause: BaseException | None = error
    while cause is not None:
        inner = getattr(cause, "cause", None)
        if isinstance(cause, FcosError):
            return cause
        if isinstance(inner, FcosError):
            return inner
        cause = inner if isinstance(inner, BaseException) else cause.__cause__
    if isinstance(error, Exception) and type(error).__module__.startswith("ray."):
        return FcosError(f"a worker of Ray failed: {reason(error)}; go on with --resume")
    return error


def reason(error: BaseException) -> str:
    """What Ray says last of an error, its first sentence."""
    return one_line((str(error).strip().splitlines() or [type(error).__name__])[-1].partition(". ")[0])


def _reach(address: str | None) -> None:
    """FcosError where nothing listens at HOST:PORT, which Ray takes minutes to say."""
    host, _, port = (address or "").rpartition(":")
    if not port.isdecimal() or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise FcosError(f"--address {address}: no Ray can be reached there ({why}); `ray status` tells") from None


@contextmanager
def connected(engine: Engine) -> Iterator[ModuleType]:
    """Ray, connected or started here, quiet and without its usage statistics; shut down in the end."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 starves on a machine that does anything besides
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray = require("ray", "ray")
    require("ray.data", "ray")
    _reach(engine.address)
    ours = not ray.is_initialized()
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if ours:
        asked: dict[str, Any] = {"address": engine.address} if engine.address else {"address": "local"}
        if not engine.address:
            asked |= {"num_cpus": cores(engine), "include_dashboard": False, "object_store_memory": _STORE}
            if engine.gpus:
                asked["num_gpus"] = engine.gpus
        try:
            ray.init(**asked, logging_level=logging.ERROR, log_to_driver=False, configure_logging=True)
        except Exception as error:  # whatever its client raises
            where = f"at {engine.address}" if engine.address else "here"
            raise FcosError(f"Ray cannot be used {where}: {one_line(first_line(error))}") from None
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()
