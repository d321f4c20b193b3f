"""Ambiguous locations (1904.01355, section 4.1.2, table 2): positives that lie in several boxes and learn
the smallest. Where all of them are of one class, the location's class is right whichever box it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..analysis.common import scenes_by_size, stack
from ..analysis.scan import class_pairs, scan
from ..assign import candidate_pairs
from ..config import Config
from ..data.classes import as_seen, inclusive
from ..inference.dataset import predict_dataset
from ..points import make_points
from ..system.terminal import json_ready, percent, plural, table
from ..zoo.models import known_models
from .asked import Asked, Judged
from .recall import p4_only, sampling

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..detections import Detections

PAPER = {"P4 only": (0.2316, 0.1784), "FPN": (0.0714, 0.0375)}


@dataclass(frozen=True)
class AmbiguityRow:
    """Share of the positives, 0..1, whose location lies in several boxes (`ambiguous`), and of several
    classes (`different`); the same with boxes read as the original code does; the paper's numbers."""

    method: str
    positives: int
    ambiguous: float
    different: float
    inclusive: tuple[float, float]
    paper: tuple[float, float] | None


@dataclass(frozen=True)
class AmbiguityStudy:
    """Ambiguous locations of a data set; `pairs`: (class that kept the location, class that gave way, how
    often) with the FPN and the whole box, most frequent first. `detections`: shares of a model's final
    detections that come from ambiguous locations, all and of different classes, where a model was given: by
    the whole box, as the paper counts, and by the model's own center sampling."""

    data: str
    images: int
    boxes: int
    size: tuple[int, int]
    rows: tuple[AmbiguityRow, ...]
    pairs: tuple[tuple[str, str, int], ...]
    detections: tuple[tuple[float, float], tuple[float, float]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        result: dict[str, Any] = json_ready({**vars(self), "rows": [vars(r) for r in self.rows]})
        return result

    def text(self) -> str:
        """For a terminal."""
        rows = []
        for r in self.rows:
            numbers = ((r.ambiguous, r.different), r.inclusive, r.paper)
            rows.append((r.method, f"{r.positives:,}", *(_two(n, i) for i in range(2) for n in numbers)))
        head = ("FCOS", "positives", "ambiguous", "x+w-1", "paper", "different", "x+w-1", "paper")
        lines = [
            f"ambiguous locations, % of positives, {self.data}: {plural(self.boxes, 'box')} "
            f"of {plural(self.images, 'image')}, "
            f"input {self.size[0]}/{self.size[1]}",
            table(head, rows),
            "different: the boxes are of several classes; x+w-1: boxes read as the paper's code reads them",
        ]
        if self.detections is not None:
            whole, own = ([percent(v) for v in shares] for shares in self.detections)
            lines.append(
                f"final detections from ambiguous locations: {whole[0]} %, of different classes {whole[1]} % "
                f"(paper: 2.3 % and 1.5 %); by the model's own center sampling: {own[0]} % and {own[1]} %"
            )
        if self.pairs:
            lines += ["", "whose place is it? (FPN, whole box)"]
            lines.append(table(("kept by", "lost by", "locations"), [(a, b, f"{n:,}") for a, b, n in self.pairs], 2))
        return "\n".join(lines)

    def plot(self, path: Path) -> None:
        """Bars of every row beside the paper's numbers."""
        from ..show.bar_plots import bars

        names: list[str] = []
        columns: dict[str, list[float | None]] = {"here": [], "as the paper's code": [], "paper": []}
        for row in self.rows:
            for i, kind in enumerate(("all", "of different classes")):
                names.append(f"{row.method}: {kind}")
                values = ((row.ambiguous, row.different)[i], *(v and v[i] for v in (row.inclusive, row.paper)))
                for column, value in zip(columns.values(), values, strict=True):
                    column.append(value)
        bars(path, "Ambiguous locations among positives", names, columns)


def _two(numbers: tuple[float, float] | None, i: int) -> str:
    return percent(None if numbers is None else numbers[i])


def ambiguity_study(dataset: Dataset, config: Config) -> AmbiguityStudy:
    """Table 2, and the same with center sampling, at the input size of `config`."""
    radius = config.assign.center_radius or 1.5
    readings = [dataset, inclusive(dataset)]
    whole = sampling(config, 0.0)
    variants = {
        "P4 only": p4_only(whole),
        "FPN": whole,
        f"P4 only, center sampling {radius:g}": p4_only(sampling(config, radius)),
        f"FPN, center sampling {radius:g}": sampling(config, radius),
    }
    rows, seen = [], {}
    for name, variant in variants.items():
        scans = [scan(d, variant, f"FCOS, {name}") for d in readings]
        seen[name] = scans[0]
        here, other = (s.ambiguity for s in scans)
        rows.append(AmbiguityRow(name, int(scans[0].positives.sum()), *here, other, PAPER.get(name)))
    size = (config.data.size, config.data.max_size)
    pairs = class_pairs(seen["FPN"], dataset.classes.names)
    return AmbiguityStudy(str(dataset.root), len(dataset.records), seen["FPN"].boxes, size, tuple(rows), pairs)


def ambiguous_detections(detections: Sequence[Detections], dataset: Dataset, config: Config) -> tuple[float, float]:
    """Shares of the final detections whose location is a candidate for several true boxes: all, and of
    several classes. detections[i] belongs to dataset.records[i] and knows its locations."""
    total = several = mixed = 0
    for size, scenes in scenes_by_size(dataset, config.data).items():
        points = make_points(size, config.model, config.assign)
        for scene in scenes:
            boxes, labels, _ = stack([scene])
            spot, box = candidate_pairs(points, boxes, config.assign)
            fired = detections[scene.record].points
            pairs = (spot * len(dataset.classes) + labels[box]).unique()
            boxes_at = spot.bincount(minlength=len(points.xy))
            classes_at = (pairs // len(dataset.classes)).bincount(minlength=len(points.xy))
            total += len(fired)
            several += int((boxes_at[fired] > 1).sum())
            mixed += int((classes_at[fired] > 1).sum())
    return (several / total, mixed / total) if total else (float("nan"), float("nan"))


def run(asked: Asked) -> Judged:
    """The study as it is asked for, with detections of a model that has weights where the images are at hand."""
    dataset, model = asked.dataset(), asked.model
    bare = model in known_models() and known_models()[model].path() is None  # a preset without weights detects nothing
    if model is None or bare or all(r.path is None for r in dataset.records):
        config = asked.config()
        dataset = as_seen(dataset, config.data)
        return dataset, ambiguity_study(dataset, config)
    detector = asked.detector()
    dataset = asked.judged(detector)
    detections = predict_dataset(detector, dataset)
    config = detector.config
    whole = ambiguous_detections(detections, dataset, sampling(config, 0.0))
    shares = whole, ambiguous_detections(detections, dataset, config)
    return dataset, replace(ambiguity_study(dataset, config), detections=shares)
