"""An exported graph as a Network: tensors to its types, batches to its length, results to Predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..detections import Detections
from ..errors import ModelError
from ..system.machine import Placement
from ..types import Predictions
from .about import About
from .registry import FORMATS, format_of

# images, and sizes [N,2] for graphs that end in detections -> the graph's outputs in order
Run = Callable[..., tuple[Tensor, ...]]


class Runtime:
    """A Network: images [N,3,H,W] -> Predictions, computed by `run` of the file `path`, which is open where and how
    `place` says. A copy is the same one; one that is sent to another process opens the file there."""

    def __init__(self, run: Run, about: About, path: Path, place: Placement) -> None:
        self.run, self.about, self.path, self.place = run, about, path, place

    def __deepcopy__(self, _: dict[int, Any]) -> Runtime:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        path = self.path.absolute()
        if not path.exists():  # made on the fly, or removed since
            raise ModelError(f"{path} is gone, so other processes cannot open it; let each load the model by itself")
        return reopened, (path, self.place, self.about)

    def __call__(self, images: Tensor) -> Predictions:
        return Predictions(*self._batches(images))

    def _batches(self, images: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """Run in parts of the graph's batch; the last part is filled up with its last image."""
        images = as_pixels(images, self.about)
        size = tuple(int(v) for v in images.shape[-2:])
        if self.about.size not in (None, size):
            raise ModelError(f"{self.path} takes images padded to {self.about.size}, not {size}")
        step = self.about.batch
        if step is None or step == len(images):
            return self.run(images, *others)
        parts = []
        for start in range(0, len(images), step):
            inputs = [value[start : start + step] for value in (images, *others)]
            count = len(inputs[0])
            filled = [torch.cat((v, v[-1:].expand(step - count, *v.shape[1:]))) for v in inputs]
            parts.append([value[:count] for value in self.run(*filled)])
        return tuple(torch.cat(values) for values in zip(*parts, strict=True))


def in_parts(run: Run, most: int) -> Run:
    """`run` for any number of images where the graph takes at most so many at once."""

    def whole(*inputs: Tensor) -> tuple[Tensor, ...]:
        if len(inputs[0]) <= most:
            return run(*inputs)
        parts = [run(*(v[at : at + most] for v in inputs)) for at in range(0, len(inputs[0]), most)]
        return tuple(torch.cat(values) for values in zip(*parts, strict=True))

    return whole


class EndToEndRuntime(Runtime):
    """A graph with decoding and NMS inside: `detect` instead of Predictions."""

    def __call__(self, images: Tensor) -> Predictions:
        raise ModelError(f"{self.path} ends in detections; for the predictions of every point export without --nms")

    def detect(self, images: Tensor, sizes: list[tuple[int, int]]) -> list[Detections]:
        """Detections of each image, best first, in pixels of the input; sizes: (height, width) unpadded."""
        outputs = self._batches(images, torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2))
        boxes, scores, labels, points, count = (value.cpu() for value in outputs)
        return [
            Detections(
                boxes[i, :n].float(), scores[i, :n].float(), labels[i, :n].long(), points[i, :n].long(), size=sizes[i]
            )
            for i, n in enumerate(count.tolist())
        ]


def running(path: Path, place: Placement, stored: About, about: About) -> Runtime:
    """The runtime of a file whose graph ends in predictions, or in detections. stored: what the file says; about: the
    same with the settings that were changed."""
    run = FORMATS[place.runtime].module.runtime(path, stored, place)
    return (EndToEndRuntime if about.nms else Runtime)(run, about, path, place)


def reopened(path: Path, place: Placement, about: About) -> Runtime:
    """The runtime of a file that another process has open, whose `about` is given. ModelError where the file has
    changed since."""
    written = format_of(path)
    now: About | None = None if written is None else written.module.read(path)
    if now is None or now.sha256 != about.sha256:
        raise ModelError(f"{path} has changed since the model was loaded; load it again")
    return running(path, place, now, about)


def as_pixels(images: Tensor, about: About) -> Tensor:
    """Contiguous pixels of the type that the graph takes."""
    if about.pixels == "float32":
        images = images.float()
    elif images.is_floating_point():
        images = images.round().to(torch.uint8)
    return images.contiguous()
