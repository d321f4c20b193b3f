"""Exported graphs that are kept: made of a checkpoint once, checked beside torch once, used from then on.

They lie in the cache folder under `graphs`, each in a folder of its own that is named by what it was made of: the
weights, the settings of the network, the versions of this package, of torch and of the runtime, and the CPU. So none is
ever out of date, and a graph that others made on another machine is not taken for one of this.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from ..config import Config
from ..data.images.reading import image_size, read_image
from ..errors import FcosError, ImageError, MissingExtra, ModelError, first_line
from ..export.about import About, Dtype
from ..export.open import open_runtime, read_about, write_export
from ..export.registry import FORMATS, KEPT
from ..export.runtime import Runtime
from ..network import weights
from ..network.folding import fuse
from ..network.header import StoredPart, parse
from ..system.environment import WEIGHTS, processor
from ..system.files import disk_reason, is_full, own, stamp, write_whole
from ..system.machine import Placement, cache_folder, has_bf16, is_out_of_memory
from ..system.progress import ticking
from ..system.readers import read_bytes
from ..system.stderr import say
from ..types import Classes
from ..version import __version__
from ..zoo.download import sha256
from ..zoo.find import load_network
from .detector import Detector

MOST = 8  # graphs that are kept; the one not used for longest goes first
SAMPLES = 8  # images of the user that the check looks at beside the package's
_TRIES = 3  # checks for want of detections to judge
_LARGEST = 20_000_000  # pixels of such an image
_PATIENCE = 1.0  # seconds of waiting in silence for another process
_TOLD = 1000  # signs of an error that are kept
_STATE = "state.json"
NEEDED = {"openvino": ("openvino",), "onnx": ("onnxruntime", "onnx", "onnxscript")}
_TAKES = {"openvino": "some seconds", "onnx": "a minute or two"}
_CPU = torch.device("cpu")
Text = Annotated[str, Field(max_length=10_000)]


class NoCache(FcosError):
    """The cache folder cannot be written, or is full."""


class Check(StoredPart):
    """What the check of a graph in one dtype said. `wrong`: why it is no good; `doubts`: why it is not used unless
    asked for; `judged`: detections that were looked for again."""

    wrong: list[Text]
    doubts: list[Text]
    judged: int
    told: Text


class _State(StoredPart):
    """state.json of a graph: why it could not be made, if so; checks by dtype, and how often they were tried."""

    failed: Text
    checks: dict[Dtype, Check] = Field(default_factory=dict)
    tries: int = 0


@dataclass(frozen=True)
class Origin:
    """What graphs are made of: a weights file of this package, and the settings given with it."""

    path: Path
    overrides: tuple[str, ...] = ()

    @cached_property
    def _read(self) -> tuple[Config, Classes]:
        config, classes, _ = weights.header(self.path)
        return config.override(*self.overrides), classes

    @property
    def config(self) -> Config:
        return self._read[0]

    @property
    def classes(self) -> Classes:
        return self._read[1]

    @cached_property
    def _file(self) -> tuple[tuple[int, int], str]:
        """Size and time of the file, and the hash of what it held then."""
        return stamp(self.path), sha256(self.path)

    def check_same(self) -> None:
        """ModelError where the file has changed since a graph of it was looked for, so that it holds other weights."""
        if "_file" not in vars(self) or self._file[0] == stamp(self.path):
            return
        if not self.path.is_file() or sha256(self.path) != self._file[1]:
            raise ModelError(f"{self.path} has changed since the model was loaded; load it again")

    def folder(self, runtime: str, stored: Dtype) -> Path:
        """Where the graph of this for a runtime is kept, or would be."""
        config = self.config
        facts = {
            "weights": self._file[1],
            "network": config.model.model_dump(mode="json"),
            "classes": len(self.classes),
            "input": (config.data.divisor, About(config, self.classes).pixels),
            "sizes": "any",
            "stored": stored,
            "versions": [__version__, torch.__version__, *map(importlib.metadata.version, NEEDED[runtime])],
            "cpu": [platform.machine(), processor(), torch.backends.cpu.get_cpu_capability(), has_bf16(_CPU)],
        }
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]
        name = re.sub(r"[^\w.-]", "_", config.name)[:40]
        return cache_folder() / "graphs" / f"{name}-{runtime}-{key}"


@dataclass(frozen=True)
class Graph:
    """A kept graph: where it is, and what its checks said. `failed`: it cannot be made, and why."""

    folder: Path
    runtime: str
    failed: str
    checks: dict[Dtype, Check]
    tries: int

    @property
    def file(self) -> Path:
        return self.folder / f"model{FORMATS[self.runtime].suffix}"

    def passes(self, dtype: str) -> bool:
        """Whether it may be used in a dtype that was asked for; fp32 is always good enough to be used unasked too."""
        return any(d == dtype and not check.wrong for d, check in self.checks.items())

    @property
    def best(self) -> Dtype | None:
        """The fastest dtype without doubts."""
        dtypes: tuple[Dtype, ...] = ("bf16", "fp32")
        return next((d for d in dtypes if d in self.checks and not self.checks[d].doubts), None)

    @property
    def unproved(self) -> bool:
        """Whether bf16 failed for want of detections alone, and images of the user may bring some."""
        from ..export.check import ENOUGH

        check = self.checks.get("bf16")
        return check is not None and not check.wrong and check.judged < ENOUGH and self.tries < _TRIES

    @property
    def whole(self) -> bool:
        """Whether its file is as it was written, or it is known that there can be none."""
        try:
            return bool(self.failed) or read_about(self.file) is not None
        except FcosError:
            return False

    @property
    def bad(self) -> bool:
        """Whether it cannot be made, or is not used in any dtype that it was checked in."""
        return bool(self.failed) or (bool(self.checks) and all(check.wrong for check in self.checks.values()))

    def open(self, place: Placement) -> Runtime:
        """The graph as a Network; ModelError where it is damaged."""
        with suppress(OSError):
            os.utime(self.folder / _STATE)  # the last use
        return open_runtime(self.file, replace(place, runtime=self.runtime))


def runtimes() -> list[str]:
    """The runtimes that graphs are kept for and that are installed, fastest first."""
    return [name for name in KEPT if all(map(importlib.util.find_spec, NEEDED[name]))]


def find(origin: Origin, runtime: str, stored: Dtype = "fp32") -> Graph | None:
    """The kept graph, None where there is none; whether it is whole is seen when it is opened."""
    return _read(origin.folder(runtime, stored), runtime)


def make(
    origin: Origin,
    runtime: str,
    samples: Sequence[Path] | None = (),
    stored: Dtype = "fp32",
    *,
    again: bool = False,
) -> Graph:
    """The kept graph, made where there is none that is whole, and checked where it was not; one process at a time.

    samples: images of the kind that will come, for the check; None: without a check. again: also where one is known to
    be impossible or wrong. Raises ModelError for weights
    that cannot be read, MissingExtra, NoCache.
    """
    target = origin.folder(runtime, stored)
    with _alone(target.parent):
        _sweep(target.parent)
        graph = _read(target, runtime)
        if graph is None or not graph.whole or (again and graph.bad):
            with _told(origin, runtime):
                graph = _write(origin, target, runtime, stored)
                if samples is not None and not graph.failed:
                    graph = _checked(origin, graph, samples)
        elif samples is not None and not graph.failed:
            graph = _checked(origin, graph, samples)
        _forget(target.parent, target)
    return graph


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    from ..system.locks import Lock

    lock = Lock(folder / ".lock")
    try:
        if not lock.take(_PATIENCE):  # a process of low priority may take minutes on a busy machine
            say("another process prepares the fast form of a model; waiting for it (--runtime torch does without)")
            with ticking(lambda so_far: say(f"still waiting, {so_far}; --runtime torch does without")):
                lock.take(None)
    except OSError as error:
        raise NoCache(f"cannot keep graphs in {folder}: {disk_reason(error) or error}") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _told(origin: Origin, runtime: str) -> Iterator[None]:
    """Say that a graph is being made, and every while that it still is: nobody should take the silence for a fault."""
    path = origin.path
    name = path.absolute().parent.name if path.name in WEIGHTS else path.stem  # of a run, its folder
    say(f"preparing {name} for this machine ({runtime}), only this first time; it takes {_TAKES[runtime]}")
    with ticking(lambda so_far: say(f"still preparing, {so_far}")):
        yield


def _read(folder: Path, runtime: str) -> Graph | None:
    try:
        state = parse(read_bytes(folder / _STATE), _State, folder / _STATE)
    except FcosError:
        return None
    return Graph(folder, runtime, state.failed, dict(state.checks), state.tries)


def _write(origin: Origin, target: Path, runtime: str, stored: Dtype) -> Graph:
    """Export beside `target`, then move into place."""
    network, config, classes = load_network(origin.path, origin.overrides)
    draft: Path | None = None
    try:
        draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=".making-"))
        failed = ""
        try:
            write_export(
                network, About(config, classes, dtype=stored), runtime, draft / f"model{FORMATS[runtime].suffix}"
            )
        except MissingExtra:
            raise
        except Exception as error:  # toolchains have errors of their own
            if disk_reason(error) or is_full(target.parent):
                raise OSError(disk_reason(error) or "the disk is full") from error
            _no_shortage(error)
            failed = first_line(error, _TOLD)
            for path in draft.iterdir():
                path.unlink()
        (draft / _STATE).write_text(_State(failed=failed).model_dump_json())
        shutil.rmtree(target, ignore_errors=True)
        draft.chmod(0o755)
        draft.replace(target)
    except OSError as error:
        raise NoCache(f"cannot keep graphs in {target.parent}: {disk_reason(error) or error}") from error
    finally:
        if draft is not None and draft.exists():
            shutil.rmtree(draft, ignore_errors=True)
    return Graph(target, runtime, failed, {}, 0)


def _checked(origin: Origin, graph: Graph, samples: Sequence[Path]) -> Graph:
    """`graph` with the checks that it lacks; kept with it where the folder can be written."""
    dtypes: list[Dtype] = ["fp32", "bf16"] if graph.runtime == "openvino" and has_bf16(_CPU) else ["fp32"]
    missing = [d for d in dtypes if d not in graph.checks or (d == "bf16" and graph.unproved and samples)]
    if not missing:
        return graph
    from ..export.check import bundled_images

    network, config, classes = load_network(origin.path, origin.overrides)
    reference = Detector(fuse(network, torch.float32), config, classes, Placement())
    images = [*bundled_images(), *_images(samples)]
    checks = dict(graph.checks)
    for dtype in missing:
        checks[dtype] = _check(reference, graph, dtype, images)
    graph = replace(graph, checks=checks, tries=graph.tries + 1)
    state = parse(read_bytes(graph.folder / _STATE), _State, graph.folder / _STATE)
    state = state.model_copy(update={"checks": checks, "tries": graph.tries})
    own(graph.folder)
    try:
        write_whole(graph.folder / _STATE, state.model_dump_json())
    except FcosError as error:
        raise NoCache(str(error)) from error
    return graph


def _check(reference: Detector, graph: Graph, dtype: Dtype, images: Sequence[np.ndarray]) -> Check:
    from ..export import check

    place = Placement(runtime=graph.runtime, dtype=dtype, threads=reference.placement.threads)
    try:
        other = reference.replace(network=graph.open(place), placement=place)
        report = check.compare(reference, other, images)
    except Exception as error:  # a runtime has errors of its own
        _no_shortage(error)
        reason = f"it cannot be run: {first_line(error, _TOLD)}"
        return Check(wrong=[reason], doubts=[reason], judged=0, told=reason)
    wrong = check.verdict(report, dtype)
    told = (
        f"{report.images} images, {report.judged} detections: scores within {report.score:.1e}, "
        f"boxes within {report.share:.1e} of a side, {report.lost} gone"
    )
    return Check(wrong=wrong, doubts=wrong or check.doubts(report, dtype), judged=report.judged, told=told)


def _no_shortage(error: Exception) -> None:
    """NoCache for an error that says more of this moment than of the graph, which must not be remembered of it."""
    if isinstance(error, OSError) or is_out_of_memory(error):
        raise NoCache(f"the fast form of the model was not made: {first_line(error, _TOLD)}") from error


def _images(samples: Sequence[Path]) -> Iterator[np.ndarray]:
    for path in samples[:SAMPLES]:
        with suppress(ImageError):
            height, width = image_size(path)
            if height * width <= _LARGEST:
                yield read_image(path)


def _sweep(folder: Path) -> None:
    """Remove what killed processes left half made: whoever holds the lock is the only one that makes a graph."""
    for path in folder.glob(".making-*"):
        shutil.rmtree(path, ignore_errors=True)


def _forget(folder: Path, kept: Path) -> None:
    """Remove all but the graphs used last."""
    used: list[tuple[float, Path]] = []
    for path in folder.iterdir():
        if path.is_dir() and path != kept:
            with suppress(OSError):
                used.append(((path / _STATE).stat().st_mtime, path))
    for _, path in sorted(used, reverse=True)[MOST - 1 :]:
        shutil.rmtree(path, ignore_errors=True)
