"""Pictures in, Detections out: one Detector over any network, runtime or device."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import Config
from ..data.image import read_image, resize, resized_shape
from ..decode import decode
from ..errors import DeviceError, FcosError, ImageError, ModelError
from ..export import open as export
from ..export.about import PRECISIONS
from ..export.runtime import EndToEndRuntime, Runtime
from ..files import cpu_cores
from ..network.folding import fuse
from ..points import make_points
from ..types import Classes, Detections, Network, Points
from ..zoo import find as zoo

if TYPE_CHECKING:
    from ..analysis.explain import Explanation
    from ..network.model import FCOS

RUNTIMES = ("auto", "torch", "compile", *export.RUNTIMES)
LANED = ("torch", *export.OWN_THREADS)  # several pictures may be in them at once, on a CPU
Source = str | os.PathLike[str] | np.ndarray | Tensor | Any  # Any: a PIL image


class Detector:
    """A network with everything around it: pre-processing, decoding, class names.

    detector("photo.jpg") gives Detections; a list gives a list. Sources are paths, PIL images, arrays
    [H,W,3] or [H,W] uint8 RGB, tensors [3,H,W] (uint8, or float in 0..1). Boxes are in pixels of the
    picture as displayed (EXIF rotation applied). A picture's result does not depend on the pictures beside
    it: only those of equal padded size share a batch.
    """

    def __init__(
        self,
        network: Network,
        config: Config,
        classes: Classes,
        device: str | torch.device = "cpu",
        *,
        size: tuple[int, int] | None = None,
        runtime: str = "torch",
        precision: str = "fp32",
        lanes: int = 1,
        threads: int = 0,
    ) -> None:
        """`size` is the only (height, width) that the network takes, if so: pictures are shrunk to fit.
        `runtime` and `precision` say what computes, `lanes` how many threads of the caller may do so at once, with
        `threads` of the runtime's own each (0: its choice)."""
        self.network = network
        self.config = config
        self.classes = classes
        self.device = torch.device(device)
        self.size = size
        self.runtime = runtime
        self.precision = precision
        self.lanes = lanes
        self.threads = threads
        self._points: dict[tuple[int, int], Points] = {}

    def __call__(self, source: Source | Sequence[Source], *, score: float = 0.0, batch: int = 1) -> Any:
        """Detections with a score of at least `score` (0..1); one object, or a list for a list."""
        if isinstance(source, list | tuple):
            return self.detect([load_source(s) for s in source], [name_of(s) for s in source], score, batch)
        return self.detect([load_source(source)], [name_of(source)], score, 1)[0]

    def detect(
        self, images: Sequence[np.ndarray], names: Sequence[str | None], score: float = 0.0, batch: int = 1
    ) -> list[Detections]:
        """Detections of decoded pictures [H,W,3] uint8 RGB, in their pixels."""
        # a runtime with threads of its own loses half of its speed to torch's, which wait for work by spinning
        with _one_thread() if self.runtime in export.OWN_THREADS and self.device.type == "cpu" else nullcontext():
            return self._detect(images, names, score, batch)

    def _detect(
        self, images: Sequence[np.ndarray], names: Sequence[str | None], score: float, batch: int
    ) -> list[Detections]:
        results: list[Detections | None] = [None] * len(images)
        prepared = [self.prepare(image) for image in images]
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, (tensor, _) in enumerate(prepared):
            groups.setdefault(tuple(tensor.shape), []).append(i)
        for members in groups.values():
            for start in range(0, len(members), max(batch, 1)):
                part = members[start : start + max(batch, 1)]
                tensors = [prepared[i][0] for i in part]
                stacked = tensors[0][None] if len(tensors) == 1 else torch.stack(tensors)
                found = self.forward(stacked, [prepared[i][1] for i in part])
                for i, detections in zip(part, found, strict=True):
                    results[i] = self.finish(detections, images[i].shape[:2], names[i], score)
        return [r for r in results if r is not None]

    def prepare(self, image: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
        """Network input [3,H,W], padded to the divisor, and the (height, width) in front of the padding."""
        data = self.config.data
        shape = resized_shape(image.shape[:2], data.size, data.max_size, data.round)
        if self.size is not None and (shape[0] > self.size[0] or shape[1] > self.size[1]):
            shape = _fit(image.shape[:2], self.size)
        fill = self.config.model.mean
        if data.resample == "torch":  # torchvision resizes in float
            tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float()
            if tuple(shape) != image.shape[:2]:
                tensor = F.interpolate(tensor[None], size=shape, mode="bilinear", align_corners=False)[0]
        else:
            pixels = resize(image, shape, data.resample)
            # Pillow's are read-only, of which torch warns
            tensor = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).permute(2, 0, 1)
            tensor = tensor.float() if data.padding == "exact" else tensor
        height, width = self.size or (-(-side // data.divisor) * data.divisor for side in shape)
        if (height, width) == tuple(shape):
            return tensor, shape
        values = torch.tensor(fill)
        if not tensor.is_floating_point():
            values = values.round().to(tensor.dtype)
        # the channels of a pixel lie side by side, as OpenCV gives them and channels_last networks take them
        padded = torch.empty((height, width, 3), dtype=tensor.dtype)
        padded[: shape[0], : shape[1]] = tensor.permute(1, 2, 0)
        padded[shape[0] :] = values
        padded[: shape[0], shape[1] :] = values
        return padded.permute(2, 0, 1), shape

    @torch.inference_mode()
    def forward(self, images: Tensor, sizes: list[tuple[int, int]]) -> list[Detections]:
        """Detections of prepared images [N,3,H,W], in pixels of the network input."""
        if isinstance(self.network, EndToEndRuntime):
            return self.network.detect(images.to(self.device), sizes)
        predictions = self.network(images.to(self.device))
        return decode(predictions, self.points(images.shape[-2:]), sizes, self.config.decode)

    def finish(self, found: Detections, size: tuple[int, int], name: str | None, score: float) -> Detections:
        """Detections in pixels of a picture of (height, width), with names, at least `score`."""
        found = found.to("cpu")
        height, width = found.size or size
        ratio = torch.tensor([size[1] / width, size[0] / height] * 2)
        return Detections(
            boxes=found.boxes.float() * ratio,
            scores=found.scores.float(),
            labels=found.labels,
            points=found.points,
            names=self.classes.names,
            size=(int(size[0]), int(size[1])),
            source=name,
        )[found.scores >= score]

    def explain(self, source: Source, score: float | None = None) -> Explanation:
        """The story of every detection in one picture: location, level, class probability, centerness, what
        it silenced in NMS; `.text()`, `.draw()`, `.draw_maps()`."""
        from ..analysis.explain import explain

        return explain(self, source, score)

    def points(self, size: Sequence[int]) -> Points:
        """The points of a network input of (height, width), kept for the next picture of that size."""
        key = (int(size[0]), int(size[1]))
        if key not in self._points:
            if len(self._points) > 64:  # a folder of odd sizes must not fill the memory
                self._points.clear()
            self._points[key] = make_points(key, self.config.model, self.config.assign, self.device)
        return self._points[key]


def load(
    name: str | Path = "fcos-lite0",
    *,
    runtime: str | None = None,
    precision: str | None = None,
    threads: int = 0,
    lanes: int = 1,
    device: str = "auto",
    overrides: Sequence[str] = (),
) -> Detector:
    """A Detector by model name, run folder or file, checkpoint or exported.

    `runtime` is torch, compile, onnx, openvino, tensorrt, or auto: the fastest that is installed and keeps the
    detections. Left out, a checkpoint runs in torch and an exported file in its own runtime. A checkpoint is
    converted in memory, which takes seconds; `fcos export` keeps the result. `precision` is fp32, bf16 or
    fp16; int8 is for files exported so. `threads` 0 leaves the number to the runtime. `lanes` is the number of
    pictures that may be detected at once from threads of the caller, on a CPU by torch, onnx and openvino; they
    share `threads`, which wait less for each other than many threads on one picture (`fcos.predict.run`).
    `overrides` are settings such as "decode.nms_iou=0.5". Raises ModelError, DeviceError, MissingExtra.
    """
    _check_choice("runtime", runtime, RUNTIMES)
    _check_choice("precision", precision, PRECISIONS)
    where = pick_device(device)
    path = zoo.find(name)
    kind = export.format_of(path)
    if where.type != "cpu" or (runtime or (kind.name if kind else "torch")) not in LANED:
        lanes = 1
    if lanes > 1:
        threads = max(1, (threads or cpu_cores()) // lanes)
    if kind is not None:
        found = export.open_runtime(path, runtime, precision, threads, where, overrides, lanes)
        return _around(found, where, precision, lanes, threads)
    network, config, classes = zoo.load(path, overrides)
    network.requires_grad_(False)
    precision = precision or "fp32"
    if runtime == "auto":
        return _fastest(network, config, classes, precision, threads, where)
    if runtime in export.RUNTIMES:
        found = export.on_the_fly(network, config, classes, runtime, precision, threads, where, lanes)
        return _around(found, where, precision, lanes, threads)
    return _in_torch(network, config, classes, runtime or "torch", precision, threads, where, lanes)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_choice(name: str, value: str | None, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        raise ModelError(f"there is no {name} {value!r}; choose from {', '.join(known)}")


def _around(network: Runtime, where: torch.device, precision: str | None, lanes: int = 1, threads: int = 0) -> Detector:
    about = network.about
    if network.kind not in export.ON_DEVICE:
        where = torch.device("cpu")  # results arrive there
    return Detector(
        network, about.config, about.classes, where,
        size=about.size, runtime=network.kind, precision=precision or about.precision, lanes=lanes, threads=threads,
    )  # fmt: skip


def _in_torch(
    model: FCOS, config: Config, classes: Classes, runtime: str, precision: str, threads: int, where: torch.device,
    lanes: int = 1,
) -> Detector:  # fmt: skip
    if precision == "int8":
        raise ModelError("torch has no int8 here: fcos export --format openvino --precision int8 --calibrate DATA")
    if threads and lanes == 1:  # otherwise each lane sets its own
        torch.set_num_threads(threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    network: Network = fuse(model, dtype).to(where)
    if runtime == "compile":
        # weights as constants, laid out for the kernels ahead of time; must be set before the first call
        torch._inductor.config.freezing = True  # type: ignore[attr-defined]
        network = torch.compile(network)  # type: ignore[assignment]
    return Detector(network, config, classes, where, runtime=runtime, precision=precision, lanes=lanes, threads=threads)


def _fastest(
    model: FCOS, config: Config, classes: Classes, precision: str, threads: int, where: torch.device
) -> Detector:
    """The first of the runtimes for this device that is installed and gives torch's detections of the package's
    pictures, else torch."""
    from ..export.check import compare, verdict

    reference = _in_torch(model, config, classes, "torch", precision, threads, where)
    for runtime in export.RUNTIMES if where.type == "cpu" else export.ON_DEVICE[:1]:
        try:
            network = export.on_the_fly(model, config, classes, runtime, precision, threads, where)
        except FcosError:  # not installed, or not for this network
            continue
        found = _around(network, where, precision)
        if not verdict(compare(reference, found), precision):
            return found
    return reference


def pick_device(name: str = "auto") -> torch.device:
    """'auto' (CUDA, MPS, CPU, in this order), or a device by name; DeviceError when it is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise RuntimeError(f"{torch.cuda.device_count()} CUDA devices are visible")
        if device.type not in ("cpu", "cuda") and not torch.get_device_module(device).is_available():
            raise RuntimeError("it is not available here")
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        if reason.startswith("Expected one of"):  # torch's list of all devices that anyone has
            reason = "there is no such device; the usual are cpu, cuda, cuda:1 and mps"
        raise DeviceError(f"device {name!r} cannot be used: {reason}; try --device cpu") from None
    return device


def load_source(source: Source) -> np.ndarray:
    """Any source as [H,W,3] uint8 RGB; ImageError where it cannot be one."""
    if isinstance(source, bytes):
        return read_image(source)
    if isinstance(source, str | os.PathLike):
        return read_image(os.fspath(source))
    if isinstance(source, Tensor):
        array = source.detach().cpu()
        if array.ndim == 3 and array.shape[0] in (1, 3):
            array = array.permute(1, 2, 0)
        if array.is_floating_point():
            if array.numel() and (float(array.min()) < 0 or float(array.max()) > 1):
                raise ImageError("a float picture must lie in 0..1; give uint8 for 0..255")
            array = (array * 255).round().to(torch.uint8)
        source = array.numpy()
    elif not isinstance(source, np.ndarray):
        if not hasattr(source, "convert"):
            raise ImageError(f"cannot take a {type(source).__name__} for a picture; give a path, PIL image or array")
        from PIL import ImageOps

        source = np.asarray(ImageOps.exif_transpose(source).convert("RGB"))
    if source.ndim == 3 and source.shape[2] == 1:
        source = source[..., 0]
    if source.ndim == 2:
        source = np.repeat(source[..., None], 3, axis=2)
    if source.ndim != 3 or source.shape[2] not in (3, 4) or source.dtype != np.uint8 or 0 in source.shape:
        raise ImageError(f"a picture must be [H,W,3] uint8, not {source.shape} {source.dtype}")
    return np.ascontiguousarray(source[..., :3])


def _fit(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of a picture shrunk to lie inside `size`."""
    ratio = min(size[0] / shape[0], size[1] / shape[1])
    height, width = (min(max(round(side * ratio), 1), most) for side, most in zip(shape, size, strict=True))
    return height, width


def name_of(source: Source) -> str | None:
    """The path of a source that has one."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else None
