"""What a server is told at its start, and the errors that it answers with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..errors import FcosError, did_you_mean, one_line


@dataclass(frozen=True)
class Limits:
    """What one request may ask for. `body`: bytes of a request; `pixels`: of one image, judged by its header,
    before it is decoded; `images`: images of one request; `queue`: images waiting or in work, of a model;
    `timeout`: seconds until the answer, reading the request included; `grace`: seconds to finish what has begun
    when the server is told to stop."""

    body: int = 32 << 20
    pixels: int = 50_000_000
    images: int = 16
    queue: int = 64
    timeout: float = 30.0
    grace: float = 10.0

    @property
    def together(self) -> int:
        """Images of one request that are taken: what is more than the queue holds would never find room in it."""
        return min(self.images, self.queue)


@dataclass(frozen=True)
class Placing:
    """Where and how the models compute; see `fcos.load`. `lanes` 0 and `batch`: on a CPU so many images at once,
    one by one; on a GPU up to `batch` together, for which the first waits `wait` seconds at most. `trust`: code in
    model files may run."""

    device: str = "auto"
    runtime: str | None = "auto"
    dtype: str | None = None
    threads: int = 0
    lanes: int = 0
    batch: int = 8
    wait: float = 0.005
    trust: bool = False


@dataclass(frozen=True)
class Access:
    """Who may ask. `token`: wanted as `Authorization: Bearer TOKEN` by everything but health and the page's files;
    `admin`: wanted for reloading, which is off without it; `origins`: web pages of other hosts that may ask;
    `hosts`: from which the server fetches images by URL."""

    token: str | None = field(default=None, repr=False)
    admin: str | None = field(default=None, repr=False)
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class ServeOptions:
    """The models by name, run folder or file, and everything around them."""

    models: tuple[str, ...] = ("fcos-lite0",)
    settings: tuple[str, ...] = ()
    placing: Placing = Placing()
    limits: Limits = Limits()
    access: Access = Access()
    workers: int = 1  # processes, each with the models
    label_studio: str | None = None  # its address, where one is served


def bare_host(given: str) -> str:
    """A host's name or address, in lower case; FcosError where there is more, such as a scheme or a port."""
    host = given.strip().lower()
    if re.fullmatch(r"[^\s/:@?#\[\]]+|[0-9a-f:.]*:[0-9a-f:.]*", host) is None:
        raise FcosError(f"--allow-url {one_line(given, 80)}: give a host alone, such as example.org")
    return host


def bare_token(name: str, given: str | None) -> str | None:
    """A token without the space and line end around it that a file of secrets leaves; None where none is given.
    FcosError for one that no client could send."""
    if not given:
        return None
    token = given.strip(" \t\r\n\v\f")
    if not token or any(c < " " or c == "\x7f" for c in token):
        wrong = "has a control character, such as a line end, within it" if token else "is nothing but space"
        raise FcosError(f"{name} {wrong}; give a word that a client can send")
    return token


class Refused(FcosError):
    """A request that gets no detections: an HTTP status and one line."""

    def __init__(self, status: int, line: str, retry_after: int | None = None) -> None:
        super().__init__(line)
        self.status, self.retry_after = status, retry_after


def check_options(given: Iterable[str], known: Sequence[str]) -> None:
    """Refused (400) for an option of a request that means nothing here, or that is given twice."""
    seen: set[str] = set()
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known, f"there are {', '.join(known)}")
            raise Refused(400, f"there is no option {name[:80]!r}; {hint}")
        if name in seen:
            raise Refused(400, f"{name} is given twice")
        seen.add(name)
