"""Files from the network, fetched once: into a cache folder, resumed after a break, checked, whole or not at all.

`torch.hub.load_state_dict_from_url` would do for most, but it begins again after a break, waits without end for a
server that falls silent, does not check what lies in the cache, lets two processes download the same, and knows no
mirror; its errors are tracebacks. Nor does `remote` serve here: it needs an extra, and everybody wants these files.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FcosError, ModelError
from ..system.machine import cache_folder
from ..system.progress import Bar
from ..system.remote import FAULTS
from ..system.stderr import say

TRIES = 4  # in a row without a single byte
PAUSE = 1.0  # seconds before the second try, twice as long before each further one
TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Remote:
    """A file on the network.

    `sha256` is its hash or the first digits of it (PyTorch's model host puts 8 into the file name); `size` is
    about its size in bytes, for people.
    """

    url: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def fits(self, path: Path) -> bool:
        """Whether the file at `path` has the hash."""
        return sha256(path).startswith(self.sha256)


class _Broken(Exception):
    """The transfer stopped; trying again may help."""


class _NoWay(Exception):
    """There is no connection to the server at all."""


def source(remote: Remote) -> str:
    """The URL that is asked: the file's own, or the file under $FCOS_MIRROR."""
    mirror = os.environ.get("FCOS_MIRROR")
    return f"{mirror.rstrip('/')}/{remote.name}" if mirror else remote.url


def sha256(path: Path) -> str:
    """Of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(remote: Remote) -> Path:
    """The file in the cache folder, downloaded unless it is there with the right hash.

    A transfer that breaks is taken up where it stopped, now or in a later call. Processes that want the same
    file wait for the first. Raises ModelError, with what to do, when the file cannot be had or is not the one
    expected; FcosError when it cannot be written.
    """
    from ..system.locks import Lock

    path = cache_folder() / remote.name
    lock = Lock(path.with_name(f"{path.name}.lock"))
    try:
        if not lock.take():
            say(f"another process downloads {remote.name}; waiting for it")
            lock.take(None)
    except OSError as error:
        raise FcosError(
            f"cannot write to {path.parent}: {_reason(error)}; set FCOS_CACHE to a folder that can be written"
        ) from error
    try:
        if path.is_file():
            if remote.fits(path):
                return path
            say(f"{path} is damaged; downloading it again")
        _complete(remote, path)
    finally:
        lock.release()
    return path


def _complete(remote: Remote, path: Path) -> None:
    """Download to PATH.part, check, move to `path`."""
    part = path.with_name(path.name + ".part")
    for resumed in (part.is_file(), False):
        _transfer(remote, path, part)
        if remote.fits(part):
            break
        digest = sha256(part)
        part.unlink()
        if not resumed:  # else the first half may have come from somewhere else: once more, from the start
            raise ModelError(
                f"{source(remote)} is not the file expected: its SHA-256 is {digest[:16]}..., not {remote.sha256}"
                f"{'' if len(remote.sha256) == 64 else '...'}; nothing was kept"
            )
    try:
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise FcosError(f"cannot write {path}: {_reason(error)}") from error


def _transfer(remote: Remote, path: Path, part: Path) -> None:
    """Bring `part` to its full length, going on after breaks."""
    failed, furthest, met = 0, _size(part), False
    with Bar(remote.name, unit="B") as bar:
        while True:
            try:
                return _attempt(source(remote), part, bar.update)
            except (_Broken, _NoWay) as error:
                met = met or isinstance(error, _Broken)
                failed = failed + 1 if _size(part) <= furthest else 1
                furthest = max(furthest, _size(part))
                if failed >= TRIES or not met:  # without a network there is nothing to wait for
                    raise ModelError(_unreachable(remote, path, str(error))) from error
                time.sleep(PAUSE * 2 ** (failed - 1))
            except urllib.error.HTTPError as error:
                raise ModelError(_unreachable(remote, path, f"HTTP {error.code} {error.reason}")) from error


def _attempt(url: str, part: Path, show: Callable[[int, int | None], None]) -> None:
    """One request, from the end of `part` on; _Broken or _NoWay when it may be tried again."""
    have = _size(part)
    headers = {"User-Agent": "fcos", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing after what we have; if that is not the file, the hash will say so
            return
        if error.code in FAULTS:
            raise _Broken(f"HTTP {error.code} {error.reason}") from error
        raise
    except urllib.error.URLError as error:
        raise _NoWay(_reason(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(_reason(error)) from error
    except ValueError as error:
        raise ModelError(f"{url} is no address to download from ({error}); is FCOS_MIRROR right?") from error
    with response:
        if response.status != 206 or _start(response.headers.get("Content-Range")) != have:
            have = 0  # the server does not resume
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None and length.isdigit() else None
        try:
            file = part.open("ab" if have else "wb")
        except OSError as error:
            raise FcosError(f"cannot write {part}: {_reason(error)}") from error
        with file:
            while True:
                show(have, total)
                try:
                    chunk = response.read(_CHUNK)
                except (OSError, http.client.HTTPException) as error:
                    raise _Broken(_reason(error)) from error
                if not chunk:
                    break
                try:
                    file.write(chunk)
                    file.flush()
                except OSError as error:
                    raise FcosError(f"cannot write {part}: {_reason(error)}") from error
                have += len(chunk)
    if total is not None and have < total:
        raise _Broken(f"the connection ended after {have} of {total} bytes")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _start(content_range: str | None) -> int | None:
    """First byte of "bytes 100-199/200"."""
    match = re.match(r"bytes (\d+)-", content_range or "")
    return int(match[1]) if match else None


def _unreachable(remote: Remote, path: Path, reason: str) -> str:
    return (
        f"cannot download {source(remote)} ({reason}); get {remote.url} where there is a network and put it at {path}, "
        "or name a server that has it in FCOS_MIRROR"
    )


def _reason(error: Any) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
