"""Start the server and end it: uvicorn around the application, in one process or several."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from ..errors import FcosError, OtherProcess
from ..system.threads import cpu_cores
from .app import build
from .connection import Connection
from .metrics import FOLDER
from .options import ServeOptions
from .server import Server, start
from .worker import STARTUP_FAILURE, application

_SILENCE = 20  # seconds after which a worker that does not answer its parent is replaced


def run(options: ServeOptions, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what has begun within the grace time. FcosError when a model cannot
    be loaded or the address cannot be used."""
    logging.basicConfig(format="fcos: %(message)s")
    common: dict[str, Any] = {
        "host": host, "port": port, "log_level": "warning", "access_log": False, "server_header": False,
        "timeout_graceful_shutdown": max(1, round(options.limits.grace)), "timeout_keep_alive": 30,
        "http": Connection, "ws": "none",
    }  # fmt: skip
    if options.workers > 1:
        _several(options, common, say)
        return
    server = start(options)
    _tell(server, say)
    socket, line = _listen(common)
    uvicorn.Server(uvicorn.Config(build(server, partial(say, line)), **common)).run(sockets=[socket])


def _several(options: ServeOptions, common: dict[str, Any], say: Callable[[str], None]) -> None:
    """Workers of their own, each with the models; one that dies is started again while the others go on."""
    socket, line = _listen(common)
    threads = options.placing.threads or max(1, cpu_cores() // options.workers)
    options = replace(options, placing=replace(options.placing, threads=threads))
    config = uvicorn.Config(
        partial(application, options, line), factory=True, workers=options.workers, timeout_worker_healthcheck=_SILENCE,
        **common,
    )  # fmt: skip
    say(f"{options.workers} workers start")
    with tempfile.TemporaryDirectory(prefix="fcos-metrics-", ignore_cleanup_errors=True) as folder:
        os.environ[FOLDER] = folder  # before the workers import their client of Prometheus
        workers = Workers(config, [socket])
        workers.run()
    if any(process.exitcode == STARTUP_FAILURE for process in workers.processes):
        raise OtherProcess("a worker could not start")


class Workers(Multiprocess):
    """uvicorn's, but no connection is taken any more once they are told to end: the socket of the parent, which answers
    none, would hold those that come meanwhile and reset them at its end."""

    def terminate_all(self) -> None:
        for socket in self.sockets:
            socket.close()
        super().terminate_all()


def _listen(common: dict[str, Any]) -> tuple[Any, str]:
    """(the socket, what to say when all is ready). FcosError when the address cannot be had."""
    host, port = common["host"], common["port"]
    log = logging.getLogger("uvicorn.error")
    try:
        config = uvicorn.Config("", **common)
        log.disabled = True  # it would say the same in other words
        socket = config.bind_socket()
    except SystemExit:
        raise FcosError(f"cannot listen on {host}:{port}; another program may use it: choose --port") from None
    finally:
        log.disabled = False
    socket.listen(2048)
    shown = "localhost" if host in ("0.0.0.0", "::", "127.0.0.1") else host
    shown = f"[{shown}]" if ":" in shown else shown
    return socket, f"ready: http://{shown}:{socket.getsockname()[1]}  (its API: /docs)"


def _tell(server: Server, say: Callable[[str], None]) -> None:
    for engine in server.engines.values():
        place = engine.detector.running
        say(f"{engine.name}: {place.runtime}, {place.dtype}, {place.device}, {place.lanes} at once")
