"""One connection to the server: a client that begins a request and never ends it does not keep it."""

from __future__ import annotations

import asyncio
import json
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as Protocol
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol as Protocol

_LEAST = 1 << 16  # bytes of an answer that a client reads in `timeout_keep_alive` seconds
_STATUS = {400: b"400 Bad Request", 408: b"408 Request Timeout"}


class Connection(Protocol):
    """uvicorn's, which waits for the end of a header as long as the client likes: some thousand half headers would take
    every descriptor. Here a connection on which no request begins within `timeout_keep_alive` seconds is closed. What
    is no HTTP gets its one line as JSON, as every error does. An answer that is not read is dropped."""

    _left = math.inf  # bytes of an answer that were not read when it was last looked

    def timeout_keep_alive_handler(self) -> None:
        left = self.transport.get_write_buffer_size()
        if not left:
            super().timeout_keep_alive_handler()
        elif left > self._left - _LEAST:  # uvicorn would wait for the client as long as it likes
            self.transport.abort()
        else:
            self._left = left
            again = self.timeout_keep_alive_handler
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, again)

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        self._left = math.inf
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._calm()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        self._end(400, f"this is no HTTP request: {msg}")

    def _watch(self) -> None:
        """Start the clock while no request is in work; more bytes of the same header do not set it back."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._calm()
        elif self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.timeout_keep_alive, self._late)

    def _calm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self.cycle is None or self.cycle.response_complete:
            self._end(408, "no request arrived in time")

    def _end(self, status: int, line: str) -> None:
        body = json.dumps({"error": line}).encode()
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        elif not self.transport.is_closing():
            self.transport.write(head % (_STATUS[status], len(body)) + body)
            self.transport.close()
