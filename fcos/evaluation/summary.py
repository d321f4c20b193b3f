"""The numbers of an evaluation as one value: as a table, as JSON, and what they say where nothing was right."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import FcosError, did_you_mean
from ..system.names import UNKNOWN, find_class
from ..system.terminal import decimal, html_table, json_ready, plural, table

if TYPE_CHECKING:
    from .operating_point import OperatingPoint
    from .uncertainty import Interval

_CLASSES = 10  # rows of the short table
_NAME = 32  # letters of a class's name in it


@dataclass(frozen=True)
class ClassMetrics:
    """One class: its name and id in the data, the objects to find, and the numbers, 0..1, nan where there
    is no object. `ar` allows the largest of `Metrics.max_detections` per image; `threshold` is the score
    with the best F1 at IoU 0.5, `f1` that F1."""

    name: str
    id: int
    objects: int
    ap: float
    ap50: float
    ar: float
    voc_ap50: float
    voc_ap50_11: float
    threshold: float
    f1: float


@dataclass(frozen=True, repr=False)
class Metrics:
    """The numbers of an evaluation, all 0..1, nan where nothing could be counted.

    AP is the mean over IoU 0.50:0.05:0.95 and over the classes that have objects. Small is below 32 x 32
    pixels of annotated area, large above 96 x 96. `ar[k]` allows k detections per class and image; all
    other COCO numbers allow the largest of `max_detections`. `voc_ap50` is the mean of the all-point VOC
    AP, `voc_ap50_11` of the 11-point one. `threshold` is the score with the best F1 over all classes
    pooled, at IoU 0.5, and `f1` that F1. `intervals` are the 95 % intervals of AP, AP50 and AP75, where they were
    asked for; `split` is what the images are of, empty where that is not known; `at_score` counts what is found, missed
    and wrong from one score on (`fcos.evaluate` has it). Printed, it is a short table;
    `table()` has all of it, and `metrics["dog"]` the numbers of one class.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar: dict[int, float]
    ar_small: float
    ar_medium: float
    ar_large: float
    voc_ap50: float
    voc_ap50_11: float
    threshold: float
    f1: float
    classes: tuple[ClassMetrics, ...]
    images: int
    objects: int
    ignored: int
    detections: int
    max_detections: tuple[int, ...]
    class_agnostic: bool
    backend: str
    seconds: float
    intervals: Mapping[str, Interval] | None = None
    split: str = ""
    at_score: OperatingPoint | None = None

    def __getitem__(self, name: str) -> ClassMetrics:
        """The numbers of one class, by its name; upper case, spaces, "-" and "_" do not matter. FcosError for a name
        that is no class."""
        names = [row.name for row in self.classes]
        label = find_class(name, names) if isinstance(name, str) else UNKNOWN
        if label == UNKNOWN:
            hint = did_you_mean(name, names, f"there are {', '.join(names[:10])}")
            raise FcosError(f"there is no class {name!r}; {hint}")
        return self.classes[label]

    __iter__ = None  # `metrics.classes` is what can be gone through

    def __repr__(self) -> str:
        """A short table: the numbers that people compare, and the classes, the weakest first."""
        lines = [self._main(), self._by_size(), self._counted(), *self._shown(), *filter(None, [self.hint()])]
        head, rows, left = self._weakest()
        lines += ["", table(head, rows)] if rows else []
        lines += [f"({plural(left, 'class')} with a higher AP: .classes, .table())"] if left else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from html import escape

        head, rows, left = self._weakest()
        text = [self._main(), self._by_size(), self._counted(), *self._shown(), self.hint()]
        text += [f"{plural(left, 'class')} with a higher AP: .classes"] if left else []
        lines = "<br>".join(escape(line) for line in text if line)
        return f"<p>{lines}</p>{html_table(head, rows) if rows else ''}"

    def hint(self) -> str:
        """What to look at where nothing was right; nothing otherwise."""
        if not self.objects:
            return "there are no objects to find in these images, so nothing can be judged"
        if not self.detections:
            return "the model found nothing at any score: was it trained long enough, and on such images?"
        if self.ap50 == 0:
            return (
                "no detection is right: too short a training, or other classes, images or boxes than it learned; "
                "fcos explain says what became of each object, fcos doctor what is wrong with the data"
            )
        return ""

    def _main(self) -> str:
        parts = []
        for name, value in {"AP": self.ap, "AP50": self.ap50, "AP75": self.ap75}.items():
            around = (self.intervals or {}).get(name)
            parts.append(
                f"{name} {decimal(value)}"
                + (
                    f" [{around.low:.3f}, {around.high:.3f}]"
                    if around is not None and not math.isnan(around.low)
                    else ""
                )
            )
        return "  ".join(parts)

    def _by_size(self) -> str:
        sizes = {"small": self.ap_small, "medium": self.ap_medium, "large": self.ap_large}
        return "  ".join(f"{k} {decimal(v)}" for k, v in sizes.items())

    def _counted(self) -> str:
        ignored = f" (and {self.ignored:,} ignored)" if self.ignored else ""
        counts = ((self.images, "image"), (self.objects, "object"), (self.detections, "detection"))
        images, objects, detections = (plural(n, what) for n, what in counts)
        judged = f" of {self.split}" if self.split not in ("", "all") else ""
        return f"{images}{judged}, {objects}{ignored}, {detections}"

    def _shown(self) -> list[str]:
        """The line of what is found and wrong from one score on, where that was counted."""
        return [] if self.at_score is None else [self.at_score.line()]

    def _weakest(self) -> tuple[tuple[str, ...], list[tuple[str, ...]], int]:
        """Head and rows of the classes with objects, the lowest AP first, and how many more there are."""
        rows = sorted((c for c in self.classes if c.objects), key=lambda c: c.ap)
        cells: list[tuple[str, ...]] = [
            (c.name[:_NAME], f"{c.objects:,}", decimal(c.ap), decimal(c.ap50)) for c in rows[:_CLASSES]
        ]
        return ("class", "objects", "AP", "AP50"), cells, max(0, len(rows) - _CLASSES)

    def numbers(self) -> dict[str, float]:
        """The headline numbers by their usual names, in the usual order."""
        return {
            "AP": self.ap,
            "AP50": self.ap50,
            "AP75": self.ap75,
            "AP_small": self.ap_small,
            "AP_medium": self.ap_medium,
            "AP_large": self.ap_large,
            **{f"AR@{k}": self.ar[k] for k in sorted(self.ar) if k in self.max_detections},
            "AR_small": self.ar_small,
            "AR_medium": self.ar_medium,
            "AR_large": self.ar_large,
            **{f"AR@{k}": self.ar[k] for k in sorted(self.ar) if k not in self.max_detections},
            "VOC_AP50": self.voc_ap50,
            "VOC_AP50_11point": self.voc_ap50_11,
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; None stands where nothing could be counted. `intervals` are among them where they are there."""
        limit = max(self.max_detections)
        return {
            **{name: json_ready(value) for name, value in self.numbers().items()},
            "best_F1": json_ready(self.f1),
            "best_F1_score": json_ready(self.threshold),
            "per_class": [
                {
                    "name": row.name,
                    "id": row.id,
                    "objects": row.objects,
                    "AP": json_ready(row.ap),
                    "AP50": json_ready(row.ap50),
                    f"AR@{limit}": json_ready(row.ar),
                    "VOC_AP50": json_ready(row.voc_ap50),
                    "VOC_AP50_11point": json_ready(row.voc_ap50_11),
                    "best_F1": json_ready(row.f1),
                    "best_F1_score": json_ready(row.threshold),
                }
                for row in self.classes
            ],
            "images": self.images,
            "objects": self.objects,
            "ignored": self.ignored,
            "detections": self.detections,
            "class_agnostic": self.class_agnostic,
            "backend": self.backend,
            "seconds": round(self.seconds, 3),
            **({"at_score": self.at_score.to_dict()} if self.at_score else {}),
            **({"intervals": {k: v.to_dict() for k, v in self.intervals.items()}} if self.intervals else {}),
        }

    def table(self, width: int = 100) -> str:
        """The numbers as text: the headline numbers aligned, then one row per class."""
        from rich.console import Console
        from rich.table import Table as Columns

        limit = max(self.max_detections)
        names = list(self.numbers())
        longest = max(map(len, names))
        lines = [f"{name:<{longest}}  {decimal(value, 4)}" for name, value in self.numbers().items()]
        lines.append(f"{'best F1':<{longest}}  {decimal(self.f1, 4)}  at score {decimal(self.threshold, 4)} (IoU 0.5)")
        lines += self._shown()
        lines.append(f"{self._counted()}, {self.seconds:.2f} s with {self.backend}")
        lines += [self.hint()] if self.hint() else []
        columns = Columns(box=None, pad_edge=False, header_style="")
        columns.add_column("class", overflow="fold")
        for title in ("id", "objects", "AP", "AP50", f"AR@{limit}", "VOC AP50", "11-point", "F1", "at score"):
            columns.add_column(title, justify="right", no_wrap=True)
        for row in self.classes:
            values = (row.ap, row.ap50, row.ar, row.voc_ap50, row.voc_ap50_11, row.f1, row.threshold)
            columns.add_row(row.name, str(row.id), str(row.objects), *(decimal(value, 4) for value in values))
        text = io.StringIO()
        Console(file=text, width=width, color_system=None, markup=False, highlight=False).print(columns)
        rows = [line.rstrip() for line in text.getvalue().splitlines()]
        return "\n".join([*lines, "", *rows])
