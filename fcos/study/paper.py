"""The paper's tables that need a model and images, all from head outputs that were computed once.

Each function takes the cache of `fcos.study.cached`, the data set and the config. The paper's numbers are
those of ResNet-50 on COCO; they stand beside this project's to compare the direction, not the height.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..boxes import iou
from ..config import Config
from ..evaluation.coco import evaluate, flatten
from ..evaluation.metrics import Curve, match_coco, overlaps, precision_recall, voc_ap
from ..losses import centerness_target
from ..show.axes import COLORS, INK, MUTED, OURS, new_figure, style
from ..show.bar_plots import bars
from ..system.terminal import data_name, percent, plain, plural, table, track
from ..types import Detections
from .cached import Candidates, redecode, redecode_all

if TYPE_CHECKING:
    from ..data.dataset import Dataset

RULES: dict[str, dict[str, Any]] = {
    "cls": {"score": "class"},
    "cls*ctr": {"score": "product"},
    "sqrt(cls*ctr)": {"score": "sqrt"},
    "cls^.3*ctr^.7": {"score": "power", "power": 0.3},
    "cls^.7*ctr^.3": {"score": "power", "power": 0.7},
}
NMS_IOU = (0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8)
THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Row:
    """One variant: its numbers by name, 0..1, and the paper's where it has them."""

    name: str
    numbers: dict[str, float]
    paper: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PaperStudy:
    """A table of variants. `advice`: settings for the config, where the study gives some; `extra`: what
    the plot needs (arrays), not printed."""

    study: str
    data: str
    split: str
    images: int
    rows: tuple[Row, ...]
    advice: str = ""
    note: str = ""
    extra: dict[str, Any] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return plain(
            {k: v for k, v in vars(self).items() if k not in ("rows", "extra")} | {"rows": [vars(r) for r in self.rows]}
        )

    def text(self) -> str:
        """For a terminal."""
        names = list(dict.fromkeys(k for r in self.rows for k in r.numbers))
        cited = [k for k in names if any(k in r.paper for r in self.rows)]
        head = (self.study, *names, *(f"paper {k}" for k in cited))
        rows = [
            (r.name, *(percent(r.numbers.get(k)) for k in names), *(percent(r.paper.get(k), 1) for k in cited))
            for r in self.rows
        ]
        lines = [f"{self.data}, split {self.split}, {plural(self.images, 'image')}; all in %", table(head, rows)]
        if self.note:
            lines.append(self.note)
        if self.advice:
            lines += ["best setting found here:", f"  {self.advice}"]
            if self.split.startswith("test"):
                lines.append("  (chosen on a test split: check it on another before relying on it)")
        return "\n".join(lines)

    def plot(self, path: Path) -> None:
        """Write the plot of the study."""

        paper_plot(self, path)


def _study(name: str, dataset: Dataset, rows: Sequence[Row], **more: Any) -> PaperStudy:
    return PaperStudy(name, str(dataset.root), dataset.split, len(dataset), tuple(rows), **more)


def _ap(detections: Sequence[Detections], dataset: Dataset) -> dict[str, float]:
    m = evaluate(detections, dataset)
    return {"AP": m.ap, "AP50": m.ap50, "AP75": m.ap75}


# --------------------------------------------------------------------------- centerness, table 4


def centerness_study(cached: Sequence[Candidates], dataset: Dataset, config: Config) -> PaperStudy:
    """AP without centerness, with the one of the predicted box, with the branch (table 4), and the appendix's
    class-agnostic precision and recall at IoU 0.5, 0.75, 0.9.

    All three decode one trained network, so "none" differs from the paper's, where it was never trained.
    """
    computed = [replace(c, centerness=centerness_of_box(c)) for c in cached]
    rule = "sqrt" if config.decode.score == "class" else config.decode.score
    variants = (
        ("none", redecode_all(cached, config, score="class"), 0.335),
        ("computed from the box", redecode_all(computed, config, score=rule), 0.335),
        ("branch", redecode_all(cached, config, score=rule), 0.371),
    )
    rows, curves = [], {}
    for name, detections, paper in variants:
        curves[name] = agnostic_curves(detections, dataset)
        numbers = _ap(detections, dataset)
        numbers |= {f"agnostic AP{round(100 * k)}": voc_ap(v, points=101) for k, v in curves[name].items()}
        rows.append(Row(name, numbers, {"AP": paper}))
    extra = {"curves": curves, "scatter": score_against_iou(cached, config)}
    return _study("centerness", dataset, rows, extra=extra)


