"""Files in object stores and on web servers: s3://, gs://, https://, hf://, through fsspec (extra: cloud).

A URL goes wherever a path does, also as a `Path`, which drops one of the slashes of s3://; `url_of` puts it back. What
is read comes whole or not at all, after pauses where a server fails; what is written appears whole: an object is there
when its upload has ended. Names and secrets come from where each store's own tools take them (AWS_ACCESS_KEY_ID,
AWS_ENDPOINT_URL, ~/.aws, GOOGLE_APPLICATION_CREDENTIALS, HF_TOKEN), never from here.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, TypeVar

from ..errors import FcosError, MissingExtra, install_line, one_line, require
from .machine import cache_folder
from .progress import track
from .stderr import say

T = TypeVar("T")
TRIES = 5
PAUSE = 0.5  # seconds before the second try, twice as long before each further one
TIMEOUT = 30  # seconds without a byte
_URL = re.compile(r"(s3|gs|https?|hf):/{1,2}(?=[^/])")
_AT_ONCE = 8  # files of a folder
_CHUNK = 8 << 20  # bytes that are asked for at a time
FAULTS = {408, 425, 429, 500, 502, 503, 504}  # HTTP states that may pass
_SECRETS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws; AWS_ENDPOINT_URL for another server",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "HF_TOKEN",
}


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether this is a URL of a store or server, as text or as a `Path`."""
    return isinstance(path, str | os.PathLike) and _URL.match(os.fspath(path)) is not None


def url_of(path: str | os.PathLike[str]) -> str:
    """The URL behind a path.

    >>> url_of(Path("s3://bucket/photos"))
    's3://bucket/photos'
    """
    return _URL.sub(r"\1://", os.fspath(path), count=1)


def read(path: str | os.PathLike[str], limit: int, kind: type[FcosError] = FcosError) -> bytes:
    """A file of at most `limit` bytes; `kind` with one line where it cannot be had or is larger."""
    url = url_of(path)

    def once() -> bytes:
        files = _files(url)
        if _ranged(url):
            ranged: bytes = files.cat_file(url, start=0, end=limit + 1)
            return ranged
        data = bytearray()
        with _web_stream(files, url) as stream:  # a web server may send for ever
            while len(data) <= limit and (part := stream.read(1 << 20)):
                data += part
        return bytes(data)

    data = _trying(once, f"read {url}", kind, url)
    if len(data) > limit:
        raise kind(f"cannot read {url}: it is larger than {limit >> 20} MB")
    return data


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a file."""
    url = url_of(path)
    return bool(_trying(lambda: _files_now(url).isfile(url), f"look for {url}", FcosError, url))


def names(path: str | os.PathLike[str]) -> list[str]:
    """The names right below a folder, as they are now; none where it is not there."""
    url = url_of(path)

    def once() -> list[str]:
        files = _files_now(url)
        try:
            return [str(name).rstrip("/").rpartition("/")[2] for name in files.ls(url, detail=False)]
        except FileNotFoundError:
            return []

    return sorted(_trying(once, f"list {url}", FcosError, url))


def below(path: str | os.PathLike[str], kind: type[FcosError] = FcosError) -> Iterator[str]:
    """The URL of every file below a folder, in order, without hidden ones."""
    return iter(_listed(url_of(path).rstrip("/"), kind))


def local(
    path: str | os.PathLike[str], kind: type[FcosError] = FcosError, stays: Callable[[Path], bool] = lambda path: False
) -> Path:
    """A copy of a remote file, or of a whole folder, in the cache folder; what lies there and has not changed since is
    not fetched again, where the server tells of changes, and what is gone there is removed but for what `stays`. A path
    of this machine as it is. Stores tell of the changes in their list of a folder; a web server is asked for each file.
    A bar shows how far it is."""
    if not is_remote(path):
        return Path(path)
    url = url_of(path).rstrip("/")
    place = place_of(url)
    if is_file(url):
        return _fetched(url, place, kind)
    files = _listed(url, kind)
    if not files:
        raise kind(f"there is nothing at {url}")
    places = {one: place / _inside(one, url, kind) for one in files}
    missing = [one for one, about in files.items() if not _is_same(places[one], about)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        fetched = pool.map(lambda one: _fetched(one, places[one], kind, files[one]), missing)
        for _ in track(fetched, len(missing), f"fetching {url}", unit="files", quiet=not missing):
            pass
    wanted = set(places.values())
    with _keeping(url, kind):
        for old in place.rglob("*"):  # what is gone there is gone here
            passing = old.name.endswith(_STAMP) or _arriving(old) or stays(old)
            if old not in wanted and old.is_file() and not passing:
                old.unlink(missing_ok=True)
                _stamp(old).unlink(missing_ok=True)
    return place


def place_of(url: str) -> Path:
    """Where the copy of a URL lies in the cache folder, if there is one."""
    url = url.rstrip("/")
    return cache_folder() / "remote" / hashlib.sha256(url.encode()).hexdigest()[:16] / PurePosixPath(url).name


def remove(path: str | os.PathLike[str]) -> None:
    """Remove a file; nothing where it is not there."""
    url = url_of(path)

    def once() -> None:
        files = _files(url)
        with contextlib.suppress(FileNotFoundError):
            files.rm_file(url)
        files.invalidate_cache()

    _trying(once, f"remove {url}", FcosError, url)


def put(source: Path, path: str | os.PathLike[str], kind: type[FcosError] = FcosError) -> None:
    """Write a file to a URL, whole; FcosError where that cannot be done."""
    url = url_of(path)
    if url.startswith("http"):
        raise kind(f"cannot write {url}: a web server only gives files; use s3:// or gs://")
    size = source.stat().st_size

    def once() -> None:
        files = _files(url)
        files.put_file(str(source), url)
        files.invalidate_cache()
        there = files.info(url)["size"]
        if there != size:
            raise OSError(f"{there} of {size} bytes arrived")

    _trying(once, f"write {url}", kind, url)


# --------------------------------------------------------------------------- inside

_STAMP = ".fcos-stamp"
_FETCHING = ".fetching-"
_LONG = 6 * 3600  # seconds without a byte after which a download is one that was killed
# What says which version of a file is there: s3, gs and http, then hf, then times.
_VERSION = ("ETag", "etag", "Content-MD5", "Digest", "xet_hash", "blob_id", "LastModified", "Last-Modified", "mtime")


def _stamp(place: Path) -> Path:
    return place.with_name(f".{place.name}{_STAMP}")


def _arriving(path: Path) -> bool:
    """Whether this is a download, perhaps of another process, that goes on."""
    if not path.name.startswith(_FETCHING):
        return False
    try:
        return time.time() - path.stat().st_mtime < _LONG
    except FileNotFoundError:
        return True


@contextlib.contextmanager
def _keeping(url: str, kind: type[FcosError]) -> Iterator[None]:
    """What the system says against the copy of a URL is `kind`, one line."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise kind(f"cannot keep a copy of {url} in {place_of(url).parent}: {reason}") from error


