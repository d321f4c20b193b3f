"""Requests to images: bodies under a limit of bytes, multipart, sizes judged before decoding, images by URL."""

from __future__ import annotations

import asyncio
import http.client
import io
import ipaddress
import json
import re
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from PIL.Image import DecompressionBombError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from ..data.images.reading import image_header
from ..errors import ImageError, first_line
from .options import Limits, Refused

_ARRIVING = 16  # times the limit of a body, of all bodies that are arriving
_DRAIN = 4  # times the limit of a body
_QUALITY = re.compile(r"q\s*=\s*(\d(?:\.\d*)?)")  # of a kind in an Accept header
_NESTED = 2_000_000  # lists and objects of JSON
_BLOCK = 1 << 20  # bytes of a form between two looks at the clock


@dataclass(frozen=True)
class Upload:
    """One image as it was sent: its file's bytes and, where the client said so, its name."""

    data: bytes
    name: str | None = None


@dataclass
class Bodies:
    """Bytes of all requests that are still arriving."""

    held: int = 0


async def read_body(request: Request, limits: Limits, deadline: float, bodies: Bodies) -> bytes:
    """The whole body. Refused: 413 over the limit, by the length it claims or by what arrives; 408 for one that has
    not arrived in time; 415 for a compressed one, whose size would be anyone's guess; 503 where too much is arriving
    at once."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "compressed bodies are not read; send the image as it is")
    claimed = request.headers.get("content-length", "")
    size = int(claimed) if claimed.isdigit() else 0
    patience = _DRAIN * limits.body  # a client that is still sending does not hear an answer: read on, keeping nothing
    parts: list[bytes] = []
    arrived = kept = 0
    try:
        async with asyncio.timeout(max(deadline - time.monotonic(), 0.0)):
            if size <= patience:
                async for part in request.stream():
                    arrived += len(part)
                    if arrived > patience:
                        break
                    if max(arrived, size) > limits.body:
                        parts.clear()
                        continue
                    if bodies.held + len(part) > _ARRIVING * limits.body:
                        raise Refused(503, "too much is being sent at once; ask again later", 1)
                    bodies.held, kept = bodies.held + len(part), kept + len(part)
                    parts.append(part)
    except TimeoutError:
        raise Refused(408, "the request did not arrive in time") from None
    except ClientDisconnect:
        raise Refused(400, "the request ended early") from None
    finally:
        bodies.held -= kept
    size = max(size, arrived)
    if size > limits.body:
        raise Refused(413, f"the request has {size} bytes or more; at most {limits.body} are read")
    return b"".join(parts)


def parse_body(body: bytes) -> Any:
    """The value of a JSON body; ValueError or RecursionError for none, Refused (413) for one of more lists and objects
    than are parsed in a second, which would hold up everybody."""
    if body.count(b"[") + body.count(b"{") > _NESTED:
        raise Refused(413, f"the JSON has more than {_NESTED:,} lists and objects; send images as files or binary data")
    return json.loads(body)


def uploads(body: bytes, content_type: str, limits: Limits, deadline: float) -> list[Upload]:
    """The images of a body: every file of a multipart form, or the body itself. Refused: 400 for a form that is
    broken, holds no file or has fields beside its files, 413 for too many files, 504 where reading it passes the
    deadline."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        if not body:
            raise Refused(400, "the request is empty; send an image's bytes, or a form with files")
        return [Upload(body)]
    boundary = options.get(b"boundary")
    if not boundary:
        raise Refused(400, "the form names no boundary")
    files: list[Upload] = []

    def refuse(field: Field) -> None:
        name = (field.field_name or b"").decode(errors="replace")[:80]
        raise Refused(
            400, f"the form has a field {name!r}; send images as files, and options in the address: ?score=0.4"
        )

    def take(file: File) -> None:
        if len(files) >= limits.together:
            raise Refused(413, f"the request holds more than {limits.together} images")
        file.file_object.seek(0)
        name = file.file_name.decode(errors="replace") if file.file_name else None
        files.append(Upload(file.file_object.read(), name))
        file.close()

    try:
        parser = FormParser(
            "multipart/form-data", refuse, take, boundary=boundary,
            config={"MAX_MEMORY_FILE_SIZE": limits.body + 1, "MAX_BODY_SIZE": limits.body + 1},
        )  # fmt: skip
        for start in range(0, len(body), _BLOCK):
            if time.monotonic() > deadline:
                raise Refused(504, "the deadline passed while the form was read")
            parser.write(body[start : start + _BLOCK])
        parser.finalize()
    except (FormParserError, ValueError, KeyError, AssertionError) as error:
        reason = first_line(error)
        raise Refused(400, f"the form cannot be read: {reason}") from None
    if not files:
        raise Refused(400, "the form holds no file; send images as files")
    return files


