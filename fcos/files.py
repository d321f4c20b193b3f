"""Files are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from .errors import FcosError


def write_whole(path: str | Path, content: bytes | str | Callable[[Path], object]) -> Path:
    """Write beside `path`, then move into place, so that a reader or a crash never meets half a file.

    `content` is the bytes, the text, or a function that writes to the path it is given. FcosError when the
    disk is full or the folder cannot be written; what stood at `path` before stays.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        # torch reports a full disk as RuntimeError
        if isinstance(error, RuntimeError) and "write" not in str(error).lower():
            raise
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise FcosError(f"cannot write {path}: {reason}; what was there before is untouched") from error
    finally:
        if temporary is not None and temporary.exists():
            temporary.unlink()
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
