"""What was found in an image: boxes, scores and names, ready to be counted, drawn, written or handed on."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, SupportsIndex, TypeAlias, cast, overload

import numpy as np
import torch
from torch import Tensor

from .errors import FcosError, did_you_mean, no_attribute, require
from .foreign import Numbers, as_corners, as_field, numbered
from .kept import Kept
from .system.files import csv_text, write_whole
from .system.names import UNKNOWN, find_class

if TYPE_CHECKING:
    import pandas
    import supervision
    from PIL.Image import Image

Mask: TypeAlias = "Tensor | np.ndarray | slice | Sequence[bool] | Sequence[int]"
_NOTEBOOK = 900  # longer side in pixels of the image that a notebook shows
_ELSEWHERE = {  # what other programs call it
    "xyxy": ".boxes",
    "xywh": ".to_coco()",
    **dict.fromkeys(("conf", "confidence", "probs"), ".scores"),
    **dict.fromkeys(("cls", "class_id", "classes"), ".labels, or .names[label]"),
    **dict.fromkeys(("id", "tracker_id"), ".track_ids"),
    "path": ".source",
    **dict.fromkeys(("plot", "show", "render"), ".draw()"),
    **dict.fromkeys(("pandas", "to_df"), ".to_pandas()"),
    **dict.fromkeys(("json", "to_json", "tojson"), '.to_dict(), or .save("found.json")'),
    "to_csv": '.save("found.csv")',
    "cpu": '.to("cpu")',
}
DRAWN = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")  # what `Detections.save` draws, and writes
WRITTEN = (".json", ".txt", ".csv")


class Detection(NamedTuple):
    """One object: box (x1, y1, x2, y2) in pixels of the image, class name, score in 0..1, label and the index of the
    location that fired."""

    box: tuple[float, float, float, float]
    name: str
    score: float
    label: int
    point: int

    def __str__(self) -> str:
        """For people: `dog 0.90 at 10, 20, 50, 90`; the fields have all digits."""
        return f"{self.name} {self.score:.2f} at {', '.join(f'{side:.0f}' for side in self.box)}"


class Arrays(NamedTuple):
    """boxes [D,4] float32, scores [D] float32, labels [D] int64, points [D] int64."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    points: np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """What was found in one image: by a detector best first, else in the order that is given.

    boxes [D,4] float32 xyxy in pixels of the image, scores [D] in 0..1, labels [D] int64, points [D]
    int64: the index of the location that fired (see `Points`), -1 or left out where none did, as of other programs.
    Arrays, lists and tensors of other numbers become these, and torchvision's `BoundingBoxes` of another form corners;
    labels may be names in a list or array. `names` are the class names and `ids` the
    classes' ids in their data set, `size` the (height, width) of the image and `source` its path, where known.
    `track_ids` [D] int64 are the objects' numbers in a video that was tracked, -1 for none.
    ValueError for shapes that do not fit, for labels beyond `names` and those that are not whole, and for lists and
    arrays of boxes and scores that cannot be these: not finite, scores beyond 0..1, x2 below x1 by more than a pixel.

    >>> found = Detections(
    ...     torch.tensor([[10.0, 20.0, 50.0, 90.0], [5.0, 5.0, 9.0, 9.0]]), torch.tensor([0.9, 0.4]),
    ...     torch.tensor([1, 0]), torch.tensor([7, 3]), names=("cat", "dog"), ids=(17, 18), size=(100, 200),
    ... )
    >>> found
    Detections(1 dog, 1 cat; 200x100)
    >>> for d in found:
    ...     print(d)
    dog 0.90 at 10, 20, 50, 90
    cat 0.40 at 5, 5, 9, 9
    >>> found[0].name, found[0].box
    ('dog', (10.0, 20.0, 50.0, 90.0))
    >>> found["dog"], found[found.scores < 0.5], found[:1]
    (Detections(1 dog; 200x100), Detections(1 cat; 200x100), Detections(1 dog; 200x100))
    >>> found.to_coco(image_id=3)[0]["category_id"]
    18
    """

    if TYPE_CHECKING:  # what it takes is more than what its fields are

        def __init__(
            self,
            boxes: Numbers,
            scores: Numbers,
            labels: Numbers,
            points: Numbers | None = None,
            names: Sequence[str] = (),
            size: tuple[int, int] | None = None,
            source: str | None = None,
            ids: Sequence[int] = (),
            image: Kept | None = None,
            track_ids: Numbers | None = None,
        ) -> None: ...

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    points: Tensor = None  # type: ignore[assignment]  # None: -1 for each
    names: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    source: str | None = None
    ids: tuple[int, ...] = ()
    image: Kept | None = field(default=None, repr=False)
    track_ids: Tensor | None = None
    _real: ClassVar[torch.dtype] = torch.float32  # of boxes and scores

    def __post_init__(self) -> None:
        for name in ("names", "ids"):
            given = getattr(self, name)
            if not isinstance(given, tuple):
                object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given))
        self._take()
        self._check()

    def _take(self) -> None:
        """Make tensors of the fields that are none, or of other numbers."""
        labels, names = numbered(self.labels, self.names)
        given = {"boxes": as_corners(self.boxes), "scores": self.scores, "labels": labels}
        given |= {"points": self.points, "track_ids": self.track_ids}
        for name, value in given.items():
            kind = self._real if name in ("boxes", "scores") else torch.int64
            if value is not None and not (isinstance(value, Tensor) and value.dtype == kind):
                value = as_field(name, value, kind)
            if value is not getattr(self, name):
                object.__setattr__(self, name, value)
        if names is not self.names:
            object.__setattr__(self, "names", names)
        if self.points is None:
            object.__setattr__(self, "points", torch.full((len(self.boxes),), -1, device=self.boxes.device))

    def _check(self) -> None:
        """ValueError for fields of different lengths, and for a label beyond the names."""
        count = len(self.boxes)
        if self.boxes.shape != (count, 4):
            raise ValueError(f"boxes must be [D,4], not {tuple(self.boxes.shape)}")
        for name in ("scores", "labels", "points", "track_ids"):
            value = getattr(self, name)
            if value is not None and value.shape != (count,):
                raise ValueError(f"{name} must be [{count}], not {tuple(value.shape)}")
        if self.names and count and self.labels.device.type == "cpu":  # of a GPU it would have to be waited for
            low, high = int(self.labels.min()), int(self.labels.max())
            if low < 0 or high >= len(self.names):
                odd = low if low < 0 else high
                raise ValueError(f"the label {odd} is none of 0..{len(self.names) - 1}: {', '.join(self.names[:10])}")

    if not TYPE_CHECKING:  # which knows what there is

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name, _ELSEWHERE)

    @staticmethod
    def empty() -> Detections:
        """The detections of an image in which nothing was found, D = 0, without names."""
        none = torch.zeros(0, dtype=torch.int64, device="cpu")
        return Detections(torch.zeros(0, 4, dtype=torch.float32, device="cpu"), none.float(), none, none)

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[Detection]:
        rows = zip(*(value.tolist() for value in (self.boxes, self.scores, self.labels, self.points)), strict=True)
        for (x1, y1, x2, y2), score, label, point in rows:
            yield Detection((x1, y1, x2, y2), self._name(label), score, label, point)

    @overload
    def __getitem__(self, keep: int) -> Detection: ...
    @overload
    def __getitem__(self, keep: str | Sequence[str] | Mask) -> Detections: ...
    def __getitem__(self, keep: int | str | Sequence[str] | Mask) -> Detection | Detections:
        """One detection by its number; by class name or names, mask, slice or numbers those that are selected.
        Upper case, spaces, "-" and "_" do not matter in names. FcosError for a name that is no class."""
        if isinstance(keep, int | np.integer):
            if not -len(self) <= keep < len(self):
                raise IndexError(f"there are {len(self)} detections, no number {keep}")
            start = int(keep) % len(self)
            return next(iter(self._rows(slice(start, start + 1))))
        if isinstance(keep, str):
            return self._rows(self.labels == self._label(keep))
        if isinstance(keep, Sequence):
            if any(isinstance(name, str) for name in keep):
                wanted = [self._label(str(name)) for name in keep]
                return self._rows(torch.isin(self.labels, self.labels.new_tensor(wanted)))
            keep = cast("Mask", keep)
        return self._rows(keep)

    def __eq__(self, other: object) -> bool:
        """The same boxes, scores, labels, points and names; where the image lies does not matter."""
        if not isinstance(other, Detections):
            return NotImplemented
        a, b = self.to("cpu"), other.to("cpu")
        pairs = ((a.boxes, b.boxes), (a.scores, b.scores), (a.labels, b.labels), (a.points, b.points))
        return (a.names, a.size) == (b.names, b.size) and all(torch.equal(x, y) for x, y in pairs)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        of = f" in {Path(self.source).name}" if self.source else ""
        return f"Detections({self.summary()}{of}{'; {1}x{0}'.format(*self.size) if self.size else ''})"

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows; nothing where the image is not at hand."""
        return None if not self._drawable() else as_png(self.draw())

    def summary(self) -> str:
        """Such as `2 person, 1 dog`; nothing where nothing was found."""
        counts = Counter(self._name(label) for label in self.labels.tolist())
        return ", ".join(f"{n} {name}" for name, n in counts.most_common()) or "nothing"

    def to(self, device: torch.device | str) -> Detections:
        """The same on another device: boxes, scores, labels, points and track_ids."""
        device = torch.device(device)  # a number format would do for a tensor, and is none of labels
        return replace(
            self,
            boxes=self.boxes.to(device),
            scores=self.scores.to(device),
            labels=self.labels.to(device),
            points=self.points.to(device),
            track_ids=None if self.track_ids is None else self.track_ids.to(device),
        )

    def name(self, row: int) -> str:
        """Class name of one detection, or its label as text where names are unknown. IndexError beyond the end."""
        return self._name(int(self.labels[row]))

    def numpy(self) -> Arrays:
        """boxes, scores, labels and points as NumPy arrays."""
        here = self.to("cpu")
        return Arrays(*(value.detach().numpy() for value in (here.boxes, here.scores, here.labels, here.points)))

    def to_pandas(self) -> pandas.DataFrame:
        """A table with a row for each detection: name, score, x1, y1, x2, y2, label (extra: pandas)."""
        pd = require("pandas", "pandas")
        boxes, scores, labels, _ = self.numpy()
        columns = {
            "name": pd.Series([self._name(label) for label in labels.tolist()], dtype=str),  # of no rows too
            "score": scores,
            **{side: boxes[:, k] for k, side in enumerate(("x1", "y1", "x2", "y2"))},
            "label": labels,
        }
        frame: pandas.DataFrame = pd.DataFrame(columns)
        return frame

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: file, width, height, and for each detection name (its class, which label repeats), class (the
        number of that), score, box (x1, y1, x2, y2 in pixels)."""
        height, width = self.size or (0, 0)
        rows = [
            # label: what readers of version 1.0 look for
            {
                "name": d.name,
                "label": d.name,
                "class": d.label,
                "score": round(d.score, 4),
                "box": [round(v, 2) for v in d.box],
            }
            for d in self
        ]
        return {"file": self.source, "width": width, "height": height, "detections": rows}

    def to_supervision(self) -> supervision.Detections:
        """These detections as `supervision.Detections` (extra: supervision)."""
        sv = require("supervision", "supervision")
        boxes, scores, labels, _ = self.numpy()
        names = np.array([self._name(label) for label in labels.tolist()], dtype=str)
        found: supervision.Detections = sv.Detections(
            xyxy=boxes, confidence=scores, class_id=labels, data={"class_name": names}
        )
        return found

    def to_coco(self, image_id: int | str = 1, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """COCO results rows: bbox is [x, y, width, height]. The category is the class's id in its data set, `ids`,
        or `category_ids[label]` where given; the label itself where no ids are known."""
        ids = self.ids if category_ids is None else category_ids
        if category_ids is not None and len(self) and int(self.labels.max()) >= len(ids):
            raise FcosError(
                f"category_ids has {len(ids)} numbers, and there is a detection of class {self.labels.max()}"
            )
        return [
            {
                "image_id": _plain(image_id),
                "category_id": _plain(ids[d.label]) if d.label < len(ids) else d.label,
                "bbox": [d.box[0], d.box[1], d.box[2] - d.box[0], d.box[3] - d.box[1]],
                "score": d.score,
            }
            for d in self
        ]

    def to_yolo(self) -> str:
        """YOLO's txt with scores, a line for each detection: class, centre x, centre y, width, height as shares of
        the image, score."""
        if self.size is None and len(self):
            raise FcosError("YOLO's boxes are shares of the image; give its size to these Detections: (height, width)")
        height, width = self.size or (1, 1)
        lines = []
        for (x1, y1, x2, y2), _, score, label, _ in self:
            values = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height, score)
            lines.append(f"{label} " + " ".join(f"{v:.6f}" for v in values))
        return "\n".join(lines) + ("\n" if lines else "")

    def draw(self, image: Any = None, *, score: float = 0.0) -> Image:
        """A copy of the image with the boxes of at least `score` on it; `image` may be left out where the detections
        know theirs: from a file, or given to the detector and still at hand. FcosError where it is gone."""
        from .show.draw import draw_detections

        return draw_detections(self._image() if image is None else image, self, score)

    def crop(self, image: Any = None) -> list[Image]:
        """The part of the image inside each box, in the order of the detections."""
        from PIL import Image as Pillow

        from .inference.sources import load_source

        pixels = load_source(self._image() if image is None else image)
        height, width = pixels.shape[:2]
        parts = []
        for x1, y1, x2, y2 in self.boxes.tolist():
            left, top = min(max(int(x1), 0), width - 1), min(max(int(y1), 0), height - 1)
            right, bottom = min(max(-int(-x2 // 1), left + 1), width), min(max(-int(-y2 // 1), top + 1), height)
            parts.append(Pillow.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right])))
        return parts

    def save(self, path: str | Path) -> Path:
        """Write what the suffix says: .jpg, .png and the like the image with its boxes, .json `to_dict`, .txt
        `to_yolo`, .csv a table. FcosError for another suffix, or where the file cannot be written."""
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix in DRAWN:
            drawn = self.draw()
            return write_whole(path, lambda temporary: drawn.save(temporary, quality=92))
        if suffix == ".json":
            return write_whole(path, json.dumps(self.to_dict(), ensure_ascii=False, indent=1) + "\n")
        if suffix == ".txt":
            return write_whole(path, self.to_yolo())
        if suffix == ".csv":
            return write_whole(path, self._csv())
        raise FcosError(f"cannot write {path}: detections become .jpg, .png, .json, .txt (YOLO) or .csv")

    def _csv(self) -> str:
        return csv_text([("name", "score", "x1", "y1", "x2", "y2", "label"), *self._cells()])

    def _cells(self) -> Iterator[tuple[object, ...]]:
        return ((d.name, f"{d.score:.4f}", *(f"{v:.2f}" for v in d.box), d.label) for d in self)

    def _rows(self, keep: Mask) -> Detections:
        if isinstance(keep, slice) or (isinstance(keep, np.ndarray) and any(step < 0 for step in keep.strides)):
            keep = torch.from_numpy(np.arange(len(self))[keep].copy())  # torch knows no steps backward
        elif isinstance(keep, tuple):
            keep = list(keep)
        return replace(
            self,
            boxes=self.boxes[keep].reshape(-1, 4),
            scores=self.scores[keep].reshape(-1),
            labels=self.labels[keep].reshape(-1),
            points=self.points[keep].reshape(-1),
            track_ids=None if self.track_ids is None else self.track_ids[keep].reshape(-1),
        )

    def _name(self, label: int) -> str:
        return self.names[label] if 0 <= label < len(self.names) else str(label)

    def _label(self, name: str) -> int:
        label = find_class(name, self.names)
        if label == UNKNOWN:
            hint = did_you_mean(name, self.names, f"there are {', '.join(self.names[:10]) or 'no names'}")
            raise FcosError(f"the model has no class {name!r}; {hint}")
        return label

    def _drawable(self) -> bool:
        return (self.image is not None and self.image.get() is not None) or (
            self.source is not None and Path(self.source).is_file()
        )

    def _image(self) -> Any:
        """The image as it was given, or its file."""
        kept = self.image.get() if self.image is not None else None
        if kept is not None:
            return kept
        if self.source is None:
            raise FcosError("these detections do not have their image any more; give it: draw(image)")
        return self.source


class Results(list[Detections]):
    """The detections of several images, a list that draws as a sheet."""

    @overload
    def __getitem__(self, which: SupportsIndex) -> Detections: ...
    @overload
    def __getitem__(self, which: str | slice) -> Results: ...
    def __getitem__(self, which: SupportsIndex | str | slice) -> Detections | Results:
        """Those of one image by its number, of several by a slice; by the name of a class its detections of each
        image."""
        if isinstance(which, str):
            return Results(one[which] for one in self)
        found = super().__getitem__(which)
        return Results(found) if isinstance(found, list) else found

    def draw(self, columns: int | None = None) -> Image:
        """All images with their boxes beside each other."""
        from PIL import Image as Pillow

        from .show.draw import sheet

        titles = [Path(d.source).name if d.source else str(k) for k, d in enumerate(self, 1)]
        return Pillow.fromarray(sheet([np.asarray(d.draw()) for d in self], columns, titles))

    def save(self, path: str | Path) -> Path:
        """Write a table of all, .csv with the file of each, or .json, a list of `to_dict`. FcosError for another
        suffix, or where the file cannot be written."""
        path = Path(path)
        if path.suffix.lower() == ".csv":
            return write_whole(path, table(self))
        if path.suffix.lower() == ".json":
            content = [detections.to_dict() for detections in self]
            return write_whole(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
        raise FcosError(f"cannot write {path}: detections of several images become .csv or .json")

    def to_pandas(self) -> pandas.DataFrame:
        """A table of all: file, and the columns of `Detections.to_pandas` (extra: pandas)."""
        pd = require("pandas", "pandas")
        several: Sequence[Detections] = self or [Detections.empty()]
        tables = [one.to_pandas() for one in several]
        for one, part in zip(several, tables, strict=True):
            part.insert(0, "file", one.source or "")
        full = [part for part in tables if len(part)] or tables[:1]  # an empty one has no say in the types
        frame: pandas.DataFrame = pd.concat(full, ignore_index=True)
        return frame

    def to_coco(self, image_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """COCO results rows of all; the images are numbered `image_ids`, or 1, 2, ... FcosError where there are more or
        fewer of these."""
        ids = range(1, len(self) + 1) if image_ids is None else image_ids
        if len(ids) != len(self):
            raise FcosError(f"image_ids has {len(ids)} numbers for {len(self)} images; give one for each")
        return [row for one, number in zip(self, ids, strict=True) for row in one.to_coco(number)]

    def __repr__(self) -> str:
        return "[" + ",\n ".join(repr(d) for d in self) + "]"

    def _repr_png_(self) -> bytes | None:
        some = self[:16]  # a notebook is no place for a thousand
        return as_png(some.draw()) if some and all(d._drawable() for d in some) else None


def table(several: Iterable[Detections], head: bool = True) -> str:
    """A row for each detection of several images, as CSV: file, name, score 0..1, x1, y1, x2, y2 in pixels, label.
    head: their names in front."""
    names = [("file", "name", "score", "x1", "y1", "x2", "y2", "label")] if head else []
    return csv_text([*names, *((each.source or "", *row) for each in several for row in each._cells())])


def _plain(number: int | str) -> int | str:
    """NumPy's numbers as Python's, which JSON can hold."""
    return int(number) if isinstance(number, np.integer) else number


def as_png(image: Image) -> bytes:
    """What a notebook shows of an image: a smaller copy of a large one."""
    image.thumbnail((_NOTEBOOK, _NOTEBOOK))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
