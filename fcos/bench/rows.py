"""How fast a detector is, from a JPEG file to boxes, and how far from what the machine can do.

Everything is measured in one process: all ways take turns, round by round, and medians are compared, so that
ratios mean something on a machine that is busy with other things.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
        head = ("model", "runtime", "dtype", "size", "batch", "lanes", "ms", "network ms", "pictures/s", "GFLOP",
                "of peak", "MB", "ratio")  # fmt: skip
        body = [
            (
                row.model, row.runtime, row.dtype, row.size, str(row.batch), str(row.lanes),
                f"{row.milliseconds:.1f}",
                _shown(row.network, ".1f"), f"{row.images_per_second:.2f}", _shown(row.gflop, ".1f"),
                _shown(row.share, ".0%"), _shown(row.megabytes, ".0f"), f"{row.ratio:.2f}",
            )
            for row in self.rows
        ]  # fmt: skip
        wide = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
        lines = [
            "  ".join(f"{v:<{w}}" if i < 4 else f"{v:>{w}}" for i, (v, w) in enumerate(zip(line, wide, strict=True)))
            for line in (head, *body)
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
    network: Callable[[], Any] | None
    gflop: float | None
    megabytes: float | None
    lanes: int = 1
    calls: int = 1  # batches in one `whole`


def bench(
    models: Sequence[str] = (),
    runtimes: Sequence[str] = (),
    dtypes: Sequence[str] = (),
    sizes: Sequence[str] = (),
    batches: Sequence[int] = (1,),
    lanes: Sequence[int] = (1,),
    *,
    threads: int = 0,
    rounds: int = 5,
    against: str | None = None,
    device: str = "auto",
    classes: int = 80,
    settings: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Time every combination; what is not installed or not possible becomes a note.

    No runtimes or dtypes: an exported file's own, torch and fp32 for others. A preset without weights gets
    random ones (and `classes`). `against="torchvision"` puts torchvision's fcos_resnet50_fpn in front as the baseline,
    with random weights, and the same weights converted beside it; otherwise the first row of each size and batch is the
    baseline. Raises FcosError when nothing can be run.
    """
    if against not in (None, TORCHVISION):
        raise FcosError(f"--against {against}: there is only {TORCHVISION}")
    if not models and against is None:
        models = ("fcos-lite0",)
    notes: list[str] = []
    ways: list[_Way] = []
    compiled: dict[tuple[str, str | None], Detector] = {}
    with tempfile.TemporaryDirectory(prefix="fcos-bench-") as folder, torch_threads(threads):
        sources = [(name, _source(name, Path(folder), classes, notes)) for name in models]
        for text in sizes or (None,):
            if against:
                theirs, file = _torchvision(text or "640", Path(folder))
                ways += [_theirs(theirs, text or "640", batch, device) for batch in batches]
                sources_here = [("the same, converted", file), *sources]
            else:
                sources_here = sources
            for name, path in sources_here:
                for runtime in runtimes or (None,):
                    for dtype in dtypes or (None,):
                        for lane in lanes:
                            way = ", ".join(filter(None, (runtime, dtype, f"{lane} lanes" if lane > 1 else "")))
                            say(f"loading {name}{way and f', {way}'}")
                            ways += _ours(
                                name,
                                path,
                                runtime,
                                dtype,
                                text,
                                batches,
                                threads,
                                lane,
                                device,
                                notes,
                                Path(folder),
                                compiled,
                                settings,
                            )
        if not ways:
            raise FcosError("nothing to measure: " + "; ".join(notes))
        say(f"ways: {len(ways)}, rounds: {rounds}")
        return _measure(ways, rounds, against, device, notes)


def _measure(ways: Sequence[_Way], rounds: int, against: str | None, device: str, notes: list[str]) -> Report:
    turns: dict[Any, Callable[[], Any]] = {}
    work: dict[tuple[str, int], float] = {}
    where = pick_device(device)
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
        seconds = alternate(turns, rounds)
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
                way.model, way.runtime, way.dtype, way.size, way.batch, way.lanes, 1e3 * whole,
                1e3 * network if network else None, way.batch / whole, way.gflop, share, way.megabytes,
                first[way.size, way.batch] / whole,
            )
        )  # fmt: skip
    machine, versions = heading()
    baseline = "torchvision's fcos_resnet50_fpn, eager fp32" if against else "the first row"
    threads = torch.get_num_threads()
    return Report(tuple(rows), peaks, baseline, tuple(notes), rounds, threads, machine, versions)


