"""Files and folders are written whole or not at all, and never over what the command reads."""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from errno import EDQUOT, EFBIG, EINVAL, EISDIR, ENOSPC, ENOSYS, EOPNOTSUPP
from pathlib import Path
from secrets import token_hex
from stat import S_IMODE

from ..errors import FcosError
from . import remote

WINDOWS = os.name == "nt"
_MARK = ".writing-"
_FULL = (ENOSPC, EDQUOT, EFBIG)
_ROOM = 1 << 16  # bytes: a disk with less is full
_NO_ROOM = re.compile(r"basic_ios::clear|\d requested and \d+ written")  # OpenVINO, numpy
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE | re.DOTALL)


def file_name(name: str) -> str:
    """`name`, which has no folder, as this system can give it to a file. Only Windows needs another: one without
    <>:"/\\|?* and control characters, without a dot or space at the end, and not of a device (con, aux, com1)."""
    if not WINDOWS:
        return name
    name = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name).rstrip(". ") or "_"
    return f"_{name}" if _DEVICE.fullmatch(name) else name


def plain_number(path: Path) -> int | None:
    """The number that a file is called by, such as 10 of 000010.jpg; None where its name is more, or above 9 digits."""
    return int(path.stem) if path.stem.isdecimal() and len(path.stem) < 10 else None


def text_name(name: str) -> str:
    """A name, or a text with names in it, that any file and program takes: half characters, which stand there for what
    is no UTF-8, are written out.

    >>> print(text_name("\\udcff.png"))
    \\udcff.png
    """
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


def folded(name: str) -> str:
    """A name as a file system sees it that does not tell A from a, nor one spelling of é from another (that of macOS
    from that of others)."""
    name = name.casefold()
    return name if name.isascii() else unicodedata.normalize("NFC", name)


# --------------------------------------------------------------------------- sources


@dataclass
class _Seen:
    """The files that one command has read, those that it has written, and what else is its own. A file is known by its
    device and number, whatever name leads to it."""

    read: set[tuple[int, int]] = field(default_factory=set)
    written: set[tuple[int, int]] = field(default_factory=set)
    own: set[Path] = field(default_factory=set)


_commands: list[_Seen] = []  # the last is the one that runs


@contextmanager
def sources_kept() -> Iterator[None]:
    """Within it, which is for the length of a command, no file that was read is written over: an image, labels,
    weights, a list. The readers tell what they open (`noticed`), and `write_whole` and `whole` refuse."""
    _commands.append(_Seen())
    try:
        yield
    finally:
        _commands.pop()


def noticed(status: os.stat_result) -> None:
    """A file that is read, by what the system says of it."""
    if _commands and (key := (status.st_dev, status.st_ino)) not in _commands[-1].written:
        _commands[-1].read.add(key)


def own(path: Path) -> None:
    """A file or folder that the program made and keeps up, such as that of a run: it may be written anew."""
    if _commands:
        _commands[-1].own.add(real(path))


def check_kept(path: Path) -> None:
    """FcosError where the command has read what stands at `path`, and writing there would lose it."""
    if not _commands:
        return
    try:
        status = path.stat()
        seen = _commands[-1]
        lost = (status.st_dev, status.st_ino) in seen.read and not seen.own & {place := real(path), *place.parents}
    except (OSError, ValueError):
        return  # nothing is there, or the writing says what is wrong
    if lost:
        raise FcosError(f"{path} is read by this command and would be overwritten; give another --out")


# --------------------------------------------------------------------------- writing


def write_whole(path: str | Path, content: bytes | str | Callable[[Path], object]) -> Path:
    """Write beside `path`, then move into place, so that a reader or a crash never meets half a file.

    `content` is the bytes, the text, or a function that writes to the path it is given. FcosError when the
    disk is full, the folder cannot be written, or `path` is a source of the command; what stood there before stays.
    """
    with whole(path) as temporary:
        if callable(content):
            content(temporary)
        else:
            # a path that is no UTF-8 may stand in a text
            temporary.write_bytes(text_name(content).encode() if isinstance(content, str) else content)
    return Path(path)


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A path to write to; what is there at the end of the `with` becomes `path`, and after an error nothing does.
    Errors as `write_whole`.

    It lies beside `path` and is moved to it. Within a `whole_set` the set does that at its end. For a URL it is a file
    of this machine, which is uploaded.
    """
    path = Path(path)
    if remote.is_remote(path):
        with scratch() as folder:
            near = folder / path.name
            near.touch()
            yield near
            remote.put(near, path)
        return
    check_kept(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _fresh(path.parent, path.suffix[-16:])
        temporary.touch(exist_ok=False)
        permissions = S_IMODE(temporary.stat().st_mode)  # kept: `content` may put another file there
        yield temporary
        with temporary.open("r+b") as written:  # Windows refuses to flush what is open for reading
            _flush(written.fileno())
        with suppress(PermissionError):  # of a network disk that gives all files the permissions it likes
            temporary.chmod(permissions)
        if path.is_dir():
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        waiting = _waiting.get()
        if waiting is not None and not path.name.startswith(_MARK):
            waiting.append((temporary, path))
            temporary = None
        else:
            _place(temporary, path)
    except Exception as error:
        reason = None if isinstance(error, FcosError) else disk_reason(error)
        if reason is None or path.name.startswith(_MARK):  # the file around this one has the name that the user knows
            raise
        raise FcosError(f"cannot write {path}: {reason}; what was there before is untouched") from error
    finally:
        if temporary is not None and temporary.exists():
            temporary.unlink()


def _flush(file: int) -> None:
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (EINVAL, ENOSYS, EOPNOTSUPP):  # of a file system that cannot be asked for it
            raise


def _place(temporary: Path, path: Path) -> None:
    temporary.replace(path)
    if _commands:
        with suppress(OSError):
            status = path.stat()
            _commands[-1].written.add((status.st_dev, status.st_ino))
            _commands[-1].read.discard((status.st_dev, status.st_ino))  # a number is used again


_waiting: ContextVar[list[tuple[Path, Path]] | None] = ContextVar("waiting", default=None)


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as the text of a CSV file."""
    import csv

    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


