"""Which kept graph a checkpoint runs in: the rule, and making graphs beside the program that will want them."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..data.records import evenly
from ..errors import FcosError, MissingExtra
from ..system.machine import Placement, cache_folder, python_program
from . import graphs
from .detector import Detector
from .graphs import Graph, Origin
from .runtime_switch import ChangeOver, Later, Running, opened, wait_for

InTorch = Callable[[Placement], Detector]
DTYPES = (None, "fp32", "bf16")  # that graphs are checked in; None: the fastest without doubts


@dataclass(frozen=True)
class Choice:
    """A graph and the dtype to run it in, or none; `missing`: whether one has still to be made or checked."""

    graph: Graph | None
    dtype: str
    missing: bool


def choose(origin: Origin, dtype: str | None) -> Choice:
    """The kept graph to use for `dtype`: the first of the runtimes, fastest first, whose check speaks for it.

    None: bf16 where `fcos.export.check.doubts` has none, else fp32. A dtype that was asked for has to pass the check
    of `fcos export` only.
    """
    for runtime in graphs.runtimes():
        graph = graphs.find(origin, runtime)
        if graph is None or (not graph.failed and "fp32" not in graph.checks):
            return Choice(None, dtype or "fp32", True)
        chosen = graph.best if dtype is None else dtype if graph.passes(dtype) else None
        if chosen is not None:
            return Choice(graph, chosen, dtype is None and graph.unproved)
    return Choice(None, dtype or "fp32", False)


def unasked(origin: Origin, place: Placement, dtype: str | None, in_torch: InTorch) -> Detector:
    """The detector of someone who asked for no runtime: a kept graph that passed its check, else torch, which goes on
    in such a graph as soon as there is one. Nothing waits for a graph to be made.

    Halfway only fp32 takes over, and only from fp32; a run that began in a graph stays in it.
    """
    if not graphs.runtimes():
        return in_torch(place)
    choice = choose(origin, dtype)
    running: Running | None = None
    if choice.graph is not None:
        with suppress(FcosError):  # damaged a moment ago
            running = _open(choice.graph, place, choice.dtype)
    halfway = place if running is None and place.dtype == "fp32" else None

    def later(samples: Sequence[Path]) -> Running | None:
        if running is not None and not samples:
            return None  # only images could bring its bf16 further
        return background(origin, halfway, samples)

    wanted = choice.missing or (choice.graph is not None and running is None)
    return _detector(origin, lambda: in_torch(place), running, later if wanted else None)


def prepared(origin: Origin, place: Placement, dtype: str | None, in_torch: InTorch) -> Detector:
    """The same, with all that is missing made now; NoCache where nothing can be kept."""
    prepare(origin)
    choice = choose(origin, dtype)
    if choice.graph is None:
        return in_torch(place)
    return _detector(origin, lambda: in_torch(place), _open(choice.graph, place, choice.dtype))


def prepare(
    origin: Origin,
    samples: Sequence[Path] = (),
    say: Callable[[Graph], None] = lambda graph: None,
    *,
    again: bool = False,
) -> None:
    """Make and check graphs until one is good in fp32; `say` hears of each; `again` as `graphs.make`. NoCache where
    nothing can be kept."""
    for runtime in graphs.runtimes():
        with suppress(MissingExtra):
            graph = graphs.make(origin, runtime, samples, again=again)
            say(graph)
            if graph.passes("fp32"):
                return


def background(origin: Origin, place: Placement | None, samples: Sequence[Path]) -> Running | None:
    """Have a process of low priority make what is missing, and wait for it; then the graph in fp32 where `place` says
    how it is to run. None where there is no good graph, the interpreter ends before, or none can be made."""
    python = python_program()
    if python is None or not _can_keep():
        return None
    # -P: what lies in the current folder is no module, as for the command itself; a clone is found all the same
    command = [python, "-P", "-m", "fcos", "models", "prepare", str(origin.path.resolve()), "--background"]
    for k in evenly(len(samples), graphs.SAMPLES):
        command += ["--image", str(samples[k].resolve())]
    command += [word for setting in origin.overrides for word in ("--set", setting)]
    quiet = subprocess.DEVNULL
    try:  # it goes on where this process ends first: the next one will find the graph
        process = subprocess.Popen(
            command, stdin=quiet, stdout=quiet, stderr=quiet, env=_with_package(), start_new_session=True
        )
    except OSError:
        return None
    if not wait_for(lambda: process.poll() is not None) or place is None:
        return None
    choice = choose(origin, "fp32")
    if choice.graph is None:
        return None
    graph = choice.graph
    with suppress(FcosError):
        return opened(lambda: _open(graph, place, "fp32"))
    return None


def _can_keep() -> bool:
    """Whether a graph can be kept: else each program would start a process that finds out in seconds."""
    folder = cache_folder()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        return os.access(folder, os.W_OK)
    return False


def _with_package() -> dict[str, str]:
    """The environment in which another Python finds this package where this one did; as it is for an installed one."""
    here = str(Path(__file__).resolve().parents[2])
    if here in (os.path.realpath(sysconfig.get_path(name)) for name in ("purelib", "platlib")):
        return dict(os.environ)
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))}


def _open(graph: Graph, place: Placement, dtype: str) -> Running:
    there = replace(place, runtime=graph.runtime, dtype=dtype)
    return graph.open(there), there


def _detector(
    origin: Origin, in_torch: Callable[[], Detector], graph: Running | None, later: Later | None = None
) -> Detector:
    def torch() -> Running:
        detector = in_torch()
        return detector.network, detector.placement

    network = ChangeOver(torch, graph, later)
    return Detector(network, origin.config, origin.classes, network.placement)
