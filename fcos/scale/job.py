"""A job: a list of images, cut into parts, and a file for each part that is done.

DIR/job.json        what is detected with, in what; written last when a job begins, so that a job is there or is not
DIR/paths.jsonl     the paths, sorted, none twice, a JSON text a line
DIR/starts.npy      where in that file each part begins, in bytes
DIR/parts/part-00000012.parquet     rows 12 n to 12 n + n - 1; whole, or not there

So a part is done if and only if its file is there: whoever goes on with a job does the parts that are not, and nothing
else has to be remembered. The list is the job's own: images that come later belong to another job.
"""

from __future__ import annotations

import heapq
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..data.records import evenly
from ..errors import DataError, FcosError
from ..inference.sources import find_images, images_below
from ..system.files import check_folder, is_there, names_in, own, sweep, whole, write_whole
from ..system.readers import open_file, parse_array, read_bytes, read_json
from ..system.remote import is_file as remote_file
from ..system.remote import is_remote, url_of
from ..types import Classes
from .detector import Work
from .rows import Count, Form, Row, count_part, read_part

_SORTED = 200_000  # paths that are sorted in memory at a time
_RUNS = 200  # sorted files that are merged at a time
_LARGEST = 1000  # images of a part
_IN_WORK = 256  # of the images at most one in so many is lost per worker, where it is killed
_LOOKED_AT = 20  # parts that are asked whether their images are there
_LIST = 1 << 40  # bytes of the list of paths


