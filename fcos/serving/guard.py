"""Around every request: who may ask, headers of the answer, one line for every error and never a stack trace."""

from __future__ import annotations

import base64
import hmac
import json
import logging
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics
from .options import Access

log = logging.getLogger("fcos.serving")
# What a page of this server may do: run its own scripts, the wasm among them, and speak to this server only. The two
# cross-origin policies give it the shared memory that threads in wasm need.
_HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval' blob:; style-src 'self' "
    "'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob: mediastream:; worker-src 'self' blob:; "
    "connect-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_OPEN = (
    "/health",
    "/v2/health/live",
    "/v2/health/ready",
    "/favicon.ico",
)  # wanted by what has no token: probes, a page


class _Unsent(Exception):
    """The connection takes no answer any more."""


class Guard:
    """ASGI: checks the bearer token, answers HEAD as GET and what nobody caught with 500 and one line, counts and
    times."""

    def __init__(self, app: ASGIApp, access: Access, metrics: Metrics) -> None:
        self.app, self.access, self.metrics = app, access, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # a GET whose body the connection leaves out
            scope = {**scope, "method": "GET"}
        begun = time.monotonic()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            try:
                await send(message)
            except Exception as error:  # a request that broke HTTP's rules half-way cannot be answered
                raise _Unsent(str(error)) from error

        try:
            if self._open(scope) or allowed(Headers(scope=scope), self.access.token):
                await self.app(scope, receive, answer)
            else:
                line = "this server wants a token: Authorization: Bearer TOKEN"
                await _refuse(answer, 401, line, ((b"www-authenticate", b"Bearer"),))
        except _Unsent as error:
            status = 0
            log.warning("an answer could not be sent: %s", str(error)[:200])
        except Exception:
            log.exception("a request failed")
            if not status:
                await _refuse(answer, 500, "the server failed; its log says why")
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, str(status or 499)).inc()
            self.metrics.seconds.labels("request").observe(time.monotonic() - begun)

    def _open(self, scope: Scope) -> bool:
        path: str = scope["path"]
        return path in _OPEN or path == "/" or path.startswith("/web/") or scope["method"] == "OPTIONS"


def allowed(headers: Headers, token: str | None) -> bool:
    """Whether a request carries the token, compared in constant time; True where none is wanted. It may also be the
    password of Basic, which is all that Label Studio can send."""
    if token is None:
        return True
    scheme, _, given = headers.get("authorization", "").partition(" ")
    sent = given.encode("latin-1").strip()  # the bytes, of which the headers make Latin-1
    if scheme.lower() == "basic":
        try:
            sent = base64.b64decode(sent, validate=True).partition(b":")[2]
        except ValueError:
            return False
    right = token.encode(errors="surrogateescape")
    # most clients send UTF-8, some Latin-1
    same = hmac.compare_digest(sent, right) | hmac.compare_digest(sent.decode("latin-1").encode(), right)
    return same and scheme.lower() in ("bearer", "basic")


async def _refuse(send: Send, status: int, line: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    body = json.dumps({"error": line}).encode()
    length = (b"content-length", str(len(body)).encode())
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"application/json"), length, *headers],
        }
    )
    await send({"type": "http.response.body", "body": body})
