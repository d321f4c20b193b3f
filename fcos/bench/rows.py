"""How fast a detector is, from a JPEG file to boxes, and how far from what the machine can do.

Everything is measured in one process: all ways take turns, round by round, and medians are compared, so that
ratios mean something on a machine that is busy with other things.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..errors import FcosError, MissingExtra, ModelError
from ..inference.detector import Detector
from ..inference.load import load
from ..inference.stream import run
from ..machine import pick_device, torch_threads
from ..network import weights
from ..network.info import describe_network, parse_size
from ..presets import PRESETS, resolve
from ..terminal import parse_shape
from ..types import Classes
from ..zoo.find import find_weights
from .timing import alternate, heading, products

TORCHVISION = "torchvision"


@dataclass(frozen=True)
class Row:
    """One way to run one model at one size. `milliseconds`: the whole way of a batch, from the bytes of a JPEG
    to boxes; `network`: the network's part of it. `gflop`: of one picture, 2 per multiply-add. `share`: of the
    peak of this dtype, reached by the network, 0..1. `lanes`: pictures detected at once, in which case
    `milliseconds` is the time from one result to the next. `megabytes`: what loading and the first picture added
    to the process. `ratio`: how many times as fast as the baseline of the same size and batch."""

    model: str
    runtime: str
    dtype: str
    size: str
    batch: int
    lanes: int
    milliseconds: float
    network: float | None
    images_per_second: float
    gflop: float | None
    share: float | None
    megabytes: float | None
    ratio: float


_COLUMNS = (  # of the table: title, field of the row, format
    ("model", "model", ""),
    ("runtime", "runtime", ""),
    ("dtype", "dtype", ""),
    ("size", "size", ""),
    ("batch", "batch", ""),
    ("lanes", "lanes", ""),
    ("ms", "milliseconds", ".1f"),
    ("network ms", "network", ".1f"),
    ("pictures/s", "images_per_second", ".2f"),
    ("GFLOP", "gflop", ".1f"),
    ("of peak", "share", ".0%"),
    ("MB", "megabytes", ".0f"),
    ("ratio", "ratio", ".2f"),
)


@dataclass(frozen=True)
class Report:
    """Rows, the peak in GFLOP/s by dtype (a matrix product or a 3x3 convolution, its best round), what was left out
    and why, and where it was run."""

    rows: tuple[Row, ...]
    peaks: dict[str, float]
    baseline: str
    notes: tuple[str, ...]
    rounds: int
    threads: int
    machine: str
    versions: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """An aligned table for a terminal."""
        lines_of_cells = [
            [title for title, _, _ in _COLUMNS],
            *([_shown(getattr(row, field), form) for _, field, form in _COLUMNS] for row in self.rows),
        ]
        wide = [max(map(len, column)) for column in zip(*lines_of_cells, strict=True)]
        lines = [
            "  ".join(f"{v:<{w}}" if i < 4 else f"{v:>{w}}" for i, (v, w) in enumerate(zip(line, wide, strict=True)))
            for line in lines_of_cells
        ]
        peaks = ", ".join(f"{name} {value:.0f}" for name, value in self.peaks.items())
        return "\n".join(
            [
                *(line.rstrip() for line in lines),
                "",
                f"ratio: times as fast as {self.baseline}, same size and batch; medians of {self.rounds} "
                "alternating rounds",
                f"peak, the best of a matrix product and a 3x3 convolution here, in GFLOP/s: {peaks}",
                *self.notes,
                self.machine,
                self.versions,
            ]
        )


@dataclass
class _Way:
    """Something to time: the whole of it, and its network alone where that can be told apart."""

    model: str
    runtime: str
    dtype: str
    size: str
    batch: int
    whole: Callable[[], Any]
    network: Callable[[], Any] | None = None
    gflop: float | None = None
    megabytes: float | None = None
    lanes: int = 1
    calls: int = 1  # batches in one `whole`


@dataclass(frozen=True)
class Ways:
    """What `bench` combines, each with each. No runtimes or dtypes: an exported file's own, torch and fp32 for others;
    no sizes: the model's own."""

    models: Sequence[str] = ()
    runtimes: Sequence[str] = ()
    dtypes: Sequence[str] = ()
    sizes: Sequence[str] = ()
    batches: Sequence[int] = (1,)
    lanes: Sequence[int] = (1,)