@contextmanager
def whole_set() -> Iterator[None]:
    """Files that belong together. What this thread writes within it, by `write_whole` and `whole`, stays hidden beside
    its place until the end, when all of it moves there; after an error none does, and all that was there before stays.
    (Files of a URL are uploaded one by one.)"""
    if _waiting.get() is not None:  # a part of a larger set
        yield
        return
    files: list[tuple[Path, Path]] = []
    token = _waiting.set(files)
    try:
        yield
        for temporary, path in files:
            try:
                _place(temporary, path)
            except OSError as error:
                raise FcosError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        _waiting.reset(token)
        for temporary, _ in files:
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` at the end of the `with`; after an error nothing of it stays. `path` is
    not there yet, or an empty folder, which then stays the folder it is: it may be where somebody stands, or a disk."""
    there = path.is_dir()
    if not there:
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _fresh(path if there else path.parent)
    temporary.mkdir()
    try:
        yield temporary
        if there:
            for child in sorted(temporary.iterdir()):
                child.rename(path / child.name)
        else:
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fresh(folder: Path, suffix: str = "") -> Path:
    """A path in `folder` where nothing is. What is made there has the permissions of any new file or folder; to ask for
    the umask would be to set it, and two threads that did so at once could leave it at 0."""
    return folder / f"{_MARK}{token_hex(8)}{suffix}"


def is_full(folder: Path) -> bool:
    """Whether the disk of a folder has no room: some libraries do not say why a file could not be written."""
    return shutil.disk_usage(folder).free < _ROOM


def disk_reason(error: BaseException) -> str | None:
    """What the system said about a failed write, such as "No space left on device"; None for other errors.

    torch raises a RuntimeError on top of the OSError, safetensors an error of its own with the number in its text, and
    OpenVINO and numpy errors without a number.
    """
    if _NO_ROOM.search(str(error)):
        return "the disk is full, or refuses the file"
    number = re.search(r"\(os error (\d+)\)", str(error))
    if number:
        return os.strerror(int(number[1]))
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return cause.strerror or str(cause)
        cause = cause.__cause__ or cause.__context__
    return None


@contextmanager
def scratch(what: str = "") -> Iterator[Path]:
    """A folder for what is needed within the `with` alone, where the system keeps such (TMPDIR); `what`: a word of its
    name. FcosError, with what to do, where that cannot be written or is full."""
    fix = "set TMPDIR to a folder with room"
    try:
        made = tempfile.TemporaryDirectory(prefix=f"fcos-{what}")
    except OSError as error:
        raise FcosError(f"cannot make a temporary folder: {error.strerror or error}; {fix}") from error
    with made as folder:
        try:
            yield Path(folder)
        except Exception as error:
            if not _for_want_of_room(error):
                raise
            reason = disk_reason(error)
            raise FcosError(f"cannot write temporary files in {Path(folder).parent}: {reason}; {fix}") from error


def _for_want_of_room(error: BaseException) -> bool:
    """Whether a write failed for want of room, as `disk_reason` tells it."""
    if _NO_ROOM.search(str(error)) or re.search(rf"\(os error ({'|'.join(map(str, _FULL))})\)", str(error)):
        return True
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.errno in _FULL):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def sweep(folder: Path) -> None:
    """Remove what a killed `write_whole` left half written in `folder`."""
    for path in folder.glob(f"{_MARK}*"):
        path.unlink(missing_ok=True)


def half_written(path: Path) -> bool:
    """Whether `write_whole` is at it, or was when it was killed."""
    return path.name.startswith(_MARK)


# --------------------------------------------------------------------------- checks of what a person named


def stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file, by which one that has changed is known; the same for any that is not there."""
    try:
        status = path.stat()
    except OSError:
        return (-1, -1)
    return status.st_size, status.st_mtime_ns


def is_there(path: Path) -> bool:
    """Whether there is such a file, here or in a store; no for a name that no file can have."""
    if remote.is_remote(path):
        return remote.is_file(path)
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def real(path: Path) -> Path:
    """Where a path leads, links followed; the path itself where no file can have such a name. Links in a circle, at
    which `Path.resolve` fails, are left as they are."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return path


def names_in(folder: Path) -> list[str]:
    """The names right below a folder, here or in a store; none where it is not there."""
    if remote.is_remote(folder):
        return remote.names(folder)
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def check_folder(path: Path | None, option: str = "--out") -> None:
    """FcosError when `path`, which is to become a folder, is a file."""
    if path is not None and path.exists() and not path.is_dir():
        raise FcosError(f"{option} {path} is a file; name a folder")


def check_suffix(path: Path, suffixes: tuple[str, ...], what: str, option: str = "--out") -> None:
    """FcosError when the name of a file to write is not that of `what`: it may be a file of another kind."""
    if path.suffix.lower() not in suffixes:
        raise FcosError(f"{option} {path}: {what}; give it a name that ends in {' or '.join(suffixes)}")


PAGE = (".html", ".htm")
ASSETS = Path(__file__).parent.parent / "assets"  # what the package ships: weights, photographs, digits
