"""A run that must be over at a given time: from the start of the process to its end."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

LOOK = 0.6  # share of the training time after which the number of steps may be lowered, once
_OLDEST = 600.0  # seconds that a process may have been importing
_PACE = 60  # steps that the pace is the mean of


def process_age(proc: Path = Path("/proc")) -> float:
    """Seconds since this process was started by the shell: imports count. Where the system does not tell, its
    processor time, which is most of that; nor does a container that counts its own time, and processes by the host's.
    """
    used = time.process_time()
    try:
        ticks = int((proc / "self" / "stat").read_text().rpartition(")")[2].split()[19])
        age = float((proc / "uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return used
    return age if used <= age < _OLDEST else used


class Budget(NamedTuple):
    """Minutes, and `start`, the `time.monotonic()` from which they count."""

    minutes: float
    start: float

    @classmethod
    def of_process(cls, minutes: float) -> Budget:
        """Counted from when the shell started this process."""
        return cls(minutes, time.monotonic() - process_age())

    @property
    def left(self) -> float:
        """Seconds."""
        return self.minutes * 60 - (time.monotonic() - self.start)


@dataclass
class Deadline:
    """When a run must be over, and how it keeps to that.

    seconds: that the whole may take. tail: of them, for judging, drawing and saving after the last step. used: those
    gone before this process, of the processes that a resume goes on from. start: `time.monotonic()` when this part of
    the run began. revised: whether the number of steps was lowered already.
    """

    seconds: float
    tail: float
    used: float = 0.0
    start: float = 0.0
    revised: bool = False

    def __post_init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_PACE + 1)
        self._first: float | None = None

    @property
    def left(self) -> float:
        """Seconds of training that are left."""
        return self.seconds - self.tail - self.spent()

    def spent(self) -> float:
        """Seconds gone, of all processes of the run."""
        return self.used + time.monotonic() - self.start

    def look(self, step: int, total: int) -> int:
        """The number of steps the run shall have, `step` of `total` being done; call it after every step.

        It is lowered once, when LOOK of the training time is over and the rest would take too long at the pace of the
        last steps; and to `step`, the end, should the time be up all the same.
        """
        now = time.monotonic()
        if self._first is None:
            self._first = now
        self._times.append(now)
        left = self.left
        if left <= 0:
            return step
        if self.revised or len(self._times) < 3 or now - self._first < LOOK * (now - self._first + left):
            return total
        pace = (self._times[-1] - self._times[0]) / (len(self._times) - 1)
        self.revised = True
        return min(total, step + max(1, int(left / max(pace, 1e-9))))

    def stored(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {**asdict(self), "used": self.spent(), "start": 0.0}

    @staticmethod
    def fits(stored: object) -> bool:
        """Whether `again` can read it: what `stored` gave, or nothing."""
        if stored is None:
            return True
        keys = ("seconds", "tail", "used", "revised")
        numbers = [stored.get(key) for key in keys] if isinstance(stored, dict) else []
        return len(numbers) == len(keys) and all(isinstance(n, int | float) and math.isfinite(n) for n in numbers)

    @classmethod
    def again(cls, stored: Mapping[str, Any], start: float) -> Deadline:
        """That of a run resumed at `start` (`time.monotonic()`), which has what the processes before it left."""
        return cls(
            float(stored["seconds"]),
            float(stored["tail"]),
            float(stored["used"]),
            start,
            bool(stored["revised"]),
        )