@dataclass(frozen=True)
class Conditions:
    """What holds for all ways: threads (0: the runtime's own choice), alternating rounds, device, the number of classes
    of random weights, settings of the models, and whether code in model files may run (`fcos.load`)."""

    threads: int = 0
    rounds: int = 5
    device: str = "auto"
    classes: int = 80
    settings: Sequence[str] = ()
    trust: bool = False


class _Setup(NamedTuple):
    """How one model is loaded; None: its own."""

    runtime: str | None
    dtype: str | None
    size: str | None
    lanes: int


def bench(
    ways: Ways,
    conditions: Conditions | None = None,
    *,
    against: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Time every combination; what is not installed or not possible becomes a note.

    A preset without weights gets random ones. `against="torchvision"` puts torchvision's
    fcos_resnet50_fpn in front as the baseline, with random weights, and the same weights converted beside it; otherwise
    the first row of each size and batch is the baseline. Raises FcosError when nothing can be run.
    """
    if against not in (None, TORCHVISION):
        raise FcosError(f"--against {against}: there is only {TORCHVISION}")
    conditions = conditions or Conditions()
    models = ways.models or (() if against else ("fcos-lite0",))
    made: list[_Way] = []
    with tempfile.TemporaryDirectory(prefix="fcos-bench-") as folder, torch_threads(conditions.threads):
        loader = _Loader(conditions, Path(folder))
        sources = [(name, loader.source(name)) for name in models]
        for size in ways.sizes or (None,):
            if against:
                theirs, file = _torchvision(size or "640", Path(folder))
                made += [_theirs(theirs, size or "640", batch, conditions.device) for batch in ways.batches]
                sources_here = [("the same, converted", file), *sources]
            else:
                sources_here = sources
            for name, path in sources_here:
                for runtime, dtype, lanes in product(ways.runtimes or (None,), ways.dtypes or (None,), ways.lanes):
                    way = ", ".join(filter(None, (runtime, dtype, f"{lanes} lanes" if lanes > 1 else "")))
                    say(f"loading {name}{way and f', {way}'}")
                    made += loader.ways(name, path, _Setup(runtime, dtype, size, lanes), ways.batches)
        if not made:
            raise FcosError("nothing to measure: " + "; ".join(loader.notes))
        say(f"ways: {len(made)}, rounds: {conditions.rounds}")
        return _measure(made, conditions, against, loader.notes)


def _measure(ways: Sequence[_Way], conditions: Conditions, against: str | None, notes: list[str]) -> Report:
    turns: dict[Any, Callable[[], Any]] = {}
    work: dict[tuple[str, int], float] = {}
    where = pick_device(conditions.device)
    for dtype in dict.fromkeys(way.dtype for way in ways):
        made = products(dtype, where)
        if not made:
            notes.append(f"no fast matrix product in {dtype} here, so no share of the peak")
        for number, (turn, gflop) in enumerate(made):
            turns["peak", dtype, number], work[dtype, number] = turn, gflop
    for i, way in enumerate(ways):
        turns["whole", i] = way.whole
        if way.network is not None:
            turns["network", i] = way.network
    with torch.inference_mode():
        seconds = alternate(turns, conditions.rounds)
    times = {name: statistics.median(values) for name, values in seconds.items()}
    peaks: dict[str, float] = {}  # the best that any round reached: a peak is no median
    for (dtype, number), gflop in work.items():
        peaks[dtype] = max(peaks.get(dtype, 0.0), gflop / min(seconds["peak", dtype, number]))
    first: dict[tuple[str, int], float] = {}
    rows = []
    for i, way in enumerate(ways):
        whole, network = times["whole", i] / way.calls, times.get(("network", i))
        first.setdefault((way.size, way.batch), whole)
        share = None
        if way.gflop is not None and way.dtype in peaks:
            share = way.gflop * way.batch / (network or whole) / peaks[way.dtype]
        rows.append(
            Row(
                **{name: getattr(way, name) for name in ("model", "runtime", "dtype", "size", "batch", "lanes")},
                milliseconds=1e3 * whole,
                network=1e3 * network if network else None,
                images_per_second=way.batch / whole,
                gflop=way.gflop,
                share=share,
                megabytes=way.megabytes,
                ratio=first[way.size, way.batch] / whole,
            )
        )
    machine, versions = heading()
    baseline = "torchvision's fcos_resnet50_fpn, eager fp32" if against else "the first row"
    threads = torch.get_num_threads()
    return Report(tuple(rows), peaks, baseline, tuple(notes), conditions.rounds, threads, machine, versions)


class _Loader:
    """Loads what is measured. `notes` say what was left out; a network is compiled once for all sizes, by way of
    `compiled`."""

    def __init__(self, conditions: Conditions, folder: Path) -> None:
        self.conditions, self.folder = conditions, folder
        self.notes: list[str] = []
        self.compiled: dict[tuple[str, str | None], Detector] = {}

    def source(self, name: str) -> Path:
        """The file to load: the model's own, or random weights for a preset that has none."""
        try:
            return find_weights(name)
        except ModelError:
            if name not in PRESETS:
                raise
        self.notes.append(f"{name} has no weights here: random ones")
        torch.manual_seed(0)
        config = resolve(name)
        names = Classes(tuple(f"class {i}" for i in range(self.conditions.classes)))
        network = weights.build(config, len(names))
        return weights.save(self.folder / f"{name}.safetensors", network.state_dict(), config, names)

    def ways(self, name: str, path: Path, setup: _Setup, batches: Sequence[int]) -> list[_Way]:
        """The ways of one loaded detector, one for each batch; none and a note when it cannot be loaded."""
        before = _resident()
        shape = parse_shape(setup.size) if setup.size else None
        try:
            detector = self.detector(name, path, setup)
            if shape is None:
                shape = parse_size(None, detector.config) if detector.size is None else detector.size
            data = image(shape)
            detector(data, score=0.0)  # the first one compiles, where that is asked for
        except (MissingExtra, ModelError) as error:
            if (left := f"left out {name}: {error}") not in self.notes:
                self.notes.append(left)
            return []
        added = _resident() - before
        loaded = _Loaded(name, detector, shape, _gflop(detector, shape), added if math.isfinite(added) else None)
        if setup.lanes > 1:
            file = self.folder / f"{shape[0]}x{shape[1]}.jpg"
            file.write_bytes(data)
            return [_laned(loaded, batch, file) for batch in batches]
        return [_one_by_one(loaded, batch, data) for batch in batches]

    def detector(self, name: str, path: Path, setup: _Setup) -> Detector:
        shape = parse_shape(setup.size) if setup.size else None
        changes = [*self.conditions.settings]
        changes += [f"data.size={min(shape)}", f"data.max_size={max(shape)}"] if shape else []
        known = self.compiled.get((name, setup.dtype)) if setup.runtime == "compile" else None
        if known is None:
            detector = load(
                path,
                runtime=setup.runtime or "own",
                dtype=setup.dtype,
                threads=self.conditions.threads,
                lanes=setup.lanes,
                device=self.conditions.device,
                trust=self.conditions.trust,
                overrides=changes,
            )
        else:
            detector = known.replace(config=known.config.override(*changes))
        if setup.runtime == "compile":
            self.compiled.setdefault((name, setup.dtype), detector)
        if detector.placement.lanes != setup.lanes:
            raise ModelError("several lanes are for torch, onnx and openvino on a CPU")
        return detector


class _Loaded(NamedTuple):
    """A detector, the (height, width) of its pictures, the GFLOP of one and the megabytes it took."""

    name: str
    detector: Detector
    shape: tuple[int, int]
    gflop: float
    megabytes: float | None

    def way(self, batch: int, whole: Callable[[], Any], network: Callable[[], Any] | None = None) -> _Way:
        placement = self.detector.placement
        size = f"{self.shape[0]}x{self.shape[1]}"
        return _Way(
            self.name, placement.runtime, placement.dtype, size, batch, whole, network, self.gflop, self.megabytes
        )


def _one_by_one(loaded: _Loaded, batch: int, data: bytes) -> _Way:
    """One batch after the other, the network alone beside it."""
    detector, network = loaded.detector, loaded.detector.network
    tensor = torch.stack([detector.prepare(np.zeros((*loaded.shape, 3), np.uint8))[0]] * batch).to(detector.device)
    files: list[Any] = [data] * batch
    alone = None if _ends_in_detections(detector) else lambda: network(tensor)
    return loaded.way(batch, lambda: detector(files, score=0.0, batch=batch), alone)


def _laned(loaded: _Loaded, batch: int, file: Path) -> _Way:
    """Many pictures one after the other, as `fcos predict` takes a folder."""
    detector = loaded.detector
    lanes = detector.placement.lanes
    calls = 8 * lanes
    files = [file] * (batch * calls)
    scores = torch.zeros(len(detector.classes))

    def whole() -> None:
        for _, _, result in run(detector, files, scores, batch):
            if isinstance(result, FcosError):
                raise result

    return replace(loaded.way(batch, whole), lanes=lanes, calls=calls)


def _ends_in_detections(detector: Detector) -> bool:
    from ..export.runtime import EndToEndRuntime

    return isinstance(detector.network, EndToEndRuntime)


def _gflop(detector: Detector, shape: tuple[int, int]) -> float:
    tensor, _ = detector.prepare(np.zeros((*shape, 3), np.uint8))
    network = weights.build(detector.config, len(detector.classes)).eval()
    info = describe_network(network, detector.config, (tensor.shape[1], tensor.shape[2]))
    return sum(part.flops for part in info.parts) / 1e9


def _torchvision(size: str, folder: Path) -> tuple[Any, Path]:
    """(torchvision's detector with random weights that keep activations in range, the same as a file of ours)."""
    from torchvision.models.detection import fcos_resnet50_fpn

    from ..convert.translate import Asked, from_state

    height, width = parse_shape(size)
    torch.manual_seed(0)
    short, longest = min(height, width), max(height, width)
    theirs = fcos_resnet50_fpn(weights=None, weights_backbone=None, min_size=short, max_size=longest).eval()
    for name, module in theirs.named_modules():
        if name.endswith("bn3"):
            torch.nn.init.constant_(module.weight, 0.3)
    made = from_state(theirs.state_dict(), asked=Asked(overrides=[f"data.size={short}", f"data.max_size={longest}"]))
    return theirs, weights.save(folder / f"torchvision-{size}.safetensors", made.state, made.config, made.classes)


def _theirs(model: Any, size: str, batch: int, device: str) -> _Way:
    from torchvision.io import ImageReadMode, decode_jpeg

    where = pick_device(device)
    model.to(where)
    shape = parse_shape(size)
    files = [torch.frombuffer(bytearray(image(shape)), dtype=torch.uint8)] * batch

    def whole() -> Any:
        return model([decode_jpeg(file, ImageReadMode.RGB).to(where) / 255 for file in files])

    return _Way("torchvision fcos_resnet50_fpn", "eager", "fp32", f"{shape[0]}x{shape[1]}", batch, whole)


def image(shape: tuple[int, int]) -> bytes:
    """A JPEG of (height, width) with something on it."""
    import cv2

    noise = np.random.default_rng(0).integers(0, 256, (shape[0] // 8 + 1, shape[1] // 8 + 1, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", cv2.resize(noise, (shape[1], shape[0])), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def _resident() -> float:
    """Megabytes of memory this process holds; nan where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
    except (OSError, ValueError, IndexError):
        return math.nan


def _shown(value: str | float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