def centerness_of_box(c: Candidates) -> Tensor:
    """[K] the centerness that the predicted box would have; 0 for boxes without an area."""
    return torch.nan_to_num(centerness_target(c.distances.clamp(min=0)), nan=0.0)


def agnostic_curves(detections: Sequence[Detections], dataset: Dataset) -> dict[float, Curve]:
    """Precision and recall with all classes as one, at each IoU."""
    flat, truth = flatten(detections, dataset, class_agnostic=True)
    pairs = overlaps(flat, truth, minimum=0.5)
    objects = int((~truth.ignore).sum())
    return {k: precision_recall(flat.scores, match_coco(flat, truth, pairs, k), objects) for k in (0.5, 0.75, 0.9)}


def score_against_iou(cached: Sequence[Candidates], config: Config, most: int = 6000) -> np.ndarray:
    """[K,3]: class probability, class probability times centerness, and IoU with the nearest true box of the
    class, of candidates before NMS that pass the threshold (the paper's figure on centerness)."""
    parts = []
    for c in cached:
        rows = (c.probability > config.decode.threshold).nonzero()[:, 0]
        if not len(rows):
            continue
        overlap = _own_iou(c)[rows]
        parts.append(torch.stack((c.probability[rows], c.probability[rows] * c.centerness[rows], overlap), dim=1))
    values = torch.cat(parts).numpy() if parts else np.zeros((0, 3), np.float32)
    if len(values) > most:
        values = values[np.random.default_rng(0).choice(len(values), most, replace=False)]
    return values


def _own_iou(c: Candidates) -> Tensor:
    """[K] highest IoU of each candidate with a true box of its class, 0 where there is none."""
    if not len(c.truth) or not len(c.boxes):
        return torch.zeros(len(c.boxes))
    return (iou(c.boxes, c.truth) * (c.labels[:, None] == c.truth_labels[None])).amax(dim=1)


# --------------------------------------------------------------------------- NMS


def nms_study(cached: Sequence[Candidates], dataset: Dataset, config: Config) -> PaperStudy:
    """AP by score rule and NMS threshold, then by low-score threshold at the best of them."""
    grid: dict[tuple[str, float], float] = {}
    cells = [(rule, least) for rule in RULES for least in NMS_IOU]
    for rule, least in track(cells, len(cells), "decoding"):
        detections = redecode_all(cached, config, nms_iou=least, **RULES[rule])
        grid[rule, least] = evaluate(detections, dataset).ap
    rows = [Row(rule, {f"IoU {k:g}": grid[rule, k] for k in NMS_IOU}) for rule in RULES]
    now = evaluate(redecode_all(cached, config), dataset).ap

    def merit(cell: tuple[str, float]) -> tuple[float, bool]:  # the present rule wins a draw
        ap = -1.0 if np.isnan(grid[cell]) else round(grid[cell], 4)
        return ap, RULES[cell[0]]["score"] == config.decode.score

    rule, least = max(grid, key=merit)
    best = {"nms_iou": least, **RULES[rule]}
    swept = {t: evaluate(redecode_all(cached, config, threshold=t, **best), dataset).ap for t in THRESHOLDS}
    rows.append(Row("best, score >", {f"{t:g}": v for t, v in swept.items()}))
    known = {t: v for t, v in swept.items() if not np.isnan(v)}
    threshold = max(known, key=lambda t: (round(known[t], 4), t)) if known else config.decode.threshold
    advice = " ".join(f"decode.{k}={v}" for k, v in {**best, "threshold": threshold}.items())
    note = f"AP of the present settings: {percent(now)}; of the best: {percent(swept.get(threshold, now))}"
    extra = {"grid": {rule: [grid[rule, k] for k in NMS_IOU] for rule in RULES}}
    return _study("nms", dataset, rows, advice=advice, note=note, extra=extra)


