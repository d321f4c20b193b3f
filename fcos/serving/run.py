"""Start the server and end it: uvicorn around the application."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

import uvicorn

from ..errors import FcosError
from .app import build, start
from .options import ServeOptions


def run(options: ServeOptions, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what has begun within the grace time. FcosError when a model cannot
    be loaded or the address cannot be used."""
    logging.basicConfig(format="fcos: %(message)s")
    server = start(options)
    for engine in server.engines.values():
        place = engine.detector.placement
        say(f"{engine.name}: {place.runtime}, {place.dtype}, {place.device}, {place.lanes} at once")
    config = uvicorn.Config(
        build(server), host=host, port=port, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=max(1, round(options.limits.grace)), timeout_keep_alive=30,
    )  # fmt: skip
    try:
        listening = config.bind_socket()
    except SystemExit:
        raise FcosError(f"cannot listen on {host}:{port}; another program may use it: choose --port") from None
    at = listening.getsockname()[1]
    shown = "localhost" if host in ("0.0.0.0", "::", "127.0.0.1") else host
    _Server(config, lambda: say(f"ready: http://{shown}:{at}  (its API: /docs)")).run(sockets=[listening])


class _Server(uvicorn.Server):
    """uvicorn's, which tells when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()
