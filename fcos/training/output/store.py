"""A run whose folder is in a store: it works in a folder of this machine and uploads files after each checkpoint."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from ...errors import FcosError
from ...system import remote
from ...system.environment import CONFIG_FILE
from ...system.files import half_written, scratch
from ...system.walk import files_below
from .folder import alone, taken

_NOT_SENT = ("run.lock",)
_STATE = "checkpoint-"


def begin_away(url: str, resume: bool) -> Path:
    """The folder of this machine in which the run of `url` works. For a resume it holds what is in the store; a new run
    begins empty. FcosError where the store has no such run, one that is not to be resumed, or where a process of this
    machine works in that folder."""
    there, folder = remote.names(url), remote.place_of(url)
    # of several processes of this machine, as torchrun or srun counts them
    first = (os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID", "0")) == "0"
    if resume:
        if not there:
            raise FcosError(f"there is no run at {url}")
        newest = max((name for name in there if name.startswith(_STATE)), default="")

        def stays(path: Path) -> bool:
            """What a run has here and not in the store: its lock, and what it had no time to upload."""
            newer = path.name.startswith(_STATE) and path.name > newest
            return newer or path.name in _NOT_SENT or half_written(path)

        with alone(folder, "run") if first else nullcontext():
            return remote.local(url, stays=stays)
    if CONFIG_FILE in there:
        raise taken(url)
    if first:
        with alone(folder, "run"):
            shutil.rmtree(folder, ignore_errors=True)
    return folder


class Away:
    """The run folder in the store. `push` makes it what the folder here is; nothing where there is no URL."""

    def __init__(self, folder: Path, url: str | None) -> None:
        self.folder, self.url = folder, url
        self._sent: dict[str, tuple[int, int]] = {}

    def push(self) -> None:
        """Upload what has changed, the checkpoint last, and then remove what is gone. So at any moment the newest
        checkpoint in the store has all files that a resume from it needs. FcosError where the store refuses."""
        if self.url is None:
            return
        here = dict(self._files())
        for name in sorted(here, key=lambda name: (name.startswith(_STATE), name)):
            if self._sent.get(name) == here[name]:
                continue
            with scratch() as folder:
                copy = folder / "file"
                try:
                    shutil.copyfile(self.folder / name, copy)  # training may write to it meanwhile
                except FileNotFoundError:
                    continue
                remote.put(copy, f"{self.url.rstrip('/')}/{name}")
            self._sent[name] = here[name]
        for name in [*self._sent]:
            if name not in here:
                remote.remove(f"{self.url.rstrip('/')}/{name}")
                del self._sent[name]

    def known(self) -> None:
        """What lies here and in the store is the same: a resume begins so."""
        if self.url is not None:
            there = {url.removeprefix(self.url).lstrip("/") for url in remote.below(self.url)}
            self._sent = {name: state for name, state in self._files() if name in there}

    def _files(self) -> Iterator[tuple[str, tuple[int, int]]]:
        for path in files_below(self.folder):
            name = path.relative_to(self.folder).as_posix()
            if name not in _NOT_SENT:
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                yield name, (status.st_size, status.st_mtime_ns)