# --------------------------------------------------------------------------- proposals, table 6


def proposals_study(
    cached: Sequence[Candidates],
    dataset: Dataset,
    config: Config,
    baselines: Mapping[str, Sequence[Detections]] | None = None,
) -> PaperStudy:
    """Class-agnostic proposals: AR@100 and AR@1000 with and without centerness (table 6).

    cached, config: of `fcos.inference.proposals.proposer` on the data as one class, cached with `least=0`. `baselines`:
    other detectors' proposals by name.
    """
    rows = [Row("RPN with FPN (paper)", {}, {"AR@100": 0.447, "AR@1000": 0.569})]
    rows += [Row(name, _recall(detections, dataset)) for name, detections in (baselines or {}).items()]
    rule = "sqrt" if config.decode.score == "class" else config.decode.score
    for name, score, paper in (("FCOS without centerness", "class", (0.480, 0.593)), ("FCOS", rule, (0.528, 0.603))):
        detections = redecode_all(cached, config, score=score)
        rows.append(Row(name, _recall(detections, dataset), {"AR@100": paper[0], "AR@1000": paper[1]}))
    note = f"each location gives the box of its most probable class; NMS over all classes at {config.decode.nms_iou:g}"
    return _study("proposals", dataset, rows, note=note)


def _recall(detections: Sequence[Detections], dataset: Dataset) -> dict[str, float]:
    ar = evaluate(detections, dataset, class_agnostic=True, max_detections=(100, 1000)).ar
    return {f"AR@{k}": ar[k] for k in (100, 1000)}


# --------------------------------------------------------------------------- oracles


def oracle_study(cached: Sequence[Candidates], dataset: Dataset, config: Config) -> PaperStudy:
    """Where AP is lost: one output at a time replaced by the truth.

    centerness: locations inside a true box (whole box, level's range, smallest wins) get their training
    target, the others keep the predicted value. IoU: every candidate's centerness becomes its IoU with the
    nearest true box of its class. class: locations inside get probability 1 for their class, 0 for others.
    box: locations inside give exactly the true box. NMS: of the candidates that overlap a true box of their
    class by IoU >= 0.5 the best one stays and no other; the rest go through NMS.
    """
    cfg = config.decode
    rows = [Row("as predicted", _ap([redecode(c, cfg) for c in cached], dataset), {"AP": 0.371})]
    mends: tuple[tuple[str, Callable[[Candidates], Candidates], dict[str, float]], ...] = (
        ("true centerness", true_centerness, {"AP": 0.421}),
        ("IoU as centerness", lambda c: replace(c, centerness=_own_iou(c)), {}),
        ("true class", true_class, {}),
        ("true box", true_box, {}),
    )
    for name, mend, paper in mends:
        detections = [redecode(mend(c), cfg) for c in cached]
        rows.append(Row(name, _ap(detections, dataset), paper))
    detections = [redecode(*perfect_nms(c, config)) for c in cached]
    rows.append(Row("true NMS", _ap(detections, dataset)))
    return _study("oracle", dataset, rows, note="the code behind the paper's 42.1 was never published (m: from memory)")


def true_centerness(c: Candidates) -> Candidates:
    """Candidates whose location learns a box get that box's centerness target."""
    inside = c.owner >= 0
    if not inside.any():
        return c
    box = c.truth[c.owner[inside]]
    target = centerness_target(torch.cat((c.xy[inside] - box[:, :2], box[:, 2:] - c.xy[inside]), dim=1))
    centerness = c.centerness.clone()
    centerness[inside] = target
    return replace(c, centerness=centerness)


def true_class(c: Candidates) -> Candidates:
    """Candidates whose location learns a box are certain of its class."""
    inside = c.owner >= 0
    probability = c.probability.clone()
    if inside.any():
        probability[inside] = (c.labels[inside] == c.truth_labels[c.owner[inside]]).float()
    return replace(c, probability=probability)


