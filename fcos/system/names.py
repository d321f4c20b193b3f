"""Names of classes as people write them: upper case, spaces, "-" and "_" do not matter."""

from __future__ import annotations

import re
from collections.abc import Sequence

UNKNOWN = -1  # a name that is not there


def fold(name: str) -> str:
    """What two names that mean the same have in common."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def find_class(name: str, names: Sequence[str]) -> int:
    """The number of the class of that name; -1 where there is none, or several come as near."""
    if name in names:
        return names.index(name)
    near = [k for k, other in enumerate(names) if fold(other) == fold(name)]
    return near[0] if len(near) == 1 else UNKNOWN
