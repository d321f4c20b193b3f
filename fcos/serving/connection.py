"""One connection to the server: a client that begins a request and never ends it does not keep it."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as Protocol
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol as Protocol

_UNSEEN = 1 << 18  # bytes of an answer that the system takes ahead of the client
_LOOKS = 2  # looks, `timeout_keep_alive` seconds apart, in which not one byte of an answer goes: it is not read
_STATUS = {400: b"400 Bad Request", 408: b"408 Request Timeout"}


class Connection(Protocol):
    """uvicorn's, which waits for the end of a header as long as the client likes: some thousand half headers would take
    every descriptor. Here a connection on which no request begins within `timeout_keep_alive` seconds is closed. What
    is no HTTP gets its one line as JSON, as every error does. An answer that is not read is dropped."""

    _slow: asyncio.TimerHandle | None = None  # when it is looked next whether the client reads its answer
    _left = 0  # bytes of it that were not read when it was last looked
    _still = 0  # looks since then without one that was

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if (plain := transport.get_extra_info("socket")) is not None:  # else progress is seen every few megabytes
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNSEEN)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._attend()

    def _attend(self) -> None:
        """Start to look whether an answer is read, which uvicorn would wait for as long as the client likes."""
        if self._slow is None and self.transport.get_write_buffer_size():
            self._left, self._still = self.transport.get_write_buffer_size(), 0
            self._slow = self.loop.call_later(self.timeout_keep_alive, self._look)

    def _look(self) -> None:
        self._slow, left = None, self.transport.get_write_buffer_size()
        if not left:
            return
        self._left, self._still = left, 0 if left < self._left else self._still + 1
        if self._still >= _LOOKS:
            self.transport.abort()
        else:
            self._slow = self.loop.call_later(self.timeout_keep_alive, self._look)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._calm()
        if self._slow is not None:
            self._slow.cancel()
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
        if self.transport.get_write_buffer_size():  # an answer that is still read comes first
            self.transport.close()
        elif not self.transport.is_closing():
            self.transport.write(head % (_STATUS[status], len(body)) + body)
            self.transport.close()
