"""The errors a user can meet. Each is one line that names the thing, the value and the fix.

The command line prints the line and exits with code 2; nobody sees a traceback for bad input.
"""

import difflib
import importlib
import operator
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, cast

_PASSWORD = re.compile(r"(\w:/{1,2}[^\s/:@]*):[^\s/]*@")
LONGEST = 700  # characters of a message: what stands in a file may be any length


class FcosError(Exception):
    """Base of every error caused by input, not by a bug. The message is one line for a person, whatever stands in
    the names and values that it quotes.

    >>> try:
    ...     fcos.load("fcos-lite9")
    ... except fcos.FcosError as error:
    ...     print("did you mean fcos-lite" in str(error))
    True
    """

    code = 2  # exit status of the command line

    def __init__(self, message: str = "", details: Sequence[str] = ()) -> None:
        """`details`: lines for the command line to print below, where one line cannot show what was seen."""
        super().__init__(one_line(str(message)))
        self.details = "\n".join(one_line(line) for line in details)


def one_line(text: str, limit: int = LONGEST) -> str:
    """`text` as one line that any terminal shows: line ends, control characters, half characters and marks that turn
    the direction of writing as escapes such as \\n; cut in the middle where it is longer than `limit`."""
    text = without_password(text)
    if len(text) > 4 * limit:  # before its characters are looked at one by one
        text = text[: 2 * limit] + text[-2 * limit :]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= limit else f"{text[: limit - limit // 3 - 5]} ... {text[-(limit // 3) :]}"


def without_password(text: str) -> str:
    """`text` with *** for the password of each address in it.

    >>> without_password("rtsp://admin:secret@10.0.0.7/live")
    'rtsp://admin:***@10.0.0.7/live'
    """
    return _PASSWORD.sub(r"\1:***@", text) if "@" in text else text


def first_line(error: BaseException, most: int | None = None) -> str:
    """The first line of what a library says, cut after `most` signs, or the kind of its error where it says nothing."""
    return (next(iter(str(error).strip().splitlines()), "").strip() or type(error).__name__)[:most]


class ConfigError(FcosError):
    """A setting that does not exist or has a wrong value."""


class DataError(FcosError):
    """A data set that cannot be used as it is."""


class ImageError(DataError):
    """One image that cannot be read."""


class ImageWarning(UserWarning):
    """An image that was read, but not as it was meant, or a folder that was not; the message is one line."""


class DarkImage(ImageWarning):
    """An image of 16 bits that uses only the lowest `bits` of them, so that it is seen dark; `name` is its file. The
    message does not name it, as all images of a camera are alike in that, and one note is enough."""

    def __init__(self, name: str, bits: int) -> None:
        seen = "nearly black" if bits <= 12 else "dark"
        super().__init__(
            f"an image of 16 bits uses only the lowest {bits} of them, so it is seen {seen}; if its camera gives "
            f"{bits} bits, multiply its numbers by {1 << 16 - bits}, or save it with 8 bits"
        )
        self.name = name
        self.bits = bits

    def __reduce__(self) -> tuple[Any, ...]:
        return DarkImage, (self.name, self.bits)


class ModelError(FcosError):
    """A model name, weights file or checkpoint that cannot be used."""


class DeviceError(FcosError):
    """A device that is not there."""


class OtherProcess(FcosError):
    """Another process of the run has met an error and tells of it; there is nothing more to print."""

    def __init__(self, line: str, code: int = 2) -> None:
        super().__init__(line)
        self.code = code


class LostProcess(FcosError):
    """Another process of the run was killed, has crashed or cannot be reached: no mistake of the user's."""


class MissingExtra(FcosError):
    """An optional dependency that is not installed; the message is the install line."""


def nearest(name: object, known: Iterable[str], count: int = 1, cutoff: float = 0.6) -> list[str]:
    """At most `count` of the known names that look like `name`, the likest first; cutoff 0..1, 1: equal."""
    return difflib.get_close_matches(str(name), list(known), count, cutoff)


