"""Every file from outside enters here: text, JSON and XML, each with its limits and one error; YAML in core_yaml.py.

A reader takes a regular file only (no pipe, no device, no socket), of a size that is judged before it is read,
and raises `kind`, an FcosError, with one line that names the file. What comes out is plain: text, numbers, lists
and mappings, never an object of a class. `FCOS_MAX_MB` raises the limit of every kind of file.
"""

from __future__ import annotations

import codecs
import gc
import math
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from pydantic_core import from_json

from ..errors import FcosError, ImageError, one_line, or_near
from . import remote, tars
from .files import noticed

if TYPE_CHECKING:
    import numpy as np

MB = 1 << 20
TEXT_LIMIT = 256 * MB  # a list of a million images has 100
JSON_LIMIT = 4096 * MB  # Objects365 has 3,000
XML_LIMIT = 16 * MB
PARQUET_LIMIT = 1024 * 1024 * MB  # it is read by parts
DEPTH = 100  # of lists and mappings in each other
RATIO = 200  # a packed file that grows more than this is a bomb; JSON of boxes grows 3 to 20 times
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


# --------------------------------------------------------------------------- bytes and text


def open_file(path: str | Path, limit: int = TEXT_LIMIT, kind: type[FcosError] = FcosError) -> FileIO | BytesIO:
    """A regular file of at most `limit` bytes, open for reading. What cannot be opened, is no regular file or is
    larger is `kind`; nothing waits for a pipe. Of a URL a copy in the cache; of a file in a tar file its bytes."""
    limit = raised(limit)
    path = remote.local(path, kind)
    try:
        # Without O_NONBLOCK the opening of a pipe waits for a writer that may never come.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                what = next((name for test, name in _KINDS if test(status.st_mode)), "something else")
                raise kind(f"cannot read {path}: it is {what}, not a file")
            if status.st_size > limit:
                raise kind(f"cannot read {path}: {_size(status.st_size)} is {_over(limit)}")
            noticed(status)
            return FileIO(handle)
        except BaseException:
            os.close(handle)
            raise
    except OSError as error:
        # below a file: Windows says that there is no such file
        inside = tars.split(path) if isinstance(error, NotADirectoryError | FileNotFoundError) else None
        if inside is not None:
            return BytesIO(tars.read(*inside, limit, kind))
        named = isinstance(error, FileNotFoundError) and not issubclass(kind, ImageError)  # thousands may be missing
        told = f"{(error.strerror or str(error)).lower()}{or_near(path) if named else ''}"
        raise kind(f"cannot read {path}: {told}") from None
    except ValueError:  # NUL in the name, or a surrogate that no file system takes
        raise kind(f"cannot read {str(path)!r}: no file can have this name") from None


