"""The ways to run a detector that `fcos bench` times: each loaded, with something to call."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..errors import FcosError, MissingExtra, ModelError
from ..inference.detector import Detector
from ..inference.load import load
from ..inference.stream import run
from ..network import weights
from ..network.info import describe_network, parse_size
from ..presets import PRESETS, resolve
from ..system.machine import pick_device
from ..system.terminal import parse_shape
from ..types import Classes
from ..zoo.find import find_weights


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


@dataclass
class Way:
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
    baseline: bool = False  # what --against compares with


class Setup(NamedTuple):
    """How one model is loaded; None: its own."""

    runtime: str | None
    dtype: str | None
    size: str | None
    lanes: int


class Loader:
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
        self.notes.append(f"{name} has no weights here; random ones are used")
        torch.manual_seed(0)
        config = resolve(name)
        names = Classes(tuple(f"class {i}" for i in range(self.conditions.classes)))
        network = weights.build(config, len(names))
        return weights.save(self.folder / f"{name}.safetensors", network.state_dict(), config, names)

    def ways(self, name: str, path: Path, setup: Setup, batches: Sequence[int]) -> list[Way]:
        """The ways of one loaded detector, one for each batch; none and a note when it cannot be loaded."""
        before = _resident()
        shape = parse_shape(setup.size) if setup.size else None
        try:
            detector = self.detector(name, path, setup)
            if shape is None:
                shape = parse_size(None, detector.config) if detector.size is None else detector.size
            if detector.size is not None and tuple(detector.size) != tuple(shape):
                raise ModelError("its input is fixed at {}x{}".format(*detector.size))
            data = image(shape)
            detector(data, score=0.0, tile=None)  # the first one compiles, where that is asked for
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

    def detector(self, name: str, path: Path, setup: Setup) -> Detector:
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
    """A detector, the (height, width) of its images, the GFLOP of one and the megabytes it took."""

    name: str
    detector: Detector
    shape: tuple[int, int]
    gflop: float
    megabytes: float | None

    def way(self, batch: int, whole: Callable[[], Any], network: Callable[[], Any] | None = None) -> Way:
        placement = self.detector.placement
        size = f"{self.shape[0]}x{self.shape[1]}"
        return Way(
            self.name, placement.runtime, placement.dtype, size, batch, whole, network, self.gflop, self.megabytes
        )


def _one_by_one(loaded: _Loaded, batch: int, data: bytes) -> Way:
    """One batch after the other, the network alone beside it."""
    detector, network = loaded.detector, loaded.detector.network
    tensor = torch.stack([detector.prepare(np.zeros((*loaded.shape, 3), np.uint8))[0]] * batch).to(detector.device)
    files: list[Any] = [data] * batch
    alone = None if _ends_in_detections(detector) else lambda: network(tensor)
    return loaded.way(batch, lambda: detector(files, score=0.0, batch=batch, tile=None), alone)


def _laned(loaded: _Loaded, batch: int, file: Path) -> Way:
    """Many images one after the other, as `fcos predict` takes a folder."""
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


def torchvision_detector(size: str, folder: Path) -> tuple[Any, Path]:
    """(torchvision's detector with random weights that keep activations in range, the same as a file of ours)."""
    from torchvision.models.detection import fcos_resnet50_fpn

    from ..convert.translate import Hints, from_state

    height, width = parse_shape(size)
    torch.manual_seed(0)
    short, longest = min(height, width), max(height, width)
    theirs = fcos_resnet50_fpn(weights=None, weights_backbone=None, min_size=short, max_size=longest).eval()
    for name, module in theirs.named_modules():
        if name.endswith("bn3"):
            torch.nn.init.constant_(module.weight, 0.3)
    made = from_state(theirs.state_dict(), hints=Hints(overrides=[f"data.size={short}", f"data.max_size={longest}"]))
    return theirs, weights.save(folder / f"torchvision-{size}.safetensors", made.state, made.config, made.classes)


def way_of_torchvision(model: Any, size: str, batch: int, device: str) -> Way:
    """torchvision's detector from JPEG bytes to detections, as it would be used; size as "480x640"."""
    from torchvision.io import ImageReadMode, decode_jpeg

    where = pick_device(device)
    model.to(where)
    shape = parse_shape(size)
    files = [torch.frombuffer(bytearray(image(shape)), dtype=torch.uint8)] * batch

    def whole() -> Any:
        return model([decode_jpeg(file, ImageReadMode.RGB).to(where) / 255 for file in files])

    return Way("torchvision fcos_resnet50_fpn", "eager", "fp32", f"{shape[0]}x{shape[1]}", batch, whole, baseline=True)


def image(shape: tuple[int, int]) -> bytes:
    """A JPEG of (height, width) with something on it."""
    import cv2

    noise = np.random.default_rng(0).integers(0, 256, (shape[0] // 8 + 1, shape[1] // 8 + 1, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", cv2.resize(noise, (shape[1], shape[0])), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def _resident() -> float:
    """Megabytes of memory this process holds; nan where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (OSError, ValueError, IndexError):
        return math.nan