def _inside(url: str, folder: str, kind: type[FcosError]) -> str:
    """The name of a file inside a folder, which a server may not lead out of it."""
    name = url.removeprefix(folder).lstrip("/")
    if not name or ".." in PurePosixPath(name).parts or name.startswith("/"):
        raise kind(f"{url} has a name that leads out of its folder")
    return name


def _listed(url: str, kind: type[FcosError]) -> dict[str, dict[str, Any]]:
    """The URL of every file below a folder, in order, without hidden ones, and what the list of the store says of
    it."""
    scheme = url.partition("://")[0]
    listed = _trying(lambda: _files_now(url).find(url, detail=True), f"list {url}", kind, url)
    full = {name if "://" in name else f"{scheme}://{name}": about for name, about in sorted(listed.items())}
    hidden = {name for name in full if any(part.startswith(".") for part in name.removeprefix(url).split("/"))}
    return {name: about for name, about in full.items() if name not in hidden}


def _told(about: dict[str, Any]) -> str:
    """Which version of a file is there, and its size; empty where nothing tells versions apart."""
    version = next((one_line(str(about[key])) for key in _VERSION if about.get(key)), "")
    return f"{version} {about.get('size')}" if version else ""


def _is_same(place: Path, about: dict[str, Any]) -> bool:
    """Whether the file at `place` is the one that a store tells `about`."""
    with contextlib.suppress(OSError):
        return place.is_file() and _stamp(place).read_text() == _told(about) != ""
    return False


def _fetched(url: str, place: Path, kind: type[FcosError], listed: dict[str, Any] | None = None) -> Path:
    """The file at `place`, fetched unless it is there and the same. `listed` is what a list of the store told of it;
    the store is asked for it where that does not tell versions apart."""
    about = listed or {}
    if not _told(about):
        about = _trying(lambda: _files_now(url).info(url), f"read {url}", kind, url)
    if _is_same(place, about):
        return place
    with _keeping(url, kind):
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=place.parent, prefix=_FETCHING)
        try:
            with os.fdopen(handle, "wb") as file:
                _download(url, about.get("size"), file, kind)
            _stamp(place).unlink(missing_ok=True)
            os.replace(name, place)
            _stamp(place).write_text(_told(about))
        finally:
            Path(name).unlink(missing_ok=True)
    return place


