"""What one process at a time may do. The system frees a lock when its process ends, however it ends."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout


class Lock:
    """A file that one process at a time holds; used with `with`, it waits for the others as long as they like.

    Taking it raises OSError where its folder cannot be written or the file system has no locks.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = FileLock(file)

    def take(self, wait: float | None = 0) -> bool:
        """Hold the file, which is made with its folder; False where another process has it for `wait` seconds still.
        None waits without an end."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=-1 if wait is None else wait)
        except Timeout:
            return False
        except NotImplementedError as error:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)) from error
        return True

    def release(self) -> None:
        """Let another process have it."""
        self._lock.release()

    def remove(self) -> None:
        """Let go for good: the file goes too."""
        self.file.unlink(missing_ok=True)
        self._lock.release()

    def __enter__(self) -> Lock:
        self.take(None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()
