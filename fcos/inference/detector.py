"""Images in, Detections out: one Detector over any network, runtime or device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypedDict, TypeVar, Unpack, overload

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..boxes import last_pixel
from ..config import Config
from ..data.images.reading import resize, resized_shape
from ..decode import calibrated, decode
from ..detections import Detections, Results
from ..errors import ConfigError, ModelError, check_count, check_names, no_attribute
from ..export.registry import OWN_THREADS
from ..export.runtime import EndToEndRuntime
from ..kept import Kept
from ..points import check_points, make_points, padded
from ..system.door import door, in_python
from ..system.machine import Placement
from ..system.terminal import plural
from ..system.threads import torch_threads
from ..types import Classes, Network, Points, class_names
from .composite import OWN, Looks, compose
from .runtime_switch import ChangeOver
from .scores import Scores, lowest, of_classes, reached
from .sources import PIXELS_AHEAD, Source, load_source, name_of
from .views import parse_views

if TYPE_CHECKING:
    from ..export.job import ExportOptions, Result
    from .video import Frame, VideoSource

S = TypeVar("S", bound="Source")
Sources: TypeAlias = "list[S] | tuple[S, ...]"


_ELSEWHERE = {  # what other programs call it
    **dict.fromkeys(("names", "class_names", "CLASSES"), ".classes.names"),
    **dict.fromkeys(("predict", "detect_image", "infer"), "model(image)"),
    "track": "model.stream(video), or fcos track on the command line",
    **dict.fromkeys(("to", "cuda", "cpu"), 'fcos.load(NAME, device="cuda")'),
    "eval": "nothing: it is always so",
    **dict.fromkeys(("train", "fit"), "fcos.train(data, init=NAME)"),
    **dict.fromkeys(("val", "evaluate"), "fcos.evaluate(model, data)"),
    "info": "fcos info NAME on the command line",
}


class Changes(TypedDict, total=False):
    """What `Detector.replace` takes."""

    network: Network
    config: Config
    classes: Classes
    placement: Placement
    size: tuple[int, int] | None


class _Prepared(NamedTuple):
    """An image of a list that waits for others of its size: its place in the list, height and width, what the network
    gets, and (height, width) of that in front of its padding."""

    place: int
    size: tuple[int, int]
    tensor: Tensor
    unpadded: tuple[int, int]


@dataclass(frozen=True, eq=False, repr=False)
class Detector:
    """A network with everything around it: pre-processing, decoding, class names.

    detector("photo.jpg") gives Detections; a list gives a list. Sources are paths, PIL images, arrays
    [H,W,3] or [H,W] uint8 RGB, tensors [3,H,W] (uint8, or float in 0..1). Boxes are in pixels of the
    image as displayed (EXIF rotation applied). An image's result does not depend on the images beside
    it: only those of equal padded size share a batch.

    `placement` says where and how the network computes; `size` is the only (height, width) that the network
    takes, if so: images are shrunk to fit.

    >>> model = fcos.load("fcos-lite0", device="cpu")
    >>> model("photo.jpg")
    Detections(1 cat in photo.jpg; 451x300)
    >>> model(["photo.jpg", "my_data/astronaut.jpg"])[1]["person"]
    Detections(1 person in astronaut.jpg; 480x480)
    >>> len(model("photo.jpg", score=0)) > 1
    True
    """

    network: Network
    config: Config
    classes: Classes
    placement: Placement = field(default_factory=Placement)
    size: tuple[int, int] | None = None
    _points: dict[tuple[int, int], Points] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.classes, Classes):
            object.__setattr__(self, "classes", Classes(class_names(self.classes)))
        for name, kind in (("config", Config), ("placement", Placement)):
            if not isinstance(getattr(self, name), kind):
                raise ConfigError(f"{name} is a {type(getattr(self, name)).__name__}; give a {kind.__name__}")
        if self.size is not None:
            object.__setattr__(self, "size", _pair(self.size))
        logits = getattr(getattr(self.network, "head", None), "class_logits", None)
        told = getattr(logits, "out_channels", len(self.classes))
        if told != len(self.classes):
            raise ModelError(f"the network tells {plural(told, 'class')} apart, and {len(self.classes)} are named")
        lines, classes = len(self.config.decode.calibration), len(self.classes)
        if lines not in (0, 1, classes):
            raise ModelError(
                f"decode.calibration has {lines} lines for {plural(classes, 'class')}; give one, or one each"
            )

    if not TYPE_CHECKING:  # which knows what there is

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name, _ELSEWHERE)

    def __repr__(self) -> str:
        place = self.running
        how = f"{place.runtime} {place.dtype} on {place.device}"
        return f"Detector({self.config.name}, {plural(len(self.classes), 'class')}, {how})"

    def replace(self, **changes: Unpack[Changes]) -> Detector:
        """This detector with other parts: network, config, classes, placement, size."""
        return replace(self, **changes)

    @door
    def export(self, out: str | Path, **options: Unpack[ExportOptions]) -> Result:
        """Write the model for another runtime, and check that it still detects the same.

        Args:
            out: the file, which ends in .onnx, .xml (OpenVINO), .engine (TensorRT), .torchscript, .pte, .mlpackage,
                .tflite or .html (a page that detects); the folder with `format="triton"`.
            format: as of `fcos export`; left out: by `out`.
            dynamic: what the input leaves free: "batch,size", "batch", "size" or "none".
            size: the fixed input in pixels, "320x480", (320, 480) or 320.
            nms: True to decode in the graph.
            dtype: "fp32", "fp16" or "int8".
            calibrate, images: for int8, the path of a data set, and how many of its images to use.
            data, split: the path of a data set to compare AP on, and its split.

        Returns what was written and how it compares.

        Raises:
            ModelError: a file that fails its check; it stays as OUT.rejected. ConfigError: options that do not fit.
            MissingExtra: a package that the format needs is not installed.
        """
        from ..export import job

        check_names(options, job.ExportOptions.__annotations__, "Detector.export")
        told: dict[str, Any] = {**options}
        size = options.get("size")
        if size is not None and not isinstance(size, str):
            height, width = _pair((size, size) if isinstance(size, int) else size)
            told["size"] = f"{height}x{width}"
        result = job.run(job.Job(lambda: job.plain(self), out=Path(out), **told))
        if result.wrong:
            raise ModelError(f"{result.file} was rejected: {'; '.join(result.wrong)}")
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, also one in another process, computes in torch where this one chose a graph, which belongs to it."""
        plain = self.in_torch()
        return type(self), (plain.network, plain.config, plain.classes, plain.placement, plain.size)

    @property
    def device(self) -> torch.device:
        """Where images are computed at first, that of `placement`."""
        return self.placement.device

    @property
    def running(self) -> Placement:
        """Where and how the next image is computed: `placement`, or what the network changed over to."""
        return self.network.placement if isinstance(self.network, ChangeOver) else self.placement

    def in_torch(self) -> Detector:
        """This detector in torch where its network chose a graph by itself; any other as it is."""
        if not isinstance(self.network, ChangeOver):
            return self
        network, placement = self.network.torch
        return self.replace(network=network, placement=placement)

    @property
    def last_pixel(self) -> Tensor:
        """[4] what to add to the network's boxes xyxy, in pixels of the image, so that x2 - x1 is their width: 1 for x2
        and y2 if it learned `data.inclusive_boxes`, where these are the last pixel inside, else 0."""
        return last_pixel(self.config.data)

    @property
    def shown(self) -> float:
        """The lowest score shown where none is asked for: the model's own, that of the best F1 on what it was judged
        by in training, else 0.5."""
        return self.config.decode.lowest_shown

    @overload
    def __call__(
        self,
        source: Source,
        *,
        score: Scores | None = ...,
        batch: int = ...,
        tile: int | str | None = ...,
        tta: str = ...,
    ) -> Detections: ...
    @overload
    def __call__(
        self,
        source: list[Source],
        *,
        score: Scores | None = ...,
        batch: int = ...,
        tile: int | str | None = ...,
        tta: str = ...,
    ) -> Results: ...
    @overload
    def __call__(
        self,
        source: Sources[S],
        *,
        score: Scores | None = ...,
        batch: int = ...,
        tile: int | str | None = ...,
        tta: str = ...,
    ) -> Results: ...
    @in_python()
    def __call__(
        self,
        source: Source | Sources[S] | list[Source],
        *,
        score: Scores | None = None,
        batch: int = 1,
        tile: int | str | None = OWN,
        tta: str = "",
    ) -> Detections | Results:
        """Detect in one image, or in each of a list: the Detections of the one, or a list of Detections (Results).

        Args:
            source: a path, the bytes of an image file, a PIL image, an array [H,W], [H,W,3] or [H,W,4] or a tensor of
                such shapes or [1|3|4,H,W], RGB, uint8, uint16 or float in 0..1; or a list of these.
            score: the lowest score that is given, 0..1: 0 gives all, None what is worth showing (`shown`). By class:
                {"dog": 0.3} or "0.5,dog=0.3".
            batch: images of a list that go through the network together, 1.
            tile: cut a large image into tiles of so many pixels, or "auto"; None: look at the whole image. Left out, a
                detector that learned from tiles (`data.tile`) looks at such.
            tta: look several times and put the boxes together, such as "flip,0.8,1.2"; "" once.

        Raises:
            ImageError: a source that cannot be read as an image; of a list nothing is given then. ConfigError: a
            `score`, `batch`, `tile` or `tta` that makes no sense. FcosError: a score for a class that the detector does
            not know.
        """
        least = lowest(score, self.classes, self.shown)
        if isinstance(least, Tensor):
            found = self(source, score=float(least.min()), batch=batch, tile=tile, tta=tta)
            if isinstance(found, Detections):
                return reached(found, least)
            return Results(reached(one, least) for one in found)
        check_count("batch", batch)
        looks = Looks(tile, views=parse_views(tta))
        if isinstance(source, list | tuple):
            return Results(self._remembering(list(source), least, batch, looks))
        return self._remembering([source], least, 1, looks)[0]

    def stream(
        self,
        source: VideoSource,
        *,
        every: int = 1,
        batch: int = 1,
        score: Scores | None = None,
        rate: float | None = None,
        tile: int | str | None = OWN,
        tta: str = "",
    ) -> Iterator[Frame]:
        """Detect in a video, frame by frame: `Frame(index, time, image, detections)`. A live source gives its newest
        frame, a file every one.

        Args:
            source: a video file, a camera (a number), a stream (an address); or a sequence of images: a folder, a glob,
                a name such as img%06d.jpg, or any iterable of what a call takes.
            every: look at each Nth frame only, 1.
            batch: frames that go through the network together, 1.
            score, tile, tta: as of a call, for each frame.
            rate: frames a second of a sequence of images, 25.

        Raises:
            VideoError: a source that cannot be opened. ImageError: a frame that is no image; of a folder or pattern
                such a file is left out. ConfigError, FcosError: as of a call.
        """
        from .video import Reader
        from .video_stream import stream

        check_count("every", every)
        check_count("batch", batch)
        least = lowest(score, self.classes, self.shown)
        with in_python(), Reader(source, rate) as reader:
            first = float(least.min()) if isinstance(least, Tensor) else least
            looker = compose((self,), Looks(tile, views=parse_views(tta)))
            frames = stream(looker, reader, every=every, batch=batch, score=first)
            for frame in of_classes(frames, least) if isinstance(least, Tensor) else frames:
                if frame.detections is not None:
                    yield frame

    def _remembering(self, sources: list[Any], score: float, batch: int, looks: Looks) -> list[Detections]:
        """Detections that know their image: the file, or what was given."""
        names = [name_of(source) for source in sources]
        kept: dict[int, Kept] = {}  # by place

        def load(place: int) -> np.ndarray:
            image = load_source(sources[place])
            if names[place] is None:
                kept[place] = Kept(image, sources[place])
            return image

        found = compose((self,), looks).detect(map(load, range(len(sources))), names, score, batch)
        return [replace(one, image=kept[place]) if place in kept else one for place, one in enumerate(found)]

    def detect(
        self, images: Iterable[np.ndarray], names: Sequence[str | None], score: float = 0.0, batch: int = 1
    ) -> list[Detections]:
        """Detections of decoded images [H,W,3] uint8 RGB, in their pixels; all of them unless `score` is given. Images
        of an iterator are taken one by one, and none is held once the network's input is made of it."""
        with self._threads():
            return self._detect(images, names, score, batch)

    def _threads(self) -> AbstractContextManager[None]:
        """torch's threads while this detector works: those of `placement`; the caller's are as before afterwards."""
        place = self.running
        # a runtime with threads of its own loses half of its speed to torch's, which wait for work by spinning
        return torch_threads(1 if place.runtime in OWN_THREADS and self.device.type == "cpu" else place.threads)

    def _detect(
        self, images: Iterable[np.ndarray], names: Sequence[str | None], score: float, batch: int
    ) -> list[Detections]:
        results: dict[int, Detections] = {}
        groups: dict[tuple[int, ...], list[_Prepared]] = {}  # images that wait, by the size of the network's input
        count = waiting = 0  # images so far; pixels that wait

        def pass_on(part: Sequence[_Prepared]) -> None:
            tensors = [one.tensor for one in part]
            stacked = tensors[0][None] if len(tensors) == 1 else torch.stack(tensors)
            decoded = self.forward(stacked, [one.unpadded for one in part])
            for one, detections in zip(part, decoded, strict=True):
                results[one.place] = self.finish(detections, one.size, names[one.place], score)

        for image in images:
            tensor, unpadded = self.prepare(image)
            shape = tuple(tensor.shape)
            groups.setdefault(shape, []).append(_Prepared(count, image.shape[:2], tensor, unpadded))
            del image, tensor  # not while the next is read
            count, waiting = count + 1, waiting + shape[1] * shape[2]
            if len(groups[shape]) >= batch:
                waiting -= len(groups[shape]) * shape[1] * shape[2]
                pass_on(groups.pop(shape))
            elif waiting > PIXELS_AHEAD:
                waiting = 0
                while groups:
                    pass_on(groups.popitem()[1])
        while groups:
            pass_on(groups.popitem()[1])
        return [results[place] for place in range(count)]

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) to which an image of this size is brought, in front of the padding."""
        data = self.config.data
        shape = resized_shape(size, data.size, data.max_size, data.round)
        beyond = self.size is not None and (shape[0] > self.size[0] or shape[1] > self.size[1])
        return _fit(size, self.size) if self.size is not None and beyond else shape

    def prepare(self, image: np.ndarray) -> tuple[Tensor, tuple[int, int]]:
        """Network input [3,H,W], padded to the divisor, and the (height, width) in front of the padding."""
        data, fill = self.config.data, self.config.model.mean
        shape = self.resized(image.shape[:2])
        if data.resample == "torch":  # torchvision resizes in float
            tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float()
            if tuple(shape) != image.shape[:2]:
                tensor = F.interpolate(tensor[None], size=shape, mode="bilinear", align_corners=False)[0]
        else:
            pixels = resize(image, shape, data.resample)
            # Pillow's are read-only, of which torch warns
            tensor = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).permute(2, 0, 1)
            tensor = tensor.float() if data.padding == "exact" else tensor
        height, width = self.size or padded(shape, data.divisor)
        if (height, width) == tuple(shape):
            return tensor, shape
        values = torch.tensor(fill, dtype=torch.float32, device="cpu")
        if not tensor.is_floating_point():
            values = values.round().to(tensor.dtype)
        # the channels of a pixel lie side by side, as OpenCV gives them and channels_last networks take them
        canvas = torch.empty((height, width, 3), dtype=tensor.dtype, device="cpu")
        canvas[: shape[0], : shape[1]] = tensor.permute(1, 2, 0)
        canvas[shape[0] :] = values
        canvas[: shape[0], shape[1] :] = values
        return canvas.permute(2, 0, 1), shape

    @torch.inference_mode()
    def forward(self, images: Tensor, sizes: list[tuple[int, int]]) -> list[Detections]:
        """Detections of prepared images [N,3,H,W], in pixels of the network input; in the numbers of `placement`, also
        within a caller's autocast."""
        with self._threads(), torch.autocast(self.device.type, enabled=False):
            if isinstance(self.network, EndToEndRuntime):
                return self.network.detect(images.to(self.device), sizes)
            predictions = self.network(images.to(self.device))
            points = self.points(images.shape[-2:])
            check_points(predictions, len(points.xy), self.config)
            return decode(predictions, points, sizes, self.config.decode)

    def finish(self, detections: Detections, size: tuple[int, int], name: str | None, score: float) -> Detections:
        """Detections in pixels of an image of (height, width), with names, at least `score`."""
        detections = detections.to("cpu")
        height, width = detections.size or size
        ratio = torch.tensor([size[1] / width, size[0] / height] * 2, dtype=torch.float32, device="cpu")
        if self.config.decode.calibrated:
            probability = calibrated(detections.scores, detections.labels, self.config.decode)
            order = probability.argsort(descending=True, stable=True)  # best first over all classes, as before
            detections = replace(detections[order], scores=probability[order])
        return Detections(
            boxes=self._scaled(detections.boxes.float(), ratio, size),
            scores=detections.scores.float(),
            labels=detections.labels,
            points=detections.points,
            names=self.classes.names,
            size=(int(size[0]), int(size[1])),
            source=name,
            ids=self.classes.ids,
        )[detections.scores >= score]

    def _scaled(self, boxes: Tensor, ratio: Tensor, size: Sequence[int]) -> Tensor:
        """Boxes of the input in pixels of the image of (height, width); what was cut to the input ends in the image,
        where rounding would leave it a hundred-thousandth of a pixel outside."""
        boxes = boxes * ratio + self.last_pixel
        if self.config.decode.clip in ("before", "after"):
            boxes = boxes.minimum(boxes.new_tensor([size[1], size[0]] * 2))
        return boxes

    def points(self, size: Sequence[int]) -> Points:
        """The points of a network input of (height, width), kept for the next image of that size."""
        key = (int(size[0]), int(size[1]))
        points = self._points.get(key)
        if points is None:  # several threads may come here at once
            if len(self._points) > 64:  # a folder of odd sizes must not fill the memory
                self._points.clear()
            points = self._points[key] = make_points(key, self.config.model, self.config.assign, self.device)
        return points


def _pair(size: object) -> tuple[int, int]:
    """(height, width) in pixels; ConfigError for anything else."""
    sides = tuple(size) if isinstance(size, Sequence) and not isinstance(size, str) else ()
    if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in sides):
        raise ConfigError(f"size={size!r}: give (height, width) in pixels")
    return int(sides[0]), int(sides[1])


def _fit(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image shrunk to lie inside `size`."""
    ratio = min(size[0] / shape[0], size[1] / shape[1])
    height, width = (min(max(round(side * ratio), 1), most) for side, most in zip(shape, size, strict=True))
    return height, width