def _download(url: str, size: int | None, file: Any, kind: type[FcosError]) -> None:
    """Piece by piece, so that a break costs a piece."""
    if size is None or not _ranged(url):
        data = _trying(lambda: _files(url).cat_file(url), f"read {url}", kind, url)
        if size is not None and len(data) != size:
            raise kind(f"cannot read {url}: {len(data)} of {size} bytes came")
        file.write(data)
        return
    for start in range(0, size, _CHUNK):
        end = min(start + _CHUNK, size)

        def piece(start: int = start, end: int = end) -> bytes:
            data: bytes = _files(url).cat_file(url, start=start, end=end)
            if len(data) != end - start:
                raise OSError(f"{len(data)} of {end - start} bytes came")
            return data

        file.write(_trying(piece, f"read {url}", kind, url))


def _ranged(url: str) -> bool:
    """Whether parts of a file can be asked for."""
    return url.startswith(("s3://", "gs://"))


def _files(url: str) -> Any:
    """fsspec's file system for a URL. It keeps one for each thread and process, so this is asked every time."""
    fsspec = require("fsspec", "cloud")
    scheme = url.partition("://")[0]
    options: dict[str, Any] = {}
    if scheme == "s3":  # its own tries would be hidden waits on top of those here
        client = {"connect_timeout": TIMEOUT, "read_timeout": TIMEOUT, "retries": {"max_attempts": 1}}
        options = {"config_kwargs": client, "use_listings_cache": False}
    try:
        files = fsspec.filesystem(scheme, **options)
    except ImportError as error:
        raise MissingExtra(
            f"{scheme}:// needs a package that is not installed: {install_line('cloud')} ({error})"
        ) from None
    if scheme == "s3":
        files.retries = 1
    return files


def _files_now(url: str) -> Any:
    """The same, without what it remembers of lists that it has seen."""
    files = _files(url)
    files.invalidate_cache()
    return files


def _web_stream(files: Any, url: str) -> Any:
    """A file of a web server as it comes in. (`files.open` would ask for its size first, and take a server's fault for
    a file that is not there.)"""
    session = require("fsspec.asyn", "cloud").sync(files.loop, files.set_session)
    return require("fsspec.implementations.http", "cloud").HTTPStreamFile(
        files, url, loop=files.loop, session=session, **files.kwargs
    )


def _trying(once: Callable[[], T], what: str, kind: type[FcosError], url: str) -> T:
    """What `once` gives; tried again, after pauses, where the failure may pass."""
    for attempt in range(TRIES):
        try:
            return once()
        except FcosError:
            raise
        except Exception as error:  # each store raises its own kinds
            if attempt == TRIES - 1 or not _may_pass(error):
                _fail(error, what, kind, url)
        time.sleep(PAUSE * 2**attempt)
    raise AssertionError("not reached")


def _state(error: BaseException) -> int | None:
    """The HTTP state behind an error, where one is known. (The cause of a cut connection may carry one of its own that
    no server sent.)"""
    status = getattr(error, "status", None) or getattr(error, "code", None)
    seen: BaseException | None = error
    while seen is not None:
        answer = getattr(seen, "response", None)
        if isinstance(answer, dict):  # botocore's
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        seen = seen.__cause__
    return status if isinstance(status, int) else None


def _may_pass(error: Exception) -> bool:
    state = _state(error)
    if state is not None:
        return state in FAULTS
    return not isinstance(
        error, FileNotFoundError | PermissionError | NotImplementedError | ValueError | TypeError
    ) and ("Credentials" not in type(error).__name__)


def _fail(error: Exception, what: str, kind: type[FcosError], url: str) -> NoReturn:
    scheme = url.partition("://")[0]
    if isinstance(error, FileNotFoundError) or _state(error) == 404:
        reason = "there is no such file"
    elif isinstance(error, PermissionError) or "Credentials" in type(error).__name__ or _state(error) in (401, 403):
        reason = "no permission" + (f"; credentials come from {_SECRETS[scheme]}" if scheme in _SECRETS else "")
    else:
        reason = one_line(str(error), 160) or type(error).__name__
        if _may_pass(error):
            reason += f" (tried {TRIES} times)"
    raise kind(f"cannot {what}: {reason}") from error


@contextlib.contextmanager
def hub_in_a_line() -> Iterator[None]:
    """Within it stderr hears once that Hugging Face cannot be reached and is asked again, not each time."""
    told = False

    def once(record: logging.LogRecord) -> bool:
        nonlocal told
        if not told:
            say(f"trying again for up to a minute: {record.getMessage()}")
        told = True
        return False

    log = logging.getLogger("huggingface_hub.utils._http")
    log.addFilter(once)
    try:
        yield
    finally:
        log.removeFilter(once)