@dataclass(frozen=True)
class Job:
    """A job in the folder `folder`: `images` paths in parts of `size`, each a file of the kind `form`; `model` is
    `Work.digest`, `settings` what else decides the rows."""

    folder: Path
    sources: tuple[str, ...]
    images: int
    size: int
    form: Form
    model: str
    classes: Classes
    settings: dict[str, Any]

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return -(-self.images // self.size)

    def images_in(self, part: int) -> int:
        """How many images a part has: `size`, of the last one what is left."""
        return min(self.size, self.images - part * self.size)

    def file(self, part: int) -> Path:
        """Where a part is when it is done."""
        return self.folder / "parts" / f"part-{part:08d}.{self.form}"

    def done(self) -> np.ndarray:
        """Whether each part is done, [parts] bool, by one look into the folder."""
        done = np.zeros(self.parts, bool)
        for name in names_in(self.folder / "parts"):
            stem, _, suffix = name.partition(".")
            number = stem.removeprefix("part-")
            if suffix == self.form and stem.startswith("part-") and number.isdecimal() and int(number) < self.parts:
                done[int(number)] = True
        return done

    def starts(self) -> np.ndarray:
        """Where each part begins in the list of paths, and where the list ends [parts + 1] int64; DataError where the
        file says something else."""
        file = self.folder / "starts.npy"
        starts = parse_array(read_bytes(file, _LIST, DataError))
        if starts is None:
            starts = np.empty(0)
        right = starts.shape == (self.parts + 1,) and starts.dtype == np.int64
        if not right or starts[0] != 0 or (np.diff(starts) < 0).any():
            raise DataError(f"{file} is damaged; start a new job in another folder")
        return starts

    def paths(self, part: int, starts: np.ndarray) -> list[str]:
        """The images of a part."""
        with open_file(self.folder / "paths.jsonl", _LIST, DataError) as file:
            file.seek(int(starts[part]))
            data = file.read(int(starts[part + 1] - starts[part])) or b""
            told = f"{self.folder / 'paths.jsonl'}, part {part},"
        try:  # not by the reader, which refuses the half characters of names that are no UTF-8
            paths = [json.loads(line) for line in data.splitlines()]
        except (ValueError, RecursionError):
            paths = []
        if len(paths) != self.images_in(part) or not all(isinstance(path, str) for path in paths):
            raise DataError(f"{told} does not hold the paths it should; start a new job in another folder")
        return paths

    def count(self, parts: Iterable[int]) -> Count:
        """What is in some parts that are done."""
        total = Count()
        for part in parts:
            total = total.plus(count_part(self.file(part), self.form))
        return total

    def write(self) -> None:
        """Write job.json, by which the folder is a job."""
        told = {
            "sources": list(self.sources),
            "images": self.images,
            "size": self.size,
            "form": self.form,
            "model": self.model,
            "classes": {"names": list(self.classes.names), "ids": list(self.classes.ids)},
            "settings": self.settings,
        }
        write_whole(self.folder / "job.json", json.dumps(told, indent=1) + "\n")

    def check_reachable(self) -> None:
        """FcosError where the next images have relative paths and none of them is found: the job would count them as
        unreadable for good."""
        left = np.flatnonzero(~self.done())
        if any(source != "-" and Path(os.path.expanduser(source)).exists() for source in self.sources):
            return
        some = left[evenly(len(left), _LOOKED_AT)]
        starts = self.starts()
        paths = [path for part in some.tolist() for path in self.paths(part, starts)]
        if paths and not any(is_remote(path) or Path(path).is_absolute() or Path(path).exists() for path in paths):
            raise FcosError(
                f"{self.folder}: its images are not found from here, such as {paths[0]}; go on in the folder in which "
                "the job was begun"
            )

    def rows(self) -> Iterator[Row]:
        """All rows in the order of the list; DataError where the job is not done."""
        open_parts = int((~self.done()).sum())
        if open_parts:
            raise DataError(f"{self.folder} is not complete: {open_parts} of {self.parts} parts are missing; --resume")
        for part in range(self.parts):
            yield from read_part(self.file(part), self.form)


# --------------------------------------------------------------------------- opening


@dataclass(frozen=True)
class Order:
    """What is asked for: where, in which images, as what kind of files, by how many workers."""

    folder: Path
    sources: tuple[str, ...]
    form: Form = "parquet"
    workers: int = 1
    resume: bool = False


def open_job(order: Order, work: Work) -> Job:
    """The job in the folder, to go on with, or a new one. FcosError where it is another job, or there is one and
    nobody said `resume`."""
    far = is_remote(order.folder)
    if not far:
        check_folder(order.folder)
    (_, classes), model, settings = work.check(), work.digest(), _deciding(work)
    there = read_job(order.folder)
    if there is None:
        if not order.resume and names_in(order.folder):
            raise FcosError(f"--out {order.folder} is not empty; name a new folder")
        images, size = _listed(order)
        job = Job(order.folder, order.sources, images, size, order.form, model, classes, settings)
        job.write()
        return job
    if not order.resume:
        raise FcosError(f"{order.folder} holds a job already; --resume goes on with it, or name another folder")
    changed = {
        "images": (list(there.sources), list(order.sources)),
        "model": (there.model, model),
        "--parts": (there.form, order.form),
        **{key: (there.settings.get(key), value) for key, value in settings.items()},
    }
    for name, (before, now) in changed.items():
        if before != now:
            raise FcosError(
                f"{order.folder} was begun with other {name}: {before!r}, not {now!r}; give those to go on, or name "
                "another folder"
            )
    if not far:
        own(order.folder)
        sweep(order.folder)
        sweep(order.folder / "parts")
    there.check_reachable()
    return there


def read_job(folder: Path) -> Job | None:
    """The job in a folder; None where there is none."""
    file = folder / "job.json"
    if not is_there(file):
        return None
    told = read_json(file, kind=DataError)
    if isinstance(told, dict) and told.get("inclusive"):
        raise DataError(f"{file} is a job of an earlier version, whose boxes end a pixel earlier; give another --out")
    try:
        classes = Classes(tuple(told["classes"]["names"]), tuple(told["classes"]["ids"]))
        images, size, form = int(told["images"]), int(told["size"]), told["form"]
        if not (1 <= size <= _LARGEST and 1 <= images < 1 << 40 and form in ("parquet", "jsonl")):
            raise ValueError
        return Job(
            folder,
            tuple(told["sources"]),
            images,
            size,
            form,
            told["model"],
            classes,
            dict(told["settings"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, FcosError):
        raise DataError(f"{file} does not describe a job of fcos predict") from None


def _deciding(work: Work) -> dict[str, Any]:
    """The settings that decide the rows; where and with how many threads does not."""
    told = asdict(work)
    settings = {key: told[key] for key in ("score", "runtime", "dtype", "tile", "overlap", "tta")}
    return {**settings, "overrides": list(work.overrides)}


def _listed(order: Order) -> tuple[int, int]:
    """Write the list of images and where its parts begin: (images, images of a part)."""
    images = 0
    with whole(order.folder / "paths.jsonl") as file:
        with file.open("w", encoding="ascii") as listed:
            for line in _sorted(json.dumps(path) for path in _each(order)):
                listed.write(line + "\n")
                images += 1
        if not images:
            raise DataError("there are no images to detect in")
        size = max(1, min(_LARGEST, images // (_IN_WORK * max(1, order.workers))))
        starts = _starts(file, size)
    write_whole(order.folder / "starts.npy", lambda p: _save(p, starts))
    return images, size


def _save(path: Path, values: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, values)


def _starts(listed: Path, size: int) -> np.ndarray:
    """Where each part of `size` lines begins, and where the last ends, in bytes."""
    starts = [0]
    with listed.open("rb") as file:
        while block := list(islice(file, size)):
            starts.append(starts[-1] + sum(map(len, block)))
    return np.array(starts, np.int64)


def _each(order: Order) -> Iterator[str]:
    """The images behind the sources, as they come; see `find_images`. Of a folder and of standard input one at a
    time."""
    for source in order.sources:
        path = Path(os.path.expanduser(source))
        if source == "-":
            yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
        elif source.strip() and (path.is_dir() or (is_remote(source) and not remote_file(source))):
            empty = True
            for image in images_below(path, order.folder):
                empty = False
                yield url_of(image)
            if empty:
                find_images([source], out=order.folder)  # says so
        else:
            yield from map(url_of, find_images([source], out=order.folder))


def _sorted(lines: Iterable[str]) -> Iterator[str]:
    """Lines in order, none twice, in memory that does not grow with their number."""
    rest = iter(lines)
    with ExitStack() as stack:

        def spilled(block: Iterable[str]) -> IO[str]:
            file = stack.enter_context(tempfile.TemporaryFile("w+", encoding="ascii"))
            file.writelines(line + "\n" for line in block)
            file.seek(0)
            return file

        runs: list[IO[str]] = []
        while taken := list(islice(rest, _SORTED)):
            block = sorted(set(taken))
            if not runs and len(taken) < _SORTED:
                yield from block
                return
            if len(runs) == _RUNS:  # a process may have so many files open
                runs = [spilled(_merged(runs))]
            runs.append(spilled(block))
        yield from _merged(runs)


def _merged(runs: Sequence[IO[str]]) -> Iterator[str]:
    last = None
    for line in heapq.merge(*((line.rstrip("\n") for line in run) for run in runs)):
        if line != last:
            yield line
        last = line
    for run in runs:
        run.close()