def prefers(accept: Sequence[str], kind: str, usual: str) -> bool:
    """Whether Accept headers ask for `kind`, such as image/jpeg, rather than for the `usual` one: with a higher
    quality, or by name with the same."""
    qualities: dict[str, float] = {}
    for part in ",".join(accept).lower().split(","):
        name, _, rest = part.partition(";")
        told = _QUALITY.search(rest)
        qualities[name.strip()] = float(told[1]) if told else 1.0

    def wish(kind: str) -> tuple[float, int]:
        """(quality, how precisely it is named): the most precise of three names counts."""
        names = ("*/*", f"{kind.partition('/')[0]}/*", kind)
        precise = max((k for k in range(3) if names[k] in qualities), default=0)
        return qualities.get(names[precise], 0.0), precise

    quality, precise = wish(usual)
    return wish(kind)[0] > 0 and wish(kind) >= (quality, max(precise, 1))


def check_size(data: bytes, limits: Limits) -> int:
    """Pixels, by the header. Refused (413) where these are too many; ImageError (400) for no image at all."""
    try:
        height, width = image_header(data).displayed
    except ImageError as error:
        if isinstance(error.__context__, DecompressionBombError):  # Pillow will not even name the size of these
            raise Refused(413, f"the image is huge; at most {limits.pixels} pixels are decoded") from None
        raise
    if height * width > limits.pixels:
        raise Refused(413, f"the image has {width}x{height} pixels; at most {limits.pixels} in all are decoded")
    return height * width


@dataclass(frozen=True)
class Asking:
    """How a URL is asked for: headers, a body, which makes it a POST, and whether the address may be private."""

    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    private: bool = False


def fetch(url: str, hosts: Sequence[str], limits: Limits, how: Asking = Asking()) -> bytes:
    """What a URL of a host that is allowed gives. No redirect is followed, and no private address is asked unless `how`
    says so: the name is looked up once, and the address found is the one connected to.

    Raises Refused: 403 for another host or a private address, 400 for what is no such URL or cannot be had.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:  # "http://[::1", a port of 99999
        raise Refused(400, f"the URL is none: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise Refused(400, "the URL must be http:// or https:// with a host, without a user")
    if parts.hostname not in [host.lower() for host in hosts]:
        raise Refused(403, f"the server does not fetch from {parts.hostname}; start it with --allow-url")
    try:
        port = port or (443 if parts.scheme == "https" else 80)
        rows = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # the second for a name that is too long, or has an empty part
        raise Refused(400, f"there is no host {parts.hostname}") from None
    address = rows[0][4]
    if not how.private and not ipaddress.ip_address(address[0]).is_global:
        raise Refused(403, f"{parts.hostname} has a private address, from which nothing is fetched")
    try:
        # what is no ASCII in it is quoted as browsers do; what is quoted stays
        path = quote(parts._replace(scheme="", netloc="", fragment="").geturl(), safe="%/:=&?~+!$,;'@()*[]")
        with socket.create_connection((str(address[0]), int(address[1])), timeout=limits.timeout) as plain:
            if parts.scheme == "http":
                return _get(plain, http.client.HTTPConnection(parts.hostname, port), path, limits, how)
            context = ssl.create_default_context()
            stream = context.wrap_socket(plain, server_hostname=parts.hostname)
            connection = http.client.HTTPSConnection(parts.hostname, port, context=context)
            return _get(stream, connection, path, limits, how)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Refused(400, f"cannot fetch {url}: {first_line(error)}") from None


def _get(
    stream: socket.socket, connection: http.client.HTTPConnection, path: str, limits: Limits, how: Asking
) -> bytes:
    connection.sock, host = stream, connection.host
    # some hosts, Label Studio among them, refuse who asks for images only
    headers = {"Accept": "*/*", **how.headers}
    connection.request("GET" if how.body is None else "POST", path or "/", how.body, headers)
    answer = connection.getresponse()
    if answer.status != 200:
        raise Refused(400, f"{host} answered {answer.status}; redirects are not followed")
    parts = io.BytesIO()
    end = time.monotonic() + limits.timeout
    while block := answer.read1(1 << 16):  # what is there: `read` would wait for all of it, and for ever
        parts.write(block)
        if parts.tell() > limits.body:
            raise Refused(413, f"{host} sends more than {limits.body} bytes")
        if time.monotonic() > end:
            raise Refused(504, f"{host} did not answer in time")
    if not parts.tell():
        raise ImageError(f"{host} sent nothing")
    return parts.getvalue()
