"""The control groups that limit a process, such as those of a container or a job."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path, PurePosixPath

UNKNOWN = 1 << 62  # bytes of free memory: let the allocation decide


def groups(root: Path, what: str) -> list[Path]:
    """The folders of the control groups that limit `what` of this process, of version 1 and 2, up to the outermost."""
    found = [root / "sys/fs/cgroup", root / "sys/fs/cgroup" / what]  # a container sees its own at the top
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds and what not in kinds.split(","):
                continue
            top, inner = found[bool(kinds)], PurePosixPath(path.lstrip("/"))
            if ".." not in inner.parts:
                found += [top / part for part in (inner, *inner.parents) if part.parts]
    return found


def time_in(group: Path) -> float:
    """The cores of which a control group gets the time."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        most, period = (group / "cpu.max").read_text().split()
        return int(most) / int(period) if most != "max" else math.inf
    with suppress(OSError, ValueError, ZeroDivisionError):
        most, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(most) / int(period) if int(most) > 0 else math.inf  # -1: no limit
    return math.inf


def left_in(group: Path) -> int:
    """Bytes until the limit of a control group; what files it could drop counts as free."""
    for limit, used, kept in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with suppress(OSError, ValueError, KeyError):
            most = (group / limit).read_text().strip()
            if most != "max":
                stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
                return int(most) - int((group / used).read_text()) + int(stat[kept])
    return UNKNOWN
