"""Walks over the folders and files below a folder: links are followed, but no folder is entered twice."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import suppress
from errno import ELOOP, ENOENT, ENOTDIR
from pathlib import Path

from ..errors import DataError, ImageWarning


def folders_below(root: Path) -> Iterator[Path]:
    """`root` and every folder in it, deeply. Links are followed, but no folder is entered twice; hidden ones are left
    out, as are those that a link names and `root` itself lies in, and, with a note, those that cannot be read.
    DataError where that is `root`."""
    seen = parents_of(root)
    rest = [root]
    while rest:
        folder = rest.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                inner = [e.name for e in entries if not e.name.startswith(".") and _is_folder(e)]
        except OSError as error:
            tell_unreadable(folder, root, error)
            continue
        yield folder
        rest += [folder / name for name in sorted(inner, reverse=True)]


def tell_unreadable(folder: str | Path, root: str | Path, error: OSError) -> None:
    """Tell that a folder, met on a walk below `root`, cannot be read; DataError where it is `root`. One that is gone is
    nothing to tell."""
    if error.errno in (ENOENT, ENOTDIR, ELOOP):
        return
    reason = error.strerror or error
    if os.fspath(folder) == os.fspath(root):
        raise DataError(f"cannot read the folder {folder}: {reason}") from error
    warnings.warn(f"the folder {folder} cannot be read ({reason}), so what is in it is left out", ImageWarning, 3)


def parents_of(root: str | Path) -> set[tuple[int, int]]:
    """Device and number of each folder that `root` lies in: a link that leads there would lead to everything."""
    seen = set()
    for folder in Path(root).resolve().parents:
        with suppress(OSError):
            status = folder.stat()
            seen.add((status.st_dev, status.st_ino))
    return seen


def files_below(root: Path) -> Iterator[Path]:
    """All but folders in the folders of `folders_below`, hidden files and what a killed `write_whole` left aside."""
    for folder in folders_below(root):
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if not e.name.startswith(".") and not _is_folder(e)]
        yield from (folder / name for name in names)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or into a folder that is closed to us
        return False