def read_bytes(path: str | Path, limit: int = TEXT_LIMIT, kind: type[FcosError] = FcosError) -> bytes:
    """The content of a file that `open_file` opens; nothing is read before the size is known."""
    limit = raised(limit)
    if remote.is_remote(path):
        return remote.read(path, limit, kind)
    try:
        with open_file(path, limit, kind) as file:
            if isinstance(file, BytesIO):
                return file.getvalue()
            # A file of /proc has the size 0 and may have any length.
            data = file.readall() if os.fstat(file.fileno()).st_size else _bounded(file, limit)
    except OSError as error:
        raise kind(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    except MemoryError:
        raise kind(f"cannot read {path}: it does not fit into memory") from None
    if len(data) > limit:  # it has grown meanwhile
        raise kind(f"cannot read {path}: its size is {_over(limit)}")
    return data


def _bounded(file: FileIO, limit: int) -> bytes:
    parts, left = [], limit + 1
    while left > 0 and (part := file.read(min(left, MB))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def raised(limit: int) -> int:
    """`limit` in bytes, or that of FCOS_MAX_MB where it is higher."""
    return max(limit, (_asked("FCOS_MAX_MB") or 0) * MB)


def raised_pixels(limit: int) -> int:
    """`limit` in pixels, or that of FCOS_MAX_MEGAPIXELS where it is higher."""
    return max(limit, (_asked("FCOS_MAX_MEGAPIXELS") or 0) * 1_000_000)


def _asked(name: str) -> int | None:
    """The whole number that a variable of the environment holds; None for anything else."""
    given = os.environ.get(name, "").strip()
    return int(given) if given.isascii() and given.isdigit() and len(given) < 16 else None


def to_raise(name: str) -> str:
    """How a limit is raised by a variable of the environment, in the middle of a message; told too where it is set to
    something else than a whole number, which counts as nothing."""
    given = os.environ.get(name, "").strip()
    wrong = f" to a whole number ({one_line(given, 40)!r} is none)" if given and _asked(name) is None else ""
    return f"set {name}{wrong}"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _over(limit: int) -> str:
    return f"over the limit of {limit // MB} MB; {to_raise('FCOS_MAX_MB')} for a higher one if you trust the file"


def read_text(path: str | Path, limit: int = TEXT_LIMIT, kind: type[FcosError] = FcosError) -> str:
    """A text file in UTF-8, or in UTF-16 or UTF-32 where its first bytes say so; the mark in front is dropped."""
    data = read_bytes(path, limit, kind)
    data, encoding = _unmarked(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        place = f"byte {error.start} is 0x{data[error.start]:02x}" if error.start < len(data) else "it is cut short"
        raise kind(f"cannot read {path}: it is not text in {encoding.upper()} ({place}); save it as UTF-8") from None


def _unmarked(data: bytes, otherwise: str = "utf-8") -> tuple[bytes, str]:
    """(the rest, the encoding) that a byte order mark in front of `data` names."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :], encoding
    return data, otherwise


def read_lines(path: str | Path, limit: int = TEXT_LIMIT, kind: type[FcosError] = FcosError) -> list[str]:
    """The lines of a text file, ended by a newline, as every editor shows them. (`str.splitlines` also ends them at
    U+2028, U+0085 and the like, which may be part of a name.)"""
    lines = read_text(path, limit, kind).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if not lines[-1] else lines


# --------------------------------------------------------------------------- JSON

# What may be a number beyond the largest float, which has 309 digits. A number stands behind one of these signs; the
# names and addresses of images, which are full of such digits, mostly do not.
_HUGE = re.compile(rb"[\s:,\[-]\d[\d.]*(?:[eE]\+?\d{3}|(?<=\d{309}))")
_EXPONENT = re.compile(rb"[eE]\+?\d{3}")
_LOOK = 16 * MB  # at a time, for digits
_ZEROS = bytes.maketrans(b"123456789", b"000000000")


def read_json(
    path: str | Path, limit: int = JSON_LIMIT, kind: type[FcosError] = FcosError, *, nan: bool = False
) -> Any:
    """The value in a JSON file, or in a .gz of one. `nan` lets NaN and Infinity pass, which is no JSON but what
    Python writes. Numbers beyond float64, lone surrogates and more than 200 levels are refused."""
    return _parse(json_bytes(path, limit, kind), str(path), kind, nan)


def json_bytes(path: str | Path, limit: int, kind: type[FcosError]) -> bytes:
    """The text of a JSON file in UTF-8, unpacked, without a mark in front."""
    data = read_bytes(path, limit, kind)
    if data[:2] == b"\x1f\x8b":
        data = _unzip(data, path, limit, kind)
    data, encoding = _unmarked(data)
    if encoding != "utf-8":
        try:
            data = data.decode(encoding).encode()
        except UnicodeError:
            raise kind(f"{path} is not JSON: it is not text in {encoding.upper()}") from None
    return data


def parse_json(text: str | bytes, source: str, kind: type[FcosError] = FcosError, *, nan: bool = False) -> Any:
    """The value of JSON that stands in another file, such as metadata; `source` names it in the error."""
    try:
        return _parse(text.encode() if isinstance(text, str) else text, source, kind, nan)
    except UnicodeEncodeError:
        raise kind(f"{source} is not JSON: it holds half a character") from None


def _parse(data: bytes, source: str, kind: type[FcosError], nan: bool) -> Any:
    if len(data) > 64 * MB:
        from .machine import free_memory

        # What CPython takes for each: a small mapping 232 bytes, a list 64, a value with its place 40.
        needed = len(data) + 232 * data.count(b"{") + 64 * data.count(b"[") + 40 * data.count(b",")
        if needed > free_memory():
            raise kind(f"cannot read {source}: what it holds takes {_size(needed)} of memory, and that is not free")
    try:
        with uncollected():
            value = from_json(data, allow_inf_nan=nan)
        if _may_be_huge(data):  # perhaps only part of a text
            _check_numbers(value, data, nan)
    except ValueError as error:
        reason = str(error)
        if "control character" in reason:
            reason = "a text holds a control character" + reason[reason.rfind(" at line") :]
        elif "recursion" in reason:
            reason = "it is nested deeper than 200 levels"
        elif "hex escape" in reason or "unicode" in reason:
            reason = "it holds text that is not UTF-8" + reason[reason.rfind(" at line") :]
        raise kind(f"{source} is not JSON: {reason}") from None
    except MemoryError:
        raise kind(f"cannot read {source}: what it holds does not fit into memory") from None
    return value


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside, Python does not look for objects that only hold each other: among millions that are all kept it finds
    none, and looks again and again, for a fifth of the time that opening a large data set takes."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _may_be_huge(data: bytes) -> bool:
    """Whether `_HUGE` is in it, by quicker looks first: for a large exponent, and for 309 digits."""
    long = any(b"0" * 309 in data[at : at + _LOOK + 308].translate(_ZEROS) for at in range(0, len(data), _LOOK))
    if not long and _EXPONENT.search(data) is None:
        return False
    return _HUGE.search(data) is not None or _HUGE.match(b" " + data[:400]) is not None


def _check_numbers(value: Any, data: bytes, nan: bool) -> None:
    """ValueError for a number that float64 cannot hold; only called where one might be there."""
    rest = [value]
    infinite = nan and b"Infinity" in data
    while rest:
        item = rest.pop()
        if isinstance(item, dict):
            rest.extend(item.values())
        elif isinstance(item, list):
            rest.extend(item)
        elif isinstance(item, int | float):
            try:
                if math.isinf(item) and not infinite:
                    raise OverflowError
            except OverflowError:
                raise ValueError("a number is too large for a float") from None


def _unzip(data: bytes, path: str | Path, limit: int, kind: type[FcosError]) -> bytes:
    """The content of gzip data, member by member, at most `limit` bytes and RATIO times what went in."""
    most = min(raised(limit), max(raised(64 * MB), len(data) * RATIO))
    parts: list[bytes] = []
    size = 0
    try:
        while data:
            member = zlib.decompressobj(31)
            piece = data
            while not member.eof:
                part = member.decompress(piece, 16 * MB)
                size += len(part)
                if size > most:
                    raise kind(f"cannot read {path}: unpacked it is {_over(most)}")
                parts.append(part)
                piece = member.unconsumed_tail
                if not part and not piece and not member.eof:
                    raise kind(f"cannot read {path}: the packed file is cut short")
            data = member.unused_data.lstrip(b"\0")
    except zlib.error as error:
        raise kind(f"cannot read {path}: it cannot be unpacked ({error})") from None
    except MemoryError:
        raise kind(f"cannot read {path}: unpacked it does not fit into memory") from None
    return b"".join(parts)


def check_archive(path: str | Path, kind: type[FcosError]) -> None:
    """`kind` where a zip file unpacks to much more than it is, as those of torch, which are not packed, never do."""
    try:
        with open_file(path, 1 << 50, kind) as file:
            if file.read(2) != b"PK":
                return
            size = file.seek(0, os.SEEK_END)
            with zipfile.ZipFile(file) as archive:
                total = sum(member.file_size for member in archive.infolist())
            if total > 4 * size + 64 * MB:
                raise kind(f"cannot read {path}: it unpacks to {_size(total)}, which no file of torch.save does")
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # the reader says what is wrong


# --------------------------------------------------------------------------- XML

_DECLARED = re.compile(rb"""\A\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._:-]{1,40})["']""")


def read_xml(path: str | Path, limit: int = XML_LIMIT, kind: type[FcosError] = FcosError) -> Element:
    """The root of an XML file, in any encoding that Python has a codec for. A document type, and with it every
    entity of the file's own, is refused; so are more than 100 levels."""
    data = read_bytes(path, limit, kind)
    text = _decode_xml(data, path, kind)
    try:
        return _parse_xml(text.encode())
    except (expat.ExpatError, ValueError) as error:  # UnicodeEncodeError: half a character
        raise kind(f"{path} is not XML: {error}") from None
    except MemoryError:
        raise kind(f"cannot read {path}: it does not fit into memory") from None


def _decode_xml(data: bytes, path: str | Path, kind: type[FcosError]) -> str:
    declared = _DECLARED.match(data)
    guess = declared[1].decode() if declared else "utf-8"
    if data.startswith((b"<\0", b"\0<")):
        guess = "utf-16-le" if data[:1] == b"<" else "utf-16-be"
    data, encoding = _unmarked(data, guess)
    try:
        return data.decode(encoding)
    except LookupError:
        raise kind(f"cannot read {path}: the encoding {encoding!r} is not known") from None
    except (UnicodeError, ValueError):
        raise kind(f"cannot read {path}: it is not text in {encoding.upper()}") from None


def _parse_xml(data: bytes) -> Element:
    builder = TreeBuilder()
    parser = expat.ParserCreate("utf-8")  # whatever the file declares: it has been decoded
    parser.buffer_text = True
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEPTH:
            raise ValueError(f"it is nested deeper than {DEPTH} levels")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def doctype(*_: object) -> None:
        raise ValueError("it declares a document type, which is not read; delete the line <!DOCTYPE ...>")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = doctype
    parser.Parse(data, True)
    return builder.close()


def parse_array(data: bytes) -> np.ndarray | None:
    """The array of an .npy file; None where it is none. Pickles and .npz files are not read."""
    import numpy as np

    try:
        result: np.ndarray = np.lib.format.read_array(BytesIO(data), allow_pickle=False)
    except Exception:  # numpy reads the header as Python: a damaged one gives errors of the tokenizer and many more
        return None
    return result