def _source(name: str, folder: Path, classes: int, notes: list[str]) -> Path:
    """The file to load: the model's own, or random weights for a preset that has none."""
    try:
        return find_weights(name)
    except ModelError:
        if name not in PRESETS:
            raise
    notes.append(f"{name} has no weights here: random ones")
    torch.manual_seed(0)
    config = resolve(name)
    path = folder / f"{name}.safetensors"
    network = weights.build(config, classes)
    return weights.save(path, network.state_dict(), config, Classes(tuple(f"class {i}" for i in range(classes))))


def _ours(
    name: str, path: Path, runtime: str | None, dtype: str | None, size: str | None, batches: Sequence[int],
    threads: int, lanes: int, device: str, notes: list[str], folder: Path,
    compiled: dict[tuple[str, str | None], Detector],
    settings: Sequence[str],
) -> list[_Way]:  # fmt: skip
    """The ways of one loaded detector, one for each batch; none and a note when it cannot be loaded. A network is
    compiled once for all sizes, by way of `compiled`."""
    before = _resident()
    shape = parse_shape(size) if size else None
    changes = [*settings, *([f"data.size={min(shape)}", f"data.max_size={max(shape)}"] if shape else [])]
    try:
        known = compiled.get((name, dtype)) if runtime == "compile" else None
        if known is None:
            detector = load(
                path, runtime=runtime, dtype=dtype, threads=threads, lanes=lanes, device=device, overrides=changes
            )
        else:
            detector = known.replace(config=known.config.override(*changes))
        if runtime == "compile":
            compiled.setdefault((name, dtype), detector)
        if detector.placement.lanes != lanes:
            raise ModelError("several lanes are for torch, onnx and openvino on a CPU")
    except (MissingExtra, ModelError) as error:
        if (left := f"left out {name}: {error}") not in notes:
            notes.append(left)
        return []
    if shape is None:
        shape = parse_size(None, detector.config) if detector.size is None else detector.size
    data = image(shape)
    detector(data, score=0.0)
    added = _resident() - before
    gflop = _gflop(detector, shape)
    ways = []
    if lanes > 1:
        return [_laned(name, detector, shape, batch, gflop, added, folder) for batch in batches]
    for batch in batches:
        tensor = torch.stack([detector.prepare(np.zeros((*shape, 3), np.uint8))[0]] * batch).to(detector.device)
        network = detector.network
        ways.append(
            _Way(
                name, detector.placement.runtime, detector.placement.dtype, f"{shape[0]}x{shape[1]}", batch,
                lambda d=detector, files=[data] * batch: d(files, score=0.0, batch=len(files)),  # type: ignore[misc]
                None if _ends_in_detections(detector) else lambda n=network, x=tensor: n(x),  # type: ignore[misc]
                gflop, added if math.isfinite(added) else None,
            )
        )  # fmt: skip
    return ways


def _laned(
    name: str, detector: Detector, shape: tuple[int, int], batch: int, gflop: float, megabytes: float, folder: Path
) -> _Way:
    """Many pictures one after the other, as `fcos predict` takes a folder."""
    calls = 8 * detector.placement.lanes
    file = folder / f"{shape[0]}x{shape[1]}.jpg"
    file.write_bytes(image(shape))
    files = [file] * (batch * calls)
    scores = torch.zeros(len(detector.classes))

    def whole() -> None:
        for _, _, found in run(detector, files, scores, batch):
            if isinstance(found, FcosError):
                raise found

    return _Way(
        name, detector.placement.runtime, detector.placement.dtype, f"{shape[0]}x{shape[1]}", batch, whole, None, gflop,
        megabytes if math.isfinite(megabytes) else None, detector.placement.lanes, calls,
    )  # fmt: skip


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

    from ..convert.translate import from_state

    height, width = parse_shape(size)
    torch.manual_seed(0)
    short, longest = min(height, width), max(height, width)
    theirs = fcos_resnet50_fpn(weights=None, weights_backbone=None, min_size=short, max_size=longest).eval()
    for name, module in theirs.named_modules():
        if name.endswith("bn3"):
            torch.nn.init.constant_(module.weight, 0.3)
    made = from_state(theirs.state_dict(), overrides=[f"data.size={short}", f"data.max_size={longest}"])
    return theirs, weights.save(folder / f"torchvision-{size}.safetensors", made.state, made.config, made.classes)


def _theirs(model: Any, size: str, batch: int, device: str) -> _Way:
    from torchvision.io import ImageReadMode, decode_jpeg

    where = pick_device(device)
    model.to(where)
    shape = parse_shape(size)
    files = [torch.frombuffer(bytearray(image(shape)), dtype=torch.uint8)] * batch

    def whole() -> Any:
        return model([decode_jpeg(file, ImageReadMode.RGB).to(where) / 255 for file in files])

    return _Way("torchvision fcos_resnet50_fpn", "eager", "fp32", f"{shape[0]}x{shape[1]}", batch, whole, None, None,
                None)  # fmt: skip


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


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