def did_you_mean(name: object, known: Iterable[str], otherwise: str, count: int = 1) -> str:
    """The end of a message about a name that does not exist: the nearest that do, or `otherwise`."""
    near = nearest(name, known, count)
    return f"did you mean {' or '.join(near)}?" if near else otherwise


def no_attribute(thing: object, name: str, elsewhere: Mapping[str, str]) -> AttributeError:
    """The error for an attribute that `thing` lacks, for its `__getattr__`; `elsewhere` says how what other programs
    call so is had here."""
    if hasattr(type(thing), name):  # a property that failed: its own error
        object.__getattribute__(thing, name)
    told = f"; write {elsewhere[name]}" if name in elsewhere else ""
    return AttributeError(f"{type(thing).__name__!r} object has no attribute {name!r}{told}", name=name, obj=thing)


def check_names(given: Iterable[str], known: Iterable[str], of: str) -> None:
    """ConfigError for an option of a function that it does not have."""
    names = list(known)
    for name in given:
        if name not in names:
            hint = did_you_mean(name, names, f"choose from {', '.join(names)}")
            raise ConfigError(f"{of} has no option {name!r}; {hint}")


def check_count(name: str, value: object) -> None:
    """ConfigError for an option that is no whole number of 1 or more."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or operator.index(value) < 1:
        raise ConfigError(f"{name}={value!r}: give a whole number, 1 or more")


def or_near(path: str | Path, wanted: Callable[[Path], bool] = lambda path: True) -> str:
    """The end of a message about a path that does not exist: "; did you mean RUNS/MINE?" where something near it does
    that is `wanted`, else empty. A mistake may be in each of its parts."""
    path = Path(path)
    there = path if path.is_absolute() else Path(".") / path
    missing: list[str] = []
    while not _is_folder(there):
        if there == there.parent:  # not even its drive
            return ""
        missing.append(there.name)
        there = there.parent
    for left in range(len(missing) - 1, -1, -1):
        name = missing[left]
        if not os.path.lexists(there / name):
            near = _sibling(there, name, wanted if left == 0 else _is_folder)
            if near is None:
                return ""
            name = near
        there = there / name
    return f"; did you mean {there}?" if not os.path.lexists(path) else ""  # else it is a link to nowhere


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that is too long, or that no system takes
        return False


def _sibling(folder: Path, name: str, wanted: Callable[[Path], bool]) -> str | None:
    """The name in `folder` that is nearest to `name`, among the first 2,000, and wanted; a common suffix makes none
    near."""
    try:
        with os.scandir(folder) as entries:
            known = [entry.name for entry in islice(entries, 2000)]
    except OSError:
        return None
    stem = os.path.splitext(name)[0]
    close = (other for other in nearest(name, known, 5) if nearest(stem, [os.path.splitext(other)[0]]))
    return next((other for other in close if wanted(folder / other)), None)


def worded(reason: str) -> str:
    """What pydantic says of a wrong value, in the middle of a sentence and said once: "it should be a valid number"."""
    reason = reason.replace("Value error, ", "").replace("Input should be", "it should be")
    return re.sub(r", unable to (parse|interpret)\b.*", "", reason)


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise `MissingExtra` naming the pip extra that brings it."""
    _silence()
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"this needs {module.partition('.')[0]}, which is not installed: {install_line(extra)} ({error})"
        ) from error


def _silence() -> None:
    """onnxruntime, OpenVINO and NNCF report to their makers from the moment they are imported. This package promises
    that nothing is reported, so they are told not to before that; ORT_DISABLE_TELEMETRY=0 lets onnxruntime."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.modules.setdefault("openvino_telemetry", cast(ModuleType, None))  # an import of it fails, which both allow for


def install_line(extra: str) -> str:
    """How to install an extra: from the index, or from the clone that this package runs from."""
    clone = Path(__file__).resolve().parents[1]
    try:
        here = 'name = "fcos-detector"' in (clone / "pyproject.toml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        here = False
    return f"pip install -e '{clone}[{extra}]'" if here else f"pip install 'fcos-detector[{extra}]'"