def true_box(c: Candidates) -> Candidates:
    """Candidates whose location learns a box give exactly that box."""
    inside = c.owner >= 0
    boxes = c.boxes.clone()
    if inside.any():
        boxes[inside] = c.truth[c.owner[inside]]
    return replace(c, boxes=boxes)


def perfect_nms(c: Candidates, config: Config) -> tuple[Candidates, Any, Tensor]:
    """(candidates, decode settings, kept [K]) for `redecode`: one candidate for each true box that has any."""
    from ..decode import score

    cfg = config.decode
    final = score(c.probability, c.centerness, cfg)
    kept = torch.zeros(len(c.boxes), dtype=torch.bool)
    away = torch.zeros(len(c.boxes), dtype=torch.bool)
    if len(c.truth) and len(c.boxes):
        overlap = iou(c.boxes, c.truth) * (c.labels[:, None] == c.truth_labels[None])
        value, which = overlap.max(dim=1)
        alive = (value >= 0.5) & ((c.probability if cfg.threshold_on == "class" else final) > cfg.threshold)
        for g in which[alive].unique().tolist():
            mine = (alive & (which == g)).nonzero()[:, 0]
            kept[mine[final[mine].argmax()]] = True
            away[mine] = True
    away &= ~kept
    return replace(c, probability=torch.where(away, 0.0, c.probability)), cfg, kept


def paper_plot(study: PaperStudy, path: Path) -> None:
    """The plot of one of the studies of `paper.py`."""
    if study.study == "centerness":
        _centerness(study, path)
    elif study.study == "nms":
        _nms(study, path)
    else:
        keys = list(dict.fromkeys(k for r in study.rows for k in (*r.numbers, *r.paper)))
        names, here, paper = [], [], []
        for row in study.rows:
            for key in keys if study.study == "proposals" else ["AP"]:
                names.append(f"{row.name}, {key}")
                here.append(row.numbers.get(key))
                paper.append(row.paper.get(key))
        bars(
            path,
            f"{study.study}: {data_name(study.data)}, {study.split}",
            names,
            {"here": here, "paper (COCO, R-50)": paper},
        )


def _centerness(study: PaperStudy, path: Path) -> None:
    figure = new_figure(13.6, 4.2)
    left, middle, right = figure.subplots(1, 3)
    points = study.extra["scatter"]
    for axes, column, title in ((left, 0, "class probability"), (middle, 1, "class probability x centerness")):
        style(axes, title, "score", "IoU with its object")
        axes.scatter(points[:, column], points[:, 2], s=4, alpha=0.25, color=OURS, linewidths=0)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
        axes.set(xlim=(0, 1), ylim=(0, 1))
    style(right, "all classes as one", "recall", "precision")
    styles = {0.5: "-", 0.75: (0, (5, 2)), 0.9: (0, (1, 1.5))}
    for (name, curves), color in zip(study.extra["curves"].items(), COLORS, strict=False):
        for least, curve in curves.items():
            label = name if least == 0.5 else None
            right.plot(curve.recall, curve.precision, color=color, linestyle=styles[least], linewidth=1.4, label=label)
    for least, line in styles.items():
        right.plot([], [], color=MUTED, linestyle=line, label=f"IoU {least:g}")
    right.set(xlim=(0, 1), ylim=(0, 1.02))
    figure.legend(frameon=False, labelcolor=INK, fontsize=9, loc="outside right upper")
    figure.savefig(path, format="png")


def _nms(study: PaperStudy, path: Path) -> None:

    figure = new_figure(8.4, 4.6)
    axes = figure.add_subplot()
    style(axes, "AP by NMS threshold and score rule", "NMS threshold, IoU", "AP, %")
    grid: dict[str, Any] = study.extra["grid"]
    for (rule, values), color in zip(grid.items(), COLORS, strict=False):
        line = "o--" if rule.startswith("sqrt") else "o-"  # ranks as its square does, and would hide it
        axes.plot(NMS_IOU, 100 * np.array(values), line, color=color, markersize=4, label=rule)
    axes.legend(frameon=False, labelcolor=INK)
    figure.savefig(path, format="png")
